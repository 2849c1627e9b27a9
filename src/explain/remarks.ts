import type { Finding } from '../domain/finding.ts';
import type { Remark } from './explanation.ts';

type Place = Pick<Finding, 'line' | 'column'>;
type Note = (severity: Finding['severity'], code: string, part: string | undefined, message: string, place?: Place) => void;

/** Remarks in the order in which they come up; the same of the same part is kept once. */
export interface Remarks {
  /** What cloud-init writes into the machine's log, too. */
  log: Note;
  /** What happens without a word. */
  note: Note;
  all(): Remark[];
}

/** One document cannot have more remarks than people read. */
const MAX_REMARKS = 1000;

export function collectRemarks(): Remarks {
  const kept = new Map<string, Remark>();
  const keep =
    (logged: boolean): Note =>
    (severity, code, part, message, place) => {
      const key = JSON.stringify([code, part, message]);
      if (kept.has(key) || kept.size >= MAX_REMARKS) return;
      kept.set(key, { severity, code, ...(part === undefined ? {} : { part }), ...place, message, logged });
    };
  return { log: keep(true), note: keep(false), all: () => [...kept.values()] };
}

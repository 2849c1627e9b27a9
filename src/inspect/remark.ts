import type { Finding } from '../domain/finding.ts';
import type { Path } from './json-schema.ts';
import type { DocumentPlaces } from './places.ts';

/** How many findings a document gets; the last one counts the rest. */
const MAX_FINDINGS = 50;

/** A finding about one place of a document, not yet a line and a column. */
export interface Remark {
  severity: Finding['severity'];
  code: string;
  path: Path;
  /** What of the path is meant: its value, unless its key is said. */
  what?: 'key';
  message: string;
}

/**
 * Remarks as findings: errors first to stay where there are too many, all in the order of the document, and one for each place and code.
 * @param places null where the document is no text
 * @param untold how many more warnings there are, of which no remarks were made
 */
export function toFindings(part: string, remarks: readonly Remark[], places: DocumentPlaces | null, untold = 0): Finding[] {
  const errors = remarks.filter(({ severity }) => severity === 'error');
  const warnings = remarks.filter(({ severity }) => severity === 'warning');
  const kept = new Map<string, Finding>();
  let rest: Finding['severity'] = 'warning';
  let left = untold;
  for (const { severity, code, path, what, message } of [...errors, ...warnings]) {
    if (kept.size === MAX_FINDINGS - 1) {
      if (severity === 'error') rest = severity;
      left++;
      continue;
    }
    const key = JSON.stringify([code, path, message]);
    if (!kept.has(key)) kept.set(key, { severity, code, part, ...(places?.of(path, what ?? 'value') ?? {}), message });
  }
  const findings = inOrder([...kept.values()]);
  if (left > 0)
    findings.push({ severity: rest, code: 'more_findings', part, message: `and ${left} more: put these right first` });
  return findings;
}

/** What is said of a part that is too large to be judged. `what`: what was not looked at, and of what there is too much. */
export function notJudged(part: string, what: string): Finding {
  return {
    severity: 'warning',
    code: 'not_judged',
    part,
    message: `${what}, so try it on a machine, or make several parts of it`,
  };
}

/** As they stand in the text; what has no place comes last. */
export function inOrder(findings: readonly Finding[]): Finding[] {
  const line = (finding: Finding) => finding.line ?? Number.MAX_SAFE_INTEGER;
  return findings.toSorted((a, b) => line(a) - line(b) || (a.column ?? 0) - (b.column ?? 0));
}

/** `users[1].sudo`. A key that does not look like one may be content (`echo secret: x`), so it is not told. */
export function showPath(path: Path): string {
  return path
    .map((step) => (typeof step === 'number' ? `[${step}]` : `.${showKey(step)}`))
    .join('')
    .replace(/^\./, '');
}

/** A key as a message may tell it. */
export function showKey(key: string): string {
  return /^[\w.@+-]{1,64}$/.test(key) ? key : '…';
}

/** `a, b or c`. */
export function alternatives(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

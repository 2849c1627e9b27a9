import { BootbundleError } from './errors.ts';

/** One remark of an inspection. It never quotes rendered content: file, line and key names only. */
export interface Finding {
  severity: 'error' | 'warning';
  /** A stable word for programs, such as `unhandled_part`. */
  code: string;
  /** Which part: a file name, or `bundle@revision/file` where several bundles are looked at. */
  part?: string;
  /** 1-based. */
  line?: number;
  /** 1-based. */
  column?: number;
  /** A sentence that says what to do. */
  message: string;
}

/**
 * Turns error findings into one refusal, which speaks of the first and holds all. `subject` is what they are about, where their part does not say it.
 * @throws invalid with the code of the first error
 */
export function refuseErrors(findings: readonly Finding[], subject?: string): void {
  const errors = findings.filter(({ severity }) => severity === 'error');
  const [first] = errors;
  if (!first) return;
  const place = first.line === undefined ? undefined : `line ${first.line}, column ${first.column}`;
  // A parser's message may say the place itself.
  const about = [subject, first.part, place && !first.message.includes(place) ? place : undefined];
  const more = errors.length > 1 ? ` (and ${errors.length - 1} more, see findings)` : '';
  const detail = [...about.filter((each) => each !== undefined), first.message].join(': ');
  throw new BootbundleError('invalid', first.code, `${detail}${more}`, { findings });
}

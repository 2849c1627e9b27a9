import type { Finding } from './finding.ts';

/**
 * The closed vocabulary of what can go wrong. Each front door has one table from kind to status (http/errors.ts);
 * a client branches on the finer `code`.
 */
export type ErrorKind =
  | 'not_found'
  | 'conflict'
  | 'would_break'
  | 'precondition_failed'
  | 'invalid'
  | 'malformed'
  | 'unauthenticated'
  | 'forbidden'
  | 'gone'
  | 'too_large'
  | 'unsupported'
  | 'unavailable'
  | 'storage_full'
  | 'timed_out'
  | 'internal';

/**
 * An error meant for the caller. `message` says what to do and holds nothing secret; `code` is a stable word for programs.
 * Anything else that is thrown is `internal`, and its message stays in the log.
 */
export class BootbundleError extends Error {
  readonly kind: ErrorKind;
  readonly code: string;
  readonly findings: readonly Finding[] | undefined;
  /** What happened last, for a person. */
  readonly lines: readonly string[] | undefined;

  constructor(
    kind: ErrorKind,
    code: string,
    message: string,
    options: { findings?: readonly Finding[]; lines?: readonly string[]; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'BootbundleError';
    this.kind = kind;
    this.code = code;
    this.findings = options.findings;
    this.lines = options.lines;
  }
}

type Raise = (code: string, message: string, findings?: readonly Finding[]) => BootbundleError;

const raise =
  (kind: ErrorKind): Raise =>
  (code, message, findings) =>
    new BootbundleError(kind, code, message, findings === undefined ? {} : { findings });

/** The thing asked for does not exist. */
export const notFound = raise('not_found');
/** It exists, and its state forbids the change. */
export const conflict = raise('conflict');
/** Machines that follow what is changed would break. */
export const wouldBreak = raise('would_break');
/** `If-Match` or `If-None-Match` does not hold. */
export const preconditionFailed = raise('precondition_failed');
/** Well formed, but it cannot work: says why, with findings where there are several. */
export const invalid = raise('invalid');
/** Not even well formed: syntax, unknown field, unknown query parameter. */
export const malformed = raise('malformed');
/** No token, or not a valid one. */
export const unauthenticated = raise('unauthenticated');
/** Known, and not allowed. */
export const forbidden = raise('forbidden');
/** It was there for a while, and that is over. */
export const gone = raise('gone');
/** Past a documented limit. */
export const tooLarge = raise('too_large');
/** A media type this URL does not take. */
export const unsupported = raise('unsupported');
/** Our own trouble, and it may pass: ask again. */
export const unavailable = raise('unavailable');

import { preconditionFailed } from './errors.ts';

/** `If-Match` and `If-None-Match` of a write (RFC 9110, section 13); `*` or a list of entity tags without their quotes. */
export interface Preconditions {
  ifMatch?: '*' | readonly string[] | undefined;
  ifNoneMatch?: '*' | readonly string[] | undefined;
}

/**
 * Holds a write against the state it was meant for. `etag` is null where nothing exists.
 * @throws precondition_failed `etag_mismatch`, `exists`
 */
export function checkPreconditions(etag: string | null, { ifMatch, ifNoneMatch }: Preconditions): void {
  if (ifMatch !== undefined && (etag === null || (ifMatch !== '*' && !ifMatch.includes(etag))))
    throw preconditionFailed(
      'etag_mismatch',
      etag === null ? 'it does not exist' : 'it was changed meanwhile: GET it again, and repeat the change on that',
    );
  if (ifNoneMatch !== undefined && etag !== null && (ifNoneMatch === '*' || ifNoneMatch.includes(etag)))
    throw preconditionFailed('exists', 'it exists already');
}

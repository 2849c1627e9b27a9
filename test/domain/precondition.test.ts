import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BootbundleError } from '../../src/domain/errors.ts';
import { checkPreconditions, type Preconditions } from '../../src/domain/precondition.ts';

/** What exists, what is asked, and the code of the refusal (null: it holds). RFC 9110, 13.1.1 and 13.1.2. */
const TABLE: [etag: string | null, asked: Preconditions, refusal: string | null][] = [
  [null, {}, null],
  ['a', {}, null],
  [null, { ifMatch: undefined, ifNoneMatch: undefined }, null],

  ['a', { ifMatch: '*' }, null],
  [null, { ifMatch: '*' }, 'etag_mismatch'],
  ['a', { ifMatch: ['a'] }, null],
  ['a', { ifMatch: ['b', 'a'] }, null],
  ['a', { ifMatch: ['b'] }, 'etag_mismatch'],
  ['a', { ifMatch: ['A'] }, 'etag_mismatch'],
  ['a', { ifMatch: [] }, 'etag_mismatch'],
  [null, { ifMatch: ['a'] }, 'etag_mismatch'],
  [null, { ifMatch: [] }, 'etag_mismatch'],

  ['a', { ifNoneMatch: '*' }, 'exists'],
  [null, { ifNoneMatch: '*' }, null],
  ['a', { ifNoneMatch: ['a'] }, 'exists'],
  ['a', { ifNoneMatch: ['b', 'a'] }, 'exists'],
  ['a', { ifNoneMatch: ['b'] }, null],
  ['a', { ifNoneMatch: [] }, null],
  [null, { ifNoneMatch: ['a'] }, null],

  ['a', { ifMatch: ['a'], ifNoneMatch: ['b'] }, null],
  ['a', { ifMatch: ['b'], ifNoneMatch: '*' }, 'etag_mismatch'],
  ['a', { ifMatch: ['a'], ifNoneMatch: '*' }, 'exists'],
  [null, { ifMatch: '*', ifNoneMatch: '*' }, 'etag_mismatch'],
];

for (const [etag, asked, refusal] of TABLE)
  test(`${etag ?? 'nothing'} against ${JSON.stringify(asked)}: ${refusal ?? 'holds'}`, () => {
    if (refusal === null) return checkPreconditions(etag, asked);
    assert.throws(
      () => checkPreconditions(etag, asked),
      (error) => error instanceof BootbundleError && error.kind === 'precondition_failed' && error.code === refusal,
    );
  });

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as errors from '../../src/domain/errors.ts';

test('each function raises its own kind, with code, message and findings', () => {
  const { BootbundleError, ...raisers } = errors;
  const kinds = Object.entries(raisers).map(([name, raise]) => {
    const findings = [{ severity: 'error' as const, code: 'x', message: 'do this' }];
    const error = raise('some_code', 'do that', findings);
    assert.ok(error instanceof BootbundleError && error instanceof Error);
    assert.equal(
      error.kind,
      name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    );
    assert.deepEqual([error.code, error.message, error.findings, error.cause], ['some_code', 'do that', findings, undefined]);
    assert.equal(raise('some_code', 'do that').findings, undefined);
    return error.kind;
  });
  assert.equal(new Set(kinds).size, kinds.length);
});

test('a cause stays with the error, beside the message', () => {
  const cause = new Error('driver says no');
  const error = new errors.BootbundleError('unavailable', 'x', 'ask again', { cause });
  assert.equal(error.cause, cause);
  assert.equal(error.message, 'ask again');
});

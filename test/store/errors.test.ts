import assert from 'node:assert/strict';
import { test } from 'node:test';
import { conflict } from '../../src/domain/errors.ts';
import { translate } from '../../src/store/errors.ts';
import { refused } from './conformance.ts';

const driverError = (code: unknown) => Object.assign(new Error('Ünknown words'), { code });

for (const [code, kind, ours] of [
  ['SQLITE_FULL', 'storage_full', 'storage_full'],
  ['SQLITE_BUSY', 'unavailable', 'database_busy'],
  ['SQLITE_BUSY_SNAPSHOT', 'unavailable', 'database_busy'],
  ['SQLITE_IOERR_FSYNC', 'unavailable', 'database_unavailable'],
  ['SQLITE_CANTOPEN', 'unavailable', 'database_unavailable'],
  ['SQLITE_READONLY_DBMOVED', 'unavailable', 'database_unavailable'],
  ['SQLITE_NOTADB', 'conflict', 'foreign_database'],
  ['SQLITE_CONSTRAINT_PRIMARYKEY', 'conflict', 'changed_meanwhile'],
  ['SQLITE_CONSTRAINT_UNIQUE', 'conflict', 'changed_meanwhile'],
  ['53100', 'storage_full', 'storage_full'],
  ['53300', 'unavailable', 'database_unavailable'],
  ['08006', 'unavailable', 'database_unavailable'],
  ['57P01', 'unavailable', 'database_unavailable'],
  ['57P03', 'unavailable', 'database_unavailable'],
  ['25006', 'unavailable', 'database_unavailable'],
  ['40001', 'unavailable', 'database_busy'],
  ['40P01', 'unavailable', 'database_busy'],
  ['23505', 'conflict', 'changed_meanwhile'],
  ['28P01', 'unavailable', 'database_refused'],
  ['3D000', 'unavailable', 'database_refused'],
  ['42501', 'unavailable', 'database_refused'],
] as const)
  test(`${code} is ${kind} ${ours}, without the driver's words`, async () => {
    const original = driverError(code);
    const error = await refused(Promise.reject(translate(original)), kind, ours);
    assert.equal(error.cause, original);
    assert.ok(!error.message.includes('Ünknown'));
  });

for (const code of ['SQLITE_CONSTRAINT_FOREIGNKEY', 'SQLITE_CORRUPT', '23503', '42601', 'XX000', '', 7, undefined])
  test(`${JSON.stringify(code)} is nothing a caller can mend: it stays as it is`, () => {
    const original = driverError(code);
    assert.equal(translate(original), original);
  });

test('an error of ours stays as it is, and so does what is no error', () => {
  const ours = conflict('in_use', 'no');
  assert.equal(translate(ours), ours);
  assert.equal(translate('text'), 'text');
});

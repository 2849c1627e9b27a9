import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileSchemas, isAsWritten } from '../../src/inspect/schema.ts';
import { readUpstream, skipWithoutSchemas } from './upstream.ts';

const skip = skipWithoutSchemas();

test('upstream’s schemas become a set, at once', { skip }, () => {
  const texts = readUpstream();
  const before = performance.now();
  const set = compileSchemas('upstream', texts);
  assert.ok(performance.now() - before < 500);
  assert.equal(set.source, 'upstream');
  assert.ok(set.networkV1 && set.networkV2);
  assert.ok(set.cloudConfig.keys.has('runcmd'));
  const alone = compileSchemas('x', { ...texts, networkV1: null, networkV2: null });
  assert.deepEqual([alone.networkV1, alone.networkV2], [null, null]);
});

test('what is no schema of cloud-init is refused', { skip }, () => {
  const texts = readUpstream();
  for (const cloudConfig of [
    '',
    'null',
    '[]',
    '{}',
    '<html>',
    '{"properties": {"runcmd": {}}}',
    texts.networkV1 ?? '',
    '{"$ref": "https://x/y.json"}',
  ])
    assert.throws(
      () => compileSchemas('x', { ...texts, cloudConfig }),
      { kind: 'invalid', code: 'bad_schema' },
      cloudConfig.slice(0, 40),
    );
  for (const network of ['', '{}', texts.cloudConfig]) {
    assert.throws(() => compileSchemas('x', { ...texts, networkV1: network }), { code: 'bad_schema' });
    assert.throws(() => compileSchemas('x', { ...texts, networkV2: network }), { code: 'bad_schema' });
  }
});

test('a number is as it was written if Python’s str() gives it back', () => {
  for (const plain of ['0', '5', '-1', '10', '1.5', '10.0', '0.25', '-0.5', '123456789012345', '2020-01-01'])
    assert.ok(isAsWritten(plain), plain);
  for (const plain of [
    '0644',
    '00',
    '-0',
    '+5',
    '1_000',
    '12:30',
    '0x1f',
    '1.10',
    '1.',
    '.5',
    '1e3',
    'yes',
    '',
    '1234567890123456789',
  ])
    assert.ok(!isAsWritten(plain), plain);
});

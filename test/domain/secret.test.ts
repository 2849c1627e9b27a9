import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { deriveKey } from '../../src/domain/capability.ts';
import {
  checkSecretName,
  isSealedWith,
  openSecret,
  type SecretKey,
  type SecretOwner,
  sealSecret,
} from '../../src/domain/secret.ts';

const KEY = deriveKey(Buffer.alloc(32, 1), 'secret');
const OTHER = deriveKey(Buffer.alloc(32, 2), 'secret');
const OWNER: SecretOwner = { kind: 'instance', name: 'vm-1' };
const NAME = 'tls.key';
const VALUE = Buffer.from('s3cret\n');
const NONCE = Uint8Array.from({ length: 12 }, (_, index) => index);

const seal = (key: SecretKey = KEY) => sealSecret(key, OWNER, NAME, VALUE, NONCE);
/** The value as text, or null. */
const open = (sealed: Uint8Array, keys: readonly SecretKey[] = [KEY]) => {
  const value = openSecret(keys, OWNER, NAME, sealed);
  return value && Buffer.from(value).toString();
};

test('the format is stable: version, key id, nonce, ciphertext, tag', () => {
  // Made apart from this code: Python's cryptography, with HKDF, SHA-256 and AESGCM.
  const golden = '01 4488d9fe 000102030405060708090a0b 27223e6b881014 a05c1edc29e45f2d2f9b031aa9e85cc7'.replaceAll(' ', '');
  assert.equal(Buffer.from(seal()).toString('hex'), golden);
  assert.equal(open(Buffer.from(golden, 'hex')), 's3cret\n');
});

test('any value comes back byte for byte, the empty one too', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ minLength: 12, maxLength: 12 }), (value, nonce) => {
      const sealed = sealSecret(KEY, OWNER, NAME, value, nonce);
      assert.equal(sealed.length, value.length + 33);
      const opened = openSecret([KEY], OWNER, NAME, sealed);
      assert.ok(opened && Buffer.from(value).equals(opened));
    }),
  );
});

for (const [what, owner, name] of [
  ['another owner', { kind: 'instance', name: 'vm-2' }, NAME],
  ['another kind of owner', { kind: 'bundle', name: 'vm-1' }, NAME],
  ['another name', OWNER, 'tls.crt'],
  ['the same letters cut elsewhere', { kind: 'instance', name: 'vm-' }, `1${NAME}`],
] as const)
  test(`as a secret of ${what} it does not open`, () => {
    assert.equal(openSecret([KEY], owner, name, seal()), null);
  });

test('any key of the ring opens it, and no other does', () => {
  const [first, second] = [seal(KEY), seal(OTHER)];
  assert.deepEqual([open(first, [OTHER, KEY]), open(second, [OTHER, KEY])], ['s3cret\n', 's3cret\n']);
  assert.deepEqual([open(first, [OTHER]), open(second, [KEY]), open(first, [])], [null, null, null]);
});

test('isSealedWith tells which key of the ring sealed it', () => {
  assert.deepEqual([isSealedWith(KEY, seal()), isSealedWith(OTHER, seal())], [true, false]);
  assert.equal(isSealedWith(KEY, new Uint8Array()), false);
});

test('cut short anywhere, or with anything added, it does not open', () => {
  const sealed = seal();
  for (let length = 0; length < sealed.length; length++)
    assert.equal(open(sealed.subarray(0, length)), null, `${length} bytes`);
  assert.equal(open(Buffer.concat([sealed, Uint8Array.of(0)])), null);
  assert.equal(open(Buffer.concat([Uint8Array.of(0), sealed])), null);
});

test('any one changed bit keeps it from opening', () => {
  const sealed = seal();
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const changed = Uint8Array.from(sealed);
    changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    assert.equal(open(changed), null, `bit ${bit}`);
  }
});

test('bytes that nobody sealed do not open, and throw nothing', () => {
  const forged = fc.uint8Array({ maxLength: 80 }).map((bytes) => Buffer.concat([seal().subarray(0, 5), bytes]));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 80 }), forged), (bytes) => {
      assert.equal(open(bytes), null);
    }),
  );
});

test('a nonce that has not 12 bytes is a mistake of ours', () => {
  for (const length of [0, 11, 13, 16]) assert.throws(() => sealSecret(KEY, OWNER, NAME, VALUE, new Uint8Array(length)));
});

test('a sealed form shows nothing of the value but its length', () => {
  const sealed = sealSecret(KEY, OWNER, NAME, Buffer.from('x'.repeat(200)), NONCE);
  assert.ok(!Buffer.from(sealed).includes('xxx'));
});

for (const name of ['a', '_', 'tls.key', 'DB_PASSWORD', 'a-b.c_d', `a${'x'.repeat(62)}`])
  test(`${name} is a secret's name`, () => {
    assert.equal(checkSecretName(name), name);
  });

for (const name of ['', '1a', '.a', '-a', 'a b', 'a/b', 'ä', 'a\n', 'a\0', '__proto__', `a${'x'.repeat(63)}`])
  test(`${JSON.stringify(name)} is no secret's name`, () => {
    assert.throws(() => checkSecretName(name), { kind: 'invalid', code: 'bad_secret_name' });
  });

import assert from 'node:assert/strict';
import { createHmac, hkdfSync } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { deriveCapability, deriveKey, verifyCapability } from '../../src/domain/capability.ts';
import { PURPOSES } from '../../src/domain/instance.ts';

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const KEY = deriveKey(Buffer.alloc(32, 1), 'capability');
const OTHER = deriveKey(Buffer.alloc(32, 2), 'capability');

const id = fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const generation = fc.integer({ min: 0, max: 0xffffffff });
const purpose = fc.constantFrom(...PURPOSES);
const issued = fc.record({ id, generation, purpose }).map((claim) => ({
  ...claim,
  text: deriveCapability(KEY, claim.purpose, {
    id: claim.id,
    generations: { include: 7, seed: 7, report: 7, [claim.purpose]: claim.generation },
  }),
}));

test('it is base64url of id, generation and 18 bytes of HMAC over purpose, id and generation', () => {
  const key = new Uint8Array(hkdfSync('sha256', Buffer.alloc(32, 1), '', 'bootbundle/capability/v1', 32));
  const head = Buffer.from('0123456789abcdef00000102', 'hex');
  const mac = createHmac('sha256', key)
    .update(Buffer.concat([Buffer.of(1), head]))
    .digest()
    .subarray(0, 18);
  const text = deriveCapability(KEY, 'seed', { id: '0123456789abcdef', generations: { include: 0, seed: 0x102, report: 0 } });
  assert.equal(text, Buffer.concat([head, mac]).toString('base64url'));
});

test('it is exactly 40 base64url characters and says which instance and generation it is for', () => {
  fc.assert(
    fc.property(issued, ({ text, ...claim }) => {
      assert.match(text, /^[A-Za-z0-9_-]{40}$/);
      assert.deepEqual(verifyCapability([KEY], claim.purpose, text), { instanceId: claim.id, generation: claim.generation });
    }),
  );
});

test('no other purpose, key or generation fits', () => {
  fc.assert(
    fc.property(issued, ({ text, ...claim }) => {
      for (const wrong of PURPOSES.filter((it) => it !== claim.purpose))
        assert.equal(verifyCapability([KEY], wrong, text), null);
      assert.equal(verifyCapability([OTHER], claim.purpose, text), null);
      assert.equal(verifyCapability([], claim.purpose, text), null);
      const bytes = Buffer.from(text, 'base64url');
      bytes.writeUInt32BE((claim.generation + 1) % 2 ** 32, 8);
      assert.equal(verifyCapability([KEY], claim.purpose, bytes.toString('base64url')), null);
    }),
  );
});

test('any one changed character kills it', () => {
  const text = deriveCapability(KEY, 'include', { id: 'ffeeddccbbaa9988', generations: { include: 1, seed: 0, report: 0 } });
  for (let at = 0; at < text.length; at++)
    for (const character of `${ALPHABET}+/=. %\n\0é`)
      if (character !== text[at])
        assert.equal(verifyCapability([KEY], 'include', text.slice(0, at) + character + text.slice(at + 1)), null);
});

test('cut short, made longer, in another case or turned around it is nothing', () => {
  const more = fc
    .array(fc.oneof(fc.nat(0x7f), fc.nat(0x10ffff)), { minLength: 1, maxLength: 45 })
    .map((codes) => String.fromCodePoint(...codes));
  fc.assert(
    fc.property(issued, fc.nat(39), more, ({ text, purpose }, length, extra) => {
      const wrong = [
        text.slice(0, length),
        text.slice(length + 1),
        text + extra,
        extra + text,
        text.toLowerCase(),
        text.toUpperCase(),
      ];
      for (const other of wrong) if (other !== text) assert.equal(verifyCapability([KEY], purpose, other), null);
    }),
  );
  fc.assert(
    fc.property(issued, fc.nat(39), ({ text, purpose }, at) => {
      const letter = text[at] ?? '';
      const swapped = letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase();
      if (swapped !== letter)
        assert.equal(verifyCapability([KEY], purpose, text.slice(0, at) + swapped + text.slice(at + 1)), null);
    }),
  );
});

test('made-up text is nothing', () => {
  fc.assert(
    fc.property(
      purpose,
      fc.oneof(fc.string({ unit: fc.constantFrom(...ALPHABET), minLength: 38, maxLength: 42 }), fc.string()),
      (it, text) => assert.equal(verifyCapability([KEY], it, text), null),
    ),
  );
});

test('there is no second spelling: 40 characters have no spare bits', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...ALPHABET), minLength: 40, maxLength: 40 }), (text) =>
      assert.equal(Buffer.from(text, 'base64url').toString('base64url'), text),
    ),
  );
});

test('an older key of the ring verifies, wherever it stands; one that was taken out does not', () => {
  fc.assert(
    fc.property(issued, ({ text, purpose, id }) => {
      const third = deriveKey(Buffer.alloc(32, 3), 'capability');
      for (const ring of [
        [KEY, OTHER],
        [OTHER, KEY],
        [OTHER, third, KEY],
      ])
        assert.equal(verifyCapability(ring, purpose, text)?.instanceId, id);
      assert.equal(verifyCapability([OTHER, third], purpose, text), null);
    }),
  );
});

test('each use of a root key has a key of its own', () => {
  const root = Buffer.alloc(32, 1);
  const keys = (['capability', 'secret', 'check'] as const).map((use) => Buffer.from(deriveKey(root, use)).toString('hex'));
  assert.equal(new Set([...keys, root.toString('hex')]).size, 4);
  for (const key of keys) assert.equal(key.length, 64);
});

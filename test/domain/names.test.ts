import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BootbundleError } from '../../src/domain/errors.ts';
import {
  BUNDLE_OPTIONS_FILE,
  checkName,
  checkPartName,
  formatReference,
  parseReference,
  type Reference,
} from '../../src/domain/names.ts';

const HOSTILE = [
  '',
  '/',
  '..',
  '../x',
  '%',
  '%2e%2e',
  '%00',
  '\r\n',
  'a\r\nX-Evil: 1',
  'a\n',
  '\na',
  'a"b',
  'a;b',
  'a b',
  ' a',
  'a ',
  'a\0b',
  'a/b',
  'a\\b',
  '-a',
  '.a',
  '_a',
  'a:b',
  'a@b',
  'a‹b',
  'über',
  'ａ',
  '😀',
  'a\u2028b',
  'x'.repeat(200),
];

const refused = (check: () => unknown, kind: string, code: string) =>
  assert.throws(check, (error) => error instanceof BootbundleError && error.kind === kind && error.code === code);

test('a name of a bundle, an instance or a tag is DNS-like, 1 to 63 characters', () => {
  for (const what of ['bundle', 'instance', 'tag'] as const) {
    for (const name of ['a', 'web', 'web-1', 'web.prod', 'a'.repeat(63), '1a']) assert.equal(checkName(what, name), name);
    for (const name of [...HOSTILE, 'Web', 'a_b', 'a-', 'a.', 'a'.repeat(64)])
      refused(() => checkName(what, name), 'malformed', 'bad_name');
  }
  assert.equal(checkName('instance', '42'), '42');
});

test('a name that is refused is called by what it names', () => {
  for (const [what, words] of [
    ['bundle', 'a bundle name has 1 to 63 of '],
    ['instance', 'an instance name has 1 to 63 of '],
    ['tag', 'a tag name has 1 to 63 of '],
  ] as const)
    assert.throws(
      () => checkName(what, 'A'),
      ({ message }: Error) => message.startsWith(words),
    );
});

test('a tag cannot be a number, because name@3 means revision 3', () => {
  for (const tag of ['0', '3', '007']) refused(() => checkName('tag', tag), 'malformed', 'bad_name');
});

test('a part name is safe in a header, a URL and a directory, 1 to 100 characters', () => {
  for (const name of ['a', 'disable-selinux.sh', 'A_b-1.yaml', '10.sh', 'a..b', 'x'.repeat(100)])
    assert.equal(checkPartName(name), name);
  for (const name of [...HOSTILE, '.hidden', '-rf', 'x'.repeat(101)])
    refused(() => checkPartName(name), 'malformed', 'bad_name');
});

test('the name of the options file is reserved', () => {
  refused(() => checkPartName(BUNDLE_OPTIONS_FILE), 'malformed', 'reserved_name');
});

test('an error about a name does not quote it', () => {
  const evil = 'a\r\nSet-Cookie: x';
  for (const check of [() => checkName('bundle', evil), () => checkPartName(evil), () => parseReference(evil)])
    assert.throws(check, (error) => error instanceof BootbundleError && !/Set-Cookie|[\r\n]/.test(error.message));
});

test('any text that passes has only harmless characters', () => {
  const passes = (check: (text: string) => string, text: string) => {
    try {
      return check(text) === text;
    } catch (error) {
      assert.ok(error instanceof BootbundleError);
      return false;
    }
  };
  const text = fc.oneof(
    fc.array(fc.nat(0x10ffff), { maxLength: 5 }).map((codes) => String.fromCodePoint(...codes)),
    fc.string({ unit: fc.constantFrom('a', 'Z', '0', '.', '-', '_', '/', '\n', '%', '"', '@'), maxLength: 110 }),
  );
  fc.assert(
    fc.property(text, (name) => {
      if (passes((it) => checkName('bundle', it), name)) assert.match(name, /^[a-z0-9.-]{1,63}$/);
      if (passes(checkPartName, name)) assert.match(name, /^[A-Za-z0-9._-]{1,100}$/);
    }),
  );
});

test('a reference follows the newest revision, a tag, or is pinned', () => {
  assert.deepEqual(parseReference('web'), { bundle: 'web', tag: null, revision: null });
  assert.deepEqual(parseReference('web@stable'), { bundle: 'web', tag: 'stable', revision: null });
  assert.deepEqual(parseReference('web@3'), { bundle: 'web', tag: null, revision: 3 });
  assert.deepEqual(parseReference('web@3a'), { bundle: 'web', tag: '3a', revision: null });
  assert.deepEqual(parseReference('web@999999999'), { bundle: 'web', tag: null, revision: 999_999_999 });
});

test('anything else is no reference', () => {
  const pins = ['@', '@3', 'web@', 'web@@3', 'web@a@b', 'web@0', 'web@03', 'web@-1', 'web@1234567890', 'web@Stable', 'web@a b'];
  for (const text of [...HOSTILE.filter((name) => name !== 'a@b'), ...pins, 'Web', 'web@3\n', `web@${'x'.repeat(64)}`])
    refused(() => parseReference(text), 'invalid', 'bad_reference');
});

test('a reference is written as it was read', () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9]{0,10}$/);
  const pin = fc.oneof(
    fc.record({ tag: name, revision: fc.constant(null) }),
    fc.record({ tag: fc.constant(null), revision: fc.integer({ min: 1, max: 999_999_999 }) }),
    fc.constant({ tag: null, revision: null }),
  );
  fc.assert(
    fc.property(name, pin, (bundle, rest) => {
      const reference: Reference = { bundle, ...rest };
      assert.deepEqual(parseReference(formatReference(reference)), reference);
    }),
  );
});

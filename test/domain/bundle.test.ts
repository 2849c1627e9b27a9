import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { arrangeParts, type Part, type RevisionContent, revisionDigest, sha256 } from '../../src/domain/bundle.ts';

const part = (filename: string, more: Partial<Part> = {}): Part => ({
  filename,
  type: 'text/x-shellscript',
  typeSaid: false,
  merge: null,
  template: false,
  size: 3,
  sha256: sha256('abc'),
  ...more,
});
const content = (more: Partial<RevisionContent> = {}): RevisionContent => ({
  order: 'name',
  vars: { a: 1, b: { c: 2, d: 3 } },
  parts: [part('a.sh'), part('b.sh')],
  ...more,
});

test('SHA-256 is the published one, of text and of bytes', () => {
  assert.equal(sha256('abc'), 'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
  assert.equal(sha256(Buffer.from('xabcx').subarray(1, 4)), sha256('abc'));
});

test('a digest does not change from release to release, or every bundle would get a new revision', () => {
  assert.equal(revisionDigest(content()), '726fcc116c2287bcbc38e6be681aff875f3deca7e35b3441270db4e444fca640');
});

test('a digest does not depend on number, author, time or the order of keys', () => {
  const revision = { ...content({ vars: { b: { d: 3, c: 2 }, a: 1 } }), number: 9, author: 'x', createdAt: 1, bundle: 'web' };
  assert.equal(revisionDigest(revision), revisionDigest(content()));
});

test('each thing a revision states changes the digest', () => {
  const changes: Partial<RevisionContent>[] = [
    { order: 'given' },
    { vars: {} },
    { vars: { a: 1, b: { c: 2, d: '3' } } },
    { parts: [] },
    { parts: [part('a.sh')] },
    { parts: [part('b.sh'), part('a.sh')] },
    ...(
      [
        { filename: 'c.sh' },
        { type: 'text/x-other' },
        { typeSaid: true },
        { merge: 'list()+dict()+str()' },
        { template: true },
        { sha256: sha256('abd') },
      ] satisfies Partial<Part>[]
    ).map((change) => ({ parts: [part('a.sh'), part('b.sh', change)] })),
  ];
  assert.equal(new Set([content(), ...changes.map(content)].map(revisionDigest)).size, changes.length + 1);
});

const few = fc.constantFrom('a', 'b', 'a","b', '');
const anyContent = fc.record({
  order: fc.constantFrom('name' as const, 'given' as const),
  vars: fc.dictionary(few, few, { maxKeys: 2 }),
  parts: fc.array(
    fc.record({
      filename: few,
      type: few,
      typeSaid: fc.boolean(),
      merge: fc.option(few),
      template: fc.boolean(),
      size: fc.constant(1),
      sha256: few,
    }),
    { maxLength: 2 },
  ),
});

test('digests are equal exactly when contents are', () => {
  const near = anyContent.chain((first) =>
    fc.tuple(
      fc.constant(first),
      fc.oneof(
        anyContent,
        fc.record({
          order: fc.constant(first.order),
          vars: fc.constant(first.vars),
          parts: fc.constant(structuredClone(first.parts)),
        }),
      ),
    ),
  );
  fc.assert(
    fc.property(near, ([a, b]) =>
      assert.equal(
        revisionDigest(a) === revisionDigest(b),
        isDeepStrictEqual(JSON.parse(JSON.stringify(a)), JSON.parse(JSON.stringify(b))),
      ),
    ),
  );
});

test('parts sort by file name, bytewise, as LC_ALL=C sorts a conf.d', () => {
  const names = ['b', 'a', 'B', '10.sh', '9.sh', 'a-b', 'a.b', 'a_b', 'ab', 'A'];
  assert.deepEqual(
    arrangeParts(
      'name',
      names.map((name) => part(name)),
    ).map(({ filename }) => filename),
    ['10.sh', '9.sh', 'A', 'B', 'a', 'a-b', 'a.b', 'a_b', 'ab', 'b'],
  );
});

test('in the given order nothing moves; the list passed in is never touched', () => {
  const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,4}$/);
  fc.assert(
    fc.property(fc.uniqueArray(name), (names) => {
      const parts = names.map((it) => part(it));
      const before = [...parts];
      assert.deepEqual(arrangeParts('given', parts), before);
      const sorted = arrangeParts('name', parts).map(({ filename }) => Buffer.from(filename));
      assert.deepEqual(sorted, names.map((it) => Buffer.from(it)).sort(Buffer.compare));
      assert.deepEqual(parts, before);
    }),
  );
});

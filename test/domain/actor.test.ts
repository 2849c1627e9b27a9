import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  checkInScope,
  checkReferencesInScope,
  checkScope,
  EVERYTHING,
  namesFit,
  ROLES,
  roleSuffices,
  scopeCovers,
} from '../../src/domain/actor.ts';

const letters = fc.string({ unit: fc.constantFrom('a', 'b', '-'), maxLength: 6 });
const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '-', '*'), minLength: 1, maxLength: 6 });

test('each role may what those before it may', () => {
  for (const [index, role] of ROLES.entries())
    for (const [other, needed] of ROLES.entries())
      assert.equal(roleSuffices(role, needed), index >= other, `${role} ${needed}`);
});

test('a name fits a pattern as a shell would say', () => {
  for (const [patterns, name, fits] of [
    [null, 'anything', true],
    [[], 'web', false],
    [['web'], 'web', true],
    [['web'], 'web-1', false],
    [['web-*'], 'web-1', true],
    [['web-*'], 'web-', true],
    [['web-*'], 'web', false],
    [['web-*'], 'my-web-1', false],
    [['*-db'], 'eu-db', true],
    [['a*c*e'], 'abcde', true],
    [['a*c*e'], 'abcd', false],
    [['w.b'], 'web', false],
    [['*'], '', true],
    [['db', 'web*'], 'web', true],
  ] as const)
    assert.equal(namesFit(patterns, name), fits, `${patterns} ${name}`);
});

test('of any pattern and name, it says what the regular expression says', () => {
  fc.assert(
    fc.property(pattern, letters, (glob, name) => {
      const expression = new RegExp(`^${glob.replaceAll('*', '.*')}$`);
      assert.equal(namesFit([glob], name), expression.test(name));
    }),
  );
});

test('patterns made to take long take no time', () => {
  const began = performance.now();
  for (let round = 0; round < 1000; round++) assert.equal(namesFit([`${'a*'.repeat(31)}b`], 'a'.repeat(63)), false);
  assert.ok(performance.now() - began < 1000);
});

test('a scope in another holds no name that the other does not', () => {
  const patterns = fc.option(fc.array(pattern, { maxLength: 3 }));
  fc.assert(
    fc.property(patterns, patterns, letters, (outer, inner, name) => {
      const covers = scopeCovers({ ...EVERYTHING, bundles: outer }, { ...EVERYTHING, bundles: inner });
      if (covers && namesFit(inner, name)) assert.ok(namesFit(outer, name));
      assert.ok(outer !== null || covers);
    }),
  );
  const covers = (outer: string[] | null, inner: string[] | null) =>
    scopeCovers({ bundles: null, instances: outer }, { bundles: null, instances: inner });
  assert.deepEqual(
    [covers(['web-*'], ['web-1', 'web-eu-*']), covers(['web-*'], ['web*']), covers(['web-*'], null), covers(['*'], ['a*'])],
    [true, false, false, true],
  );
});

test('a scope has patterns of names only, and not too many', () => {
  for (const bundles of [null, [], ['web-*', '*', 'a.b'], Array.from({ length: 100 }, (_, index) => `a${index}`)])
    checkScope({ bundles, instances: null });
  for (const patterns of [[''], ['Web'], ['a_b'], ['%'], ['a b'], ['a'.repeat(64)], ['\0'], Array(101).fill('a')]) {
    assert.throws(() => checkScope({ bundles: patterns, instances: null }), { code: 'bad_scope', kind: 'invalid' });
    assert.throws(() => checkScope({ bundles: null, instances: patterns }), { code: 'bad_scope' });
  }
});

test('what is outside of a scope is refused, and references by their bundle', () => {
  const by = { scope: { bundles: ['web-*'], instances: ['vm-*'] } };
  const refusal = { kind: 'forbidden', code: 'out_of_scope' };
  checkInScope(by, 'bundle', 'web-a');
  checkInScope(by, 'instance', 'vm-1');
  assert.throws(() => checkInScope(by, 'bundle', 'vm-1'), refusal);
  assert.throws(() => checkInScope(by, 'instance', 'web-a'), refusal);
  checkReferencesInScope(by, ['web-a', 'web-b@stable', 'web-c@3']);
  checkReferencesInScope({ scope: EVERYTHING }, ['db']);
  for (const reference of ['db', 'db@web-a', 'db@3'])
    assert.throws(() => checkReferencesInScope(by, ['web-a', reference]), refusal);
});

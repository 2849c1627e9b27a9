import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { canonicalJson, type Json } from '../../src/domain/json.ts';

/** As JSON.parse gives it: no -0, which JSON has no other spelling for than 0's. */
const json = fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.parse(JSON.stringify(value)) as Json);

/** The same value with every object's keys in the opposite order. */
function turned(value: Json): Json {
  if (Array.isArray(value)) return value.map(turned);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([key, member]) => [key, turned(member)]),
  );
}

test('the order of keys does not matter, at any depth; the order of a list does', () => {
  assert.equal(canonicalJson({ b: 1, a: { d: [1, 2], c: null } }), '{"a":{"c":null,"d":[1,2]},"b":1}');
  assert.notEqual(canonicalJson([1, 2]), canonicalJson([2, 1]));
});

test('values of other types are other values', () => {
  const values: Json[] = [null, false, 0, '', [], {}, 'null', '0', [[]], [null], { '': null }, { __proto__: 1 }, ['{}']];
  assert.equal(new Set(values.map(canonicalJson)).size, new Set(values.map((value) => JSON.stringify(value))).size);
});

test('a key named __proto__ is a key like any other', () => {
  const value = JSON.parse('{"__proto__":{"a":1},"b":2}') as Json;
  assert.equal(canonicalJson(value), '{"__proto__":{"a":1},"b":2}');
});

test('it reads back as the same value', () => {
  fc.assert(fc.property(json, (value) => assert.deepEqual(JSON.parse(canonicalJson(value)), value)));
});

test('the text is equal exactly when the value is', () => {
  fc.assert(fc.property(json, (value) => assert.equal(canonicalJson(turned(value)), canonicalJson(value))));
  fc.assert(
    fc.property(json, json, (a, b) =>
      assert.equal(canonicalJson(a) === canonicalJson(b), isDeepStrictEqual(turned(a), turned(b))),
    ),
  );
});

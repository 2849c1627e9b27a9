import assert from 'node:assert/strict';
import { test } from 'node:test';
import { kindOf, misspeltKeys, type Problem, readSchema } from '../../src/inspect/json-schema.ts';

/** Each problem as `path why`. */
function check(schema: unknown, document: unknown): string[] {
  return readSchema(schema)
    .check(document)
    .problems.map(({ path, why }) => `${path.join('.')} ${why}`);
}

test('each keyword refuses what it must and nothing else', () => {
  const table: [schema: unknown, good: unknown[], bad: unknown[], why: string][] = [
    [{ type: 'string' }, ['', 'x', new Uint8Array(1)], [1, null, [], {}, true, new Date(0)], 'value'],
    [{ type: 'integer' }, [0, -5], [1.5, '1', true, null, Number.NaN], 'value'],
    [{ type: 'number' }, [0, 1.5, Number.POSITIVE_INFINITY], ['1', true], 'value'],
    [{ type: ['object', 'null'] }, [{}, null], [[], 0, new Set()], 'value'],
    [{ enum: ['a', 1, null] }, ['a', 1, null], ['b', '1', undefined], 'value'],
    [{ pattern: '^a+$' }, ['a', 'aa\n', 5, 'b'.repeat(1000)], ['b', ''], 'value'],
    [{ minimum: 1, maximum: 3 }, [1, 3, 'x'], [0, 4], 'range'],
    [{ minItems: 1, maxItems: 2 }, [[1], [1, 2], {}], [[], [1, 2, 3]], 'size'],
    [{ minProperties: 1 }, [{ a: 1 }, []], [{}], 'size'],
    [{ maxLength: 2 }, ['ab', [1, 2, 3]], ['abc'], 'size'],
    [{ required: ['a'] }, [{ a: null }, []], [{ b: 1 }], 'missing_key'],
    [{ properties: { a: {} }, additionalProperties: false }, [{ a: 1 }, {}], [{ b: 1 }, { toString: 1 }], 'unknown_key'],
    [{ patternProperties: { '^a': {} }, additionalProperties: false }, [{ ab: 1 }], [{ b: 1 }], 'unknown_key'],
    [{ additionalProperties: { type: 'string' } }, [{ a: 'x' }], [{ a: 1 }], 'value'],
    [{ items: { type: 'string' } }, [['a'], 'x'], [[1]], 'value'],
    [{ items: [{ type: 'string' }] }, [['a', 1]], [[1]], 'value'],
    [{ allOf: [{ type: 'string' }, { enum: ['a'] }] }, ['a'], ['b'], 'value'],
    [{ anyOf: [{ type: 'string' }, { type: 'null' }] }, ['a', null], [1], 'value'],
    [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, [1, 1.5], ['a'], 'value'],
    [{ not: { required: ['a', 'b'] } }, [{ a: 1 }], [{ a: 1, b: 1 }], 'excluded'],
    [{ $ref: '#/$defs/a', $defs: { a: { type: 'string' } }, enum: ['x'] }, ['x'], ['y'], 'value'],
  ];
  for (const [schema, good, bad, why] of table) {
    for (const document of good) assert.deepEqual(check(schema, document), [], JSON.stringify([schema, document]));
    for (const document of bad) {
      const [first, ...more] = check(schema, document);
      assert.match(first ?? '', new RegExp(` ${why}$`), JSON.stringify([schema, document]));
      assert.deepEqual(more, []);
    }
  }
});

test('a reference is followed by its JSON pointer', () => {
  const schema = {
    $defs: { 'a/b.c': { type: 'object', properties: { next: { $ref: '#/$defs/a~1b.c' } }, additionalProperties: false } },
    $ref: '#/$defs/a~1b.c',
  };
  assert.deepEqual(check(schema, { next: { next: {} } }), []);
  assert.deepEqual(check(schema, { next: { next: 5 } }), ['next.next value']);
});

test('what has no end is no schema: a circle that stays at one value, and nesting past any schema’s', () => {
  const chain = (length: number) =>
    Object.fromEntries(Array.from({ length }, (_, at) => [`a${at}`, { $ref: `#/$defs/a${at - 1}` }]).slice(1));
  for (const schema of [
    { allOf: [{ $ref: '#' }] },
    { $ref: '#' },
    {
      properties: { a: { $ref: '#/$defs/b' } },
      $defs: { b: { not: { $ref: '#/$defs/c' } }, c: { oneOf: [{ $ref: '#/$defs/b' }] } },
    },
    { $ref: '#/$defs/a300', $defs: { a0: {}, ...chain(301) } },
    { allOf: Object.values(chain(301)), $defs: { a0: {}, ...chain(301) } },
  ])
    assert.throws(() => readSchema(schema), { code: 'bad_schema' }, JSON.stringify(schema).slice(0, 100));
  assert.deepEqual(check({ allOf: Object.values(chain(100)), $defs: { a0: { type: 'null' }, ...chain(100) } }, null), []);
});

test('of alternatives that all fail the problems of the one that was meant are told', () => {
  const hook = (type: string, ...keys: string[]) => ({
    required: ['type', ...keys],
    properties: Object.fromEntries([['type', { enum: [type] }], ...keys.map((key) => [key, { type: 'string' }])]),
    additionalProperties: false,
  });
  const table: [name: string, alternatives: unknown[], document: unknown, problems: string[]][] = [
    ['by its type', [hook('log'), hook('web', 'url')], { type: 'web' }, [' missing_key']],
    ['by its type, which is none', [hook('log'), hook('web', 'url')], { type: 'x', url: '' }, ['type value']],
    ['by its kind', [{ type: 'string' }, { type: 'array', items: { type: 'string' } }], ['a', 1], ['1 value']],
    ['any of several keys', [{ required: ['a'] }, { required: ['b'] }], {}, [' missing_key']],
    ['with fewer faults', [hook('a', 'x', 'y'), hook('a', 'z')], { type: 'a' }, [' missing_key']],
    [
      'with a misspelt key',
      [hook('a', 'something'), hook('a', 'password')],
      { type: 'a', passwrd: '' },
      [' missing_key', ' unknown_key'],
    ],
  ];
  for (const [name, oneOf, document, problems] of table) assert.deepEqual(check({ oneOf }, document).sort(), problems, name);

  const [problem] = readSchema({ oneOf: [{ type: 'integer' }, { enum: ['auto'] }, { type: 'string', pattern: 'G$' }] }).check(
    'x',
  ).problems;
  assert.deepEqual(problem, {
    path: [],
    why: 'value',
    found: 'string',
    kinds: ['integer'],
    allowed: ['auto'],
    patterns: ['G$'],
  });
  const [keys] = readSchema({ anyOf: [{ required: ['a'] }, { required: ['b'] }] }).check({}).problems;
  assert.deepEqual(keys, { path: [], why: 'missing_key', keys: ['a', 'b'] });
});

test('what is deprecated counts only in the alternative that fits', () => {
  const schema = {
    properties: {
      a: {
        oneOf: [
          { type: 'string' },
          { type: 'boolean', changed: true, changed_version: '22.3', changed_description: 'Say it.' },
        ],
      },
      b: { allOf: [{ type: 'string' }, { deprecated: true, deprecated_version: '23.1' }] },
    },
  };
  const { check } = readSchema(schema);
  assert.deepEqual(check({ a: 'x' }).deprecations, []);
  assert.deepEqual(check({ a: true, b: 'x' }).deprecations, [
    { path: ['a'], since: '22.3', advice: 'Say it.' },
    { path: ['b'], since: '23.1', advice: null },
  ]);
  assert.deepEqual(check({ a: 5 }).deprecations, []);
});

test('the keys of the top are found through references', () => {
  const { keys } = readSchema({
    properties: { a: {} },
    allOf: [{ $ref: '#/$defs/b' }],
    $defs: { b: { properties: { b: {} } }, c: { properties: { c: {} } } },
  });
  assert.deepEqual([...keys].sort(), ['a', 'b']);
});

test('what is no schema is refused', () => {
  for (const schema of [
    null,
    [],
    'x',
    true,
    { properties: [] },
    { properties: { a: 5 } },
    { items: 'x' },
    { allOf: {} },
    { oneOf: [null] },
    { type: 5 },
    { type: [5] },
    { required: 'a'.length },
    { enum: 'x' },
    { pattern: '(' },
    { patternProperties: { '[': {} } },
    { $ref: '#/$defs/nobody' },
    { $ref: 'https://example.com/x.json' },
    { $ref: 5 },
    { $ref: '#/%zz' },
  ])
    assert.throws(() => readSchema(schema), { kind: 'invalid', code: 'bad_schema' }, JSON.stringify(schema));
});

test('a document too large for its schema is cut, and says so', () => {
  const validator = readSchema({ items: { items: { type: 'string' } } });
  const row = Array.from({ length: 1000 }, () => 'x');
  assert.equal(validator.check([row, row]).cut, false);
  assert.equal(validator.check(Array.from({ length: 1000 }, () => row)).cut, true);
  const bad = validator.check([Array.from({ length: 5000 }, () => 1)]);
  assert.equal(bad.problems.length, 2000);
  assert.equal(bad.cut, true);
});

test('only an unknown key close to the missing one makes it misspelt', () => {
  const unknown = (path: string[], key: string): Problem => ({ path, why: 'unknown_key', key, known: ['path', 'owner'] });
  const missing = (path: string[], key: string): Problem => ({ path, why: 'missing_key', keys: [key] });
  const problems = [
    unknown(['a'], 'pth'),
    missing(['a'], 'path'),
    missing(['b'], 'path'),
    unknown(['b'], 'x'),
    missing(['a'], 'owner'),
  ];
  assert.deepEqual(misspeltKeys(problems), [problems[1]]);
});

test('a value’s kind is what Python would make of it', () => {
  const kinds = [null, [], {}, true, 1, 1.5, '', new Uint8Array(0), new Date(0), new Set()].map(kindOf);
  assert.deepEqual(kinds, ['null', 'array', 'object', 'boolean', 'integer', 'number', 'string', 'string', 'other', 'other']);
});

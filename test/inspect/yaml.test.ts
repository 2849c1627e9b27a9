import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BootbundleError } from '../../src/domain/errors.ts';
import { readYaml } from '../../src/inspect/yaml.ts';

const ERROR = Symbol('error');

/**
 * What PyYAML 6.0 `safe_load` answers, asked on 2026-11-22; dates as UTC. Known differences, left out here because js-yaml's parser
 * makes them: it takes tabs after a value, equal anchors and keys over 1,024 characters, it adds a line break to a block scalar
 * that ends the file without one, and of two `<<` keys in one mapping the first wins. Integers past 2^53 lose digits.
 */
const PYYAML: [text: string, answer: unknown][] = [
  ['yes', true],
  ['Yes', true],
  ['YES', true],
  ['yEs', 'yEs'],
  ['no', false],
  ['No', false],
  ['NO', false],
  ['on', true],
  ['On', true],
  ['ON', true],
  ['off', false],
  ['OFF', false],
  ['y', 'y'],
  ['Y', 'Y'],
  ['n', 'n'],
  ['N', 'N'],
  ['true', true],
  ['True', true],
  ['TRUE', true],
  ['tRue', 'tRue'],
  ['false', false],
  ['~', null],
  ['null', null],
  ['Null', null],
  ['NULL', null],
  ['nULL', 'nULL'],
  ['0', 0],
  ['-0', 0],
  ['+0', 0],
  ['0644', 420],
  ['0o644', '0o644'],
  ['0x1F', 31],
  ['0X1F', '0X1F'],
  ['0b101', 5],
  ['0B1', '0B1'],
  ['-0x1f', -31],
  ['0_7', 7],
  ['1_000', 1000],
  ['_1', '_1'],
  ['08', '08'],
  ['007', 7],
  ['-010', -8],
  ['+12', 12],
  ['0b_', ERROR],
  ['1e3', '1e3'],
  ['1.0e3', '1.0e3'],
  ['1.0e+3', 1000.0],
  ['1.5E-3', 0.0015],
  ['1.', 1.0],
  ['.5', 0.5],
  ['-.5', '-.5'],
  ['+.5', '+.5'],
  ['._5', '._5'],
  ['.', '.'],
  ['1_0.5', 10.5],
  ['1.2.3', '1.2.3'],
  ['1.10', 1.1],
  ['.inf', Number.POSITIVE_INFINITY],
  ['-.inf', Number.NEGATIVE_INFINITY],
  ['.INF', Number.POSITIVE_INFINITY],
  ['.iNf', '.iNf'],
  ['.nan', Number.NaN],
  ['.NaN', Number.NaN],
  ['nan', 'nan'],
  ['190:20:30', 685230],
  ['0:30', '0:30'],
  ['00:30', '00:30'],
  ['01:20:30', '01:20:30'],
  ['1:60', '1:60'],
  ['1:5', 65],
  ['22:22', 1342],
  ['12:30:45.67', 45045.67],
  ['0:30.5', 30.5],
  ['1:30:61', '1:30:61'],
  ['-1:30', -90],
  ['2024-01-01', new Date('2024-01-01T00:00:00.000Z')],
  ['2024-1-1', '2024-1-1'],
  ['2024-13-01', ERROR],
  ['2024-02-30', ERROR],
  ['0000-01-01', ERROR],
  ['2024-01-01T10:20:30Z', new Date('2024-01-01T10:20:30.000Z')],
  ['2024-01-01t10:20:30.5-05:00', new Date('2024-01-01T15:20:30.500Z')],
  ['2024-1-1T1:02:03', new Date('2024-01-01T01:02:03.000Z')],
  ['2024-01-01T25:00:00Z', ERROR],
  ['20240101', 20240101],
  ['10.0.0.1', '10.0.0.1'],
  ['52:54:00:12:34:56', 41135085296],
  ['0777', 511],
  ['0888', '0888'],
  ['=', ERROR],
  ['==', '=='],
  ['1,000', '1,000'],
  ['@a', ERROR],
  ['`a', ERROR],
  ['%a', ERROR],
  ['*a', ERROR],
  [':a', ':a'],
  ['a:b', 'a:b'],
  ['a#b', 'a#b'],
  ['0x1.8', '0x1.8'],
  ['', null],
  ["''", ''],
  ["'yes'", 'yes'],
  ['"0644"', '0644'],
  ["'='", '='],
  ['2024-01-01 10:20:30', new Date('2024-01-01T10:20:30.000Z')],
  ['2024-01-01 10:20:30 +5', new Date('2024-01-01T05:20:30.000Z')],
  ['!!str 123', '123'],
  ["!!int '0644'", 420],
  ['!!int 08', ERROR],
  ["!!int ''", ERROR],
  ['!!float 1', 1.0],
  ["!!bool 'TrUe'", true],
  ['!!bool y', ERROR],
  ['!!null x', null],
  ['!!timestamp x', ERROR],
  ['!!binary aGk=', new Uint8Array(Buffer.from('6869', 'hex'))],
  ['!!python/object:os.system x', ERROR],
  ['!foo bar', ERROR],
  ['!!set {a, b}', new Set(['a', 'b'])],
  ['a: 1\na: 2', { a: 2 }],
  ['x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}', { x: { a: 1, b: 2 }, y: { a: 1, b: 3 } }],
  ['x: &x {a: 1}\ny: {a: 0, <<: *x}', { x: { a: 1 }, y: { a: 0 } }],
  ['p: &p {a: 1}\nq: &q {a: 2, c: 3}\ny: {<<: [*p, *q]}', { p: { a: 1 }, q: { a: 2, c: 3 }, y: { a: 1, c: 3 } }],
  ['y: {<<: 1}', ERROR],
  ["y: {'<<': {a: 1}}", { y: { '<<': { a: 1 } } }],
  ['a: *b', ERROR],
  ['{a:1}', { 'a:1': null }],
  ['{"a":1}', { a: 1 }],
  ['1: a\n2: b', { '1': 'a', '2': 'b' }],
  ['? [a]\n: b', ERROR],
  ['a: b: c', ERROR],
  ['---\na\n---\nb', ERROR],
  ['# only a comment', null],
  ['a: |\n  x\n   y\n\n', { a: 'x\n y\n' }],
  ['a: >\n  x\n  y\n\n  z\n', { a: 'x y\nz\n' }],
  ['a: [\n1\n]', { a: [1] }],
  ['a: {\n  b: 1,\n  c: [\n1,\n2,\n  3],\n}\nd: e', { a: { b: 1, c: [1, 2, 3] }, d: 'e' }],
  ['a: \'x\ny\'\nb: "c\nd\n\n e"', { a: 'x y', b: 'c d\ne' }],
  ['a: 1\r\nb: 2\r\n', { a: 1, b: 2 }],
  ['\ufeffa: 1', { a: 1 }],
  ['a: \u0000', ERROR],
  ['a: \u0001', ERROR],
  ['a: [x, -]\nb: [-, y]\nc: {d: -}', { a: ['x', '-'], b: ['-', 'y'], c: { d: '-' } }],
  ['a: [- b]', ERROR],
  ['a: [\n-\n]', ERROR],
  ['a: "b"#c\nd: [e]#f\ng: {h: i}#j', { a: 'b', d: ['e'], g: { h: 'i' } }],
  ['- "b"#c\n- [\'d\'#e\n, f]', ['b', ['d', 'f']]],
  ['a: "b"c', ERROR],
  ['!!python/unicode "x"', 'x'],
  ['a: {{ b }}', ERROR],
  ['__proto__: {a: 1}', { ['__proto__']: { a: 1 } }],
  ["permissions: 0644\nmode: '0644'\n", { permissions: 420, mode: '0644' }],
  ['%YAML 1.1\n---\na: 1', { a: 1 }],
];

test('reads what PyYAML reads, to the same value', () => {
  for (const [text, answer] of PYYAML) {
    if (answer === ERROR) {
      assert.throws(() => readYaml(text), isBadYaml, JSON.stringify(text));
    } else {
      assert.deepEqual(readYaml(text), [answer], JSON.stringify(text));
    }
  }
});

test('with multi it reads all documents, none of an empty text', () => {
  assert.deepEqual(readYaml('a: 1\n---\nb: 2\n---\n', { multi: true }), [{ a: 1 }, { b: 2 }, null]);
  assert.deepEqual(readYaml('', { multi: true }), []);
});

test('an error tells line and column from 1, in message and finding', () => {
  assert.throws(
    () => readYaml('a: 1\nb: {c: d\ne: [f\n'),
    (error) => {
      assert.ok(error instanceof BootbundleError);
      assert.equal(error.kind, 'malformed');
      const [finding] = error.findings ?? [];
      assert.equal(finding?.line, 3);
      assert.ok((finding?.column ?? 0) >= 1);
      assert.match(error.message, /^not YAML: line 3, column \d+: /);
      return true;
    },
  );
});

test('an error after lines that had to be moved still tells the column of the text as given', () => {
  assert.throws(
    () => readYaml('a: [\n1,\n2 : : }\n]'),
    (error) =>
      error instanceof BootbundleError && (error.findings?.[0]?.line ?? 0) === 3 && (error.findings?.[0]?.column ?? 0) < 10,
  );
});

test('so does one after a dash that had to be quoted', () => {
  assert.throws(
    () => readYaml('a: 1\nb: [-, -, "c" d]\n'),
    (error) => error instanceof BootbundleError && error.findings?.[0]?.line === 2 && error.findings[0].column === 15,
  );
});

test('no error quotes the text', () => {
  const secret = 'hunter2';
  for (const text of [
    `a: *${secret}`,
    `!${secret} a`,
    `!${secret}!x a`,
    `!!${secret} a`,
    `!<${secret}> a`,
    `!a!${secret}{ x`,
    `!!${secret} [a]`,
    `!!${secret} {a: b}`,
    `!!int ${secret}`,
    `!!binary ${secret}`,
    `%TAG !${secret}! x\n%TAG !${secret}! y\n--- a`,
    `%TAG ${secret} ${secret}\n--- a`,
    `a: "${secret}`,
    `a: [${secret}`,
    `a: ${secret}: ${secret}: b`,
    `- !!omap [${secret}]`,
    `&${secret} a: *${secret} b: c`,
    `a: &${secret} !!set {b: *${secret}}`,
    `!%zz${secret} a`,
  ])
    assert.throws(
      () => readYaml(text),
      (error) =>
        error instanceof BootbundleError &&
        !error.message.includes(secret) &&
        !JSON.stringify(error.findings ?? []).includes(secret),
      text,
    );
});

test('nothing blows up: depth, aliases, merges, alias bombs, self reference', () => {
  const chain = (size: number, item: (index: number) => string) =>
    Array.from({ length: size }, (_, index) => `a${index}: &a${index} ${index === 0 ? '[xxxxxxxxxx]' : item(index)}`).join(
      '\n',
    );
  const bombs = [
    '['.repeat(100_000),
    '- '.repeat(100_000),
    chain(
      30,
      (index) =>
        `[${Array(10)
          .fill(`*a${index - 1}`)
          .join(', ')}]`,
    ),
    chain(500, (index) => `[*a${index - 1}]`),
    `a: &a ${'x'.repeat(100_000)}\nb: [${Array(9_000).fill('*a').join(', ')}]`,
    `a: &a x\nb: [${Array(20_000).fill('*a').join(', ')}]`,
    `a: &a {${Array.from({ length: 5_000 }, (_, index) => `k${index}: 1`).join(', ')}}\nb:\n${'  - {<<: *a}\n'.repeat(5)}`,
    'a: &a [*a]',
    'a: &a {b: *a}',
  ];
  const start = performance.now();
  for (const text of bombs) assert.throws(() => readYaml(text), isBadYaml, text.slice(0, 40));
  assert.ok(performance.now() - start < 2_000);
});

test('reasonable aliases and merge keys are taken', () => {
  const text = `base: &base {image: mysql, env: [a, b]}\n${Array.from({ length: 500 }, (_, index) => `c${index}: {<<: *base, n: ${index}}`).join('\n')}`;
  const [document] = readYaml(text) as [Record<string, unknown>];
  assert.deepEqual(document.c499, { image: 'mysql', env: ['a', 'b'], n: 499 });
});

test('any text is read, or is bad_yaml', () => {
  const yamlish = fc.array(
    fc.constantFrom(
      'a',
      ': ',
      '- ',
      '\n',
      '  ',
      '[',
      ']',
      '{',
      '}',
      '&a ',
      '*a',
      '!!int ',
      '"',
      "'",
      '|',
      '>',
      '#',
      '? ',
      '<<: ',
      '---\n',
      '0',
      ',',
      '\t',
      '\0',
      '=',
      '%',
    ),
    { maxLength: 40 },
  );
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    yamlish.map((pieces) => pieces.join('')),
  );
  fc.assert(
    fc.property(text, fc.boolean(), (source, multi) => {
      try {
        assert.ok(Array.isArray(readYaml(source, { multi })));
      } catch (error) {
        assert.ok(isBadYaml(error), String(error));
      }
    }),
    { numRuns: 2_000 },
  );
});

function isBadYaml(error: unknown): boolean {
  return error instanceof BootbundleError && error.kind === 'malformed' && error.code === 'bad_yaml';
}

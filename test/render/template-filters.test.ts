import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { BootbundleError } from '../../src/domain/errors.ts';
import type { Json, JsonObject } from '../../src/domain/json.ts';
import { readYaml } from '../../src/inspect/yaml.ts';
import { parseTemplate, renderTemplate } from '../../src/render/template.ts';
import { FILTERS } from '../../src/render/template-filters.ts';
import { findCloudInit, skipWithout } from '../cloudinit/fetch.ts';

const LIMITS = { milliseconds: 50, bytes: 100_000 };
const cloudInit = await findCloudInit();

function render(source: string, vars: JsonObject = {}, secrets: Record<string, Uint8Array> = {}): string {
  const context = { instance: { name: 'a', id: 'i' }, vars, labels: {}, secrets: new Map(Object.entries(secrets)) };
  return renderTemplate(parseTemplate(source), context, LIMITS);
}

/** The code of what it is refused with. */
function refused(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof BootbundleError) return error.code;
    throw error;
  }
  return 'taken';
}

/** Input, filters, what comes of them as JSON. */
const EXAMPLES: readonly [Json, string, Json][] = [
  [null, 'default: "d"', 'd'],
  [false, 'default: "d"', false],
  [{}, 'default: 1', 1],
  [{ b: [1, 'x'], a: null }, 'json', '{"b":[1,"x"],"a":null}'],
  ['"\u2028\u0000', 'json', '"\\"\u2028\\u0000"'],
  [{ b: [1, 'yes'], 'a b': null }, 'yaml', '{b: [1, "yes"], "a b": null}'],
  ["it's $HOME `x` \\", 'shell', "'it'\\''s $HOME `x` \\'"],
  ['', 'shell', "''"],
  [80, 'shell', "'80'"],
  ['é\n', 'base64', 'w6kK'],
  ['a\n  b\n\n \nc\r\n\r\nd\n', 'indent: 2', 'a\n    b\n\n   \n  c\r\n\r\n  d\n'],
  ['a\nb', 'indent: 0', 'a\nb'],
  ['a', 'append: "b"', 'ab'],
  ['a', 'append: 1.5', 'a1.5'],
  ['a', 'prepend: "b"', 'ba'],
  ['aß', 'upcase', 'ASS'],
  ['AÉ', 'downcase', 'aé'],
  ['éCOLE', 'capitalize', 'École'],
  [' \ta\n', 'strip', 'a'],
  [' a ', 'lstrip', 'a '],
  [' a ', 'rstrip', ' a'],
  ['a\r\nb\nc\r', 'strip_newlines', 'abc\r'],
  ['a.b.c', 'replace: ".", "$&"', 'a$&b$&c'],
  ['a.b.c', 'replace_first: ".", "$&"', 'a$&b.c'],
  ['a.b.c', 'replace_last: ".", ""', 'a.bc'],
  ['a.b.c', 'remove: "."', 'abc'],
  ['a.b.c', 'remove_first: "."', 'ab.c'],
  ['a.b.c', 'remove_last: "."', 'a.bc'],
  ['a,,b,,', 'split: ","', ['a', '', 'b']],
  ['a🙂é', 'split: ""', ['a', '🙂', 'é']],
  ['<a href="x">\'&', 'escape', '&lt;a href=&#34;x&#34;&gt;&#39;&amp;'],
  ['a b/ü?&', 'url_encode', 'a+b%2F%C3%BC%3F%26'],
  ['a+b%2F%C3%BC', 'url_decode', 'a b/ü'],
  ['🙂🙂🙂🙂🙂', 'truncate: 4', '🙂...'],
  ['abc', 'truncate: 3', 'abc'],
  ['abcdef', 'truncate: 3, "…"', 'ab…'],
  ['abcdef', 'truncate: 1, "..."', '...'],
  ['a🙂cd', 'slice: 1, 2', '🙂c'],
  ['abc', 'slice: -1', 'c'],
  ['abc', 'slice: -9', ''],
  [[1, 2, 3], 'slice: 1, 9', [2, 3]],
  [[1, 2, 3], 'slice: -9', []],
  ['a🙂', 'size', 2],
  [[1, 2], 'size', 2],
  [{ a: 1 }, 'size', 1],
  [1, 'plus: "2"', 3],
  ['8080', 'minus: 80', 8000],
  [0.5, 'times: 3', 1.5],
  [10, 'divided_by: 4', 2.5],
  [-7, 'modulo: 3', 2],
  [-1.5, 'abs', 1.5],
  [1.2, 'ceil', 2],
  [1.8, 'floor', 1],
  [-2.5, 'round', -3],
  [1.005, 'round: 2', 1.01],
  [1, 'at_least: 5', 5],
  [9, 'at_most: 5', 5],
  [[1, 'a', true], 'join', '1 a true'],
  [['a', 'b'], 'join: ", "', 'a, b'],
  [[1, 2], 'first', 1],
  [[1, 2], 'last', 2],
  [[1, 2, 3], 'reverse', [3, 2, 1]],
  [[10, 9, 1], 'sort', [1, 9, 10]],
  [['b', 'Z', 'ä', 'a'], 'sort', ['Z', 'a', 'b', 'ä']],
  [[{ n: 2 }, {}, { n: 1 }], 'sort: "n"', [{ n: 1 }, { n: 2 }, {}]],
  [[1, '1', 1, '[1]', [1], [1], { a: 1 }, { a: 1 }, null, null], 'uniq', [1, '1', '[1]', [1], { a: 1 }, null]],
  [[null, 0, false, ''], 'compact', [0, false, '']],
  [[1], 'concat: vars.other', [1, 7]],
  [[{ a: { b: 1 } }, {}, { 'a.b': 2 }], 'map: "a.b"', [1, null, 2]],
  [[{ a: 1 }, { a: 2 }, { b: 1 }], 'where: "a", 2', [{ a: 2 }]],
  [[{ a: 0 }, { a: false }, {}], 'where: "a"', [{ a: 0 }]],
  [[{ a: 0 }, { a: false }, {}], 'reject: "a"', [{ a: false }, {}]],
  [[{ a: 1, b: 2 }, { a: 1 }], 'find: "a", 1', { a: 1, b: 2 }],
  [[], 'find: "a"', null],
  [[{ a: 1 }], 'has: "a", 1', true],
  [[{ a: 1 }], 'has: "b"', false],
  [[1, '2', 3.5], 'sum', 6.5],
  [[{ n: 1 }, { n: 2 }], 'sum: "n"', 3],
];

test('each filter gives what is expected of it', () => {
  for (const [input, filter, expected] of EXAMPLES) {
    const result = JSON.parse(render(`{{ vars.x | ${filter} | json }}`, { x: input, other: [7] }));
    assert.deepEqual(result, expected, `${JSON.stringify(input)} | ${filter}`);
  }
  const tried = new Set(EXAMPLES.map(([, filter]) => filter.replace(/:.*/s, '')));
  assert.deepEqual(
    [...FILTERS.keys()].filter((name) => !tried.has(name)),
    [],
  );
});

test('a filter refuses what it is not made for', () => {
  for (const [input, filter, code] of [
    ['a\0b', 'shell', 'template_failed'],
    [['a'], 'shell', 'template_prints_collection'],
    [{}, 'base64', 'template_prints_collection'],
    [null, 'base64', 'template_prints_null'],
    ['a', 'indent: -1', 'template_failed'],
    ['a', 'indent: 1.5', 'template_failed'],
    ['a', 'indent: 101', 'template_failed'],
    ['a', 'replace: "", "b"', 'template_failed'],
    ['a', 'plus: 1', 'template_failed'],
    ['1e3', 'plus: 1', 'template_failed'],
    ['0x10', 'plus: 1', 'template_failed'],
    ['', 'plus: 1', 'template_failed'],
    [true, 'plus: 1', 'template_failed'],
    [1, 'divided_by: 0', 'template_failed'],
    [1, 'modulo: 0', 'template_failed'],
    [1e308, 'times: 10', 'template_failed'],
    [[1e308, 1e308], 'sum', 'template_failed'],
    ['abc', 'join', 'template_failed'],
    [{ a: 1 }, 'map: "a"', 'template_failed'],
    [[1, 'a'], 'sort', 'template_failed'],
    [[{}, {}], 'sort', 'template_failed'],
    [[1, null], 'join', 'template_prints_null'],
    [[1], 'concat: 2', 'template_failed'],
    ['%', 'url_decode', 'template_failed'],
    ['%ff', 'url_decode', 'template_failed'],
    [5, 'first', 'template_failed'],
  ] as const)
    assert.equal(
      refused(() => render(`{{ vars.x | ${filter} | json }}`, { x: input as Json })),
      code,
      `${input} | ${filter}`,
    );
});

test('a secret is its text, and its bytes in base64', () => {
  const secrets = { s: Buffer.from("it's\n"), bin: Buffer.from([0, 255]), none: Buffer.alloc(0), n: Buffer.from('42\n') };
  for (const [source, expected] of [
    ['{{ secrets.s }}|{{ secrets.s | strip | upcase }}|{{ secrets.s.size }}', "it's\n|IT'S|5"],
    ['{{ secrets.s | shell }}{{ secrets.s | json }}{{ secrets.s | yaml }}', "'it'\\''s\n'\"it's\\n\"\"it's\\n\""],
    ['{{ secrets.bin | base64 }} {{ secrets.s | base64 }} {{ secrets.none | base64 }}', 'AP8= aXQncwo= '],
    ['{{ secrets.none | default: "d" }}{{ secrets.n | plus: 1 }}{{ secrets.n | strip | split: "" | join: "-" }}', 'd434-2'],
    ['{% assign s = secrets.s %}{{ s | indent: 2 }}{% case s %}{% when secrets.s %}same{% endcase %}', "it's\nsame"],
  ] as const)
    assert.equal(render(source, {}, secrets), expected, source);
  for (const filter of ['json', 'yaml', 'shell', 'upcase', 'size', 'append: "x"', 'plus: 1'])
    assert.equal(
      refused(() => render(`{{ secrets.bin | ${filter} }}`, {}, secrets)),
      'secret_not_text',
      filter,
    );
});

const awkward = fc.constantFrom(
  ...[
    'yes',
    'No',
    'ON',
    'off',
    'y',
    'N',
    'true',
    'null',
    '~',
    'Null',
    '',
    ' ',
    '0644',
    '0o17',
    '0x1f',
    '1e3',
    '1.5',
    '.5',
    '1_000',
    '12:30',
    '12:30:45.5',
  ],
  ...[
    '2001-12-14',
    '2001-12-14t21:59:43.10-05:00',
    '.inf',
    '-.INF',
    '.nan',
    '=',
    '<<',
    '-',
    '- a',
    '--- a',
    '...',
    '---',
    '? a',
    ': a',
    'a: b',
    'a:',
    ':a',
    'a #b',
    '#a',
  ],
  ...[
    '@a',
    '`a',
    '%a',
    '!a',
    '!!int 1',
    '&a',
    '*a',
    '|',
    '>',
    '|-\n x',
    '{a: b}',
    '[a',
    'a]',
    ',',
    "'",
    '"',
    '\\',
    "it's",
    'a\nb',
    'a\n\nb\n',
    '\ta',
    'a\t',
    'a\r\nb',
    '\0',
    '\x07',
    '\x7f',
    '\x85',
    '\xa0',
    '\u2028',
  ],
  ...[
    '\ufeff',
    '\ufffe',
    '\uffff',
    '🙂',
    'é',
    '{{ x }}',
    '{% raw %}',
    '+1',
    '-1',
    '1.',
    '0',
    '00',
    '09',
    '0b1',
    '_',
    '_1',
    'a/b',
    '/etc/x',
    'x'.repeat(2000),
    'a b '.repeat(500),
  ],
);
const anyText = fc.oneof(awkward, fc.string({ unit: 'binary', maxLength: 20 }), fc.string({ maxLength: 20 }));
const anyNumber = fc.oneof(
  fc.integer(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value || 0),
  fc.constantFrom(1e21, 1e-7, 1.5e300, -1e-300, 123456789012345680000, 0.1, -0.5),
);
const { anyValue } = fc.letrec<{ anyValue: Json }>((tie) => ({
  anyValue: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    { weight: 4, arbitrary: anyText },
    { weight: 2, arbitrary: anyNumber },
    { weight: 1, arbitrary: fc.constantFrom(true, false, null) },
    { weight: 2, arbitrary: fc.array(tie('anyValue'), { maxLength: 4 }) },
    {
      weight: 2,
      arbitrary: fc
        .array(
          fc.tuple(
            anyText.filter((key) => key !== '__proto__'),
            tie('anyValue'),
          ),
          { maxLength: 4 },
        )
        .map((pairs): JsonObject => Object.fromEntries(pairs)),
    },
  ),
}));
/** Wherever a value may stand after a key. */
const YAML_PLACES =
  'a:\n  - b:\n      key: {{ vars.x | yaml }}\n      next: [{{ vars.x | yaml }}, {k: {{ vars.x | yaml }}}]\n  - {{ vars.x | yaml }}\n';
const placed = (x: Json) => ({ a: [{ b: { key: x, next: [x, { k: x }] } }, x] });

test('what yaml writes is read as it was, at any place', () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      const text = render(YAML_PLACES, { x: value });
      assert.equal(text.split('\n').length, YAML_PLACES.split('\n').length, 'one line each');
      assert.deepEqual(readYaml(text), [placed(value)]);
    }),
    { numRuns: 500 },
  );
});

test('PyYAML reads it so, too', { skip: skipWithout(cloudInit) }, () => {
  assert.ok(cloudInit.found);
  const longKeys = { ['x'.repeat(2000)]: 1, ['a b '.repeat(500)]: ['c'], after: { ['é'.repeat(1100)]: null } };
  const values = [longKeys, ...fc.sample(anyValue, 400)];
  const texts = values.map((value) => render(YAML_PLACES, { x: value }));
  const script = 'import json, sys, yaml\nfor text in json.load(sys.stdin): print(json.dumps(yaml.safe_load(text)))';
  const read = execFileSync(cloudInit.python, ['-c', script], {
    input: JSON.stringify(texts),
    encoding: 'utf8',
    env: { PYTHONPATH: cloudInit.modules, PYTHONIOENCODING: 'utf8' },
  })
    .trimEnd()
    .split('\n');
  values.forEach((value, index) => {
    assert.deepEqual(JSON.parse(read[index] ?? ''), placed(value), texts[index]);
  });
});

test('what is plain text to every reader is not quoted', () => {
  for (const text of ['web-1', 'a.b_c', '/etc/app.d/x', 'Europe/Berlin', 'x86_64', 'never', 'yesterday'])
    assert.equal(render('{{ vars.x | yaml }}', { x: text }), text);
  for (const text of [
    'y',
    'NO',
    'on',
    'null',
    '1',
    '1.5',
    '12:30',
    '0644',
    '-x',
    '~',
    '.5',
    '',
    'a b',
    'a:b',
    '=',
    '<<',
    '2001-01-01',
  ])
    assert.equal(render('{{ vars.x | yaml }}', { x: text }), JSON.stringify(text));
});

test('what json writes is what JSON.stringify writes', () => {
  fc.assert(
    fc.property(anyValue, (value) => {
      assert.equal(render('{{ vars.x | json }}', { x: value }), JSON.stringify(value));
    }),
  );
});

test('a shell makes one word of what shell writes, the same', () => {
  const texts = fc.sample(anyText, 500).map((text) => text.replaceAll('\0', ''));
  const script = texts.map((text) => render(`printf '%s\\0' {{ vars.x | shell }}`, { x: text }));
  const printed = execFileSync('sh', ['-s'], { input: script.join('\n'), encoding: 'utf8' });
  assert.deepEqual(printed.split('\0').slice(0, -1), texts);
});

test('base64 is of the UTF-8 of a text and of the bytes of a secret', () => {
  fc.assert(
    fc.property(anyText, fc.uint8Array({ maxLength: 50 }), (text, bytes) => {
      const source = '{{ vars.x | base64 }} {{ secrets.s | base64 }}';
      assert.equal(
        render(source, { x: text }, { s: bytes }),
        `${Buffer.from(text).toString('base64')} ${Buffer.from(bytes).toString('base64')}`,
      );
    }),
  );
});

test('indent puts a block into a YAML block, whatever is in it', () => {
  const line = fc.constantFrom('a', '  b: c', '', '# x', '- y', 'é: "🙂"', '\tz');
  fc.assert(
    fc.property(fc.array(line, { minLength: 1, maxLength: 6 }), (lines) => {
      const content = `first\n${lines.join('\n')}`;
      const text = render('outer:\n  key: |-\n    {{ vars.x | indent: 4 }}\n  after: 1\n', { x: content });
      assert.deepEqual(readYaml(text), [{ outer: { key: content.replace(/\n+$/, ''), after: 1 } }]);
      assert.doesNotMatch(text, / +$/m);
    }),
  );
});

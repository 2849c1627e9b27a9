import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findPlaces } from '../../src/inspect/places.ts';
import { readYaml } from '../../src/inspect/yaml.ts';

type Path = (string | number)[];

/** `line:column` of a value, or of a key. */
function at(text: string, path: Path, what?: 'key' | 'value', document = 0): string | null {
  const place = findPlaces(text)[document]?.of(path, what);
  return place ? `${place.line}:${place.column}` : null;
}

const TEXT = `# first
a: &x
  b: [1, 'q', {c: d}]
  e: "two
    lines"
z: *x
f: |
    text
g:
? h
: - i
  -
  - *x
`;

test('a value is where it begins, its quotes included, and a key where it stands', () => {
  const table: [Path, string, string][] = [
    [[], '2:1', '2:1'],
    [['a'], '3:3', '2:1'],
    [['a', 'b'], '3:6', '3:3'],
    [['a', 'b', 0], '3:7', '3:7'],
    [['a', 'b', 1], '3:10', '3:10'],
    [['a', 'b', 2, 'c'], '3:19', '3:16'],
    [['a', 'e'], '4:6', '4:3'],
    [['f'], '8:5', '7:1'],
    [['h'], '11:3', '10:3'],
    [['h', 0], '11:5', '11:5'],
  ];
  for (const [path, value, key] of table) {
    assert.equal(at(TEXT, path), value, JSON.stringify(path));
    assert.equal(at(TEXT, path, 'key'), key, JSON.stringify(path));
  }
});

test('an empty value has its key’s place, what is not there its nearest ancestor’s', () => {
  assert.equal(at(TEXT, ['g']), '9:1');
  assert.equal(at(TEXT, ['h', 1]), '11:3');
  assert.equal(at(TEXT, ['a', 'b', 9, 'x']), '3:6');
  assert.equal(at(TEXT, ['nobody', 'x']), '2:1');
});

test('an alias stands where it is written, and what is in it where that is', () => {
  assert.equal(at(TEXT, ['z']), '6:4');
  assert.equal(at(TEXT, ['z', 'b', 1]), '3:10');
  assert.equal(at(TEXT, ['h', 2, 'e']), '4:6');
});

test('merge keys bring in places, a key of one’s own goes first, and of a list the first', () => {
  const text = 'a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 5}\nd: {<<: *b}\ne: {<<: {q: 1}}\n';
  assert.equal(at(text, ['c', 'x']), '3:22');
  assert.equal(at(text, ['c', 'y']), '1:17');
  assert.equal(at(text, ['c', 'z']), '2:17');
  assert.equal(at(text, ['d', 'y']), '2:11');
  assert.equal(at(text, ['e', 'q']), '5:13');
});

test('of a repeated key the last place counts, and each repetition is told', () => {
  const text = 'a: 1\nb: {c: 1, c: 2}\na: 3\n<<: {x: 1}\n<<: {y: 1}\n';
  assert.equal(at(text, ['a']), '3:4');
  assert.deepEqual(findPlaces(text)[0]?.repeated(100), [
    { key: 'c', place: { line: 2, column: 11 } },
    { key: 'a', place: { line: 3, column: 1 } },
  ]);
});

test('documents are counted as readYaml counts them', () => {
  for (const text of ['', '# a\n', 'a: 1\n', '---\na: 1\n---\nb: 2\n', '---\n---\n', 'a: 1\n...\n', '%YAML 1.1\n--- x\n'])
    assert.equal(
      findPlaces(text).length,
      text.trim() === '' || text === '# a\n' ? 0 : readYaml(text, { multi: true }).length,
      text,
    );
  assert.equal(at('---\na: 1\n---\nb: 2\n', ['b'], 'value', 1), '4:4');
  assert.equal(findPlaces('---\n---\na: 1')[0]?.start, null);
});

test('every kind of line break and a byte order mark leave the columns right', () => {
  assert.equal(at('\ufeffa: 1', ['a']), '1:4');
  for (const end of ['\n', '\r\n', '\r']) assert.equal(at(`a: 1${end}b:${end}  c: 2${end}`, ['b', 'c']), '3:6');
});

test('what PyYAML takes and js-yaml does not is placed all the same', () => {
  const text = 'runcmd: [ # the "list"\n  a,\n# more\nb, [tar, xf, -]\n]\nx: "a\nb"#c\nq: z\n';
  for (const variant of [text, text.replaceAll('\n', '\r\n')]) {
    assert.equal(readYaml(variant).length, 1);
    assert.equal(at(variant, ['runcmd', 1]), '4:1');
    assert.equal(at(variant, ['runcmd', 2, 2]), '4:14');
    assert.equal(at(variant, ['x']), '6:4');
    assert.equal(at(variant, ['q']), '8:4');
  }
});

test('JSON indented with tabs is placed', () => {
  assert.equal(at('#kube-pod\n{\n\t"a":\t[\n\t\t{"b": 1}\n\t]\n}\n', ['a', 0, 'b']), '4:9');
});

test('an unquoted scalar tells what was written', () => {
  const places = findPlaces('a: 0644\nb: "0644"\nc: [yes, *x]\nd: &x 12:30\ne: *x\nf:\ng: >\n  1\n')[0];
  const plain = (...path: Path) => places?.plain(path);
  assert.deepEqual(
    [plain('a'), plain('b'), plain('c', 0), plain('d'), plain('e'), plain('f'), plain('g'), plain('h'), plain()],
    ['0644', null, 'yes', '12:30', '12:30', null, null, null, null],
  );
});

test('a text that cannot be read has no places', () => {
  for (const text of ['a: [', 'a: b: c', '\ta: 1', 'a: *x\n- b']) assert.deepEqual(findPlaces(text), []);
});

test('hostile texts are placed in bounded time', { timeout: 20_000 }, () => {
  const texts = {
    wide: `- [${'[],'.repeat(300_000)}]`,
    mended: `a: [${'\nb,'.repeat(300_000)}\n]`,
    lines: '\n'.repeat(1 << 20),
    comments: `a: ["x"${'# '.repeat(300_000)}${'\nb'.repeat(2000)}\n]`,
    merges: `a: &a [1]\n${Array.from({ length: 9 }, (_, i) => `k${i}: &k${i} {<<: [${i ? `*k${i - 1},`.repeat(9) : ''}{}]}\n`).join('')}`,
  };
  for (const [name, text] of Object.entries(texts)) {
    const before = performance.now();
    const [places] = findPlaces(text);
    places?.of(['k8', 'nobody']);
    places?.of([0, 250_000]);
    assert.ok(performance.now() - before < 3000, name);
  }
});

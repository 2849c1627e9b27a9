import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findLostValues } from '../../src/inspect/lost-values.ts';

const PAUSE = async () => {};

const sourcesOf = (configs: [name: string, text: string][]) =>
  configs.map(([name, text]) => ({ origin: name.replace('!', ''), text, statesRule: name.startsWith('!') }));

/** In the given order; a name with a `!` states a rule of its own. @returns `PART: PATH ← PART that wins` */
async function lost(...configs: [name: string, text: string][]): Promise<string[]> {
  return (await findLostValues(sourcesOf(configs), 'given', PAUSE)).map(({ severity, code, part, message }) => {
    assert.deepEqual([severity, code], ['warning', 'value_lost']);
    const [, path, winner] = /^its (.+) is passed over for the one of (.+?): /.exec(message) ?? [];
    return `${part}: ${path} ← ${winner}`;
  });
}

/** In reverse order. @returns `PART: PATH, PART it clashes with` */
async function clashes(...configs: [name: string, text: string][]): Promise<string[]> {
  return (await findLostValues(sourcesOf(configs), 'reverse', PAUSE)).map(({ severity, code, part, message }) => {
    assert.deepEqual([severity, code], ['warning', 'merge_clash']);
    const [, path, other] = /^its (.+) is a list, the one of (.+?) a map: /.exec(message) ?? [];
    return `${part}: ${path}, ${other}`;
  });
}

test('of two different single values the later is lost, and the finding says for which', async () => {
  assert.deepEqual(await lost(['a', 'hostname: one'], ['!b', 'x: 1'], ['c', 'hostname: two']), ['c: hostname ← a']);
  assert.deepEqual(await lost(['a', 'hostname: one'], ['b', 'hostname: two'], ['c', 'hostname: three']), [
    'b: hostname ← a',
    'c: hostname ← a',
  ]);
});

test('equal values are not lost', async () => {
  for (const value of ['one', '1', 'yes', '~', '2030-01-01', '.nan', '!!binary AAEC', '{a: 1}', '[1, 2]', '0644'])
    assert.deepEqual(await lost(['a', `x: ${value}`], ['b', `x: ${value}`]), [], value);
  assert.deepEqual(await lost(['a', 'x: yes'], ['b', 'x: true']), []);
  assert.deepEqual(await lost(['a', 'x: 0644'], ['b', 'x: 420']), []);
});

test('values of another type are other values', async () => {
  assert.deepEqual(await lost(['a', 'x: 1'], ['b', 'x: "1"']), ['b: x ← a']);
  assert.deepEqual(await lost(['a', 'x: 2030-01-01'], ['b', 'x: 2030-01-02']), ['b: x ← a']);
  assert.deepEqual(await lost(['a', 'x: false'], ['b', 'x: ~']), ['b: x ← a']);
});

test('mappings are looked into, at any depth; lists join, so nothing of them is lost', async () => {
  assert.deepEqual(await lost(['a', 'ntp: {enabled: true, pools: [a]}'], ['b', 'ntp: {enabled: false, pools: [b], x: 1}']), [
    'b: ntp.enabled ← a',
  ]);
  assert.deepEqual(await lost(['a', 'runcmd: [a]'], ['b', 'runcmd: [b]']), []);
  assert.deepEqual(await lost(['a', 'a: {b: {c: {d: 1}}}'], ['b', 'a: {b: {c: {d: 2, e: 3}}}']), ['b: a.b.c.d ← a']);
});

test('who states a rule overrides or loses by wish; what it said first still wins over the others', async () => {
  assert.deepEqual(await lost(['a', 'x: 1'], ['!b', 'x: 2']), []);
  assert.deepEqual(await lost(['!a', 'x: 1'], ['b', 'x: 2']), ['b: x ← a']);
});

test('what is not YAML, empty or no mapping is passed over: others tell of it', async () => {
  assert.deepEqual(await lost(['a', 'x: 1'], ['b', 'x: [1'], ['c', ''], ['d', '- x: 2'], ['e', 'x'], ['f', 'x: 2']), [
    'f: x ← a',
  ]);
});

test('a key named like something of JavaScript is a key', async () => {
  assert.deepEqual(await lost(['a', 'constructor: 1'], ['b', 'constructor: 1']), []);
  assert.deepEqual(await lost(['a', '{toString: 1}'], ['b', '{toString: 2, hasOwnProperty: 3}']), ['b: toString ← a']);
});

test('in reverse order later single values win, so nothing is lost', async () => {
  assert.deepEqual(await clashes(['a', 'x: 1'], ['b', 'x: 2'], ['c', 'x: [1]'], ['d', 'x: {a: 1}']), []);
});

test('in reverse order a list for what is a map before it is a clash, at any depth', async () => {
  assert.deepEqual(await clashes(['a', 'users: {x: 1}'], ['b', 'users: [y]']), ['b: users, a']);
  assert.deepEqual(await clashes(['a', 'ntp: {pools: {x: 1}}'], ['b', 'ntp: {pools: [y]}']), ['b: ntp.pools, a']);
  assert.deepEqual(await clashes(['a', 'x: {a: 1}'], ['b', 'x: {b: 1}'], ['c', 'x: ~']), []);
});

test('a finding names the key and quotes no value', async () => {
  for (const order of ['given', 'reverse'] as const) {
    const findings = await findLostValues(
      sourcesOf([
        ['!a', 'chpasswd: {password: hunter1, users: {hunter: 1}}'],
        ['b', 'chpasswd: {password: hunter2, users: [hunter]}'],
      ]),
      order,
      PAUSE,
    );
    assert.equal(findings.length, 1);
    assert.doesNotMatch(JSON.stringify(findings), /hunter/);
  }
});

test('the first line that says #cloud-config is a comment', async () => {
  assert.deepEqual(await lost(['a', '#cloud-config\nx: 1\n'], ['b', '#cloud-config\nx: 2\n']), ['b: x ← a']);
});

test('fifty losses are told, and others get their turn between two cloud-configs', async () => {
  const config = (value: number) => Array.from({ length: 80 }, (_, key) => `k${key}: ${value}\n`).join('');
  let pauses = 0;
  const sources = sourcesOf([
    ['!a', config(1)],
    ['b', config(2)],
  ]);
  const findings = await findLostValues(sources, 'given', async () => {
    pauses++;
  });
  assert.deepEqual([findings.length, findings.at(-1)?.code, pauses], [51, 'more_findings', 2]);
});

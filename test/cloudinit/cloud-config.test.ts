import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { inspectCloudConfig } from '../../src/inspect/cloud-config.ts';
import type { SchemaSet } from '../../src/inspect/schema.ts';
import { readYaml } from '../../src/inspect/yaml.ts';
import { ODD } from '../inspect/odd-configs.ts';
import { skipWithoutSchemas, UPSTREAM, upstreamSchemas } from '../inspect/upstream.ts';
import { findCloudInit, skipWithout } from './fetch.ts';

const cloudInit = await findCloudInit();
const skip = skipWithout(cloudInit) || skipWithoutSchemas();
const schemas = skip ? null : upstreamSchemas();

/** Slips tried; more by hand. */
const RUNS = Number(process.env.SCHEMA_RUNS ?? 300);

type Answer = { raised: string } | string | number | boolean | null | unknown[];

/** What the real cloud-init makes of each. */
function ask(questions: readonly (readonly string[])[]): Answer[] {
  assert.ok(cloudInit.found);
  const { stdout, stderr } = spawnSync(cloudInit.python, [fileURLToPath(new URL('judge.py', import.meta.url))], {
    input: JSON.stringify(questions),
    env: { PATH: '/usr/bin:/bin', PYTHONPATH: cloudInit.modules, PYTHONUTF8: '1' },
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  assert.notEqual(stdout, '', stderr);
  return JSON.parse(stdout);
}

async function codes(text: string): Promise<string[]> {
  return (await inspectCloudConfig('c', 'text/cloud-config', Buffer.from(text), schemas)).map(({ code }) => code);
}

const RAISED = 'raised';
const isRaised = (answer: Answer | undefined) => answer !== null && typeof answer === 'object' && RAISED in answer;

test('the traps are real: cloud-init loses, misreads or stumbles where a finding says so, and nowhere else', {
  skip,
}, async () => {
  const table: [
    question: string,
    asked: string,
    config: string,
    code: string,
    trapped: (answer: Answer | undefined) => boolean,
  ][] = [];
  const list = (items: string[], code: string, trapped: (answer: Answer | undefined, item: string) => boolean) => {
    for (const item of items)
      table.push(['commands', `- ${item}`, `runcmd:\n- ${item}\n`, code, (answer) => trapped(answer, item)]);
  };
  list(['ls', 'echo foo: bar', '5', 'yes', '', '[ls]', '{a: b}', "'a: b'", '2020-01-01'], 'bad_command', isRaised);
  list(
    [
      '[a, 0644]',
      '[a, 644]',
      '[a, 12:30]',
      '[a, 1.10]',
      '[a, 1.5]',
      '[a, yes]',
      '[a, null]',
      '[a, 0x1f]',
      '[a, -3]',
      '[a, 2020-01-01]',
      '[a, 1_000]',
      '[a, 10.0]',
    ],
    'misread_value',
    (answer, item) => String(answer) !== `#!/bin/sh\n'a' '${item.slice(4, -1)}'\n`,
  );
  const octal = (value: string) => Number.parseInt(value.replace(/^'|'$/g, '').replace(/^0o/, ''), 8);
  for (const value of ['0644', '644', "'0644'", "'644'", '0o600', '0600', "'0888'", 'u=rw', '0777', '420'])
    table.push([
      'permissions',
      `permissions: ${value}`,
      `write_files: [{path: /a, permissions: ${value}}]\n`,
      'bad_permissions',
      (answer) => answer !== octal(value),
    ]);
  for (const [encoding, content] of [
    ['b64', 'aGk='],
    ['b64', 'aGk'],
    ['b64', '"hello, world"'],
    ['base64', '"aG k=\\n"'],
    ['B64', '""'],
    ['b64', '!!binary aGk='],
    ['b64', 'é'],
  ])
    table.push([
      'content',
      `{encoding: ${encoding}, content: ${content}}`,
      `write_files: [{path: /a, encoding: ${encoding}, content: ${content}}]\n`,
      'bad_base64',
      isRaised,
    ]);
  for (const [encoding, content] of [
    ['gz+b64', 'aGk='],
    ['gzip', 'x'],
    ['gz', '!!binary aGk='],
    ['gz', '""'],
    ['gz+b64', '""'],
    ['gz+b64', '!!binary SDRzSUFBQUFBQUFBQTh2SUJBQ3NLcFBZQWdBQUFBPT0='],
    ['gz', '!!binary H4sIAAAAAAAAA8vIBACsKpPYAgAAAA=='],
    ['gzip+base64', 'H4sIAAAAAAAAA8vIBACsKpPYAgAAAA=='],
  ])
    table.push([
      'content',
      `{encoding: ${encoding}, content: ${content}}`,
      `write_files: [{path: /a, encoding: ${encoding}, content: ${content}}]\n`,
      'bad_gzip',
      isRaised,
    ]);
  for (const users of [
    '[{name: u}]',
    '[default]',
    '[[default, u]]',
    '["u,default"]',
    '[{gecos: x}]',
    '[{name: u}, default]',
    '[u]',
  ])
    table.push([
      'default_user',
      `users: ${users}`,
      `users: ${users}\npassword: x\n`,
      'no_default_user',
      (answer) => answer === null,
    ]);
  for (const key of ['timeout', 'retries', 'header', 'url'])
    table.push([
      'webhook',
      `{type: webhook, endpoint: x, ${key}: 1}`,
      `reporting: {a: {type: webhook, endpoint: x, ${key}: 1}}\n`,
      'unknown_key',
      isRaised,
    ]);

  const answers = ask(table.map(([question, asked]) => [question, asked]));
  for (const [index, [question, asked, config, code, trapped]] of table.entries())
    assert.equal(
      (await codes(config)).includes(code),
      trapped(answers[index]),
      `${question} ${asked}: ${JSON.stringify(answers[index])}`,
    );
});

test('an archive is refused where it would end in an exception, and only there', { skip }, async () => {
  const archives = [
    '- content: {a: 1}',
    '- content: [a]',
    '- content: 5',
    '- content:',
    '- {type: x, content: a}',
    '- {type: 5, content: a}',
    '- {type: a/b, content: x}',
    '- {}',
    '- 5',
    '- [a]',
    '- "#!/bin/sh"',
    '- content: !!binary aGk=',
    '- {type: text/cloud-config, content: {a: 1}}',
    '- {type: "", content: "a: 1"}',
  ];
  const answers = ask(archives.map((text) => ['archive', text]));
  for (const [index, text] of archives.entries()) {
    const found = await inspectCloudConfig('c', 'text/cloud-config-archive', Buffer.from(text), schemas);
    const fatal = found.some(({ code }) => code === 'bad_content' || code === 'bad_type');
    assert.equal(fatal, isRaised(answers[index]), `${text}: ${JSON.stringify(answers[index])}`);
  }
});

test('a key that is no text is an error where it ends a stage with a TypeError, and only there', { skip }, async () => {
  const schema = join(UPSTREAM, 'schema-cloud-config-v1.json');
  const texts = [
    'device_aliases: {1: /dev/a}',
    'disk_setup: {1: {layout: true}}',
    'groups: [{1: [a]}]',
    'groups: {on: [a]}',
    'mcollective: {conf: {~: x}}',
    'reporting: {on: {type: log}}',
    'yum_repos: {1: {baseurl: "http://x"}}',
    'yum_repos: {a: {1: x}}',
    'ssh_keys: {1: x}',
    'apt: {sources: {1: {source: x}}, debconf_selections: {1.5: x}}',
    'apt: {sources: {"1": {source: x}}}',
    'snap: {commands: {00: a, 01: b}}',
    'snap: {commands: {01: a, 08: b}}',
    'puppet: {conf: {1: {a: x}}}',
    'drivers: {nvidia: {1: 2}}',
    'power_state: {1: x}',
    'ntp: {on: b}',
    'users: [{name: a, on: c}]',
    'x: {1: a, true: b, 1.5: c, .nan: d}',
    'x: {~: a}',
    'x: {~: a, 1: b}',
    'x: [[{1: a, b: c}]]',
    'x: &x {1: a}\ny: {<<: *x, b: c}',
    'x: &x {1: a}\ny: {<<: [*x], 2: c}',
    'x: {y: a, n: b, "on": c, !!str 1: d, 0o7: e, 08: f}',
    'x: !!set {1, b}',
    'x: !!omap [1: a, b: c]',
    '1: a',
    'off: a',
    '~: a',
    '"1": a',
  ];
  const answers = ask(
    texts.flatMap((text) => [
      ['combined', text],
      ['schema', schema, text],
    ]),
  );
  for (const [index, text] of texts.entries()) {
    const ends = [answers[2 * index], answers[2 * index + 1]].some(isRaised);
    assert.equal(
      (await codes(text)).includes('odd_key'),
      ends,
      `${text}: ${JSON.stringify(answers.slice(2 * index, 2 * index + 2))}`,
    );
  }
  const key = fc.constantFrom(
    'a',
    'b',
    'y',
    '"7"',
    '1',
    '2',
    '0x1f',
    '012',
    '089',
    '1.5',
    '1_0',
    '12:30',
    'on',
    'No',
    '~',
    '.inf',
    '<',
    '1e3',
  );
  const { mapping } = fc.letrec<{ mapping: string; value: string }>((tie) => ({
    mapping: fc
      .uniqueArray(fc.tuple(key, tie('value')), { maxLength: 3, selector: ([name]) => name })
      .map((pairs) => `{${pairs.map(([name, value]) => `${name}: ${value}`).join(', ')}}`),
    value: fc.oneof(
      { maxDepth: 3 },
      fc.constant('x'),
      tie('mapping'),
      fc.array(tie('value'), { maxLength: 2 }).map((all) => `[${all.join(', ')}]`),
    ),
  }));
  const made = fc.sample(mapping, { numRuns: RUNS, seed: 11 }).map((text) => `x: ${text}`);
  const verdicts = ask(made.map((text) => ['combined', text]));
  for (const [index, text] of made.entries())
    assert.equal((await codes(text)).includes('odd_key'), isRaised(verdicts[index]), text);
  assert.ok(verdicts.filter(isRaised).length > 20 && verdicts.some((each) => !isRaised(each)));
});

test('what is taken against the schema comes out as it was meant', { skip }, async () => {
  const table: [question: string, asked: string, config: string, answer: unknown][] = [
    ...['yes', '"true"', 'on', '1', '"1"', '" Yes "'].map(
      (value) => ['boolean', `a: ${value}`, `package_update: ${value}\n`, true] as [string, string, string, unknown],
    ),
    ...['no', '"false"', 'off', '0', '"No"'].map(
      (value) => ['boolean', `a: ${value}`, `package_update: ${value}\n`, false] as [string, string, string, unknown],
    ),
    ['bytes_of', 'a: 2GB', 'swap: {size: 2GB}\n', 2 ** 31],
    ['bytes_of', 'a: "1048576"', 'swap: {size: "1048576"}\n', 2 ** 20],
    ['bytes_of', 'a: 0.5G', 'swap: {size: 0.5G}\n', 2 ** 29],
    [
      'power_state',
      'power_state: {mode: reboot, timeout: "30"}',
      'power_state: {mode: reboot, timeout: "30"}\n',
      [['shutdown', 'reboot', 'now'], 30],
    ],
    ['permissions', 'permissions: 0600', 'write_files: [{path: /a, permissions: 0600}]\n', 0o600],
    ['commands', '- [sleep, 5]\n-\n', 'runcmd:\n- [sleep, 5]\n-\n', "#!/bin/sh\n'sleep' '5'\n"],
  ];
  const answers = ask(table.map(([question, asked]) => [question, asked]));
  for (const [index, [question, asked, config, wanted]] of table.entries()) {
    assert.deepEqual(answers[index], wanted, `${question} ${asked}`);
    const found = await inspectCloudConfig('c', 'text/cloud-config', Buffer.from(config), schemas);
    assert.deepEqual(
      found.filter(({ severity }) => severity === 'error').map(({ message }) => message),
      [],
      config,
    );
  }
});

/** What the schema alone says: the top-level keys that have problems, and those with something deprecated. */
function verdict(text: string, { cloudConfig }: SchemaSet): [string[], string[]] {
  const { problems, deprecations } = cloudConfig.check(readYaml(text)[0]);
  const tops = (paths: readonly (readonly unknown[])[]) => [...new Set(paths.map(([top]) => String(top ?? '')))].sort();
  return [tops(problems.map(({ path }) => path)), tops(deprecations.map(({ path }) => path))];
}

test('the verdict is that of cloud-init’s own validator, for texts as people write them and for what a slip makes of them', {
  skip,
}, () => {
  assert.ok(schemas);
  const configs = Object.values(ODD).filter((text) => text.startsWith('#cloud-config\n') && !/[\r&]/.test(text));
  const values = ['5', '"x"', 'true', '[]', '{}', '[a]', '{a: b}', '[[a]]', '1.5', '-1', '"yes"'];
  const slips = fc.sample(
    fc.tuple(fc.constantFrom(...configs), fc.nat(), fc.constantFrom('value', 'key', 'drop'), fc.constantFrom(...values)),
    { numRuns: RUNS, seed: 7 },
  );
  const texts = [...configs, ...slips.map(([config, ...slip]) => JSON.stringify(mutate(readYaml(config)[0], ...slip)))];
  const answers = ask(texts.map((text) => ['schema', join(UPSTREAM, 'schema-cloud-config-v1.json'), text]));
  let refused = 0;
  for (const [index, text] of texts.entries()) {
    const [errors, deprecations] = answers[index] as [string[], string[]];
    const [ours, old] = verdict(text, schemas);
    assert.deepEqual(ours, errors, text);
    if (errors.length > 0) refused++;
    // 22.4's validator knows nothing of `changed`.
    assert.deepEqual(
      deprecations.filter((key) => !old.includes(key) && !errors.includes(key)),
      [],
      text,
    );
  }
  assert.ok(refused > 100, `${refused} were refused`);
});

/** Replaces, renames or drops the nth place of a document. */
function mutate(document: unknown, at: number, how: string, value: string): unknown {
  const copy = structuredClone(document);
  const places: [holder: Record<string, unknown> | unknown[], key: string | number][] = [];
  const walk = (node: unknown) => {
    if (node === null || typeof node !== 'object' || node instanceof Uint8Array || node instanceof Date) return;
    for (const [key, child] of Object.entries(node)) {
      places.push([node as Record<string, unknown>, key]);
      walk(child);
    }
  };
  walk(copy);
  const [holder, key] = places[at % places.length] as [Record<string, unknown>, string];
  if (how === 'value' || Array.isArray(holder)) holder[key] = readYaml(value)[0];
  else {
    if (how === 'key') holder[`${key}x`] = holder[key];
    delete holder[key];
  }
  return copy;
}

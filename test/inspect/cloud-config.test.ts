import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { inspectCloudConfig, inspectNetworkConfig } from '../../src/inspect/cloud-config.ts';
import { readSchema } from '../../src/inspect/json-schema.ts';
import type { SchemaSet, Schemas } from '../../src/inspect/schema.ts';
import { ODD } from './odd-configs.ts';
import { readUpstream, skipWithoutSchemas, upstreamSchemas } from './upstream.ts';

const CONFIG = 'text/cloud-config';
const ARCHIVE = 'text/cloud-config-archive';
const PATCH = 'text/cloud-config-jsonp';

/** Tests of whether a text can be read at all need no schema, and any key will do. */
const ANYTHING = readSchema({});
const SCHEMALESS: SchemaSet = { source: 'none', cloudConfig: ANYTHING, networkV1: null, networkV2: null };

/** What is said of a text: severity, code, line and column. */
async function findings(type: string, text: string | Uint8Array) {
  const found = await inspectCloudConfig('c.cfg', type, Buffer.from(text as Uint8Array), SCHEMALESS);
  return found
    .filter(({ code }) => code !== 'unknown_key' && code !== 'duplicate_key')
    .map(({ severity, code, part, line, column }) => {
      assert.equal(part, 'c.cfg');
      return [severity, code, line, column];
    });
}

const config = (text: string) => findings(CONFIG, `#cloud-config\n${text}`);

test('a cloud-config that is not YAML is an error, with its line and column where they are known', async () => {
  for (const [text, line, column] of [
    ['users: [', 2, 9],
    ['a: 1\nb: c: d\n', 3, 5],
    ['a: "unclosed\n', 3, 1],
    ['\ta: 1\n', 2, 3],
    ['a:\n- b\n c: d\n', 4, 3],
    ['packages:\n  - a\n - b\n', 4, 2],
    ['a: {{ v1.local_hostname }}\n', undefined, undefined],
    ['a: 1\n---\nb: 2\n', undefined, undefined],
    ['a: *nobody\n', 2, 5],
    ['a: !vault x\n', 2, 4],
    ['a: @x\n', 2, 4],
    ['a: 2020-13-45\n', undefined, undefined],
  ] as const)
    assert.deepEqual(await config(text), [['error', 'bad_yaml', line, column]], text);
});

test('a cloud-config that is no mapping is an error', async () => {
  for (const text of ['- a\n- b\n', 'hello\n', '7\n', '[]\n', '!!set {a, b}\n', '2020-01-01\n', 'runcmd\n'])
    assert.deepEqual(await config(text), [['error', 'not_a_mapping', undefined, undefined]], text);
});

test('an empty cloud-config or archive does nothing, and that is a warning', async () => {
  for (const text of ['', '\n', '# a: 1\n', '---\n', '---\n...\n', 'null\n', '~\n'])
    assert.deepEqual(await config(text), [['warning', 'empty_config', undefined, undefined]], text);
  for (const text of ['', '# - a\n', 'null\n'])
    assert.deepEqual(await findings(ARCHIVE, `#cloud-config-archive\n${text}`), [
      ['warning', 'empty_config', undefined, undefined],
    ]);
});

test('what cloud-init takes is taken, however odd', async () => {
  for (const text of [
    '{}\n',
    'a: 1\r\nb: |\r\n  x\r\n',
    'a: 1\rb: 2\r',
    '---\na: 1\n...\n',
    '%YAML 1.1\n---\na: 1\n',
    ' a: 1\n b: 2\n',
    'a: 1\na: 2\n',
    'a: &x {k: v}\nb: *x\nc: {<<: *x, d: e}\n<<: *x\n',
    'a: &x 1\nb: [*x]\n',
    'a: 2020-01-01\nb: 2020-01-01 10:00:00\nc: 12:30\n',
    'a: 0644\nb: 089\nc: 1_000\nd: .inf\ne: .nan\nf: 1e400\n',
    'a: {1: a, yes: b, 1.5: d}\nb: {null: c}\n',
    'a: "{{ v1.x }}"\nb: |\n  {% if x %}\n  {{ y }}\nc: x {{ y }}\n',
    '{\n"users": ["default"],\n"a": {"b":null}\n}\n',
    '{"users":\n[{"name":"x"}]}\n',
    'a: "\t"\nb: |\n  \tx\n# \ty\n',
    '{"a": "\\t\\u00e9\\/"}\n',
    'runcmd: [\nls,\n[sh, -c, "x: y"]\n]\n',
    'runcmd:\n- [tar, xf, -]\n- [cat, -, x]\n',
    'a: "b"#c\nd: [e]#f\n- "g"#h\n'.replace('- ', 'i: '),
    'runcmd:\n- echo a:b c#d\n- "echo x: y"\n',
    'a: $6$rounds=4096$x\nb: 52:54:00:12:34:56\nc: fe80::1\nd: http://x:80/\ne: C:\\x\n',
    'a: !!binary aGk=\nb: !!python/unicode "x"\nc: !!set {x, y}\nd: !!omap [x: y]\n',
    'a: é ✓ 😀\nb: "\\U0001F600"\n',
    'bootcmd: &b\n- x\nnobody-knows-this: *b\n',
    'merge_how:\n- {name: list, settings: [append]}\n',
    'write_files:\n- path: /x\n  content: |\n    #!/bin/sh\n     x\n    y\n',
  ])
    assert.deepEqual(await config(text), [], text);
  assert.deepEqual(await findings(CONFIG, 'a: 1\n'), [], 'a type that was said needs no first line');
  assert.deepEqual(await findings(CONFIG, '#Cloud-Configuration of ours\na: 1\n'), []);
});

test('an archive is a list, a JSON patch a list in JSON', async () => {
  for (const [type, text, wanted] of [
    [ARCHIVE, '#cloud-config-archive\n- "#!/bin/sh"\n- {type: text/cloud-config, content: "a: 1"}\n', []],
    [ARCHIVE, '#cloud-config-archive\r\n- "#!/bin/sh"\r\n', []],
    [ARCHIVE, '#cloud-config-archive\n[]\n', []],
    [ARCHIVE, '#cloud-config-archive\na: 1\n', ['error', 'not_a_list']],
    [ARCHIVE, '#cloud-config-archive\nhello\n', ['error', 'not_a_list']],
    [PATCH, '#cloud-config-jsonp\n[{"op": "add", "path": "/runcmd", "value": ["x"]}]\n', []],
    [PATCH, '\n  #cloud-config-jsonp [\n\t{"op":"test","path":"","value":{}}]', []],
    [PATCH, '[]', []],
    [PATCH, '#cloud-config-jsonp\n{"op": "add"}\n', ['error', 'not_a_list']],
    [PATCH, '#cloud-config-jsonp\n- op: add\n', ['error', 'bad_json']],
    [PATCH, '#cloud-config-jsonp\n', ['error', 'bad_json']],
    // cloud-init takes away the mark as it is spelt here only (handlers/cloud_config.py, _merge_patch).
    [PATCH, '#Cloud-Config-JSONP\n[]\n', ['error', 'bad_json']],
  ] as const)
    assert.deepEqual(
      (await findings(type, text)).map(([severity, code]) => [severity, code]),
      wanted.length === 0 ? [] : [wanted],
      text,
    );
  assert.deepEqual(await findings(ARCHIVE, '#cloud-config-archive\n- a\n- [\n'), [['error', 'bad_yaml', 4, 1]]);
});

test('a template’s source, and everything that is no cloud-config, is not looked at', async () => {
  for (const type of ['text/jinja2', 'text/x-shellscript', 'text/x-kube-pod', 'text/part-handler', 'text/plain', 'a/b'])
    for (const text of ['## template: jinja\n#cloud-config\na: {{ x }}\n{% if %}\n', '#cloud-config\n[', '', '\0'])
      assert.deepEqual(await findings(type, text), [], type);
});

test('no finding quotes what is in the file, and any bytes come to findings', async () => {
  const secret = 'hunter2';
  for (const text of [`${secret}: [`, `a: ${secret}: b`, `a: *${secret}`, `a: !${secret} x`, `- ${secret}`, `${secret}`])
    for (const type of [CONFIG, ARCHIVE, PATCH]) {
      const found = await inspectCloudConfig('c', type, Buffer.from(text), SCHEMALESS);
      assert.ok(!JSON.stringify(found).includes(secret), `${type} ${text}`);
    }
  const text = fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.string({ unit: 'binary' }).map(Buffer.from));
  await fc.assert(
    fc.asyncProperty(text, fc.constantFrom(CONFIG, ARCHIVE, PATCH), async (bytes, type) => {
      assert.ok((await findings(type, bytes)).length <= 10);
    }),
  );
});

const skip = skipWithoutSchemas();
const schemas = skip ? null : upstreamSchemas();

/** Each finding as `line:column severity code`. */
async function judge(text: string, type = CONFIG, by: Schemas = schemas): Promise<string[]> {
  const found = await inspectCloudConfig('c.cfg', type, Buffer.from(text), by);
  return found.map(
    ({ line, column, severity, code }) => `${line === undefined ? '' : `${line}:${column} `}${severity} ${code}`,
  );
}

test('what the schema refuses is an error, at its place', { skip }, async () => {
  for (const [text, ...wanted] of [
    ['runmcd: []\n', '1:1 error unknown_key'],
    ['users:\n- name: x\n  shel: /bin/sh\n', '3:3 error unknown_key'],
    ['write_files:\n- pth: /x\n', '2:3 error unknown_key'],
    ['write_files:\n- content: x\n', '2:3 error missing_key'],
    ['power_state:\n  mode: rebot\n', '2:9 error bad_value'],
    ['packages: {a: 1}\n', '1:11 error bad_value'],
    ['packages:\n- [a, 1, 2]\n', '2:3 error bad_value', '2:7 error bad_value', '2:10 error bad_value'],
    ['timezone: no\n', '1:11 error bad_value'],
    ['users:\n- name: x\n  expiredate: 2030-01-01\n', '3:15 error bad_value'],
    ['ntp: {servers: a}\n', '1:16 error bad_value'],
    ['swap: {size: 3x}\n', '1:14 error bad_value'],
    ['reporting: {a: {type: x}}\n', '1:23 error bad_value'],
    ['yum_repos: {a: {name: x}}\n', '1:16 error missing_key'],
    ['chpasswd: {users: [{name: a, passwd: x}]}\n', '1:30 error unknown_key'],
    ['bootcmd:\n', '1:1 error bad_value'],
    ['mounts: [[]]\n', '1:10 error bad_value'],
  ] as const)
    assert.deepEqual(await judge(text), wanted, text);
});

test('keys that Python cannot sort are an error, at the first that is no text', async () => {
  for (const [text, ...wanted] of [
    ['on: 1\nhostname: x\n', '1:1 error odd_key'],
    ['hostname: x\n0644: 1\n', '2:1 error odd_key'],
    ['x:\n- a: 1\n  no: 2\n', '3:3 error odd_key'],
    ['x: {a: 1, 0x1F: 2, ~: 3}\ny: {~: 1, 5: 2}\n', '1:11 error odd_key', '2:5 error odd_key'],
    ['x: &x {1: a, b: c}\ny: [*x, *x]\n', '1:8 error odd_key'],
    ['x: {1: a, 2: b}\ny: {"on": a, b: c}\n'],
  ] as const)
    assert.deepEqual(
      (await judge(text, CONFIG, SCHEMALESS)).filter((each) => !each.includes('unknown_key')),
      wanted,
      text,
    );
  const [found] = await inspectCloudConfig('c', CONFIG, Buffer.from('users:\n- name: x\n  on: 1\n'), SCHEMALESS);
  assert.equal(
    found?.message,
    'users[0] has a key that YAML reads as true or false (as it does yes, no, on and off) beside keys of another kind; cloud-init 25.1 cannot sort them and ends in a TypeError, and no user, SSH key or file is set up: quote the key',
  );
});

test('a key that is no text is an error where the schema has patterns for it', { skip }, async () => {
  assert.deepEqual(await judge('disk_setup:\n  1: {layout: true}\n'), ['2:3 error odd_key']);
  assert.deepEqual(await judge('yum_repos: {a: {baseurl: "http://x", 1: x}}\n'), ['1:38 error odd_key'], 'it is told once');
});

test('what cloud-init takes though its schema does not is a warning', { skip }, async () => {
  for (const [text, ...wanted] of [
    ['our_key: 1\n', '1:1 warning unknown_key'],
    ['apt_sources: []\n', '1:1 warning unknown_key'],
    ['network: {version: 2}\n', '1:1 warning unknown_key'],
    ['users: [default, {name: x, favourite: 1}]\n', '1:28 warning unknown_key'],
    ['users: [default, {name: x, ssh-redirect_user: true}]\n', '1:28 warning unknown_key'],
    ['apt_update: true\n', '1:1 warning deprecated_key'],
    ['users: [default, {name: x, lock-passwd: true}]\n', '1:28 warning deprecated_key'],
    ['a: 1\na: 2\n', '2:1 warning duplicate_key', '2:1 warning unknown_key'],
    ['runcmd: []\n', '1:9 warning loose_value'],
  ] as const)
    assert.deepEqual((await judge(text)).sort(), [...wanted].sort(), text);
});

test('messages say what is meant or wanted, and why', { skip }, async () => {
  for (const [text, says] of [
    ['runmcd: []\n', /^runmcd is no key that cloud-init knows: did you mean runcmd\?$/],
    ['power_state: {mode: x}\n', /^power_state\.mode must be poweroff, reboot or halt$/],
    ['write_files: [{}]\n', /^write_files\[0\] needs a key path$/],
    ['yum_repos: {a: {name: x}}\n', /needs a key baseurl, a key metalink or a key mirrorlist$/],
    ['timezone: no\n', /^timezone must be a text: unquoted, YAML reads yes, no, on and off as true and false, so quote it$/],
    ['timezone: 012\n', /^timezone must be a text: YAML reads it as another number \(one that begins with 0 is octal/],
    ['timezone: 12:30\n', /12:30 is base 60/],
    ['timezone: 12\n', /^timezone must be a text: unquoted, YAML reads it as a number, so quote it$/],
    ['timezone: 2020-01-01\n', /reads it as a date, so quote it$/],
    ['timezone:\n', /^timezone must be a text: it is empty$/],
    ['packages: {}\n', /^packages must be a list, not a mapping$/],
    ['apt_update: true\n', /^apt_update is deprecated since cloud-init 22\.2: Use package_update instead\.$/],
    [
      'packages: []\n',
      /^packages works, but cloud-init warns of it at boot: its schema wants something in it, or no such key$/,
    ],
  ] as const) {
    const [found] = await inspectCloudConfig('c', CONFIG, Buffer.from(text), schemas);
    assert.match(found?.message ?? '', says, text);
  }
});

for (const [name, text] of Object.entries(ODD))
  test(`odd and right: ${name}`, { skip }, async () => {
    const found = await inspectCloudConfig(
      'c',
      text.startsWith('#cloud-config-a') ? ARCHIVE : text.startsWith('#cloud-config-j') ? PATCH : CONFIG,
      Buffer.from(text),
      schemas,
    );
    assert.deepEqual(
      found.filter(({ severity }) => severity === 'error').map(({ code, message }) => [code, message]),
      [],
    );
  });

test('without a schema the names of the top-level keys are looked at, and the command that gets one is told', async () => {
  assert.deepEqual(await judge('runmcd: [x]\nour_key: 1\nusers: 5\n', CONFIG, null), [
    '1:1 error unknown_key',
    '2:1 warning unknown_key',
    'warning schema_missing',
  ]);
  const found = await inspectCloudConfig('c', CONFIG, Buffer.from('hostname: x\n'), null);
  assert.deepEqual(
    found.map(({ code }) => code),
    ['schema_missing'],
  );
  assert.match(found[0]?.message ?? '', /npm run bootbundle -- schema update$/);
  const archive = await judge('- "hostname: a"\n- "hostname: b"\n', ARCHIVE, null);
  assert.deepEqual(archive, ['1:3 warning schema_missing'], 'of an archive once');
});

test('that the schema a setting names is unusable is told, and why, but not the command that gets another', async () => {
  const unusable = { source: null, unusable: 'the schema that X names is unusable: not JSON' };
  const [found, ...more] = await inspectCloudConfig('c', CONFIG, Buffer.from('hostname: x\n'), unusable);
  assert.deepEqual([found?.severity, found?.code, more.length], ['warning', 'schema_unusable', 0]);
  assert.equal(
    found?.message,
    'only the names of top-level keys were looked at, for the schema that X names is unusable: not JSON',
  );
  const archive = await inspectCloudConfig('c', ARCHIVE, Buffer.from('- "hostname: a"\n- "hostname: b"\n'), unusable);
  assert.deepEqual(
    archive.map(({ code }) => code),
    ['schema_unusable'],
    'of an archive once',
  );
});

test('the list of known keys is upstream’s', { skip }, async () => {
  const keys = Object.keys(JSON.parse(readUpstream().cloudConfig).properties);
  for (const key of keys)
    assert.deepEqual(
      (await judge(`${key}: 1\n`, CONFIG, null)).filter((each) => each.includes('unknown_key')),
      [],
      key,
    );
});

test('an archive’s entries are judged by their numbers', async () => {
  for (const [text, ...wanted] of [
    ['- content: {runcmd: [a]}\n', '1:12 error bad_content'],
    ['- type: text/cloud-config\n  content: [a]\n', '2:12 error bad_content'],
    ['- type: application/x\n  content: 5\n', '2:12 error bad_content'],
    ['- content:\n', '1:3 error bad_content'],
    ['- type: x\n  content: a\n', '1:9 error bad_type'],
    ['- type: 5\n  content: a\n', '1:9 error bad_type'],
    ['- 5\n- [a]\n', '1:3 warning ignored_entry', '2:3 warning ignored_entry'],
    ['- type: text/cloud-config\n', '1:3 warning empty_config'],
    ['- "#!/bin/sh"\n- "runcmd: [{a: b}]"\n', '2:3 error bad_command'],
    ['- |\n  a: [\n', '2:3 error bad_yaml'],
    ['- type: text/cloud-config-jsonp\n  content: "[5]"\n', '2:12 error bad_operation'],
    ['- type: text/x-shellscript\n  content: "runcmd: [{a: b}]"\n'],
    ['- content: !!binary AAAA\n'],
  ] as const)
    assert.deepEqual(
      (await judge(text, ARCHIVE, SCHEMALESS)).filter((each) => !each.includes('unknown')),
      wanted,
      text,
    );
  const [found] = await inspectCloudConfig('c', ARCHIVE, Buffer.from('- a: 1\n- "runcmd: [{a: b}]"\n'), SCHEMALESS).then(
    (all) => all.filter(({ code }) => code === 'bad_command'),
  );
  assert.match(found?.message ?? '', /^entry 2: runcmd\[0\] is a mapping/);
});

test('a JSON patch is made of operations of RFC 6902', async () => {
  for (const [operation, good] of [
    [{ op: 'add', path: '/runcmd/-', value: null }, true],
    [{ op: 'remove', path: '' }, true],
    [{ op: 'move', path: '/a', from: '/b' }, true],
    [{ op: 'test', path: '/a', value: 1, more: 1 }, true],
    [{ op: 'add', path: '/a' }, false],
    [{ op: 'move', path: '/a' }, false],
    [{ op: 'copy', path: '/a', from: 'b' }, false],
    [{ op: 'append', path: '/a', value: 1 }, false],
    [{ path: '/a', value: 1 }, false],
    [{ op: 'remove', path: 'a' }, false],
    [{ op: 'remove' }, false],
    ['remove', false],
    [null, false],
  ] as const)
    assert.deepEqual(
      await judge(`#cloud-config-jsonp\n${JSON.stringify([operation])}`, PATCH, SCHEMALESS),
      good ? [] : ['error bad_operation'],
    );
});

test('a network configuration is judged by the schema of its version', { skip }, async () => {
  const network = async (config: Parameters<typeof inspectNetworkConfig>[0]) => {
    const found = await inspectNetworkConfig(config, schemas);
    return found.map(({ line, column, severity, code, part }) => {
      assert.equal(part, 'network-config');
      return `${line === undefined ? '' : `${line}:${column} `}${severity} ${code}`;
    });
  };
  for (const [config, ...wanted] of [
    ['version: 2\nethernets:\n  eth0:\n    dhcp4: true\n    mtu: 1500\n'],
    ['network:\n  version: 2\n  ethernets: {eth0: {dhcp4: yes, addresses: [10.0.0.2/24]}}\n'],
    [{ version: 1, config: [{ type: 'physical', name: 'eth0', subnets: [{ type: 'dhcp' }] }] }],
    ['network: {config: disabled}\n'],
    [{ config: 'disabled' }],
    [''],
    ['version: 2\nethernets: {eth0: {addresses: x}}\n', '2:31 error bad_value'],
    ['version: 2\nethernet: {}\n', '2:1 warning unknown_key'],
    ['network:\n  version: 2\n  ethernets: {eth0: {addresses: x, match: 5}}\n', '3:33 error bad_value', '3:43 error bad_value'],
    [{ version: 1, config: [{ type: 'physical', name: 'eth0', mtu: '1500' }] }, 'warning loose_value'],
    [{ version: 1, config: [{ type: 'phisical', name: 'eth0' }] }, 'error bad_value'],
    ['version: 3\n', '1:10 error bad_version'],
    ['network: {version: "2"}\n', '1:20 error bad_version'],
    [{ ethernets: {} }, 'error bad_version'],
    ['- a\n', '1:1 error not_a_mapping'],
    ['network: 5\n', '1:1 error not_a_mapping'],
    ['a: [\n', '2:1 error bad_yaml'],
  ] as [Parameters<typeof inspectNetworkConfig>[0], ...string[]][])
    assert.deepEqual(await network(config), wanted, JSON.stringify(config));
  assert.deepEqual(await inspectNetworkConfig('version: 2\nethernets: 5\n', null), []);
});

test('many findings are counted, errors first', { skip }, async () => {
  const keys = Array.from({ length: 400 }, (_, index) => `our_key_${index}: 1`).join('\n');
  const found = await inspectCloudConfig('c', CONFIG, Buffer.from(`${keys}\nrunmcd: []\n`), schemas);
  assert.equal(found.length, 50);
  assert.deepEqual(found.at(-1)?.code, 'more_findings');
  assert.match(found.at(-1)?.message ?? '', /^and 352 more/);
  assert.ok(found.some(({ severity, line }) => severity === 'error' && line === 401));
  const bad = Array.from({ length: 300 }, () => '- {content: x}').join('\n');
  const errors = await inspectCloudConfig('c', CONFIG, Buffer.from(`${keys}\nwrite_files:\n${bad}\n`), schemas);
  assert.equal(errors.filter(({ severity }) => severity === 'error').length, 50);
});

test('what has too many values to be judged is a warning, long texts in it aside', async () => {
  const rows = (count: number) => Array.from({ length: count }, (_, index) => `k${index}: 1\n`).join('');
  assert.deepEqual(await judge(rows(300_000), CONFIG, SCHEMALESS), ['warning not_judged']);
  assert.deepEqual(await judge(`- "${'a: 1, '.repeat(300_000)}"\n`, ARCHIVE, SCHEMALESS), ['warning not_judged']);
  const found = await judge(rows(90_000), CONFIG, SCHEMALESS);
  assert.deepEqual([found.length, found.at(-1)], [50, 'warning more_findings']);
  const json = '    {"a": 1, "b": [1, 2, 3]}\n'.repeat(60_000);
  assert.deepEqual(await judge(`write_files:\n- path: /a\n  content: |\n${json}runmcd: []\n`, CONFIG, SCHEMALESS), [
    '60004:1 error unknown_key',
  ]);
  assert.deepEqual(
    (await inspectNetworkConfig(`version: 2\n${rows(300_000)}`, SCHEMALESS)).map(({ code }) => code),
    ['not_judged'],
  );
});

/** Of the processor, so that others who are at work do not count. */
function millisecondsSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

test('hostile texts are judged in bounded time', { skip, timeout: 60_000 }, async () => {
  const nested = (levels: number) =>
    Array.from(
      { length: levels },
      (_, i) =>
        `b${i}: &b${i} [${Array(9)
          .fill(i ? `*b${i - 1}` : 'x')
          .join(',')}]`,
    ).join('\n');
  const rows = (count: number, row: (index: number) => string) =>
    Array.from({ length: count }, (_, index) => row(index)).join('\n');
  const texts: Record<string, string> = {
    bomb: nested(10),
    'small bomb where it is looked at': `${nested(5)}\nruncmd: [*b4]\nusers: [*b4]\npackages: *b4\nwrite_files: [*b4]\n`,
    '100 levels': `a: ${'['.repeat(99)}${']'.repeat(99)}`,
    '2000 levels': `a: ${'['.repeat(2000)}`,
    'a line of 1 MiB': `runcmd: ["${'x'.repeat(1 << 20)}"]`,
    'a list of half a million texts': `runcmd: [${'a,'.repeat(1 << 19)}]`,
    'a list of half a million numbers': `runcmd: [${'5,'.repeat(1 << 19)}]`,
    digits: `swap: {size: "${'1'.repeat(1 << 20)}"}`,
    base64: `write_files: [{path: /x, encoding: b64, content: "${'=a '.repeat(1 << 18)}"}]`,
    encoding: `write_files: [{path: /x, encoding: "${' '.repeat(1 << 19)}x"}]`,
    permissions: `write_files: [{path: /x, permissions: "${'0'.repeat(1 << 19)}x"}]`,
    blanks: `ssh_pwauth: "${' '.repeat(1 << 20)}x"`,
    'almost runcmd': rows(10_000, (index) => `runcm${index}: 1`),
    '90,000 unknown keys': rows(90_000, (index) => `k${index}: 1`),
    '300,000 unknown keys': rows(300_000, (index) => `k${index}: 1`),
    'unknown keys of a webhook': `reporting: {a: {type: webhook\n${rows(50_000, (index) => `,k${index}: 1`)}}}`,
    'commands that are mappings': `runcmd:\n${rows(55_000, () => '- a: b')}`,
    'a million mappings': `runcmd: [${'a: ,'.repeat(1 << 20)}]`,
    'repeated keys': rows(110_000, () => 'a: 1'),
    'unknown keys of users': `users:\n${rows(10_000, (index) => `- {nam${index}: 1}`)}`,
    'a key of 1 MiB': `${'k'.repeat(1 << 20)}: 1`,
    'users and files': `users:\n${rows(3000, (index) => `- {name: n${index}}`)}\nwrite_files:\n${rows(3000, (index) => `- {path: /${index}}`)}`,
    prototype: '__proto__: {a: 1}\nconstructor: 1\nusers: [{__proto__: {name: x}}]\n',
  };
  for (const [name, text] of Object.entries(texts)) {
    const before = process.cpuUsage();
    const found = await inspectCloudConfig('c', CONFIG, Buffer.from(text), schemas);
    const took = millisecondsSince(before);
    assert.ok(took < 1200, `${name}: ${took} ms`);
    assert.ok(found.length <= 61, name);
    for (const { message } of found) assert.ok(message.length < 400, name);
  }
  const before = process.cpuUsage();
  await inspectCloudConfig('c', ARCHIVE, Buffer.from('- "a: 1"\n'.repeat(60_000)), schemas);
  assert.ok(millisecondsSince(before) < 1200);
});

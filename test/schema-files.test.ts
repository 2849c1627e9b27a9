import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { SchemaSet } from '../src/inspect/schema.ts';
import { createSchemaFinder, updateSchema } from '../src/schema-files.ts';

const NAME = 'schema-cloud-config-v1.json';

/** A schema as small as one can be, which speaks of a version of cloud-init. */
function schema(version: string, key = 'our_key'): string {
  const keys = ['runcmd', 'users', 'write_files', key];
  return JSON.stringify({
    properties: Object.fromEntries(keys.map((each) => [each, {}])),
    $defs: { old: { deprecated: true, deprecated_version: version } },
  });
}

function folder(t: TestContext, files: Record<string, string> = {}): string {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-schema-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) put(path, name, text);
  return path;
}

function put(path: string, name: string, text: string): void {
  mkdirSync(join(path, name, '..'), { recursive: true });
  writeFileSync(join(path, name), text);
}

/** A cloud-init as distributions install it. */
function installed(version: string, text: string, python = 'python3/dist-packages'): Record<string, string> {
  return {
    [`${python}/cloudinit/version.py`]: `__VERSION__ = "${version}"\n_PACKAGED_VERSION = "@@PACKAGED_VERSION@@"\n`,
    [`${python}/cloudinit/config/schemas/${NAME}`]: text,
  };
}

/** A finder that sees only what the test put there. */
async function finder(t: TestContext, options: { dataDir?: string; file?: string; libraries?: string[]; shipped?: string }) {
  const troubles: string[] = [];
  const find = await createSchemaFinder({
    dataDir: options.dataDir ?? null,
    file: options.file ?? null,
    libraries: options.libraries ?? [],
    shipped: options.shipped ?? folder(t),
    onTrouble: (_, what) => troubles.push(what),
  });
  /** A set that judges, or null; where the setting's is unusable the test fails. */
  const usable = async (): Promise<SchemaSet | null> => {
    const found = await find();
    if (found === null || found.source !== null) return found;
    throw new Error(found.unusable);
  };
  return { find, usable, troubles };
}

test('without any schema there is none', async (t) => {
  const { find, troubles } = await finder(t, { dataDir: join(folder(t), 'not-yet') });
  assert.equal(await find(), null);
  assert.deepEqual(troubles, []);
});

test('the newest one found judges, and says which it is', async (t) => {
  const [dataDir, shipped] = [folder(t), folder(t)];
  const library = folder(t, {
    ...installed('22.4.2', schema('22.3')),
    ...installed('25.1.4', schema('25.1'), 'python3.13/site-packages'),
    'python3.13/site-packages/other.py': '',
    'node/cloudinit/config/schemas/x.json': '',
  });
  const { find, troubles } = await finder(t, { dataDir, shipped, libraries: [library, join(library, 'nothing')] });
  assert.equal((await find())?.source, 'cloud-init 25.1.4 (installed)');
  const from = folder(t, { [NAME]: schema('24.2') });
  await updateSchema(dataDir, from, '2026-11-23');
  assert.equal((await find())?.source, 'cloud-init 25.1.4 (installed)', 'what was fetched may be older');
  await updateSchema(shipped, folder(t, { [NAME]: schema('25.3') }), '2026-11-23');
  assert.equal((await find())?.source, 'a file, copied 2026-11-23');
  assert.deepEqual(troubles, []);
});

test('of equals what somebody installed on purpose judges', async (t) => {
  const dataDir = folder(t);
  const { find } = await finder(t, { dataDir, libraries: [folder(t, installed('25.1.4', schema('25.1')))] });
  await updateSchema(dataDir, folder(t, { [NAME]: schema('25.1') }), '2026-11-23');
  assert.equal((await find())?.source, 'a file, copied 2026-11-23');
});

test('a version is told as the distribution packaged it', async (t) => {
  const library = folder(t, installed('25.1.4', schema('25.1')));
  put(
    library,
    'python3/dist-packages/cloudinit/version.py',
    '__VERSION__ = "25.1.4"\n_PACKAGED_VERSION = "25.1.4-1+deb13u1"\n',
  );
  assert.equal((await (await finder(t, { libraries: [library] })).find())?.source, 'cloud-init 25.1.4-1+deb13u1 (installed)');
  rmSync(join(library, 'python3/dist-packages/cloudinit/version.py'));
  assert.equal((await (await finder(t, { libraries: [library] })).find())?.source, 'cloud-init of unknown version (installed)');
});

test('the setting’s file or folder judges whatever else is there, without a path in its name', async (t) => {
  const dataDir = folder(t);
  await updateSchema(dataDir, folder(t, { [NAME]: schema('99.9') }), '2026-11-23');
  const given = folder(t, { [NAME]: schema('20.1', 'mine'), 'one.json': schema('20.1', 'one') });
  for (const [file, key] of [
    [given, 'mine'],
    [join(given, 'one.json'), 'one'],
  ] as const) {
    const set = await (await finder(t, { dataDir, file })).usable();
    assert.ok(set?.cloudConfig.keys.has(key));
    assert.equal(set?.source, 'the one BOOTBUNDLE_CLOUD_INIT_SCHEMA names');
  }
});

/** JSON, and no schema of cloud-config that anything could be judged by. */
const UNUSABLE: readonly (readonly [text: string, why: RegExp])[] = [
  ['<html>', /^not JSON$/],
  ['[]', /^not a JSON schema: a schema in it is not an object$/],
  ['null', /^not a JSON schema: a schema in it is not an object$/],
  ['{}', /^not a schema of cloud-config: it knows no runcmd, users and write_files$/],
  ['{"properties": 5}', /^not a JSON schema: properties is not an object$/],
  ['{"$ref": "#/$defs/nothing"}', /^not a JSON schema: it refers to a part that is not in it$/],
  [schema('20.1').replace('{}', '{"$ref": "https://example.com/x.json"}'), /^not a JSON schema: it refers to another file$/],
  [schema('20.1').replace('{}', '{"$ref": "#/properties/runcmd"}'), /^not a JSON schema: it refers to itself without end$/],
  [
    schema('20.1').replace('{}', `${'{"items": '.repeat(9_000)}{}${'}'.repeat(9_000)}`),
    /^not a JSON schema: it is nested too deep$/,
  ],
  [schema('20.1', 'x'.repeat(9 * 1024 * 1024)), /^larger than 8388608 bytes, so it is no schema$/],
];

test('a setting that names nothing usable stops the start in one line', async (t) => {
  const path = folder(t, { 'd/other.json': '{}' });
  const pipe = join(path, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const rows: [file: string, why: RegExp][] = UNUSABLE.map(([text, why], index) => {
    put(path, `${index}.json`, text);
    return [join(path, `${index}.json`), why];
  });
  rows.push(
    [join(path, 'nothing.json'), /^cannot be read \(ENOENT\)$/],
    [join(path, 'd'), /^cannot be read \(ENOENT\)$/],
    [pipe, /^not a regular file$/],
    ['/dev/zero', /^not a regular file$/],
  );
  for (const [file, why] of rows)
    await assert.rejects(finder(t, { file }), ({ code, message }: Error & { code?: string }) => {
      assert.equal(code, 'bad_schema');
      assert.doesNotMatch(message, /\n/);
      const prefix = `BOOTBUNDLE_CLOUD_INIT_SCHEMA: ${file}: `;
      assert.ok(message.startsWith(prefix), message.slice(0, 200));
      assert.match(message.slice(prefix.length), why);
      return true;
    });
});

test('a setting’s file that becomes unusable judges no more, and no other takes its place', async (t) => {
  const dataDir = folder(t);
  await updateSchema(dataDir, folder(t, { [NAME]: schema('99.9') }), '2026-11-23');
  const file = join(folder(t, { 'one.json': schema('20.1') }), 'one.json');
  const { find, troubles } = await finder(t, { dataDir, file });
  assert.ok((await find())?.source);
  let told = 0;
  for (const [text, why] of UNUSABLE) {
    writeFileSync(file, text);
    utimesSync(file, ++told, told);
    const found = await find();
    assert.ok(found?.source === null);
    const [, reason] = /^the schema that BOOTBUNDLE_CLOUD_INIT_SCHEMA names is unusable: (.*)$/.exec(found.unusable) ?? [];
    assert.match(reason ?? '', why);
    assert.equal(troubles.length, told);
  }
  rmSync(file);
  execFileSync('mkfifo', [file]);
  assert.match(JSON.stringify(await find()), /names is unusable: not a regular file/);
  rmSync(file);
  writeFileSync(file, schema('20.1'));
  assert.ok((await find())?.source);
});

test('an update may come through a pipe', async (t) => {
  const pipe = join(folder(t), 'pipe');
  execFileSync('mkfifo', [pipe]);
  const [{ source }] = await Promise.all([updateSchema(folder(t), pipe, '2026-11-23'), writeFile(pipe, schema('25.1'))]);
  assert.equal(source, 'a file, copied 2026-11-23');
});

test('what is broken is told and passed over', async (t) => {
  const dataDir = folder(t, { 'schemas/cloud-init.json': '{"texts": 5}' });
  const library = folder(t, {
    ...installed('25.1', '{"properties"'),
    ...installed('22.4', schema('22.3'), 'python3.11/site-packages'),
  });
  const { find, troubles } = await finder(t, { dataDir, libraries: [library] });
  assert.equal((await find())?.source, 'cloud-init 22.4 (installed)');
  assert.equal(troubles.length, 1, 'the version of the other is lower');
  put(library, `python3/dist-packages/cloudinit/config/schemas/${NAME}`, '"deprecated_version": "99.1"');
  assert.equal((await find())?.source, 'cloud-init 22.4 (installed)');
  assert.deepEqual(troubles.slice(1), [
    'the schema of bootbundle schema update cannot be read',
    'the schema of cloud-init 25.1 (installed) cannot be used',
  ]);
  await find();
  assert.equal(troubles.length, 3, 'once, not at every question');
});

test('a schema is read again when its file has changed, and only then', async (t) => {
  const given = folder(t, { [NAME]: schema('20.1', 'first') });
  const { find, usable } = await finder(t, { file: given });
  const first = await find();
  assert.equal(await find(), first);
  const [one, two] = await Promise.all([find(), find()]);
  assert.equal(one, two);
  put(given, NAME, schema('20.1', 'other'));
  utimesSync(join(given, NAME), 1, 1);
  const second = await usable();
  assert.ok(second?.cloudConfig.keys.has('other'));
  put(given, 'schema-network-config-v2.json', JSON.stringify({ properties: { ethernets: {} } }));
  assert.ok((await usable())?.networkV2);
});

test('an update puts all schemas of a folder into one file, which others may read', async (t) => {
  const dataDir = join(folder(t), 'data');
  const from = folder(t, {
    [NAME]: schema('25.3'),
    'schema-network-config-v1.json': JSON.stringify({ properties: { config: {} } }),
    'schema-network-config-v2.json': JSON.stringify({ properties: { ethernets: {} } }),
  });
  assert.deepEqual(await updateSchema(dataDir, from, '2026-11-23'), {
    file: join(dataDir, 'schemas', 'cloud-init.json'),
    source: 'a file, copied 2026-11-23',
    network: true,
  });
  assert.deepEqual(readdirSync(join(dataDir, 'schemas')), ['cloud-init.json']);
  assert.equal(statSync(join(dataDir, 'schemas', 'cloud-init.json')).mode & 0o777, 0o644);
  assert.equal(statSync(dataDir).mode & 0o777, 0o700);
  const set = await (await finder(t, { dataDir })).usable();
  assert.ok(set?.networkV1 && set.networkV2);
});

test('an update that fails leaves what there was', async (t) => {
  const dataDir = folder(t);
  await updateSchema(dataDir, folder(t, { [NAME]: schema('25.1') }), '2026-11-23');
  const before = readFileSync(join(dataDir, 'schemas', 'cloud-init.json'));
  for (const [from, says] of [
    [join(dataDir, 'nothing.json'), /nothing\.json: cannot be read \(ENOENT\)$/],
    [folder(t), /cannot be read \(ENOENT\)$/],
    [join(folder(t, { 'a.json': '<html>' }), 'a.json'), /a\.json: not JSON$/],
    [join(folder(t, { 'a.json': '{}' }), 'a.json'), /a\.json: not a schema of cloud-config/],
    [join(folder(t, { 'a.json': '{"properties": 5}' }), 'a.json'), /a\.json: not a JSON schema: properties is not an object$/],
    [folder(t, { [NAME]: schema('1.1'), 'schema-network-config-v1.json': '' }), /not JSON$/],
  ] as const)
    await assert.rejects(
      () => updateSchema(dataDir, from, '2026-11-24'),
      ({ kind, message }: { kind?: string; message: string }) => {
        assert.equal(kind, 'invalid');
        assert.match(message, says);
        assert.doesNotMatch(message, /\n/);
        return true;
      },
    );
  assert.deepEqual(readFileSync(join(dataDir, 'schemas', 'cloud-init.json')), before);
  assert.deepEqual(readdirSync(join(dataDir, 'schemas')), ['cloud-init.json'], 'and no draft');
});

test('a data directory that cannot be written to is told', async (t) => {
  const path = folder(t, { file: '' });
  await assert.rejects(() => updateSchema(join(path, 'file'), folder(t, { [NAME]: schema('25.1') }), '2026-11-23'), {
    code: 'schema_not_kept',
  });
  if (process.getuid?.() === 0) return;
  chmodSync(path, 0o500);
  await assert.rejects(() => updateSchema(path, folder(t, { [NAME]: schema('25.1') }), '2026-11-23'), {
    code: 'schema_not_kept',
  });
});

/** A server of schemas. */
async function serve(
  t: TestContext,
  answers: Record<string, { status?: number; body?: string; never?: boolean }>,
): Promise<string> {
  const server = createServer((request, response) => {
    const { status = 200, body = '', never } = answers[request.url ?? ''] ?? { status: 404 };
    if (never) return void request.socket.destroy();
    response.writeHead(status).end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('a schema is fetched from a URL, of a file or of a folder; older folders have none for networks', async (t) => {
  const host = await serve(t, { [`/a/${NAME}`]: { body: schema('25.1', 'fetched') } });
  const dataDir = folder(t);
  for (const from of [`${host}/a/${NAME}`, `${host}/a/`]) {
    const { source, network } = await updateSchema(dataDir, from, '2026-11-23');
    assert.equal(source, `${new URL(host).host}, fetched 2026-11-23`);
    assert.equal(network, false);
  }
  assert.ok((await (await finder(t, { dataDir })).usable())?.cloudConfig.keys.has('fetched'));
});

test('what a server cannot give is told in one line', async (t) => {
  const host = await serve(t, {
    '/500': { status: 500 },
    '/html': { body: '<html>' },
    '/hangs-up': { never: true },
    '/huge': { body: 'x'.repeat(9 * 1024 * 1024) },
    [`/b/${NAME}`]: { body: schema('25.1') },
    '/b/schema-network-config-v1.json': { status: 503 },
  });
  const dataDir = folder(t);
  for (const [from, says] of [
    [`${host}/nothing`, /: the server answers 404$/],
    [`${host}/nothing/`, /schema-cloud-config-v1\.json: the server answers 404$/],
    [`${host}/500`, /: the server answers 500$/],
    [`${host}/html`, /\/html: not JSON$/],
    [`${host}/huge`, /: larger than 8388608 bytes, so it is no schema$/],
    [`${host}/hangs-up`, /: cannot be fetched \([A-Z_]+\); --from takes a file, too$/],
    [`${host}/b/`, /schema-network-config-v1\.json: the server answers 503$/],
    ['http://127.0.0.1:1/x', /: cannot be fetched \(ECONNREFUSED\)|cannot be fetched \(unknown error\)/],
    ['http://', /: not a URL$/],
  ] as const)
    await assert.rejects(
      () => updateSchema(dataDir, from, '2026-11-23'),
      ({ message }: Error) => {
        assert.match(message, says);
        assert.doesNotMatch(message, /\n/);
        return true;
      },
      from,
    );
  assert.deepEqual(readdirSync(dataDir), []);
});

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { runServe, startServer, temporaryDirectory } from './server.ts';

/** The start fails with exit code 1 and exactly one line on standard error. */
function oneLine({ code, stderr }: { code: number | null; stderr: string }, says: RegExp) {
  assert.deepEqual([code, stderr.split('\n').length], [1, 2], stderr);
  assert.match(stderr, /^bootbundle: |^bootbundle needs /);
  assert.match(stderr, says);
}

async function stoppedServer(): Promise<string> {
  const server = await startServer();
  assert.equal(await server.stop(), 0);
  return server.data;
}

test('the first start makes key, token and curlrc for its owner only, and says where, never the token', async () => {
  const begun = performance.now();
  const server = await startServer();
  for (;;) {
    if ((await fetch(`${server.url}/readyz`).catch(() => null))?.ok) break;
    await sleep(5);
  }
  process.stderr.write(`node to /readyz: ${Math.round(performance.now() - begun)} ms\n`);
  for (const name of ['server.key', 'admin-token', 'admin.curlrc'])
    assert.equal(statSync(join(server.data, name)).mode & 0o777, 0o600, name);
  // While it runs, so that what SQLite keeps beside the database is there, too.
  const database = readdirSync(server.data).filter((name) => name.startsWith('bootbundle.db'));
  assert.ok(database.includes('bootbundle.db') && database.includes('bootbundle.db-wal'), database.join(' '));
  for (const name of database) assert.equal(statSync(join(server.data, name)).mode & 0o077, 0, name);
  assert.equal(statSync(join(server.data, 'bootbundle.db')).mode & 0o777, 0o600);
  assert.equal(readFileSync(join(server.data, 'admin.curlrc'), 'utf8'), `header = "Authorization: Bearer ${server.token}"\n`);
  assert.match(server.stderr(), /made an admin token: .*admin-token \(for curl: -K .*admin\.curlrc\)/);
  assert.ok(!server.stderr().includes(server.token) && !server.stdout().includes(server.token));
  assert.equal(await server.stop(), 0);
});

test('a bad setting is one line that names it, and nothing is made', async () => {
  for (const [env, says] of [
    [{ BOOTBUNDLE_PORT: '70000' }, /BOOTBUNDLE_PORT/],
    [{ BOOTBUNDLE_PORT: 'x' }, /BOOTBUNDLE_PORT/],
    [{ BOOTBUNDLE_HOST: 'a b' }, /BOOTBUNDLE_HOST/],
    [{ BOOTBUNDLE_HOST: '0.0.0.0' }, /BOOTBUNDLE_PUBLIC_URL: needed/],
    [{ BOOTBUNDLE_BOOT_LISTEN: '8081' }, /BOOTBUNDLE_BOOT_LISTEN/],
    [{ BOOTBUNDLE_PUBLIC_URL: 'ftp://x' }, /BOOTBUNDLE_PUBLIC_URL/],
    [{ BOOTBUNDLE_PUBLIC_URL: `http://x/${'y'.repeat(120)}` }, /BOOTBUNDLE_PUBLIC_URL/],
    [{ BOOTBUNDLE_DATABASE_URL: 'mysql://x' }, /BOOTBUNDLE_DATABASE_URL/],
    [{ BOOTBUNDLE_DATABASE_URL: 'postgres://x' }, /BOOTBUNDLE_KEY/],
    [{ BOOTBUNDLE_DATABASE_URL: 'postgres://u:p@[x/db' }, /BOOTBUNDLE_DATABASE_URL/],
    [{ BOOTBUNDLE_ADMIN_TOKEN: 'SHORT' }, /BOOTBUNDLE_ADMIN_TOKEN/],
    [{ BOOTBUNDLE_KEY: 'SHORT' }, /BOOTBUNDLE_KEY/],
    [{ BOOTBUNDLE_KEY_FILE: '/nonexistent' }, /BOOTBUNDLE_KEY_FILE/],
    [{ BOOTBUNDLE_LOG_LEVEL: 'loud' }, /BOOTBUNDLE_LOG_LEVEL/],
    [{ BOOTBUNDLE_DATA_DIR: '/dev/null/x' }, /BOOTBUNDLE_DATA_DIR/],
  ] as const) {
    const data = temporaryDirectory();
    const answer = await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0', ...env });
    oneLine(answer, says);
    assert.ok(!answer.stderr.includes('SHORT'), 'a secret is not repeated');
    assert.deepEqual(
      readdirSync(data).filter((name) => name.endsWith('.db')),
      [],
    );
  }
  oneLine(await runServe({}, ['--nope=1']), /--nope/);
  oneLine(await runServe({}, ['--admin-token=x']), /--admin-token/);
});

test('a database whose key is lost, or another, is not touched', async () => {
  const data = await stoppedServer();
  const key = readFileSync(join(data, 'server.key'));
  rmSync(join(data, 'server.key'));
  oneLine(await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0' }), /server\.key: missing.*backup/);
  oneLine(
    await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0', BOOTBUNDLE_KEY: 'x'.repeat(32) }),
    /BOOTBUNDLE_KEY: .*another key/,
  );
  assert.ok(!readdirSync(data).includes('server.key'), 'no new key is made in the place of a lost one');
  writeFileSync(join(data, 'server.key'), '', { mode: 0o600 });
  oneLine(await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0' }), /server\.key: not a key/);
  writeFileSync(join(data, 'server.key'), key, { mode: 0o600 });
  const server = await startServer({ BOOTBUNDLE_DATA_DIR: data });
  assert.equal(await server.stop(), 0, 'with its key back it starts');
});

test('a database that is newer, foreign or no database is left as it is', async () => {
  const data = await stoppedServer();
  const file = join(data, 'bootbundle.db');
  const db = new Database(file);
  db.prepare('insert into bootbundle_migration (name, applied_at) values (?, 0)').run('9999-from-the-future');
  db.close();
  oneLine(await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0' }), /newer bootbundle/);

  for (const name of ['foreign', 'none']) {
    const other = temporaryDirectory();
    const path = join(other, 'bootbundle.db');
    if (name === 'none') writeFileSync(path, 'this is not a database, but a text of some length\n'.repeat(100));
    else new Database(path).exec('create table theirs (x)').close();
    const before = readFileSync(path);
    const answer = await runServe({ BOOTBUNDLE_DATA_DIR: other, BOOTBUNDLE_PORT: '0', BOOTBUNDLE_KEY: 'x'.repeat(32) });
    oneLine(answer, /not a database of bootbundle/);
    assert.deepEqual(readFileSync(path), before, name);
  }
});

test('a port that is taken is one line', async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const { port } = other.address() as { port: number };
  const data = temporaryDirectory();
  oneLine(
    await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: String(port) }),
    new RegExp(`127\\.0\\.0\\.1:${port}: something else listens`),
  );
  const boot = { BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0', BOOTBUNDLE_BOOT_LISTEN: `127.0.0.1:${port}` };
  oneLine(await runServe(boot), new RegExp(`127\\.0\\.0\\.1:${port}: something else listens`));
  other.close();
});

test('a data directory that cannot be written is one line', {
  skip: process.getuid?.() === 0 && 'root may write everywhere',
}, async () => {
  const data = temporaryDirectory();
  chmodSync(data, 0o500);
  oneLine(await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0' }), /BOOTBUNDLE_DATA_DIR/);
});

test('BOOT_LISTEN: machines have a listener of their own, and operators are not on it', async () => {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  const server = await startServer({ BOOTBUNDLE_BOOT_LISTEN: `127.0.0.1:${port}` });
  const headers = { authorization: `Bearer ${server.token}` };
  await fetch(`${server.url}/api/v1/bundles/web/parts/a.sh`, { method: 'PUT', headers, body: '#!/bin/sh\n' });
  await fetch(`${server.url}/api/v1/instances/vm`, { method: 'PUT', headers, body: '{"bundles":["web"]}' });
  const stub = async (form: string) => (await fetch(`${server.url}/api/v1/instances/vm/stub?form=${form}`, { headers })).text();
  const include = new URL((await stub('include')).split('\n')[1] ?? '');
  const seed = new URL((await stub('nocloud')).trim().replace('ds=nocloud;s=', ''));
  assert.equal(include.port, String(port));
  for (const [path, operators, machines] of [
    [include.pathname, 404, 200],
    [`${seed.pathname}meta-data`, 404, 200],
    ['/healthz', 200, 200],
    ['/readyz', 200, 404],
    ['/api/v1/bundles', 200, 404],
    ['/openapi.json', 200, 404],
    ['/docs/', 200, 404],
  ] as const) {
    const status = async (at: string) => (await fetch(new URL(path, at), { headers })).status;
    assert.deepEqual([await status(server.url), await status(`http://127.0.0.1:${port}`)], [operators, machines], path);
  }
  assert.equal(await server.stop(), 0);
});

test('a Node that is too old says so in one line', async (t) => {
  const nodes = ['/usr/bin', '/usr/local/bin', ...(process.env.PATH ?? '').split(delimiter)]
    .filter((path) => !path.includes('node_modules'))
    .map((path) => join(path, 'node'));
  const old = nodes.find((node) => {
    const [major = 99, minor = 0] =
      spawnSync(node, ['-p', 'process.versions.node']).stdout?.toString().split('.').map(Number) ?? [];
    return major < 22 || (major === 22 && minor < 18);
  });
  if (old === undefined) return t.skip('there is no old Node here');
  oneLine(
    await runServe({ BOOTBUNDLE_DATA_DIR: temporaryDirectory() }, [], old),
    /needs Node 22\.18 or newer; this is Node \d+\.\d+/,
  );
});

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { scheduler } from 'node:timers/promises';
import { readConfig } from '../src/config.ts';
import { start } from '../src/main.ts';
import { openSqlite } from '../src/store/sqlite.ts';
import { postgresServer } from './postgres.ts';

const postgres = await postgresServer();
const withoutPostgres = typeof postgres === 'string' && postgres;

function dataDir(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-main-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** A running service, stopped at the test's end, and how an operator and a machine call it. */
async function serve(t: TestContext, dir: string, env: Record<string, string> = {}) {
  const running = await start(
    readConfig({ BOOTBUNDLE_PORT: '0', BOOTBUNDLE_DATA_DIR: dir, BOOTBUNDLE_LOG_LEVEL: 'silent', ...env }, new Map()),
  );
  let stopped = false;
  const stop = async () => {
    if (!stopped) await running.stop();
    stopped = true;
  };
  t.after(stop);
  const token = env.BOOTBUNDLE_ADMIN_TOKEN ?? readFileSync(join(dir, 'admin-token'), 'utf8').trim();
  const api = async (method: string, path: string, body?: string) => {
    const answer = await fetch(`${running.url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}` },
      ...(body === undefined ? {} : { body }),
    });
    return { status: answer.status, text: await answer.text() };
  };
  const boot = async (stub: string) => {
    const path = new URL(stub.split('\n')[1] ?? '').pathname;
    const answer = await fetch(running.url + path);
    return { status: answer.status, text: await answer.text() };
  };
  return { ...running, stop, api, boot };
}

test('a stub lives through a restart, on the same address', async (t) => {
  const dir = dataDir(t);
  const env = { BOOTBUNDLE_PUBLIC_URL: 'http://192.0.2.10:8080' };
  const first = await serve(t, dir, env);
  assert.equal((await first.api('PUT', '/bundles/web/parts/a.sh', '#!/bin/sh\n')).status, 201);
  assert.equal((await first.api('PUT', '/instances/vm', '{"bundles": ["web"], "track": false}')).status, 201);
  const stub = (await first.api('GET', '/instances/vm/stub')).text;
  const { text } = await first.boot(stub);
  await first.stop();
  const second = await serve(t, dir, env);
  assert.deepEqual(await second.boot(stub), { status: 200, text });
});

test('a database is refused under another key, and taken under a ring that has its key', async (t) => {
  const dir = dataDir(t);
  const [old, fresh] = ['o'.repeat(32), 'n'.repeat(32)];
  const first = await serve(t, dir, { BOOTBUNDLE_KEY: old });
  await first.api('PUT', '/instances/vm', '{"bundles": [], "track": false}');
  const stub = (await first.api('GET', '/instances/vm/stub')).text;
  await first.stop();
  await assert.rejects(serve(t, dir, { BOOTBUNDLE_KEY: fresh }), /BOOTBUNDLE_KEY/);
  const ring = await serve(t, dir, { BOOTBUNDLE_KEY: `${fresh},${old}` });
  assert.equal((await ring.boot(stub)).status, 200, 'the old stub still works');
  assert.notEqual((await ring.api('GET', '/instances/vm/stub')).text, stub, 'new stubs are made under the new key');
});

test('what is too old for the ledger goes at the start', async (t) => {
  const dir = dataDir(t);
  const first = await serve(t, dir);
  await first.api('PUT', '/instances/vm', '{"bundles": []}');
  const stub = (await first.api('GET', '/instances/vm/stub')).text;
  await first.boot(stub);
  await first.stop();
  const database = await openSqlite(join(dir, 'bootbundle.db'));
  await database.write((db) =>
    db
      .updateTable('delivery')
      .set(({ eb }) => ({ at: eb('at', '-', 2 * 60 * 60 * 1000) }))
      .execute(),
  );
  await database.close();
  const rows = async (running: typeof first) => JSON.parse((await running.api('GET', '/instances/vm/deliveries')).text).items;
  const second = await serve(t, dir, { BOOTBUNDLE_LEDGER_RETENTION: '3h' });
  assert.equal((await rows(second)).length, 1);
  await second.stop();
  const third = await serve(t, dir, { BOOTBUNDLE_LEDGER_RETENTION: '1h' });
  for (let tried = 0; (await rows(third)).length > 0; tried++) {
    assert.ok(tried < 500, 'it is there still');
    await scheduler.wait(10);
  }
});

test('two servers on one PostgreSQL are one service', { skip: withoutPostgres }, async (t) => {
  assert.ok(typeof postgres !== 'string');
  const env = {
    BOOTBUNDLE_DATABASE_URL: await postgres.freshDatabase(),
    BOOTBUNDLE_KEY: 'k'.repeat(32),
    BOOTBUNDLE_ADMIN_TOKEN: 'a-token-for-both-of-them',
    BOOTBUNDLE_PUBLIC_URL: 'http://192.0.2.10:8080',
  };
  const [one, two] = await Promise.all([serve(t, dataDir(t), env), serve(t, dataDir(t), env)]);
  assert.equal((await one.api('PUT', '/bundles/web/parts/a.sh', '#!/bin/sh\necho 1\n')).status, 201);
  assert.equal((await two.api('PUT', '/instances/vm', '{"bundles": ["web", "kube"]}')).status, 201);
  const stub = (await one.api('GET', '/instances/vm/stub')).text;
  assert.equal((await two.api('GET', '/instances/vm/stub')).text, stub);
  const [a, b] = await Promise.all([one.boot(stub), two.boot(stub)]);
  assert.deepEqual(a, b);
  assert.equal(a.status, 200);
  await two.api('PUT', '/bundles/web/parts/a.sh', '#!/bin/sh\necho 2\n');
  assert.match((await one.boot(stub)).text, /echo 2/);
  const ledger = JSON.parse((await two.api('GET', '/instances/vm/deliveries')).text);
  assert.deepEqual(ledger.items.map(({ counted }: { counted: boolean }) => counted).sort(), [false, false, true]);
});

test('PostgreSQL without a key is refused: every replica needs the same one', async (t) => {
  await assert.rejects(serve(t, dataDir(t), { BOOTBUNDLE_DATABASE_URL: 'postgres://127.0.0.1:1/x' }), /BOOTBUNDLE_KEY/);
});

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readConfig } from '../../src/config.ts';
import { start } from '../../src/main.ts';

const CLI = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));

function folder(t: TestContext): string {
  const data = mkdtempSync(join(tmpdir(), 'bootbundle-token-'));
  t.after(() => rmSync(data, { recursive: true }));
  return data;
}

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, 'token', ...args], { env: {}, encoding: 'utf8' });
  return { status, stdout, stderr };
}

test('a token made on the host opens the running service, as what it was asked to be, and is in the audit', async (t) => {
  const data = folder(t);
  const flags = Object.entries({ port: '0', 'data-dir': data, 'log-level': 'silent' });
  const running = await start(readConfig({}, new Map(flags)));
  t.after(() => running.stop());
  const get = async (path: string, token: string) => {
    const answer = await fetch(`${running.url}/api/v1${path}`, { headers: { authorization: `Bearer ${token.trim()}` } });
    return answer.json() as Promise<Record<string, unknown>>;
  };
  const admin = run('create', `--data-dir=${data}`);
  assert.match(admin.stdout, /^bb_[a-z0-9]{8}_[A-Za-z0-9_-]{43}\n$/);
  assert.equal(admin.stderr, '');
  const self = await get('/tokens/self', admin.stdout);
  assert.deepEqual([self.role, self.bundles, self.instances, self.expiresAt], ['admin', null, null, null]);

  const scoped = ['--name', 'web-ci', '--role=editor', '--expires-in', '90d', '--bundles', 'web-*, base', '--instances=web-*'];
  const web = run('create', ...scoped, '--data-dir', data);
  const { id, expiresAt, ...bearer } = await get('/tokens/self', web.stdout);
  assert.deepEqual(bearer, { name: 'web-ci', role: 'editor', bundles: ['web-*', 'base'], instances: ['web-*'] });
  assert.ok(Math.abs(Date.parse(String(expiresAt)) - Date.now() - 90 * 86_400_000) < 60_000);

  const { items } = (await get('/audit?kind=token', admin.stdout)) as { items: Record<string, unknown>[] };
  assert.deepEqual(
    items.map(({ actor, action, name, address }) => [actor, action, name, address]),
    [
      ['admin', 'create', 'web-ci', ''],
      ['admin', 'create', self.name, ''],
    ],
  );
  const list = run('list', '--data-dir', data).stdout;
  assert.match(list, /^ID +NAME +ROLE +STATE +BUNDLES +INSTANCES\n/);
  assert.match(list, new RegExp(`\n${id} +web-ci +editor +living +web-\\*,base +web-\\*\n`));
  assert.ok(!list.includes(web.stdout.slice(12).trim()));
});

test('what cannot be is said in one line, and nothing is made', (t) => {
  const data = folder(t);
  for (const [args, says] of [
    [['create', '--role', 'root'], /^bootbundle: --role: must be viewer, editor, admin\n$/],
    [['create', '--expires-in', 'soon'], /^bootbundle: --expires-in: a whole number/],
    [['create', '--nope', 'x'], /^bootbundle: --nope: unknown flag/],
    [['create', '--name', 'admin'], /^bootbundle: the audit knows somebody else as admin/],
    [['create', '--bundles', 'Web'], /^bootbundle: bundles: a scope has/],
    [['list', '--role', 'viewer'], /^bootbundle: --role: unknown flag/],
    [['remove'], /^bootbundle: token: no action "remove"/],
  ] as const) {
    const { status, stdout, stderr } = run(...args, '--data-dir', data);
    assert.deepEqual([status, stdout], [1, ''], args.join(' '));
    assert.match(stderr, says);
  }
  assert.equal(run('list', '--data-dir', data).stdout, 'ID  NAME  ROLE  STATE  BUNDLES  INSTANCES\n');
  for (const args of [[], ['--help'], ['create', '-h']]) assert.match(run(...args).stdout, /^bootbundle token create/);
});

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { buildTestApp, START, TOKEN } from '../app.ts';
import { storeWithRows } from '../rows.ts';

const CLI = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));
const EXPECTS = { events: true, phoneHome: false, manifests: [] };
const BOOTING = { deliveredAt: START, expects: EXPECTS, lastWordAt: START };
const READY = { ...BOOTING, finalAt: START, finalClock: START, readyAt: START };
const FAILED = { ...BOOTING, failures: [{ what: 'modules-final', description: '', clock: 0 }] };

/** A service with three machines, and the command as an operator runs it. */
async function bench(t: TestContext) {
  const { store, rows } = await storeWithRows(t);
  const app = await buildTestApp(t, { store });
  for (const name of ['ready', 'failed', 'fresh'])
    await app.api('PUT', `/instances/${name}`, { bundles: [], labels: { name } });
  await rows.boot('ready', READY);
  await rows.boot('failed', FAILED);
  const directory = mkdtempSync(join(tmpdir(), 'bootbundle-wait-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const begin = (args: string[], env: Record<string, string> = { BOOTBUNDLE_TOKEN: TOKEN }) => {
    const child = spawn(process.execPath, [CLI, 'wait', ...args], { cwd: directory, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const written = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const)
      child[stream].setEncoding('utf8').on('data', (text) => {
        written[stream] += text;
      });
    t.after(() => child.kill('SIGKILL'));
    const ended = once(child, 'close').then(([code]) => ({ code: code as number | null, ...written }));
    return { written, ended };
  };
  const run = (...call: Parameters<typeof begin>) => begin(...call).ended;
  const listen = (port = 0) => app.app.listen({ host: '127.0.0.1', port });
  return { ...app, rows, directory, begin, run, listen };
}

test('the exit code tells how it went, and the last lines why', async (t) => {
  const { run, listen } = await bench(t);
  const url = `--url=${await listen()}`;
  const [ready, failed, group, bad, delivered] = await Promise.all([
    run(['ready', url]),
    run(['failed', url]),
    run(['--label=name=ready', '--label', 'name', url]),
    run(['--label=name', url]),
    run(['failed', '--for', 'delivered', url]),
  ]);
  assert.deepEqual(ready, {
    code: 0,
    stdout: 'NAME   STATE  REASON\nready  ready  it reported that all it was asked for is done\n',
    stderr: '',
  });
  assert.deepEqual([failed.code, failed.stdout], [1, '']);
  assert.match(
    failed.stderr,
    /^not ready, and will not be without help: failed is failed [^\n]+\n2026\S+ {2}registered by admin\n/,
  );
  assert.equal(group.code, 0);
  assert.equal(bad.code, 1);
  assert.match(bad.stderr, /failed is failed\nfailed: failed: /);
  assert.equal(delivered.code, 0);
});

test('time that is over is 3, with what happened so far', async (t) => {
  const { run, listen, tick } = await bench(t);
  const answer = run(['fresh', '--timeout=1s', `--url=${await listen()}`]);
  let ended = false;
  answer.finally(() => {
    ended = true;
  });
  while (!ended) {
    await sleep(50);
    tick(100);
  }
  const { code, stdout, stderr } = await answer;
  assert.deepEqual([code, stdout], [3, '']);
  assert.match(stderr, /^not ready in that time: fresh is registered [^\n]+\n2026\S+ {2}registered by admin\n$/);
});

test('a service that is not there yet is asked again', async (t) => {
  const { begin, listen } = await bench(t);
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  const { written, ended } = begin(['ready', `--url=http://127.0.0.1:${port}`]);
  for (let waited = 0; written.stderr === '' && waited < 10_000; waited += 20) await sleep(20);
  await listen(port);
  const { code, stderr } = await ended;
  assert.equal(code, 0);
  assert.equal(stderr, `bootbundle: http://127.0.0.1:${port}: no answer (ECONNREFUSED); asking again\n`);
});

test('the token comes from where it is said, and a wrong one is told', async (t) => {
  const { run, listen, directory } = await bench(t);
  const url = `--url=${await listen()}`;
  writeFileSync(join(directory, 'admin-token'), `${TOKEN}\n`);
  writeFileSync(join(directory, 'curlrc'), `silent\nheader = "Authorization: Bearer ${TOKEN}"\n`);
  writeFileSync(join(directory, 'empty'), 'silent\n');
  for (const [args, env, code, says] of [
    [['-K', 'curlrc'], { BOOTBUNDLE_TOKEN: 'wrong' }, 0, /^$/],
    [['--data-dir=.'], {}, 0, /^$/],
    [[], { BOOTBUNDLE_DATA_DIR: directory }, 0, /^$/],
    [[], { BOOTBUNDLE_TOKEN: 'wrong' }, 2, /^bootbundle: http:\S+ 401: this token is not known here\n$/],
    [[], {}, 2, /^bootbundle: data\/admin-token: cannot be read \(ENOENT\); set BOOTBUNDLE_TOKEN, or say --data-dir or -K\n$/],
    [['-K', 'empty'], {}, 2, /^bootbundle: empty: has no header/],
    [['-K', 'none'], {}, 2, /^bootbundle: none: cannot be read/],
    [[], { BOOTBUNDLE_TOKEN: 'a b' }, 2, /^bootbundle: BOOTBUNDLE_TOKEN: not a token\n$/],
  ] as const) {
    const answer = await run(['ready', url, ...args], env);
    assert.deepEqual([answer.code, says.test(answer.stderr)], [code, true], answer.stderr);
  }
});

test('what is wrong with the command, or with whom it waits for, is 2 and one line', async (t) => {
  const { run, listen } = await bench(t);
  const url = `--url=${await listen()}`;
  for (const [args, says] of [
    [[], /^bootbundle: wait needs one INSTANCE, or --label KEY=VALUE; see bootbundle wait --help\n$/],
    [['a', 'b'], /wait needs one INSTANCE/],
    [['a', '--label=b'], /wait needs one INSTANCE/],
    [['a', '--for=ever'], /--for: must be delivered, booting, ready/],
    [['a', '--timeout=10'], /--timeout: must be a duration/],
    [['a', '--url=ftp://x'], /--url: must be/],
    [['a', '--time=1s'], /--time/],
    [['none', url], /404: there is no such instance\n$/],
    [['../tokens', url], /400: /],
  ] as const) {
    const { code, stdout, stderr } = await run([...args]);
    assert.deepEqual([code, stdout], [2, ''], stderr);
    assert.match(stderr, says);
    assert.equal(stderr.split('\n').length, 2);
  }
});

test('help needs nothing', async (t) => {
  const { run } = await bench(t);
  const { code, stdout } = await run(['--help'], {});
  assert.equal(code, 0);
  assert.match(stdout, /^bootbundle wait INSTANCE /);
});

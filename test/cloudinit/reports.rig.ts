import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { bootRig, skipWithoutRig } from './rig.ts';
import { type Server, startServer } from './server.ts';

const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: db}\nspec:\n  containers: [{name: db, image: mysql}]\n';
/** Pid 1 of the rig, which all of it ends with, goes on for a moment after the last stage, as a machine does. */
const LINGER = '[ $$ -eq 1 ] && trap "sleep 2" EXIT\n';

interface State {
  state: string;
  reason: string;
}

/** First boots of a real cloud-init that report to the running server, and what is known of the machine afterwards. */
describe('what a machine says of its boot', { skip: skipWithoutRig(), concurrency: 2 }, () => {
  let server: Server;
  before(async () => {
    server = await startServer();
  });
  after(() => server?.close());

  const get = async (path: string) => JSON.parse(await server.call('GET', path));
  const state = async (instance: string): Promise<State> => (await get(`/instances/${instance}`)).status.state;

  /** Boots with this user-data; returns the folder of what came of it. */
  async function boot(t: TestContext, suite: string, stub: string, env: Record<string, string> = {}): Promise<string> {
    const work = await mkdtemp(join(tmpdir(), 'bootbundle-reports-'));
    t.after(() => rm(work, { recursive: true, force: true }));
    await writeFile(join(work, 'user-data'), stub);
    await writeFile(join(work, 'linger'), LINGER);
    await bootRig(join(work, 'user-data'), join(work, 'out'), { SUITE: suite, BASH_ENV: join(work, 'linger'), ...env });
    return join(work, 'out');
  }
  async function stagesOf(out: string): Promise<string[]> {
    const lines = (await readFile(join(out, 'stages.tsv'), 'utf8')).trim().split('\n');
    return lines.map((line) => line.split('\t').slice(1, 3).join(' '));
  }
  const GOOD = ['local 0', 'net 0', 'config 0', 'final 0'];

  for (const suite of ['bookworm', 'trixie']) {
    it(`${suite}: a good boot is ready, with the fingerprints of its host keys and its logs`, async (t) => {
      await server.upload(`good-${suite}`, 'a.sh', '#!/bin/sh\necho a script says hello\n');
      await server.upload(`good-${suite}`, 'a.yaml', '#cloud-config\nruncmd: [echo a command says hello]\n');
      const out = await boot(t, suite, await server.register(`good-${suite}`, [`good-${suite}`]));
      assert.deepEqual(await stagesOf(out), GOOD);
      assert.equal(await readFile(join(out, 'warnings.txt'), 'utf8'), '');
      assert.equal((await state(`good-${suite}`)).state, 'ready');

      const { items } = await get(`/instances/good-${suite}/timeline`);
      const home = items.find(({ kind }: { kind: string }) => kind === 'phoneHome')?.phoneHome;
      const ssh = join(out, 'upper/etc/ssh');
      const printed = (await readdir(ssh))
        .filter((name) => /^ssh_host_(rsa|ecdsa|ed25519)_key\.pub$/.test(name))
        .map((name) => execFileSync('ssh-keygen', ['-l', '-f', join(ssh, name)], { encoding: 'utf8' }).split(' ')[1]);
      assert.equal(printed.length, 3);
      assert.deepEqual(home.hostKeys.map(({ fingerprint }: { fingerprint: string }) => fingerprint).sort(), printed.sort());
      assert.deepEqual([home.instanceId, home.hostname], ['iid-rig-01', 'rig-node']);

      const output = await server.call('GET', `/instances/good-${suite}/logs/cloud-init-output.log`);
      for (const said of ['a script says hello', 'a command says hello', 'finished at']) assert.ok(output.includes(said), said);
      assert.deepEqual((await get(`/instances/good-${suite}/logs/result.json`)).v1.errors, []);
      // The report URL is on no console.
      assert.doesNotMatch(await readFile(join(out, 'console.log'), 'utf8'), /\/r\//);
    });

    it(`${suite}: a boot with a failing script has failed, and what the script said is there to read`, async (t) => {
      await server.upload(`failing-${suite}`, 'a.sh', '#!/bin/sh\necho disk on fire >&2\nexit 3\n');
      const out = await boot(t, suite, await server.register(`failing-${suite}`, [`failing-${suite}`]));
      assert.equal((await stagesOf(out))[2], 'config 0');
      const { state: known, reason } = await state(`failing-${suite}`);
      assert.equal(known, 'failed');
      assert.match(
        reason,
        /^cloud-init reported that modules-final\/config-scripts.user failed: Runparts: 1 failures \(01-a\.sh\)/,
      );
      assert.match(await server.call('GET', `/instances/failing-${suite}/logs/cloud-init-output.log`), /^disk on fire$/m);
    });

    it(`${suite}: a boot is waited for until its manifests are applied, and has failed once one failed for good`, async (t) => {
      await server.upload(`db-${suite}`, 'dbserver.yaml', POD);
      const out = await boot(t, suite, await server.register(`kube-${suite}`, ['kube', `db-${suite}`]));
      assert.deepEqual(await state(`kube-${suite}`).then(({ state, reason }) => [state, reason]), [
        'booting',
        'waiting for 1 manifest',
      ]);
      const config = JSON.parse(await readFile(join(out, 'upper/var/lib/bootbundle/config.json'), 'utf8'));
      const [part] = await readdir(join(out, 'upper/var/lib/bootbundle/manifests/pending'));
      const said = { file: part, part, sha256: '', attempts: 1, output: 'no such image', client: 'kubectl' };
      for (const [id, status, expected] of [
        ['1', 'retrying', 'booting'],
        ['2', 'failed', 'failed'],
        ['3', 'applied', 'ready'],
      ]) {
        const body = JSON.stringify({ ...said, id, status, at: Number(id) });
        const answer = await fetch(`${config.report}/manifests`, { method: 'POST', body });
        assert.equal(answer.status, 204);
        assert.equal((await state(`kube-${suite}`)).state, expected);
      }
    });

    it(`${suite}: an include that is refused for good leaves the machine as it was registered`, async (t) => {
      const stub = await server.register(`lost-${suite}`, []);
      const out = await boot(t, suite, stub.replace(/.{4}\/user-data/, 'AAAA/user-data'));
      assert.equal((await stagesOf(out))[1], 'net 1');
      assert.equal((await state(`lost-${suite}`)).state, 'registered');
    });
  }

  /** A part that cannot be rendered any more. */
  async function unrenderable(instance: string): Promise<string> {
    await server.upload(instance, 'a.sh', '#!/bin/sh\n: {{ vars.word }}\n', '?template=true');
    const stub = await server.register(instance, [instance], { vars: { word: 'x' } });
    await server.upload(instance, 'a.sh', '#!/bin/sh\n: {{ vars.other }}\n', '?force=true');
    return stub;
  }

  it('bookworm: a document that cannot be rendered fails the boot, and says so', async (t) => {
    const out = await boot(t, 'bookworm', await unrenderable('broken'));
    assert.equal((await stagesOf(out))[1], 'net 1');
    const { state: known, reason } = await state('broken');
    assert.deepEqual([known, reason], ['failed', 'its document could not be rendered when it asked for it']);
  });

  it('trixie: a machine whose document cannot be rendered waits for it, and boots once it can', async (t) => {
    const booted = boot(t, 'trixie', await unrenderable('healed'));
    for (let waited = 0; (await state('healed')).state !== 'failed' && waited < 60; waited++) await sleep(500);
    await server.call('PATCH', '/instances/healed', { vars: { word: 'x', other: 'y' } });
    assert.deepEqual(await stagesOf(await booted), GOOD);
    assert.equal((await state('healed')).state, 'ready');
  });

  for (const suite of ['bookworm', 'trixie'])
    it(`${suite}: a service that is gone costs the boot seconds`, async (t) => {
      const own = await startServer();
      await own.upload('gone', 'a.sh', '#!/bin/sh\n');
      await own.upload('gone', 'hook.txt', `#cloud-boothook\n#!/bin/sh\ntouch /srv/booted\n`);
      const stub = await own.register('gone', ['gone']);
      const out = boot(t, suite, stub, { RIG_TIMEOUT: '120' });
      const fetched = async () => JSON.parse(await own.call('GET', '/instances/gone/deliveries')).items.length > 0;
      while (!(await fetched())) await sleep(50);
      await own.close();
      assert.deepEqual(await stagesOf(await out), GOOD);
      const lines = (await readFile(join(await out, 'stages.tsv'), 'utf8')).trim().split('\n');
      const seconds = lines.reduce((sum, line) => sum + Number(line.split('\t')[3]), 0);
      t.diagnostic(`${seconds} s in all stages`);
      assert.ok(seconds < 30, `${seconds} s`);
    });
});

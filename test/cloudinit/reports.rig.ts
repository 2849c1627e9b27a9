import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { bootRig, skipWithoutRig } from './rig.ts';
import { type Server, startServer } from './server.ts';

/** The final stage once more, and again: what runs beside a boot ends with the rig, and here it gets a moment. */
const STAGES = 'local net config final final final';

interface Instance {
  status: { state: { state: string; reason: string } };
}

/** Whole boots that report to the running server, and what it makes of what they say. */
describe('a real cloud-init tells how its boot went', { skip: skipWithoutRig(), concurrency: 2 }, () => {
  let server: Server;
  before(async () => {
    server = await startServer();
    await server.upload('good', 'a.sh', '#!/bin/sh\necho it works\n');
    await server.upload('good', 'c.yaml', '#cloud-config\nruncmd: [echo of the operator]\nreporting: {theirs: {type: log}}\n');
    await server.upload('bad', 'b.sh', '#!/bin/sh\necho "no such repo: example.invalid" >&2\nexit 3\n');
    await server.upload('secretive', 's.sh', '#!/bin/sh\n: {{ secrets.token | shell }}\n', '?template=true');
    await server.call('PUT', '/bundles/secretive/secrets/token', 'hunter2');
  });
  after(() => server?.close());

  for (const suite of ['bookworm', 'trixie']) {
    it(`${suite}: a good boot is ready, with its host keys and the ends of its logs`, async (t) => {
      const name = `good-${suite}`;
      await boot(t, suite, await server.register(name, ['good']));
      assert.equal((await stateOf(name)).state, 'ready');
      const timeline = await server.call('GET', `/instances/${name}/timeline?format=text`);
      assert.match(timeline, /SHA256:[A-Za-z0-9+/]{43}/);
      const log = await logOf(name, 'cloud-init-output.log');
      assert.match(log, /\nit works\n/);
      assert.match(log, /\nof the operator\n/);
      assert.doesNotMatch(log, /\/r\//);
      assert.deepEqual(JSON.parse(await logOf(name, 'result.json')).v1.errors, []);
      t.diagnostic(timeline);
    });

    it(`${suite}: a script that fails is told, and what it printed is there to read`, async (t) => {
      const name = `bad-${suite}`;
      await boot(t, suite, await server.register(name, ['good', 'bad']));
      const { state, reason } = await stateOf(name);
      assert.equal(state, 'failed');
      assert.match(reason, /modules-final\/config-scripts-user/);
      assert.match(await logOf(name, 'cloud-init-output.log'), /\nno such repo: example\.invalid\n/);
      t.diagnostic(await server.call('GET', `/instances/${name}/timeline?format=text`));
    });

    it(`${suite}: a later boot, its window closed, goes as if nothing were there to fetch`, async (t) => {
      const name = `again-${suite}`;
      const stub = await server.register(name, ['good']);
      const close = `curl -fsS -X POST -H 'Authorization: Bearer ${server.token}' ${server.url}/api/v1/instances/${name}/close`;
      const out = await boot(t, suite, stub, { RIG_BOOTS: '2', RIG_BETWEEN: close });
      const stages = (await readFile(join(out, 'stages.tsv'), 'utf8')).trim().split('\n');
      assert.ok(
        stages.every((line) => line.split('\t')[2] === '0'),
        stages.join('\n'),
      );
      assert.equal((await stateOf(name)).state, 'ready');
    });

    it(`${suite}: a seed that asks at every boot, its window closed, keeps its host keys`, async (t) => {
      const name = `seed-${suite}`;
      await server.register(name, ['good'], { metaData: { 'instance-id': `i-${name}` } });
      const [, seed = ''] = /s=(http:\S+)/.exec(await server.call('GET', `/instances/${name}/stub?form=nocloud`)) ?? [];
      const close = `curl -fsS -X POST -H 'Authorization: Bearer ${server.token}' ${server.url}/api/v1/instances/${name}/close`;
      const config = `datasource_list: [NoCloud]\ndatasource: {NoCloud: {seedfrom: "${seed}"}}\n`;
      const env = { RIG_DS: 'configdrive', RIG_DMI: '0', RIG_BOOTS: '2', RIG_BETWEEN: close };
      const out = await boot(t, suite, '#cloud-config\n{}\n', env, config);
      const keys = (await readFile(join(out, 'cloud-init-output.log'), 'utf8')).match(
        /Generating public\/private rsa key pair/g,
      );
      assert.equal(keys?.length, 1, 'host keys are made once');
      const timeline = await server.call('GET', `/instances/${name}/timeline?format=text`);
      assert.match(timeline, /late_fetch|after its window/);
      t.diagnostic(timeline);
    });
  }

  it('bookworm: a document that cannot be rendered is a failed boot here, and there', async (t) => {
    const name = 'unrendered';
    const stub = await server.register(name, ['secretive']);
    await server.call('DELETE', '/bundles/secretive/secrets/token?force=true');
    await boot(t, 'bookworm', stub);
    const { state, reason } = await stateOf(name);
    assert.equal(state, 'failed');
    assert.match(reason, /could not be rendered/);
  });

  /** Boots with this user-data; @returns the folder of what came of it. */
  async function boot(
    t: TestContext,
    suite: string,
    userData: string,
    env: Record<string, string> = {},
    config?: string,
  ): Promise<string> {
    const work = await mkdtemp(join(tmpdir(), 'bootbundle-reports-'));
    t.after(() => rm(work, { recursive: true, force: true }));
    await writeFile(join(work, 'user-data'), userData);
    if (config !== undefined) await writeFile(join(work, 'config'), config);
    await bootRig(join(work, 'user-data'), join(work, 'out'), {
      SUITE: suite,
      RIG_STAGES: STAGES,
      RIG_PORTS: String(server.port),
      ...(config !== undefined && { RIG_CFG: join(work, 'config') }),
      ...env,
    });
    // What was posted last may be under way.
    await sleep(300);
    return join(work, 'out');
  }

  async function stateOf(name: string): Promise<Instance['status']['state']> {
    return (JSON.parse(await server.call('GET', `/instances/${name}`)) as Instance).status.state;
  }

  async function logOf(name: string, log: string): Promise<string> {
    return server.call('GET', `/instances/${name}/logs/${log}`);
  }
});

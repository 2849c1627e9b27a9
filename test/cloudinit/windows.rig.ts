import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { bootRig, skipWithoutRig } from './rig.ts';
import { type Server, startServer } from './server.ts';

/** Two boots of one disk, the window shut between them: what a real machine makes of it. */
describe('a second boot after the window was shut', { skip: skipWithoutRig() }, () => {
  let server: Server;
  before(async () => {
    server = await startServer();
    await server.upload('good', 'a.sh', '#!/bin/sh\necho it works\n');
  });
  after(() => server?.close());

  for (const suite of ['bookworm', 'trixie']) {
    it(`${suite}: by the stub, nothing is fetched and nothing fails`, async (t) => {
      const name = `stub-${suite}`;
      const out = await bootTwice(t, suite, name, await server.register(name, ['good']));
      const { items } = JSON.parse(await server.call('GET', `/instances/${name}/deliveries`)) as { items: unknown[] };
      assert.equal(items.length, 1, '#include-once is read from its cache');
      assert.deepEqual(await failedStages(out), []);
    });

    it(`${suite}: by the seed, user-data is empty, and no host key is made anew`, async (t) => {
      const name = `seed-${suite}`;
      await server.register(name, ['good'], { metaData: { 'instance-id': `i-${name}` } });
      const [, seed = ''] = /s=(http:\S+)/.exec(await server.call('GET', `/instances/${name}/stub?form=nocloud`)) ?? [];
      const config = `datasource_list: [NoCloud]\ndatasource: {NoCloud: {seedfrom: "${seed}"}}\n`;
      const out = await bootTwice(t, suite, name, '#cloud-config\n{}\n', config);
      const log = await readFile(join(out, 'cloud-init-output.log'), 'utf8');
      assert.equal(log.match(/Generating public\/private rsa key pair/g)?.length, 1);
      assert.deepEqual(await failedStages(out), []);
      const timeline = await server.call('GET', `/instances/${name}/timeline?format=text`);
      assert.match(timeline, /ALARM late_fetch/);
      t.diagnostic(timeline);
    });
  }

  /** @returns the folder of what came of it */
  async function bootTwice(t: TestContext, suite: string, name: string, userData: string, config?: string): Promise<string> {
    const work = await mkdtemp(join(tmpdir(), 'bootbundle-windows-'));
    t.after(() => rm(work, { recursive: true, force: true }));
    await writeFile(join(work, 'user-data'), userData);
    if (config !== undefined) await writeFile(join(work, 'config'), config);
    const close = `${server.url}/api/v1/instances/${name}/close`;
    await bootRig(join(work, 'user-data'), join(work, 'out'), {
      SUITE: suite,
      RIG_PORTS: String(server.port),
      RIG_BOOTS: '2',
      RIG_BETWEEN: `curl -fsS -X POST -H 'Authorization: Bearer ${server.token}' ${close} >&2`,
      ...(config !== undefined && { RIG_CFG: join(work, 'config'), RIG_DS: 'configdrive', RIG_DMI: '0' }),
    });
    return join(work, 'out');
  }

  async function failedStages(out: string): Promise<string[]> {
    const lines = (await readFile(join(out, 'stages.tsv'), 'utf8')).trim().split('\n');
    assert.equal(lines.length, 8);
    return lines.filter((line) => line.split('\t')[2] !== '0');
  }
});

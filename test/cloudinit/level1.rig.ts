import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Server, startServer } from './server.ts';

/** Whole first boots, four stages, in a throw-away Debian root: cloud-init 22.4 and 25.1 with what Nova would hand them. */
const RIG = process.env.CLOUD_INIT_RIG || fileURLToPath(new URL('../../../shared/rigs/cloud-init/level1.sh', import.meta.url));

function skipWithoutRig(): false | string {
  const tool = (name: string) => ['/usr/sbin', '/sbin', '/usr/bin'].some((folder) => existsSync(join(folder, name)));
  let reason = '';
  if (!existsSync(RIG)) reason = `no rig at ${RIG} (CLOUD_INIT_RIG)`;
  else if (process.getuid?.() !== 0) reason = 'the rig needs root';
  else if (!tool('debootstrap') || !tool('ip')) reason = 'the rig needs the packages debootstrap and iproute2';
  if (reason && process.env.REQUIRE_CLOUD_INIT_RIG === '1') throw new Error(reason);
  return reason || false;
}

const HANDLER = `#part-handler
def list_types():
    return ["text/x-kube-pod"]

def handle_part(data, ctype, filename, payload):
    with open("/root/handled", "a") as log:
        log.write("%s %s %s\\n" % (ctype, filename, len(payload or "")))
`;
const POD = '#kube-pod\nversion: v1beta1\nid: dbserver\n# Grüße\n';
const script = (word: string) => `#!/bin/sh\necho ${word} >> /root/ran\n`;

describe('whole boots of a real cloud-init', { skip: skipWithoutRig(), concurrency: 2 }, () => {
  let server: Server;
  let stub: string;
  let seed: string;
  before(async () => {
    server = await startServer();
    await server.upload('base', 'kube-part-handler.py', HANDLER);
    await server.upload('base', 'base.yaml', '#cloud-config\nhostname: base\nruncmd: [echo base >> /root/runcmd]\n');
    await server.upload('base', 'disable-selinux.sh', script('base'));
    await server.upload('role', 'dbserver.yaml', POD);
    await server.upload(
      'role',
      'role.yaml',
      '#cloud-config\nhostname: role\nruncmd: [echo role >> /root/runcmd]\nwrite_files: [{path: /root/written, content: "Grüße\\n"}]\n',
    );
    await server.upload('role', '10.sh', script('ten'));
    await server.upload('role', '9.sh', script('nine'));
    await server.upload('site', 'site.yaml', '#cloud-config\nhostname: site\nruncmd: [echo site >> /root/runcmd]\n');
    await server.upload('site', 'last.sh', script('last'));
    stub = await server.register('node', ['base', 'role', 'site'], { metaData: { 'instance-id': 'i-of-the-seed' } });
    const line = await server.call('GET', '/instances/node/stub?form=nocloud');
    seed = /s=(http:\S+)/.exec(line)?.[1] ?? '';
  });
  after(() => server?.close());

  for (const suite of ['bookworm', 'trixie']) {
    it(`${suite}: the stub as NoCloud user-data`, () => boot({ SUITE: suite, RIG_DS: 'nocloud' }, stub, 'iid-rig-01'));
    it(`${suite}: the stub on a config drive`, () => boot({ SUITE: suite, RIG_DS: 'configdrive' }, stub, 'iid-rig-01'));
    it(`${suite}: the NoCloud seed over HTTP`, async () => {
      // The rig's config drive is there, but nobody looks for it; so all this machine knows comes from the seed URL.
      const config = `datasource_list: [NoCloud]\ndatasource: {NoCloud: {seedfrom: "${seed}"}}\n`;
      await boot({ SUITE: suite, RIG_DS: 'configdrive', RIG_DMI: '0' }, '#cloud-config\n{}\n', 'i-of-the-seed', config);
    });
  }

  /** One first boot; asserts what every way of handing over must give alike. */
  async function boot(env: Record<string, string>, userData: string, instanceId: string, config?: string): Promise<void> {
    const work = await mkdtemp(join(tmpdir(), 'bootbundle-level1-'));
    try {
      await writeFile(join(work, 'user-data'), userData);
      await writeFile(join(work, 'cfg'), config ?? '{}\n');
      const out = join(work, 'out');
      await promisify(execFile)(RIG, [join(work, 'user-data'), out], {
        env: { ...process.env, ...env, RIG_CFG: join(work, 'cfg'), RIG_PORTS: String(server.port) },
        timeout: 600_000,
        maxBuffer: 1 << 24,
      });
      const read = (name: string) => readFile(join(out, name), 'utf8');

      assert.equal(await read('warnings.txt'), '');
      const stages = (await read('stages.tsv')).trim().split('\n');
      assert.deepEqual(
        stages.map((line) => line.split('\t').slice(1, 3).join(' ')),
        ['local 0', 'net 0', 'config 0', 'final 0'],
      );
      assert.equal((await read('var-lib-cloud/data/instance-id')).trim(), instanceId);

      const calls = (JSON.parse(await read('parts.json')) as { what: string }[]).map(({ what }) => what);
      assert.equal(calls.filter((what) => /part-handler-000.*\(text\/x-kube-pod, \d\d-dbserver\.yaml, /.test(what)).length, 1);
      assert.match(
        await read('upper/root/handled'),
        new RegExp(`^__begin__ None 0\ntext/x-kube-pod \\d\\d-dbserver.yaml ${POD.length}\n__end__ None 0\n$`),
      );

      const executed = JSON.parse(await read('executed.json')) as { command: string; rc: unknown }[];
      assert.deepEqual(
        executed
          .filter(({ command }) => /\/scripts\/\d\d-/.test(command))
          .map(({ command, rc }) => `${command.replace(/^.*\/scripts\/\d\d-/, '')} ${rc}`),
        ['disable-selinux.sh 0', '10.sh 0', '9.sh 0', 'last.sh 0'],
      );
      assert.equal(await read('upper/root/ran'), 'base\nten\nnine\nlast\n');
      assert.equal(await read('upper/root/runcmd'), 'base\nrole\nsite\n');
      assert.equal(await read('upper/root/written'), 'Grüße\n');
      assert.equal((await read('upper/etc/hostname')).trim(), 'site');
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
});

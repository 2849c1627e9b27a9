import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { bootRig, skipWithoutRig } from './rig.ts';
import { type Server, startServer } from './server.ts';

const HANDLER = `#part-handler
def list_types():
    return ["text/x-kube-pod"]

def handle_part(data, ctype, filename, payload):
    with open("/srv/handled", "a") as log:
        log.write("%s %s %s\\n" % (ctype, filename, len(payload or "")))
`;
const POD = '#kube-pod\nversion: v1beta1\nid: dbserver\n# Grüße\n';
const script = (word: string) => `#!/bin/sh\necho ${word} >> /srv/ran\n`;

/** Whole first boots, four stages, in a throw-away Debian root: cloud-init 22.4 and 25.1 with what Nova would hand them. */
describe('whole boots of a real cloud-init', { skip: skipWithoutRig(), concurrency: 2 }, () => {
  let server: Server;
  let stub: string;
  let seed: string;
  before(async () => {
    server = await startServer();
    await server.upload('base', 'kube-part-handler.py', HANDLER);
    await server.upload('base', 'base.yaml', '#cloud-config\nhostname: base\nruncmd: [echo base >> /srv/runcmd]\n');
    await server.upload('base', 'disable-selinux.sh', script('base'));
    await server.upload('role', 'dbserver.yaml', POD);
    await server.upload(
      'role',
      'role.yaml',
      '#cloud-config\nhostname: role\nruncmd: [echo role >> /srv/runcmd]\nwrite_files: [{path: /srv/written, content: "Grüße\\n"}]\n',
    );
    await server.upload('role', '10.sh', script('ten'));
    await server.upload('role', '9.sh', script('nine'));
    await server.upload('site', 'site.yaml', '#cloud-config\nhostname: site\nruncmd: [echo site >> /srv/runcmd]\n');
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
      await bootRig(join(work, 'user-data'), out, { ...env, RIG_CFG: join(work, 'cfg'), RIG_PORTS: String(server.port) });
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
        await read('upper/srv/handled'),
        new RegExp(`^__begin__ None 0\ntext/x-kube-pod \\d\\d-dbserver.yaml ${POD.length}\n__end__ None 0\n$`),
      );

      const executed = JSON.parse(await read('executed.json')) as { command: string; rc: unknown }[];
      assert.deepEqual(
        executed
          .filter(({ command }) => /\/scripts\/\d\d-/.test(command))
          .map(({ command, rc }) => `${command.replace(/^.*\/scripts\/\d\d-/, '')} ${rc}`),
        ['bootbundle-report.sh 0', 'disable-selinux.sh 0', '10.sh 0', '9.sh 0', 'last.sh 0'],
      );
      assert.equal(await read('upper/srv/ran'), 'base\nten\nnine\nlast\n');
      assert.equal(await read('upper/srv/runcmd'), 'base\nrole\nsite\n');
      assert.equal(await read('upper/srv/written'), 'Grüße\n');
      assert.equal((await read('upper/etc/hostname')).trim(), 'site');
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
});

import assert from 'node:assert/strict';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { bootRig, skipWithoutRig } from '../cloudinit/rig.ts';
import { type Server, startServer } from '../cloudinit/server.ts';
import { type Kube, skipWithoutKube, startKube } from './kube.ts';
import { Machine, PYTHON } from './machine.ts';

const POD =
  '#kube-pod\napiVersion: v1\nkind: Pod\nmetadata: {name: SUITE}\n# Grüße ✓\nspec:\n  containers: [{name: db, image: mysql}]\n';
const OLD = '#kube-pod\nid: dbserver\nkind: Pod\napiVersion: v1beta1\n';
/** What only the API server can tell: it computes priorities itself. */
const PRIORITY = 'priority: 5';
const WRONG = `apiVersion: v1\nkind: Pod\nmetadata: {name: wrong}\nspec:\n  ${PRIORITY}\n  containers: [{name: db, image: mysql}]\n`;

/** The running server, a real cloud-init's four stages, then the applier it installed in that root against a real API server. */
describe('from the stub to the pod and back to the timeline', { skip: skipWithoutRig() || skipWithoutKube() }, () => {
  let kube: Kube;
  let server: Server;
  before(async () => {
    kube = await startKube();
    server = await startServer();
    await server.upload('atomic', 'disable-selinux.sh', '#!/bin/sh\necho ran > /srv/ran\n');
  });
  after(async () => {
    await server?.close();
    await kube?.remove();
  });

  for (const suite of ['bookworm', 'trixie'])
    it(`${suite}: a first boot lays the manifests down; the applier applies them; API, folders and timeline agree`, async (t) => {
      const bundle = `db-${suite}`;
      await server.upload(bundle, 'dbserver.yaml', POD.replace('SUITE', suite));
      await server.upload(bundle, 'map.yaml', `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${suite}}\n`);
      await server.upload(bundle, 'old.yaml', OLD);
      await server.upload(bundle, 'wrong.yaml', WRONG);
      const stub = await server.register(suite, ['kube', 'atomic', bundle], { vars: { kube: { enable: ['k3s'] } } });
      const out = await boot(t, suite, stub);
      const upper = join(out, 'upper');
      const pending = join(upper, 'var/lib/bootbundle/manifests/pending');
      const manifests = ['04-dbserver.yaml', '05-map.yaml', '06-old.yaml', '07-wrong.yaml'];

      assert.equal(await readFile(join(out, 'warnings.txt'), 'utf8'), '');
      const stages = (await readFile(join(out, 'stages.tsv'), 'utf8')).trim().split('\n');
      assert.deepEqual(
        stages.map((line) => line.split('\t').slice(1, 3).join(' ')),
        ['local 0', 'net 0', 'config 0', 'final 0'],
      );
      assert.equal(await readFile(join(upper, 'srv/ran'), 'utf8'), 'ran\n');

      assert.deepEqual((await readdir(pending)).sort(), manifests);
      assert.equal(await readFile(join(pending, '04-dbserver.yaml'), 'utf8'), POD.replace('SUITE', suite));
      assert.equal(((await stat(pending)).mode & 0o777).toString(8), '700');
      assert.equal(((await stat(join(pending, '04-dbserver.yaml'))).mode & 0o777).toString(8), '600');
      const calls = (await readFile(join(out, 'calls.jsonl'), 'utf8')).trim().split('\n');
      const systemctl = calls
        .map((line) => (JSON.parse(line) as { argv: string[] }).argv.join(' '))
        .filter((line) => /k3s|bootbundle/.test(line));
      assert.deepEqual(systemctl, [
        'enable k3s',
        'start --no-block k3s',
        'enable bootbundle-apply.path',
        'start --no-block bootbundle-apply.path',
      ]);
      const service = await readFile(join(upper, 'etc/systemd/system/bootbundle-apply.service'), 'utf8');
      assert.match(service, /^ExecStart=\/usr\/bin\/python3 \/var\/lib\/bootbundle\/bootbundle-apply --linger 3$/m);
      assert.doesNotMatch(await readFile(join(upper, 'var/log/bootbundle.log'), 'utf8'), /WARNING|\/r\//);

      // What the service would do now that Kubernetes is up.
      await mkdir(join(upper, 'etc/rancher/k3s'), { recursive: true });
      await writeFile(join(upper, 'etc/rancher/k3s/k3s.yaml'), kube.kubeconfig);
      const machine = new Machine(t);
      machine.env = { BOOTBUNDLE_ROOT: upper };
      machine.program('kubectl', `exec '${kube.kubectl}' "$@"`);
      machine.program('kubecfg', `echo "$*" >> '${machine.root}/kubecfg.calls'`);
      assert.equal((await machine.start(PYTHON, [join(upper, 'var/lib/bootbundle/bootbundle-apply')]).ended).code, 0);

      // The API:
      assert.ok((await kube.get('pod', suite)) && (await kube.get('cm', suite)));
      assert.equal(await kube.get('pod', 'wrong'), null);
      assert.equal(await readFile(machine.path('kubecfg.calls'), 'utf8'), `-c ${join(pending, '06-old.yaml')} create pods\n`);
      // The folders:
      assert.deepEqual(await readdir(pending), []);
      assert.deepEqual((await readdir(join(pending, '../applied'))).sort(), manifests.slice(0, 3));
      assert.deepEqual((await readdir(join(pending, '../failed'))).sort(), ['07-wrong.yaml', '07-wrong.yaml.log']);
      // The timeline:
      const { items } = JSON.parse(await server.call('GET', `/instances/${suite}/timeline`)) as { items: TimelineItem[] };
      assert.deepEqual(
        items.slice(0, 2).map(({ kind }) => kind),
        ['registered', 'fetched'],
      );
      assert.deepEqual(
        items.flatMap(({ manifest }) => (manifest ? [[manifest.file, manifest.status, manifest.client]] : [])),
        [
          ['04-dbserver.yaml', 'applied', 'kubectl'],
          ['05-map.yaml', 'applied', 'kubectl'],
          ['06-old.yaml', 'applied', 'kubecfg'],
          ['07-wrong.yaml', 'failed', 'kubectl'],
        ],
      );
      const text = await server.call('GET', `/instances/${suite}/timeline?format=text`);
      assert.match(text, /manifest 07-wrong\.yaml: failed by kubectl v1\S+, 1 attempt\n {4}.*integer value of priority/);
      t.diagnostic(text);
    });

  it('README’s case for k3s: what it prints is what a machine makes of its manifest, and of a wrong one', async (t) => {
    const readme = await readFile(new URL('../../README.md', import.meta.url), 'utf8');
    const manifest = /db-k3s\/dbserver\.yaml <<'EOF'\n(.*?)^EOF$/ms.exec(readme)?.[1] ?? '';
    const settings = /"vars": (\{"kube".*\})\}'/.exec(readme)?.[1] ?? '';
    const [, right = '', wrong = '', pods = ''] =
      /```text\n(\S+Z {2}registered by admin\n.*?)\n\n(\S+Z {2}registered by admin\n.*?)\n\n(NAME .*?)\n```/s.exec(readme) ??
      [];
    assert.ok(manifest && settings && right && wrong && pods);
    const run = async (instance: string, text: string) => {
      const bundle = instance === 'my-k3s-server' ? 'db-k3s' : 'db-wrong';
      await server.upload(bundle, 'dbserver.yaml', text);
      const out = await boot(t, 'trixie', await server.register(instance, ['kube', bundle], { vars: JSON.parse(settings) }));
      const machine = new Machine(t);
      machine.env = { BOOTBUNDLE_ROOT: join(out, 'upper') };
      machine.program('kubectl', `exec '${kube.kubectl}' "$@"`);
      machine.write('admin.conf', kube.kubeconfig);
      machine.env.KUBECONFIG = machine.path('admin.conf');
      assert.equal((await machine.start(PYTHON, [join(out, 'upper/var/lib/bootbundle/bootbundle-apply')]).ended).code, 0);
      const got = await machine.start(machine.path('bin/kubectl'), ['get', 'pods', '--namespace=default', 'dbserver']).ended;
      const timeline = await server.call('GET', `/instances/${instance}/timeline?format=text`);
      return { timeline: timeline.replaceAll(join(out, 'upper'), ''), pods: got.stdout };
    };
    const worked = await run('my-k3s-server', manifest);
    const failed = await run(
      'my-other-server',
      manifest.replace('name: dbserver', 'name: other').replace('containers:', `${PRIORITY}\n  containers:`),
    );
    t.diagnostic([worked.timeline, failed.timeline, worked.pods].join('\n'));
    // Times, sizes, digests, keys, versions and ages are of one run, and so is the order of what comes at one moment.
    const plain = (text: string) =>
      text
        .trim()
        .replace(/^\d{4}-\S+Z/gm, 'TIME')
        .replace(/\(\d+ bytes(?:, [0-9a-f]{12})?\)/g, '(SIZE)')
        .replace(/SHA256:[A-Za-z0-9+/]{43}/g, 'SHA256:KEY')
        .replace(/after \d+\.\d s/g, 'after SECONDS')
        .replace(/kubectl v\S+(?=,)/g, 'kubectl VERSION')
        .replace(/ +\d+s$/gm, ' AGE')
        .split('\n')
        .sort()
        .join('\n');
    assert.equal(plain(worked.timeline), plain(right));
    assert.equal(plain(failed.timeline), plain(wrong));
    assert.equal(plain(worked.pods), plain(pods));
  });

  /** Boots with this stub as user-data; returns the folder of what came of it. */
  async function boot(t: TestContext, suite: string, stub: string): Promise<string> {
    const machine = new Machine(t);
    await writeFile(machine.path('user-data'), stub);
    const out = machine.path('out');
    t.after(() => rm(out, { recursive: true, force: true }));
    await bootRig(machine.path('user-data'), out, { SUITE: suite });
    return out;
  }
});

interface TimelineItem {
  kind: string;
  manifest?: { file: string; status: string; client: string };
}

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { kubePartHandler } from '../../src/guest/handler.ts';
import { type Kube, skipWithoutKube, startKube } from './kube.ts';
import { Machine, PYTHON, startReports } from './machine.ts';

/** A real cloud-init's four stages run the handler; then the applier it installed runs in that root against a real API server. */
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

const POD =
  '#kube-pod\napiVersion: v1\nkind: Pod\nmetadata: {name: SUITE}\n# Grüße ✓\nspec:\n  containers: [{name: db, image: mysql}]\n';
const OLD = '#kube-pod\nid: dbserver\nversion: v1beta1\n';

describe('a first boot with the kube handler', { skip: skipWithoutRig() || skipWithoutKube() }, () => {
  let kube: Kube;
  before(async () => {
    kube = await startKube();
  });
  after(() => kube?.remove());

  for (const suite of ['bookworm', 'trixie'])
    it(`${suite}: the manifests wait in order, the units are enabled and started; the applier applies them`, async (t) => {
      const reports = await startReports(t);
      const out = await boot(t, suite, [
        ['00-kube-part-handler.py', 'text/part-handler', kubePartHandler()],
        [
          '01-config',
          'text/x-bootbundle-config',
          JSON.stringify({ instance: { name: 'n', id: 'i-1' }, kube: { enable: ['k3s'] }, report: reports.url }),
        ],
        ['02-dbserver.yaml', 'text/x-kube-pod', POD.replace('SUITE', suite)],
        ['03-old.yaml', 'text/x-kube-pod', OLD],
        ['04-map.yaml', 'text/x-kube-manifest', `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${suite}}\n`],
        ['05-disable-selinux.sh', 'text/x-shellscript', '#!/bin/sh\necho ran > /root/ran\n'],
      ]);
      const upper = join(out, 'upper');
      const pending = join(upper, 'var/lib/bootbundle/manifests/pending');

      assert.equal(await readFile(join(out, 'warnings.txt'), 'utf8'), '');
      const stages = (await readFile(join(out, 'stages.tsv'), 'utf8'))
        .trim()
        .split('\n')
        .map((line) => line.split('\t'));
      assert.deepEqual(
        stages.map(([, name, code]) => `${name} ${code}`),
        ['local 0', 'net 0', 'config 0', 'final 0'],
      );
      assert.equal(await readFile(join(upper, 'root/ran'), 'utf8'), 'ran\n');

      assert.deepEqual((await readdir(pending)).sort(), ['02-dbserver.yaml', '03-old.yaml', '04-map.yaml']);
      assert.equal(await readFile(join(pending, '02-dbserver.yaml'), 'utf8'), POD.replace('SUITE', suite));
      assert.equal(((await stat(pending)).mode & 0o777).toString(8), '700');
      assert.equal(((await stat(join(pending, '02-dbserver.yaml'))).mode & 0o777).toString(8), '600');
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
      assert.doesNotMatch(await readFile(join(upper, 'var/log/bootbundle.log'), 'utf8'), /CAPABILITY|WARNING/);
      assert.deepEqual(reports.all, []);

      // What the service would do now that Kubernetes is up.
      await mkdir(join(upper, 'etc/rancher/k3s'), { recursive: true });
      await writeFile(join(upper, 'etc/rancher/k3s/k3s.yaml'), kube.kubeconfig);
      const machine = new Machine(t);
      machine.env = { BOOTBUNDLE_ROOT: upper };
      machine.program('kubectl', `exec '${kube.kubectl}' "$@"`);
      machine.program('kubecfg', `echo "$*" >> '${machine.root}/kubecfg.calls'`);
      assert.equal((await machine.start(PYTHON, [join(upper, 'var/lib/bootbundle/bootbundle-apply')]).ended).code, 0);
      assert.deepEqual(reports.results(), ['02-dbserver.yaml applied', '03-old.yaml applied', '04-map.yaml applied']);
      assert.ok((await kube.get('pod', suite)) && (await kube.get('cm', suite)));
      assert.equal(await readFile(machine.path('kubecfg.calls'), 'utf8'), `-c ${join(pending, '03-old.yaml')} create pods\n`);
      assert.deepEqual(await readdir(pending), []);
    });

  /** Boots with a document of these parts; returns the folder of what came of it. */
  async function boot(t: TestContext, suite: string, parts: [filename: string, type: string, body: string][]): Promise<string> {
    const machine = new Machine(t);
    const document = [
      'Content-Type: multipart/mixed; boundary="=b="\nMIME-Version: 1.0\n',
      ...parts.map(([filename, type, body]) => {
        const head = `--=b=\nContent-Type: ${type}; charset="utf-8"\nMIME-Version: 1.0\nContent-Disposition: attachment; filename="${filename}"\n`;
        const base64 = Buffer.from(body).toString('base64').replace(/.{76}/g, '$&\n');
        return `${head}Content-Transfer-Encoding: base64\n\n${base64}`;
      }),
      '--=b=--\n',
    ].join('\n');
    await writeFile(machine.path('user-data'), document);
    const out = machine.path('out');
    t.after(() => rm(out, { recursive: true, force: true }));
    await promisify(execFile)(RIG, [machine.path('user-data'), out], {
      env: { ...process.env, SUITE: suite },
      timeout: 600_000,
      maxBuffer: 1 << 24,
    });
    return out;
  }
});

import assert from 'node:assert/strict';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Server, startServer } from '../cloudinit/server.ts';
import { type Kube, skipWithoutKube, startKube } from './kube.ts';
import { Machine, type Report, type Reports, startReports, until } from './machine.ts';

/** The applier with a real client against a real API server: what lies in the API, in the folders and in the service's timeline must agree. */
describe('a real Kubernetes API', { skip: skipWithoutKube() }, () => {
  let kube: Kube;
  let server: Server;
  let machines = 0;
  before(async () => {
    kube = await startKube();
    server = await startServer();
  });
  after(async () => {
    await server?.close();
    await kube?.remove();
  });

  /** A machine of this cluster, registered. When its test ends, the service's timeline must say what it reported, each result once. */
  async function node(
    t: TestContext,
    kubeSettings: object = { patience: 30 },
  ): Promise<{ machine: Machine; reports: Reports }> {
    const name = `node-${++machines}`;
    const stub = await server.register(name, ['kube']);
    const document = await (await fetch(stub.split('\n')[1] ?? '')).text();
    const [, service] = /^\{"instance".*"report":"([^"]+)"/m.exec(document) ?? [];
    assert.ok(service);
    const reports = await startReports(t, service);
    t.after(async () => {
      const { items } = JSON.parse(await server.call('GET', `/instances/${name}/timeline?limit=1000`)) as { items: Item[] };
      const told = items.flatMap(({ manifest }) => (manifest ? [summary(manifest)] : []));
      // A run that is killed says its last result again, under the same id: the first one stays.
      const sent = new Map<string, ReturnType<typeof summary>>();
      for (const report of reports.all) if (!sent.has(report.id)) sent.set(report.id, summary(report));
      assert.ok(sent.size > 0);
      assert.deepEqual(told, [...sent.values()]);
    });
    const machine = new Machine(t);
    machine.write('etc/rancher/k3s/k3s.yaml', kube.kubeconfig);
    machine.program('kubectl', `exec '${kube.kubectl}' "$@"`);
    machine.config({ kube: kubeSettings, report: reports.url });
    return { machine, reports };
  }

  const pod = (name: string, more = '') =>
    `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}${more}}\nspec:\n  containers: [{name: db, image: mysql}]\n`;
  const configMap = (name: string, more = '') =>
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ${name}${more}}\ndata: {a: "${name}"}\n`;
  const CRD = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, required: [size], properties: {size: {type: integer}}}}}}}]
`;
  const widget = (name: string, size: unknown = 3) =>
    `apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: ${name}}\nspec: {size: ${size}}\n`;

  it('Pod, Service, ReplicationController and several documents in one file', async (t) => {
    const { machine, reports } = await node(t);
    machine.drop({
      '02-pod.yaml': pod('plain'),
      '03-service.yaml':
        'apiVersion: v1\nkind: Service\nmetadata: {name: plain}\nspec: {selector: {a: b}, ports: [{port: 80}]}\n',
      '04-rc.yaml':
        'apiVersion: v1\nkind: ReplicationController\nmetadata: {name: plain}\nspec: {replicas: 2, selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: d}]}}}\n',
      '05-several.yaml': `${configMap('one')}---\n${configMap('two')}---\n${pod('three')}`,
      '06.json': JSON.stringify({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'json' }, data: { a: 'json' } }),
    });
    assert.equal((await machine.apply().ended).code, 0);
    const names = ['02-pod.yaml', '03-service.yaml', '04-rc.yaml', '05-several.yaml', '06.json'];
    assert.deepEqual(machine.folders(), { pending: [], applied: names, failed: [] });
    assert.deepEqual(
      reports.results(),
      names.map((name) => `${name} applied`),
    );
    assert.match(reports.all[0]?.output ?? '', /^pod\/plain created$/);
    assert.equal(reports.all[0]?.client, 'kubectl');
    assert.match(reports.all[0]?.clientVersion ?? '', /^v1\.\d\d/);
    for (const [kind, name] of [
      ['pod', 'plain'],
      ['service', 'plain'],
      ['rc', 'plain'],
      ['cm', 'one'],
      ['cm', 'two'],
      ['pod', 'three'],
      ['cm', 'json'],
    ] as const)
      assert.ok(await kube.get(kind, name), `${kind} ${name}`);
  });

  it('a custom resource before its definition, in files and in one file', async (t) => {
    const { machine, reports } = await node(t);
    machine.drop({
      '02-widget.yaml': widget('first'),
      '03-crd.yaml': CRD,
      '04-widget.yaml': `${widget('second')}---\n${configMap('beside')}`,
    });
    await machine.apply().ended;
    assert.deepEqual(machine.folders(), {
      pending: [],
      applied: ['02-widget.yaml', '03-crd.yaml', '04-widget.yaml'],
      failed: [],
    });
    const waited = reports.all.find(({ status }) => status === 'retrying');
    assert.equal(waited?.file, '02-widget.yaml');
    assert.match(waited?.output ?? '', /no matches for kind "Widget"/);
    assert.deepEqual((await kube.get('widgets', 'first'))?.spec, { size: 3 });
    assert.ok((await kube.get('widgets', 'second')) && (await kube.get('cm', 'beside')));
  });

  it('what lives in a namespace before the namespace', async (t) => {
    const { machine, reports } = await node(t);
    machine.drop({
      '02-pod.yaml': pod('tenant', ', namespace: late'),
      '03-ns.yaml': 'apiVersion: v1\nkind: Namespace\nmetadata: {name: late}\n',
    });
    await machine.apply().ended;
    assert.deepEqual(machine.folders().applied, ['02-pod.yaml', '03-ns.yaml']);
    assert.ok(await kube.get('pod', 'tenant', 'late'));
    assert.deepEqual(reports.results(), ['03-ns.yaml applied', '02-pod.yaml applied']);
    assert.equal(reports.all.findLast(({ file }) => file === '02-pod.yaml')?.attempts, 2);
  });

  it('a misspelt field, a bad name, a wrong type, no YAML, nothing at all: failed at once, with the reason; the others are applied', async (t) => {
    const { machine, reports } = await node(t, { patience: 600 });
    const wrong = {
      '02-field.yaml': pod('misspelt').replace('containers', 'containrs'),
      '03-name.yaml': pod('Bad_Name'),
      '04-type.yaml': pod('typed').replace('image: mysql', 'image: mysql, ports: [{containerPort: eighty}]'),
      '05-yaml.yaml': 'a: b: c\n',
      '06-empty.yaml': '# nothing\n',
      '07-version.yaml': 'kind: Pod\nmetadata: {name: versionless}\n',
      '08-nameless.yaml': 'apiVersion: v1\nkind: Pod\nspec: {containers: [{name: a, image: b}]}\n',
      '09-widget.yaml': widget('wide', 'wide'),
    };
    machine.drop({ ...wrong, '10-good.yaml': configMap('good') });
    await machine.apply().ended;
    assert.deepEqual(machine.folders(), {
      pending: [],
      applied: ['10-good.yaml'],
      failed: Object.keys(wrong).flatMap((name) => [name, `${name}.log`]),
    });
    assert.deepEqual(reports.results(), [...Object.keys(wrong).map((name) => `${name} failed`), '10-good.yaml applied']);
    assert.ok(reports.all.every(({ attempts }) => attempts === 1));
    for (const [name, pattern] of [
      ['02-field.yaml', /unknown field "(spec\.)?containrs"/],
      ['03-name.yaml', /Bad_Name.*RFC 1123/],
      ['05-yaml.yaml', /mapping values/],
    ] as const) {
      assert.match(machine.read(`manifests/failed/${name}.log`), pattern);
      assert.match(reports.all.find(({ file }) => file === name)?.output ?? '', pattern);
    }
    assert.equal(await kube.get('pod', 'misspelt'), null);
    assert.ok(await kube.get('cm', 'good'));
  });

  it('an object that exists already: the same again changes nothing, another is changed, one that cannot be is refused', async (t) => {
    const { machine, reports } = await node(t);
    machine.drop({ a: pod('twice'), b: configMap('changing') });
    await machine.apply().ended;
    const first = await kube.get('pod', 'twice');
    machine.drop({ a: pod('twice'), b: configMap('changing', ', labels: {is: changed}') });
    await machine.apply().ended;
    assert.deepEqual(await kube.get('pod', 'twice'), first);
    assert.equal((await kube.get('cm', 'changing'))?.metadata.labels?.is, 'changed');
    assert.equal(reports.all[2]?.output, 'pod/twice unchanged');
    machine.drop({ a: pod('twice').replace('name: db', 'name: other') });
    await machine.apply().ended;
    assert.deepEqual(reports.results().slice(-1), ['a failed']);
    assert.match(reports.all.at(-1)?.output ?? '', /pod updates may not change fields/);
    assert.doesNotMatch(reports.all.at(-1)?.output ?? '', /core\.PodSpec/);
    assert.equal((await kube.get('pod', 'twice'))?.metadata.uid, first?.metadata.uid);
  });

  it('several documents of which one is wrong: the others are applied, also what waits for another file, then it fails', async (t) => {
    const { machine, reports } = await node(t, { patience: 600 });
    machine.drop({
      '02-mixed.yaml': `${configMap('right')}---\n${configMap('Wrong_')}---\n${configMap('homeless', ', namespace: later')}`,
      '03-ns.yaml': 'apiVersion: v1\nkind: Namespace\nmetadata: {name: later}\n',
    });
    await machine.apply().ended;
    assert.deepEqual(machine.folders(), {
      pending: [],
      applied: ['03-ns.yaml'],
      failed: ['02-mixed.yaml', '02-mixed.yaml.log'],
    });
    assert.ok((await kube.get('cm', 'right')) && (await kube.get('cm', 'homeless', 'later')));
    assert.match(reports.all.at(-1)?.output ?? '', /Wrong_/);
  });

  it('a user without the right fails at once; a quota is waited for to the end of patience', async (t) => {
    const { machine, reports } = await node(t, { patience: 4 });
    machine.write('etc/rancher/k3s/k3s.yaml', kube.kubeconfig.replace('user: {token:', 'user: {as: joe, token:'));
    machine.drop({ a: configMap('secretive') });
    await machine.apply().ended;
    assert.deepEqual(reports.results(), ['a failed']);
    assert.equal(reports.all[0]?.attempts, 1);
    assert.match(reports.all[0]?.output ?? '', /User "joe" cannot/);
    machine.write('etc/rancher/k3s/k3s.yaml', kube.kubeconfig);
    const quota = {
      apiVersion: 'v1',
      kind: 'ResourceQuota',
      metadata: { name: 'q', namespace: 'full' },
      spec: { hard: { pods: '0' } },
    };
    machine.drop({ b: `apiVersion: v1\nkind: Namespace\nmetadata: {name: full}\n---\n${JSON.stringify(quota)}\n` });
    await machine.apply().ended;
    // No controller runs here to fill in the quota's status, by which the API server judges.
    machine.env.KUBECONFIG = machine.path('etc/rancher/k3s/k3s.yaml');
    machine.write('quota.json', JSON.stringify({ ...quota, status: { hard: { pods: '0' }, used: { pods: '0' } } }));
    const url = '/api/v1/namespaces/full/resourcequotas/q/status';
    const words = ['replace', '--raw', url, '-f', machine.path('quota.json')];
    assert.equal((await machine.start(machine.path('bin/kubectl'), words).ended).code, 0);
    machine.drop({ c: pod('one-too-many', ', namespace: full') });
    await machine.apply().ended;
    const last = reports.all.at(-1);
    assert.match(last?.output ?? '', /exceeded quota: q.*\ngiven up after 4 seconds$/s);
    assert.ok(last && last.attempts >= 3 && last.status === 'failed');
  });

  it('credentials that are missing, then wrong, then right', async (t) => {
    const { machine, reports } = await node(t, { patience: 60 });
    machine.write('etc/rancher/k3s/k3s.yaml', '');
    machine.drop({ a: configMap('patient') });
    const { ended } = machine.apply();
    await until(() => /not yet: there are no credentials yet/.test(machine.log()));
    machine.write('etc/rancher/k3s/k3s.yaml', kube.kubeconfig.replace('administrator', 'somebody'));
    await until(() => /not yet: .*(provide credentials|Unauthorized)/.test(machine.log()), 20_000);
    machine.write('etc/rancher/k3s/k3s.yaml', kube.kubeconfig);
    await ended;
    assert.deepEqual(reports.results(), ['a applied']);
    assert.ok(await kube.get('cm', 'patient'));
  });

  it('the applier killed ten times at random points', async (t) => {
    const { machine, reports } = await node(t);
    const names = Array.from({ length: 40 }, (_, i) => `k-${10 + i}`);
    machine.drop(Object.fromEntries(names.map((name) => [name, configMap(name)])));
    for (let i = 0; i < 10; i++) {
      const { child, ended } = machine.apply();
      await sleep(150 + Math.random() * 500);
      child.kill('SIGKILL');
      await ended;
    }
    assert.equal((await machine.apply().ended).code, 0);
    assert.deepEqual(machine.folders(), { pending: [], applied: names, failed: [] });
    for (const name of names) assert.deepEqual((await kube.get('cm', name))?.data, { a: name });
    assert.equal(new Set(reports.all.map(({ id }) => id)).size, names.length);
  });

  it('the API server killed half-way, and back', async (t) => {
    const { machine, reports } = await node(t, { patience: 120 });
    const names = Array.from({ length: 20 }, (_, i) => `h-${10 + i}`);
    machine.drop(Object.fromEntries(names.map((name) => [name, configMap(name)])));
    const { ended } = machine.apply();
    await until(() => (machine.folders().applied?.length ?? 0) >= 5, 30_000);
    const again = await kube.killApi();
    await until(() => machine.log().includes('not yet:'));
    again();
    await ended;
    assert.deepEqual(machine.folders(), { pending: [], applied: names, failed: [] });
    for (const name of names) assert.ok(await kube.get('cm', name), name);
    assert.deepEqual(
      reports.results(),
      names.map((name) => `${name} applied`),
    );
  });

  it('the API server down at first, and up 20 s later', async (t) => {
    const { machine, reports } = await node(t, { patience: 120 });
    await kube.stop();
    machine.drop({ a: pod('early'), b: configMap('early') });
    const { ended } = machine.apply();
    await sleep(20_000);
    assert.deepEqual(machine.folders().pending, ['a', 'b']);
    await kube.start();
    await ended;
    assert.deepEqual(machine.folders(), { pending: [], applied: ['a', 'b'], failed: [] });
    assert.ok((await kube.get('pod', 'early')) && (await kube.get('cm', 'early')));
    assert.equal(reports.all.filter(({ status }) => status === 'retrying').length, 1);
    assert.deepEqual(reports.results(), ['a applied', 'b applied']);
  });
});

interface Item {
  manifest?: Report;
}

/** What must arrive as it was sent. */
function summary({ id, file, sha256, status, attempts, client = '', clientVersion = '', output }: Report) {
  return { id, file, sha256, status, attempts, client, clientVersion, output };
}

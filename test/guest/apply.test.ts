import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { APPLIER, Machine, PYTHON, run, startReports, until } from './machine.ts';

const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n';
const sha = (text: string) => createHash('sha256').update(text).digest('hex');

/** Calls one function of the applier for each list of arguments. */
async function ask(name: string, calls: unknown[][]): Promise<unknown[]> {
  const script = `
import json, sys
source = {'__name__': 'bootbundle_apply'}
with open(sys.argv[1]) as stream: exec(compile(stream.read(), 'bootbundle-apply', 'exec'), source)
print(json.dumps([source[sys.argv[2]](*call) for call in json.loads(sys.argv[3])]))`;
  const ended = await run(PYTHON, ['-c', script, APPLIER, name, JSON.stringify(calls)]);
  assert.equal(ended.stderr, '');
  return JSON.parse(ended.stdout);
}

/** A machine with a kubectl of a few lines; `$2` is `-f` and `$3` the file. */
function withKubectl(t: TestContext, apply: string, config: object = {}): Machine {
  const machine = new Machine(t);
  machine.write('etc/kubernetes/admin.conf', 'apiVersion: v1\n');
  machine.config({ kube: { patience: 3 }, ...config });
  machine.program(
    'kubectl',
    `echo "$KUBECONFIG $*" >> '${machine.root}/kubectl.calls'
case $1 in
version) echo '{"clientVersion": {"gitVersion": "v1.30.1"}}';;
apply) name=\${3##*/}
${apply}
;; esac`,
  );
  return machine;
}
const calls = (machine: Machine, name: string) =>
  existsSync(machine.path(`${name}.calls`))
    ? readFileSync(machine.path(`${name}.calls`), 'utf8')
        .trim()
        .split('\n')
    : [];

describe('what a client said', { concurrency: 4 }, () => {
  // What kubectl 1.32 said to the API server of the rig, and what API servers are known to answer.
  const passing = [
    'error: error validating "x": error validating data: failed to download openapi: Get "https://127.0.0.1:1/openapi/v2?timeout=32s": dial tcp 127.0.0.1:1: connect: connection refused; if you choose to ignore these errors, turn validation off with --validate=false',
    'error: error validating "x": error validating data: failed to download openapi: the server has asked for the client to provide credentials; if you choose',
    'error: error validating "x": error validating data: failed to download openapi: Get "https://h": tls: failed to verify certificate: x509: certificate signed by unknown authority; if',
    'error: resource mapping not found for name: "w" namespace: "" from "x": no matches for kind "Widget" in version "example.com/v1"\nensure CRDs are installed first',
    'Error from server (NotFound): error when creating "x": namespaces "nowhere" not found',
    'Error from server (Forbidden): error when creating "x": pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0',
    'Error from server (Forbidden): error when creating "x": pods "p" is forbidden: unable to create new content in namespace t because it is being terminated',
    'Error from server (Forbidden): error when creating "x": pods "p" is forbidden: error looking up service account default/default: serviceaccount "default" not found',
    'Error from server (Forbidden): error when creating "x": pods "p" is forbidden: not yet ready to handle request',
    'Error from server (Forbidden): error when retrieving current configuration of:\nResource: "/v1, Resource=pods"\nfrom server for: "x": pods "p" is forbidden: User "kubernetes-admin" cannot get resource "pods" in API group "" in the namespace "default"',
    'Error from server (InternalError): error when creating "x": Internal error occurred: failed calling webhook "w.example.com": Post "https://127.0.0.1:1/x?timeout=10s": dial tcp 127.0.0.1:1: connect: connection refused',
    'Error from server (ServiceUnavailable): the server is currently unable to handle the request',
    'Unable to connect to the server: EOF',
    'The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?',
    'error: You must be logged in to the server (Unauthorized)',
    'error: error loading config file "k": yaml: mapping values are not allowed in this context',
    'error: unable to read certificate-authority /ca.crt for t due to open /ca.crt: no such file or directory',
    'error: something nobody has seen before',
    '',
    // One document is wrong, another still waits: not before that one is applied.
    'resource mapping not found for name: "w" namespace: "" from "x": no matches for kind "Widget" in version "example.com/v1"\nensure CRDs are installed first\nError from server (Invalid): error when creating "x": ConfigMap "Bad_" is invalid: metadata.name: Invalid value: "Bad_"',
  ];
  const staying = [
    'error: error validating "x": error validating data: [ValidationError(Pod.spec): unknown field "containrs" in io.k8s.api.core.v1.PodSpec, ValidationError(Pod.spec): missing required field "containers" in io.k8s.api.core.v1.PodSpec]; if you choose',
    'error: error validating "x": error validating data: ValidationError(ConfigMap): unknown field "bogus" in io.k8s.api.core.v1.ConfigMap; if',
    'error: error validating "x": error validating data: apiVersion not set; if you choose',
    'error: error validating "x": error validating data: [apiVersion not set, kind not set]; if you choose',
    'error: error validating "x": error validating data: invalid object to validate; if you choose',
    'Error from server (BadRequest): error when creating "x": Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.containrs"',
    'error: error parsing x: error converting YAML to JSON: yaml: mapping values are not allowed in this context',
    'error: no objects passed to apply',
    'The Pod "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain must consist of',
    'The Pod "dbserver" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`\n  core.PodSpec{\n- \tName: "a",\n',
    'The request is invalid: patch: Invalid value: "map[spec:map[]]": cannot convert int64 to string',
    'W0102 10:00:00.000000    1 warnings.go:70] x is deprecated\nWarning: y\nThe ConfigMap "big" is invalid: metadata.annotations: Too long',
    'Error from server (Forbidden): error when retrieving current configuration of:\nResource: "/v1, Resource=pods", GroupVersionKind: "/v1, Kind=Pod"\nName: "dbserver", Namespace: "default"\nfrom server for: "x": pods "dbserver" is forbidden: User "joe" cannot get resource "pods" in API group "" in the namespace "default"',
    'Error from server: error when creating "x": admission webhook "policy.example.com" denied the request: no',
    'Error from server (RequestEntityTooLarge): error when creating "x": Request entity too large: limit is 3145728',
    'error: from w-: cannot use generate name with apply',
    'error: error when retrieving current configuration of:\nResource: "/v1, Resource=pods"\nfrom server for: "x": resource name may not be empty',
    'Error from server (Invalid): error when creating "x": A "b" is invalid: c\nError from server (Forbidden): error when creating "x": d "e" is forbidden: User "f" cannot create resource "d"',
  ];
  it('what passes is tried again, and so is what is not known', async () => {
    const answers = await ask(
      'stays',
      passing.map((text) => [text]),
    );
    for (const [i, text] of passing.entries()) assert.equal(answers[i], false, text);
  });
  it('what stays is not', async () => {
    const answers = await ask(
      'stays',
      staying.map((text) => [text]),
    );
    for (const [i, text] of staying.entries()) assert.equal(answers[i], true, text);
  });

  it('what is shown of it quotes no manifest and no control characters, and is its end', async () => {
    const secret = 'hunter2';
    const [diff, patch, long, odd] = (await ask('presentable', [
      [`The Pod "x" is invalid: spec: Forbidden: no\n  core.PodSpec{\n- \tValue: "${secret}",\n+ \tValue: "y",\n  }\n`],
      [`The request is invalid: patch: Invalid value: "map[data:map[password:${secret}]]": cannot convert`],
      [`${'\u00e9'.repeat(5000)}end`],
      ['a\u0000\u001b[31mb\ud800'],
    ])) as string[];
    assert.equal(diff, 'The Pod "x" is invalid: spec: Forbidden: no\n(...)');
    assert.equal(patch, 'The request is invalid: patch: Invalid value: (...)');
    assert.ok(long && Buffer.byteLength(long) <= 4096 && long.endsWith('\u00e9end') && long.isWellFormed());
    assert.equal(odd, 'a??[31mb?');
  });
});

describe('which client a document is for', { concurrency: 4 }, () => {
  it('tells the v1beta1 shape, in YAML and JSON, by its top-level keys', async () => {
    const pod = 'text/x-kube-pod';
    const cases: [string, string | null, string | null][] = [
      ['id: dbserver\nkind: Pod\napiVersion: v1beta1\ndesiredState: {}\n', null, 'pods'],
      ['#kube-pod\nversion: v1beta1\nid: dbserver\n', pod, 'pods'],
      ['id: x\n', 'text/x-kube-service', 'services'],
      ['id: x\n', 'text/x-kube-replica', 'replicationControllers'],
      ['id: x\nkind: Service\n', pod, 'services'],
      ['id: x\n', 'text/x-kube-manifest', ''],
      ['id: x\nkind: Widget\n', pod, ''],
      [
        '---\n"apiVersion": "v1beta1" # old\n"kind": "ReplicationController"\n---\napiVersion: v1\n',
        null,
        'replicationControllers',
      ],
      ['{"id": "x", "kind": "Pod", "apiVersion": "v1beta2"}', null, 'pods'],
      [POD, pod, null],
      ['apiVersion: example.com/v1beta1\nkind: Widget\nid: x\n', null, null],
      ['apiVersion: v1\nkind: ConfigMap\ndata:\n  id: x\n', null, null],
      ['apiVersion: v1\nkind: Pod\nid: x\n', pod, null],
      ['{"apiVersion": "v1", "kind": "Pod"}', null, null],
      ['', null, null],
      ['[1]', null, null],
    ];
    const answers = await ask(
      'old_resource',
      cases.map(([text, type]) => [text, type]),
    );
    for (const [i, [text, , expected]] of cases.entries()) assert.equal(answers[i], expected, text);
  });

  it('kubecfg creates what is in the v1beta1 shape: no kubectl, no credentials needed', async (t) => {
    const reports = await startReports(t);
    const machine = new Machine(t);
    machine.config({ report: reports.url });
    machine.program(
      'kubecfg',
      `echo "$*" >> '${machine.root}/kubecfg.calls'; case "$*" in *rc*) echo 'replicationController "rc" already exists'; exit 255;; esac`,
    );
    machine.drop({
      '02-pod.yaml': 'id: a\nkind: Pod\napiVersion: v1beta1\n',
      '03-svc.yaml': 'id: b\n',
      '04-rc.yaml': 'id: rc\nkind: ReplicationController\n',
    });
    machine.write('var/lib/bootbundle/manifests/types/03-svc.yaml', 'text/x-kube-service');
    assert.equal((await machine.apply().ended).code, 0);
    const file = (name: string) => machine.at('manifests/pending', name);
    assert.deepEqual(calls(machine, 'kubecfg'), [
      `-c ${file('02-pod.yaml')} create pods`,
      `-c ${file('03-svc.yaml')} create services`,
      `-c ${file('04-rc.yaml')} create replicationControllers`,
    ]);
    assert.deepEqual(machine.folders().applied, ['02-pod.yaml', '03-svc.yaml', '04-rc.yaml']);
    assert.deepEqual(reports.results(), ['02-pod.yaml applied', '03-svc.yaml applied', '04-rc.yaml applied']);
    assert.equal(reports.all[0]?.client, 'kubecfg');
  });

  it('kubecfg: what it cannot parse fails at once, a server that is down is waited for', async (t) => {
    const machine = new Machine(t);
    machine.config({ kube: { patience: 2 } });
    machine.program(
      'kubecfg',
      `case "$*" in
*bad*) echo "F1121 10:00:00.000000 1 kubecfg.go:120] Error parsing $2 as an object for pods: yaml: line 1" >&2; exit 255;;
*later*) [ -e '${machine.root}/up' ] || { touch '${machine.root}/up'; echo "F1121 10:00:00.0 1 kubecfg.go:300] Got request error: Post http://localhost:8080/api/v1beta1/pods: dial tcp 127.0.0.1:8080: connection refused" >&2; exit 255; };;
esac`,
    );
    machine.drop({ 'bad.yaml': 'id: a\nkind: Pod\n', 'later.yaml': 'id: b\nkind: Pod\n', 'unknown.yaml': 'id: c\n' });
    await machine.apply().ended;
    assert.deepEqual(machine.folders(), {
      pending: [],
      applied: ['later.yaml'],
      failed: ['bad.yaml', 'bad.yaml.log', 'unknown.yaml', 'unknown.yaml.log'],
    });
    assert.match(machine.read('manifests/failed/bad.yaml.log'), /^F1121 .* Error parsing .* as an object for pods/);
  });

  it('finds k3s where there is no kubectl, and the credentials of the host', async (t) => {
    const reports = await startReports(t);
    const machine = new Machine(t);
    machine.config({ report: reports.url });
    const version = '{"clientVersion": {"gitVersion": "v1.30.1+k3s1"}}';
    machine.program('k3s', `echo "$KUBECONFIG $*" >> '${machine.root}/k3s.calls'; [ "$2" != version ] || echo '${version}'`);
    machine.write('etc/kubernetes/admin.conf', '');
    machine.write('etc/rancher/k3s/k3s.yaml', 'apiVersion: v1\n');
    machine.drop({ 'a.yaml': POD });
    // The path has no kubectl of this machine's: only k3s and what the applier needs.
    machine.env.PATH = machine.bin;
    const ended = await machine.start(PYTHON, [
      '-c',
      `PROGRAMS = None\nwith open(${JSON.stringify(APPLIER)}) as f: source = f.read().replace('/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin', '/nowhere')\nimport sys\nsys.argv = ['x']\nexec(compile(source, 'x', 'exec'))`,
    ]).ended;
    assert.equal(ended.code, 0, ended.stderr);
    assert.match(
      calls(machine, 'k3s')[1] ?? '',
      new RegExp(
        `^${machine.root}/etc/rancher/k3s/k3s.yaml kubectl apply -f ${machine.at('manifests/pending/a.yaml')} --request-timeout=30s`,
      ),
    );
    assert.deepEqual([reports.all[0]?.client, reports.all[0]?.clientVersion], ['k3s kubectl', 'v1.30.1+k3s1']);
  });
});

describe('working through pending', { concurrency: 4 }, () => {
  it('in order of name; each result is reported with what the client said', async (t) => {
    const reports = await startReports(t);
    const machine = withKubectl(t, 'echo "pod/x created"', { report: reports.url });
    machine.drop({ '10-b.yaml': POD, '02-a.yaml': `${POD}# a\n`, '02-B.yaml': POD, '.hidden': POD, 'backup~': POD });
    const before = Date.now();
    assert.equal((await machine.apply().ended).code, 0);
    assert.deepEqual(machine.folders(), {
      pending: ['.hidden', 'backup~'],
      applied: ['02-B.yaml', '02-a.yaml', '10-b.yaml'],
      failed: [],
    });
    assert.deepEqual(reports.results(), ['02-B.yaml applied', '02-a.yaml applied', '10-b.yaml applied']);
    const { at, id, ...rest } = reports.all[1] ?? assert.fail();
    assert.deepEqual(rest, {
      file: '02-a.yaml',
      part: '02-a.yaml',
      sha256: sha(`${POD}# a\n`),
      status: 'applied',
      attempts: 1,
      output: 'pod/x created',
      client: 'kubectl',
      clientVersion: 'v1.30.1',
    });
    assert.ok(at >= before && at <= Date.now());
    assert.match(id, /^[0-9a-f]{32}$/);
    assert.equal(new Set(reports.all.map((report) => report.id)).size, 3);
    assert.deepEqual(machine.list('reports'), []);
    assert.equal(calls(machine, 'kubectl').filter((line) => line.includes(' version ')).length, 1);
  });

  it('one that fails holds back no other, whether at once or to the end of patience', async (t) => {
    const reports = await startReports(t);
    const machine = withKubectl(
      t,
      `case $name in
1-*) echo 'The Pod "B_" is invalid: metadata.name: Invalid value: "B_"' >&2; exit 1;;
2-*) echo 'error: resource mapping not found: no matches for kind "W" in version "e/v1"' >&2; exit 1;;
3-*) kill -9 $$;;
esac`,
      { report: reports.url },
    );
    machine.drop({ '1-bad': POD, '2-never': POD, '3-killed': POD, '4-good': POD });
    await machine.apply().ended;
    assert.deepEqual(machine.folders(), {
      pending: [],
      applied: ['4-good'],
      failed: ['1-bad', '1-bad.log', '2-never', '2-never.log', '3-killed', '3-killed.log'],
    });
    assert.deepEqual(reports.results(), ['1-bad failed', '4-good applied', '2-never failed', '3-killed failed']);
    assert.deepEqual(
      reports.all.filter(({ status }) => status === 'retrying').map(({ file }) => file),
      ['2-never', '3-killed'],
    );
    const never = reports.all.find(({ file, status }) => file === '2-never' && status === 'failed');
    assert.ok(never && never.attempts >= 2);
    assert.match(never.output, /no matches for kind.*\ngiven up after 3 seconds$/s);
    assert.match(machine.read('manifests/failed/1-bad.log'), /metadata.name: Invalid value/);
    assert.equal((statSync(machine.at('manifests/failed/1-bad.log')).mode & 0o777).toString(8), '600');
  });

  it('where nobody answers, a round tries one file, and one word of it goes out', async (t) => {
    const reports = await startReports(t);
    const up = '[ -e "$HOME/up" ] || { echo "Unable to connect to the server: EOF" >&2; exit 1; }';
    const machine = withKubectl(t, `${up};;\nget) ${up}`, { kube: {}, report: reports.url });
    machine.drop(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`${10 + i}-x`, POD])));
    const { ended } = machine.apply();
    await until(() => calls(machine, 'kubectl').filter((line) => line.includes('/10-x')).length >= 2);
    assert.equal(calls(machine, 'kubectl').filter((line) => line.includes('/11-x')).length, 0);
    machine.write('up', '');
    await ended;
    assert.equal(machine.folders().applied?.length, 20);
    assert.equal(reports.all.filter(({ status }) => status === 'retrying').length, 1);
    assert.equal(reports.results().length, 20);
  });

  it('waits for a client and for credentials', async (t) => {
    const machine = new Machine(t);
    machine.config({ kube: { patience: 20 } });
    machine.env.KUBECONFIG = machine.path('kubeconfig');
    machine.drop({ 'a.yaml': POD });
    machine.program('kubectl', 'case $1 in apply) touch "$KUBECONFIG.used";; esac');
    const { ended } = machine.apply();
    await until(() => machine.log().includes('a.yaml: not yet: there are no credentials yet: nothing at KUBECONFIG'));
    machine.write('kubeconfig', 'apiVersion: v1\n');
    await ended;
    assert.deepEqual(machine.folders().applied, ['a.yaml']);
    assert.ok(existsSync(machine.path('kubeconfig.used')));
  });

  it('a file that is replaced while it is applied is applied as it is then', async (t) => {
    const machine = withKubectl(t, 'cat "$3" >> "$HOME/seen"; sleep 1');
    machine.drop({ 'a.yaml': `${POD}# one\n` });
    const { ended } = machine.apply();
    await until(() => existsSync(machine.path('seen')));
    writeFileSync(machine.at('manifests/a.new'), `${POD}# two\n`);
    renameSync(machine.at('manifests/a.new'), machine.at('manifests/pending/a.yaml'));
    await ended;
    assert.equal(readFileSync(machine.path('seen'), 'utf8'), `${POD}# one\n${POD}# two\n`);
    assert.equal(machine.read('manifests/applied/a.yaml'), `${POD}# two\n`);
  });

  it('keeps both of one name, and never lets a log take the place of a manifest', async (t) => {
    const machine = withKubectl(t, 'case $name in bad*) echo "error: no objects passed to apply" >&2; exit 1;; esac');
    for (const text of ['one', 'two', 'two', 'three']) {
      machine.drop({ 'a.yaml': text, bad: text, 'bad.log': text });
      await machine.apply().ended;
    }
    const keep = (name: string, text: string) => `${name}.${sha(text).slice(0, 8)}`;
    assert.equal(machine.read('manifests/applied/a.yaml'), 'three');
    assert.deepEqual(machine.folders().applied, ['a.yaml', keep('a.yaml', 'one'), keep('a.yaml', 'two')].sort());
    const failed = new Set((machine.folders().failed ?? []).map((name) => machine.read('manifests/failed', name)));
    for (const text of ['one', 'two', 'three']) assert.ok(failed.has(text), text);
  });

  it('what is no regular file goes to failed, and is not looked into', async (t) => {
    const machine = withKubectl(t, '');
    machine.drop({ 'z.yaml': POD });
    mkdirSync(machine.at('manifests/pending/folder'));
    symlinkSync('/etc/shadow', machine.at('manifests/pending/link'));
    assert.equal((await run('mkfifo', [machine.at('manifests/pending/pipe')])).code, 0);
    await machine.apply().ended;
    assert.deepEqual(machine.folders(), {
      pending: [],
      applied: ['z.yaml'],
      failed: ['folder', 'folder.log', 'link', 'link.log', 'pipe', 'pipe.log'],
    });
  });

  it('takes what is dropped in while it lingers', async (t) => {
    const machine = withKubectl(t, '');
    machine.drop({ 'a.yaml': POD });
    const { ended } = machine.apply('--linger', '2');
    await until(() => machine.folders().applied?.length === 1);
    machine.drop({ 'b.yaml': POD });
    assert.equal((await ended).code, 0);
    assert.deepEqual(machine.folders().applied, ['a.yaml', 'b.yaml']);
  });

  it('two never work at once; a second poller leaves', async (t) => {
    const machine = withKubectl(t, 'mkdir "$HOME/inside" || touch "$HOME/both"; sleep 0.3; rmdir "$HOME/inside"');
    machine.drop({ 'a.yaml': POD, 'b.yaml': POD, 'c.yaml': POD });
    const two = [machine.apply(), machine.apply()];
    await until(() => existsSync(machine.path('inside')));
    assert.equal((await machine.apply('--poll').ended).code, 0);
    assert.equal(machine.folders().applied?.length === 3, false);
    for (const { ended } of two) assert.equal((await ended).code, 0);
    assert.equal(existsSync(machine.path('both')), false);
    assert.equal(machine.folders().applied?.length, 3);
  });

  it('ends a client that hangs when the time is up, with its children', async (t) => {
    const machine = withKubectl(t, 'echo $$ > "$HOME/pid"; sleep 61 & wait');
    machine.drop({ 'a.yaml': POD });
    const began = Date.now();
    assert.equal((await machine.apply('--for', '1').ended).code, 0);
    assert.ok(Date.now() - began < 4000);
    assert.deepEqual(machine.folders().pending, ['a.yaml']);
    const group = readFileSync(machine.path('pid'), 'utf8').trim();
    const left = await run('ps', ['-o', 'stat=', '-g', group]);
    assert.match(left.stdout, /^(Z\S*\s*)*$/, 'ended, if not yet reaped');
  });
});

describe('reports', { concurrency: 4 }, () => {
  it('wait in a private queue while the service is away, and go out in order when it is back', async (t) => {
    const reports = await startReports(t);
    let away = true;
    reports.answer = () => (away ? 503 : 200);
    const machine = withKubectl(t, '', { report: reports.url });
    machine.drop({ '1-a': POD, '2-b': POD });
    const { ended } = machine.apply();
    await until(() => reports.requests.length >= 1 && machine.list('reports').length === 2);
    assert.equal((statSync(machine.at('reports', machine.list('reports')[0] ?? '')).mode & 0o777).toString(8), '600');
    away = false;
    assert.equal((await ended).code, 0);
    assert.deepEqual(reports.results(), ['1-a applied', '2-b applied']);
    assert.deepEqual(machine.list('reports'), []);
    assert.doesNotMatch(machine.log(), /CAPABILITY/);
  });

  it('of an earlier run are sent by a later one', async (t) => {
    const reports = await startReports(t);
    const machine = withKubectl(t, '', { report: 'http://127.0.0.1:1/r/X' });
    machine.drop({ 'a.yaml': POD });
    const first = machine.apply();
    await until(() => machine.folders().applied?.length === 1);
    first.child.kill('SIGKILL');
    await first.ended;
    machine.config({ report: reports.url });
    await machine.apply().ended;
    assert.deepEqual(reports.results(), ['a.yaml applied']);
  });

  for (const [status, kept] of [
    [404, false],
    [422, false],
    [408, true],
    [429, true],
    [302, true],
    [500, true],
  ] as const)
    it(`an answer ${status} ${kept ? 'keeps' : 'drops'} it`, async (t) => {
      const reports = await startReports(t);
      reports.answer = () => status;
      const machine = withKubectl(t, '', { report: reports.url });
      machine.drop({ 'a.yaml': POD });
      const { child, ended } = machine.apply();
      await until(() => reports.requests.length === 1);
      if (kept) await sleep(300);
      else assert.equal((await ended).code, 0);
      assert.equal(machine.list('reports').length, kept ? 1 : 0);
      assert.deepEqual(reports.requests, ['POST /r/CAPABILITY/manifests application/json']);
      child.kill('SIGKILL');
      await ended;
    });

  it('never fill the disk: 200 of up to 8 KiB, and what is tried again goes first', async (t) => {
    const reports = await startReports(t);
    reports.answer = () => 503;
    const machine = withKubectl(t, `head -c 9000 /dev/zero | tr '\\0' '"' >&2; case $name in 1*) exit 1;; esac`, {
      kube: { patience: 600 },
      report: reports.url,
    });
    machine.drop(Object.fromEntries(Array.from({ length: 220 }, (_, i) => [`${String(i).padStart(3, '0')}-x`, POD])));
    const { child, ended } = machine.apply();
    await until(() => machine.folders().applied?.length === 120, 30_000);
    child.kill('SIGKILL');
    await ended;
    const queue = machine.list('reports').filter((name) => !name.startsWith('.'));
    assert.equal(queue.length, 200);
    assert.equal(queue.filter((name) => name.endsWith('-applied.json')).length, 120);
    for (const name of queue) assert.ok(statSync(machine.at('reports', name)).size <= 8192);
  });

  it('are not kept where there is no service', async (t) => {
    const machine = withKubectl(t, '');
    machine.drop({ 'a.yaml': POD });
    machine.write('var/lib/bootbundle/reports/0-left-applied.json', '{}');
    assert.equal((await machine.apply().ended).code, 0);
    assert.deepEqual(machine.list('reports'), []);
  });
});

describe('kill -9', () => {
  it('at 50 random points: no manifest lost, none applied with another content, one result for each', async (t) => {
    const reports = await startReports(t);
    const machine = withKubectl(
      t,
      `sleep 0.02; cp "$3" "$HOME/store/.$$"; mv "$HOME/store/.$$" "$HOME/store/$name"
case $name in 1*) echo 'error: no objects passed to apply' >&2; exit 1;; esac`,
      { report: reports.url },
    );
    mkdirSync(machine.path('store'));
    const files = Object.fromEntries(
      Array.from({ length: 300 }, (_, i) => [`${String(i).padStart(3, '0')}-x`, `${POD}# ${i}\n`]),
    );
    const bad = (name: string) => name.startsWith('1');
    machine.drop(files);
    for (let i = 0; i < 50; i++) {
      const { child, ended } = machine.apply();
      await sleep(60 + Math.random() * 200);
      child.kill('SIGKILL');
      assert.equal((await ended).signal, 'SIGKILL');
    }
    assert.equal((await machine.apply().ended).code, 0);
    const { pending, applied, failed } = machine.folders();
    assert.deepEqual(pending, []);
    assert.deepEqual(
      applied,
      Object.keys(files).filter((name) => !bad(name)),
    );
    assert.deepEqual(
      failed?.filter((name) => name.endsWith('-x')),
      Object.keys(files).filter(bad),
    );
    for (const [name, text] of Object.entries(files)) {
      assert.equal(machine.read(bad(name) ? 'manifests/failed' : 'manifests/applied', name), text);
      assert.equal(readFileSync(machine.path('store', name), 'utf8'), text);
    }
    // A repeat has the id of what it repeats, and says the same.
    const results = new Map(reports.all.map(({ id, file, status, sha256 }) => [id, `${file} ${status} ${sha256}`]));
    assert.deepEqual(
      [...results.values()].sort(),
      Object.entries(files).map(([name, text]) => `${name} ${bad(name) ? 'failed' : 'applied'} ${sha(text)}`),
    );
  });
});

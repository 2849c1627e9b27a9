import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { kubePartHandler } from '../../src/guest/handler.ts';
import { handlerTypes } from '../../src/inspect/part-handler.ts';
import { type Call, Machine, PYTHON, pythons, run, startReports, until } from './machine.ts';

const TYPES = [
  'text/x-kube-pod',
  'text/x-kube-service',
  'text/x-kube-replica',
  'text/x-kube-manifest',
  'text/x-bootbundle-config',
];
const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: dbserver}\n# Gr\u00fc\u00dfe \u2713\n';
const pod = (filename: string | null, text = POD): Call => ({ ctype: 'text/x-kube-pod', filename, text });
const config = (config: unknown): Call => ({
  ctype: 'text/x-bootbundle-config',
  filename: '01-config',
  text: typeof config === 'string' ? config : JSON.stringify(config),
});
const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);

describe('the part as it is delivered', () => {
  const part = kubePartHandler();

  it('is a part handler, the same at each call, 7bit', () => {
    assert.match(part, /^#part-handler\n/);
    assert.equal(part, kubePartHandler());
    assert.match(part, /^[\t\n\x20-\x7e]*$/);
    assert.ok(Math.max(...part.split('\n').map((line) => line.length)) <= 998);
  });

  it('holds the applier and the units as they are', () => {
    for (const name of ['bootbundle-apply', 'bootbundle-apply.path', 'bootbundle-apply.service'])
      assert.ok(part.includes(`'''${readFileSync(new URL(`../../src/guest/${name}`, import.meta.url), 'utf8')}'''`), name);
    assert.doesNotMatch(part, /'''\{/);
  });

  it('lists types that the service can read from its source', async () => {
    assert.deepEqual(await handlerTypes(part), TYPES);
  });
});

describe('the Python', () => {
  for (const { version, python } of pythons()) {
    it(`${version} takes it without a warning${version.startsWith('2') ? '' : ' and runs it'}`, async (t) => {
      const machine = new Machine(t);
      writeFileSync(machine.path('handler.py'), kubePartHandler());
      const compile = 'import sys\nfor name in sys.argv[1:]:\n with open(name) as f: compile(f.read(), name, "exec")';
      const applier = new URL('../../src/guest/bootbundle-apply', import.meta.url).pathname;
      const compiled = await run(python, ['-W', 'error', '-c', compile, machine.path('handler.py'), applier]);
      assert.deepEqual(compiled, { code: 0, signal: null, stdout: '', stderr: '' });
      if (version.startsWith('2')) return;
      await machine.handle([config({ kube: {} }), pod('02-a.yaml')], python);
      assert.deepEqual(machine.folders().pending, ['02-a.yaml']);
      const kubectl = 'case "$*" in version*) echo \'{"clientVersion": {"gitVersion": "v1"}}\';; esac';
      machine.program('kubectl', kubectl);
      machine.env.KUBECONFIG = machine.path('part-handler-000.py');
      const applied = await machine.start(python, ['-W', 'error', machine.at('bootbundle-apply')]).ended;
      assert.equal(applied.code, 0, applied.stderr);
      assert.deepEqual(machine.folders(), { pending: [], applied: ['02-a.yaml'], failed: [] });
    });
  }

  it('pleases pyflakes, where it is here', async (t) => {
    const flakes = (await run(PYTHON, ['-m', 'pyflakes', '--version'])).code === 0;
    if (!flakes) {
      assert.notEqual(process.env.REQUIRE_PYFLAKES, '1', 'REQUIRE_PYFLAKES=1, but there is no pyflakes');
      return t.skip('no pyflakes');
    }
    const machine = new Machine(t);
    writeFileSync(machine.path('handler.py'), kubePartHandler());
    const applier = new URL('../../src/guest/bootbundle-apply', import.meta.url).pathname;
    const checked = await run(PYTHON, ['-m', 'pyflakes', machine.path('handler.py'), applier]);
    assert.equal(checked.stdout + checked.stderr, '');
  });

  it('its units please systemd-analyze verify', async (t) => {
    if ((await run('systemd-analyze', ['--version'])).code !== 0) {
      assert.notEqual(process.env.REQUIRE_SYSTEMD, '1', 'REQUIRE_SYSTEMD=1, but there is no systemd-analyze');
      return t.skip('no systemd-analyze');
    }
    const units = ['path', 'service'].map(
      (end) => new URL(`../../src/guest/bootbundle-apply.${end}`, import.meta.url).pathname,
    );
    assert.deepEqual(await run('systemd-analyze', ['verify', ...units]), { code: 0, signal: null, stdout: '', stderr: '' });
  });
});

describe('laying manifests down', () => {
  it('writes each type of part, private, and keeps the type where a v1beta1 document may need it', async (t) => {
    const machine = new Machine(t);
    const calls = TYPES.slice(0, 4).map((ctype, i) => ({ ctype, filename: `0${i + 2}-x.yaml`, text: `# ${ctype}\n` }));
    const { types, stderr } = await machine.handle([config({ kube: {}, report: 'http://127.0.0.1:1/r/SECRET' }), ...calls]);
    assert.deepEqual(types, TYPES);
    assert.equal(stderr, '');
    for (const { ctype, filename, text } of calls) {
      assert.equal(machine.read('manifests/pending', filename), text);
      assert.equal(mode(machine.at('manifests/pending', filename)), '600');
      const kept = machine.at('manifests/types', filename);
      assert.equal(existsSync(kept) && readFileSync(kept, 'utf8'), ctype !== 'text/x-kube-manifest' && ctype);
    }
    assert.deepEqual(JSON.parse(machine.read('config.json')), { kube: {}, report: 'http://127.0.0.1:1/r/SECRET' });
    assert.equal(mode(machine.at('config.json')), '600');
    for (const folder of ['.', 'manifests', 'manifests/pending', 'manifests/applied', 'manifests/failed', 'reports'])
      assert.equal(mode(machine.at(folder)), '700', folder);
    assert.deepEqual(machine.list('reports'), []);
    assert.doesNotMatch(machine.log(), /SECRET|WARNING/);
  });

  it('gives back every byte, whether it came as str, as str with surrogates or as bytes', async (t) => {
    const machine = new Machine(t);
    await machine.handle([
      { ctype: TYPES[3] ?? '', filename: '1-text', text: '\u00e9 \u2713 \ud83d\ude00\r\nno end of line' },
      { ctype: TYPES[3] ?? '', filename: '2-surrogates', text: 'a\udcff\udc80b' },
      { ctype: TYPES[3] ?? '', filename: '3-half', text: 'a\ud800b' },
      { ctype: TYPES[3] ?? '', filename: '4-bytes', base64: Buffer.from([0, 255, 13, 10]).toString('base64') },
      { ctype: TYPES[3] ?? '', filename: '5-nothing' },
    ]);
    const bytes = (name: string) => readFileSync(machine.at('manifests/pending', name));
    assert.equal(bytes('1-text').toString(), '\u00e9 \u2713 \ud83d\ude00\r\nno end of line');
    assert.deepEqual([...bytes('2-surrogates')], [0x61, 0xff, 0x80, 0x62]);
    assert.deepEqual([...bytes('3-half')], [0x61, 0xed, 0xa0, 0x80, 0x62]);
    assert.deepEqual([...bytes('4-bytes')], [0, 255, 13, 10]);
    assert.deepEqual([...bytes('5-nothing')], []);
  });

  it('keeps names clean, apart, inside the folder, and in the order of the parts', async (t) => {
    const machine = new Machine(t);
    const names = [
      '02-b.yaml',
      '03-../../etc/passwd',
      '../../../../tmp/x',
      '/etc/shadow',
      '',
      null,
      '..',
      '.hidden',
      '-rf',
      'a\\b\\c.yaml',
      'a b\n\u00fc;$(reboot)`x`.yaml',
      `${'long'.repeat(100)}.yaml`,
      `${'long'.repeat(100)}x.yaml`,
      'zz',
      'zz',
      '02-b.yaml',
    ];
    await machine.handle(names.map((name, i) => pod(name, `${i}\n`)));
    const pending = machine.list('manifests/pending');
    assert.deepEqual(
      pending.map((name) => machine.read('manifests/pending', name)),
      names.map((_, i) => `${i}\n`),
    );
    assert.equal(pending[0], '02-b.yaml');
    for (const name of pending) assert.match(name, /^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/);
  });

  it('keeps any names at all in order, and those of a document (NN-name) as they are', async (t) => {
    const machine = new Machine(t);
    writeFileSync(machine.path('handler.py'), kubePartHandler());
    const script = `
import json, sys
with open(sys.argv[1]) as stream: exec(stream.read())
for names in json.load(sys.stdin):
    run.__init__()
    print(json.dumps([spool_name(name) for name in names]))`;
    const samples = fc.sample(
      fc.array(fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.constantFrom('a', 'b', '1-a', '10-b'))),
      300,
    );
    const wire = Array.from({ length: 200 }, (_, i) => `${String(i).padStart(3, '0')}-Part_${200 - i}.x-y.yaml`);
    const ended = await machine.start(PYTHON, ['-c', script, machine.path('handler.py')], JSON.stringify([wire, ...samples]))
      .ended;
    assert.equal(ended.stderr, '');
    const lists = ended.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as string[]);
    assert.equal(lists.length, 301);
    assert.deepEqual(lists[0], wire);
    for (const names of lists) {
      assert.deepEqual(names, [...new Set(names)].sort());
      for (const name of names) assert.match(name, /^[A-Za-z0-9_][A-Za-z0-9._-]{0,254}$/);
    }
  });

  it('takes 200 parts in under a second', async (t) => {
    const calls = Array.from({ length: 200 }, (_, i) => pod(`${String(i).padStart(3, '0')}-p.yaml`, POD.repeat(20)));
    const times: number[] = [];
    // Other tests run beside this one: the best of some runs is what the handler itself takes.
    while (times.length < 5 && !(Math.min(...times) < 1)) {
      const machine = new Machine(t);
      times.push((await machine.handle(calls)).seconds);
      assert.equal(machine.list('manifests/pending').length, 200);
    }
    assert.ok(Math.min(...times) < 1, `${times} s`);
  });

  it('writes the same again when the machine runs it again', async (t) => {
    const machine = new Machine(t);
    const calls = [config({ instance: { id: 'i-1' } }), pod('02-a.yaml')];
    await machine.handle(calls);
    await machine.handle(calls);
    assert.deepEqual(machine.folders(), { pending: ['02-a.yaml'], applied: [], failed: [] });
    assert.deepEqual(machine.list('reports'), []);
  });

  it('puts aside what another machine had pending, on a disk made from that one', async (t) => {
    const machine = new Machine(t);
    await machine.handle([config({ instance: { id: 'i-1' }, report: 'http://127.0.0.1:1/r/ONE' }), pod('02-a.yaml')]);
    machine.write('var/lib/bootbundle/reports/x.json', '{}');
    await machine.handle([config({ instance: { id: 'i-2' }, report: 'http://127.0.0.1:1/r/TWO' }), pod('02-b.yaml')]);
    assert.deepEqual(machine.folders().pending, ['02-b.yaml']);
    assert.deepEqual(machine.list('reports'), []);
    assert.equal(JSON.parse(machine.read('config.json')).instance.id, 'i-2');
  });
});

describe('starting the applier', { concurrency: 4 }, () => {
  it('installs it with its units, enables and starts them without waiting', async (t) => {
    const machine = new Machine(t);
    await machine.handle([config({ kube: { enable: ['k3s', 'kubelet.service'] } }), pod('02-a.yaml')]);
    assert.deepEqual(machine.systemctl(), [
      'enable k3s',
      'start --no-block k3s',
      'enable kubelet.service',
      'start --no-block kubelet.service',
      'enable bootbundle-apply.path',
      'start --no-block bootbundle-apply.path',
    ]);
    const source = (name: string) => readFileSync(new URL(`../../src/guest/${name}`, import.meta.url), 'utf8');
    assert.equal(machine.read('bootbundle-apply'), source('bootbundle-apply'));
    const units = machine.path('etc/systemd/system');
    assert.equal(readFileSync(join(units, 'bootbundle-apply.path'), 'utf8'), source('bootbundle-apply.path'));
    assert.equal(mode(join(units, 'bootbundle-apply.service')), '644');
    const start = /^ExecStart=(\S+) (\S+) --linger 3$/m.exec(readFileSync(join(units, 'bootbundle-apply.service'), 'utf8'));
    assert.equal(start?.[2], machine.at('bootbundle-apply'));
    assert.equal((await run(start?.[1] ?? '', ['-c', 'import sys; print(sys.version_info[0])'])).stdout, '3\n');
  });

  it('enables the unit by itself where systemctl cannot, and says so', async (t) => {
    const reports = await startReports(t);
    const machine = new Machine(t);
    machine.program('systemctl', `echo "$*" >> '${machine.root}/systemctl.calls'; [ "$1" != enable ]`);
    await machine.handle([config({ report: reports.url })]);
    const wanted = machine.path('etc/systemd/system/multi-user.target.wants/bootbundle-apply.path');
    assert.equal(readlinkSync(wanted), '../bootbundle-apply.path');
    assert.deepEqual(machine.systemctl(), [
      'enable bootbundle-apply.path',
      'daemon-reload',
      'start --no-block bootbundle-apply.path',
    ]);
    await until(() => reports.all.length === 1);
    assert.equal(reports.all[0]?.file, 'kube-part-handler');
    assert.equal(reports.all[0]?.status, 'failed');
    assert.match(reports.all[0]?.output ?? '', /systemctl enable bootbundle-apply.path ended with 1/);
  });

  it('does not wait for a systemctl that hangs', async (t) => {
    const machine = new Machine(t);
    machine.program('systemctl', 'exec sleep 8');
    const { seconds } = await machine.handle([config({ kube: { enable: ['a', 'b', 'c'] } }), pod('02-a.yaml')]);
    assert.ok(seconds < 7, `${seconds} s`);
    assert.match(machine.log(), /systemctl enable a has not answered yet: left running/);
  });

  it('runs it in the background, and at every boot, where there is no systemd', async (t) => {
    const machine = new Machine(t, { systemd: false });
    const { seconds } = await machine.handle([pod('02-a.yaml')]);
    assert.ok(seconds < 2, `${seconds} s`);
    const perBoot = machine.path('var/lib/cloud/scripts/per-boot/bootbundle-apply');
    assert.equal(mode(perBoot), '755');
    await until(() => existsSync(machine.at('lock')) && machine.read('lock') !== '');
    const pid = Number(machine.read('lock'));
    assert.match(readFileSync(`/proc/${pid}/cmdline`, 'utf8'), /bootbundle-apply\0--poll\0--detach/);
    assert.match(readFileSync(`/proc/${pid}/stat`, 'utf8'), /^\d+ \(.*\) \S 1 /, 'a child of init');
    // The next boot's script finds it at work and leaves it alone.
    assert.equal((await machine.start('/bin/sh', [perBoot]).ended).code, 0);
    // It has no client yet; then it has one.
    machine.write('etc/kubernetes/admin.conf', 'apiVersion: v1\n');
    machine.program('kubectl', '');
    await until(() => machine.folders().applied?.length === 1);
    machine.drop({ '03-later.yaml': POD });
    await until(() => machine.folders().applied?.length === 2);
    assert.equal(Number(machine.read('lock')), pid);
  });

  it('direct: applies what it can in the time given, and leaves the rest to the service', async (t) => {
    const machine = new Machine(t);
    machine.write('etc/kubernetes/admin.conf', 'apiVersion: v1\n');
    machine.program('kubectl', 'case "$*" in *03-*) echo "Error from server (NotFound): not yet" >&2; exit 1;; esac');
    const { seconds } = await machine.handle([
      config({ kube: { mode: 'direct', directWait: 2 } }),
      pod('02-a.yaml'),
      pod('03-b.yaml'),
    ]);
    assert.deepEqual(machine.folders(), { pending: ['03-b.yaml'], applied: ['02-a.yaml'], failed: [] });
    assert.ok(seconds > 1.5 && seconds < 4, `${seconds} s`);
    assert.ok(machine.systemctl().includes('start --no-block bootbundle-apply.path'));
  });

  it('direct: does not wait when all is applied, nor beyond the time for a client that hangs', async (t) => {
    const machine = new Machine(t);
    machine.write('etc/kubernetes/admin.conf', 'apiVersion: v1\n');
    machine.program('kubectl', '');
    const direct = config({ kube: { mode: 'direct', directWait: 2 } });
    assert.ok((await machine.handle([direct, pod('02-a.yaml')])).seconds < 1.5);
    machine.program('kubectl', 'case "$1" in apply) exec sleep 60;; esac');
    const { seconds } = await machine.handle([direct, pod('03-b.yaml')]);
    assert.ok(seconds < 5, `${seconds} s`);
    assert.deepEqual(machine.folders().pending, ['03-b.yaml']);
  });
});

describe('what fails', { concurrency: 4 }, () => {
  it('a config that makes no sense: defaults, a log line and a report for each word', async (t) => {
    const reports = await startReports(t);
    const machine = new Machine(t);
    const kube = { mode: 'sideways', patience: 'soon', directWait: -1, enable: ['ok', '../x', '-f', 7, 'a b'] };
    await machine.handle([config({ kube, report: reports.url }), pod('02-a.yaml')]);
    await until(() => reports.all.length === 7);
    const outputs = reports.all.map(({ output }) => output).join('\n');
    for (const word of [/kube\.mode is neither/, /kube\.patience is not a time/, /kube\.directWait is not a time/])
      assert.match(outputs, word);
    assert.equal(outputs.match(/not the name of a systemd unit/g)?.length, 4);
    assert.deepEqual(machine.folders().pending, ['02-a.yaml']);
    assert.deepEqual(machine.systemctl().slice(0, 2), ['enable ok', 'start --no-block ok']);
    assert.deepEqual(new Set(reports.requests), new Set(['POST /r/CAPABILITY/manifests application/json']));
  });

  for (const [what, text] of [
    ['no JSON', '{'],
    ['no object', '[]'],
    ['kube is no map', '{"kube": "x"}'],
    ['an odd report', '{"report": 7, "instance": 3}'],
    ['nothing', ''],
  ] as const)
    it(`a config part with ${what} holds up nothing`, async (t) => {
      const machine = new Machine(t);
      await machine.handle([config(text), pod('02-a.yaml')]);
      assert.deepEqual(machine.folders().pending, ['02-a.yaml']);
      assert.ok(machine.systemctl().includes('start --no-block bootbundle-apply.path'));
    });

  it('a disk that cannot be written: no exception, and the service is told what was lost', async (t) => {
    const reports = await startReports(t);
    const machine = new Machine(t);
    machine.write('var/lib', 'this is a file, so nothing can be made below it');
    const { seconds } = await machine.handle([config({ report: reports.url }), pod('02-a.yaml')]);
    assert.ok(seconds < 2, `${seconds} s`);
    await until(() => reports.all.some(({ file }) => file === '02-a.yaml'));
    const lost = reports.all.find(({ file }) => file === '02-a.yaml');
    assert.equal(lost?.sha256, createHash('sha256').update(POD).digest('hex'));
    assert.match(lost?.output ?? '', /^kube-part-handler: the manifest cannot be written: Not a directory$/);
  });

  it('a part such as no cloud-init hands over: no exception, a report, and the others are written', async (t) => {
    const reports = await startReports(t);
    const machine = new Machine(t);
    const odd = { ctype: 'text/x-kube-pod', filename: '02-\ud800\udcff', text: 7 as unknown as string };
    await machine.handle([config({ report: reports.url }), odd, pod('03-\ud800.yaml')]);
    await until(() => reports.all.length === 1);
    assert.match(reports.all[0]?.output ?? '', /^kube-part-handler: the part could not be handled: AttributeError$/);
    assert.deepEqual(machine.folders().pending, ['03-_.yaml']);
  });

  it('a service that does not answer costs two seconds at the most; the report stays in the queue', async (t) => {
    const machine = new Machine(t);
    // A port that takes connections and says nothing.
    const silent = createServer((socket) => t.after(() => socket.destroy())).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    t.after(() => silent.close());
    const { port } = silent.address() as AddressInfo;
    machine.program('systemctl', 'exit 3');
    const { seconds } = await machine.handle([config({ report: `http://127.0.0.1:${port}/r/SECRET` }), pod('02-a.yaml')]);
    assert.ok(seconds < 3, `${seconds} s`);
    assert.equal(machine.list('reports').length, 3);
    assert.equal(mode(machine.at('reports', machine.list('reports')[0] ?? '')), '600');
    assert.doesNotMatch(machine.log(), /SECRET/);
  });
});

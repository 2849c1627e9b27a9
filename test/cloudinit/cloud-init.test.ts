import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type Consumed, type Driver, startCloudInit } from './driver.ts';
import { findCloudInit, skipWithout } from './fetch.ts';
import { type Server, startServer } from './server.ts';

/** From an operator's PUT to what a real cloud-init made of it: the running server on one side, its stub the only thing handed over. */
const cloudInit = await findCloudInit();

const HANDLER = `#part-handler
def list_types():
    return ["text/x-kube-pod", "text/x-kube-service", "text/x-raw", "application/x-raw"]

def handle_part(data, ctype, filename, payload):
    print(ctype, filename)
`;
const POD = '#kube-pod\nversion: v1beta1\nid: dbserver\n';

describe('a real cloud-init with the stub of a running server', { skip: skipWithout(cloudInit) }, () => {
  let driver: Driver;
  let server: Server;
  before(async () => {
    [driver, server] = await Promise.all([startCloudInit(cloudInit), startServer()]);
  });
  after(() => Promise.all([driver?.close(), server?.close()]));

  /** Uploads bundles as {bundle: {file or file?options: body}}, registers a machine with all of them and boots it. */
  async function boot(
    instance: string,
    bundles: Record<string, Record<string, string | Uint8Array>>,
    { track = false } = {},
  ): Promise<Consumed> {
    for (const [bundle, parts] of Object.entries(bundles)) {
      for (const [target, body] of Object.entries(parts)) {
        const [filename = '', options] = target.split('?');
        await server.upload(`${instance}-${bundle}`, filename, body, options && `?${options}`);
      }
    }
    const stub = await server.register(
      instance,
      Object.keys(bundles).map((bundle) => `${instance}-${bundle}`),
      { track },
    );
    return healthy(await driver.consume(stub));
  }
  function healthy(seen: Consumed): Consumed {
    assert.equal(seen.failure, null);
    assert.deepEqual(seen.warnings, []);
    return seen;
  }
  const names = (items: { filename: string | null }[]) => items.map(({ filename }) => filename);

  it('every part arrives byte for byte, with its type, its name and in order', async () => {
    const texts = {
      umlauts: 'äöüß ÄÖÜ é\n',
      emoji: 'a 😀 ✓ 👩‍🚀\n',
      boundary: '--bootbundle-00000000000000000000000000000000\n--BOUNDARY--\n\n--\n',
      'no-final-newline': 'one\ntwo',
      'no-final-newline-utf8': 'eins\nzwö',
      'many-final-newlines': 'one\n\n\n\n',
      crlf: 'one\r\ntwo\r\n',
      cr: 'one\rtwo\r',
      tabs: '\tone\n\t\ttwo\t\n',
      'long-lines': `${'x'.repeat(998)}\n${'y'.repeat(999)}\n${'z'.repeat(5000)}\n`,
      '998': `${'x'.repeat(998)}\n`,
      'trailing-spaces': 'one  \n  \ntwo \n',
      from: 'From x\n>From y\n',
      dots: '.\n..\n.x\n',
      'only-a-mark': '#x\n\n',
      headers: 'Content-Type: text/x-shellscript\nMIME-Version: 1.0\n\n#!/bin/sh\n',
      'quoted-printable': '=41=\n=?utf-8?q?x?=\n',
      controls: 'a\0b\x07\x1b[0m\x7f\n',
      separators: 'a\x0bb\x0cc\x1cd\u0085e\u2028f\n',
      bom: '\ufeffone\n',
    };
    const big = Buffer.alloc(3 * 1024 * 1024, 'three megabytes, line by line\n');
    const bodies: [target: string, body: Buffer][] = [
      ...Object.entries(texts).map(([name, text]): [string, Buffer] => [`${name}?type=text/x-raw`, Buffer.from(text)]),
      ['big?type=text/x-raw', big],
      ['bytes?type=application/x-raw', Buffer.from(Array.from({ length: 1024 }, (_, index) => index % 256))],
      ['gzip?type=application/x-raw', Buffer.from('1f8b0800000000000003', 'hex')],
    ];
    const sorted = bodies
      .map(([target, body]) => ({ filename: target.split('?')[0] ?? '', type: target.split('type=')[1] ?? '', body }))
      .sort((a, b) => (a.filename < b.filename ? -1 : 1));
    const seen = await boot('bytes', { handler: { 'handler.py': HANDLER }, raw: Object.fromEntries(bodies) });

    const sent = [{ filename: 'handler.py', type: 'text/part-handler', body: Buffer.from(HANDLER) }, ...sorted];
    assert.deepEqual(
      seen.parts.map(({ filename, type }) => `${filename} ${type}`),
      sent.map(({ filename, type }, index) => `${String(index + 1).padStart(2, '0')}-${filename} ${type}`),
    );
    sent.forEach(({ filename, body }, index) => {
      assert.ok(seen.parts[index]?.payload.equals(body), `${filename} arrived changed`);
    });
    assert.deepEqual(
      seen.calls.slice(1, -1).map(({ filename, payload }) => `${filename} ${payload.length}`),
      seen.parts.slice(1).map(({ filename, payload }) => `${filename} ${payload.length}`),
    );
  });

  it('the part handler comes first and is called with the kube parts of all bundles', async () => {
    const service = 'apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {ports: [{port: 3306}]}\n';
    const seen = await boot('kube', {
      apps: { 'dbserver.yaml': POD, 'db.yml': service },
      base: { 'kube-part-handler.py': HANDLER, 'setup.sh': '#!/bin/sh\n:\n' },
    });
    assert.deepEqual(seen.handlers, [
      {
        handler: 'part-handler-000',
        types: ['application/x-raw', 'text/x-kube-pod', 'text/x-kube-service', 'text/x-raw'],
      },
    ]);
    assert.deepEqual(
      seen.calls.map(({ type, filename, payload }) => [type, filename, payload.toString()]),
      [
        ['__begin__', null, ''],
        ['text/x-kube-service', '02-db.yml', service],
        ['text/x-kube-pod', '03-dbserver.yaml', POD],
        ['__end__', null, ''],
      ],
    );
  });

  it('scripts land as NN-name, so that they run in the order of the bundles; the others in their own folders', async () => {
    const script = (word: string) => `#!/bin/sh\necho ${word} äöü\n`;
    const seen = await boot('scripts', {
      zebra: { '10.sh': script('ten'), '9.sh': script('nine'), 'hook.txt': `#cloud-boothook\n${script('hook')}` },
      ape: {
        '10.sh': script('another ten'),
        'boot.sh?type=text/x-shellscript-per-boot': script('boot'),
        'instance.sh?type=text/x-shellscript-per-instance': script('instance'),
        'once.sh?type=text/x-shellscript-per-once': script('once'),
      },
    });
    const written = (files: Consumed['scripts']) => files.map(({ filename, payload }) => [filename, payload.toString()]);
    assert.deepEqual(written(seen.scripts), [
      ['01-10.sh', script('ten')],
      ['02-9.sh', script('nine')],
      ['04-10.sh', script('another ten')],
    ]);
    assert.deepEqual(written(seen.boothooks), [['03-hook.txt', script('hook')]]);
    assert.deepEqual(written(seen.perBoot), [['05-boot.sh', script('boot')]]);
    assert.deepEqual(written(seen.perInstance), [['06-instance.sh', script('instance')]]);
    assert.deepEqual(written(seen.perOnce), [['07-once.sh', script('once')]]);
  });

  it('more than 99 parts still sort as they were sent', async () => {
    const parts = Object.fromEntries(
      Array.from({ length: 101 }, (_, index) => [`s${index + 100}.sh`, `#!/bin/sh\n: ${index}\n`]),
    );
    const seen = await boot('many', { all: parts });
    assert.deepEqual(
      names(seen.scripts),
      Array.from({ length: 101 }, (_, index) => `${String(index + 1).padStart(3, '0')}-s${index + 100}.sh`),
    );
  });

  const BASE = `#cloud-config
hostname: base
timezone: UTC
package_update: true
packages: [curl]
runcmd: [first, [echo, "1"]]
users: [default, {name: ops, groups: [adm]}]
ntp: {enabled: true, servers: [a.ntp], config: {confpath: /etc/base, check_exe: x}}
`;
  const ROLE = `#cloud-config
package_update: false
packages: [docker]
runcmd: [second]
write_files: [{path: /etc/motd, content: "Grüße\\n", permissions: "0644"}]
ntp: {servers: [b.ntp], config: {confpath: /etc/role}}
`;
  const SITE = `#cloud-config
hostname: site
packages: [vim]
runcmd: [third]
users: [{name: site}]
ntp: {enabled: false}
ssh_pwauth: no
`;

  it('cloud-configs of three bundles merge: lists join in order, maps recurse, the later single value wins', async () => {
    const seen = await boot('merge', {
      base: { 'base.yaml': BASE, 'base.sh': '#!/bin/sh\n:\n' },
      role: { 'role.yaml': ROLE },
      site: { 'site.yaml': SITE },
    });
    assert.deepEqual(seen.config, {
      hostname: 'site',
      timezone: 'UTC',
      package_update: false,
      packages: ['curl', 'docker', 'vim'],
      runcmd: ['first', ['echo', '1'], 'second', 'third'],
      users: ['default', { name: 'ops', groups: ['adm'] }, { name: 'site' }],
      write_files: [{ path: '/etc/motd', content: 'Grüße\n', permissions: '0644' }],
      ntp: { enabled: false, servers: ['a.ntp', 'b.ntp'], config: { confpath: '/etc/role', check_exe: 'x' } },
      ssh_pwauth: false,
    });
  });

  const small = (word: string, more = '') => `#cloud-config\nhostname: ${word}\nruncmd: [${word}]\n${more}`;

  it("a part's own merge rule is honoured, in the given order, as an option or in its body", async () => {
    const merged = { hostname: 'b', runcmd: ['b', 'c'] };
    const rule = 'dict(replace)+list(replace)+str()';
    const byOption = await boot('rule', {
      a: { 'a.yaml': small('a') },
      b: { [`b.yaml?merge=${rule}`]: small('b') },
      c: { 'c.yaml': small('c') },
    });
    assert.deepEqual(byOption.config, merged);
    assert.equal(byOption.parts[1]?.headers['Merge-Type'], rule);
    const inBody = await boot('how', {
      a: { 'a.yaml': small('a') },
      b: { 'b.yaml': small('b', `merge_how: "${rule}"\n`) },
      c: { 'c.yaml': small('c') },
    });
    assert.deepEqual(inBody.config, merged);
  });

  it('a jinja cloud-config takes part in the merge, in its place', async () => {
    const seen = await boot('jinja', {
      a: { 'a.yaml': small('a') },
      b: { 'b.yaml': '## template: jinja\n#cloud-config\nhostname: "{{ v1.local_hostname }}"\nruncmd: [b]\n' },
      c: { 'c.yaml': '#cloud-config\nruncmd: [c]\n' },
    });
    assert.deepEqual(seen.config, { hostname: 'node', runcmd: ['a', 'b', 'c'] });
  });

  const OWN_REPORTS = `#cloud-config
reporting: {mine: {type: webhook, endpoint: "http://198.51.100.9/", retries: 3}}
phone_home: {url: "http://198.51.100.9/$INSTANCE_ID/"}
runcmd: [mine]
`;

  it('what makes it report comes with every document, and takes nothing from an operator’s own, in either order', async () => {
    const bare = await boot('tracked', { a: { 'a.yaml': small('a'), 'a.sh': '#!/bin/sh\n:\n' } }, { track: true });
    const { reporting, ...rest } = bare.config as Record<string, Record<string, Record<string, string>>>;
    assert.deepEqual(rest, { hostname: 'a', runcmd: ['a'] });
    assert.match(reporting?.bootbundle?.endpoint ?? '', /\/r\/[\w-]{40}\/events$/);
    assert.deepEqual(names(bare.scripts), ['00-bootbundle-report.sh', '01-a.sh']);
    const rules = [
      '',
      'merge_how: dict(replace)+list(replace)+str()\n',
      'merge_how: list(append)+dict(recurse_list,recurse_array)+str(append)\n',
    ];
    for (const [index, how] of rules.entries()) {
      const seen = await boot(
        `own-${index}`,
        {
          a: { 'own.yaml': OWN_REPORTS },
          b: { 'b.yaml': `${how === '' ? '#cloud-config\n' : `#cloud-config\n${how}`}runcmd: [b]\n` },
        },
        { track: true },
      );
      const { reporting, phone_home, runcmd } = seen.config as Record<string, Record<string, unknown>>;
      assert.deepEqual(phone_home, { url: 'http://198.51.100.9/$INSTANCE_ID/' });
      assert.deepEqual(Object.keys(reporting ?? {}).sort(), ['bootbundle', 'mine']);
      assert.deepEqual(reporting?.mine, { type: 'webhook', endpoint: 'http://198.51.100.9/', retries: 3 });
      assert.deepEqual(runcmd, index === 1 ? ['b'] : ['mine', 'b']);
    }
  });

  it('as a NoCloud seed URL the same machine has its name, its user-data and its vendor-data', async () => {
    const included = await boot('seed', { all: { 'a.yaml': small('a'), 'run.sh': '#!/bin/sh\n:\n' } });
    await server.call('PATCH', '/instances/seed', {
      vendorData: '#cloud-config\nruncmd: [vendor]\n',
      metaData: { 'local-hostname': 'seed.example' },
    });
    const line = await server.call('GET', '/instances/seed/stub?form=nocloud');
    const url = /s=(http:\/\/\S+\/s\/[^/\s]+\/)/.exec(line)?.[1];
    assert.ok(url, `no seed URL in ${line}`);
    const seeded = healthy(await driver.consumeSeed(url));
    assert.equal(seeded.metaData?.['local-hostname'], 'seed.example');
    assert.deepEqual(seeded.config, included.config);
    assert.deepEqual(names(seeded.scripts), names(included.scripts));
    assert.deepEqual(
      seeded.parts.map(({ source, type }) => `${source} ${type}`),
      ['userdata text/cloud-config', 'userdata text/x-shellscript', 'vendordata text/cloud-config'],
    );
    assert.deepEqual(
      seeded.requests.map(({ status }) => status),
      seeded.requests.map(() => 200),
    );
  });

  it('a changed bundle changes the next boot while the stub stays, and each fetch is in the ledger', async () => {
    const first = await boot('ledger', { all: { 'a.yaml': small('a') } });
    const stub = await server.call('GET', '/instances/ledger/stub');
    await server.upload('ledger-all', 'a.yaml', small('changed'));
    assert.equal(await server.call('GET', '/instances/ledger/stub'), stub);
    const second = healthy(await driver.consume(stub));
    assert.deepEqual([first.config.hostname, second.config.hostname], ['a', 'changed']);
    assert.deepEqual(
      [...first.requests, ...second.requests].map(({ method, url, status }) => `${method} ${status} ${stub.includes(url)}`),
      ['GET 200 true', 'GET 200 true'],
    );
    const { items } = JSON.parse(await server.call('GET', '/instances/ledger/deliveries')) as {
      items: Record<string, unknown>[];
    };
    assert.deepEqual(
      items.map(({ userAgent, revisions, outcome }) => [userAgent, revisions, outcome]),
      [
        [`Cloud-Init/${driver.version}`, ['ledger-all@2'], 'delivered'],
        [`Cloud-Init/${driver.version}`, ['ledger-all@1'], 'delivered'],
      ],
    );
  });
});

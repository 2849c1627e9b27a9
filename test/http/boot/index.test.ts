import assert from 'node:assert/strict';
import { type AddressInfo, connect } from 'node:net';
import { test } from 'node:test';
import { scheduler } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import type { LightMyRequestResponse } from 'fastify';
import { BootbundleError } from '../../../src/domain/errors.ts';
import type { Purpose } from '../../../src/domain/instance.ts';
import type { Store } from '../../../src/domain/store.ts';
import { readYaml } from '../../../src/inspect/yaml.ts';
import { openStore } from '../../../src/store/open.ts';
import { buildTestApp, snapshot, type TestApp, TOKEN } from '../../app.ts';

const SH = '#!/bin/sh\necho hello\n';
const MINUTE = 60_000;
const DOCUMENTS = ['meta-data', 'user-data', 'vendor-data', 'network-config'] as const;

async function capability({ store, keys }: TestApp, name: string, purpose: Purpose): Promise<string> {
  const instance = await store.findInstance(name);
  assert.ok(instance);
  return keys.capability(purpose, instance);
}

/** What every answer of this scope has in common. */
function isPlain(answer: LightMyRequestResponse, what: string) {
  assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8', what);
  assert.equal(answer.headers['cache-control'], 'no-store', what);
}

function isLine(answer: LightMyRequestResponse, status: number, line: string, what: string) {
  assert.deepEqual([answer.statusCode, answer.body], [status, line], what);
  isPlain(answer, what);
}

/** For what is written after the answer. */
async function eventually(check: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await check();
    } catch (error) {
      if (tries === 200) throw error;
      await scheduler.wait(10);
    }
  }
}

test('the document, byte for byte', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  const path = await register('vm', { 'web/a.sh': SH, 'web/b.cfg': '#cloud-config\nhostname: ü\n' });
  await api('PATCH', '/instances/vm', { track: false });
  const answer = await boot(path);
  assert.equal(answer.statusCode, 200);
  isPlain(answer, path);
  assert.equal(answer.headers['x-content-type-options'], 'nosniff');
  assert.equal(answer.headers['content-length'], String(answer.rawPayload.length));
  const boundary = /boundary="(bootbundle-[0-9a-f]{32})"/.exec(answer.body)?.[1];
  assert.equal(
    answer.body,
    [
      `Content-Type: multipart/mixed; boundary="${boundary}"`,
      'MIME-Version: 1.0',
      '',
      `--${boundary}`,
      'Content-Type: text/x-shellscript',
      'MIME-Version: 1.0',
      'Content-Transfer-Encoding: 7bit',
      'Content-Disposition: attachment; filename="01-a.sh"',
      '',
      SH,
      `--${boundary}`,
      'Content-Type: text/cloud-config; charset="utf-8"',
      'MIME-Version: 1.0',
      'Content-Transfer-Encoding: base64',
      'Content-Disposition: attachment; filename="02-b.cfg"',
      '',
      Buffer.from('#cloud-config\nhostname: ü\n').toString('base64'),
      '',
      `--${boundary}--`,
      '',
    ].join('\n'),
  );
  assert.deepEqual((await boot(path)).rawPayload, answer.rawPayload, 'same input, same bytes');
});

test('a change is in the next fetch, the URL stays', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  const path = await register('vm', { 'web/a.sh': SH });
  await api('PUT', '/bundles/web/parts/a.sh', '#!/bin/sh\necho changed\n');
  assert.match((await boot(path)).body, /echo changed/);
});

test('HEAD answers like GET, without a delivery', async (t) => {
  const test = await buildTestApp(t);
  const { boot } = test;
  const include = await test.register('vm', { 'web/a.sh': SH });
  const seed = `/s/${await capability(test, 'vm', 'seed')}`;
  const { size } = (await test.api('GET', '/instances/vm')).json().status.document;
  assert.equal((await boot(include, { method: 'HEAD' })).headers['content-length'], String(size));
  const before = await snapshot(test);
  for (const path of [include, ...DOCUMENTS.map((document) => `${seed}/${document}`)]) {
    const head = await boot(path, { method: 'HEAD' });
    assert.deepEqual([head.statusCode, head.body], [200, ''], path);
    isPlain(head, path);
    assert.equal(await snapshot(test), before, path);
    assert.ok(Number(head.headers['content-length']) >= 0, path);
  }
});

test('every GET of a document is a row; a repeat within two minutes from the same address is not counted again', async (t) => {
  const test = await buildTestApp(t);
  const { api, boot, tick } = test;
  const include = await test.register('vm', { 'web/a.sh': SH });
  const seed = `/s/${await capability(test, 'vm', 'seed')}/user-data`;
  const fetch = (path: string, remoteAddress = '198.51.100.1') =>
    boot(path, { remoteAddress, headers: { 'user-agent': 'Cloud-Init/25.1.4' } });
  await fetch(include);
  tick(MINUTE);
  await fetch(seed);
  await fetch(include, '198.51.100.2');
  tick(MINUTE - 1);
  await fetch(include);
  tick(1);
  await fetch(include);
  const { items } = (await api('GET', '/instances/vm/deliveries')).json();
  assert.deepEqual(
    items.map(({ at, purpose, address, counted }: Record<string, unknown>) => [at, purpose, address, counted]),
    [
      ['2026-01-01T00:02:00.000Z', 'include', '198.51.100.1', true],
      ['2026-01-01T00:01:59.999Z', 'include', '198.51.100.1', false],
      ['2026-01-01T00:01:00.000Z', 'include', '198.51.100.2', true],
      ['2026-01-01T00:01:00.000Z', 'seed', '198.51.100.1', false],
      ['2026-01-01T00:00:00.000Z', 'include', '198.51.100.1', true],
    ],
  );
  const { status } = (await api('GET', '/instances/vm')).json();
  assert.deepEqual(status.deliveries, { count: 3, firstAt: '2026-01-01T00:00:00.000Z', lastAt: '2026-01-01T00:02:00.000Z' });
  const [{ digest, bytes, userAgent, revisions, outcome }] = items;
  assert.deepEqual(
    [digest, bytes, userAgent, revisions, outcome],
    [status.document.digest, status.document.size, 'Cloud-Init/25.1.4', ['web@1'], 'delivered'],
  );
});

test('X-Forwarded-For is believed from nobody', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  const path = await register('vm', { 'web/a.sh': SH });
  await boot(path, { remoteAddress: '198.51.100.1', headers: { 'x-forwarded-for': '203.0.113.9' } });
  assert.equal((await api('GET', '/instances/vm/deliveries')).json().items[0].address, '198.51.100.1');
});

test('an IPv4 machine that comes in by an IPv6 listener is in the ledger by its own address', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  const path = await register('vm', { 'web/a.sh': SH });
  for (const remoteAddress of ['::ffff:198.51.100.7', '198.51.100.7', '::ffff:c633:6407', '2001:db8::ffff:1', '::1'])
    await boot(path, { remoteAddress });
  const { items } = (await api('GET', '/instances/vm/deliveries')).json();
  assert.deepEqual(items.map(({ address, counted }: Record<string, unknown>) => [address, counted]).reverse(), [
    ['198.51.100.7', true],
    ['198.51.100.7', false],
    ['198.51.100.7', false],
    ['2001:db8::ffff:1', true],
    ['::1', true],
  ]);
  const listed = (await api('GET', '/instances?address=198.51.100.7')).json();
  assert.deepEqual(
    listed.items.map(({ name }: { name: string }) => name),
    ['vm'],
  );
});

test('fetches at once are each a row, and one is counted', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  const path = await register('vm', { 'web/a.sh': SH });
  const answers = await Promise.all(Array.from({ length: 30 }, () => boot(path)));
  assert.ok(answers.every(({ statusCode }) => statusCode === 200));
  const { items } = (await api('GET', '/instances/vm/deliveries')).json();
  assert.deepEqual([items.length, items.filter(({ counted }: { counted: boolean }) => counted).length], [30, 1]);
});

test('the same machine as a NoCloud seed', async (t) => {
  const test = await buildTestApp(t);
  const { api, boot } = test;
  const include = await test.register('vm', { 'web/a.sh': SH });
  const seed = `/s/${await capability(test, 'vm', 'seed')}`;
  const get = async (document: string) => {
    const answer = await boot(`${seed}/${document}`);
    assert.equal(answer.statusCode, 200, document);
    isPlain(answer, document);
    return answer.body;
  };
  assert.equal(await get('user-data'), (await boot(include)).body);
  assert.deepEqual(
    [await get('vendor-data'), await get('network-config')],
    ['', ''],
    'not set: empty, so that nothing is waited for',
  );
  const { id } = (await api('GET', '/instances/vm')).json().status;
  assert.deepEqual(readYaml(await get('meta-data')), [{ 'instance-id': `i-${id}`, 'local-hostname': 'vm' }]);

  await api('PATCH', '/instances/vm', {
    metaData: { 'local-hostname': 'vm.example.org', 'public-keys': ['ssh-ed25519 AAAA ü'], nested: { a: [1, true, null] } },
    vendorData: '#cloud-config\n# ü\n',
    networkConfig: 'version: 1\n# as it is\n',
  });
  assert.deepEqual(readYaml(await get('meta-data')), [
    {
      'instance-id': `i-${id}`,
      'local-hostname': 'vm.example.org',
      'public-keys': ['ssh-ed25519 AAAA ü'],
      nested: { a: [1, true, null] },
    },
  ]);
  assert.deepEqual(
    [await get('vendor-data'), await get('network-config')],
    ['#cloud-config\n# ü\n', 'version: 1\n# as it is\n'],
  );

  const networkConfig = { version: 2, ethernets: { eth0: { dhcp4: true, mtu: 1500 } } };
  await api('PATCH', '/instances/vm', { networkConfig: null });
  await api('PATCH', '/instances/vm', { networkConfig, metaData: { 'instance-id': 'iid-own' } });
  assert.deepEqual(readYaml(await get('network-config')), [networkConfig]);
  assert.equal((readYaml(await get('meta-data'))[0] as Record<string, string>)['instance-id'], 'iid-own');
});

test('meta-data read by YAML 1.1 is what was said: no name becomes a number, a date or a truth value', async (t) => {
  const test = await buildTestApp(t);
  const words = [
    'yes',
    'no',
    'on',
    'y',
    'n',
    'null',
    '~',
    '0644',
    '1e3',
    '0x10',
    '0b1',
    '1_000',
    '12:30:45',
    '2001-01-01',
    '=',
    '<<',
    '.5',
    '+1',
    '1.',
    '.inf',
    '- a',
    'a: b',
    '#x',
    ' x ',
    '',
    'a\nb',
    'é\u0085x',
    '!x',
    '&x',
    '*x',
    '%x',
    '@x',
  ];
  await test.api('PUT', '/bundles/web/parts/a.sh', SH);
  for (const name of ['yes', '1e3', '0644', 'null', '12345', '2001-01-01']) {
    const metaData = Object.fromEntries(words.map((word, index) => [`k${index}`, word]));
    await test.api('PUT', `/instances/${name}`, { bundles: ['web'], metaData: { ...metaData, words } });
    const { body } = await test.boot(`/s/${await capability(test, name, 'seed')}/meta-data`);
    const [{ 'instance-id': _id, ...said }] = readYaml(body) as [Record<string, unknown>];
    assert.deepEqual(said, { 'local-hostname': name, ...metaData, words });
  }
});

test('a large document goes compressed to a client that takes it, and is the same', async (t) => {
  const test = await buildTestApp(t);
  const path = await test.register('vm', { 'web/a.sh': `#!/bin/sh\n${'echo hello\n'.repeat(5000)}` });
  const small = await test.register('small', { 'tiny/a.sh': SH });
  const plain = await test.boot(path);
  assert.equal(plain.headers['content-encoding'], undefined);
  for (const [accept, encoding] of [
    ['gzip', 'gzip'],
    ['gzip, deflate', 'gzip'],
    ['deflate;q=1, GZIP;q=0.5', 'gzip'],
    ['gzip;q=0', undefined],
    ['gzip ; q=0.000, identity', undefined],
    ['identity', undefined],
    ['notgzip', undefined],
  ] as const) {
    const answer = await test.boot(path, { headers: { 'accept-encoding': accept } });
    assert.equal(answer.headers['content-encoding'], encoding, accept);
    assert.deepEqual(encoding ? gunzipSync(answer.rawPayload) : answer.rawPayload, plain.rawPayload, accept);
    assert.equal(answer.headers['content-length'], String(answer.rawPayload.length));
  }
  assert.equal((await test.boot(small, { headers: { 'accept-encoding': 'gzip' } })).headers['content-encoding'], undefined);
});

test('a capability that is not exactly right opens nothing, and nothing of it comes back', async (t) => {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': SH });
  await test.api('PUT', '/instances/gone', { bundles: ['web'] });
  const include = await capability(test, 'vm', 'include');
  const seed = await capability(test, 'vm', 'seed');
  const gone = await capability(test, 'gone', 'include');
  await test.api('DELETE', '/instances/gone');
  await test.api('PUT', '/instances/gone', { bundles: ['web'] });
  const last = include.endsWith('A') ? 'B' : 'A';
  const unknown = test.keys.capability('include', { id: 'ffffffffffffffff', generations: { include: 0, seed: 0, report: 0 } });
  const wrong = {
    'off by its last character': include.slice(0, -1) + last,
    'off by its first character': (include.startsWith('A') ? 'B' : 'A') + include.slice(1),
    truncated: include.slice(0, -1),
    extended: `${include}A`,
    'with a final =': `${include}=`,
    'in another case': include === include.toUpperCase() ? include.toLowerCase() : include.toUpperCase(),
    'for another purpose': seed,
    'of an older generation': gone,
    'of an instance that never was': unknown,
    'all zeros': 'A'.repeat(40),
    'with NUL': `${include}%00`,
    'with a slash': `${include.slice(0, 20)}%2F${include.slice(20)}`,
    'with a line break': `${include}%0d%0a`,
    'of 10,000 characters': 'A'.repeat(10_000),
    'with %zz': `${include}%zz`,
    'with half a character': `${include}%c3`,
    empty: '',
    'of dots': '%2e%2e%2f',
  };
  const before = await snapshot(test);
  for (const [what, text] of Object.entries(wrong)) isLine(await test.boot(`/i/${text}/user-data`), 404, 'not found\n', what);
  for (const document of DOCUMENTS)
    for (const [what, text] of [
      ['for another purpose', include],
      ['of nobody', unknown],
    ] as const)
      isLine(await test.boot(`/s/${text}/${document}`), 404, 'not found\n', `${document} ${what}`);
  assert.equal(await snapshot(test), before, 'and nothing is put into the ledger');
});

test('percent-encoding is a spelling of the same capability', async (t) => {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': SH });
  const text = await capability(test, 'vm', 'include');
  const encoded = `%${text.charCodeAt(0).toString(16)}${text.slice(1)}`;
  assert.equal((await test.boot(`/i/${encoded}/user-data`)).statusCode, 200);
});

test('whatever else begins like a machine’s URL is a line of text, with any method, body and header', async (t) => {
  const test = await buildTestApp(t);
  const path = await test.register('vm', { 'web/a.sh': SH });
  const seed = await capability(test, 'vm', 'seed');
  const before = await snapshot(test);
  const urls = [
    '/i',
    '/i/',
    '/i/x',
    '/s/',
    '/r/x/events',
    '/i//user-data',
    `${path}/`,
    `${path}/x`,
    `/s/${seed}/`,
    `/s/${seed}/other`,
  ];
  for (const url of urls) isLine(await test.boot(url), 404, 'not found\n', url);
  for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE', 'PROPFIND'] as const)
    for (const [type, payload] of [
      [undefined, undefined],
      ['application/json', '{'],
      ['application/xml', '<a/>'],
      ['nonsense', 'x'],
      ['text/plain', 'x'.repeat(100_000)],
    ] as const) {
      const answer = await test.app.inject({
        method: method as 'POST',
        url: path,
        ...(payload === undefined ? {} : { payload }),
        headers: { ...(type === undefined ? {} : { 'content-type': type }), authorization: `Bearer ${TOKEN}` },
      });
      isLine(answer, 404, 'not found\n', `${method} ${type}`);
    }
  assert.equal(await snapshot(test), before);
});

test('a query on a machine’s URL is passed over: the document is served, and is a delivery', async (t) => {
  const test = await buildTestApp(t);
  const path = await test.register('vm', { 'web/a.sh': SH });
  const seed = `/s/${await capability(test, 'vm', 'seed')}`;
  for (const url of [path, ...DOCUMENTS.map((document) => `${seed}/${document}`)])
    for (const query of ['?x=1', '?', '?a=1&a=2&__proto__=x', '?%zz', `?${'x'.repeat(5000)}`]) {
      const [plain, asked] = [await test.boot(url), await test.boot(`${url}${query}`)];
      assert.deepEqual([asked.statusCode, asked.body], [200, plain.body], `${url}${query}`);
      isPlain(asked, query);
      assert.equal((await test.boot(`${url}${query}`, { method: 'HEAD' })).statusCode, 200, `HEAD ${query}`);
    }
  assert.equal((await test.api('GET', '/instances/vm/deliveries')).json().items.length, 20);
  isLine(await test.boot('/i/x/user-data?x=1'), 404, 'not found\n', 'a query opens nothing');
});

test('our own trouble is 503 with Retry-After, whatever it is', async (t) => {
  const store = await openStore({ file: ':memory:' });
  let trouble: (() => unknown) | null = null;
  const flaky = new Proxy(store, {
    get(target, method: keyof Store) {
      if (!trouble || method === 'close') return target[method];
      return async () => {
        throw trouble?.();
      };
    },
  });
  const test = await buildTestApp(t, { store: flaky });
  const paths = [await test.register('vm', { 'web/a.sh': SH })];
  const seed = await capability(test, 'vm', 'seed');
  paths.push(...DOCUMENTS.map((document) => `/s/${seed}/${document}`));
  for (const [what, make] of [
    ['a bug', () => new TypeError(`x is not a function at ${paths[0]}`)],
    ['no error at all', () => 'text'],
    ['nothing', () => undefined],
    ['the database is away', () => new BootbundleError('unavailable', 'database_unavailable', 'away')],
    ['the disk is full', () => new BootbundleError('storage_full', 'storage_full', 'full')],
    ['a race', () => new BootbundleError('conflict', 'changed_meanwhile', 'raced')],
  ] as const) {
    trouble = make;
    for (const path of paths) {
      const answer = await test.boot(path);
      isLine(answer, 503, 'temporarily unavailable, ask again\n', `${what}: ${path}`);
      assert.equal(answer.headers['retry-after'], '5');
    }
    isLine(await test.boot('/i/x/user-data'), 404, 'not found\n', 'a form that is wrong needs no database');
  }
  trouble = null;
  assert.equal((await test.boot(paths[0] ?? '')).statusCode, 200, 'and it heals');
});

test('a document that cannot be rendered is 503, and a failed delivery in the ledger', async (t) => {
  const store = await openStore({ file: ':memory:' });
  const lossy = new Proxy(store, {
    get: (target, method: keyof Store) => (method === 'findBody' ? async () => null : target[method]),
  });
  const test = await buildTestApp(t, { store });
  await test.register('vm', { 'web/a.sh': SH });
  const later = await buildTestApp(t, { store: lossy });
  const path = `/i/${await capability(later, 'vm', 'include')}/user-data`;
  isLine(await later.boot(path), 503, 'temporarily unavailable, ask again\n', 'a body is lost');
  const [row] = (await later.api('GET', '/instances/vm/deliveries')).json().items;
  assert.deepEqual([row?.outcome, row?.counted, row?.digest, row?.bytes], ['failed', false, null, 0]);
});

test('no log line holds a capability, a token or what is in a part', async (t) => {
  const test = await buildTestApp(t);
  const path = await test.register('vm', { 'web/a.sh': '#!/bin/sh\necho CONTENT-OF-A-PART\n' });
  const seed = await capability(test, 'vm', 'seed');
  const urls = [
    path,
    `${path}/x`,
    `${path}?x`,
    `${path}%zz`,
    `/s/${seed}/meta-data`,
    `/s/${seed}/nope`,
    `/i/${'A'.repeat(10_000)}`,
    `/x${path}`,
  ];
  for (const url of urls) for (const method of ['GET', 'HEAD', 'POST'] as const) await test.boot(url, { method });
  await test.api('PUT', '/bundles/web/parts/b.sh', 'CONTENT-OF-A-PART');
  await test.api('GET', '/instances/vm', undefined, { authorization: 'Bearer wrong-TOKEN-of-somebody' });
  await test.api('PUT', '/instances/vm', 'CONTENT-OF-A-PART: [');
  const log = test.log();
  assert.match(log, /"route":"\/i\/:capability\/user-data","status":200,.*"instance":"vm"/);
  for (const secret of [path.split('/')[2] ?? '', seed, 'AAAAAAAA', TOKEN, 'wrong-TOKEN', 'CONTENT-OF-A-PART'])
    assert.ok(!log.includes(secret), secret);
});

test('a fetch whose client goes away is told in the ledger', async (t) => {
  const test = await buildTestApp(t);
  const path = await test.register('vm', { 'web/a.sh': `#!/bin/sh\n${'#'.repeat(3_900_000)}\n` });
  await test.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = test.app.server.address() as AddressInfo;
  const socket = connect(port, '127.0.0.1');
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await new Promise((resolve) => socket.once('data', resolve));
  socket.pause();
  socket.resetAndDestroy();
  await eventually(async () => {
    assert.equal((await test.api('GET', '/instances/vm/deliveries')).json().items[0]?.outcome, 'aborted');
  });
});

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import type { Purpose } from '../../../src/domain/instance.ts';
import { LIMITS } from '../../../src/domain/limits.ts';
import { buildTestApp } from '../../app.ts';

const RESULT = {
  id: 'r-1',
  file: '03-db.yaml',
  part: '03-db.yaml',
  sha256: 'a'.repeat(64),
  status: 'applied',
  attempts: 2,
  client: 'kubectl',
  clientVersion: 'v1.30.1',
  output: 'pod/db created\n',
  at: Date.UTC(2026, 0, 1, 0, 0, 5),
};

/** An app with one registered machine that reports. */
async function machine(t: TestContext) {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const url = async (purpose: Purpose = 'report', name = 'vm') => {
    const instance = await test.store.findInstance(name);
    assert.ok(instance);
    return `/r/${test.keys.capability(purpose, instance)}/manifests`;
  };
  const post = async (body: unknown, { path, type = 'application/json' }: { path?: string; type?: string | null } = {}) =>
    test.app.inject({
      method: 'POST',
      url: path ?? (await url()),
      ...(type === null ? {} : { headers: { 'content-type': type } }),
      payload: typeof body === 'string' ? body : JSON.stringify(body),
    });
  const timeline = async () => (await test.api('GET', '/instances/vm/timeline')).json();
  return { ...test, url, post, timeline };
}

test('a manifest’s result is kept, once, and stands in the timeline', async (t) => {
  const { post, timeline, tick } = await machine(t);
  tick(1000);
  for (const type of ['application/json', 'text/plain', null]) {
    const answer = await post({ ...RESULT, later: 'a newer applier says more' }, { type });
    assert.deepEqual([answer.statusCode, answer.body], [204, '']);
  }
  const { items } = await timeline();
  assert.deepEqual(items, [
    { at: '2026-01-01T00:00:00.000Z', kind: 'registered', version: 1 },
    { at: '2026-01-01T00:00:01.000Z', kind: 'manifest', manifest: { ...RESULT, at: '2026-01-01T00:00:05.000Z' } },
  ]);
});

test('the timeline has fetches and results in the order in which they came, newest last, and as lines', async (t) => {
  const { api, boot, post, tick, app } = await machine(t);
  const { url } = (await api('GET', '/instances/vm')).json().status.stub;
  await boot(new URL(url).pathname, { headers: { 'user-agent': 'Cloud-Init/25.1' } });
  tick(5);
  await post({ ...RESULT, id: 'r-0', status: 'failed', attempts: 1, output: 'error: \u001b[31munknown field\nline two\n' });
  tick(5);
  await post(RESULT);
  const lines = (await api('GET', '/instances/vm/timeline?format=text')).body;
  assert.match(
    lines,
    /^2026-01-01T00:00:00.000Z {2}registered\n2026-01-01T00:00:00.000Z {2}fetched by 127.0.0.1 \(Cloud-Init\/25.1\): web@1 \(\d+ bytes, [0-9a-f]{12}\)\n2026-01-01T00:00:00.005Z {2}manifest 03-db.yaml: failed by kubectl v1.30.1, 1 attempt\n {4}error: \?\[31munknown field\n {4}line two\n2026-01-01T00:00:00.010Z {2}manifest 03-db.yaml: applied by kubectl v1.30.1, 2 attempts\n$/,
  );
  await post({ ...RESULT, id: 'r-2', client: undefined, clientVersion: undefined, status: 'retrying' });
  assert.match((await api('GET', '/instances/vm/timeline?format=text')).body, /manifest 03-db.yaml: retrying, 2 attempts\n/);
  const limited = (await api('GET', '/instances/vm/timeline?limit=1')).json();
  assert.deepEqual(
    limited.items.map(({ kind }: { kind: string }) => kind),
    ['manifest'],
  );
  assert.equal(app.hasRoute({ method: 'GET', url: '/r/:capability/manifests' }), false);
});

test('what is no report is refused with a 4xx, in one line, and nothing is kept', async (t) => {
  const { post, timeline, url } = await machine(t);
  const bad: [unknown, number][] = [
    ['', 400],
    ['{', 400],
    ['[]', 400],
    ['null', 400],
    ['{"__proto__": {"id": "x"}}', 400],
    ['['.repeat(20_000), 400],
    [{ ...RESULT, status: 'done' }, 400],
    [{ ...RESULT, attempts: '2' }, 400],
    [{ ...RESULT, at: -1 }, 400],
    [{ ...RESULT, at: 1e300 }, 400],
    [{ ...RESULT, id: '' }, 400],
    [{ ...RESULT, file: undefined }, 400],
    [{ ...RESULT, output: 'x'.repeat(20_000) }, 400],
    [{ ...RESULT, output: 'x'.repeat(LIMITS.reportBytes) }, 413],
  ];
  for (const [body, status] of bad) {
    const answer = await post(body);
    assert.equal(answer.statusCode, status, JSON.stringify(body).slice(0, 100));
    assert.match(answer.body, /^[^\n]+\n$/);
  }
  for (const path of [
    await url('include'),
    await url('seed'),
    (await url()).replace(/.{3}\/manifests/, 'AAA/manifests'),
    '/r/x/manifests',
  ]) {
    const answer = await post(RESULT, { path });
    assert.deepEqual([answer.statusCode, answer.body], [404, 'not found\n']);
  }
  assert.equal((await timeline()).items.length, 1);
});

test('hostile text in every field is kept as it is said, and shown without control characters', async (t) => {
  const { api, post } = await machine(t);
  const evil = '<script>\u001b]0;x\u0007\u202e\0';
  const { statusCode } = await post({
    ...RESULT,
    id: evil,
    file: evil,
    part: evil,
    sha256: evil,
    client: evil,
    clientVersion: evil,
    output: evil,
    status: 'failed',
  });
  assert.equal(statusCode, 204);
  const { body } = await api('GET', '/instances/vm/timeline?format=text');
  assert.doesNotMatch(body.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u);
  assert.equal((await api('GET', '/instances/vm/timeline')).json().items[1].manifest.file, evil);
});

test('a deleted instance’s report URL is dead, and so is the old one when its name is revived', async (t) => {
  const { api, post, url } = await machine(t);
  const path = await url();
  await api('DELETE', '/instances/vm');
  assert.equal((await post(RESULT, { path })).statusCode, 404);
  await api('PUT', '/instances/vm', { bundles: [] });
  assert.equal((await post(RESULT, { path })).statusCode, 404);
  assert.equal((await post(RESULT)).statusCode, 204);
});

test('a retired instance’s timeline stays readable and ends in its retirement', async (t) => {
  const { api, post, tick, timeline } = await machine(t);
  tick(1000);
  await post(RESULT);
  tick(1000);
  await api('DELETE', '/instances/vm');
  const kinds = async () => (await timeline()).items.map(({ kind, at }: Record<string, string>) => [kind, at?.slice(17, 19)]);
  assert.deepEqual(await kinds(), [
    ['registered', '00'],
    ['manifest', '01'],
    ['retired', '02'],
  ]);
  assert.match((await api('GET', '/instances/vm/timeline?format=text')).body, /\n2026-01-01T00:00:02\.000Z {2}retired\n$/);
});

test('past the limit the oldest reports are dropped and counted', async (t) => {
  const { post, store, timeline } = await machine(t);
  const instance = await store.findInstance('vm');
  for (let n = 0; n < LIMITS.reportsPerInstance; n++)
    await store.recordReport({
      instanceId: instance?.id ?? '',
      at: 1,
      body: { kind: 'manifest', manifest: { ...RESULT, id: `${n}`, status: 'applied' } },
      key: `${n}`,
      limit: LIMITS.reportsPerInstance,
    });
  assert.equal((await post({ ...RESULT, id: 'one more' })).statusCode, 204);
  const { items, reportsDropped } = await timeline();
  assert.equal(reportsDropped, 1);
  assert.equal(items.at(-1).manifest.id, 'one more');
});

test('the report URL comes with the document only: a handler that asks for it gets it', async (t) => {
  const { api, boot, register, url } = await machine(t);
  const path = await register('node', {
    'h/h.py': '#part-handler\ndef list_types():\n    return ["text/x-bootbundle-config"]\ndef handle_part(*a):\n    pass\n',
  });
  const { body } = await boot(path);
  const config = JSON.parse(/^\{"instance".*$/m.exec(body)?.[0] ?? '');
  const instance = (await api('GET', '/instances/node')).json();
  assert.deepEqual(config.instance, { name: 'node', id: instance.status.id });
  assert.equal(`${new URL(config.report).pathname}/manifests`, await url('report', 'node'));
  assert.doesNotMatch(JSON.stringify(instance), /\/r\//);
});

const EVENT = {
  name: 'modules-final/config-scripts-user',
  description: 'running config-scripts-user',
  event_type: 'finish',
  origin: 'cloudinit',
  timestamp: 1767225605.25,
  result: 'FAIL',
};
/** No machine's: made up for this test. */
const HOST_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDh2O5kVgaq4U1rVQzdWv8JkUUJ4nPz4zQMMn8mO0M3X root@vm';

test('cloud-init’s events, without a Content-Type, its phone-home and the ends of its logs are kept, each once', async (t) => {
  const test = await machine(t);
  const root = (await test.url()).replace(/\/manifests$/, '');
  const post = (path: string, payload: string | Buffer, type?: string) =>
    test.app.inject({
      method: 'POST',
      url: `${root}${path}`,
      payload,
      ...(type === undefined ? {} : { headers: { 'content-type': type } }),
    });
  const form = new URLSearchParams({
    instance_id: 'i-1',
    hostname: 'vm',
    fqdn: 'vm.example',
    pub_key_ed25519: `${HOST_KEY}\n`,
  });
  const log = `${'x'.repeat(65_000)}\nno such repo: \u001b[31mexample.invalid\n`;
  for (let round = 0; round < 2; round++) {
    const answers = await Promise.all([
      post('/events', JSON.stringify(EVENT)),
      post('/phone-home', form.toString(), 'application/x-www-form-urlencoded'),
      post('/logs/cloud-init-output.log', log, 'text/plain'),
      post('/logs/result.json', '{"v1": {}}\n'),
    ]);
    assert.deepEqual(
      answers.map(({ statusCode, body }) => [statusCode, body]),
      Array.from({ length: 4 }, () => [204, '']),
    );
  }
  const reports = await test.store.listReports('vm', { after: null, limit: 100 });
  assert.deepEqual(reports.map(({ kind }) => kind).sort(), ['event', 'log', 'log', 'phoneHome']);
  const event = reports.find(({ kind }) => kind === 'event');
  assert.ok(event?.kind === 'event');
  assert.deepEqual(event.event, {
    name: EVENT.name,
    type: 'finish',
    description: EVENT.description,
    result: 'FAIL',
    at: 1_767_225_605_250,
  });
  const home = reports.find(({ kind }) => kind === 'phoneHome');
  assert.ok(home?.kind === 'phoneHome');
  const { fingerprint, key } = home.phoneHome.hostKeys[0] ?? {};
  assert.equal(key, HOST_KEY);
  const blob = Buffer.from(HOST_KEY.split(' ')[1] ?? '', 'base64');
  assert.equal(fingerprint, `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=$/, '')}`);

  const { items } = (await test.api('GET', '/instances/vm/logs')).json();
  assert.deepEqual(items.map(({ name }: { name: string }) => name).sort(), ['cloud-init-output.log', 'result.json']);
  const shown = await test.api('GET', '/instances/vm/logs/cloud-init-output.log');
  assert.equal(shown.headers['x-content-type-options'], 'nosniff');
  assert.match(shown.body, /\nno such repo: \?\[31mexample\.invalid\n$/);
  assert.equal((await test.api('GET', '/instances/vm/logs/cloud-init.log')).json().code, 'unknown_log');
  assert.deepEqual(
    (await test.store.findInstance('vm'))?.boot.failures.map(({ what }) => what),
    [EVENT.name],
  );
});

test('what is no report is refused with a plain line, counted, and nothing is kept', async (t) => {
  const told: string[] = [];
  const test = await buildTestApp(t, { onReport: (kind, outcome) => told.push(`${kind} ${outcome}`) });
  await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const instance = await test.store.findInstance('vm');
  assert.ok(instance);
  const root = `/r/${test.keys.capability('report', instance)}`;
  const deep = `${'['.repeat(5000)}${']'.repeat(5000)}`;
  const cases: [string, string | Buffer, number][] = [
    ['/events', '', 400],
    ['/events', '{', 400],
    ['/events', 'null', 400],
    ['/events', '[]', 400],
    ['/events', deep, 400],
    ['/events', JSON.stringify({ ...EVENT, name: '' }), 400],
    ['/events', JSON.stringify({ ...EVENT, name: 'x'.repeat(201) }), 400],
    ['/events', JSON.stringify({ ...EVENT, timestamp: 'soon' }), 400],
    ['/events', JSON.stringify({ ...EVENT, timestamp: -1 }), 400],
    ['/events', JSON.stringify({ ...EVENT, event_type: 'begin' }), 400],
    ['/events', `{"name":"a","event_type":"start","timestamp":1e999}`, 400],
    ['/events', Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), 400],
    ['/events', `{"name": "${'x'.repeat(20_000)}"}`, 413],
    ['/phone-home', '', 400],
    ['/phone-home', '%%%=%zz&\0', 400],
    ['/phone-home', 'a=b', 400],
    ['/phone-home', `instance_id=${'x'.repeat(70_000)}`, 413],
    ['/logs/result.json', '', 400],
    ['/logs/result.json', Buffer.alloc(65_537), 413],
    ['/logs/result.json', Buffer.alloc(10 * 1024 * 1024), 413],
    ['/logs/passwd', 'x', 404],
    ['/logs/..%2f..%2fetc', 'x', 404],
    ['/events/', '{}', 404],
  ];
  for (const [path, payload, status] of cases) {
    const answer = await test.app.inject({ method: 'POST', url: `${root}${path}`, payload });
    assert.equal(answer.statusCode, status, `${path} ${String(payload).slice(0, 60)}: ${answer.body}`);
    assert.match(answer.body, /^[^\n<>]+\n$/);
    assert.ok(!answer.body.includes(root));
  }
  assert.equal(told.filter((line) => line.endsWith(' refused')).length, cases.filter(([, , status]) => status !== 404).length);
  assert.deepEqual(await test.store.listReports('vm', { after: null, limit: 10 }), []);
  // What an attacker says is kept as it is, and is nothing but text.
  const claim = { ...EVENT, name: '__proto__', description: '<script>\u001b[2J', result: 'SUCCESS' };
  const send = (payload: object) =>
    test.app.inject({ method: 'POST', url: `${root}/events`, payload: JSON.stringify(payload) });
  assert.equal((await send(claim)).statusCode, 204);
  assert.equal((await send({ ...claim, ['__proto__']: { polluted: 1 } })).statusCode, 400);
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
});

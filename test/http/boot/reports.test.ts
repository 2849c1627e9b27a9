import assert from 'node:assert/strict';
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
    { at: '2026-01-01T00:00:00.000Z', kind: 'registered', version: 1, by: 'admin' },
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
    /^2026-01-01T00:00:00.000Z {2}registered by admin\n2026-01-01T00:00:00.000Z {2}fetched by 127.0.0.1 \(Cloud-Init\/25.1\): web@1 \(\d+ bytes, [0-9a-f]{12}\)\n2026-01-01T00:00:00.005Z {2}manifest 03-db.yaml: failed by kubectl v1.30.1, 1 attempt\n {4}error: \?\[31munknown field\n {4}line two\n2026-01-01T00:00:00.010Z {2}manifest 03-db.yaml: applied by kubectl v1.30.1, 2 attempts\n$/,
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
  assert.match(
    (await api('GET', '/instances/vm/timeline?format=text')).body,
    /\n2026-01-01T00:00:02\.000Z {2}retired by admin\n$/,
  );
});

test('past the limit the oldest reports are dropped and counted', async (t) => {
  const { post, store, timeline } = await machine(t);
  const instance = await store.findInstance('vm');
  for (let n = 0; n < LIMITS.reportsPerInstance; n++)
    await store.recordReport({
      instanceId: instance?.id ?? '',
      at: 1,
      generation: 0,
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

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Store } from '../../src/domain/store.ts';
import { openStore } from '../../src/store/open.ts';
import { buildTestApp, TOKEN } from '../app.ts';

const SH = '#!/bin/sh\necho hello\n';

test('what belongs to nobody is answered in the way of its URL space, and never says the URL', async (t) => {
  const { app } = await buildTestApp(t);
  for (const [url, way] of [
    ['/', 'problem'],
    ['/api', 'problem'],
    ['/api/v1', 'problem'],
    ['/api/v1/NOPE', 'problem'],
    ['/api/v1/bundles/%zzNOPE', 'problem'],
    [`/api/v1/bundles/${'NOPE'.repeat(2500)}`, 'problem'],
    ['/NOPE', 'problem'],
    ['/indeed/NOPE', 'problem'],
    ['/readyz/NOPE', 'problem'],
    ['/i/NOPE', 'line'],
    ['/i/%zzNOPE', 'line'],
    [`/s/${'NOPE'.repeat(2500)}/user-data`, 'line'],
    ['/r/NOPE', 'line'],
  ] as const) {
    const answer = await app.inject({ url, headers: { authorization: `Bearer ${TOKEN}` } });
    assert.ok([400, 404].includes(answer.statusCode), url);
    assert.equal(
      answer.headers['content-type'],
      way === 'line' ? 'text/plain; charset=utf-8' : 'application/problem+json',
      url,
    );
    assert.doesNotMatch(answer.body, /NOPE/, url);
  }
});

test('a listener of machines has their scope only, one of operators has everything else', async (t) => {
  const machines = await buildTestApp(t, { scopes: 'machines' });
  const { app, store } = machines;
  const operators = await buildTestApp(t, { scopes: 'operators', store });
  const path = await operators.register('vm', { 'web/a.sh': SH });
  const status = async (at: typeof app, url: string) =>
    (await at.inject({ url, headers: { authorization: `Bearer ${TOKEN}` } })).statusCode;
  for (const [url, atMachines, atOperators] of [
    [path, 200, 404],
    ['/healthz', 200, 200],
    ['/healthz?probe=1', 200, 200],
    ['/api/v1/bundles', 404, 200],
    ['/openapi.json', 404, 200],
    ['/docs/', 404, 200],
    ['/readyz', 404, 200],
  ] as const)
    assert.deepEqual([await status(app, url), await status(operators.app, url)], [atMachines, atOperators], url);
});

test('/readyz tells whether the database answers; /healthz that the process does', async (t) => {
  const store = await openStore({ file: ':memory:' });
  let away = false;
  const flaky = new Proxy(store, {
    get: (target, method: keyof Store) =>
      away && method !== 'close' ? () => Promise.reject(new Error('SECRET')) : target[method],
  });
  const { app } = await buildTestApp(t, { store: flaky });
  assert.deepEqual((await app.inject('/readyz')).json(), { status: 'ok' });
  away = true;
  const answer = await app.inject('/readyz');
  assert.deepEqual([answer.statusCode, answer.json().code, answer.headers['retry-after']], [503, 'not_ready', '5']);
  assert.doesNotMatch(answer.body, /SECRET/);
  assert.deepEqual([(await app.inject('/healthz')).statusCode, (await app.inject('/healthz')).body], [200, 'ok\n']);
});

test('trouble of ours says so without saying what, and the log has it under the request id', async (t) => {
  const store = await openStore({ file: ':memory:' });
  const broken = new Proxy(store, {
    get: (target, method: keyof Store) =>
      method === 'listBundles' ? () => Promise.reject(new Error('DETAIL')) : target[method],
  });
  const { app, log } = await buildTestApp(t, { store: broken });
  const answer = await app.inject({ url: '/api/v1/bundles', headers: { authorization: `Bearer ${TOKEN}` } });
  const { status, code, requestId } = answer.json();
  assert.deepEqual([answer.statusCode, status, code], [500, 500, 'internal']);
  assert.doesNotMatch(answer.body, /DETAIL/);
  assert.ok(
    log()
      .split('\n')
      .some((line) => line.includes(requestId) && line.includes('DETAIL')),
  );
});

test('every answer is a line of the log: route, status, who; and ids tell requests apart', async (t) => {
  const { api, app, log } = await buildTestApp(t);
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  await app.inject('/NOPE');
  await app.inject('/api/v1/%zz');
  const lines = log()
    .split('\n')
    .filter((line) => line.includes('"msg":"request"'))
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    lines.map(({ method, route, status, bundle }) => [method, route, status, bundle]),
    [
      ['PUT', '/api/v1/bundles/:bundle/parts/:file', 201, 'web'],
      ['GET', null, 404, undefined],
      ['GET', null, 400, undefined],
    ],
  );
  assert.equal(new Set(lines.map(({ reqId }) => reqId)).size, lines.length);
});

test('the OpenAPI document and its page are served, without a token', async (t) => {
  const { app } = await buildTestApp(t);
  const { openapi, paths } = (await app.inject('/openapi.json')).json();
  assert.match(openapi, /^3\.1/);
  const operations = Object.values(paths as Record<string, Record<string, { operationId?: string; summary?: string }>>).flatMap(
    (path) => Object.values(path),
  );
  assert.ok(operations.length >= 25);
  for (const { operationId, summary } of operations)
    assert.ok(operationId && summary, JSON.stringify({ operationId, summary }));
  assert.equal(new Set(operations.map(({ operationId }) => operationId)).size, operations.length);
  assert.match((await app.inject('/docs/')).body, /swagger/i);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pagePolicy } from '../../src/http/security.ts';
import { buildTestApp, TOKEN } from '../app.ts';

const NOTHING = "default-src 'none'; frame-ancestors 'none'";

test('every answer, error answers of every kind among them, says what a browser must not do with it', async (t) => {
  const test = await buildTestApp(t);
  const include = await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const authorized = { authorization: `Bearer ${TOKEN}` };
  for (const [method, url, status, headers = {}] of [
    ['GET', include, 200],
    ['HEAD', include, 200],
    ['GET', '/i/none/user-data', 404],
    ['GET', '/i/%zz', 404],
    ['GET', `/s/${'x'.repeat(2000)}/user-data`, 404],
    ['POST', '/r/none/nothing', 404],
    ['POST', '/r/none/manifests', 404],
    ['GET', '/healthz', 200],
    ['GET', '/readyz', 200],
    ['GET', '/metrics', 200],
    ['GET', '/openapi.json', 200],
    ['GET', '/api/v1/bundles', 200, authorized],
    ['GET', '/api/v1/bundles', 401],
    ['GET', '/api/v1/bundles/none', 404, authorized],
    ['GET', '/api/v1/bundles/%zz', 400, authorized],
    ['GET', '/api/v1/bundles/web/parts/a.sh', 200, authorized],
    ['PUT', '/api/v1/bundles/web', 415, { ...authorized, 'content-type': 'nonsense' }],
    ['GET', '/', 404],
    ['OPTIONS', '/api/v1/bundles', 404],
  ] as const) {
    const answer = await test.app.inject({ method, url, headers });
    const at = `${method} ${url}`;
    assert.equal(answer.statusCode, status, at);
    assert.equal(answer.headers['content-security-policy'], NOTHING, at);
    assert.equal(answer.headers['x-content-type-options'], 'nosniff', at);
    assert.equal(answer.headers['referrer-policy'], 'no-referrer', at);
    assert.equal(answer.headers['cross-origin-resource-policy'], 'same-origin', at);
    assert.equal(answer.headers['cache-control'], 'no-store', at);
    for (const absent of ['server', 'x-powered-by', 'strict-transport-security', 'access-control-allow-origin'])
      assert.equal(answer.headers[absent], undefined, `${at}: ${absent}`);
  }
});

test('with TLS, and only then, a browser is told to come back with it', async (t) => {
  const { app } = await buildTestApp(t, { tls: {} });
  for (const url of ['/healthz', '/api/v1/bundles', '/i/%zz', '/docs/'])
    assert.equal((await app.inject(url)).headers['strict-transport-security'], 'max-age=31536000', url);
});

test('the API page may load what is its own, and nothing may frame it; its folder is not listed', async (t) => {
  const { app } = await buildTestApp(t);
  const page = await app.inject('/docs/');
  const policy = String(page.headers['content-security-policy']);
  assert.match(policy, /script-src 'self'/);
  assert.match(policy, /frame-ancestors 'none'/);
  assert.doesNotMatch(policy, /https:|validator|upgrade-insecure-requests|unsafe/);
  assert.equal(page.headers['x-content-type-options'], 'nosniff');
  for (const url of ['/docs/static/', '/docs/static', '/docs/static/..%2f..%2fpackage.json'])
    assert.doesNotMatch((await app.inject(url)).body, /swagger-ui-bundle\.js\.map|"dependencies"/, url);
  const script = /src="\.?\/?([^"]+\.js)"/.exec(page.body)?.[1];
  assert.equal((await app.inject(`/docs/${script}`)).statusCode, 200, 'its script is served');
});

test('what is taken out of the page’s policy leaves the rest as it was', () => {
  assert.equal(
    pagePolicy(
      "default-src 'self'; font-src 'self' https: data:; frame-ancestors 'self'; img-src 'self' data: validator.swagger.io; upgrade-insecure-requests;",
    ),
    "default-src 'self'; font-src 'self' data:; frame-ancestors 'none'; img-src 'self' data:;",
  );
});

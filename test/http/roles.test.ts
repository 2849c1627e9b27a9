import assert from 'node:assert/strict';
import { test } from 'node:test';
import fastify from 'fastify';
import { ROLES, type Role, roleSuffices } from '../../src/domain/actor.ts';
import { PURPOSES } from '../../src/domain/instance.ts';
import { kubePartHandler } from '../../src/guest/handler.ts';
import { apiSchemas, apiScope } from '../../src/http/api/index.ts';
import { guard } from '../../src/http/auth.ts';
import { buildTestApp, snapshot, type TestApp } from '../app.ts';

interface Route {
  method: string;
  url: string;
  role: Role;
}

/** Every route of the api scope as it is registered: also those that the OpenAPI document hides, and the HEADs that Fastify adds. */
async function routesOf({ services }: TestApp): Promise<Route[]> {
  const app = fastify();
  for (const schema of apiSchemas) app.addSchema(schema);
  app.setValidatorCompiler(() => () => true);
  const routes: Route[] = [];
  app.addHook('onRoute', ({ method, url, config }) => {
    for (const each of [method].flat()) routes.push({ method: each, url, role: config?.role as Role });
  });
  await app.register(apiScope, services);
  await app.close();
  return routes;
}

/** A URL of a route, with what its parameters are called. */
function urlOf({ url }: Route, names: Record<string, string> = {}): string {
  return url.replace(/:(\w+)/g, (_, parameter: string) => names[parameter] ?? 'x');
}

/** What there is in {@link furnished}, by the parameters of routes. */
const THERE = { bundle: 'zebra', instance: 'yak', file: 'a.sh', revision: '1', tag: 'stable', key: 'k' };

/** Something of everything, with secrets in it. */
async function furnished(test: TestApp): Promise<void> {
  const { api } = test;
  await test.register('yak-2', { 'zebra-2/a.sh': '#!/bin/sh\n', 'zebra-2/h.py': kubePartHandler() });
  for (const [url, body] of [
    ['/bundles/zebra/parts/a.sh?template=true', '#!/bin/sh\necho {{ secrets.k }}{{ vars.k }}\n'],
    ['/bundles/zebra/parts/h.py', kubePartHandler()],
    ['/bundles/zebra/vars/k', 'v'],
    ['/bundles/zebra/secrets/k', 'of-the-bundle'],
    ['/bundles/zebra/tags/stable', { revision: 1 }],
    ['/instances/yak', { bundles: ['zebra'], vars: { k: 'w' }, secrets: { k: 's3same' } }],
  ] as const) {
    const { statusCode, body: said } = await api('PUT', url, body);
    assert.ok(statusCode < 300, said);
  }
  const { url } = (await api('GET', '/instances/yak')).json().status.stub;
  assert.equal((await test.boot(new URL(url).pathname)).statusCode, 200);
}

test('every route names a role: writes need an editor, and so does what a machine could be spoken for with', async (t) => {
  const test = await buildTestApp(t);
  const routes = await routesOf(test);
  assert.ok(routes.length > 60, `${routes.length} routes`);
  for (const { method, url, role } of routes) {
    assert.ok(ROLES.includes(role), `${method} ${url}`);
    const reads = method === 'GET' || method === 'HEAD';
    const keepsNothing = url.startsWith('/lint');
    if (!reads && !keepsNothing) assert.notEqual(role, 'viewer', `${method} ${url}`);
    if (/stub|user-data/.test(url)) assert.notEqual(role, 'viewer', `${method} ${url}`);
    if (/\/tokens(?!\/self)|audit|content$/.test(url)) assert.equal(role, 'admin', `${method} ${url}`);
  }
});

test('a route that names no role cannot be registered', async () => {
  const app = fastify();
  await app.register(async (scope) => {
    guard(scope, async () => assert.fail());
    assert.throws(() => scope.get('/x', async () => 'x'), /GET \/x names no role/);
    assert.throws(() => scope.post('/x', { config: {} }, async () => 'x'), /POST \/x names no role/);
    scope.get('/y', { config: { role: 'viewer' } }, async () => 'y');
  });
  await app.close();
});

test('every route: no token 401, a role too small 403, one that suffices is let through; nothing refused changes anything', async (t) => {
  const test = await buildTestApp(t);
  await furnished(test);
  const routes = await routesOf(test);
  const tokens = Object.fromEntries(await Promise.all(ROLES.map(async (role) => [role, await test.token(role)] as const)));
  const call = async (route: Route, query: string, headers: Record<string, string>) => {
    // What names nobody has, so that what is let through does nothing either.
    const url = urlOf(route, { tag: '1', revision: '7' });
    const { method } = route;
    const answer = await test.app.inject({ method: method as 'GET', url: `/api/v1${url}${query}`, headers });
    return { status: answer.statusCode, code: method === 'HEAD' || answer.body === '' ? '' : (answer.json().code ?? '') };
  };
  const before = await snapshot(test);
  for (const route of routes) {
    const what = `${route.method} ${route.url}`;
    for (const headers of [{}, { authorization: 'Bearer wrong' }])
      assert.equal((await call(route, '', headers)).status, 401, what);
    for (const role of ROLES) {
      const token = tokens[role] as { authorization: string };
      const { status, code } = await call(route, '', token);
      if (!roleSuffices(role, route.role)) {
        assert.deepEqual([status, code], [403, route.method === 'HEAD' ? '' : 'role_needed'], `${what} as ${role}`);
      } else assert.ok(status !== 401 && status !== 403 && status < 500, `${what} as ${role}: ${status} ${code}`);
      if (role === 'admin') continue;
      assert.equal((await call(route, '?force=true', token)).status, 403, `${what}?force=true as ${role}`);
    }
  }
  const route = { method: 'PUT', url: '/bundles/:bundle', role: 'editor' as const };
  const ask = (query: string, role: Role) => call(route, query, tokens[role] as { authorization: string });
  for (const query of [
    '?reveal=true',
    '?force=1',
    '?force',
    '?force=false&force=true',
    '?force=true&force=false',
    '?dryRun=true&force=TRUE',
  ])
    assert.deepEqual(await ask(query, 'editor'), { status: 403, code: 'role_needed' }, query);
  assert.equal((await ask('?force=false', 'editor')).status, 415);
  assert.equal((await ask('?force=true', 'admin')).status, 415);
  assert.equal(await snapshot(test), before);
});

test('every route: a token for other names is refused in the same words, whether there is such a thing or not', async (t) => {
  const test = await buildTestApp(t);
  await furnished(test);
  const before = await snapshot(test);
  const token = await test.token('admin', { bundles: ['nothing-*'], instances: ['nothing-*'] });
  const own = await snapshot(test);
  assert.notEqual(own, before);
  let scoped = 0;
  for (const route of await routesOf(test)) {
    const [there, nowhere, within] = await Promise.all(
      [
        THERE,
        { ...THERE, bundle: 'no', instance: 'no' },
        { ...THERE, bundle: 'nothing-1', instance: 'nothing-1', revision: '7' },
      ].map((names) =>
        test.app.inject({ method: route.method as 'GET', url: `/api/v1${urlOf(route, names)}`, headers: token }),
      ),
    );
    const what = `${route.method} ${route.url}`;
    if (!/:(bundle|instance)/.test(route.url)) {
      assert.ok(there?.statusCode !== 401 && (there?.statusCode ?? 500) < 500, what);
      assert.doesNotMatch(there?.body ?? '', /zebra|yak/, what);
      continue;
    }
    scoped++;
    assert.deepEqual([there?.statusCode, nowhere?.statusCode], [403, 403], what);
    assert.ok(within?.statusCode !== 403, `${what}: ${within?.body}`);
    if (route.method === 'HEAD') continue;
    const [{ requestId: _, ...one }, { requestId: __, ...other }] = [there?.json(), nowhere?.json()];
    assert.deepEqual(one, other, what);
    assert.equal(one.code, 'out_of_scope', what);
  }
  assert.ok(scoped > 40);
  assert.equal(await snapshot(test), own);
});

test('no read of a viewer shows a capability, a secret, or the digest of a document with secrets in it', async (t) => {
  const test = await buildTestApp(t);
  await furnished(test);
  const [instance, plain] = await Promise.all(['yak', 'yak-2'].map((name) => test.store.findInstance(name)));
  assert.ok(instance && plain);
  const { digest } = (await test.api('GET', '/instances/yak')).json().status.document;
  const hidden = [...[instance, plain].flatMap((each) => PURPOSES.map((purpose) => test.keys.capability(purpose, each)))];
  const forbidden = [...hidden, 's3same', 'of-the-bundle', digest, digest.slice(0, 12)];
  const [viewer, editor] = [await test.token('viewer'), await test.token('editor')];
  const { items } = (await test.api('GET', '/instances/yak/deliveries')).json();
  let seen = '';
  for (const route of await routesOf(test)) {
    // A wait lasts, and these clocks stand still; it tells lines of the timeline.
    if (route.method !== 'GET' || route.role !== 'viewer' || route.url.endsWith('/wait')) continue;
    for (const name of ['yak', 'yak-2'])
      for (const query of ['', '?format=text', `?from=delivery:${items[0].id}`, '?form=nocloud', '?from=0']) {
        const url = `${urlOf(route, { ...THERE, instance: name })}${query}`;
        const { body, statusCode, headers } = await test.api('GET', url, undefined, viewer);
        for (const text of forbidden) {
          const all = `${body}${JSON.stringify(headers)}`;
          assert.ok(!all.includes(text) && !all.includes(Buffer.from(text).toString('base64').slice(0, -4)), `${url}: ${text}`);
        }
        if (statusCode === 200) seen += body;
        assert.ok(statusCode < 500, url);
      }
  }
  assert.match(seen, /<hidden>/);
  assert.match(seen, /‹secret:k›/);
  assert.equal((await test.api('GET', '/instances/yak', undefined, editor)).json().status.document.digest, digest);
  assert.equal((await test.api('GET', '/instances/yak-2', undefined, viewer)).json().status.document.digest.length, 64);
  const preview = (await test.api('GET', '/instances/yak/preview', undefined, editor)).body;
  assert.ok(preview.includes(test.keys.capability('report', instance)));
});

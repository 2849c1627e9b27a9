import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { migrate } from '../../../src/store/migrate.ts';
import { createStore } from '../../../src/store/open.ts';
import { openSqlite } from '../../../src/store/sqlite.ts';
import { buildTestApp, refuses, snapshot } from '../../app.ts';

const SH = '#!/bin/sh\n';
const HOUR = 60 * 60_000;
const ISO = '2026-01-01T00:00:00.000Z';

interface Url {
  purpose: string;
  usedAt: string | null;
  works: boolean;
  effect: string;
  stub: { url: string; text: string } | null;
}

/** The app with a machine `vm`, its audit, and the paths of its URLs as they are now. */
async function machine(t: TestContext) {
  const database = await openSqlite(':memory:');
  await migrate(database);
  const app = await buildTestApp(t, { store: createStore(database) });
  await app.register('vm', { 'web/a.sh': SH });
  const seedStub = async () => (await app.api('GET', '/instances/vm/stub?form=nocloud')).body.trim();
  return {
    ...app,
    status: async () => (await app.api('GET', '/instances/vm')).json().status,
    include: async () => new URL((await app.api('GET', '/instances/vm')).json().status.stub.url).pathname,
    seed: async () => `${new URL((await seedStub()).replace('ds=nocloud;s=', '')).pathname}user-data`,
    audit: () => database.read((db) => db.selectFrom('audit').selectAll().where('action', '<>', 'put').orderBy('id').execute()),
  };
}

test('what is in force and why is answered at the registration, and stays so until somebody says otherwise', async (t) => {
  const { api } = await buildTestApp(t, {
    policyDefaults: { closeAfter: 'success', expiresAfter: HOUR, allowFrom: ['10.0.0.0/8'] },
  });
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  const put = await api('PUT', '/instances/vm', { bundles: ['web'] });
  assert.deepEqual(put.json().status.policy, {
    closeAfter: 'success',
    expiresAt: '2026-01-01T01:00:00.000Z',
    allowFrom: ['10.0.0.0/8'],
    afterClose: 'refuse',
    why: 'closes once the machine has reported success, as is the default here; it expires at 2026-01-01T01:00:00.000Z, as is the default here; only 10.0.0.0/8 may fetch, as is the default here',
  });
  assert.deepEqual(put.json().status.window, { open: true, closesAt: '2026-01-01T01:00:00.000Z' });
  assert.deepEqual(put.json().policy, {}, 'nothing is stated');
  const policy = {
    closeAfter: '90m',
    expiresAt: '2026-12-31T23:59:59+01:00',
    allowFrom: ['192.0.2.1/32'],
    afterClose: ['web'],
  };
  const stated = (await api('PUT', '/instances/vm', { bundles: ['web'], policy })).json();
  assert.deepEqual(stated.policy, { ...policy, expiresAt: '2026-12-31T22:59:59.000Z', allowFrom: ['192.0.2.1'] });
  assert.equal(stated.status.policy.closeAfter, '90m');
  const again = await api('PUT', '/instances/vm', { ...stated });
  assert.deepEqual([again.statusCode, again.json().changed], [200, false], 'GET, then PUT');
});

test('a policy that cannot be meant is refused, and nothing is stored', async (t) => {
  const app = await machine(t);
  await app.api('PUT', '/bundles/db/parts/a.yaml?template=true', '#cloud-config\nhostname: {{ secrets.name }}\n');
  await app.api('PUT', '/bundles/db/secrets/name', 'hunter2');
  await app.api(
    'PUT',
    '/bundles/bad/parts/a.pod',
    'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: x, image: x}]}\n',
  );
  const put = (policy: object) => ['PUT', '/instances/vm', { bundles: ['web'], policy }] as const;
  await refuses(app, [
    ['too short', put({ closeAfter: '1m' }), 422, 'bad_policy'],
    ['no duration', put({ closeAfter: 'soon' }), 422, 'bad_policy'],
    ['no time', put({ expiresAt: 'tomorrow' }), 422, 'bad_policy'],
    ['a network with host bits', put({ allowFrom: ['192.0.2.7/24'] }), 422, 'bad_policy'],
    ['one bad among good', put({ allowFrom: ['192.0.2.0/24', 'x'] }), 422, 'bad_policy'],
    ['a bundle twice', put({ afterClose: ['web', 'web@1'] }), 422, 'bad_policy'],
    ['a bundle that is not there', put({ afterClose: ['nix'] }), 422, 'unknown_bundle'],
    ['a revision that is not there', put({ afterClose: ['web@9'] }), 422, 'unknown_bundle'],
    ['no reference', put({ afterClose: ['../x'] }), 422, 'bad_reference'],
    ['secrets after the close', put({ afterClose: ['db'] }), 422, 'after_close_secrets'],
    ['what does not boot', put({ afterClose: ['bad'] }), 422, 'unhandled_part'],
    ['none at all', put({ afterClose: [] }), 400, 'bad_request'],
    ['an unknown field', put({ closeafter: '1h' }), 400, 'bad_request'],
    ['another type', put({ allowFrom: '192.0.2.0/24' }), 400, 'bad_request'],
    ['a patch', ['PATCH', '/instances/vm', { policy: { closeAfter: '1m' } }], 422, 'bad_policy'],
    ['a list', ['PUT', '/instances', [{ name: 'x', bundles: ['web'], policy: { closeAfter: '1m' } }]], 422, 'bad_policy'],
    [
      'a dry run',
      ['PUT', '/instances/vm?dryRun=true', { bundles: ['web'], policy: { afterClose: ['db'] } }],
      422,
      'after_close_secrets',
    ],
  ]);
});

test('a bundle that is served after the close is in use', async (t) => {
  const app = await machine(t);
  await app.api('PUT', '/bundles/late/parts/a.sh', SH);
  await app.api('PUT', '/bundles/late/tags/stable', { revision: 1 });
  await app.api('PATCH', '/instances/vm', { policy: { afterClose: ['late@stable'] } });
  await refuses(app, [
    ['the bundle', ['DELETE', '/bundles/late'], 409, 'in_use'],
    ['the tag', ['DELETE', '/bundles/late/tags/stable'], 409, 'in_use'],
  ]);
  await app.api('PATCH', '/instances/vm', { policy: null });
  assert.equal((await app.api('DELETE', '/bundles/late')).statusCode, 204);
});

test('what a policy would not come to is warned of', async (t) => {
  const { api } = await machine(t);
  const codes = async (policy: object) => {
    const { findings } = (await api('PUT', '/instances/vm', { bundles: ['web'], policy, track: false })).json().status;
    return findings.map(({ code }: { code: string }) => code);
  };
  assert.deepEqual(await codes({ expiresAt: '2025-01-01T00:00:00Z' }), ['window_shut']);
  assert.deepEqual(await codes({ closeAfter: 'success' }), ['success_untold']);
  assert.deepEqual(await codes({ closeAfter: '1h' }), []);
});

test('close: at once, said once, and the same stub opens again with reopen, counted from zero', async (t) => {
  const { api, boot, include, seed, status, tick } = await machine(t);
  const path = await include();
  await boot(path);
  await boot(await seed());
  tick(HOUR);
  const closed = (await api('POST', '/instances/vm/close')).json();
  assert.deepEqual(
    [closed.changed, closed.window],
    [true, { open: false, since: '2026-01-01T01:00:00.000Z', because: 'closed' }],
  );
  assert.deepEqual(
    closed.urls.map(({ purpose, usedAt, works }: Url) => [purpose, usedAt, works]),
    [
      ['include', ISO, false],
      ['seed', ISO, true],
    ],
  );
  assert.equal(new URL(closed.urls[0].stub.url).pathname, path);
  assert.equal((await boot(path)).statusCode, 410);
  assert.equal((await api('POST', '/instances/vm/close')).json().changed, false);

  const { version } = await status();
  const opened = (await api('POST', '/instances/vm/reopen?for=1h')).json();
  assert.deepEqual(opened.window, { open: true, closesAt: '2026-01-01T02:00:00.000Z' });
  assert.ok(opened.urls.every(({ works }: Url) => works));
  const { deliveries, version: after } = await status();
  assert.deepEqual([deliveries.count, deliveries.firstAt, after], [0, null, version]);
  assert.equal((await boot(path)).statusCode, 200);
  assert.equal((await status()).deliveries.count, 1);
  tick(HOUR);
  assert.equal((await boot(path)).statusCode, 410);
});

test('reopen without a time follows the policy; where that has passed it says so', async (t) => {
  const app = await machine(t);
  await app.api('PATCH', '/instances/vm', { policy: { expiresAt: '2026-01-01T01:00:00Z' } });
  app.tick(2 * HOUR);
  assert.equal((await app.boot(await app.include())).statusCode, 410);
  await refuses(app, [
    ['it stays shut', ['POST', '/instances/vm/reopen'], 409, 'expired'],
    ['no duration', ['POST', '/instances/vm/reopen?for=soon'], 400, 'bad_duration'],
    ['no duration', ['POST', '/instances/vm/reopen?for='], 400, 'bad_duration'],
  ]);
  assert.equal((await app.api('POST', '/instances/vm/reopen?for=10m')).statusCode, 200);
  assert.equal((await app.boot(await app.include())).statusCode, 200);
});

test('a change of the policy opens and shuts the window at once', async (t) => {
  const { api, boot, include, tick } = await machine(t);
  const path = await include();
  await boot(path);
  tick(HOUR);
  const fetch = async (policy: object | null) => {
    await api('PATCH', '/instances/vm', { policy });
    return (await boot(path, { remoteAddress: '198.51.100.9' })).statusCode;
  };
  assert.equal(await fetch({ closeAfter: '30m' }), 410);
  assert.equal(await fetch({ closeAfter: '2h' }), 200);
  assert.equal(await fetch({ closeAfter: '2h', expiresAt: '2026-01-01T00:30:00Z', allowFrom: ['10.0.0.0/8'] }), 403);
});

test('rotate: the old URLs are 404, the new ones work, and the answer says which they were', async (t) => {
  const { api, boot, include, seed, status, audit } = await machine(t);
  const old = { include: await include(), seed: await seed() };
  await boot(old.include);
  const before = await status();
  const rotated = await api('POST', '/instances/vm/rotate');
  const { urls } = rotated.json() as { urls: Url[] };
  assert.deepEqual(
    urls.map(({ purpose, usedAt, works }) => [purpose, usedAt, works]),
    [
      ['include', ISO, false],
      ['seed', null, false],
      ['report', null, false],
    ],
  );
  assert.ok(urls.every(({ effect }) => /old URL/.test(effect)));
  assert.equal(urls[0]?.stub?.text, (await api('GET', '/instances/vm/stub')).body);
  assert.equal(urls[1]?.stub?.text, (await api('GET', '/instances/vm/stub?form=nocloud')).body);
  assert.equal(urls[2]?.stub, null);
  for (const path of Object.values(old)) assert.equal((await boot(path)).statusCode, 404);
  for (const path of [await include(), await seed()]) assert.equal((await boot(path)).statusCode, 200);
  const after = await status();
  assert.equal(after.version, before.version + 1);
  assert.equal(rotated.headers.etag, `"${after.id}.${after.version}"`);
  const [line] = await audit();
  assert.deepEqual(
    [line?.actor, line?.action, line?.kind, line?.name, line?.before, line?.after, JSON.parse(line?.detail ?? '')],
    [
      'admin',
      'rotate',
      'instance',
      'vm',
      `${before.id}.${before.version}`,
      `${after.id}.${after.version}`,
      { purposes: ['include', 'seed', 'report'] },
    ],
  );
});

test('rotate one purpose leaves the others', async (t) => {
  const { api, boot, include, seed, keys, store } = await machine(t);
  const old = { include: await include(), seed: await seed() };
  const report = async () => keys.capability('report', (await store.findInstance('vm')) ?? assert.fail());
  const reporting = await report();
  const rotated = (await api('POST', '/instances/vm/rotate?purpose=include')).json();
  assert.deepEqual(
    rotated.urls.map(({ purpose }: Url) => purpose),
    ['include'],
  );
  assert.deepEqual([(await boot(old.include)).statusCode, (await boot(old.seed)).statusCode], [404, 200]);
  assert.equal(await report(), reporting);
  assert.equal((await api('POST', '/instances/vm/rotate?purpose=report')).statusCode, 200, 'needs no force');
  assert.notEqual(await report(), reporting);
});

test('a machine that booted from its seed loses it by force only', async (t) => {
  const app = await machine(t);
  const path = await app.seed();
  await app.boot(path);
  const { detail } = (await app.api('DELETE', '/instances/vm')).json();
  assert.match(detail, /^vm booted from its seed URL, .*SSH host keys.*\?force=true$/);
  await refuses(app, [
    ['rotate', ['POST', '/instances/vm/rotate'], 409, 'seed_in_use'],
    ['the seed', ['POST', '/instances/vm/rotate?purpose=seed'], 409, 'seed_in_use'],
    ['several', ['POST', '/instances/vm/rotate?purpose=report&purpose=seed'], 409, 'seed_in_use'],
    ['a trial', ['POST', '/instances/vm/rotate?dryRun=true'], 409, 'seed_in_use'],
    ['delete', ['DELETE', '/instances/vm'], 409, 'seed_in_use'],
    ['a trial', ['DELETE', '/instances/vm?dryRun=true'], 409, 'seed_in_use'],
  ]);
  assert.equal((await app.boot(path)).statusCode, 200);
  assert.equal((await app.api('POST', '/instances/vm/rotate?purpose=include')).statusCode, 200, 'the include is not it');
  assert.equal((await app.api('POST', '/instances/vm/rotate?force=true')).statusCode, 200);
  assert.equal((await app.boot(path)).statusCode, 404);
  assert.equal((await app.api('DELETE', '/instances/vm')).statusCode, 204, 'the new seed was not fetched');
  await app.api('PUT', '/instances/vm', { bundles: ['web'] });
  await app.boot(await app.seed());
  assert.equal((await app.api('DELETE', '/instances/vm?force=true')).statusCode, 204);
});

test('a trial changes nothing and says what it would come to', async (t) => {
  const app = await machine(t);
  const path = await app.include();
  await app.boot(path);
  const before = await snapshot(app);
  const closed = (await app.api('POST', '/instances/vm/close?dryRun=true')).json();
  assert.deepEqual([closed.changed, closed.window.because], [true, 'closed']);
  assert.equal(
    (await app.api('POST', '/instances/vm/reopen?for=1h&dryRun=true')).json().window.closesAt,
    '2026-01-01T01:00:00.000Z',
  );
  const rotated = (await app.api('POST', '/instances/vm/rotate?dryRun=true')).json();
  assert.deepEqual(
    rotated.urls.map(({ stub }: Url) => stub),
    [null, null, null],
  );
  assert.equal(await snapshot(app), before);
  assert.equal((await app.boot(path)).statusCode, 200);
  assert.deepEqual(await app.audit(), []);
});

test('conditions, names, methods and parameters are held to', async (t) => {
  const app = await machine(t);
  await app.api('PUT', '/instances/gone', { bundles: ['web'] });
  await app.api('DELETE', '/instances/gone');
  const { id, version } = await app.status();
  for (const verb of ['close', 'reopen', 'rotate']) {
    const url = `/instances/vm/${verb}`;
    await refuses(app, [
      ['an old version', ['POST', url, undefined, { 'if-match': '"x"' }], 412, 'etag_mismatch'],
      ['it exists', ['POST', url, undefined, { 'if-none-match': '*' }], 412, 'exists'],
      ['nobody', ['POST', `/instances/nix/${verb}`], 404, 'unknown_instance'],
      ['deleted', ['POST', `/instances/gone/${verb}`], 404, 'unknown_instance'],
      ['no name', ['POST', `/instances/VM/${verb}`], 400, 'bad_name'],
      ['an unknown parameter', ['POST', `${url}?fore=1h`], 400, 'bad_request'],
      ['no boolean', ['POST', `${url}?dryRun=maybe`], 400, 'bad_request'],
      ['another method', ['GET', url], 404, 'unknown_url'],
    ]);
  }
  await refuses(app, [
    ['an unknown purpose', ['POST', '/instances/vm/rotate?purpose=all'], 400, 'bad_request'],
    ['no purpose', ['POST', '/instances/vm/rotate?purpose='], 400, 'bad_request'],
  ]);
  const matched = { 'if-match': `"${id}.${version}"` };
  assert.equal((await app.api('POST', '/instances/vm/rotate', undefined, matched)).statusCode, 200);
  assert.equal((await app.api('POST', '/instances/vm/rotate', undefined, matched)).statusCode, 412, 'it noticed');
  assert.equal((await app.api('POST', '/instances/vm/close', 'whatever curl -d sends')).statusCode, 200);
});

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { NO_BOOT } from '../../../src/domain/boot.ts';
import type { Store } from '../../../src/domain/store.ts';
import { migrate } from '../../../src/store/migrate.ts';
import { createStore } from '../../../src/store/open.ts';
import { openSqlite } from '../../../src/store/sqlite.ts';
import { ANN } from '../../actor.ts';
import { buildTestApp, START } from '../../app.ts';

const SH = '#!/bin/sh\necho hello\n';
const SECRETIVE = '#cloud-config\nhostname: {{ secrets.name }}\n';
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const HERE = '198.51.100.7';
const THERE = '198.51.100.8';
const ALL = { after: null, limit: 1000 };
/** The order in which cloud-init's NoCloud asks. */
const SEED = ['network-config', 'meta-data', 'user-data', 'vendor-data'] as const;

interface Options {
  policy?: object;
  /** Stands between the services and the store. */
  around?: (store: Store) => Partial<Store>;
}

/** The app and one registered machine `vm`, what it fetches, and what is known of that. */
async function machine(t: TestContext, { policy = {}, around = () => ({}) }: Options = {}) {
  const database = await openSqlite(':memory:');
  await migrate(database);
  const store = createStore(database);
  const app = await buildTestApp(t, { store: { ...store, ...around(store) } });
  const path = await app.register('vm', { 'web/a.sh': SH });
  const put = await app.api('PATCH', '/instances/vm', { policy });
  assert.equal(put.statusCode, 200, put.body);
  const seedStub = (await app.api('GET', '/instances/vm/stub?form=nocloud')).body;
  const seed = new URL(seedStub.trim().replace('ds=nocloud;s=', '')).pathname;
  const get = async (url: string, remoteAddress = HERE, method: 'GET' | 'HEAD' = 'GET') => {
    const answer = await app.boot(url, { remoteAddress, method });
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
    assert.equal(answer.headers['cache-control'], 'no-store');
    return { status: answer.statusCode, body: answer.body, length: Number(answer.headers['content-length']) };
  };
  return {
    ...app,
    path,
    seed,
    get,
    fetch: (address?: string) => get(path, address),
    head: (address?: string) => get(path, address, 'HEAD'),
    rows: async () => (await store.listDeliveries('vm', ALL)).reverse(),
    alarms: async () => (await store.listAlarms('vm', ALL)).reverse(),
    /** As if the machine had reported that all is well. */
    succeed: (at: number) =>
      database.write(async (db) => {
        const boot = JSON.stringify({ ...NO_BOOT, deliveredAt: at, readyAt: at });
        await db.updateTable('instance').set({ boot }).execute();
      }),
  };
}

test('cloud-init’s eleven tries are all answered, and the window counts from the first', async (t) => {
  const { api, fetch, tick, rows, alarms } = await machine(t, { policy: { closeAfter: '2m' } });
  for (let tried = 1; tried <= 11; tried++) {
    assert.equal((await fetch()).status, 200, `try ${tried}`);
    tick(10_000);
  }
  assert.deepEqual(
    (await rows()).map(({ counted }) => counted),
    [true, ...Array(10).fill(false)],
  );
  const { window } = (await api('GET', '/instances/vm')).json().status;
  assert.deepEqual(window, { open: true, closesAt: '2026-01-01T00:02:00.000Z' });
  tick(10_000);
  assert.equal((await fetch()).status, 410);
  assert.deepEqual(
    (await alarms()).map(({ kind, count, address }) => [kind, count, address]),
    [['late_fetch', 1, HERE]],
  );
});

test('what was broken off half way is fetched again although the window closed meanwhile, from there only, for two minutes', async (t) => {
  const { api, fetch, head, tick, rows, succeed } = await machine(t, { policy: { closeAfter: 'success' } });
  const first = await fetch();
  await succeed(START);
  assert.equal((await api('GET', '/instances/vm')).json().status.window.because, 'succeeded');
  tick(2 * MINUTE - 1);
  assert.deepEqual(await fetch(), first);
  assert.equal((await head()).status, 200);
  assert.equal((await fetch(THERE)).status, 410);
  assert.equal((await head(THERE)).status, 410);
  tick(1);
  assert.equal((await fetch()).status, 410);
  assert.deepEqual(
    (await rows()).map(({ counted, outcome, refusal }) => [counted, outcome, refusal]),
    [
      [true, 'delivered', null],
      [false, 'delivered', null],
      [false, 'refused', 'succeeded'],
      [false, 'refused', 'succeeded'],
    ],
  );
});

test('a close by hand ends even a repeat', async (t) => {
  const { api, fetch } = await machine(t);
  assert.equal((await fetch()).status, 200);
  await api('POST', '/instances/vm/close');
  assert.equal((await fetch()).status, 410);
});

test('a document with secrets closes an hour after its first delivery, one without never', async (t) => {
  const { api, get, fetch, tick, register } = await machine(t);
  await api('PUT', '/bundles/db/parts/a.sh', SH);
  await api('PUT', '/bundles/db/secrets/name', 'hunter2');
  const secretive = await register('other', { 'plain/a.sh': SH });
  await api('PUT', '/bundles/db/parts/a.yaml?template=true', SECRETIVE);
  const put = await api('PUT', '/instances/other', { bundles: ['db'] });
  assert.match(put.json().status.policy.why, /^closes 1h after the first delivery, because secrets are in the document$/);
  assert.deepEqual(put.json().status.window, { open: true, closesAt: null });
  assert.match((await get(secretive)).body, /hunter2/);
  assert.equal((await fetch()).status, 200);
  tick(HOUR - 1);
  assert.equal((await get(secretive)).status, 200);
  tick(1);
  // That one was counted, so it is a repeat; from elsewhere it is none.
  assert.equal((await get(secretive)).status, 200);
  assert.equal((await get(secretive, THERE)).status, 410);
  assert.equal((await fetch()).status, 200);
  tick(1000 * HOUR);
  assert.equal((await get(secretive)).status, 410);
  assert.equal((await fetch()).status, 200);
});

test('a refused include is one line that says what to do and nothing of the URL, and the same for HEAD', async (t) => {
  const { api, fetch, head, path, rows, alarms, log } = await machine(t, { policy: { allowFrom: ['198.51.100.7'] } });
  const refused = await fetch(THERE);
  assert.deepEqual(refused, {
    status: 403,
    body: 'the policy of vm does not allow this address: an operator can add it to allowFrom\n',
    length: refused.body.length,
  });
  assert.equal((await head(THERE)).status, 403);
  await api('POST', '/instances/vm/close');
  const late = await fetch();
  assert.equal(late.status, 410);
  assert.match(late.body, /^vm is not given its document any more: [^\n]*POST \/api\/v1\/instances\/vm\/reopen\?for=1h\n$/);
  assert.equal((await head()).status, 410);
  assert.equal((await fetch(THERE)).status, 403, 'the address goes before the window');
  assert.deepEqual(
    (await rows()).map(({ outcome, refusal, digest, bytes }) => [outcome, refusal, digest, bytes]),
    [
      ['refused', 'address', null, 0],
      ['refused', 'closed', null, 0],
      ['refused', 'address', null, 0],
    ],
    'HEAD is no row',
  );
  assert.deepEqual(
    (await alarms()).map(({ kind, address, count }) => [kind, address, count]),
    [
      ['foreign_address', THERE, 2],
      ['late_fetch', HERE, 1],
    ],
  );
  const capability = path.split('/')[2] ?? '';
  assert.ok(!`${refused.body}${late.body}${log()}`.includes(capability));
});

test('a seed that asks for four documents at every boot keeps datasource and identity with the window shut', async (t) => {
  const { api, get, seed, rows, alarms, tick } = await machine(t);
  await api('PATCH', '/instances/vm', { vendorData: '#cloud-config\n{}\n', networkConfig: 'version: 2\n' });
  const boot = async (address = HERE) => {
    const answers: Record<string, string> = {};
    for (const document of SEED) {
      const { status, body } = await get(`${seed}${document}`, address);
      assert.equal(status, 200, document);
      answers[document] = body;
    }
    return answers;
  };
  const first = await boot();
  assert.match(first['user-data'] ?? '', /echo hello/);
  await api('POST', '/instances/vm/close');
  tick(HOUR);
  const second = await boot();
  assert.match(second['meta-data'] ?? '', /^instance-id: i-/);
  assert.deepEqual(second, { ...first, 'user-data': '' }, 'all but the document');
  const looked = await get(`${seed}user-data`, HERE, 'HEAD');
  assert.deepEqual([looked.status, looked.length], [200, 0]);
  await api('POST', '/instances/vm/reopen');
  await api('PATCH', '/instances/vm', { policy: { allowFrom: [HERE], afterClose: ['web'] } });
  assert.deepEqual(
    await boot(THERE),
    second,
    'an address that is not allowed, and what is served to includes is not for seeds',
  );
  assert.deepEqual(
    (await rows()).map(({ purpose, outcome, refusal, bytes }) => [purpose, outcome, refusal, bytes > 0]),
    [
      ['seed', 'delivered', null, true],
      ['seed', 'refused', 'closed', false],
      ['seed', 'refused', 'address', false],
    ],
    'only user-data is a row',
  );
  assert.deepEqual(
    (await alarms()).map(({ kind, address }) => [kind, address]),
    [
      ['late_fetch', HERE],
      ['foreign_address', THERE],
    ],
  );
});

test('afterClose: its bundles are served instead, counted as nothing, and an alarm all the same', async (t) => {
  const { api, fetch, head, rows, alarms, tick } = await machine(t);
  await api('PUT', '/bundles/late/parts/l.sh', '#!/bin/sh\necho late\n');
  const policy = { closeAfter: '2m', afterClose: ['late'] };
  assert.equal((await api('PATCH', '/instances/vm', { policy })).statusCode, 200);
  assert.match((await fetch()).body, /echo hello/);
  tick(HOUR);
  const late = await fetch();
  assert.deepEqual([late.status, /echo late/.test(late.body), /echo hello/.test(late.body)], [200, true, false]);
  const looked = await head();
  assert.deepEqual([looked.status, looked.length], [200, late.length]);
  const row = (await rows()).at(-1);
  assert.deepEqual(
    [row?.outcome, row?.refusal, row?.counted, row?.revisions, row?.holdsSecrets],
    ['delivered', 'delivered', false, ['late@1'], false],
  );
  const { deliveries } = (await api('GET', '/instances/vm')).json().status;
  assert.deepEqual(deliveries, { count: 1, firstAt: '2026-01-01T00:00:00.000Z', lastAt: '2026-01-01T00:00:00.000Z' });
  assert.equal((await alarms()).length, 1);
});

test('afterClose bundles that hold secrets by now, or cannot be rendered, are not served', async (t) => {
  const { api, fetch } = await machine(t);
  await api('PUT', '/bundles/late/parts/l.sh', '#!/bin/sh\necho late\n');
  await api('PATCH', '/instances/vm', { policy: { afterClose: ['late'] } });
  await api('POST', '/instances/vm/close');
  assert.equal((await fetch()).status, 200);
  await api('PUT', '/bundles/late/secrets/name', 'hunter2');
  assert.equal((await api('PUT', '/bundles/late/parts/s.yaml?template=true', SECRETIVE)).statusCode, 201);
  const secretive = await fetch();
  assert.deepEqual([secretive.status, secretive.body.includes('hunter2')], [410, false]);
  await api('PUT', '/bundles/late/parts/s.yaml?template=true', '#cloud-config\nhostname: {{ vars.nobody }}\n');
  assert.equal((await fetch()).status, 410);
  await api('DELETE', '/bundles/late/parts/s.yaml');
  assert.equal((await fetch()).status, 200);
});

test('a refused fetch costs no rendering', async (t) => {
  let looks = 0;
  const { api, fetch, tick } = await machine(t, {
    policy: { closeAfter: '2m' },
    around: (store) => ({
      resolveReferences: (references) => {
        looks++;
        return store.resolveReferences(references);
      },
    }),
  });
  await fetch();
  tick(HOUR);
  looks = 0;
  assert.equal((await fetch()).status, 410);
  await api('PATCH', '/instances/vm', { policy: { allowFrom: [THERE] } });
  looks = 0;
  assert.equal((await fetch()).status, 403);
  assert.equal(looks, 0);
});

test('a close, a rotation and a change while a document is rendered are heeded, and no row tells otherwise', async (t) => {
  let during: (() => Promise<unknown>) | null = null;
  const { api, fetch, rows, alarms } = await machine(t, {
    around: (store) => ({
      async resolveReferences(references) {
        const event = during;
        during = null;
        await event?.();
        return store.resolveReferences(references);
      },
    }),
  });
  const meanwhile = (event: () => Promise<unknown>) => {
    during = event;
    return fetch();
  };
  const changed = await meanwhile(() => api('PATCH', '/instances/vm', { metaData: { x: 1 } }));
  assert.equal(changed.status, 200);
  const closed = await meanwhile(() => api('POST', '/instances/vm/close'));
  assert.deepEqual([closed.status, closed.body.includes('echo hello')], [410, false]);
  await api('POST', '/instances/vm/reopen');
  const moved = await meanwhile(() => api('PATCH', '/instances/vm', { policy: { allowFrom: [THERE] } }));
  assert.equal(moved.status, 403);
  await api('PATCH', '/instances/vm', { policy: null });
  const rotated = await meanwhile(() => api('POST', '/instances/vm/rotate'));
  assert.deepEqual([rotated.status, rotated.body], [404, 'not found\n']);
  assert.deepEqual(
    (await rows()).map(({ outcome, refusal, instanceVersion }) => [outcome, refusal, instanceVersion]),
    [
      ['delivered', null, 2],
      ['refused', 'closed', 2],
      ['refused', 'address', 3],
    ],
  );
  assert.deepEqual(
    (await alarms()).map(({ kind }) => kind),
    ['late_fetch', 'foreign_address', 'old_stub'],
  );
});

test('an instance that changes without end is our trouble: asked again', async (t) => {
  let changing = false;
  let renders = 0;
  const app = await machine(t, {
    around: (store) => ({
      async resolveReferences(references) {
        if (changing) {
          renders++;
          const { closedAt: _, ...instance } = (await store.findInstance('vm')) ?? assert.fail();
          const spec = { ...instance, labels: { n: `${renders}` } };
          await store.putInstances([{ name: 'vm', spec, freshId: '', expect: undefined }], { at: START, by: ANN });
        }
        return store.resolveReferences(references);
      },
    }),
  });
  changing = true;
  assert.equal((await app.fetch()).status, 503);
  assert.equal(renders, 5);
  assert.deepEqual(await app.rows(), []);
});

test('a second machine on one stub is served, and an alarm while the first is fresh', async (t) => {
  const { fetch, alarms, tick, api } = await machine(t);
  await fetch(HERE);
  await fetch(HERE);
  assert.equal((await fetch(THERE)).status, 200);
  await fetch(THERE);
  tick(5 * MINUTE);
  await fetch(THERE);
  assert.deepEqual(
    (await alarms()).map(({ kind, address, count }) => [kind, address, count]),
    [['second_machine', THERE, 1]],
  );
  await api('POST', '/instances/vm/reopen');
  await fetch(HERE);
  tick(HOUR);
  await fetch(THERE);
  assert.equal((await alarms()).length, 1, 'another window, and an hour later: another boot');
});

test('a burst is one alarm with its count, one log line, and another ten minutes later is another', async (t) => {
  const { api, fetch, alarms, tick, log, path } = await machine(t);
  await api('POST', '/instances/vm/close');
  for (let tried = 0; tried < 11; tried++) {
    await fetch();
    tick(MINUTE);
  }
  await Promise.all(Array.from({ length: 20 }, () => fetch()));
  assert.deepEqual(
    (await alarms()).map(({ count, at, lastAt }) => [count, lastAt - at]),
    [[31, 11 * MINUTE]],
  );
  tick(10 * MINUTE);
  await fetch();
  assert.deepEqual(
    (await alarms()).map(({ count }) => count),
    [31, 1],
  );
  const lines = log()
    .split('\n')
    .filter((line) => line.includes('"alarm: '));
  assert.equal(lines.length, 2);
  const { level, instance, kind, address } = JSON.parse(lines[0] ?? '');
  assert.deepEqual([level, instance, kind, address], [40, 'vm', 'late_fetch', HERE]);
  assert.ok(!log().includes(path.split('/')[2] ?? ''));
});

test('an old stub is 404 as ever, an alarm of its instance, and written at most once a second', async (t) => {
  let writes = 0;
  const { api, get, path, seed, alarms, tick, rows } = await machine(t, {
    around: (store) => ({
      recordAlarm: (raised) => {
        writes++;
        return store.recordAlarm(raised);
      },
    }),
  });
  await api('POST', '/instances/vm/rotate');
  for (let tried = 0; tried < 50; tried++) {
    const { status, body } = await get(tried % 2 ? path : `${seed}meta-data`, HERE, tried % 3 ? 'GET' : 'HEAD');
    assert.deepEqual([status, tried % 3 ? body : 'not found\n'], [404, 'not found\n']);
  }
  assert.equal(writes, 1);
  tick(1000);
  await get(path);
  assert.equal(writes, 2);
  assert.deepEqual(
    (await alarms()).map(({ kind, count }) => [kind, count]),
    [['old_stub', 51]],
  );
  for (let n = 0; n < 200; n++) await get(path, `2001:db8::${n.toString(16)}`);
  assert.ok(writes <= 12, `${writes} writes in one second, from 200 addresses`);
  await api('DELETE', '/instances/vm');
  tick(1000);
  assert.equal((await get(new URL(path, 'http://x').pathname, THERE)).status, 404);
  assert.equal((await alarms()).at(-1)?.address, THERE, 'of a deleted instance, too');
  assert.deepEqual(await rows(), []);
});

test('an alarm that cannot be written changes no answer', async (t) => {
  const { api, get, path } = await machine(t, { around: () => ({ recordAlarm: () => Promise.reject(new Error('away')) }) });
  await api('POST', '/instances/vm/rotate');
  assert.deepEqual(await get(path), { status: 404, body: 'not found\n', length: 10 });
});

test('a capability that is not exactly that one opens nothing, whatever is wrong with it, and is no alarm', async (t) => {
  const test = await machine(t);
  await test.register('other', { 'web/b.sh': SH });
  const capability = test.path.split('/')[2] ?? '';
  const seed = test.seed.split('/')[2] ?? '';
  const { keys, store } = test;
  const vm = (await store.findInstance('vm')) ?? assert.fail();
  const report = keys.capability('report', vm);
  const swapped = [...capability].map((c) => (c === c.toUpperCase() ? c.toLowerCase() : c.toUpperCase())).join('');
  const other = keys.capability('include', (await store.findInstance('other')) ?? assert.fail());
  const wrong = {
    truncated: capability.slice(0, -1),
    'a quarter of it': capability.slice(0, 10),
    extended: `${capability}A`,
    'in another case': swapped,
    'percent-encoded twice': `%25${capability.charCodeAt(0).toString(16)}${capability.slice(1)}`,
    doubled: capability + capability,
    'doubled with a slash': `${capability}/${capability}`,
    'with a dot segment': `./${capability.slice(1)}`,
    'its id with another instance’s MAC': capability.slice(0, 16) + other.slice(16),
    'another’s id with its MAC': other.slice(0, 16) + capability.slice(16),
    'of the seed': seed,
    'for reports': report,
    'with white space': `%20${capability}`,
    'of standard base64': capability.replaceAll('-', '+').replaceAll('_', '%2F').slice(0, 39).concat('='),
  };
  for (const [what, text] of Object.entries(wrong))
    for (const method of ['GET', 'HEAD'] as const) {
      const { status, body } = await test.get(`/i/${text}/user-data`, HERE, method);
      assert.deepEqual([status, method === 'HEAD' ? 'not found\n' : body], [404, 'not found\n'], what);
    }
  for (const document of SEED)
    for (const text of [capability, report, `${seed}A`, seed.slice(1)])
      assert.deepEqual(await test.get(`/s/${text}/${document}`), { status: 404, body: 'not found\n', length: 10 });
  assert.deepEqual([await test.rows(), await test.alarms()], [[], []]);
  for (const text of [...Object.values(wrong), capability]) assert.ok(!test.log().includes(text), 'nothing of it is logged');
});

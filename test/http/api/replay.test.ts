import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { sha256 } from '../../../src/domain/bundle.ts';
import { unavailable } from '../../../src/domain/errors.ts';
import { SPECS_KEPT, type Store } from '../../../src/domain/store.ts';
import { RENDERER_VERSION } from '../../../src/render/document.ts';
import type { Database } from '../../../src/store/database.ts';
import { migrate } from '../../../src/store/migrate.ts';
import { createStore } from '../../../src/store/open.ts';
import { openSqlite } from '../../../src/store/sqlite.ts';
import { ANN } from '../../actor.ts';
import { buildTestApp, refuses, type TestApp } from '../../app.ts';

const HANDLER = `#part-handler
def list_types():
    return ['text/x-bootbundle-config']


def handle_part(data, ctype, filename, payload):
    pass
`;
const TEMPLATE = '#!/bin/sh\necho {{ vars.user }} {{ labels.site }} {{ secrets.shared | shell }} {{ secrets.own | shell }}\n';
const SPEC = { bundles: ['web', 'site'], vars: { user: 'ann' }, labels: { site: 'fra1' } };

interface Bench extends TestApp {
  database: Database;
  /** The path that the machine fetches now. */
  path(): Promise<string>;
  /** Fetches as the machine would. @returns what it got, and the row's id */
  fetch(): Promise<{ bytes: Buffer; id: number }>;
  /** Replays as an admin. */
  replay(id: number): ReturnType<TestApp['api']>;
}

/** `vm`, whose document holds two secrets, its bundle's and its own, and its report URL. */
async function bench(t: TestContext, around: Partial<Store> = {}): Promise<Bench> {
  const database = await openSqlite(':memory:');
  await migrate(database);
  const app = await buildTestApp(t, { store: { ...createStore(database), ...around } });
  const { api, boot } = app;
  await api('PUT', '/bundles/web/parts/10-handler.py', HANDLER);
  await api('PUT', '/bundles/web/parts/20-run.sh?template=true', TEMPLATE);
  await api('PUT', '/bundles/web/secrets/shared', 'hunter2');
  await api('PUT', '/bundles/site/parts/30-site.sh', '#!/bin/sh\necho one\n');
  const { statusCode, body } = await api('PUT', '/instances/vm', { ...SPEC, secrets: { own: 'its-own' } });
  assert.equal(statusCode, 201, body);
  const path = async () => new URL((await api('GET', '/instances/vm')).json().status.stub.url).pathname;
  return {
    ...app,
    database,
    path,
    async fetch() {
      const { statusCode, rawPayload } = await boot(await path());
      assert.equal(statusCode, 200);
      const [{ id, digest }] = (await api('GET', '/instances/vm/deliveries?limit=1')).json().items;
      assert.equal(digest, sha256(rawPayload));
      return { bytes: rawPayload, id };
    },
    replay: (id) => api('GET', `/instances/vm/deliveries/${id}/user-data?reveal=true`),
  };
}

test('a delivery is replayed to the last byte, whatever became of what it was made of', async (t) => {
  const { api, fetch, replay, tick } = await bench(t);
  const first = await fetch();
  const changes: [string, () => Promise<{ statusCode: number; body: string }>][] = [
    ['nothing', () => api('GET', '/instances/vm')],
    ['a part', () => api('PUT', '/bundles/site/parts/30-site.sh', '#!/bin/sh\necho two\n')],
    ['a handler', () => api('PUT', '/bundles/web/parts/10-handler.py', `${HANDLER}# more\n`)],
    ['the bundle’s secret', () => api('PUT', '/bundles/web/secrets/shared', 'hunter3')],
    ['its own secret', () => api('PUT', '/instances/vm/secrets/own', 'another')],
    [
      'vars, labels, references',
      () => api('PUT', '/instances/vm', { bundles: ['web'], vars: { user: 'bob' }, labels: { site: 'b' } }),
    ],
    ['its own secret goes', () => api('PUT', '/bundles/web/parts/20-run.sh', '#!/bin/sh\necho {{ secrets.shared | shell }}\n')],
    ['and is gone', () => api('DELETE', '/instances/vm/secrets/own')],
    ['no secret at all', () => api('PUT', '/bundles/web/parts/20-run.sh', '#!/bin/sh\n')],
    ['the bundle’s secret is gone', () => api('DELETE', '/bundles/web/secrets/shared')],
    ['it is deleted', () => api('DELETE', '/instances/vm')],
    ['its bundles are deleted', () => api('DELETE', '/bundles/web')],
    ['and the other one', () => api('DELETE', '/bundles/site')],
    ['a new bundle of that name', () => api('PUT', '/bundles/web/parts/a.sh', '#!/bin/sh\n')],
    ['a new life of its name, with new URLs', () => api('PUT', '/instances/vm', { bundles: ['web'] })],
  ];
  const delivered = new Map([[first.id, first.bytes]]);
  for (const [what, change] of changes) {
    const { statusCode, body } = await change();
    assert.ok(statusCode < 300, `${what}: ${body}`);
    tick(1000);
    for (const [id, bytes] of delivered) {
      const answer = await replay(id);
      assert.equal(answer.statusCode, 200, `${what}: ${answer.body}`);
      assert.ok(answer.rawPayload.equals(bytes), `${what}: delivery ${id}`);
    }
    if ((await api('GET', '/instances/vm')).statusCode === 404) continue;
    const { id, bytes } = await fetch();
    delivered.set(id, bytes);
  }
  assert.ok(new Set([...delivered.values()].map((bytes) => sha256(bytes))).size > 8);
});

test('it comes with its digest as entity tag, and as text that no browser runs', async (t) => {
  const { api, fetch } = await bench(t);
  const { id, bytes } = await fetch();
  const url = `/instances/vm/deliveries/${id}/user-data?reveal=true`;
  const { headers } = await api('GET', url);
  assert.equal(headers.etag, `"${sha256(bytes)}"`);
  assert.deepEqual(
    [headers['content-type'], headers['x-content-type-options'], headers['cache-control']],
    ['text/plain; charset=utf-8', 'nosniff', 'no-store'],
  );
  assert.equal((await api('GET', url, undefined, { 'if-none-match': String(headers.etag) })).statusCode, 304);
});

test('one row of the ledger, of a deleted machine too', async (t) => {
  const { api, fetch } = await bench(t);
  const { id } = await fetch();
  const [listed] = (await api('GET', '/instances/vm/deliveries')).json().items;
  await api('DELETE', '/instances/vm');
  const { body, ...answer } = await api('GET', `/instances/vm/deliveries/${id}`);
  assert.equal(answer.statusCode, 200);
  assert.deepEqual(JSON.parse(body), listed);
  assert.equal(listed.holdsSecrets, true);
  assert.ok(!('inputs' in listed));
});

test('secrets are revealed only when that is said, and the audit knows of it', async (t) => {
  const { api, fetch, database, log } = await bench(t);
  const { id, bytes } = await fetch();
  const audit = () => database.read((db) => db.selectFrom('audit').selectAll().where('action', '=', 'reveal').execute());
  const refused = await api('GET', `/instances/vm/deliveries/${id}/user-data`);
  assert.deepEqual([refused.statusCode, refused.json().code], [403, 'reveal_needed']);
  assert.deepEqual(await audit(), []);
  await api('GET', `/instances/vm/deliveries/${id}/user-data?reveal=true`);
  const [line, ...more] = await audit();
  assert.deepEqual(more, []);
  assert.deepEqual(
    [line?.actor, line?.role, line?.action, line?.kind, line?.name, JSON.parse(line?.detail ?? '')],
    ['admin', 'admin', 'reveal', 'instance', 'vm', { delivery: id, digest: sha256(bytes) }],
  );
  assert.match(log(), /"a delivered document with its secrets was revealed"/);
  assert.doesNotMatch(log() + JSON.stringify(line), /hunter2|its-own/);
});

test('nothing is revealed that the audit could not be told', async (t) => {
  const { api, fetch } = await bench(t, { recordAudit: () => Promise.reject(unavailable('database_busy', 'busy')) });
  const { id } = await fetch();
  const answer = await api('GET', `/instances/vm/deliveries/${id}/user-data?reveal=true`);
  assert.deepEqual([answer.statusCode, answer.json().code], [503, 'database_busy']);
  assert.doesNotMatch(answer.body, /hunter2|its-own/);
});

test('a document without secrets needs no reveal, and nobody is told', async (t) => {
  const { register, boot, api } = await buildTestApp(t);
  const { rawPayload } = await boot(await register('plain', { 'web/a.sh': '#!/bin/sh\n' }));
  const [{ id }] = (await api('GET', '/instances/plain/deliveries')).json().items;
  assert.ok((await api('GET', `/instances/plain/deliveries/${id}/user-data`)).rawPayload.equals(rawPayload));
});

/** What is done after a delivery, and why it is not replayed then. */
const CAUSES: [what: string, spoil: (bench: Bench, id: number) => Promise<unknown>, why: RegExp][] = [
  [
    'a row of before the ledger kept what is needed',
    ({ database }) => database.write((db) => db.updateTable('delivery').set({ inputs: null }).execute()),
    /its row is from before the ledger kept/,
  ],
  [
    'too many changes since',
    async ({ store }) => {
      const spec = await store.findSpec('vm', 1);
      assert.ok(spec);
      for (let index = 0; index < SPECS_KEPT; index++) {
        const changed = { ...spec, labels: { site: `${index}` } };
        await store.putInstances([{ name: 'vm', spec: changed, freshId: '', expect: undefined }], { at: 1, by: ANN });
      }
    },
    /what the instance stated then \(its version 1\) is not kept/,
  ],
  [
    'a purge',
    async ({ api }) => {
      await api('PUT', '/bundles/site/parts/30-site.sh', '#!/bin/sh\necho two\n');
      assert.equal((await api('DELETE', '/bundles/site/revisions/1/content')).statusCode, 200);
    },
    /the content of site@1 was purged/,
  ],
  [
    'another version of the renderer',
    ({ database }) =>
      database.write(async (db) => {
        const { inputs } = await db.selectFrom('delivery').select('inputs').executeTakeFirstOrThrow();
        const older = JSON.stringify({ ...JSON.parse(inputs ?? ''), renderer: RENDERER_VERSION - 1 });
        await db
          .updateTable('delivery')
          .set({ inputs: older, digest: '0'.repeat(64) })
          .execute();
      }),
    /another version of bootbundle rendered it \(renderer \d+, now \d+\)/,
  ],
  [
    'a secret of then that is kept no longer',
    async ({ store }) => {
      const many = Array.from({ length: 251 }, (_, index) => `s${index}`);
      for (let round = 0; round < 5; round++) {
        const { secretsVersion: base = 0 } = (await store.findBundle('web')) ?? {};
        const value = { sealed: Buffer.from('x'), bytes: 1, endsWithNewline: false };
        const changes = new Map([...many, 'shared'].map((name) => [name, value]));
        await store.putBundleSecrets('web', changes, { base, at: 1, by: ANN });
      }
    },
    /a secret that the bundle web had then is gone: of its old values only the last 1000 are kept/,
  ],
  [
    'a secret that opens with no key',
    ({ database }) =>
      database.write((db) =>
        db
          .updateTable('secret')
          .set({ sealed: Buffer.from('x') })
          .execute(),
      ),
    /opens with no key of BOOTBUNDLE_KEY/,
  ],
  [
    'a report URL of another key',
    ({ database }) =>
      database.write((db) =>
        db
          .updateTable('delivery')
          .set({ digest: '0'.repeat(64) })
          .execute(),
      ),
    /comes out otherwise, most likely because the key/,
  ],
];

for (const [what, spoil, why] of CAUSES)
  test(`not replayable: ${what}; it says so, and gives nothing`, async (t) => {
    const test = await bench(t);
    const { id } = await test.fetch();
    assert.equal((await test.replay(id)).statusCode, 200);
    await spoil(test, id);
    const answer = await test.replay(id);
    assert.deepEqual([answer.statusCode, answer.json().code], [409, 'not_replayable'], answer.body);
    assert.match(answer.json().detail, why);
    assert.doesNotMatch(answer.body, /hunter2|its-own/);
  });

test('another renderer that makes the same bytes is as good', async (t) => {
  const { database, fetch, replay } = await bench(t);
  const { id, bytes } = await fetch();
  await database.write(async (db) => {
    const { inputs } = await db.selectFrom('delivery').select('inputs').executeTakeFirstOrThrow();
    await db
      .updateTable('delivery')
      .set({ inputs: JSON.stringify({ ...JSON.parse(inputs ?? ''), renderer: 1 }) })
      .execute();
  });
  assert.ok((await replay(id)).rawPayload.equals(bytes));
});

test('pin sets an instance back to what it got, and says what changes', async (t) => {
  const { api, fetch, database } = await bench(t);
  const first = await fetch();
  await api('PUT', '/bundles/site/parts/30-site.sh', '#!/bin/sh\necho two\n');
  await api('PUT', '/bundles/other/parts/a.sh', '#!/bin/sh\n');
  const vars = { user: 'bob' };
  await api('PUT', '/instances/vm', { ...SPEC, bundles: ['other', 'site', 'web'], vars, metaData: { x: 1 } });
  const { headers } = await api('GET', '/instances/vm');
  const url = `/instances/vm/deliveries/${first.id}/pin`;
  const pinned = { instance: 'vm', delivery: first.id, before: ['other', 'site', 'web'], after: ['web@2', 'site@1'] };

  const dry = await api('POST', `${url}?dryRun=true`);
  assert.deepEqual(dry.json(), { ...pinned, changed: true, findings: [] });
  assert.equal((await api('GET', '/instances/vm')).headers.etag, headers.etag);

  const stale = await api('POST', url, undefined, { 'if-match': '"0.1"' });
  assert.deepEqual([stale.statusCode, stale.json().code], [412, 'etag_mismatch']);
  const answer = await api('POST', url, undefined, { 'if-match': String(headers.etag) });
  assert.deepEqual([answer.statusCode, answer.json()], [200, { ...pinned, changed: true, findings: [] }]);
  const now = await api('GET', '/instances/vm');
  assert.equal(answer.headers.etag, now.headers.etag);
  const { bundles, vars: kept, labels, metaData } = now.json();
  assert.deepEqual(
    { bundles, kept, labels, metaData },
    { bundles: pinned.after, kept: vars, labels: SPEC.labels, metaData: { x: 1 } },
  );
  await api('PUT', '/instances/vm/vars/user', 'ann');
  assert.ok((await fetch()).bytes.equals(first.bytes), 'the same again, but for the vars');

  const again = (await api('POST', url)).json();
  assert.deepEqual([again.before, again.changed], [pinned.after, false]);
  const audit = await database.read((db) => db.selectFrom('audit').selectAll().where('name', '=', 'vm').execute());
  const lines = audit.filter(({ detail }) => detail.includes('pinnedTo'));
  assert.deepEqual(
    lines.map(({ action, name, before, after, detail }) => [action, name, `"${before}"`, `"${after}"`, JSON.parse(detail)]),
    [['put', 'vm', headers.etag, answer.headers.etag, { pinnedTo: first.id }]],
  );
});

test('pin is refused where it cannot be, and changes nothing', async (t) => {
  const test = await bench(t);
  const { api, fetch, database, boot, path } = test;
  const whole = await fetch();
  await api('PUT', '/bundles/web/parts/20-run.sh?force=true', '#!/bin/sh\necho {{ vars.none }}\n');
  assert.equal((await boot(await path())).statusCode, 503);
  const [{ id: failed }] = (await api('GET', '/instances/vm/deliveries?limit=1')).json().items;
  await api('PUT', '/bundles/web/parts/20-run.sh', '#!/bin/sh\n');
  const plain = await fetch();
  await api('DELETE', '/bundles/web/revisions/2/content');
  await api('PUT', '/instances/other', { bundles: [] });
  await database.write((db) => db.updateTable('delivery').set({ refusal: 'closed' }).where('id', '=', plain.id).execute());
  const call = (id: number | string, instance = 'vm') => ['POST', `/instances/${instance}/deliveries/${id}/pin`] as const;
  await refuses(test, [
    ['one whose revision was purged', call(whole.id), 409, 'purged'],
    ['one that failed', call(failed), 409, 'nothing_delivered'],
    ['what it was served when it came late', call(plain.id), 409, 'not_its_own'],
    ['none', call(999), 404, 'unknown_delivery'],
    ['another’s', call(whole.id, 'other'), 404, 'unknown_delivery'],
    ['of nobody', call(whole.id, 'none'), 404, 'unknown_instance'],
    ['of a bad name', call(whole.id, 'A'), 400, 'bad_name'],
    ['no number', call('x'), 400, 'bad_request'],
    ['a number beyond all', call('9'.repeat(20)), 400, 'bad_request'],
    [
      'replay of one that failed',
      ['GET', `/instances/vm/deliveries/${failed}/user-data?reveal=true`],
      409,
      'nothing_delivered',
    ],
    ['replay of none', ['GET', '/instances/vm/deliveries/999/user-data'], 404, 'unknown_delivery'],
    ['the row of another’s', ['GET', `/instances/other/deliveries/${whole.id}`], 404, 'unknown_delivery'],
    ['a reveal that is no boolean', ['GET', `/instances/vm/deliveries/${whole.id}/user-data?reveal=x`], 400, 'bad_request'],
  ]);
});

test('pin of a machine that would not boot with it is refused with findings', async (t) => {
  const test = await bench(t);
  const { id } = await test.fetch();
  const { statusCode } = await test.api('PUT', '/instances/vm', { bundles: ['site'], vars: {} });
  assert.equal(statusCode, 200);
  const answer = await test.api('POST', `/instances/vm/deliveries/${id}/pin`);
  assert.equal(answer.statusCode, 422);
  assert.equal(answer.json().findings[0].part, 'web@2/20-run.sh');
});

test('what the ledger keeps no longer is a clear 404', async (t) => {
  const { api, fetch, store } = await bench(t);
  const { id } = await fetch();
  await store.pruneByAge('delivery', { before: Number.MAX_SAFE_INTEGER, limit: 9 });
  for (const url of [`deliveries/${id}`, `deliveries/${id}/user-data?reveal=true`, `diff?from=delivery:${id}`]) {
    const answer = await api('GET', `/instances/vm/${url}`);
    assert.deepEqual([answer.statusCode, answer.json().code], [404, 'unknown_delivery']);
    assert.match(answer.json().detail, /or the ledger keeps it no longer/);
  }
});

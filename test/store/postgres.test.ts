import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { scheduler } from 'node:timers/promises';
import { sql } from 'kysely';
import pg from 'pg';
import { DEFAULT_POLICY, type PolicySpec } from '../../src/domain/policy.ts';
import type { InstanceWrite, Sight, Store } from '../../src/domain/store.ts';
import type { Database } from '../../src/store/database.ts';
import { migrate } from '../../src/store/migrate.ts';
import { createStore, openStore } from '../../src/store/open.ts';
import { openPostgres } from '../../src/store/postgres.ts';
import { ANN } from '../actor.ts';
import { type PostgresServer, postgresServer } from '../postgres.ts';
import { conformance, delivery, migrationConformance, refused, sealed, write } from './conformance.ts';
import { stateConformance } from './state-conformance.ts';
import { BY, windowConformance } from './windows.ts';

const START = Date.UTC(2026, 0, 1);

const server = await postgresServer();
if (typeof server === 'string') test('PostgreSQL', { skip: server }, () => {});
else suite(server);

function suite(server: PostgresServer) {
  conformance('PostgreSQL', async (t) => opened(t, await server.freshDatabase()));
  stateConformance('PostgreSQL', async (t) => database(t, await server.freshDatabase()));
  migrationConformance('PostgreSQL', async (t) => database(t, await server.freshDatabase()));

  windowConformance('PostgreSQL', async (t) => {
    const own = await database(t, await server.freshDatabase());
    await migrate(own);
    return { database: own, store: createStore(own) };
  });

  describe('PostgreSQL: two replicas', () => {
    /** Two stores on one database whose transactions overlap: each has done all its work before the other commits. */
    async function replicas(t: TestContext, policy: PolicySpec = {}) {
      const url = await server.freshDatabase();
      const slow = (own: Database): Database => ({
        ...own,
        write: (work) =>
          own.write(async (db) => {
            const result = await work(db);
            await scheduler.wait(50);
            return result;
          }),
      });
      const own = await database(t, url);
      await migrate(own);
      const [one, two] = [createStore(slow(own)), createStore(slow(await database(t, url)))];
      await createStore(own).putInstances([write('vm', { policy })], { at: START, by: ANN });
      const vm = (await one.findInstance('vm')) ?? assert.fail();
      const look = async () => {
        const rows = await one.listDeliveries('vm', { after: null, limit: 100 });
        const alarms = await one.listAlarms('vm', { after: null, limit: 100 });
        return { counted: rows.filter(({ counted }) => counted).length, rows: rows.length, alarms };
      };
      return { one, two, vm, look };
    }

    test('two fetches of one machine at once: both are served, exactly one is counted', async (t) => {
      const { one, two, vm, look } = await replicas(t);
      const recorded = await Promise.all([one, two].map((store) => store.recordDeliveries([delivery(vm)], DEFAULT_POLICY)));
      assert.deepEqual(
        recorded.flat().map(({ kind }) => kind),
        ['recorded', 'recorded'],
      );
      const { counted, rows } = await look();
      assert.deepEqual([counted, rows, (await one.findInstance('vm'))?.deliveryCount], [1, 2, 1]);
    });

    test('from two addresses at once: both are counted, and one of them is the second machine', async (t) => {
      const { one, two, vm, look } = await replicas(t);
      const from = (address: string) => [delivery(vm, { address })];
      await Promise.all([
        one.recordDeliveries(from('10.0.0.1'), DEFAULT_POLICY),
        two.recordDeliveries(from('10.0.0.2'), DEFAULT_POLICY),
      ]);
      const { counted, alarms } = await look();
      assert.deepEqual([counted, alarms.map(({ kind, count }) => [kind, count])], [2, [['second_machine', 1]]]);
    });

    test('refused twice at once: one alarm, begun once, of two', async (t) => {
      const { one, two, vm, look } = await replicas(t, { allowFrom: ['192.0.2.0/24'] });
      const late = delivery(vm, { outcome: 'refused', digest: null, refusal: 'address' });
      const recorded = await Promise.all([one, two].map((store) => store.recordDeliveries([late], DEFAULT_POLICY)));
      const begun = recorded.flat().filter((each) => each.kind === 'recorded' && each.alarm !== null);
      const { alarms } = await look();
      assert.deepEqual([begun.length, alarms.map(({ kind, count }) => [kind, count])], [1, [['foreign_address', 2]]]);
    });

    test('a fetch beside a close or a rotation comes before it, or is not recorded', async (t) => {
      for (const verb of ['close', 'rotate'] as const) {
        const { one, two, vm, look } = await replicas(t);
        const change = { expect: undefined, at: START, by: BY };
        const [[recorded]] = await Promise.all([
          one.recordDeliveries([delivery(vm, { at: START + 1 })], DEFAULT_POLICY),
          verb === 'close'
            ? two.closeWindow('vm', change)
            : two.rotateCapabilities('vm', { ...change, purposes: ['include'], force: false }),
        ]);
        const { rows } = await look();
        assert.equal(rows, recorded?.kind === 'recorded' ? 1 : 0, verb);
        const after = (await one.findInstance('vm')) ?? assert.fail();
        assert.equal(verb === 'close' ? after.closedAt : after.generations.include, verb === 'close' ? START : 1);
        assert.equal(after.deliveryCount, rows, 'neither undid what the other wrote');
      }
    });
  });

  describe('PostgreSQL: the server', () => {
    test('two replicas work on one database, started at once', async (t) => {
      const url = await server.freshDatabase();
      const [one, two] = await Promise.all([opened(t, url), opened(t, url)]);
      await one.putInstances([write('vm')], { at: 1, by: ANN });
      assert.ok(await two.findInstance('vm'));
    });

    test('its pool tells how many connections there are, and who waits', async (t) => {
      const store = await opened(t, await server.freshDatabase());
      const pings = Array.from({ length: 15 }, () => store.ping());
      await scheduler.yield();
      const busy = store.pool();
      await Promise.all(pings);
      const idle = store.pool();
      assert.deepEqual([busy?.total, busy?.waiting], [10, 5]);
      assert.deepEqual([idle?.total, idle?.idle, idle?.waiting], [10, 10, 0]);
    });

    test('that is not there is unavailable, at once', async () => {
      await refused(openStore({ url: 'postgres://nobody@127.0.0.1:1/none' }), 'unavailable', 'database_unavailable');
    });

    test('that does not know the password or the database refuses', async () => {
      const url = new URL(await server.freshDatabase());
      url.pathname = '/none';
      await refused(openStore({ url: url.href }), 'unavailable', 'database_refused');
      url.password = 'wrong';
      await refused(openStore({ url: url.href }), 'unavailable', 'database_refused');
    });

    test('that ends idle connections is asked again over new ones', async (t) => {
      const url = await server.freshDatabase();
      const store = await opened(t, url);
      await Promise.all([store.ping(), store.ping(), store.ping()]);
      const other = await database(t, url);
      await other.read((db) =>
        sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'bootbundle' and pid <> pg_backend_pid()`.execute(
          db,
        ),
      );
      // The first ones may still be given a connection that has just died.
      for (let tried = 0; tried < 5; tried++) await store.ping().catch(() => {});
      await store.ping();
    });

    test('that ends a connection in the middle of a transaction is unavailable, stores nothing, and is asked again', async (t) => {
      const own = await database(t, await server.freshDatabase());
      await migrate(own);
      const store = createStore(own);
      const broken = own.write(async (db) => {
        await db.insertInto('meta').values({ key: 'lost', value: 'x' }).execute();
        await sql`select pg_terminate_backend(pg_backend_pid())`.execute(db);
      });
      await refused(broken, 'unavailable', 'database_unavailable');
      assert.equal(await store.claimKey(['one']), true);
      assert.deepEqual(await own.read((db) => db.selectFrom('meta').select('key').execute()), [{ key: 'key_check' }]);
    });

    test('that does not answer in time is unavailable, and the connection that waits is not used again', async (t) => {
      const own = await database(t, `${await server.freshDatabase()}&query_timeout=200`);
      const slow = own.read((db) => sql`select pg_sleep(1.5)`.execute(db));
      await refused(slow, 'unavailable', 'database_unavailable');
      await own.read((db) => sql`select 1`.execute(db));
    });

    test('writes are serializable: of two that read what the other writes, one is tried again', async (t) => {
      const own = await database(t, await server.freshDatabase());
      await migrate(own);
      let runs = 0;
      const claim = (key: string) =>
        own.write(async (db) => {
          runs += 1;
          const rows = await db.selectFrom('meta').select('key').execute();
          await new Promise((resolve) => setTimeout(resolve, 50));
          await db
            .insertInto('meta')
            .values({ key, value: `${rows.length}` })
            .execute();
        });
      await Promise.all([claim('one'), claim('two')]);
      const rows = await own.read((db) => db.selectFrom('meta').select('value').orderBy('value').execute());
      assert.deepEqual(rows, [{ value: '0' }, { value: '1' }]);
      assert.equal(runs, 3);
    });

    for (const [what, one, other] of [
      ['a publish and a registration', 'publish web', 'register'],
      ['two publishes of what one machine has', 'publish web', 'publish db'],
      ["a bundle's secrets and a registration", 'secrets of web', 'register'],
      ["a bundle's secrets and another's tag", 'secrets of web', 'tag db'],
      ['a publish and a change of a follower', 'publish web', 'change'],
      ["a publish and a follower's new secrets", 'publish web', 'secrets of vm'],
    ] as const)
      test(`${what} that looked at the same moment and overlap in full: one is refused`, async (t) => {
        const own = await database(t, await server.freshDatabase());
        await migrate(own);
        let runs = 0;
        // Each has done all its work before the other commits, unless the server makes it wait.
        const overlapping: Database = {
          ...own,
          write: (work) =>
            own.write(async (db) => {
              runs += 1;
              const result = await work(db);
              await scheduler.wait(50);
              return result;
            }),
        };
        const [store, slow] = [createStore(own), createStore(overlapping)];
        const content = { order: 'name' as const, vars: {}, parts: [] };
        const put = (to: Store, bundle: string, base: number | null, sight?: Sight) =>
          to.putRevision({
            ...{ bundle, base, content, digest: 'd', bodies: new Map(), at: 1, by: ANN, message: null },
            ...(sight && { sight }),
          });
        await put(store, 'web', null);
        for (const base of [null, 1]) await put(store, 'db', base);
        await store.putTag('db', 'stable', 1, { at: 1, by: ANN });
        const bundles = ['web', 'db', 'db@stable'];
        await store.putInstances([write('vm', { bundles })], { at: 1, by: ANN });
        const references = new Map(bundles.map((text) => [text, { revision: text === 'db' ? 2 : 1, secretsVersion: 0 }]));
        const followed = (bundle: string): Sight => ({ references, followers: { bundle, versions: new Map([['vm', 1]]) } });
        const register = (name: string, change: Partial<InstanceWrite>) =>
          slow.putInstances([{ ...write(name, { bundles }), ...change }], { at: 1, by: ANN, sight: { references } });
        const writes = {
          'publish web': () => put(slow, 'web', 1, followed('web')),
          'publish db': () => put(slow, 'db', 2, followed('db')),
          'secrets of web': () =>
            slow.putBundleSecrets('web', sealed({ one: '1' }), { base: 0, at: 1, by: ANN, sight: followed('web') }),
          'tag db': () => slow.putTag('db', 'stable', 2, { at: 1, by: ANN, sight: followed('db') }),
          register: () => register('new', {}),
          change: () => register('vm', { spec: write('vm', { bundles: ['web'] }).spec }),
          'secrets of vm': () => register('vm', { secrets: sealed({ one: '1' }) }),
        };
        const results = await Promise.allSettled([writes[one](), writes[other]()]);
        const refusals = results.filter((result) => result.status === 'rejected');
        assert.equal(refusals.length, 1, `${refusals.length} of two were refused`);
        await refused(Promise.reject(refusals[0]?.reason), 'conflict', 'changed_meanwhile');
        assert.ok(runs >= 3, 'they collided');
      });

    test('reads 8-byte integers as numbers on our connections, and on no others', async (t) => {
      const own = await database(t, await server.freshDatabase());
      const { rows } = await own.read((db) => sql`select 1767225600000::bigint as at`.execute(db));
      assert.deepEqual(rows, [{ at: 1767225600000 }]);
      assert.equal(pg.types.getTypeParser(pg.types.builtins.INT8)('1'), '1');
    });
  });

  describe('PostgreSQL: what is not ours', () => {
    test('a database with a table of one of our names is refused and left as it is', async (t) => {
      const own = await database(t, await server.freshDatabase());
      await own.write((db) => sql`create table instance (id integer)`.execute(db));
      await refused(migrate(own), 'conflict', 'foreign_database');
      assert.deepEqual((await own.read((db) => own.tables.execute(db))).rows, [{ name: 'instance' }]);
    });

    test("an extension's tables in the schema do no harm", async (t) => {
      const own = await database(t, await server.freshDatabase());
      await own.write((db) => sql`create table spatial_ref_sys (id integer)`.execute(db));
      await migrate(own);
      assert.equal(await createStore(own).claimKey(['one']), true);
    });
  });
}

async function opened(t: TestContext, url: string) {
  const store = await openStore({ url });
  t.after(() => store.close());
  return store;
}

async function database(t: TestContext, url: string) {
  const own = openPostgres(url);
  t.after(() => own.close());
  return own;
}

import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { sql } from 'kysely';
import { type BootFacts, type Deadlines, NO_BOOT, STATES, type State, stateAt } from '../../src/domain/boot.ts';
import { revisionDigest } from '../../src/domain/bundle.ts';
import type { DeliveryInputs } from '../../src/domain/delivery.ts';
import type { InstanceFilter, LedgerCursor, LedgerFilter, Store } from '../../src/domain/store.ts';
import type { Database } from '../../src/store/database.ts';
import { migrate } from '../../src/store/migrate.ts';
import { createStore } from '../../src/store/open.ts';
import { ANN } from '../actor.ts';
import { type Rows, rowsOf } from '../rows.ts';
import { sealed, write } from './conformance.ts';

const DEADLINES: Deadlines = { fetch: 1000, boot: 100 };
const EXPECTS = { events: true, phoneHome: false, manifests: [] };
const FACTS: Record<string, Partial<BootFacts>> = {
  fresh: {},
  broken: { unrenderedAt: 5 },
  fetched: { deliveredAt: 10, expects: EXPECTS },
  untracked: { deliveredAt: 10 },
  booting: { deliveredAt: 10, expects: EXPECTS, lastWordAt: 50 },
  ready: { deliveredAt: 10, expects: EXPECTS, lastWordAt: 50, finalAt: 50, finalClock: 1, readyAt: 50 },
  failed: { deliveredAt: 10, expects: EXPECTS, lastWordAt: 50, failures: [{ what: 'x', description: '', clock: 0 }] },
};

/** What every engine must do alike with states, the ledger across instances, alarms and the audit. */
export function stateConformance(name: string, makeDatabase: (t: TestContext) => Promise<Database>) {
  const contract = (promise: string, check: (store: Store, rows: Rows, database: Database) => Promise<void>) =>
    test(promise, async (t) => {
      const database = await makeDatabase(t);
      await migrate(database);
      await check(createStore(database), rowsOf(database), database);
    });

  describe(`${name}: states`, () => {
    contract('a list asked for a state has exactly those that are in it at that moment', async (store, rows) => {
      await every(store, rows);
      for (const deadlines of [DEADLINES, { fetch: null, boot: null }])
        for (const now of [60, 110, 149, 150, 999, 1000, 5000]) {
          const all = await store.listInstances({ after: null, limit: 100 }, {});
          for (const is of STATES) {
            const wanted = all.filter((instance) => stateAt(instance, deadlines, now).state === is).map(({ name }) => name);
            assert.deepEqual(await inState(store, is, now, deadlines), wanted, `${is} at ${now}`);
          }
        }
    });

    contract('a count by state is as long as the lists are, without the retired', async (store, rows) => {
      await every(store, rows);
      await store.putInstances([write('gone')], { at: 0, by: ANN });
      await store.retireInstance('gone', { expect: undefined, at: 0, by: ANN });
      for (const deadlines of [DEADLINES, { fetch: null, boot: null }, { fetch: null, boot: 100 }])
        for (const now of [60, 110, 149, 150, 999, 1000, 5000]) {
          const counts = await store.countInstancesByState(now, deadlines);
          for (const is of STATES)
            assert.equal(counts[is], (await inState(store, is, now, deadlines)).length, `${is} at ${now}`);
        }
    });

    contract(
      'a state goes with the other filters and with pages; a tombstone has none that time changes',
      async (store, rows) => {
        await every(store, rows);
        await store.putInstances([write('other', { labels: { a: 'b' } })], { at: 0, by: ANN });
        const state = { is: 'registered' as State, now: 60, deadlines: DEADLINES };
        const names = async (filter: InstanceFilter, after: string | null = null, limit = 100) =>
          (await store.listInstances({ after, limit }, filter)).map(({ name }) => name);
        assert.deepEqual(await names({ state, labels: [{ key: 'a', value: 'b' }] }), ['other']);
        assert.deepEqual(await names({ state }, 'fresh'), ['other']);
        assert.deepEqual(await names({ state }, null, 1), ['fresh']);
        await store.retireInstance('fresh', { expect: undefined, at: 70, by: ANN });
        assert.deepEqual(await names({ state, retired: true }), ['fresh']);
      },
    );

    contract('listStates tells what states depend on', async (store, rows) => {
      await every(store, rows);
      const page = { after: null, limit: 100 };
      const whole = (await store.listInstances(page, {})).map(({ name, createdAt, reopenedAt, boot }) => {
        return { name, createdAt, reopenedAt, boot };
      });
      assert.deepEqual(await store.listStates(page, {}), whole);
      assert.deepEqual(await store.listStates({ after: 'failed', limit: 1 }, {}), [whole[3]]);
    });

    contract('a fetch from before boots were followed is a delivery that says no more', async (store, _rows, database) => {
      await store.putInstances([write('old')], { at: 0, by: ANN });
      await database.write((db) =>
        db
          .updateTable('instance')
          .set({ first_delivery_at: 7, state: 'delivered', waiting_since: null })
          .where('name', '=', 'old')
          .execute(),
      );
      const instance = await store.findInstance('old');
      assert.deepEqual(instance?.boot, { ...NO_BOOT, deliveredAt: 7 });
      assert.equal(stateAt(instance ?? assert.fail(), DEADLINES, 1e9).state, 'delivered');
      assert.deepEqual(await store.sweepSilent({ now: 1e9, deadlines: DEADLINES, limit: 10 }), []);
    });

    contract('a revived instance is waited for from then on', async (store) => {
      await store.putInstances([write('vm')], { at: 0, by: ANN });
      await store.retireInstance('vm', { expect: undefined, at: 10, by: ANN });
      await store.putInstances([write('vm')], { at: 5000, by: ANN });
      const instance = (await store.findInstance('vm')) ?? assert.fail();
      assert.equal(stateAt(instance, DEADLINES, 5999).state, 'registered');
      assert.deepEqual(await inState(store, 'silent', 5999), []);
      assert.deepEqual(await inState(store, 'silent', 6000), ['vm']);
      assert.equal(stateAt(instance, DEADLINES, 6000).state, 'silent');
    });
  });

  describe(`${name}: sweeps`, () => {
    contract('sweepSilent gives each that is silent once, those of a list for it', async (store, rows) => {
      await every(store, rows);
      assert.deepEqual(await store.sweepSilent({ now: 109, deadlines: DEADLINES, limit: 10 }), []);
      for (const now of [110, 150, 1000]) {
        const before = now === 110 ? [] : await inState(store, 'silent', now === 150 ? 149 : 999);
        const wanted = (await inState(store, 'silent', now)).filter((name) => !before.includes(name));
        assert.ok(wanted.length > 0);
        assert.deepEqual((await store.sweepSilent({ now, deadlines: DEADLINES, limit: 10 })).sort(), wanted);
        assert.deepEqual(await store.sweepSilent({ now, deadlines: DEADLINES, limit: 10 }), []);
      }
    });

    contract('sweepSilent goes in steps, and passes over tombstones', async (store) => {
      await store.putInstances(
        ['a', 'b', 'c', 'd'].map((name) => write(name)),
        { at: 0, by: ANN },
      );
      await store.retireInstance('d', { expect: undefined, at: 1, by: ANN });
      const sweep = () => store.sweepSilent({ now: 5000, deadlines: DEADLINES, limit: 2 });
      const [first, second] = [await sweep(), await sweep()];
      assert.equal(first.length, 2);
      assert.deepEqual([...first, ...second].sort(), ['a', 'b', 'c']);
    });

    contract('of many sweeps at once each silence is told to one', async (store) => {
      const names = Array.from({ length: 30 }, (_, index) => `vm-${String(index).padStart(2, '0')}`);
      await store.putInstances(
        names.map((name) => write(name)),
        { at: 0, by: ANN },
      );
      const told = await Promise.all(
        Array.from({ length: 5 }, () => store.sweepSilent({ now: 5000, deadlines: DEADLINES, limit: 100 })),
      );
      assert.deepEqual(told.flat().sort(), names);
    });
  });

  describe(`${name}: stale documents`, () => {
    contract(
      'stale are those whose last document is of other revisions or secrets, or another version',
      async (store, rows) => {
        const stale = async () =>
          (await store.listInstances({ after: null, limit: 100 }, { stale: true })).map(({ name }) => name);
        const inputs = (secretsVersion: number): DeliveryInputs => ({
          ...{ generations: { include: 0, seed: 0, report: 0 }, publicUrl: '', renderer: 1 },
          secretsVersions: { web: secretsVersion },
        });
        for (const base of [null, 1]) await publish(store, 'web', base);
        await store.putTag('web', 'stable', 1, { at: 0, by: ANN });
        const specs = {
          follows: 'web',
          tagged: 'web@stable',
          pinned: 'web@1',
          unfetched: 'web',
          reopened: 'web',
          failing: 'web',
        };
        await store.putInstances(
          Object.entries(specs).map(([name, reference]) => write(name, { bundles: [reference] })),
          { at: 0, by: ANN },
        );
        for (const name of ['follows', 'tagged', 'pinned', 'failing']) await rows.boot(name, { deliveredAt: 10 });
        await rows.boot('reopened', { deliveredAt: 50 });
        await rows.delivery('follows', { at: 10, revisions: ['web@2'] });
        await rows.delivery('tagged', { at: 10, revisions: ['web@1'], inputs: inputs(0) });
        await rows.delivery('pinned', { at: 10, revisions: ['web@1'], instanceVersion: null as unknown as number });
        await rows.delivery('reopened', { at: 10, revisions: ['web@1'] });
        await rows.delivery('failing', { at: 10, revisions: ['web@2'] });
        await rows.delivery('failing', { at: 11, revisions: [], outcome: 'failed' });
        await rows.delivery('failing', { at: 12, revisions: ['late@1'], refusal: 'closed' });
        assert.deepEqual(await stale(), []);
        await publish(store, 'web', 2);
        assert.deepEqual(await stale(), ['failing', 'follows']);
        await rows.delivery('follows', { at: 20, revisions: ['web@3'] });
        assert.deepEqual(await stale(), ['failing']);
        await store.putTag('web', 'stable', 2, { at: 0, by: ANN });
        assert.deepEqual(await stale(), ['failing', 'tagged']);
        await store.putTag('web', 'stable', 1, { at: 0, by: ANN });
        await store.putBundleSecrets('web', sealed({ a: 'x' }), { base: 0, at: 1, by: ANN });
        assert.deepEqual(await stale(), ['failing', 'tagged'], 'it holds a secret that was changed');
        await store.putInstances([write('follows', { bundles: ['web'], vars: { a: 1 } })], { at: 30, by: ANN });
        assert.deepEqual(await stale(), ['failing', 'follows', 'tagged']);
        const { length } = await store.listInstances({ after: 'failing', limit: 1 }, { stale: true });
        assert.equal(length, 1);
      },
    );

    contract('of more than one step', async (store, rows) => {
      await publish(store, 'web', null);
      const names = Array.from({ length: 1100 }, (_, index) => `vm-${String(index).padStart(4, '0')}`);
      await store.putInstances(
        names.map((name) => write(name, { bundles: ['web'] })),
        { at: 0, by: ANN },
      );
      for (const name of ['vm-0000', 'vm-0700', 'vm-1099']) {
        await rows.boot(name, { deliveredAt: 1 });
        await rows.delivery(name, { at: 1, revisions: ['web@7'] });
      }
      const list = async (after: string | null, limit: number) =>
        (await store.listInstances({ after, limit }, { stale: true })).map(({ name }) => name);
      assert.deepEqual(await list(null, 100), ['vm-0000', 'vm-0700', 'vm-1099']);
      assert.deepEqual(await list('vm-0000', 1), ['vm-0700']);
    });
  });

  describe(`${name}: the ledger across instances`, () => {
    contract('by time, newest first, page by page, also where many are of one moment', async (store, rows) => {
      await store.putInstances([write('a'), write('b')], { at: 0, by: ANN });
      const ids: number[] = [];
      for (const [index, at] of [5, 7, 7, 7, 6, 9].entries())
        ids.push(await rows.delivery(index % 2 === 0 ? 'a' : 'b', { at }));
      const order = [5, 3, 2, 1, 4, 0].map((index) => ids[index]);
      for (const limit of [1, 2, 3, 100])
        assert.deepEqual(
          (await walk(store, {}, limit)).map(({ id }) => id),
          order,
        );
    });

    contract('each filter, and several', async (store, rows) => {
      await store.putInstances([write('a'), write('b')], { at: 0, by: ANN });
      await rows.delivery('a', { at: 1, revisions: ['web@1', 'db@12'], address: '192.0.2.1' });
      await rows.delivery('b', { at: 2, revisions: ['web@12'], address: '192.0.2.2', counted: false });
      await rows.delivery('a', { at: 3, revisions: ['my-web@1'], address: '192.0.2.2', outcome: 'refused', refusal: 'closed' });
      await rows.delivery('b', { at: 4, revisions: [], outcome: 'failed', counted: false });
      const times = async (filter: LedgerFilter) => (await walk(store, filter, 2)).map(({ at }) => at);
      for (const [filter, wanted] of [
        [{}, [4, 3, 2, 1]],
        [{ instance: 'a' }, [3, 1]],
        [{ instance: 'none' }, []],
        [{ bundle: { name: 'web', revision: null } }, [2, 1]],
        [{ bundle: { name: 'web', revision: 1 } }, [1]],
        [{ bundle: { name: 'db', revision: 1 } }, []],
        [{ address: '192.0.2.2' }, [3, 2]],
        [{ outcome: 'refused' }, [3]],
        [{ counted: false }, [4, 2]],
        [{ since: 2 }, [4, 3, 2]],
        [{ until: 2 }, [1]],
        [{ since: 2, until: 4, counted: true }, [3]],
        [{ instance: 'b', outcome: 'delivered', address: '192.0.2.2' }, [2]],
      ] as [LedgerFilter, number[]][])
        assert.deepEqual(await times(filter), wanted, JSON.stringify(filter));
    });

    contract('what is rare is looked for in pieces', async (store, rows, database) => {
      await store.putInstances([write('a')], { at: 0, by: ANN });
      const first = await rows.delivery('a', { at: 1, outcome: 'failed' });
      await database.write((db) =>
        sql`insert into delivery (instance, at, purpose, bytes, address, user_agent, revisions, counted, outcome)
          with recursive n (i) as (values (2) union all select i + 1 from n where i < 5001)
          select 'a', i, 'include', 0, '', '', '[]', 1, 'delivered' from n`.execute(db),
      );
      const piece = await store.scanDeliveries({ outcome: 'failed' }, { after: null, limit: 10 });
      assert.equal(piece.deliveries.length, 0);
      assert.ok(piece.next);
      assert.deepEqual(
        (await walk(store, { outcome: 'failed' }, 10)).map(({ id }) => id),
        [first],
      );
    });
  });

  describe(`${name}: alarms, reports and audit`, () => {
    contract('lists go newest first, in pages, and back to what was seen', async (store, rows) => {
      await store.putInstances([write('vm'), write('other')], { at: 0, by: ANN });
      for (const at of [1, 2, 3, 4]) {
        await rows.alarm('vm', { at, kind: 'late_fetch' });
        await rows.audit('vm', { at, action: 'put' });
        await rows.event('vm', at, {});
        await rows.delivery('vm', { at });
        await rows.alarm('other', { at, kind: 'old_stub' });
        await rows.audit('other', { at, action: 'put' });
      }
      const lists = [
        (page: { after: number | null; limit: number; newerThan?: number }) => store.listAlarms('vm', page),
        (page: { after: number | null; limit: number; newerThan?: number }) => store.listReports('vm', page),
        (page: { after: number | null; limit: number; newerThan?: number }) => store.listDeliveries('vm', page),
        (page: { after: number | null; limit: number; newerThan?: number }) =>
          store.listAudit({ kind: 'instance', name: 'vm', since: 1 }, page),
      ];
      for (const list of lists) {
        const all = await list({ after: null, limit: 10 });
        assert.deepEqual(
          all.map(({ at }) => at),
          [4, 3, 2, 1],
        );
        const [, third, second] = all;
        assert.deepEqual(
          (await list({ after: third?.id ?? 0, limit: 1 })).map(({ at }) => at),
          [2],
        );
        assert.deepEqual(
          (await list({ after: null, limit: 10, newerThan: second?.id ?? 0 })).map(({ at }) => at),
          [4, 3],
        );
      }
    });

    contract('a phone-home is found by its instance-id: the last to use it', async (store, rows) => {
      await store.putInstances([write('a'), write('b')], { at: 0, by: ANN });
      const home = (instanceId: string) => ({ instanceId, hostname: '', fqdn: '', hostKeys: [] });
      await rows.report('a', 1, { kind: 'phoneHome', phoneHome: home('i-1') });
      await rows.report('b', 2, { kind: 'phoneHome', phoneHome: home('i-1') });
      await rows.report('a', 3, { kind: 'phoneHome', phoneHome: home('i-2') });
      assert.deepEqual(await Promise.all(['i-1', 'i-2', 'i-3', 'x\0'].map((id) => store.findPhoneHome(id))), [
        'b',
        'a',
        null,
        null,
      ]);
    });

    contract('findInstanceByIdEvenRetired finds a tombstone, too', async (store) => {
      const [{ instance } = assert.fail()] = await store.putInstances([write('vm')], { at: 0, by: ANN });
      await store.retireInstance('vm', { expect: undefined, at: 1, by: ANN });
      assert.equal(await store.findInstanceById(instance.id), null);
      assert.equal((await store.findInstanceByIdEvenRetired(instance.id))?.retiredAt, 1);
      assert.equal(await store.findInstanceByIdEvenRetired('f'.repeat(16)), null);
    });
  });
}

async function every(store: Store, rows: Rows): Promise<void> {
  await store.putInstances(
    Object.keys(FACTS).map((name) => write(name)),
    { at: 0, by: ANN },
  );
  for (const [name, facts] of Object.entries(FACTS)) if (name !== 'fresh') await rows.boot(name, facts);
}

async function inState(store: Store, is: State, now: number, deadlines = DEADLINES): Promise<string[]> {
  const page = { after: null, limit: 100 };
  return (await store.listInstances(page, { state: { is, now, deadlines } })).map(({ name }) => name);
}

async function publish(store: Store, bundle: string, base: number | null): Promise<void> {
  const content = { order: 'name' as const, vars: { n: base ?? 0 }, parts: [] };
  const digest = revisionDigest(content);
  await store.putRevision({ bundle, base, content, digest, bodies: new Map(), at: 0, by: ANN, message: null });
}

async function walk(store: Store, filter: LedgerFilter, limit: number) {
  const found = [];
  for (let after: LedgerCursor | null = null; ; ) {
    const { deliveries, next }: Awaited<ReturnType<Store['scanDeliveries']>> = await store.scanDeliveries(filter, {
      after,
      limit,
    });
    assert.ok(deliveries.length <= limit);
    found.push(...deliveries);
    if (next === null) return found;
    after = next;
  }
}

import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import type { Actor } from '../../src/domain/actor.ts';
import { ALARM_BURST_MS, ALARMS_KEPT, type Raised } from '../../src/domain/alarm.ts';
import { type BootFacts, NO_BOOT } from '../../src/domain/boot.ts';
import { type NewDelivery, REPEAT_WINDOW_MS, SECOND_MACHINE_MS } from '../../src/domain/delivery.ts';
import type { Instance } from '../../src/domain/instance.ts';
import { DEFAULT_POLICY, type PolicySpec } from '../../src/domain/policy.ts';
import type { Store } from '../../src/domain/store.ts';
import type { Database } from '../../src/store/database.ts';
import { ANN } from '../actor.ts';
import { delivery, record, refused, write } from './conformance.ts';

const START = Date.UTC(2026, 0, 1);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const ALL = { after: null, limit: 1000 };
export const BY: Actor = {
  name: 'ann',
  role: 'editor',
  scope: { bundles: null, instances: null },
  tokenId: null,
  address: '192.0.2.1',
  requestId: 'r-1',
};

export interface Bench {
  store: Store;
  database: Database;
}

async function registered(store: Store, policy: PolicySpec = {}): Promise<Instance> {
  await store.putInstances([write('vm', { policy })], { at: START, by: ANN });
  return (await store.findInstance('vm')) ?? assert.fail();
}

async function kinds(store: Store, deliveries: readonly NewDelivery[]): Promise<string[]> {
  return (await store.recordDeliveries(deliveries, DEFAULT_POLICY)).map(({ kind }) => kind);
}

async function alarms(store: Store): Promise<[string, string, number][]> {
  return (await store.listAlarms('vm', ALL)).reverse().map(({ kind, address, count }) => [kind, address, count]);
}

/** What every engine must do alike about windows and alarms. `make` gives an empty store, closed when the test is over. */
export function windowConformance(name: string, make: (t: TestContext) => Promise<Bench>) {
  const contract = (promise: string, check: (bench: Bench) => Promise<void>) =>
    test(promise, async (t) => check(await make(t)));

  describe(`${name}: windows`, () => {
    contract('a delivery into a shut window is not recorded, and a refusal of one that is open neither', async ({ store }) => {
      const vm = await registered(store, { closeAfter: '2m', allowFrom: ['10.0.0.0/24'] });
      const late = { at: START + REPEAT_WINDOW_MS };
      assert.deepEqual(await kinds(store, [delivery(vm), delivery(vm, late)]), ['recorded', 'changed']);
      const no = { outcome: 'refused' as const, digest: null };
      assert.deepEqual(
        await kinds(store, [
          delivery(vm, { ...no, refusal: 'delivered' }),
          delivery(vm, { ...no, ...late, refusal: 'closed' }),
          delivery(vm, { ...no, ...late, refusal: 'delivered' }),
          delivery(vm, { ...no, ...late, refusal: 'delivered', outcome: 'delivered' }),
          delivery(vm, { address: '10.0.1.1' }),
          delivery(vm, { ...no, address: '10.0.1.1', refusal: 'address' }),
        ]),
        ['changed', 'changed', 'recorded', 'recorded', 'changed', 'recorded'],
      );
      assert.equal((await store.findInstance('vm'))?.deliveryCount, 1, 'what is served after the close counts as nothing');
    });

    contract('whether secrets are in the document decides where nothing is stated', async ({ store }) => {
      const vm = await registered(store);
      const hour = { at: START + HOUR };
      assert.deepEqual(
        await kinds(store, [delivery(vm), delivery(vm, { ...hour, guarded: true }), delivery(vm, { ...hour, guarded: false })]),
        ['recorded', 'changed', 'recorded'],
      );
    });

    contract('isRepeat knows the counted deliveries of the present window', async ({ store }) => {
      const vm = await registered(store);
      const repeats = (at: number, address = '10.0.0.5') => store.isRepeat({ instance: 'vm', address, at });
      assert.equal(await repeats(START), false);
      await record(store, [delivery(vm)]);
      const within = [START, START + REPEAT_WINDOW_MS - 1, START - REPEAT_WINDOW_MS + 1, START + REPEAT_WINDOW_MS];
      assert.deepEqual(await Promise.all(within.map((at) => repeats(at))), [true, true, true, false]);
      assert.equal(await repeats(START, '10.0.0.6'), false);
      await store.reopenWindow('vm', { expect: undefined, at: START + 1, by: BY, until: null });
      assert.equal(await repeats(START), false);
    });

    contract('close and reopen: what they change, what they leave, and the audit', async ({ store, database }) => {
      const vm = await registered(store);
      await record(store, [delivery(vm), delivery(vm, { purpose: 'seed', at: START + 1 })]);
      const change = { expect: 1, at: START + 5, by: BY };
      const closed = await store.closeWindow('vm', change);
      assert.deepEqual([closed.changed, closed.after.closedAt, closed.before.closedAt], [true, START + 5, null]);
      assert.deepEqual(await store.findInstance('vm'), closed.after);
      assert.equal((await store.closeWindow('vm', { ...change, at: START + 6 })).changed, false);
      const opened = await store.reopenWindow('vm', { ...change, at: START + 7, until: START + 9 });
      assert.deepEqual(await store.findInstance('vm'), opened.after);
      assert.deepEqual(opened.after, {
        ...closed.after,
        ...{ closedAt: null, reopenedAt: START + 7, openUntil: START + 9 },
        ...{ firstDeliveryAt: null, lastDeliveryAt: null, deliveryCount: 0, boot: NO_BOOT },
      });
      assert.deepEqual(opened.after.fetchedAt, { include: START, seed: START + 1 });
      const lines = await database.read((db) =>
        db.selectFrom('audit').selectAll().where('action', '<>', 'put').orderBy('id').execute(),
      );
      assert.deepEqual(
        lines.map(({ at, actor, action, name, address, request_id, detail }) => [
          at,
          actor,
          action,
          name,
          address,
          request_id,
          detail,
        ]),
        [
          [START + 5, 'ann', 'close', 'vm', '192.0.2.1', 'r-1', '{}'],
          [START + 7, 'ann', 'reopen', 'vm', '192.0.2.1', 'r-1', '{"until":"2026-01-01T00:00:00.009Z"}'],
        ],
      );
    });

    contract('rotate raises what is named and the version, keeps the spec, and spares a seed in use', async ({ store }) => {
      const vm = await registered(store, { closeAfter: '1h' });
      await record(store, [delivery(vm, { purpose: 'seed' })]);
      const change = { expect: undefined, at: START + 1, by: BY };
      await refused(
        store.rotateCapabilities('vm', { ...change, purposes: ['include', 'seed'], force: false }),
        'conflict',
        'seed_in_use',
      );
      const { after } = await store.rotateCapabilities('vm', { ...change, purposes: ['include', 'report'], force: false });
      assert.deepEqual([after.version, after.generations, after.updatedAt], [2, { include: 1, seed: 0, report: 1 }, START + 1]);
      assert.deepEqual(await store.findSpec('vm', 2), await store.findSpec('vm', 1));
      assert.deepEqual(await kinds(store, [delivery(vm), delivery(after)]), ['changed', 'recorded']);
      await refused(store.retireInstance('vm', { expect: undefined, at: START, by: ANN }), 'conflict', 'seed_in_use');
      const forced = await store.rotateCapabilities('vm', { ...change, purposes: ['seed'], force: true });
      assert.deepEqual([forced.after.generations.seed, forced.after.fetchedAt.seed], [1, null]);
      assert.deepEqual(await store.findInstance('vm'), forced.after);
      await store.retireInstance('vm', { expect: 3, at: START, by: ANN });
    });

    contract('what is not there, or is another version, is not touched', async ({ store, database }) => {
      await registered(store);
      for (const [name, expect, kind, code] of [
        ['vm', 2, 'precondition_failed', 'etag_mismatch'],
        ['nix', undefined, 'not_found', 'unknown_instance'],
      ] as const) {
        const change = { expect, at: START, by: BY };
        await refused(store.closeWindow(name, change), kind, code);
        await refused(store.reopenWindow(name, { ...change, until: null }), kind, code);
        await refused(store.rotateCapabilities(name, { ...change, purposes: ['include'], force: true }), kind, code);
      }
      assert.deepEqual(
        await database.read((db) => db.selectFrom('audit').selectAll().where('action', '<>', 'put').execute()),
        [],
      );
    });

    contract(
      'a counted delivery begins a boot; one that cannot be rendered fails it, and neither a repeat nor a refusal does',
      async ({ store, database }) => {
        const vm = await registered(store);
        const expects = { events: true, phoneHome: true, manifests: ['a'] };
        const state = async () => {
          const rows = await database.read((db) => db.selectFrom('instance').selectAll().execute());
          const { state, waiting_since, boot, silent_at } = rows[0] ?? assert.fail();
          return [state, waiting_since, (JSON.parse(boot) as BootFacts).deliveredAt ?? null, silent_at];
        };
        assert.deepEqual(await state(), ['registered', START, null, null]);
        await database.write((db) => db.updateTable('instance').set({ silent_at: START }).execute());
        await record(store, [delivery(vm, { at: START + 1, expects })]);
        assert.deepEqual(await state(), ['delivered', START + 1, START + 1, null]);
        await record(store, [delivery(vm, { at: START + 2, expects })]);
        assert.deepEqual(await state(), ['delivered', START + 1, START + 1, null]);
        await record(store, [delivery(vm, { at: START + 3, outcome: 'failed', digest: null })]);
        assert.deepEqual(await state(), ['failed', null, START + 1, null]);
        await record(store, [delivery(vm, { at: START + REPEAT_WINDOW_MS + 1, expects })]);
        assert.deepEqual((await state())[0], 'delivered');
      },
    );

    contract('when each URL was first fetched is known, repeats and all', async ({ store }) => {
      const vm = await registered(store);
      const fetched = async () => (await store.findInstance('vm'))?.fetchedAt;
      await record(store, [delivery(vm, { outcome: 'failed', digest: null })]);
      assert.deepEqual(await fetched(), { include: null, seed: null });
      await record(store, [delivery(vm, { at: START + 1 }), delivery(vm, { at: START + 2, purpose: 'seed' })]);
      assert.deepEqual(await fetched(), { include: START + 1, seed: START + 2 });
      await record(store, [delivery(vm, { at: START + HOUR, purpose: 'seed' })]);
      assert.deepEqual(await fetched(), { include: START + 1, seed: START + 2 });
    });
  });

  describe(`${name}: alarms`, () => {
    const raised = (vm: Instance, change: Partial<Raised> = {}): Raised => ({
      ...{ instanceId: vm.id, kind: 'old_stub', at: START, count: 1, address: '10.0.0.5', userAgent: 'curl' },
      ...change,
    });

    contract('a burst is one row; what is later, of another kind or from elsewhere is another', async ({ store }) => {
      const vm = await registered(store);
      const first = await store.recordAlarm(raised(vm, { count: 3 }));
      const { id, ...rest } = first ?? assert.fail();
      assert.deepEqual(rest, {
        ...{ instance: 'vm', kind: 'old_stub', at: START, lastAt: START, count: 3 },
        ...{ address: '10.0.0.5', userAgent: 'curl' },
      });
      const step = ALARM_BURST_MS - 1;
      assert.equal(await store.recordAlarm(raised(vm, { at: START + step })), null);
      assert.equal(await store.recordAlarm(raised(vm, { at: START + 2 * step })), null, 'it goes on');
      assert.deepEqual(await store.listAlarms('vm', ALL), [{ ...rest, id, lastAt: START + 2 * step, count: 5 }]);
      for (const change of [
        { at: START + 2 * step + ALARM_BURST_MS },
        { kind: 'late_fetch' as const },
        { address: '10.0.0.6' },
      ])
        assert.ok(await store.recordAlarm(raised(vm, change)));
      assert.equal((await store.listAlarms('vm', ALL)).length, 4);
      const page = await store.listAlarms('vm', { after: id + 1, limit: 1 });
      assert.deepEqual(
        page.map((alarm) => alarm.id),
        [id],
      );
      assert.equal(await store.recordAlarm(raised(vm, { instanceId: 'eeeeeeeeeeeeeeee' })), null);
      await store.retireInstance('vm', { expect: undefined, at: START, by: ANN });
      assert.ok(await store.recordAlarm(raised(vm, { address: '\0hostile\ud800'.repeat(100), userAgent: '\0' })));
    });

    contract('an instance keeps its newest; another’s stay', async ({ store }) => {
      const vm = await registered(store);
      await store.putInstances([write('other')], { at: START, by: ANN });
      const other = (await store.findInstance('other')) ?? assert.fail();
      await store.recordAlarm(raised(other));
      for (let n = 0; n <= ALARMS_KEPT; n++) await store.recordAlarm(raised(vm, { address: `10.0.1.${n}` }));
      const kept = await store.listAlarms('vm', ALL);
      assert.deepEqual([kept.length, kept[0]?.address, kept.at(-1)?.address], [ALARMS_KEPT, '10.0.1.100', '10.0.1.1']);
      assert.equal((await store.listAlarms('other', ALL)).length, 1);
    });

    contract('what a batch refuses is its alarms, each begun once, in the order of the rows', async ({ store }) => {
      const vm = await registered(store, { allowFrom: ['10.0.0.0/24'] });
      const refusal = { outcome: 'refused' as const, digest: null, refusal: 'address' as const };
      const batch = [
        delivery(vm),
        delivery(vm, { ...refusal, address: '10.1.0.1', at: START + 2 }),
        delivery(vm, { ...refusal, address: '10.1.0.2' }),
        delivery(vm, { ...refusal, address: '10.1.0.1' }),
        delivery(vm, { address: '10.0.0.9' }),
      ];
      const recorded = await store.recordDeliveries(batch, DEFAULT_POLICY);
      assert.deepEqual(
        recorded.map((one) => one.kind === 'recorded' && one.alarm && `${one.alarm.kind} ${one.alarm.address}`),
        [null, 'foreign_address 10.1.0.1', 'foreign_address 10.1.0.2', null, 'second_machine 10.0.0.9'],
      );
      assert.deepEqual(await alarms(store), [
        ['foreign_address', '10.1.0.1', 2],
        ['foreign_address', '10.1.0.2', 1],
        ['second_machine', '10.0.0.9', 1],
      ]);
    });

    contract('a second machine is one within the hour of the last counted delivery, and in one window', async ({ store }) => {
      const vm = await registered(store);
      const fetch = (address: string, at: number) => record(store, [delivery(vm, { address, at })]);
      await fetch('10.0.0.1', START);
      await fetch('10.0.0.1', START + HOUR);
      await fetch('10.0.0.2', START + HOUR + SECOND_MACHINE_MS);
      assert.deepEqual(await alarms(store), []);
      await fetch('10.0.0.1', START + HOUR + 2 * SECOND_MACHINE_MS - 1);
      assert.deepEqual(await alarms(store), [['second_machine', '10.0.0.1', 1]]);
      await store.reopenWindow('vm', { expect: undefined, at: START + 4 * HOUR, by: BY, until: null });
      await fetch('10.0.0.3', START + 3 * HOUR);
      assert.equal((await alarms(store)).length, 1);
    });
  });
}

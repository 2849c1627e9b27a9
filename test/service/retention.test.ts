import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { Delivery } from '../../src/domain/delivery.ts';
import type { Store } from '../../src/domain/store.ts';
import { createRetention } from '../../src/service/retention.ts';
import { openStore } from '../../src/store/open.ts';
import { buildTestApp, START } from '../app.ts';

const HOUR = 60 * 60 * 1000;
const DAY = 24 * HOUR;

/** `vm`, which fetched once a day for some days; the clock stands at the last fetch. */
async function bench(t: TestContext, days: number) {
  const store = await openStore({ file: ':memory:' });
  const app = await buildTestApp(t, { store });
  const path = await app.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  for (let day = 0; day < days; day++) {
    if (day > 0) app.tick(DAY);
    assert.equal((await app.boot(path)).statusCode, 200);
  }
  const rows = async (): Promise<Delivery[]> => store.listDeliveries('vm', { after: null, limit: 1000 });
  return { ...app, path, rows, now: START + (days - 1) * DAY };
}

/** A retention on this store whose every batch is noted. */
function retention(store: Store, now: number, keepMs: number | null, around: Partial<Store> = {}) {
  const trouble: string[] = [];
  const kept = createRetention({
    store: { ...store, ...around },
    keepMs,
    clock: () => now,
    onTrouble: (error, what) => trouble.push(`${what}: ${String(error)}`),
  });
  return { ...kept, trouble };
}

test('what is older than it is to be kept goes, and nothing of the machine changes', async (t) => {
  const { store, rows, now } = await bench(t, 10);
  const before = await store.findInstance('vm');
  const pruned = await retention(store, now, 4 * DAY).prune();
  assert.deepEqual(pruned, { deliveries: 5, reports: 0, alarms: 0, oldSecrets: 0 });
  assert.deepEqual(
    (await rows()).map(({ at }) => (now - at) / DAY),
    [0, 1, 2, 3, 4],
  );
  assert.deepEqual(await store.findInstance('vm'), before);
});

test('kept for ever: nothing goes', async (t) => {
  const { store, rows, now } = await bench(t, 3);
  await retention(store, now + 10_000 * DAY, null).prune();
  assert.equal((await rows()).length, 3);
});

test('a repeat is told from a delivery of its own after a pruning, too', async (t) => {
  const { store, rows, boot, path, now, tick } = await bench(t, 2);
  await retention(store, now, HOUR).prune();
  tick(60_000);
  await boot(path);
  assert.deepEqual(
    (await rows()).map(({ counted }) => counted),
    [false, true],
  );
  assert.equal((await store.findInstance('vm'))?.deliveryCount, 2);
});

test('a crowd of rows goes in batches, with turns for others in between', async (t) => {
  const { store, rows, now } = await bench(t, 1);
  const vm = await store.findInstance('vm');
  const [one] = await rows();
  assert.ok(vm && one);
  let left = 1234;
  const limits: number[] = [];
  const turns: number[] = [];
  const around: Partial<Store> = {
    pruneByAge: async (what, { limit }) => {
      if (what !== 'delivery') return 0;
      limits.push(limit);
      const dropped = Math.min(limit, left);
      left -= dropped;
      return dropped;
    },
  };
  const { prune } = retention(store, now, DAY, around);
  let done = false;
  const pruning = prune().finally(() => {
    done = true;
  });
  while (!done) {
    await setImmediate();
    turns.push(left);
  }
  assert.equal((await pruning).deliveries, 1234);
  assert.ok(Math.max(...limits) <= 1000 && (limits[0] ?? 99) <= 20, limits.join(' '));
  assert.ok(new Set(turns).size > 3, 'others had their turn between batches');
});

test('slow batches become small ones, and quick ones large again', async (t) => {
  const { store, now } = await bench(t, 1);
  const limits: number[] = [];
  const wait = [30, 30, 30, 0, 0, 0, 0];
  const around: Partial<Store> = {
    pruneByAge: async (what, { limit }) => {
      if (what !== 'delivery') return 0;
      limits.push(limit);
      const slow = wait.shift();
      if (slow === undefined) return 0;
      const until = performance.now() + slow;
      while (performance.now() < until);
      return limit;
    },
  };
  await retention(store, now, DAY, around).prune();
  assert.deepEqual(limits.slice(0, 4), [20, 10, 5, 5]);
  assert.ok((limits.at(-1) ?? 0) > 5, limits.join(' '));
});

test('it prunes at the start and every hour, one at a time, and stopped it ends at once', async (t) => {
  const { store, now } = await bench(t, 1);
  t.mock.timers.enable({ apis: ['setInterval'] });
  let begun = 0;
  let release = () => {};
  const around: Partial<Store> = {
    pruneByAge: async () => 0,
    pruneByCount: async () => {
      begun += 1;
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      return { dropped: 0, next: 'a' };
    },
    pruneOldSecrets: async () => assert.fail('it was stopped'),
  };
  const settle = async () => {
    for (let turn = 0; turn < 20; turn++) await setImmediate();
  };
  const { start, stop, trouble } = retention(store, now, DAY, around);
  start();
  await settle();
  assert.equal(begun, 1);
  t.mock.timers.tick(HOUR);
  await settle();
  assert.equal(begun, 1, 'the first one is under way');
  let ended = false;
  const stopping = stop().then(() => {
    ended = true;
  });
  await settle();
  assert.equal(ended, false, 'a batch is under way');
  release();
  await stopping;
  t.mock.timers.tick(3 * HOUR);
  await settle();
  assert.deepEqual([begun, trouble], [1, []]);
});

test('trouble is told, and an hour later it is tried again', async (t) => {
  const { store, rows, now } = await bench(t, 3);
  t.mock.timers.enable({ apis: ['setInterval'] });
  let broken = true;
  const around: Partial<Store> = {
    pruneByAge: (what, batch) => (broken ? Promise.reject(new Error('away')) : store.pruneByAge(what, batch)),
  };
  const { start, stop, trouble } = retention(store, now, DAY, around);
  start();
  await setImmediate();
  await setImmediate();
  assert.match(trouble[0] ?? '', /^the ledger could not be relieved .* away$/);
  broken = false;
  t.mock.timers.tick(HOUR);
  for (let turn = 0; turn < 1000 && (await rows()).length > 2; turn++) await setImmediate();
  await stop();
  assert.deepEqual([(await rows()).length, trouble.length], [2, 1]);
});

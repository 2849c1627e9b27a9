import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createWatch } from '../../src/service/watch.ts';
import { ANN } from '../actor.ts';
import { SPEC, storeWithRows } from '../rows.ts';

const DEADLINES = { fetch: 1000, boot: 100 };

async function bench(t: TestContext) {
  const { store, rows } = await storeWithRows(t);
  let now = 0;
  const told: string[] = [];
  const troubles: string[] = [];
  const watchOf = (deps = store, deadlines: { fetch: number | null; boot: number | null } = DEADLINES, watchMs = 5) =>
    createWatch({
      ...{ store: deps, deadlines, watchMs, clock: () => now },
      onSilent: (name, { reason }) => told.push(`${name}: ${reason}`),
      onTrouble: (_, what) => troubles.push(what),
    });
  const register = (name: string) =>
    store.putInstances([{ name, spec: SPEC, freshId: name.padEnd(16, '0'), expect: undefined }], { at: now, by: ANN });
  const at = (time: number) => {
    now = time;
  };
  return { store, rows, watchOf, register, told, troubles, at };
}

const EXPECTS = { events: true, phoneHome: false, manifests: [] };

test('what is overdue is told once, and not before', async (t) => {
  const { rows, watchOf, register, told, at } = await bench(t);
  await register('a');
  const watch = watchOf();
  at(999);
  await watch.sweep();
  assert.deepEqual(told, []);
  at(1000);
  await watch.sweep();
  assert.deepEqual(told, ['a: no word since 1970-01-01T00:00:00.000Z: it has not fetched its document yet']);
  await watch.sweep();
  assert.equal(told.length, 1);
  // Another word, and silence again.
  await rows.boot('a', { deliveredAt: 2000, expects: EXPECTS });
  at(2099);
  await watch.sweep();
  assert.equal(told.length, 1);
  at(2100);
  await watch.sweep();
  assert.match(told[1] ?? '', /^a: no word since 1970-01-01T00:00:02\.000Z: it fetched its document and has not reported/);
});

test('of two replicas one tells; a restart tells nothing again and forgets nothing', async (t) => {
  const { watchOf, register, told, at } = await bench(t);
  for (const name of ['a', 'b', 'c']) await register(name);
  at(5000);
  await Promise.all([watchOf().sweep(), watchOf().sweep()]);
  assert.deepEqual(told.map((line) => line.split(':')[0]).sort(), ['a', 'b', 'c']);
  await watchOf().sweep();
  assert.equal(told.length, 3);
  await register('d');
  at(6000);
  await watchOf().sweep();
  assert.equal(told.length, 4);
});

test('more than one transaction takes are told at one look', async (t) => {
  const { store, watchOf, told, at } = await bench(t);
  const writes = Array.from({ length: 1201 }, (_, index) => ({
    ...{ name: `vm-${index}`, spec: SPEC, freshId: index.toString(16).padStart(16, '0'), expect: undefined },
  }));
  await store.putInstances(writes, { at: 0, by: ANN });
  at(5000);
  await watchOf().sweep();
  assert.equal(new Set(told).size, 1201);
});

test('without a deadline nobody is silent', async (t) => {
  const { watchOf, register, told, at } = await bench(t);
  await register('a');
  at(1e12);
  await watchOf(undefined, { fetch: null, boot: null }).sweep();
  assert.deepEqual(told, []);
});

test('the timer looks again and again, past a database that is away, until it is stopped', async (t) => {
  const { store, watchOf, register, told, troubles, at } = await bench(t);
  await register('a');
  at(5000);
  let away = 2;
  const shaky = {
    ...store,
    sweepSilent: async (sweep: Parameters<typeof store.sweepSilent>[0]) => {
      if (away-- > 0) throw new Error('away');
      return store.sweepSilent(sweep);
    },
  };
  const watch = watchOf(shaky);
  watch.start();
  for (let waited = 0; told.length === 0 && waited < 2000; waited += 5) await sleep(5);
  await watch.stop();
  assert.equal(told.length, 1);
  assert.equal(troubles.length, 2);
  await register('b');
  at(10_000);
  await sleep(30);
  assert.equal(told.length, 1, 'stopped');
});

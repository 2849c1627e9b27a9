import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BootFacts, Goal } from '../../src/domain/boot.ts';
import { BootbundleError } from '../../src/domain/errors.ts';
import { createWaitService } from '../../src/service/wait.ts';
import { ANN } from '../actor.ts';
import { SPEC, storeWithRows } from '../rows.ts';

const DEADLINES = { fetch: 100_000, boot: 10_000 };
const EXPECTS = { events: true, phoneHome: false, manifests: [] };
const BOOTING: Partial<BootFacts> = { deliveredAt: 10, expects: EXPECTS, lastWordAt: 20 };
const READY: Partial<BootFacts> = { ...BOOTING, finalAt: 30, finalClock: 30, readyAt: 30 };
const FAILED: Partial<BootFacts> = { ...BOOTING, failures: [{ what: 'modules-final', description: '', clock: 0 }] };

async function bench(t: TestContext) {
  const { store, rows } = await storeWithRows(t);
  let now = 0;
  const waiting = createWaitService({ store, deadlines: DEADLINES, clock: () => now, waitMs: 2 });
  const register = (name: string, labels: Record<string, string> = {}) =>
    store.putInstances([{ name, spec: { ...SPEC, labels }, freshId: name.padEnd(16, '0'), expect: undefined }], {
      at: 0,
      by: ANN,
    });
  const never = new AbortController();
  const wait = (goal: Goal, timeout = 0, signal = never.signal) => waiting.wait({ instance: 'vm' }, goal, timeout, signal);
  const at = (time: number) => {
    now = time;
  };
  return { store, rows, waiting, register, wait, at, never };
}

const is = (kind: string, code: string) => (error: unknown) =>
  error instanceof BootbundleError && error.kind === kind && error.code === code;

test('how each state stands to each goal', async (t) => {
  const { rows, register, wait, at } = await bench(t);
  await register('vm');
  const silent = 20_000;
  for (const [facts, now, delivered, booting, ready] of [
    [{}, 0, 'timeout', 'timeout', 'timeout'],
    [{}, 100_000, 'missed', 'missed', 'missed'],
    [{ unrenderedAt: 5 }, 0, 'missed', 'missed', 'missed'],
    [{ deliveredAt: 10, expects: EXPECTS }, 20, 'reached', 'timeout', 'timeout'],
    [{ deliveredAt: 10, expects: EXPECTS }, silent, 'reached', 'missed', 'missed'],
    // With track: false it never says more.
    [{ deliveredAt: 10 }, 20, 'reached', 'missed', 'missed'],
    [BOOTING, 40, 'reached', 'reached', 'timeout'],
    [BOOTING, silent, 'reached', 'reached', 'missed'],
    [FAILED, 40, 'reached', 'reached', 'missed'],
    [READY, silent, 'reached', 'reached', 'reached'],
  ] as const) {
    await rows.boot('vm', facts);
    at(now);
    const results = [];
    for (const goal of ['delivered', 'booting', 'ready'] as const) results.push((await wait(goal)).result);
    assert.deepEqual(results, [delivered, booting, ready], JSON.stringify(facts));
  }
});

test('it ends as soon as the machine is there, and as soon as it cannot get there', async (t) => {
  const { rows, register, wait } = await bench(t);
  await register('vm');
  for (const [facts, result] of [
    [READY, 'reached'],
    [FAILED, 'missed'],
  ] as const) {
    await rows.boot('vm', BOOTING);
    const outcome = wait('ready', 60_000);
    await sleep(15);
    await rows.boot('vm', facts);
    assert.equal((await outcome).result, result);
  }
});

test('it ends when the time is over', async (t) => {
  const { register, wait, at } = await bench(t);
  await register('vm');
  const outcome = wait('ready', 5000);
  await sleep(10);
  at(5000);
  const { result, standings } = await outcome;
  assert.deepEqual([result, standings.map(({ state }) => state.state)], ['timeout', ['registered']]);
});

test('a group is there when all are, and missed when one is; without one there is none to wait for', async (t) => {
  const { rows, waiting, register, never } = await bench(t);
  const wait = (value: string | null) => waiting.wait({ labels: [{ key: 'role', value }] }, 'ready', 0, never.signal);
  for (const name of ['a', 'b']) await register(name, { role: 'db' });
  await register('c', { role: 'web' });
  await rows.boot('a', READY);
  assert.equal((await wait('db')).result, 'timeout');
  await rows.boot('b', READY);
  const { result, standings } = await wait('db');
  assert.deepEqual([result, standings.map(({ name }) => name)], ['reached', ['a', 'b']]);
  await rows.boot('c', FAILED);
  assert.deepEqual(
    (await wait(null)).standings.map(({ name, progress }) => `${name} ${progress}`),
    ['a reached', 'b reached', 'c missed'],
  );
  await assert.rejects(wait('none'), is('not_found', 'no_instances'));
});

test('a group has a bound', async (t) => {
  const { store, waiting, never } = await bench(t);
  const spec = { ...SPEC, labels: { a: 'b' } };
  const writes = Array.from({ length: 1001 }, (_, index) => ({
    ...{ name: `vm-${index}`, spec, freshId: index.toString(16).padStart(16, '0'), expect: undefined },
  }));
  await store.putInstances(writes, { at: 0, by: ANN });
  const wait = waiting.wait({ labels: [{ key: 'a', value: null }] }, 'ready', 0, never.signal);
  await assert.rejects(wait, is('invalid', 'too_many_instances'));
});

test('of nobody, of a machine that is deleted meanwhile, and past the end of the service', async (t) => {
  const { store, register, wait } = await bench(t);
  await assert.rejects(wait('ready'), is('not_found', 'unknown_instance'));
  await register('vm');
  const deleted = wait('ready', 60_000);
  await store.retireInstance('vm', { expect: undefined, at: 1, by: ANN });
  await assert.rejects(deleted, is('not_found', 'unknown_instance'));
  await register('vm');
  const stopping = new AbortController();
  const stopped = wait('ready', 60_000, stopping.signal);
  await sleep(5);
  stopping.abort();
  await assert.rejects(stopped, is('unavailable', 'shutting_down'));
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSlices } from '../../src/service/slices.ts';

/** Holds the event loop as work does. */
function work(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

test('others get their turn between two slices, and not within one', async () => {
  const pause = createSlices(() => false)();
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  for (let step = 0; step < 20; step++) await pause();
  assert.equal(turns, 0, 'no slice was over');
  for (let step = 0; step < 20; step++) {
    work(3);
    await pause();
  }
  clearInterval(timer);
  assert.ok(turns >= 10, `${turns} turns`);
});

test('a fetch that is under way comes to its end first', async () => {
  let fetching = true;
  const pause = createSlices(() => fetching)();
  work(3);
  setTimeout(() => {
    fetching = false;
  }, 15);
  await pause();
  assert.equal(fetching, false);
});

test('where there is always a fetch under way, the work goes on all the same', async () => {
  const pause = createSlices(() => true)();
  work(3);
  const began = performance.now();
  await pause();
  assert.ok(performance.now() - began < 500);
});

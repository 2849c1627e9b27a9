import assert from 'node:assert/strict';
import { test } from 'node:test';
import { retry } from '../../src/store/retry.ts';

test('what fails for a reason that passes is repeated until it succeeds', async () => {
  let tries = 0;
  const result = await retry(
    async () => {
      tries += 1;
      if (tries < 4) throw new Error('collided');
      return 'done';
    },
    () => true,
  );
  assert.deepEqual([result, tries], ['done', 4]);
});

test('what fails for another reason is not repeated', async () => {
  let tries = 0;
  const attempt = async () => {
    tries += 1;
    throw new Error(tries === 1 ? 'collided' : 'broken');
  };
  await assert.rejects(
    retry(attempt, (error) => error instanceof Error && error.message === 'collided'),
    /broken/,
  );
  assert.equal(tries, 2);
});

test('what never succeeds ends, with its own error', async (t) => {
  t.mock.method(Math, 'random', () => 0);
  let tries = 0;
  const attempt = () => Promise.reject(new Error(`collided ${++tries}`));
  await assert.rejects(
    retry(attempt, () => true),
    /collided 25/,
  );
  assert.equal(tries, 25);
});

import { setTimeout as sleep } from 'node:timers/promises';

const ATTEMPTS = 25;
const LONGEST_PAUSE_MS = 200;

/**
 * Repeats what failed for a reason that passes, a bounded number of times (about two seconds in all), with random pauses
 * so that those who collided do not collide again.
 */
export async function retry<T>(attempt: () => Promise<T>, passes: (error: unknown) => boolean): Promise<T> {
  for (let tried = 1; ; tried++) {
    try {
      return await attempt();
    } catch (error) {
      if (tried >= ATTEMPTS || !passes(error)) throw error;
      await sleep(Math.random() * Math.min(2 ** tried, LONGEST_PAUSE_MS));
    }
  }
}

import { scheduler } from 'node:timers/promises';

/** So long a slice of long work holds the event loop, milliseconds. */
const SLICE_MS = 2;
/** So long at most it stands back for fetches, milliseconds: in a boot storm there is always one under way, and the work must end, too. */
const PATIENCE_MS = 50;

/** Called between the steps of long work; resolves at once until a slice is over. */
export type Pause = () => Promise<void>;

/** Cuts long work into slices of a few milliseconds. Between two, fetches that are under way come to their end first. */
export function createSlices(fetching: () => boolean): () => Pause {
  return () => {
    let began = performance.now();
    return async () => {
      const now = performance.now();
      if (now - began < SLICE_MS) return;
      do await scheduler.yield();
      while (fetching() && performance.now() - now < PATIENCE_MS);
      began = performance.now();
    };
  };
}

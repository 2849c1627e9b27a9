import { setTimeout as sleep } from 'node:timers/promises';
import { LIMITS } from '../domain/limits.ts';
import type { Store } from '../domain/store.ts';

/** How much the ledger was relieved of. */
export interface Pruned {
  deliveries: number;
  reports: number;
  alarms: number;
  oldSecrets: number;
}

/** Keeps the ledger to what it is to hold. Of a machine it takes away the history, never what is known of it: counts, window and boot stay. */
export interface Retention {
  /** Drops all there is to drop, a little at a time; ends early when it is stopped. */
  prune(): Promise<Pruned>;
  /** Prunes now, and every hour until it is stopped. */
  start(): void;
  /** Resolves when nothing is under way any more. */
  stop(): Promise<void>;
}

const HOUR_MS = 60 * 60 * 1000;
/** What is younger stays whatever it is: a repeat is told from a delivery by it, and a fetch may be under way. */
const SETTLED_MS = HOUR_MS;
/** How long a fetch may be under way, and how far replicas' clocks may differ. */
const SLACK_MS = 10 * 60 * 1000;
/** A batch that took longer makes the next one smaller, one that took half of it, larger. Milliseconds. */
const BATCH_MS = 8;
const [SMALLEST_BATCH, FIRST_BATCH, LARGEST_BATCH] = [5, 20, 1000];
/** Between two batches it stands back for as long as the last one took, up to this. Milliseconds. */
const LONGEST_PAUSE_MS = 200;

/** @param keepMs how long rows stay in the ledger, milliseconds; null: for ever, but no more than LIMITS.deliveriesPerInstance each */
export function createRetention(deps: {
  store: Store;
  keepMs: number | null;
  clock: () => number;
  /** Told of trouble nobody waits for. */
  onTrouble: (error: unknown, what: string) => void;
}): Retention {
  const { store, keepMs, clock, onTrouble } = deps;
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  let underWay: Promise<void> | undefined;

  /** Repeats a small step until it says that it was the last. */
  async function inBatches(step: (limit: number) => Promise<{ last: boolean }>): Promise<void> {
    let limit = FIRST_BATCH;
    while (!stopped) {
      const began = performance.now();
      const { last } = await step(limit);
      if (last) return;
      const took = performance.now() - began;
      if (took > BATCH_MS) limit = Math.max(SMALLEST_BATCH, Math.floor(limit / 2));
      else if (took < BATCH_MS / 2) limit = Math.min(LARGEST_BATCH, limit * 2);
      await sleep(Math.min(took, LONGEST_PAUSE_MS));
    }
  }

  async function pruneByAge(what: 'delivery' | 'report' | 'alarm', before: number): Promise<number> {
    let total = 0;
    await inBatches(async (limit) => {
      const dropped = await store.pruneByAge(what, { before, limit });
      total += dropped;
      return { last: dropped < limit };
    });
    return total;
  }

  /** Goes through all, some at a batch; each says where the next one goes on. */
  async function goThrough<Cursor>(
    start: Cursor,
    step: (after: Cursor, limit: number) => Promise<{ dropped: number; next: Cursor | null }>,
  ): Promise<number> {
    let total = 0;
    let after = start;
    await inBatches(async (limit) => {
      const { dropped, next } = await step(after, limit);
      total += dropped;
      after = next ?? after;
      return { last: next === null };
    });
    return total;
  }

  async function prune(): Promise<Pruned> {
    const now = clock();
    const pruned: Pruned = { deliveries: 0, reports: 0, alarms: 0, oldSecrets: 0 };
    if (keepMs !== null) {
      const before = now - keepMs;
      pruned.deliveries += await pruneByAge('delivery', before);
      pruned.reports += await pruneByAge('report', before);
      pruned.alarms += await pruneByAge('alarm', before);
    }
    const crowd = { keep: LIMITS.deliveriesPerInstance, before: now - SETTLED_MS };
    pruned.deliveries += await goThrough('', (after, limit) => store.pruneByCount({ ...crowd, after, limit }));
    // At last: they are needed for as long as the deliveries are there.
    const old = { now, slack: SLACK_MS };
    pruned.oldSecrets += await goThrough(0, (after, limit) => store.pruneOldSecrets({ ...old, after, limit }));
    return pruned;
  }

  function run(): void {
    underWay ??= prune()
      .then(() => undefined)
      .catch((error) => onTrouble(error, 'the ledger could not be relieved of what is too old; tried again in an hour'))
      .finally(() => {
        underWay = undefined;
      });
  }

  return {
    prune,

    start() {
      run();
      timer = setInterval(run, HOUR_MS);
      timer.unref();
    },

    async stop() {
      stopped = true;
      clearInterval(timer);
      await underWay;
    },
  };
}

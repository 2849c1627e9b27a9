import { type CurrentState, type Deadlines, stateAt } from '../domain/boot.ts';
import type { Store } from '../domain/store.ts';

/** The dead-man's timer: tells of machines from which a word is overdue. */
export interface Watch {
  /** Looks once. Resolves when all that fell silent was told. */
  sweep(): Promise<void>;
  start(): void;
  /** Resolves when a look that is under way has ended. */
  stop(): Promise<void>;
}

/** How often it looks, milliseconds. */
const WATCH_MS = 5000;
/** So many are noted in one transaction. */
const BATCH = 500;

/**
 * What is overdue is told once, by whichever replica notes it first. Nothing is kept here: deadlines go by what the database says, so a
 * restart forgets none.
 */
export function createWatch(deps: {
  store: Pick<Store, 'sweepSilent' | 'findInstance'>;
  deadlines: Deadlines;
  clock: () => number;
  /** Told of each machine that fell silent. */
  onSilent: (instance: string, state: CurrentState) => void;
  /** Told of trouble nobody waits for. */
  onTrouble: (error: unknown, what: string) => void;
  watchMs?: number;
}): Watch {
  const { store, deadlines, clock, onSilent, onTrouble, watchMs = WATCH_MS } = deps;
  let timer: NodeJS.Timeout | undefined;
  let underWay: Promise<void> | null = null;

  async function sweep() {
    for (;;) {
      const names = await store.sweepSilent({ now: clock(), deadlines, limit: BATCH });
      for (const name of names) {
        const instance = await store.findInstance(name);
        if (!instance) continue;
        const state = stateAt(instance, deadlines, clock());
        // It said something between the note and this look.
        if (state.state === 'silent') onSilent(name, state);
      }
      if (names.length < BATCH) return;
    }
  }

  function look() {
    underWay ??= sweep()
      .catch((error) => onTrouble(error, 'could not look for machines that fell silent'))
      .finally(() => {
        underWay = null;
      });
  }

  return {
    sweep,
    start() {
      timer ??= setInterval(look, watchMs).unref();
    },
    async stop() {
      clearInterval(timer);
      await underWay;
    },
  };
}

import { setTimeout as sleep } from 'node:timers/promises';
import type { NamePatterns } from '../domain/actor.ts';
import { type CurrentState, type Deadlines, type Goal, progress, stateAt } from '../domain/boot.ts';
import { invalid, notFound, unavailable } from '../domain/errors.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName } from '../domain/names.ts';
import type { InstanceFilter, InstanceState, Store } from '../domain/store.ts';

/** Which machines are waited for: one, or all with these labels. */
export type Awaited = { instance: string } | { labels: NonNullable<InstanceFilter['labels']>; names?: NamePatterns };

/** Where a machine is, and how it stands to what is waited for. */
export interface Standing {
  name: string;
  state: CurrentState;
  progress: 'reached' | 'waiting' | 'missed';
}

export interface WaitOutcome {
  /** `missed`: at least one of them will not get there without an operator. */
  result: 'reached' | 'missed' | 'timeout';
  /** All of them, by name. */
  standings: Standing[];
}

export interface WaitService {
  /**
   * Resolves when all of them have reached the goal, when one cannot any more, or after `timeoutMs`.
   * @throws not_found `unknown_instance`, `no_instances`; invalid `too_many_instances`; unavailable `shutting_down` when `signal` ends it
   */
  wait(awaited: Awaited, goal: Goal, timeoutMs: number, signal: AbortSignal): Promise<WaitOutcome>;
}

/** How often the database is asked, milliseconds; of many machines not so often. */
const WAIT_MS = 500;
const WAIT_PER_INSTANCE_MS = 2;

export function createWaitService(deps: {
  store: Pick<Store, 'listStates' | 'findInstance'>;
  deadlines: Deadlines;
  clock: () => number;
  waitMs?: number;
}): WaitService {
  const { store, deadlines, clock, waitMs = WAIT_MS } = deps;

  async function find(awaited: Awaited): Promise<InstanceState[]> {
    if ('instance' in awaited) {
      checkName('instance', awaited.instance);
      const instance = await store.findInstance(awaited.instance);
      if (!instance || instance.retiredAt !== null) throw notFound('unknown_instance', 'there is no such instance');
      return [instance];
    }
    const states = await store.listStates({ after: null, limit: LIMITS.pageMax + 1 }, awaited);
    if (states.length === 0) throw notFound('no_instances', 'no instance has these labels');
    if (states.length > LIMITS.pageMax)
      throw invalid('too_many_instances', `more than ${LIMITS.pageMax} instances have these labels: ask for fewer at a time`);
    return states;
  }

  return {
    async wait(awaited, goal, timeoutMs, signal) {
      const until = clock() + timeoutMs;
      for (;;) {
        const now = clock();
        const standings = (await find(awaited)).map((facts) => ({
          name: facts.name,
          state: stateAt(facts, deadlines, now),
          progress: progress(goal, facts, deadlines, now),
        }));
        if (standings.some((standing) => standing.progress === 'missed')) return { result: 'missed', standings };
        if (standings.every((standing) => standing.progress === 'reached')) return { result: 'reached', standings };
        if (now >= until) return { result: 'timeout', standings };
        const pause = Math.min(waitMs + standings.length * WAIT_PER_INSTANCE_MS, until - now);
        await sleep(pause, undefined, { signal }).catch(() => undefined);
        if (signal.aborted) throw unavailable('shutting_down', 'the service is about to stop: ask again');
      }
    },
  };
}

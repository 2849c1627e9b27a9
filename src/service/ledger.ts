import { scheduler } from 'node:timers/promises';
import type { Delivery } from '../domain/delivery.ts';
import type { LedgerCursor, LedgerFilter, Store } from '../domain/store.ts';

export interface LedgerService {
  /** Newest first. A page may be short, since the search for one takes no longer than a moment; `next` is null at the end only. */
  list(
    filter: LedgerFilter,
    page: { after: LedgerCursor | null; limit: number },
  ): Promise<{ deliveries: Delivery[]; next: LedgerCursor | null }>;
  /** All of it, page by page; at most `limit` in all, unless that is null. */
  walk(
    filter: LedgerFilter,
    page: { after: LedgerCursor | null; limit: number | null },
  ): AsyncGenerator<Delivery[], void, void>;
  /** Epoch milliseconds. */
  now(): number;
}

/** So long one page is looked for, milliseconds. */
const SEARCH_MS = 1000;
const PAGE = 500;

export function createLedgerService(deps: { store: Pick<Store, 'scanDeliveries'>; clock: () => number }): LedgerService {
  const { store, clock } = deps;
  return {
    now: clock,

    async list(filter, { after, limit }) {
      const began = performance.now();
      const deliveries: Delivery[] = [];
      for (let from = after; ; ) {
        const found = await store.scanDeliveries(filter, { after: from, limit: limit - deliveries.length });
        deliveries.push(...found.deliveries);
        const enough = deliveries.length >= limit || performance.now() - began > SEARCH_MS;
        if (found.next === null || enough) return { deliveries, next: found.next };
        from = found.next;
        await scheduler.yield();
      }
    },

    async *walk(filter, { after, limit }) {
      let left = limit ?? Number.POSITIVE_INFINITY;
      for (let from = after; left > 0; ) {
        const { deliveries, next } = await store.scanDeliveries(filter, { after: from, limit: Math.min(PAGE, left) });
        left -= deliveries.length;
        yield deliveries;
        if (next === null) return;
        from = next;
        await scheduler.yield();
      }
    },
  };
}

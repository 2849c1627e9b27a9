import type { Delivery } from '../domain/delivery.ts';
import { notFound } from '../domain/errors.ts';
import type { Instance } from '../domain/instance.ts';
import { checkName } from '../domain/names.ts';
import type { ManifestResult } from '../domain/report.ts';
import type { Store } from '../domain/store.ts';

/** What happened to a machine, told by us or by itself. `at`: epoch milliseconds by our clock. */
export type TimelineEvent = { at: number } & (
  | { kind: 'registered'; version: number }
  | { kind: 'changed'; version: number }
  | { kind: 'retired'; version: number }
  | { kind: 'fetched'; delivery: Delivery }
  | { kind: 'manifest'; manifest: ManifestResult }
);

export interface Timeline {
  /** Newest last: the latest `limit` of them. */
  events: TimelineEvent[];
  /** Old reports that were dropped: past the instance's limit. */
  reportsDropped: number;
}

export interface TimelineService {
  /** @throws not_found `unknown_instance` */
  get(instance: string, limit: number): Promise<Timeline>;
}

export function createTimelineService({ store }: { store: Store }): TimelineService {
  return {
    async get(name, limit) {
      checkName('instance', name);
      const instance = await store.findInstance(name);
      if (!instance) throw notFound('unknown_instance', 'there is no such instance');
      const page = { after: null, limit };
      const [deliveries, reports] = await Promise.all([store.listDeliveries(name, page), store.listReports(name, page)]);
      const events: TimelineEvent[] = [
        ...lifeOf(instance),
        ...deliveries.map((delivery) => ({ at: delivery.at, kind: 'fetched' as const, delivery })).reverse(),
        ...reports
          .flatMap(({ at, ...body }) => (body.kind === 'manifest' ? [{ at, kind: body.kind, manifest: body.manifest }] : []))
          .reverse(),
      ];
      // A stable sort: what happened in one millisecond stays in this order.
      return {
        events: events.sort((a, b) => a.at - b.at).slice(-limit),
        reportsDropped: instance.reportsDropped,
      };
    },
  };
}

function lifeOf({ createdAt, updatedAt, retiredAt, version }: Instance): TimelineEvent[] {
  const events: TimelineEvent[] = [{ at: createdAt, kind: 'registered', version: 1 }];
  if (version > 1 && updatedAt !== retiredAt) events.push({ at: updatedAt, kind: 'changed', version });
  if (retiredAt !== null) events.push({ at: retiredAt, kind: 'retired', version });
  return events;
}

import { type Selectable, sql } from 'kysely';
import { type Delivery, type DeliveryOutcome, type NewDelivery, REPEAT_WINDOW_MS } from '../domain/delivery.ts';
import { notFound } from '../domain/errors.ts';
import type { Store } from '../domain/store.ts';
import { addressText, chunks, type Database, plain, type Schema } from './database.ts';

type DeliveryStore = Pick<Store, 'recordDeliveries' | 'closeDelivery' | 'listDeliveries'>;

const ROWS_PER_STATEMENT = 1000;

/** The ledger. */
export function deliveryStore(database: Database): DeliveryStore {
  return {
    async recordDeliveries(deliveries) {
      if (deliveries.length === 0) return [];
      const rows = deliveries.map(({ instanceId, ...delivery }) => ({ instanceId, row: toRow(delivery) }));
      const ids = [...new Set(rows.map(({ instanceId }) => instanceId))];
      const times = deliveries.map(({ at }) => at);
      const from = Math.min(...times) - REPEAT_WINDOW_MS;
      const until = Math.max(...times) + REPEAT_WINDOW_MS;

      return database.write(async (db) => {
        const instances = new Map<string, Tally>();
        for (const some of chunks(ids, ROWS_PER_STATEMENT)) {
          const found = await db
            .selectFrom('instance')
            .select(['id', 'name', 'first_delivery_at', 'last_delivery_at', 'delivery_count'])
            .where('id', 'in', some)
            .execute();
          for (const { id, ...tally } of found) instances.set(id, { ...tally, counted: new Map(), changed: false });
        }
        const byName = new Map([...instances.values()].map((tally) => [tally.name, tally]));
        const begun = [...byName.values()].filter((tally) => tally.first_delivery_at !== null).map(({ name }) => name);
        const addresses = [...new Set(rows.map(({ row }) => row.address))];
        for (const some of chunks(begun, ROWS_PER_STATEMENT)) {
          for (const someAddresses of chunks(addresses, ROWS_PER_STATEMENT)) {
            const found = await db
              .selectFrom('delivery')
              .select(['instance', 'address', 'at'])
              .where('instance', 'in', some)
              .where('address', 'in', someAddresses)
              .where('at', '>', from)
              .where('at', '<', until)
              .where('counted', '=', 1)
              .execute();
            for (const { instance, address, at } of found) {
              const tally = byName.get(instance);
              // What was counted before the first delivery belongs to an earlier life of the name.
              if (tally && at >= (tally.first_delivery_at ?? 0)) remember(tally, address, at);
            }
          }
        }

        const inserts = rows.map(({ instanceId, row }) => {
          const tally = instances.get(instanceId);
          if (!tally) throw notFound('unknown_instance', 'there is no instance of that id');
          return { ...row, instance: tally.name, counted: count(tally, row) ? 1 : 0 };
        });
        const inserted: number[] = [];
        for (const some of chunks(inserts, ROWS_PER_STATEMENT)) {
          const returned = await db.insertInto('delivery').values(some).returning('id').execute();
          // Ids grow in the order of the values; the order of what is returned is not promised.
          inserted.push(...returned.map(({ id }) => id).sort((a, b) => a - b));
        }
        const changed = [...instances.values()].filter((tally) => tally.changed);
        for (const some of chunks(changed, ROWS_PER_STATEMENT)) {
          const values = some.map(
            ({ name, first_delivery_at, last_delivery_at, delivery_count }) =>
              sql`(${name}, cast(${first_delivery_at} as bigint), cast(${last_delivery_at} as bigint), cast(${delivery_count} as bigint))`,
          );
          await sql`
            with tally (name, first_at, last_at, total) as (values ${sql.join(values)})
            update instance set first_delivery_at = tally.first_at, last_delivery_at = tally.last_at, delivery_count = tally.total
            from tally where instance.name = tally.name`.execute(db);
        }
        return inserted;
      });
    },

    closeDelivery: (id, outcome) =>
      database.write(async (db) => {
        await db.updateTable('delivery').set({ outcome }).where('id', '=', id).execute();
      }),

    listDeliveries: (instance, { after, limit, newerThan }) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('delivery')
          .selectAll()
          .where('instance', '=', instance)
          .$if(after !== null, (query) => query.where('id', '<', after ?? 0))
          .$if(newerThan !== undefined, (query) => query.where('id', '>', newerThan ?? 0))
          .orderBy('id', 'desc')
          .limit(limit)
          .execute();
        return rows.map(toDelivery);
      }),
  };
}

/** A row of the ledger. */
export function toDelivery(row: Selectable<Schema['delivery']>): Delivery {
  return {
    id: row.id,
    instance: row.instance,
    at: row.at,
    purpose: row.purpose as Delivery['purpose'],
    digest: row.digest,
    bytes: row.bytes,
    address: row.address,
    userAgent: row.user_agent,
    revisions: JSON.parse(row.revisions) as string[],
    instanceVersion: row.instance_version,
    counted: row.counted === 1,
    outcome: row.outcome as DeliveryOutcome,
    refusal: row.refusal as Delivery['refusal'],
    holdsSecrets: row.holds_secrets === 1,
    inputs: row.inputs === null ? null : (JSON.parse(row.inputs) as Delivery['inputs']),
  };
}

function toRow(delivery: Omit<NewDelivery, 'instanceId'>): Omit<Schema['delivery'], 'id' | 'instance' | 'counted'> {
  return {
    at: delivery.at,
    purpose: delivery.purpose,
    digest: delivery.digest,
    bytes: delivery.bytes,
    address: addressText(delivery.address),
    user_agent: plain(delivery.userAgent),
    revisions: JSON.stringify(delivery.revisions),
    instance_version: delivery.instanceVersion,
    outcome: delivery.outcome,
    refusal: delivery.refusal,
    holds_secrets: delivery.holdsSecrets ? 1 : 0,
    inputs: delivery.inputs && JSON.stringify(delivery.inputs),
  };
}

/** An instance's counts while a batch is worked through. */
interface Tally {
  name: string;
  first_delivery_at: number | null;
  last_delivery_at: number | null;
  delivery_count: number;
  /** When counted deliveries lay, per address. */
  counted: Map<string, number[]>;
  changed: boolean;
}

function remember(tally: Tally, address: string, at: number) {
  tally.counted.set(address, [...(tally.counted.get(address) ?? []), at]);
}

/**
 * Counts a delivery unless it is a repeat; see {@link REPEAT_WINDOW_MS}. On either side of a counted one: what one replica stamped a moment earlier
 * may be written a moment later.
 */
function count(tally: Tally, { at, address, outcome }: { at: number; address: string; outcome: string }): boolean {
  if (outcome !== 'delivered') return false;
  const repeat = tally.counted.get(address)?.some((other) => Math.abs(at - other) < REPEAT_WINDOW_MS);
  if (repeat) return false;
  remember(tally, address, at);
  tally.first_delivery_at = Math.min(tally.first_delivery_at ?? at, at);
  tally.last_delivery_at = Math.max(tally.last_delivery_at ?? at, at);
  tally.delivery_count += 1;
  tally.changed = true;
  return true;
}

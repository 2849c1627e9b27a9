import { type Kysely, type Selectable, sql } from 'kysely';
import type { AlarmKind } from '../domain/alarm.ts';
import { type BootFacts, noteDelivery, noteUnrendered, stateOf, waitingSince } from '../domain/boot.ts';
import {
  type Delivery,
  type DeliveryOutcome,
  type NewDelivery,
  REPEAT_WINDOW_MS,
  type Recorded,
  type Refusal,
  SECOND_MACHINE_MS,
} from '../domain/delivery.ts';
import type { Instance } from '../domain/instance.ts';
import { type PolicyDefaults, policyInForce, refusalOf } from '../domain/policy.ts';
import type { Store } from '../domain/store.ts';
import { type Raise, raiseAlarms } from './alarm.ts';
import { addressText, chunks, type Database, plain, type Schema } from './database.ts';
import { toInstance } from './instance.ts';

type DeliveryStore = Pick<Store, 'recordDeliveries' | 'isRepeat' | 'closeDelivery' | 'findDelivery' | 'listDeliveries'>;

const ROWS_PER_STATEMENT = 1000;

/** The ledger. */
export function deliveryStore(database: Database): DeliveryStore {
  return {
    async recordDeliveries(deliveries, defaults) {
      if (deliveries.length === 0) return [];
      const fetches = deliveries.map((delivery): Fetch => ({ delivery, row: toRow(delivery) }));
      return database.write(async (db) => {
        const tallies = await readTallies(db, fetches);
        const judged = fetches.map((fetch) => judge(tallies.get(fetch.delivery.instanceId), fetch, defaults));
        const rows = judged.flatMap((verdict) => (verdict ? [verdict.row] : []));
        const ids: number[] = [];
        for (const some of chunks(rows, ROWS_PER_STATEMENT)) {
          const returned = await db.insertInto('delivery').values(some).returning('id').execute();
          // Ids grow in the order of the values; the order of what is returned is not promised.
          ids.push(...returned.map(({ id }) => id).sort((a, b) => a - b));
        }
        await saveTallies(db, [...tallies.values()]);
        const begun = await raiseAlarms(
          db,
          judged.flatMap((verdict) => verdict?.alarm ?? []),
        );
        return judged.map((verdict): Recorded => {
          if (!verdict) return { kind: 'changed' };
          const alarm = verdict.alarm ? (begun.shift() ?? null) : null;
          return { kind: 'recorded', id: ids.shift() as number, counted: verdict.row.counted === 1, alarm };
        });
      });
    },

    isRepeat: ({ instance, address, at }) =>
      database.read(async (db) => {
        const row = await db
          .selectFrom('delivery')
          .innerJoin('instance', 'instance.name', 'delivery.instance')
          .select('delivery.id')
          .where('delivery.instance', '=', instance)
          .where('delivery.address', '=', addressText(address))
          .where('delivery.at', '>', at - REPEAT_WINDOW_MS)
          .where('delivery.at', '<', at + REPEAT_WINDOW_MS)
          .where('delivery.counted', '=', 1)
          .whereRef('delivery.at', '>=', 'instance.first_delivery_at')
          .limit(1)
          .executeTakeFirst();
        return row !== undefined;
      }),

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

    findDelivery: (instance, id) =>
      database.read(async (db) => {
        const row = await db
          .selectFrom('delivery')
          .selectAll()
          .where('id', '=', id)
          .where('instance', '=', instance)
          .executeTakeFirst();
        return row ? toDelivery(row) : null;
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

type DeliveryRow = Omit<Schema['delivery'], 'id'>;

function toRow(delivery: NewDelivery): Omit<DeliveryRow, 'instance' | 'counted'> {
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

/** A GET about to be answered, and its row as far as it is known before the transaction. */
interface Fetch {
  delivery: NewDelivery;
  row: Omit<DeliveryRow, 'instance' | 'counted'>;
}

/** What deliveries change of an instance, while a batch is worked through. */
interface Tally {
  instance: Instance;
  lastAddress: string | null;
  silentAt: number | null;
  /** When counted deliveries lay, per address. */
  counted: Map<string, number[]>;
  changed: boolean;
}

/** The living instances of a batch by their ids, each as it is now. */
async function readTallies(db: Kysely<Schema>, fetches: readonly Fetch[]): Promise<Map<string, Tally>> {
  const ids = [...new Set(fetches.map(({ delivery }) => delivery.instanceId))];
  const tallies = new Map<string, Tally>();
  for (const some of chunks(ids, ROWS_PER_STATEMENT)) {
    const found = await db.selectFrom('instance').selectAll().where('id', 'in', some).where('retired_at', 'is', null).execute();
    for (const row of found)
      tallies.set(row.id, {
        instance: toInstance(row),
        lastAddress: row.last_delivery_address,
        silentAt: row.silent_at,
        counted: new Map(),
        changed: false,
      });
  }
  const byName = new Map([...tallies.values()].map((tally) => [tally.instance.name, tally]));
  const begun = [...byName.values()].filter(({ instance }) => instance.firstDeliveryAt !== null);
  const names = begun.map(({ instance }) => instance.name);
  const addresses = [...new Set(fetches.map(({ row }) => row.address))];
  const times = fetches.map(({ row }) => row.at);
  for (const some of chunks(names, ROWS_PER_STATEMENT))
    for (const someAddresses of chunks(addresses, ROWS_PER_STATEMENT)) {
      const found = await db
        .selectFrom('delivery')
        .select(['instance', 'address', 'at'])
        .where('instance', 'in', some)
        .where('address', 'in', someAddresses)
        .where('at', '>', Math.min(...times) - REPEAT_WINDOW_MS)
        .where('at', '<', Math.max(...times) + REPEAT_WINDOW_MS)
        .where('counted', '=', 1)
        .execute();
      for (const { instance, address, at } of found) {
        const tally = byName.get(instance);
        // What was counted before the first delivery belongs to an earlier window, or an earlier life of the name.
        if (tally && at >= (tally.instance.firstDeliveryAt ?? 0)) remember(tally, address, at);
      }
    }
  return tallies;
}

function remember(tally: Tally, address: string, at: number) {
  tally.counted.set(address, [...(tally.counted.get(address) ?? []), at]);
}

/**
 * Whether an answer is what the instance, as it is now, would be answered: then what goes into the ledger, else null. Counts it, and notes
 * what it means for the boot.
 */
function judge(
  tally: Tally | undefined,
  { delivery, row }: Fetch,
  defaults: PolicyDefaults,
): { row: DeliveryRow; alarm: Raise | null } | null {
  if (!tally) return null;
  const { instance } = tally;
  const { purpose, at, outcome, refusal, generation, instanceVersion, guarded, userAgent } = delivery;
  if (instance.generations[purpose] !== generation || instance.version !== instanceVersion) return null;
  // On either side of a counted one: what one replica stamped a moment earlier may be written a moment later.
  const repeat = tally.counted.get(row.address)?.some((other) => Math.abs(at - other) < REPEAT_WINDOW_MS) ?? false;
  const policy = policyInForce(instance.policy, defaults, instance, guarded);
  if (refusalOf(policy, instance, { address: delivery.address, at, repeat }) !== refusal) return null;

  const counted = outcome === 'delivered' && refusal === null && !repeat;
  const kind = refusal === null ? (counted && isSecondMachine(tally, row) ? 'second_machine' : null) : alarmOf(refusal);
  if (outcome === 'delivered' && refusal === null && instance.fetchedAt[purpose] === null) {
    instance.fetchedAt = { ...instance.fetchedAt, [purpose]: at };
    tally.changed = true;
  }
  if (counted) count(tally, delivery, row.address);
  if (outcome === 'failed') note(tally, noteUnrendered(instance.boot, at));
  return {
    row: { ...row, instance: instance.name, counted: counted ? 1 : 0 },
    alarm: kind && { instance: instance.name, kind, at, count: 1, address: row.address, userAgent },
  };
}

const alarmOf = (refusal: Refusal): AlarmKind => (refusal === 'address' ? 'foreign_address' : 'late_fetch');

/** Another address than the last counted one's, while that is fresh. */
function isSecondMachine({ instance, lastAddress }: Tally, { address, at }: Fetch['row']): boolean {
  const { lastDeliveryAt } = instance;
  if (lastDeliveryAt === null || lastAddress === null || lastAddress === address) return false;
  return Math.abs(at - lastDeliveryAt) < SECOND_MACHINE_MS;
}

function count(tally: Tally, { at, purpose, expects }: NewDelivery, address: string): void {
  const { instance } = tally;
  remember(tally, address, at);
  instance.firstDeliveryAt = Math.min(instance.firstDeliveryAt ?? at, at);
  instance.lastDeliveryAt = Math.max(instance.lastDeliveryAt ?? at, at);
  instance.deliveryCount += 1;
  tally.lastAddress = address;
  note(tally, noteDelivery(instance.boot, { at, purpose, expects }));
}

function note(tally: Tally, boot: BootFacts): void {
  tally.instance.boot = boot;
  tally.silentAt = null;
  tally.changed = true;
}

async function saveTallies(db: Kysely<Schema>, tallies: readonly Tally[]): Promise<void> {
  const changed = tallies.filter((tally) => tally.changed);
  for (const some of chunks(changed, ROWS_PER_STATEMENT)) {
    const values = some.map(({ instance, lastAddress, silentAt }) => {
      const { name, firstDeliveryAt, lastDeliveryAt, deliveryCount, fetchedAt, boot } = instance;
      const integers = [
        firstDeliveryAt,
        lastDeliveryAt,
        deliveryCount,
        fetchedAt.include,
        fetchedAt.seed,
        waitingSince(instance),
        silentAt,
      ];
      const numbers = sql.join(integers.map((value) => sql`cast(${value} as bigint)`));
      const texts = [lastAddress, JSON.stringify(boot), stateOf(boot).state].map((value) => sql`cast(${value} as text)`);
      return sql`(${name}, ${numbers}, ${sql.join(texts)})`;
    });
    await sql`
      with tally (name, first_at, last_at, total, include_at, seed_at, since, silent_at, address, boot, state) as (values ${sql.join(values)})
      update instance set
        first_delivery_at = tally.first_at, last_delivery_at = tally.last_at, delivery_count = tally.total,
        include_fetched_at = tally.include_at, seed_fetched_at = tally.seed_at, last_delivery_address = tally.address,
        waiting_since = tally.since, silent_at = tally.silent_at, boot = tally.boot, state = tally.state
      from tally where instance.name = tally.name`.execute(db);
  }
}

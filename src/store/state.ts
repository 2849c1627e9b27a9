import { scheduler } from 'node:timers/promises';
import { type Expression, type ExpressionBuilder, type Kysely, type SqlBool, sql } from 'kysely';
import { type BootFacts, type Deadlines, NO_BOOT, type State } from '../domain/boot.ts';
import type { DeliveryInputs } from '../domain/delivery.ts';
import { formatReference, parseReference } from '../domain/names.ts';
import type { InstanceFilter, Store } from '../domain/store.ts';
import { addressText, type Database, type InstanceRow, indexable, plain, type Schema } from './database.ts';
import { lookUp } from './reference.ts';
import { nameFits } from './scope.ts';

type StateStore = Pick<Store, 'listStates' | 'countInstancesByState' | 'sweepSilent'>;

/** States as time goes by. */
export function stateStore(database: Database): StateStore {
  return {
    listStates: ({ after, limit }, filter) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('instance')
          .select(['name', 'created_at', 'reopened_at', 'boot', 'first_delivery_at'])
          .where((eb) => matches(eb, filter))
          .$if(after !== null, (query) => query.where('name', '>', plain(after ?? '')))
          .orderBy('name')
          .limit(limit)
          .execute();
        return rows.map((row) => ({
          name: row.name,
          createdAt: row.created_at,
          reopenedAt: row.reopened_at,
          boot: factsOf(row),
        }));
      }),

    countInstancesByState: (now, deadlines) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('instance')
          .select((eb) => [
            'state',
            eb.fn.countAll<number>().as('total'),
            sql<number>`count(case when ${isOverdue(eb, now, deadlines)} then 1 end)`.as('overdue'),
          ])
          .where('retired_at', 'is', null)
          .groupBy('state')
          .execute();
        const counts: Record<State, number> = { registered: 0, delivered: 0, booting: 0, ready: 0, failed: 0, silent: 0 };
        for (const { state, total, overdue } of rows) {
          counts[state as State] += total - overdue;
          counts.silent += overdue;
        }
        return counts;
      }),

    async sweepSilent({ now, deadlines, limit }) {
      const overdue = (db: Kysely<Schema>) =>
        db
          .selectFrom('instance')
          .select('name')
          .where('silent_at', 'is', null)
          .where('retired_at', 'is', null)
          .where((eb) => isOverdue(eb, now, deadlines))
          .limit(limit);
      // Nearly always there is none, and a look is cheaper than a write.
      const some = await database.read((db) => overdue(db).limit(1).execute());
      if (some.length === 0) return [];
      return database.write(async (db) => {
        const rows = await db
          .updateTable('instance')
          .set({ silent_at: now })
          .where('name', 'in', overdue(db))
          .where('silent_at', 'is', null)
          .returning('name')
          .execute();
        return rows.map(({ name }) => name);
      });
    },
  };
}

type OfInstance = ExpressionBuilder<Schema, 'instance'>;

/** Whether the deadline that counts for a row's state has passed, as domain/boot.ts, stateAt, has it. */
function isOverdue(eb: OfInstance, now: number, { fetch, boot }: Deadlines): Expression<SqlBool> {
  const past = (state: string, patience: number | null) =>
    patience === null ? [] : [eb.and([eb('state', '=', state), eb('waiting_since', '<=', now - patience)])];
  return eb.or([...past('registered', fetch), ...past('delivered', boot), ...past('booting', boot)]);
}

/** What a list is asked for, but for what is stale. */
export function matches(eb: OfInstance, filter: Omit<InstanceFilter, 'stale'>): Expression<SqlBool> {
  const { bundle, labels = [], instanceId, address, retired = false, state, names = null } = filter;
  const wanted: Expression<SqlBool>[] = [eb('retired_at', retired ? 'is not' : 'is', null)];
  if (names !== null) wanted.push(nameFits('name', names));
  if (instanceId !== undefined) wanted.push(eb('instance_id', '=', indexable(instanceId)));
  if (bundle !== undefined)
    wanted.push(eb('name', 'in', eb.selectFrom('instance_reference').select('instance').where('bundle', '=', plain(bundle))));
  if (address !== undefined)
    wanted.push(eb('name', 'in', eb.selectFrom('delivery').select('instance').where('address', '=', addressText(address))));
  for (const { key, value } of labels) {
    const labelled = eb.selectFrom('instance_label').select('instance').where('key', '=', indexable(key));
    wanted.push(eb('name', 'in', value === null ? labelled : labelled.where('value', '=', indexable(value))));
  }
  if (state !== undefined) wanted.push(isInState(eb, state));
  return eb.and(wanted);
}

/** By names that an index gives, so that few of many are found without a look at all. */
function isInState(eb: OfInstance, { is, now, deadlines }: NonNullable<InstanceFilter['state']>): Expression<SqlBool> {
  const named = (where: (eb: OfInstance) => Expression<SqlBool>) =>
    eb('name', 'in', eb.selectFrom('instance').select('name').where(where));
  if (is === 'silent') return named((inner) => isOverdue(inner, now, deadlines));
  const patience = is === 'registered' ? deadlines.fetch : is === 'delivered' || is === 'booting' ? deadlines.boot : null;
  return named((inner) => {
    const state = inner('state', '=', is);
    if (patience === null) return state;
    return inner.and([state, inner.or([inner('waiting_since', 'is', null), inner('waiting_since', '>', now - patience)])]);
  });
}

/** So many instances are held against what they fetched last before others get their turn. */
const STALE_STEP = 500;

/**
 * The instances of a list whose last document differs from what it would be rendered from now. Step by step, since most may not be stale:
 * SQLite's queries hold the event loop.
 */
export async function listStale<Row extends InstanceRow>(
  db: Kysely<Schema>,
  after: string | null,
  limit: number,
  step: (after: string | null, limit: number) => Promise<Row[]>,
): Promise<Row[]> {
  const found: Row[] = [];
  for (let from = after; ; ) {
    const rows = await step(from, STALE_STEP);
    const stale = await staleAmong(db, rows);
    found.push(...rows.filter(({ name }) => stale.has(name)));
    const last = rows.at(-1);
    if (found.length >= limit || !last || rows.length < STALE_STEP) return found.slice(0, limit);
    from = last.name;
    await scheduler.yield();
  }
}

async function staleAmong(db: Kysely<Schema>, rows: readonly InstanceRow[]): Promise<Set<string>> {
  const delivered = rows.filter((row) => row.first_delivery_at !== null);
  if (delivered.length === 0) return new Set();
  const last = await db
    .selectFrom('instance')
    .innerJoin('delivery', (join) =>
      join.on('delivery.id', '=', (eb) =>
        eb
          .selectFrom('delivery as own')
          .select('own.id')
          .whereRef('own.instance', '=', 'instance.name')
          .where('own.outcome', '=', 'delivered')
          .where('own.refusal', 'is', null)
          .orderBy('own.id', 'desc')
          .limit(1),
      ),
    )
    .where(
      'instance.name',
      'in',
      delivered.map(({ name }) => name),
    )
    .select(['instance.name', 'delivery.at', 'delivery.revisions', 'delivery.instance_version', 'delivery.inputs'])
    .execute();
  const lasts = new Map(last.map((row) => [row.name, row]));
  const references = delivered.flatMap(({ bundles }) => (JSON.parse(bundles) as string[]).map(parseReference));
  const meanings = await lookUp(db, references);
  const stale = delivered.filter(({ name, version, bundles, first_delivery_at }) => {
    const delivery = lasts.get(name);
    // The ledger keeps it no more, or it was before the instance was reopened: nothing is known.
    if (!delivery || delivery.at < (first_delivery_at ?? 0)) return false;
    if (delivery.instance_version !== null && delivery.instance_version !== version) return true;
    const { secretsVersions = {} } = (JSON.parse(delivery.inputs ?? '{}') ?? {}) as Partial<DeliveryInputs>;
    const now = (JSON.parse(bundles) as string[]).map((text) => {
      const { bundle } = parseReference(text);
      const meaning = meanings.get(formatReference(parseReference(text)));
      if (!meaning || 'code' in meaning) return null;
      const known = secretsVersions[bundle];
      return known === undefined || known === meaning.secretsVersion ? `${bundle}@${meaning.revision}` : null;
    });
    return JSON.stringify(now) !== delivery.revisions;
  });
  return new Set(stale.map(({ name }) => name));
}

/** What is known of an instance's boot. Deliveries from before boots were followed were noted on the instance only. */
export function factsOf({ boot, first_delivery_at }: Pick<InstanceRow, 'boot' | 'first_delivery_at'>): BootFacts {
  const facts = { ...NO_BOOT, ...(JSON.parse(boot) as Partial<BootFacts>) };
  return boot === '{}' ? { ...facts, deliveredAt: first_delivery_at } : facts;
}

import { type Kysely, sql } from 'kysely';
import { ALARM_BURST_MS, ALARMS_KEPT, type Alarm, type AlarmKind, type Raised } from '../domain/alarm.ts';
import type { Store } from '../domain/store.ts';
import { addressText, chunks, type Database, plain, type Schema } from './database.ts';

type AlarmStore = Pick<Store, 'recordAlarm' | 'listAlarms'>;

const ROWS_PER_STATEMENT = 500;

/** What somebody has to look at. */
export function alarmStore(database: Database): AlarmStore {
  return {
    recordAlarm: ({ instanceId, ...raised }) =>
      database.write(async (db) => {
        const row = await db.selectFrom('instance').select('name').where('id', '=', instanceId).executeTakeFirst();
        if (!row) return null;
        const [alarm] = await raiseAlarms(db, [{ ...raised, instance: row.name }]);
        return alarm ?? null;
      }),

    listAlarms: (instance, { after, limit, newerThan }) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('alarm')
          .selectAll()
          .where('instance', '=', plain(instance))
          .$if(after !== null, (query) => query.where('id', '<', after ?? 0))
          .$if(newerThan !== undefined, (query) => query.where('id', '>', newerThan ?? 0))
          .orderBy('id', 'desc')
          .limit(limit)
          .execute();
        return rows.map(toAlarm);
      }),
  };
}

/** What {@link raiseAlarms} takes: of an instance by its name. */
export type Raise = Omit<Raised, 'instanceId'> & { instance: string };

/**
 * Puts alarms into the transaction of what they tell of. What happened within ALARM_BURST_MS of the last time adds to the row there is.
 * @returns null for those that did so, in the order of `raised`; of several of one burst in `raised` the first may begin it
 */
export async function raiseAlarms(db: Kysely<Schema>, raised: readonly Raise[]): Promise<(Alarm | null)[]> {
  if (raised.length === 0) return [];
  const bursts = new Map<string, Burst>();
  for (const one of raised) {
    const row = { ...one, address: addressText(one.address), userAgent: plain(one.userAgent) };
    const key = keyOf(row);
    const burst = bursts.get(key);
    if (burst) {
      burst.count += row.count;
      burst.lastAt = Math.max(burst.lastAt, row.at);
    } else bursts.set(key, { ...row, lastAt: row.at, row: null, begun: null });
  }
  const all = [...bursts.values()];
  const instances = [...new Set(all.map(({ instance }) => instance))];
  await findBursts(db, instances, bursts);

  for (const { row, count, lastAt } of all) {
    if (row === null) continue;
    await db
      .updateTable('alarm')
      .set(({ eb }) => ({ count: eb('count', '+', count), last_at: Math.max(lastAt, row.last_at) }))
      .where('id', '=', row.id)
      .execute();
  }
  const fresh = all.filter(({ row }) => row === null);
  for (const some of chunks(fresh, ROWS_PER_STATEMENT)) {
    const values = some.map(({ instance, at, lastAt, count, kind, address, userAgent }) => ({
      ...{ instance, at, count, kind, address },
      ...{ last_at: lastAt, user_agent: userAgent },
    }));
    const rows = await db.insertInto('alarm').values(values).returningAll().execute();
    // Ids grow in the order of the values; the order of what is returned is not promised.
    rows.sort((a, b) => a.id - b.id);
    for (const [index, burst] of some.entries()) burst.begun = toAlarm(rows[index] as AlarmRow);
  }
  if (fresh.length > 0) await dropOldest(db, [...new Set(fresh.map(({ instance }) => instance))]);

  return raised.map((one) => {
    const burst = bursts.get(keyOf({ ...one, address: addressText(one.address) }));
    const begun = burst?.begun ?? null;
    if (burst) burst.begun = null;
    return begun;
  });
}

type AlarmRow = Omit<Schema['alarm'], 'id'> & { id: number };

/** What was raised of one kind from one address, and the row that it adds to, if there is one. */
type Burst = Raise & { lastAt: number; row: AlarmRow | null; begun: Alarm | null };

async function findBursts(db: Kysely<Schema>, instances: readonly string[], bursts: ReadonlyMap<string, Burst>): Promise<void> {
  const since = Math.min(...[...bursts.values()].map(({ at }) => at)) - ALARM_BURST_MS;
  for (const some of chunks(instances, ROWS_PER_STATEMENT)) {
    const rows = await db
      .selectFrom('alarm')
      .selectAll()
      .where('instance', 'in', some)
      .where('last_at', '>', since)
      .orderBy('id')
      .execute();
    for (const row of rows) {
      const burst = bursts.get(keyOf(row));
      if (burst && row.last_at > burst.at - ALARM_BURST_MS) burst.row = row;
    }
  }
}

async function dropOldest(db: Kysely<Schema>, instances: readonly string[]): Promise<void> {
  for (const some of chunks(instances, ROWS_PER_STATEMENT)) {
    const full = await db
      .selectFrom('alarm')
      .select('instance')
      .where('instance', 'in', some)
      .groupBy('instance')
      .having(({ fn }) => fn.countAll<number>(), '>', ALARMS_KEPT)
      .execute();
    for (const { instance } of full) {
      const kept = db
        .selectFrom('alarm')
        .select('id')
        .where('instance', '=', instance)
        .orderBy('id', 'desc')
        .limit(1)
        .offset(ALARMS_KEPT - 1);
      await db.deleteFrom('alarm').where('instance', '=', instance).where('id', '<', sql<number>`(${kept})`).execute();
    }
  }
}

function keyOf({ instance, kind, address }: { instance: string; kind: string; address: string }): string {
  return `${instance} ${kind} ${address}`;
}

function toAlarm({ id, instance, at, last_at, count, kind, address, user_agent }: AlarmRow): Alarm {
  return { id, instance, at, lastAt: last_at, count, kind: kind as AlarmKind, address, userAgent: user_agent };
}

import { sql } from 'kysely';
import type { Store } from '../domain/store.ts';
import type { Database } from './database.ts';

type PruneStore = Pick<Store, 'pruneByAge' | 'pruneByCount' | 'pruneOldSecrets'>;

/** When a row was last of interest. */
const AGE = { delivery: 'at', report: 'at', alarm: 'last_at' } as const;
/** So many instances one call looks at: each with a step per delivery it has, up to those that stay. */
const INSTANCES_PER_BATCH = 10;

/**
 * Takes out of the ledger what it keeps no longer, a batch at a time: SQLite's queries hold the event loop, and others want to write in between.
 * Two replicas that do it at once get in each other's way, and do no harm.
 */
export function pruneStore(database: Database): PruneStore {
  return {
    pruneByAge: (what, { before, limit }) =>
      database.write(async (db) => {
        const [table, age] = [sql.table(what), sql.ref(AGE[what])];
        const { numAffectedRows } = await sql`
          delete from ${table} where id in (
            select id from ${table} where ${age} < cast(${before} as bigint) order by ${age} limit ${limit}
          )`.execute(db);
        return Number(numAffectedRows ?? 0);
      }),

    async pruneByCount({ after, keep, before, limit }) {
      const page = await database.read(async (db) => {
        const { rows } = await sql<{ name: string; newest: number | null }>`
          select name, (
            select id from delivery where delivery.instance = page.name order by id desc limit 1 offset ${keep}
          ) as newest
          from (select name from instance where name > ${after} order by name limit ${INSTANCES_PER_BATCH}) as page
          order by name`.execute(db);
        return rows;
      });
      let dropped = 0;
      let done = after;
      for (const { name, newest } of page) {
        if (newest !== null) dropped += await dropUpTo(name, newest, { before, limit: limit - dropped });
        // There may be more of this one.
        if (dropped >= limit) return { dropped, next: done };
        done = name;
      }
      return { dropped, next: page.length < INSTANCES_PER_BATCH ? null : done };
    },

    async pruneOldSecrets({ after, now, slack, limit }) {
      const page = await database.read(async (db) => {
        // The literal lets SQLite use the partial indexes.
        const { rows } = await sql<{ id: number; needed: number }>`
          select id, case
            when replaced_at >= cast(${now - slack} as bigint) then 1
            when owner_kind = 'instance' and exists (
              select 1 from delivery
              where holds_secrets = 1 and instance = owner
                and instance_version >= from_version and instance_version < until_version
            ) then 1
            when owner_kind = 'bundle' and exists (
              select 1 from delivery
              where holds_secrets = 1
                and at >= set_at - cast(${slack} as bigint) and at <= replaced_at + cast(${slack} as bigint)
            ) then 1
            else 0 end as needed
          from old_secret where id > cast(${after} as bigint) order by id limit ${limit}`.execute(db);
        return rows;
      });
      const idle = page.filter(({ needed }) => needed === 0).map(({ id }) => id);
      if (idle.length > 0)
        await database.write(async (db) => {
          await db.deleteFrom('old_secret').where('id', 'in', idle).execute();
        });
      return { dropped: idle.length, next: page.length < limit ? null : (page.at(-1)?.id ?? null) };
    },
  };

  /** Drops an instance's oldest deliveries, up to one of them. @returns how many went */
  function dropUpTo(instance: string, id: number, { before, limit }: { before: number; limit: number }): Promise<number> {
    return database.write(async (db) => {
      const { numAffectedRows } = await sql`
        delete from delivery where id in (
          select id from delivery where instance = ${instance} and id <= cast(${id} as bigint) and at < cast(${before} as bigint)
          order by id limit ${limit}
        )`.execute(db);
      return Number(numAffectedRows ?? 0);
    });
  }
}

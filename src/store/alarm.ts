import type { AlarmKind } from '../domain/alarm.ts';
import type { Store } from '../domain/store.ts';
import type { Database } from './database.ts';

/** What somebody has to look at. */
export function alarmStore(database: Database): Pick<Store, 'listAlarms'> {
  return {
    listAlarms: (instance, { after, limit, newerThan }) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('alarm')
          .selectAll()
          .where('instance', '=', instance)
          .$if(after !== null, (query) => query.where('id', '<', after ?? 0))
          .$if(newerThan !== undefined, (query) => query.where('id', '>', newerThan ?? 0))
          .orderBy('id', 'desc')
          .limit(limit)
          .execute();
        return rows.map(({ last_at, user_agent, kind, ...row }) => ({
          ...row,
          kind: kind as AlarmKind,
          lastAt: last_at,
          userAgent: user_agent,
        }));
      }),
  };
}

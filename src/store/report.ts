import { notFound } from '../domain/errors.ts';
import type { Report } from '../domain/report.ts';
import type { Store } from '../domain/store.ts';
import { type Database, indexable } from './database.ts';

type ReportStore = Pick<Store, 'recordReport' | 'listReports' | 'findPhoneHome'>;

const KIND = 'manifest';

/** What machines told us. */
export function reportStore(database: Database): ReportStore {
  return {
    async recordReport({ instanceId, at, manifest, limit }) {
      const body = JSON.stringify(manifest);
      const key = indexable(manifest.id);
      return database.write(async (db) => {
        const instance = await db.selectFrom('instance').select('name').where('id', '=', instanceId).executeTakeFirst();
        if (!instance) throw notFound('unknown_instance', 'there is no instance of that id');
        const { name } = instance;
        const known = await db
          .selectFrom('report')
          .select('id')
          .where('instance', '=', name)
          .where('kind', '=', KIND)
          .where('key', '=', key)
          .executeTakeFirst();
        if (known) return 'repeated';
        const { total } = await db
          .selectFrom('report')
          .select(({ fn }) => fn.countAll<number>().as('total'))
          .where('instance', '=', name)
          .executeTakeFirstOrThrow();
        if (total >= limit) {
          const oldest = await db
            .selectFrom('report')
            .select('id')
            .where('instance', '=', name)
            .orderBy('id')
            .limit(total - limit + 1)
            .execute();
          await db
            .deleteFrom('report')
            .where(
              'id',
              'in',
              oldest.map(({ id }) => id),
            )
            .execute();
          await db
            .updateTable('instance')
            .set(({ eb }) => ({ reports_dropped: eb('reports_dropped', '+', oldest.length) }))
            .where('name', '=', name)
            .execute();
        }
        await db.insertInto('report').values({ instance: name, at, kind: KIND, key, body }).execute();
        return 'stored';
      });
    },

    listReports: (instance, { after, limit, newerThan }) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('report')
          .selectAll()
          .where('instance', '=', instance)
          .$if(after !== null, (query) => query.where('id', '<', after ?? 0))
          .$if(newerThan !== undefined, (query) => query.where('id', '>', newerThan ?? 0))
          .orderBy('id', 'desc')
          .limit(limit)
          .execute();
        return rows.map(({ id, instance, at, kind, body }) => ({ id, instance, at, kind, [kind]: JSON.parse(body) }) as Report);
      }),

    findPhoneHome: (instanceId) =>
      database.read(async (db) => {
        const row = await db
          .selectFrom('report')
          .select('instance')
          .where('kind', '=', 'phoneHome')
          .where('key', '=', indexable(instanceId))
          .orderBy('id', 'desc')
          .limit(1)
          .executeTakeFirst();
        return row?.instance ?? null;
      }),
  };
}

import { scheduler } from 'node:timers/promises';
import { notFound } from '../domain/errors.ts';
import type { PhoneHome, Report } from '../domain/report.ts';
import type { Store } from '../domain/store.ts';
import { type Database, indexable } from './database.ts';

type ReportStore = Pick<Store, 'recordReport' | 'listReports' | 'findPhoneHome'>;

const KIND = 'manifest';
/** So many phone-homes are looked at before others get their turn. */
const HOMES_PER_STEP = 1000;

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

    async findPhoneHome(instanceId) {
      for (let before = Number.MAX_SAFE_INTEGER; ; ) {
        const from = before;
        const rows = await database.read((db) =>
          db
            .selectFrom('report')
            .select(['id', 'instance', 'body'])
            .where('kind', '=', 'phoneHome')
            .where('id', '<', from)
            .orderBy('id', 'desc')
            .limit(HOMES_PER_STEP)
            .execute(),
        );
        const found = rows.find(({ body }) => (JSON.parse(body) as PhoneHome).instanceId === instanceId);
        if (found) return found.instance;
        if (rows.length < HOMES_PER_STEP) return null;
        before = rows.at(-1)?.id ?? 0;
        // SQLite's queries hold the event loop.
        await scheduler.yield();
      }
    },
  };
}

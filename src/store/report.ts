import { type BootFacts, noteEvent, noteManifest, notePhoneHome, noteResult } from '../domain/boot.ts';
import { notFound } from '../domain/errors.ts';
import type { Report, ReportBody } from '../domain/report.ts';
import type { Store } from '../domain/store.ts';
import { noted } from './boot.ts';
import { type Database, indexable } from './database.ts';

type ReportStore = Pick<Store, 'recordReport' | 'listReports'>;

/** What machines told us. */
export function reportStore(database: Database): ReportStore {
  return {
    async recordReport({ instanceId, at, body, key: text, limit }) {
      const { kind } = body;
      const key = indexable(text);
      return database.write(async (db) => {
        const instance = await db
          .selectFrom('instance')
          .select(['name', 'created_at', 'reopened_at', 'boot', 'reports_dropped'])
          .where('id', '=', instanceId)
          .executeTakeFirst();
        if (!instance) throw notFound('unknown_instance', 'there is no instance of that id');
        const { name } = instance;
        const ofKind = db.selectFrom('report').where('instance', '=', name).where('kind', '=', kind);
        if (await ofKind.select('id').where('key', '=', key).executeTakeFirst()) return 'repeated';
        const { total } = await ofKind.select(({ fn }) => fn.countAll<number>().as('total')).executeTakeFirstOrThrow();
        const over = Math.max(0, total - limit + 1);
        if (over > 0) {
          const oldest = await ofKind.select('id').orderBy('id').limit(over).execute();
          const ids = oldest.map(({ id }) => id);
          await db.deleteFrom('report').where('id', 'in', ids).execute();
        }
        await db
          .insertInto('report')
          .values({ instance: name, at, kind, key, body: JSON.stringify(contentOf(body)) })
          .execute();
        await db
          .updateTable('instance')
          .set({ ...noted(instance, (facts) => note(facts, body, at)), reports_dropped: instance.reports_dropped + over })
          .where('name', '=', name)
          .execute();
        return 'stored';
      });
    },

    listReports: (instance, { after, limit }, kind) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('report')
          .selectAll()
          .where('instance', '=', instance)
          .$if(kind !== undefined, (query) => query.where('kind', '=', kind ?? ''))
          .$if(after !== null, (query) => query.where('id', '<', after ?? 0))
          .orderBy('id', 'desc')
          .limit(limit)
          .execute();
        return rows.map(({ id, instance, at, kind, body }) => ({
          ...({ kind, [kind]: JSON.parse(body) as unknown } as ReportBody),
          ...{ id, instance, at },
        })) as Report[];
      }),
  };
}

/** What a report says, without its kind: each kind's content stands in the field of its name. */
function contentOf(body: ReportBody): unknown {
  switch (body.kind) {
    case 'event':
      return body.event;
    case 'phoneHome':
      return body.phoneHome;
    case 'log':
      return body.log;
    case 'manifest':
      return body.manifest;
  }
}

function note(facts: BootFacts, body: ReportBody, at: number): BootFacts {
  switch (body.kind) {
    case 'event':
      return noteEvent(facts, body.event, at);
    case 'phoneHome':
      return notePhoneHome(facts, at);
    case 'manifest':
      return noteManifest(facts, body.manifest, at);
    case 'log':
      return body.log.name === 'result.json' ? noteResult(facts, body.log.text, at) : facts;
  }
}

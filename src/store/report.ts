import type { Kysely } from 'kysely';
import { noteReport, stateOf, waitingSince } from '../domain/boot.ts';
import { notFound } from '../domain/errors.ts';
import { LOG_NAMES, type LogName, type Report, type ReportBody } from '../domain/report.ts';
import type { Store } from '../domain/store.ts';
import { type Database, indexable, type Schema } from './database.ts';
import { toFacts } from './instance.ts';

type ReportStore = Pick<Store, 'recordReport' | 'listReports' | 'listLogs' | 'findPhoneHome'>;

/** What machines told us. */
export function reportStore(database: Database): ReportStore {
  return {
    async recordReport({ instanceId, generation, at, body, key, limit }) {
      const { kind, text } = toColumns(body);
      return database.write(async (db) => {
        const instance = await db
          .selectFrom('instance')
          .select(['name', 'boot', 'created_at', 'reopened_at', 'report_generation'])
          .where('id', '=', instanceId)
          .where('retired_at', 'is', null)
          .executeTakeFirst();
        if (instance?.report_generation !== generation) throw notFound('unknown_capability', 'no such machine');
        const { name } = instance;
        const facts = toFacts(instance.boot);
        const scoped = body.kind === 'phoneHome' || body.kind === 'log' ? `${facts.deliveredAt} ${key}` : key;
        const row = { instance: name, at, kind, key: indexable(scoped), body: text };
        if (await isKnown(db, row)) return { instance: name, outcome: 'repeated' };

        const dropped = await makeRoom(db, name, body.kind === 'event' || body.kind === 'manifest' ? SHARED : [kind], limit);
        await db.insertInto('report').values(row).execute();
        const boot = noteReport(facts, body, at);
        const known = { createdAt: instance.created_at, reopenedAt: instance.reopened_at, boot };
        await db
          .updateTable('instance')
          .set(({ eb }) => ({
            boot: JSON.stringify(boot),
            state: stateOf(boot).state,
            waiting_since: waitingSince(known),
            silent_at: null,
            ...(body.kind === 'phoneHome' ? { told_instance_id: indexable(body.phoneHome.instanceId) } : {}),
            ...(dropped > 0 ? { reports_dropped: eb('reports_dropped', '+', dropped) } : {}),
          }))
          .where('name', '=', name)
          .execute();
        return { instance: name, outcome: 'stored' };
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
        return rows.map(toReport);
      }),

    listLogs: (instance, name) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('report')
          .selectAll()
          .where('instance', '=', instance)
          .where('kind', 'in', (name === null ? LOG_NAMES : [name]).map(logKind))
          .orderBy('id', 'desc')
          .execute();
        return rows.map(toReport).filter((report) => report.kind === 'log');
      }),

    findPhoneHome: (instanceId) =>
      database.read(async (db) => {
        const row = await db
          .selectFrom('instance')
          .select('name')
          .where('told_instance_id', '=', indexable(instanceId))
          .orderBy('updated_at', 'desc')
          .limit(1)
          .executeTakeFirst();
        return row?.name ?? null;
      }),
  };
}

/** These count together. */
const SHARED = ['event', 'manifest'];

const logKind = (name: LogName) => `log:${name}`;

/** The column `kind` tells one log from another, since each has a limit of its own. */
function toColumns(body: ReportBody): { kind: string; text: string } {
  switch (body.kind) {
    case 'event':
      return { kind: body.kind, text: JSON.stringify(body.event) };
    case 'phoneHome':
      return { kind: body.kind, text: JSON.stringify(body.phoneHome) };
    case 'manifest':
      return { kind: body.kind, text: JSON.stringify(body.manifest) };
    case 'log':
      return { kind: logKind(body.log.name), text: JSON.stringify(body.log) };
  }
}

function toReport({ id, instance, at, kind, body }: { id: number; instance: string; at: number; kind: string; body: string }) {
  const [name = ''] = kind.split(':', 1);
  return { id, instance, at, kind: name, [name]: JSON.parse(body) } as unknown as Report;
}

async function isKnown(db: Kysely<Schema>, { instance, kind, key }: { instance: string; kind: string; key: string }) {
  const known = await db
    .selectFrom('report')
    .select('id')
    .where('instance', '=', instance)
    .where('kind', '=', kind)
    .where('key', '=', key)
    .executeTakeFirst();
  return known !== undefined;
}

/** Drops the oldest of these kinds, so that one more is within the limit. @returns how many */
async function makeRoom(db: Kysely<Schema>, instance: string, kinds: readonly string[], limit: number): Promise<number> {
  const { total } = await db
    .selectFrom('report')
    .select(({ fn }) => fn.countAll<number>().as('total'))
    .where('instance', '=', instance)
    .where('kind', 'in', kinds)
    .executeTakeFirstOrThrow();
  if (total < limit) return 0;
  const oldest = await db
    .selectFrom('report')
    .select('id')
    .where('instance', '=', instance)
    .where('kind', 'in', kinds)
    .orderBy('id')
    .limit(total - limit + 1)
    .execute();
  const ids = oldest.map(({ id }) => id);
  await db.deleteFrom('report').where('id', 'in', ids).execute();
  return ids.length;
}

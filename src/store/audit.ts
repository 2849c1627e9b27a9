import type { Transaction } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import type { AuditEntry, AuditNote } from '../domain/audit.ts';
import type { Store } from '../domain/store.ts';
import { chunks, type Database, plain, type Schema } from './database.ts';
import { nameFits } from './scope.ts';

const ROWS_PER_STATEMENT = 500;

/** Who did what. There is no way to change or remove a line; a trigger of the database refuses both. */
export function auditStore(database: Database): Pick<Store, 'recordAudit' | 'listAudit'> {
  return {
    recordAudit: (note, { at, by }) => database.write((db) => noteAudit(db, at, by, note)),

    listAudit: ({ kind, name, actor, action, since, scope }, { after, limit, newerThan }) =>
      database.read(async (db) => {
        let query = db.selectFrom('audit').selectAll().orderBy('id', 'desc').limit(limit);
        if (kind !== undefined) query = query.where('kind', '=', kind);
        if (name !== undefined) query = query.where('name', '=', plain(name));
        if (actor !== undefined) query = query.where('actor', '=', plain(actor));
        if (action !== undefined) query = query.where('action', '=', plain(action));
        if (since !== undefined) query = query.where('at', '>=', since);
        if (after !== null) query = query.where('id', '<', after);
        if (newerThan !== undefined) query = query.where('id', '>', newerThan);
        if (scope && (scope.bundles !== null || scope.instances !== null))
          query = query.where(({ and, eb, or }) =>
            or([
              and([eb('kind', '=', 'bundle'), nameFits('name', scope.bundles)]),
              and([eb('kind', '=', 'instance'), nameFits('name', scope.instances)]),
            ]),
          );
        return (await query.execute()).map(({ request_id, kind, role, detail, ...row }) => ({
          ...row,
          kind: kind as AuditEntry['kind'],
          role: role as AuditEntry['role'],
          requestId: request_id,
          detail: JSON.parse(detail) as AuditEntry['detail'],
        }));
      }),
  };
}

/** Writes a line of the audit, in the transaction of the change it tells of: one is never there without the other. */
export async function noteAudit(db: Transaction<Schema>, at: number, by: Actor, note: AuditNote): Promise<void> {
  await noteAudits(db, at, by, [note]);
}

/** The same for many changes at once. */
export async function noteAudits(db: Transaction<Schema>, at: number, by: Actor, notes: readonly AuditNote[]): Promise<void> {
  const rows = notes.map(({ action, kind, name, before, after, detail }) => ({
    at,
    ...{ actor: plain(by.name), role: by.role, address: plain(by.address), request_id: by.requestId },
    ...{ action, kind, name: plain(name), before, after, detail: JSON.stringify(detail) },
  }));
  for (const some of chunks(rows, ROWS_PER_STATEMENT)) await db.insertInto('audit').values(some).execute();
}

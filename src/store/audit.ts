import type { Transaction } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import type { AuditNote } from '../domain/audit.ts';
import type { Store } from '../domain/store.ts';
import { type Database, plain, type Schema } from './database.ts';

/** Lines of the audit that no change brings with it. */
export function auditStore(database: Database): Pick<Store, 'recordAudit'> {
  return { recordAudit: (at, by, note) => database.write((db) => noteAudit(db, at, by, note)) };
}

/** Writes a line of the audit, in the transaction of the change it tells of: one is never there without the other. */
export async function noteAudit(db: Transaction<Schema>, at: number, by: Actor, note: AuditNote): Promise<void> {
  const { action, kind, name, before, after, detail } = note;
  await db
    .insertInto('audit')
    .values({
      at,
      ...{ actor: plain(by.name), role: by.role, address: plain(by.address), request_id: by.requestId },
      ...{ action, kind, name: plain(name), before, after, detail: plain(JSON.stringify(detail)) },
    })
    .execute();
}

import type { Updateable } from 'kysely';
import type { AuditNote } from '../domain/audit.ts';
import { notFound } from '../domain/errors.ts';
import { checkSeedUnused } from '../domain/instance.ts';
import type { InstanceChange, Store, WindowChange } from '../domain/store.ts';
import { noteAudit } from './audit.ts';
import type { Database, InstanceRow } from './database.ts';
import { BLANK_BOOT, mismatch, saveSpecs, toInstance } from './instance.ts';

type WindowStore = Pick<Store, 'closeWindow' | 'reopenWindow' | 'rotateCapabilities'>;

/** What a change makes of an instance's row, null for nothing, and what the audit says of it. */
type Edit = (row: InstanceRow) => { set: Updateable<InstanceRow>; note: Pick<AuditNote, 'action' | 'detail'> } | null;

/** When an instance's document is given out, and by which capabilities. */
export function windowStore(database: Database): WindowStore {
  const change = (name: string, { expect, at, by }: WindowChange, edit: Edit): Promise<InstanceChange> =>
    database.write(async (db) => {
      const row = await db
        .selectFrom('instance')
        .selectAll()
        .where('name', '=', name)
        .where('retired_at', 'is', null)
        .executeTakeFirst();
      if (!row) throw notFound('unknown_instance', 'there is no such instance');
      if (expect !== undefined && expect !== row.version) throw mismatch(name);
      const before = toInstance(row);
      const edited = edit(row);
      if (!edited) return { before, after: before, changed: false };
      const after = { ...row, ...edited.set } as InstanceRow;
      await db.updateTable('instance').set(edited.set).where('name', '=', name).execute();
      if (after.version !== row.version) await saveSpecs(db, [{ row: after, columns: after }], at);
      const tags = { before: `${row.id}.${row.version}`, after: `${row.id}.${after.version}` };
      await noteAudit(db, at, by, { ...edited.note, kind: 'instance', name, ...tags });
      return { before, after: toInstance(after), changed: true };
    });

  return {
    closeWindow: (name, options) =>
      change(name, options, (row) =>
        row.closed_at === null ? { set: { closed_at: options.at }, note: { action: 'close', detail: {} } } : null,
      ),

    reopenWindow: (name, { until, ...options }) =>
      change(name, options, (row) => ({
        set: {
          ...BLANK_BOOT,
          // Its reports stay, and the URLs that were fetched are the same.
          reports_dropped: row.reports_dropped,
          include_fetched_at: row.include_fetched_at,
          seed_fetched_at: row.seed_fetched_at,
          reopened_at: options.at,
          open_until: until,
          waiting_since: options.at,
        },
        note: { action: 'reopen', detail: until === null ? {} : { until: new Date(until).toISOString() } },
      })),

    rotateCapabilities: (name, { purposes, force, ...options }) =>
      change(name, options, (row) => {
        const rotates = (purpose: string) => purposes.some((one) => one === purpose);
        if (rotates('seed')) checkSeedUnused(toInstance(row), force);
        return {
          set: {
            version: row.version + 1,
            updated_at: options.at,
            ...(rotates('include') && { include_generation: row.include_generation + 1, include_fetched_at: null }),
            ...(rotates('seed') && { seed_generation: row.seed_generation + 1, seed_fetched_at: null }),
            ...(rotates('report') && { report_generation: row.report_generation + 1 }),
          },
          note: { action: 'rotate', detail: { purposes, ...(force && { force }) } },
        };
      }),
  };
}

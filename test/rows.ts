import type { TestContext } from 'node:test';
import type { AlarmKind } from '../src/domain/alarm.ts';
import { type BootEvent, type BootFacts, NO_BOOT, stateOf, waitingSince } from '../src/domain/boot.ts';
import type { NewDelivery } from '../src/domain/delivery.ts';
import type { InstanceSpec } from '../src/domain/instance.ts';
import type { ManifestResult, ReportBody } from '../src/domain/report.ts';
import type { Store } from '../src/domain/store.ts';
import type { Database } from '../src/store/database.ts';
import { migrate } from '../src/store/migrate.ts';
import { createStore } from '../src/store/open.ts';
import { openSqlite } from '../src/store/sqlite.ts';

/** Writes rows as they would come to be in many boots, at whatever time a test wants. */
export interface Rows {
  /** Sets what is known of a boot, and what the row derives from it. */
  boot(instance: string, facts: Partial<BootFacts>): Promise<void>;
  /** @returns its id */
  delivery(instance: string, row: Partial<Omit<NewDelivery, 'instanceId'>> & { counted?: boolean }): Promise<number>;
  report(instance: string, at: number, body: ReportBody): Promise<void>;
  event(instance: string, at: number, event: Partial<BootEvent>): Promise<void>;
  alarm(
    instance: string,
    row: { at: number; kind: AlarmKind; count?: number; lastAt?: number; address?: string },
  ): Promise<void>;
  audit(
    instance: string,
    row: { at: number; action: string; before?: string | null; after?: string | null; by?: string },
  ): Promise<void>;
}

/** An in-memory store, and a way to write rows beside it. */
export async function storeWithRows(t: TestContext): Promise<{ store: Store; rows: Rows }> {
  const database = await openSqlite(':memory:');
  await migrate(database);
  const store = createStore(database);
  t.after(() => store.close());
  return { store, rows: rowsOf(database) };
}

export const SPEC: InstanceSpec = {
  bundles: [],
  vars: {},
  labels: {},
  metaData: {},
  vendorData: null,
  networkConfig: null,
  policy: {},
  track: true,
};

export const MANIFEST: ManifestResult = {
  id: 'm1',
  file: '01-db.yaml',
  part: 'db.yaml',
  sha256: '',
  status: 'applied',
  attempts: 1,
  client: 'kubectl',
  clientVersion: 'v1.30.0',
  output: '',
  at: 0,
};

export function rowsOf(database: Database): Rows {
  let keys = 0;
  const report: Rows['report'] = async (instance, at, body) => {
    const { kind } = body;
    const told = body as unknown as Record<string, { instanceId?: string }>;
    const key = kind === 'phoneHome' ? (told.phoneHome?.instanceId ?? '') : `key-${++keys}`;
    await database.write((db) =>
      db
        .insertInto('report')
        .values({ instance, at, kind, key, body: JSON.stringify(told[kind]) })
        .execute(),
    );
    if (kind !== 'phoneHome') return;
    await database.write(async (db) => {
      await db.updateTable('instance').set({ told_instance_id: key }).where('name', '=', instance).execute();
    });
  };
  return {
    report,

    event: (instance, at, event) =>
      report(instance, at, {
        kind: 'event',
        event: { name: 'modules-final', type: 'finish', description: '', result: null, at, ...event },
      }),

    boot: (instance, facts) =>
      database.write(async (db) => {
        const boot = { ...NO_BOOT, ...facts };
        const row = await db.selectFrom('instance').selectAll().where('name', '=', instance).executeTakeFirstOrThrow();
        const since = waitingSince({ createdAt: row.created_at, reopenedAt: row.reopened_at, boot });
        await db
          .updateTable('instance')
          .set({
            ...{ boot: JSON.stringify(boot), state: stateOf(boot).state, waiting_since: since, silent_at: null },
            first_delivery_at: boot.deliveredAt,
          })
          .where('name', '=', instance)
          .execute();
      }),

    delivery: (instance, row) =>
      database.write(async (db) => {
        const { at = 0, purpose = 'include', revisions = ['web@1'], counted = true, outcome = 'delivered' } = row;
        const { id } = await db
          .insertInto('delivery')
          .values({
            ...{ instance, at, purpose, digest: row.digest ?? 'd'.repeat(64), bytes: row.bytes ?? 1 },
            ...{ address: row.address ?? '192.0.2.1', user_agent: row.userAgent ?? 'Cloud-Init/25.1' },
            ...{ revisions: JSON.stringify(revisions), counted: counted ? 1 : 0, outcome, refusal: row.refusal ?? null },
            instance_version: row.instanceVersion === undefined ? 1 : row.instanceVersion,
            holds_secrets: 0,
            inputs: row.inputs ? JSON.stringify(row.inputs) : null,
          })
          .returning('id')
          .executeTakeFirstOrThrow();
        return id;
      }),

    alarm: async (instance, { at, kind, count = 1, lastAt = at, address = '198.51.100.9' }) => {
      await database.write((db) =>
        db.insertInto('alarm').values({ instance, at, last_at: lastAt, count, kind, address, user_agent: 'curl/8' }).execute(),
      );
    },

    audit: async (instance, { at, action, before = null, after = null, by = 'ann' }) => {
      await database.write((db) =>
        db
          .insertInto('audit')
          .values({
            ...{ at, actor: by, role: 'editor', address: '', request_id: '', action, kind: 'instance', name: instance },
            ...{ before, after, detail: '{}' },
          })
          .execute(),
      );
    },
  };
}

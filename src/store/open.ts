import { sql } from 'kysely';
import type { Store } from '../domain/store.ts';
import { alarmStore } from './alarm.ts';
import { auditStore } from './audit.ts';
import { bundleStore } from './bundle.ts';
import type { Database, OnDatabaseError } from './database.ts';
import { deliveryStore } from './delivery.ts';
import { instanceStore } from './instance.ts';
import { ledgerStore } from './ledger.ts';
import { migrate } from './migrate.ts';
import { pruneStore } from './prune.ts';
import { reportStore } from './report.ts';
import { secretStore } from './secret.ts';
import { stateStore } from './state.ts';
import { tokenStore } from './token.ts';
import { windowStore } from './window.ts';

/** Where the database is: a `postgres://…` URL, or an SQLite file (`:memory:` for one that is gone when closed). */
export type StoreLocation = { url: string; file?: undefined } | { file: string; url?: undefined };

/**
 * Opens the database, brings its schema up to date, and returns the store. A file is made if it does not exist; its folder must.
 * `onError` is told of what goes wrong in it from then on.
 * @throws unavailable when it cannot be reached; conflict `newer_schema`, `foreign_database` when it is not for this version or not ours
 */
export async function openStore(location: StoreLocation, onError?: OnDatabaseError): Promise<Store> {
  const database = await openDatabase(location, onError);
  try {
    await migrate(database);
    return createStore(database);
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Loads only the driver that is needed: starting fast matters (a restart must fit into cloud-init's retries). */
async function openDatabase(location: StoreLocation, onError?: OnDatabaseError): Promise<Database> {
  return location.url === undefined
    ? (await import('./sqlite.ts')).openSqlite(location.file, onError)
    : (await import('./postgres.ts')).openPostgres(location.url, onError);
}

/** The store on a database whose schema is up to date. */
export function createStore(database: Database): Store {
  return {
    ...bundleStore(database),
    ...instanceStore(database),
    ...secretStore(database),
    ...deliveryStore(database),
    ...ledgerStore(database),
    ...alarmStore(database),
    ...reportStore(database),
    ...alarmStore(database),
    ...windowStore(database),
    ...auditStore(database),
    ...pruneStore(database),
    ...stateStore(database),
    ...tokenStore(database),

    claimKey: (checks) =>
      database.write(async (db) => {
        const [newest] = checks;
        if (newest === undefined) return false;
        const known = await db.selectFrom('meta').select('value').where('key', '=', KEY_CHECK).executeTakeFirst();
        if (known && !checks.includes(known.value)) return false;
        if (known?.value !== newest)
          await db
            .insertInto('meta')
            .values({ key: KEY_CHECK, value: newest })
            .onConflict((oc) => oc.column('key').doUpdateSet({ value: newest }))
            .execute();
        return true;
      }),

    ping: () =>
      database.read(async (db) => {
        await sql`select 1`.execute(db);
      }),

    pool: () => database.pool(),

    close: () => database.close(),
  };
}

const KEY_CHECK = 'key_check';

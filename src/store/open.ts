import { sql } from 'kysely';
import type { Store } from '../domain/store.ts';
import { auditStore } from './audit.ts';
import { bundleStore } from './bundle.ts';
import type { Database } from './database.ts';
import { deliveryStore } from './delivery.ts';
import { instanceStore } from './instance.ts';
import { migrate } from './migrate.ts';
import { reportStore } from './report.ts';
import { secretStore } from './secret.ts';
import { tokenStore } from './token.ts';

/** Where the database is: a `postgres://…` URL, or an SQLite file (`:memory:` for one that is gone when closed). */
export type StoreLocation = { url: string; file?: undefined } | { file: string; url?: undefined };

/**
 * Opens the database, brings its schema up to date, and returns the store. A file is made if it does not exist; its folder must.
 * @throws unavailable when it cannot be reached; conflict `newer_schema`, `foreign_database` when it is not for this version or not ours
 */
export async function openStore(location: StoreLocation): Promise<Store> {
  const database = await openDatabase(location);
  try {
    await migrate(database);
    return createStore(database);
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** Loads only the driver that is needed: starting fast matters (a restart must fit into cloud-init's retries). */
async function openDatabase(location: StoreLocation): Promise<Database> {
  return location.url === undefined
    ? (await import('./sqlite.ts')).openSqlite(location.file)
    : (await import('./postgres.ts')).openPostgres(location.url);
}

/** The store on a database whose schema is up to date. */
export function createStore(database: Database): Store {
  return {
    ...bundleStore(database),
    ...instanceStore(database),
    ...secretStore(database),
    ...deliveryStore(database),
    ...reportStore(database),
    ...tokenStore(database),
    ...auditStore(database),

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

    close: () => database.close(),
  };
}

const KEY_CHECK = 'key_check';

import { type Kysely, sql } from 'kysely';
import { type Migration, migrations } from '../../migrations/index.ts';
import { conflict } from '../domain/errors.ts';
import type { Database, Schema } from './database.ts';
import { foreignDatabase } from './errors.ts';

/**
 * Brings the database to the newest schema: all steps in one transaction under a lock, so that of several processes that start at once
 * one does it and the others find it done. (Kysely's own Migrator refuses to run in a transaction on SQLite.)
 * @throws conflict `newer_schema`, `foreign_database`; the database is unchanged then
 */
export async function migrate(database: Database, known: readonly Migration[] = migrations): Promise<void> {
  if ((await database.read((db) => pendingOf(database, db, known))).length === 0) return;
  await database.exclusive(async (db) => {
    const pending = await pendingOf(database, db, known);
    await sql`create table if not exists bootbundle_migration (name text primary key, applied_at ${sql.raw(
      database.engine === 'sqlite' ? 'integer' : 'bigint',
    )} not null)`.execute(db);
    for (const migration of pending) {
      await migration.up(db as unknown as Kysely<unknown>, database.engine);
      await db.insertInto('bootbundle_migration').values({ name: migration.name, applied_at: Date.now() }).execute();
    }
  });
}

async function pendingOf(database: Database, db: Kysely<Schema>, known: readonly Migration[]): Promise<Migration[]> {
  const tables = (await database.tables.execute(db)).rows.map(({ name }) => name);
  if (!tables.includes('bootbundle_migration')) {
    // In PostgreSQL extensions put tables of theirs into the schema; there only a table with a name of ours is in the way (42P07).
    if (database.engine === 'sqlite' && tables.length > 0) throw foreignDatabase();
    return [...known];
  }
  const applied = (await db.selectFrom('bootbundle_migration').select('name').execute()).map(({ name }) => name);
  if (applied.some((name) => known.every((migration) => migration.name !== name)))
    throw conflict('newer_schema', 'the database was made by a newer bootbundle: start that version, or a newer one');
  return known.filter(({ name }) => !applied.includes(name));
}

import SQLite from 'better-sqlite3';
import { Kysely, SqliteDialect, type SqliteStatement, sql } from 'kysely';
import type { Database, Schema } from './database.ts';
import { driverCode, foreignDatabase, translate } from './errors.ts';
import { gate } from './gate.ts';
import { retry } from './retry.ts';

/** At the start there is nothing else to do, and another process that starts too may be migrating. */
const BUSY_AT_START_MS = 5000;
/** better-sqlite3 waits for another process's lock without letting go of the event loop: so not for long, and then again (retry.ts). */
const BUSY_MS = 20;
const CACHED_STATEMENTS = 256;
const LONGEST_CACHED_STATEMENT = 4096;

/**
 * Opens a file (made if it does not exist; its folder must) or `:memory:`. Two connections: one writes, one reads, so that a fetch never
 * waits for a write. WAL lets them, and keeps the file sound through a kill; synchronous=FULL makes a commit an fsync.
 * @throws conflict `foreign_database` when the file is something else; it is not touched then
 */
export async function openSqlite(file: string): Promise<Database> {
  try {
    const [writer, reader] = await connect(file);
    return asDatabase(writer, reader);
  } catch (error) {
    throw translate(error);
  }
}

async function connect(file: string): Promise<[writer: SQLite.Database, reader: SQLite.Database]> {
  const opened: SQLite.Database[] = [];
  const open = () => {
    const connection = new SQLite(file, { timeout: BUSY_AT_START_MS });
    opened.push(connection);
    return connection;
  };
  try {
    const writer = open();
    // Looked at before anything is written: switching to WAL changes the file.
    const tables = writer.prepare("select name from sqlite_master where type = 'table'").pluck().all();
    if (tables.length > 0 && !tables.includes('bootbundle_migration')) throw foreignDatabase();
    if (writer.memory) return [writer, writer];
    // Two processes that switch at once can both be refused at once, without the busy timeout (each waits for the other).
    await retry(async () => writer.pragma('journal_mode = wal'), isBusy);
    writer.pragma('synchronous = full');
    // What is deleted is overwritten with zeros: a purged body is in the file no more, nor is an old secret that was dropped.
    writer.pragma('secure_delete = on');
    const reader = open();
    reader.pragma('query_only = on');
    return [writer, reader];
  } catch (error) {
    for (const connection of opened) connection.close();
    throw error;
  }
}

function isBusy(error: unknown): boolean {
  return driverCode(error).startsWith('SQLITE_BUSY');
}

function asDatabase(writing: SQLite.Database, reading: SQLite.Database): Database {
  const writer = kysely(writing);
  const reader = reading === writing ? writer : kysely(reading);
  const { pass, close } = gate(async () => {
    reading.close();
    writing.close();
  });
  const wait = (milliseconds: number) => writing.pragma(`busy_timeout = ${milliseconds}`);
  wait(BUSY_MS);
  const write: Database['write'] = (work) => pass(() => retry(() => writer.transaction().execute(work), isBusy));
  const emptyLog = async () => {
    const { rows } = await sql<{ busy: number }>`pragma wal_checkpoint(truncate)`.execute(writer);
    if (rows[0]?.busy === 1) throw LOG_IN_USE;
  };
  return {
    engine: 'sqlite',
    read: (work) => pass(() => work(reader)),
    write,
    async exclusive(work) {
      wait(BUSY_AT_START_MS);
      return write(work).finally(() => wait(BUSY_MS));
    },
    // The write-ahead log holds pages as they were. Another program that reads on (a replicator) keeps it so, and that fails nothing:
    // the log goes with the next purge, or when the last connection closes.
    wipe: () =>
      pass(() =>
        retry(emptyLog, (error) => error === LOG_IN_USE).catch((error) => {
          if (error !== LOG_IN_USE) throw error;
        }),
      ),
    tables: sql`select name from sqlite_master where type = 'table'`,
    close,
  };
}

const LOG_IN_USE = new Error('another program reads from the log');

function kysely(connection: SQLite.Database): Kysely<Schema> {
  const cache = new Map<string, SqliteStatement>();
  const special: Record<string, SqliteStatement> = {
    // Taking the write lock at once: a transaction that reads first and writes later could be refused half way.
    begin: connection.prepare('begin immediate'),
    // After some errors (a full disk) SQLite has rolled back by itself, and a second rollback would hide the first error.
    rollback: {
      ...NOTHING,
      run: () => (connection.inTransaction ? connection.prepare('rollback').run() : NOTHING.run([])),
    },
  };
  return new Kysely<Schema>({
    dialect: new SqliteDialect({
      database: {
        close: () => connection.close(),
        prepare(text) {
          const known = special[text] ?? cache.get(text);
          if (known) return known;
          const statement = connection.prepare(text);
          // Bulk writes come in too many lengths to keep them all.
          if (text.length > LONGEST_CACHED_STATEMENT) return statement;
          if (cache.size >= CACHED_STATEMENTS) cache.delete(cache.keys().next().value ?? '');
          cache.set(text, statement);
          return statement;
        },
      },
    }),
  });
}

const NOTHING: SqliteStatement = {
  reader: false,
  all: () => [],
  run: () => ({ changes: 0, lastInsertRowid: 0 }),
  iterate: () => [].values(),
};

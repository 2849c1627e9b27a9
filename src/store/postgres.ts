import { Kysely, PostgresDialect, type PostgresPoolClient, sql } from 'kysely';
import pg from 'pg';
import type { Database, OnDatabaseError, Schema } from './database.ts';
import { connectionLost, driverCode } from './errors.ts';
import { gate } from './gate.ts';
import { retry } from './retry.ts';

const CONNECT_TIMEOUT_MS = 5000;
const QUERY_TIMEOUT_MS = 20_000;
/** Any number, the same in every bootbundle: who holds it migrates. */
const MIGRATION_LOCK = 6_271_402_281_953;

/**
 * A pool of connections to PostgreSQL, made when they are needed. Writes are serializable; what the server refuses for another transaction's
 * sake (40001, 40P01, 23505) is tried again.
 */
export function openPostgres(url: string, onError?: OnDatabaseError): Database {
  const pool = new pg.Pool({
    connectionString: url,
    application_name: 'bootbundle',
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    // On our side: a pooler in between may refuse server settings at connect.
    query_timeout: QUERY_TIMEOUT_MS,
    keepAlive: true,
    types: { getTypeParser },
  });
  // A connection may end while it is idle (the pool tells) or held (only the client tells); whoever uses it next learns it.
  pool.on('error', () => {});
  pool.on('connect', (client) => {
    client.on('error', () => {});
  });
  const db = new Kysely<Schema>({
    dialect: new PostgresDialect({
      pool: { options: pool.options, connect: () => connect(pool), end: () => pool.end() },
    }),
  });
  const { pass, close } = gate(() => pool.end(), onError);

  return {
    engine: 'postgres',
    read: (work) => pass(() => work(db)),
    write: (work) => pass(() => retry(() => db.transaction().setIsolationLevel('serializable').execute(work), collided)),
    exclusive: (work) =>
      pass(() =>
        // Read committed: a serializable transaction would not see what the one it waited for has done.
        db
          .transaction()
          .setIsolationLevel('read committed')
          .execute(async (transaction) => {
            await sql`select pg_advisory_xact_lock(${MIGRATION_LOCK})`.execute(transaction);
            return work(transaction);
          }),
      ),
    // Its files keep deleted rows until the space is used again, and so do its log and its backups: none of that is ours to clear.
    wipe: () => pass(async () => {}),
    pool: () => ({ total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount }),
    tables: sql`select tablename as name from pg_tables where schemaname = current_schema()`,
    close,
  };
}

/** A broken uniqueness, too: what is inserted was looked for in the same transaction, so somebody else was quicker. */
const collided = (error: unknown) => ['40001', '40P01', '23505'].includes(driverCode(error));

/** Integers of 8 bytes as numbers: ours are counts and milliseconds, far below 2^53. On our own pool only. */
const getTypeParser: typeof pg.types.getTypeParser = (oid: number, format?: 'text' | 'binary') =>
  oid === pg.types.builtins.INT8 ? Number : pg.types.getTypeParser(oid, format as 'text');

/** A client for Kysely that tells trouble of the connection from what the server says, and is not used again after it. */
async function connect(pool: pg.Pool): Promise<PostgresPoolClient> {
  const client = await pool.connect().catch((error: unknown) => {
    throw saidByServer(error) ? error : connectionLost(error);
  });
  let broken = false;
  const query = async (text: string, parameters: readonly unknown[]) => {
    try {
      return await client.query(text, [...parameters]);
    } catch (error) {
      if (saidByServer(error)) throw error;
      broken = true;
      throw connectionLost(error);
    }
  };
  return {
    // Its other form takes a cursor, which nothing here uses.
    query: query as unknown as PostgresPoolClient['query'],
    release: (destroy) => client.release(destroy === true || broken),
  };
}

function saidByServer(error: unknown): boolean {
  return error instanceof pg.DatabaseError;
}

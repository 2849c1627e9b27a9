import { BootbundleError, type ErrorKind } from '../domain/errors.ts';

interface Meaning {
  kind: ErrorKind;
  code: string;
  message: string;
}

const AWAY: Meaning = {
  kind: 'unavailable',
  code: 'database_unavailable',
  message: 'the database cannot be reached or read now; try again',
};
const BUSY: Meaning = {
  kind: 'unavailable',
  code: 'database_busy',
  message: 'the database is busy with other writes; try again',
};
const REFUSED: Meaning = {
  kind: 'unavailable',
  code: 'database_refused',
  message: 'the database refuses: check user, password, database name and rights in BOOTBUNDLE_DATABASE_URL',
};
const FULL: Meaning = {
  kind: 'storage_full',
  code: 'storage_full',
  message: 'the disk of the database is full; nothing was stored',
};
const RACED: Meaning = {
  kind: 'conflict',
  code: 'changed_meanwhile',
  message: 'somebody else wrote the same at the same moment; try again',
};
const FOREIGN: Meaning = {
  kind: 'conflict',
  code: 'foreign_database',
  message: 'this is not a database of bootbundle, so it is left as it is: name another one, or an empty one',
};

/**
 * What the drivers' codes mean, by prefix, the first match. SQLite: https://www.sqlite.org/rescode.html (extended codes by name);
 * PostgreSQL: its appendix "Error Codes" (SQLSTATE).
 */
const MEANINGS: readonly (readonly [prefix: string, meaning: Meaning])[] = [
  ['SQLITE_FULL', FULL],
  ['SQLITE_BUSY', BUSY],
  ['SQLITE_LOCKED', BUSY],
  ['SQLITE_IOERR', AWAY],
  ['SQLITE_CANTOPEN', AWAY],
  ['SQLITE_READONLY', AWAY],
  ['SQLITE_PERM', AWAY],
  ['SQLITE_PROTOCOL', AWAY],
  ['SQLITE_NOMEM', AWAY],
  ['SQLITE_NOTADB', FOREIGN],
  ['SQLITE_CONSTRAINT_UNIQUE', RACED],
  ['SQLITE_CONSTRAINT_PRIMARYKEY', RACED],
  ['53100', FULL],
  ['53', AWAY], // out of memory, too many connections
  ['08', AWAY], // connection exceptions
  ['57P', AWAY], // shut down, starting up, crashed
  ['57014', AWAY], // canceled by a timeout of the server's
  ['58', AWAY], // I/O
  ['25006', AWAY], // read-only: a standby
  ['25P03', AWAY], // idle in a transaction for too long
  ['40', BUSY], // serialization failure, deadlock
  ['55P03', BUSY], // lock not available
  ['23505', RACED],
  ['28', REFUSED], // wrong user or password
  ['3D000', REFUSED], // no such database
  ['42501', REFUSED], // may not create or write
  ['42P07', FOREIGN], // a table of our name is there, but not ours
];

/** A connection that cannot be had or was lost: drivers have no code for most of these, so whoever holds the connection says it. */
export function connectionLost(cause: unknown): BootbundleError {
  return new BootbundleError(AWAY.kind, AWAY.code, AWAY.message, { cause });
}

/** It was closed, or is being closed. */
export function storeClosed(): BootbundleError {
  return new BootbundleError('unavailable', 'store_closed', 'the server is stopping; try again');
}

/** The database has something this is not: tables, but not ours. */
export function foreignDatabase(): BootbundleError {
  return new BootbundleError(FOREIGN.kind, FOREIGN.code, FOREIGN.message);
}

/** The driver's own code of an error: SQLite's name or PostgreSQL's SQLSTATE; '' when it is no driver's. */
export function driverCode(error: unknown): string {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

/** Turns an error of a driver into one for the caller, by its code; what is not known is handed back as it is: an internal error. */
export function translate(error: unknown): unknown {
  if (error instanceof BootbundleError) return error;
  const code = driverCode(error);
  const meaning = MEANINGS.find(([prefix]) => code.startsWith(prefix))?.[1];
  return meaning ? new BootbundleError(meaning.kind, meaning.code, meaning.message, { cause: error }) : error;
}

/** Whether an error is the database's own, and nobody's mistake who used it. */
export function isTrouble(translated: unknown): boolean {
  return !(translated instanceof BootbundleError) || ['unavailable', 'storage_full'].includes(translated.kind);
}

import type { Kysely } from 'kysely';
import { initial } from './0001-initial.ts';
import { reports } from './0002-reports.ts';
import { secrets } from './0003-secrets.ts';
import { boots } from './0004-boots.ts';

/** What a statement must be fitted to, where the engines differ. */
export type Engine = 'sqlite' | 'postgres';

/** One change of the schema, forward only. It runs inside a transaction, under a lock, once per database. */
export interface Migration {
  /** Recorded in the database, so never changed once released. */
  name: string;
  up(db: Kysely<unknown>, engine: Engine): Promise<void>;
}

/** In the order in which they run. A released one is never edited: a change is a new entry. */
export const migrations: readonly Migration[] = [initial, reports, secrets, boots];

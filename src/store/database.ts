import type { Generated, Kysely, RawBuilder, Transaction } from 'kysely';
import type { Engine } from '../../migrations/index.ts';
import { sha256 } from '../domain/bundle.ts';

/** The tables as migrations/ makes them. Integers come back as numbers in both engines, bytes as Buffer. */
export interface Schema {
  bootbundle_migration: { name: string; applied_at: number };
  meta: { key: string; value: string };
  body: { sha256: string; size: number; bytes: Uint8Array };
  bundle: {
    name: string;
    latest: number;
    created_at: number;
    retired_at: number | null;
    secrets_version: Generated<number>;
  };
  revision: {
    bundle: string;
    number: number;
    digest: string;
    part_order: string;
    vars: string;
    parts: string;
    part_count: number;
    created_at: number;
    author: string;
    message: string | null;
    purged_at: number | null;
  };
  revision_body: { sha256: string; bundle: string; number: number };
  tag: { bundle: string; name: string; revision: number; updated_at: number };
  instance: InstanceRow;
  instance_reference: { instance: string; position: number; bundle: string; tag: string | null; revision: number | null };
  instance_label: { instance: string; key: string; value: string };
  instance_spec: { instance: string; version: number; spec: string; at: number };
  secret: {
    owner_kind: string;
    owner: string;
    name: string;
    sealed: Uint8Array;
    bytes: number;
    ends_with_newline: number;
    updated_at: number;
    version: number;
  };
  old_secret: {
    id: Generated<number>;
    owner_kind: string;
    owner: string;
    name: string;
    sealed: Uint8Array;
    from_version: number;
    until_version: number;
    set_at: number;
    replaced_at: number;
  };
  delivery: {
    id: Generated<number>;
    instance: string;
    at: number;
    purpose: string;
    digest: string | null;
    bytes: number;
    address: string;
    user_agent: string;
    revisions: string;
    instance_version: number | null;
    counted: number;
    outcome: string;
    holds_secrets: number;
    refusal: string | null;
    inputs: string | null;
  };
  alarm: {
    id: Generated<number>;
    instance: string;
    at: number;
    last_at: number;
    count: number;
    kind: string;
    address: string;
    user_agent: string;
  };
  report: { id: Generated<number>; instance: string; at: number; kind: string; key: string; body: string };
  token: {
    id: string;
    name: string;
    role: string;
    sha256: string;
    bundles: string;
    instances: string;
    created_at: number;
    created_by: string;
    expires_at: number | null;
    revoked_at: number | null;
    last_used_at: number | null;
  };
  audit: {
    id: Generated<number>;
    at: number;
    actor: string;
    role: string;
    address: string;
    request_id: string;
    action: string;
    kind: string;
    name: string;
    before: string | null;
    after: string | null;
    detail: string;
  };
}

export interface InstanceRow {
  name: string;
  id: string;
  version: number;
  bundles: string;
  vars: string;
  labels: string;
  meta_data: string;
  vendor_data: string;
  network_config: string;
  policy: string;
  track: string;
  instance_id: string;
  include_generation: number;
  seed_generation: number;
  report_generation: number;
  created_at: number;
  updated_at: number;
  retired_at: number | null;
  first_delivery_at: number | null;
  last_delivery_at: number | null;
  delivery_count: number;
  reports_dropped: number;
  closed_at: number | null;
  reopened_at: number | null;
  open_until: number | null;
  last_delivery_address: string | null;
  include_fetched_at: number | null;
  seed_fetched_at: number | null;
  boot: string;
  state: string;
  waiting_since: number | null;
  silent_at: number | null;
  told_instance_id: string | null;
}

/**
 * One engine, as the queries see it. Each method rejects only with a BootbundleError or with what `work` threw by mistake.
 * `work` may run several times, so it must have no effect but on the database.
 */
export interface Database {
  engine: Engine;
  /** Outside any transaction: one statement is atomic, two are not. */
  read<T>(work: (db: Kysely<Schema>) => Promise<T>): Promise<T>;
  /** In a serializable transaction; on disk when it resolves. */
  write<T>(work: (db: Transaction<Schema>) => Promise<T>): Promise<T>;
  /** In a transaction that no other process is in at the same time. */
  exclusive<T>(work: (db: Transaction<Schema>) => Promise<T>): Promise<T>;
  /** Clears the engine's files of what committed transactions deleted, as far as it can. When it rejects, they stay committed. */
  wipe(): Promise<void>;
  /** Selects the names of the tables that are there. */
  tables: RawBuilder<{ name: string }>;
  /** Waits for what is under way. */
  close(): Promise<void>;
}

/** Free text as both engines can keep it: PostgreSQL's text holds no NUL and no lone surrogate. */
export function plain(text: string): string {
  return text.replaceAll('\0', '\uFFFD').toWellFormed();
}

const ADDRESS_CHARACTERS = 255;

/** An address as it is kept, and looked for. */
export function addressText(address: string): string {
  return plain(address.slice(0, ADDRESS_CHARACTERS));
}

const INDEXABLE = 255;
const HASHED = 'sha256:';

/**
 * Free text as an indexed column can keep it, different for different texts: what PostgreSQL's B-tree does not take (over 2,704 bytes)
 * or its text does not, by its hash.
 */
export function indexable(text: string): string {
  const fits = text.length <= INDEXABLE && plain(text) === text && !text.startsWith(HASHED);
  return fits ? text : HASHED + sha256(JSON.stringify(text));
}

/** Both engines bound the parameters of a statement (SQLite: 32,766), so long lists go in pieces. */
export function* chunks<T>(list: readonly T[], size: number): Generator<T[]> {
  for (let start = 0; start < list.length; start += size) yield list.slice(start, start + size);
}

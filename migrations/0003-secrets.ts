import { type Kysely, sql } from 'kysely';
import type { Migration } from './index.ts';

/**
 * Secrets, sealed; what each revision's author said, and whether its content was purged; what instances stated at each version.
 * `revision_body` tells which unpurged revisions have a body. It does not reference `body`: in PostgreSQL a purge and a write that collide
 * would then be told as a broken reference, not as a collision that is tried again.
 */
export const secrets: Migration = {
  name: '0003-secrets',
  async up(db, engine) {
    const sqlite = engine === 'sqlite';
    const key = sqlite ? 'text' : 'text collate "C"';
    const integer = sqlite ? 'integer' : 'bigint';
    const table = sqlite ? 'strict' : '';
    const statements = [
      `create table secret (
        owner_kind ${key} not null,
        owner ${key} not null,
        name ${key} not null,
        sealed ${sqlite ? 'blob' : 'bytea'} not null,
        bytes ${integer} not null,
        ends_with_newline ${integer} not null,
        updated_at ${integer} not null,
        primary key (owner_kind, owner, name)
      ) ${table}`,
      `alter table bundle add column secrets_version ${integer} not null default 0`,

      'alter table revision add column message text',
      `alter table revision add column purged_at ${integer}`,
      `create table revision_body (
        sha256 ${key} not null,
        bundle ${key} not null,
        number ${integer} not null,
        primary key (sha256, bundle, number),
        foreign key (bundle, number) references revision (bundle, number)
      ) ${sqlite ? 'strict, without rowid' : ''}`,

      `create table instance_spec (
        instance ${key} not null references instance (name),
        version ${integer} not null,
        spec text not null,
        at ${integer} not null,
        primary key (instance, version)
      ) ${table}`,
      // The columns are JSON text already.
      `insert into instance_spec (instance, version, spec, at)
        select name, version,
          '{"bundles":' || bundles || ',"vars":' || vars || ',"labels":' || labels || ',"metaData":' || meta_data
            || ',"vendorData":' || vendor_data || ',"networkConfig":' || network_config || '}',
          updated_at
        from instance`,
      `alter table delivery add column instance_version ${integer}`,
    ];
    for (const statement of statements) await sql.raw(statement).execute(db);
    await linkBodies(db);
  },
};

const REVISIONS_PER_PAGE = 200;
const LINKS_PER_STATEMENT = 1000;

/** Fills `revision_body` from what the revisions' parts name. */
async function linkBodies(db: Kysely<unknown>) {
  for (let last = { bundle: '', number: 0 }; ; ) {
    const { rows } = await sql<{ bundle: string; number: number; parts: string }>`
      select bundle, number, parts from revision where (bundle, number) > (${last.bundle}, ${last.number})
      order by bundle, number limit ${REVISIONS_PER_PAGE}`.execute(db);
    const links = rows.flatMap(({ bundle, number, parts }) => {
      const hashes = (JSON.parse(parts) as { sha256: string }[]).map(({ sha256 }) => sha256);
      return [...new Set(hashes)].map((sha256) => sql`(${sha256}, ${bundle}, cast(${number} as bigint))`);
    });
    for (let start = 0; start < links.length; start += LINKS_PER_STATEMENT)
      await sql`insert into revision_body (sha256, bundle, number)
        values ${sql.join(links.slice(start, start + LINKS_PER_STATEMENT))}`.execute(db);
    const final = rows.at(-1);
    if (!final) return;
    last = final;
  }
}

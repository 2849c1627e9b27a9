import { type Kysely, sql } from 'kysely';
import type { AuditDetail } from '../domain/audit.ts';
import { conflict, invalid, notFound } from '../domain/errors.ts';
import { LIMITS } from '../domain/limits.ts';
import type { NewSecret, SealedSecret, SecretOwner } from '../domain/secret.ts';
import type { Store, StoredSecret } from '../domain/store.ts';
import { noteAudit } from './audit.ts';
import { chunks, type Database, type Schema } from './database.ts';
import { checkSight } from './reference.ts';

type SecretStore = Pick<
  Store,
  'putBundleSecrets' | 'findSecrets' | 'findSecretsAt' | 'forgotSecrets' | 'listSecrets' | 'resealSecret'
>;

const OWNERS_PER_STATEMENT = 5000;
const ROWS_PER_STATEMENT = 500;

/** Secrets, sealed: the store cannot read one. Those of instances are written with them (instance.ts). */
export function secretStore(database: Database): SecretStore {
  return {
    putBundleSecrets: (bundle, secrets, { base, at, by, detail, sight }) =>
      database.write(async (db) => {
        const living = await db
          .selectFrom('bundle')
          .select('secrets_version')
          .where('name', '=', bundle)
          .where('retired_at', 'is', null)
          .executeTakeFirst();
        if (!living) throw notFound('unknown_bundle', 'there is no such bundle');
        if (living.secrets_version !== base)
          throw conflict('changed_meanwhile', "the bundle's secrets were changed meanwhile: repeat the change");
        await checkSight(db, sight);
        const changes = await weighSecrets(db, 'bundle', new Map([[bundle, secrets]]));
        if (changes.size === 0) return;
        await saveSecrets(db, 'bundle', changes, { at, versions: new Map([[bundle, base + 1]]) });
        await raiseSecretsVersion(db, bundle);
        await noteAudit(db, at, by, {
          ...{ action: 'putSecrets', kind: 'bundle', name: bundle, before: `secrets.${base}`, after: `secrets.${base + 1}` },
          detail: { ...describeSecrets(changes.get(bundle)), ...detail },
        });
      }),

    async findSecrets(owners) {
      const found = new Map<string, SealedSecret[]>(owners.map((owner) => [ownerKey(owner), []]));
      await database.read(async (db) => {
        for (const some of chunks(
          [...new Map(owners.map((owner) => [ownerKey(owner), owner])).values()],
          OWNERS_PER_STATEMENT,
        )) {
          const rows = await db
            .selectFrom('secret')
            .selectAll()
            .where(sql<boolean>`(owner_kind, owner) in (values ${tuples(some.map(({ kind, name }) => [kind, name]))})`)
            .orderBy('name')
            .execute();
          for (const row of rows) found.get(`${row.owner_kind} ${row.owner}`)?.push(toSealed(row));
        }
      });
      return owners.map((owner) => found.get(ownerKey(owner)) ?? []);
    },

    async findSecretsAt(owners) {
      const found = new Map<string, Pick<SealedSecret, 'name' | 'sealed'>[]>(owners.map((owner) => [ownerKey(owner), []]));
      await database.read(async (db) => {
        for (const some of chunks(owners, OWNERS_PER_STATEMENT))
          for (const { owner_kind: kind, owner, name, sealed } of await selectAt(db, some))
            found.get(ownerKey({ kind, name: owner }))?.push({ name, sealed });
      });
      return owners.map((owner) => found.get(ownerKey(owner)) ?? []);
    },

    forgotSecrets: ({ kind, name }, version) =>
      database.read(async (db) => {
        const { kept, oldest } = await db
          .selectFrom('old_secret')
          .select(({ fn }) => [fn.countAll<number>().as('kept'), fn.min<number | null>('until_version').as('oldest')])
          .where('owner_kind', '=', kind)
          .where('owner', '=', name)
          .executeTakeFirstOrThrow();
        return kept >= LIMITS.oldSecretsPerOwner && oldest !== null && oldest > version;
      }),

    listSecrets: ({ after, limit }) =>
      database.read(async (db) => {
        const secrets = after === null || after.old === null ? await selectPage(db, after, limit) : [];
        const left = limit - secrets.length;
        const old = left > 0 ? await selectOldPage(db, after?.old ?? 0, left) : [];
        return [...secrets.map((row) => toStored(row, null)), ...old.map((row) => toStored(row, row.id))];
      }),

    resealSecret: ({ owner, name, old }, before, after, { at, by, detail }) =>
      database.write(async (db) => {
        const { numUpdatedRows } = await db
          .updateTable(old === null ? 'secret' : 'old_secret')
          .set({ sealed: after })
          .where('owner_kind', '=', owner.kind)
          .where('owner', '=', owner.name)
          .where('name', '=', name)
          .where('sealed', '=', before)
          .$if(old !== null, (query) => query.where(sql.ref('id'), '=', old))
          .executeTakeFirst();
        if (numUpdatedRows === 0n) return false;
        const told = { secrets: [name], ...detail };
        await noteAudit(db, at, by, {
          ...{ action: 'reseal', kind: owner.kind, name: owner.name, before: null, after: null, detail: told },
        });
        return true;
      }),
  };
}

type Row = Pick<Schema['secret'], 'owner_kind' | 'owner' | 'name' | 'sealed'>;

async function selectPage(db: Kysely<Schema>, after: StoredSecret['key'] | null, limit: number): Promise<Row[]> {
  let query = db
    .selectFrom('secret')
    .select(['owner_kind', 'owner', 'name', 'sealed'])
    .orderBy('owner_kind')
    .orderBy('owner')
    .orderBy('name')
    .limit(limit);
  if (after !== null)
    query = query.where(sql<boolean>`(owner_kind, owner, name) > (${after.owner.kind}, ${after.owner.name}, ${after.name})`);
  return query.execute();
}

function selectOldPage(db: Kysely<Schema>, after: number, limit: number) {
  return db
    .selectFrom('old_secret')
    .select(['id', 'owner_kind', 'owner', 'name', 'sealed'])
    .where('id', '>', after)
    .orderBy('id')
    .limit(limit)
    .execute();
}

/** What secrets were, each owner's at its version; by name. In one statement: what is replaced meanwhile is in one of the two tables. */
async function selectAt(
  db: Kysely<Schema>,
  owners: readonly (SecretOwner & { version: number | null })[],
): Promise<(Omit<Row, 'owner_kind'> & { owner_kind: SecretOwner['kind'] })[]> {
  const wanted = owners.map(({ kind, name, version }) => sql`(${kind}, ${name}, cast(${version} as bigint))`);
  // A cross join keeps SQLite from walking the tables instead of the few that are wanted.
  const { rows } = await sql<Omit<Row, 'owner_kind'> & { owner_kind: SecretOwner['kind'] }>`
    with wanted (kind, owner, version) as (values ${sql.join(wanted)})
    select secret.owner_kind, secret.owner, secret.name, secret.sealed from wanted cross join secret
      where secret.owner_kind = wanted.kind and secret.owner = wanted.owner
        and (wanted.version is null or secret.version <= wanted.version)
    union all
    select old_secret.owner_kind, old_secret.owner, old_secret.name, old_secret.sealed from wanted cross join old_secret
      where old_secret.owner_kind = wanted.kind and old_secret.owner = wanted.owner
        and old_secret.until_version > wanted.version and old_secret.from_version <= wanted.version
    order by name`.execute(db);
  return rows;
}

/** What a change of one owner's secrets comes to: what is set, and what is there and goes. */
export interface SecretsChange {
  set: (readonly [name: string, secret: NewSecret])[];
  drop: string[];
}

/** What the audit says of a change of secrets: their names. */
export function describeSecrets(change: SecretsChange | undefined): AuditDetail {
  const { set = [], drop = [] } = change ?? {};
  return {
    ...(set.length > 0 ? { secrets: set.map(([name]) => name) } : {}),
    ...(drop.length > 0 ? { secretsRemoved: drop } : {}),
  };
}

/**
 * Holds changes against the secrets that are there: setting one is always a change, removing one only when it is there.
 * @returns by owner, those whose secrets change
 * @throws invalid `too_many_secrets`
 */
export async function weighSecrets(
  db: Kysely<Schema>,
  kind: SecretOwner['kind'],
  wanted: ReadonlyMap<string, ReadonlyMap<string, NewSecret | null>>,
): Promise<Map<string, SecretsChange>> {
  const names = new Map<string, Set<string>>([...wanted.keys()].map((owner) => [owner, new Set()]));
  for (const some of chunks([...wanted.keys()], OWNERS_PER_STATEMENT)) {
    const rows = await db
      .selectFrom('secret')
      .select(['owner', 'name'])
      .where('owner_kind', '=', kind)
      .where('owner', 'in', some)
      .execute();
    for (const { owner, name } of rows) names.get(owner)?.add(name);
  }
  const changes = new Map<string, SecretsChange>();
  for (const [owner, secrets] of wanted) {
    const there = names.get(owner) ?? new Set();
    const change: SecretsChange = { set: [], drop: [] };
    for (const [name, secret] of secrets) {
      if (secret) change.set.push([name, secret]);
      else if (there.has(name)) change.drop.push(name);
    }
    if (change.set.length + change.drop.length === 0) continue;
    const total = there.size - change.drop.length + change.set.filter(([name]) => !there.has(name)).length;
    if (total > LIMITS.secretsPerOwner)
      throw invalid('too_many_secrets', `${owner} would have ${total} secrets, and may have ${LIMITS.secretsPerOwner}`);
    changes.set(owner, change);
  }
  return changes;
}

/** Writes what {@link weighSecrets} found; the values of before go to the old ones. `versions`: each owner's with the change. */
export async function saveSecrets(
  db: Kysely<Schema>,
  kind: SecretOwner['kind'],
  changes: ReadonlyMap<string, SecretsChange>,
  { at, versions }: { at: number; versions: ReadonlyMap<string, number> },
): Promise<void> {
  const gone = [...changes].map(([owner, { set, drop }]) => ({
    owner,
    names: [...set.map(([name]) => name), ...drop],
    until: versions.get(owner) ?? 0,
  }));
  await keepOld(db, kind, gone, at);
  const drops = [...changes].flatMap(([owner, { drop }]) => drop.map((name) => [owner, name] as const));
  for (const some of chunks(drops, ROWS_PER_STATEMENT))
    await db
      .deleteFrom('secret')
      .where('owner_kind', '=', kind)
      .where(sql<boolean>`(owner, name) in (values ${tuples(some)})`)
      .execute();
  const rows = [...changes].flatMap(([owner, { set }]) =>
    set.map(([name, { sealed, bytes, endsWithNewline }]) => ({
      owner_kind: kind,
      owner,
      name,
      sealed,
      bytes,
      ends_with_newline: endsWithNewline ? 1 : 0,
      updated_at: at,
      version: versions.get(owner) ?? 0,
    })),
  );
  for (const some of chunks(rows, ROWS_PER_STATEMENT))
    await db
      .insertInto('secret')
      .values(some)
      .onConflict((oc) =>
        oc.columns(['owner_kind', 'owner', 'name']).doUpdateSet(({ ref }) => ({
          sealed: ref('excluded.sealed'),
          bytes: ref('excluded.bytes'),
          ends_with_newline: ref('excluded.ends_with_newline'),
          updated_at: ref('excluded.updated_at'),
          version: ref('excluded.version'),
        })),
      )
      .execute();
}

/** Takes an owner's secrets away, to the old ones. `until`: the owner's version from which on they are gone. @returns whether there were any */
export async function dropSecrets(
  db: Kysely<Schema>,
  { kind, name }: SecretOwner,
  { at, until }: { at: number; until: number },
): Promise<boolean> {
  const dropped = await db
    .selectFrom('secret')
    .select('name')
    .where('owner_kind', '=', kind)
    .where('owner', '=', name)
    .execute();
  if (dropped.length === 0) return false;
  await keepOld(db, kind, [{ owner: name, names: dropped.map((secret) => secret.name), until }], at);
  await db.deleteFrom('secret').where('owner_kind', '=', kind).where('owner', '=', name).execute();
  return true;
}

/**
 * Keeps what secrets are before they are replaced or removed: always, also when no delivery is known to need them. One may be under way, and a
 * look at the ledger would make every change of a secret collide with fetches. What nobody needs, pruneOldSecrets takes away.
 */
async function keepOld(
  db: Kysely<Schema>,
  kind: SecretOwner['kind'],
  gone: readonly { owner: string; names: readonly string[]; until: number }[],
  at: number,
): Promise<void> {
  const rows = gone.flatMap(({ owner, names, until }) =>
    names.map((name) => sql`(${owner}, ${name}, cast(${until} as bigint))`),
  );
  for (const some of chunks(rows, ROWS_PER_STATEMENT))
    await sql`
      with gone (owner, name, until_version) as (values ${sql.join(some)})
      insert into old_secret (owner_kind, owner, name, sealed, from_version, until_version, set_at, replaced_at)
      select owner_kind, secret.owner, secret.name, sealed, version, until_version, updated_at, cast(${at} as bigint)
      from gone cross join secret
      where secret.owner_kind = ${kind} and secret.owner = gone.owner and secret.name = gone.name`.execute(db);
  const owners = gone.map(({ owner }) => owner);
  for (const some of chunks(owners, ROWS_PER_STATEMENT))
    await sql`
      delete from old_secret where id in (
        select id from (
          select id, row_number() over (partition by owner order by id desc) as place
          from old_secret where owner_kind = ${kind} and owner in (${sql.join(some)})
        ) as ranked where place > ${LIMITS.oldSecretsPerOwner}
      )`.execute(db);
}

/** Counts a change of a bundle's secrets. */
export async function raiseSecretsVersion(db: Kysely<Schema>, bundle: string): Promise<void> {
  await db
    .updateTable('bundle')
    .set(({ eb }) => ({ secrets_version: eb('secrets_version', '+', 1) }))
    .where('name', '=', bundle)
    .execute();
}

/** Rows for a `values`; SQLite takes a list of tuples no other way. */
function tuples(rows: readonly (readonly [string, string])[]) {
  return sql.join(rows.map(([first, second]) => sql`(${first}, ${second})`));
}

function ownerKey({ kind, name }: SecretOwner): string {
  return `${kind} ${name}`;
}

function toStored({ owner_kind, owner, name, sealed }: Row, old: number | null): StoredSecret {
  return { key: { owner: { kind: owner_kind as SecretOwner['kind'], name: owner }, name, old }, sealed };
}

function toSealed(row: Schema['secret']): SealedSecret {
  return {
    name: row.name,
    sealed: row.sealed,
    bytes: row.bytes,
    endsWithNewline: row.ends_with_newline === 1,
    updatedAt: row.updated_at,
  };
}

import { type Kysely, sql } from 'kysely';
import type { AuditDetail } from '../domain/audit.ts';
import { conflict, invalid, notFound } from '../domain/errors.ts';
import { LIMITS } from '../domain/limits.ts';
import type { NewSecret, SealedSecret, SecretOwner } from '../domain/secret.ts';
import type { Store } from '../domain/store.ts';
import { noteAudit } from './audit.ts';
import { chunks, type Database, type Schema } from './database.ts';
import { checkSight } from './reference.ts';

type SecretStore = Pick<Store, 'putBundleSecrets' | 'findSecrets' | 'listSecrets' | 'resealSecret'>;

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

    listSecrets: ({ after, limit }) =>
      database.read(async (db) => {
        let query = db
          .selectFrom('secret')
          .select(['owner_kind', 'owner', 'name', 'sealed'])
          .orderBy('owner_kind')
          .orderBy('owner')
          .orderBy('name')
          .limit(limit);
        if (after !== null)
          query = query.where(
            sql<boolean>`(owner_kind, owner, name) > (${after.owner.kind}, ${after.owner.name}, ${after.name})`,
          );
        return (await query.execute()).map(({ owner_kind, owner, name, sealed }) => ({
          key: { owner: { kind: owner_kind as SecretOwner['kind'], name: owner }, name },
          sealed,
        }));
      }),

    resealSecret: ({ owner, name }, before, after, { at, by, detail }) =>
      database.write(async (db) => {
        const { numUpdatedRows } = await db
          .updateTable('secret')
          .set({ sealed: after })
          .where('owner_kind', '=', owner.kind)
          .where('owner', '=', owner.name)
          .where('name', '=', name)
          .where('sealed', '=', before)
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

/** Writes what {@link weighSecrets} found. `versions`: each owner's with the change. */
export async function saveSecrets(
  db: Kysely<Schema>,
  kind: SecretOwner['kind'],
  changes: ReadonlyMap<string, SecretsChange>,
  { at, versions }: { at: number; versions: ReadonlyMap<string, number> },
): Promise<void> {
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

/** Takes an owner's secrets away. @returns whether there were any */
export async function dropSecrets(db: Kysely<Schema>, { kind, name }: SecretOwner): Promise<boolean> {
  const { numDeletedRows } = await db
    .deleteFrom('secret')
    .where('owner_kind', '=', kind)
    .where('owner', '=', name)
    .executeTakeFirst();
  return numDeletedRows > 0n;
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

function toSealed(row: Schema['secret']): SealedSecret {
  return {
    name: row.name,
    sealed: row.sealed,
    bytes: row.bytes,
    endsWithNewline: row.ends_with_newline === 1,
    updatedAt: row.updated_at,
  };
}

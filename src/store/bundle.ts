import type { Kysely, Selectable } from 'kysely';
import type { Actor } from '../domain/actor.ts';
import type { Bundle, Part, PartOrder, Revision } from '../domain/bundle.ts';
import { conflict, notFound } from '../domain/errors.ts';
import type { JsonObject } from '../domain/json.ts';
import { formatReference } from '../domain/names.ts';
import type { KeptBody, Store } from '../domain/store.ts';
import { noteAudit } from './audit.ts';
import { type Database, plain, type Schema } from './database.ts';
import { checkSight, hasRevision, lookUp } from './reference.ts';
import { nameFits } from './scope.ts';
import { dropSecrets, raiseSecretsVersion } from './secret.ts';

type BundleStore = Pick<
  Store,
  | 'putRevision'
  | 'findBundle'
  | 'listBundles'
  | 'retireBundle'
  | 'findRevision'
  | 'listRevisions'
  | 'purgeRevision'
  | 'findBody'
  | 'listBundleUses'
  | 'putTag'
  | 'deleteTag'
  | 'resolveReferences'
>;

/** Bundles, their revisions and tags, and the bytes of their parts. */
export function bundleStore(database: Database): BundleStore {
  return {
    async putRevision({ bundle, base, content, digest, bodies, at, by, detail, message, sight }) {
      const revision = {
        digest,
        part_order: content.order,
        vars: JSON.stringify(content.vars),
        parts: JSON.stringify(content.parts),
        part_count: content.parts.length,
        created_at: at,
        author: plain(by.name),
        message: message === null ? null : plain(message),
        purged_at: null,
      };
      const needed = [...new Set(content.parts.map((part) => part.sha256))];
      const row = await database.write(async (db) => {
        const before = await db.selectFrom('bundle').selectAll().where('name', '=', bundle).executeTakeFirst();
        if ((before && before.retired_at === null ? before.latest : null) !== base) throw changedMeanwhile();
        await checkSight(db, sight);
        const number = (before?.latest ?? 0) + 1;
        await storeBodies(db, needed, bodies);
        await db
          .insertInto('bundle')
          .values({ name: bundle, latest: number, created_at: at, retired_at: null })
          .onConflict((oc) => oc.column('name').doUpdateSet({ latest: number, retired_at: null }))
          .execute();
        const inserted = await db
          .insertInto('revision')
          .values({ ...revision, bundle, number })
          .returningAll()
          .executeTakeFirstOrThrow();
        if (needed.length > 0)
          await db
            .insertInto('revision_body')
            .values(needed.map((sha256) => ({ sha256, bundle, number })))
            .execute();
        const previous = base === null ? null : await selectDigest(db, bundle, base);
        const told = { revision: number, ...(message === null ? {} : { message: plain(message) }), ...detail };
        await noteAudit(db, at, by, {
          ...{ action: 'put', kind: 'bundle', name: bundle, before: previous, after: digest, detail: told },
        });
        return inserted;
      });
      return toRevision(row);
    },

    findBundle: (name) => database.read((db) => selectBundle(db, name)),

    listBundles: ({ after, limit }, { retired, names = null }) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('bundle')
          .innerJoin('revision', (join) =>
            join.onRef('revision.bundle', '=', 'bundle.name').onRef('revision.number', '=', 'bundle.latest'),
          )
          .where('bundle.retired_at', retired ? 'is not' : 'is', null)
          .$if(after !== null, (query) => query.where('bundle.name', '>', plain(after ?? '')))
          .$if(names !== null, (query) => query.where(nameFits('bundle.name', names)))
          .select(['bundle.name', 'bundle.latest', 'bundle.retired_at'])
          .select(['revision.digest', 'revision.part_count', 'revision.created_at', 'revision.author'])
          .orderBy('bundle.name')
          .limit(limit)
          .execute();
        return rows.map((row) => ({
          name: row.name,
          revision: row.latest,
          digest: row.digest,
          parts: row.part_count,
          author: row.author,
          updatedAt: row.created_at,
          retiredAt: row.retired_at,
        }));
      }),

    retireBundle: (name, { base, at, by, detail = {} }) =>
      database.write(async (db) => {
        const bundle = await selectLiving(db, name);
        if (bundle?.latest !== base) throw changedMeanwhile();
        await refuseInUse(db, { bundle: name }, by);
        await db.deleteFrom('tag').where('bundle', '=', name).execute();
        const until = bundle.secrets_version + 1;
        if (await dropSecrets(db, { kind: 'bundle', name }, { at, until })) await raiseSecretsVersion(db, name);
        await db.updateTable('bundle').set({ retired_at: at }).where('name', '=', name).execute();
        const before = await selectDigest(db, name, base);
        await noteAudit(db, at, by, { action: 'delete', kind: 'bundle', name, before, after: null, detail });
      }),

    findRevision: (bundle, number) =>
      database.read(async (db) => {
        const row = await selectRevision(db, bundle, number).executeTakeFirst();
        return row ? toRevision(row) : null;
      }),

    listRevisions: (bundle, { after, limit }) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('revision')
          .selectAll()
          .where('bundle', '=', bundle)
          .$if(after !== null, (query) => query.where('number', '<', after ?? 0))
          .orderBy('number', 'desc')
          .limit(limit)
          .execute();
        return rows.map(toRevision);
      }),

    async purgeRevision(bundle, number, { at, by, detail }) {
      const purged = await database.write(async (db) => {
        const row = await selectRevision(db, bundle, number).executeTakeFirst();
        if (!row) throw notFound('unknown_revision', 'the bundle has no such revision');
        const revision = toRevision(row);
        const hashes = [...new Set(revision.parts.map((part) => part.sha256))];
        if (revision.purgedAt !== null) return { revision, kept: await selectKept(db, revision, await selectHeld(db, hashes)) };
        await refusePurge(db, bundle, number, by);
        await db
          .updateTable('revision')
          .set({ vars: '{}', purged_at: at })
          .where('bundle', '=', bundle)
          .where('number', '=', number)
          .execute();
        if (hashes.length > 0)
          await db
            .deleteFrom('revision_body')
            .where('sha256', 'in', hashes)
            .where('bundle', '=', bundle)
            .where('number', '=', number)
            .execute();
        const held = await selectHeld(db, hashes);
        const orphans = hashes.filter((sha256) => !held.has(sha256));
        if (orphans.length > 0) await db.deleteFrom('body').where('sha256', 'in', orphans).execute();
        const after: Revision = { ...revision, vars: {}, purgedAt: at };
        await noteAudit(db, at, by, {
          ...{ action: 'purge', kind: 'bundle', name: bundle, before: revision.digest, after: null },
          detail: { revision: number, ...detail },
        });
        return { revision: after, kept: await selectKept(db, after, held) };
      });
      // Also when it was purged before: a server that was killed in between had not come so far.
      await database.wipe();
      return purged;
    },

    findBody: (sha256) =>
      database.read(async (db) => {
        const row = await db.selectFrom('body').select('bytes').where('sha256', '=', sha256).executeTakeFirst();
        return row?.bytes ?? null;
      }),

    listBundleUses: (bundle, limit, names = null) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('instance_reference')
          .where('bundle', '=', bundle)
          .where(nameFits('instance', names))
          .select(['instance', 'bundle', 'tag', 'revision'])
          .select((eb) => eb.fn.countAll<number>().over().as('total'))
          .orderBy('instance')
          .orderBy('position')
          .limit(limit)
          .execute();
        const uses = rows.map(({ instance, ...reference }) => ({ instance, reference: formatReference(reference) }));
        return { uses, total: rows[0]?.total ?? 0 };
      }),

    putTag: (bundle, tag, revision, { at, by, detail, sight }) =>
      database.write(async (db) => {
        const living = await selectLiving(db, bundle);
        if (!living) throw unknownBundle();
        if (!hasRevision(living.latest, revision))
          throw notFound('unknown_revision', `the bundle's revisions are 1 to ${living.latest}`);
        const tagged = await db
          .selectFrom('revision')
          .select('purged_at')
          .where('bundle', '=', bundle)
          .where('number', '=', revision)
          .executeTakeFirst();
        if (tagged?.purged_at !== null)
          throw conflict('purged', `the content of revision ${revision} was purged: tag another one`);
        await checkSight(db, sight);
        const before = await db
          .selectFrom('tag')
          .select('revision')
          .where('bundle', '=', bundle)
          .where('name', '=', tag)
          .executeTakeFirst();
        if (before?.revision === revision) return { created: false, changed: false };
        await db
          .insertInto('tag')
          .values({ bundle, name: tag, revision, updated_at: at })
          .onConflict((oc) => oc.columns(['bundle', 'name']).doUpdateSet({ revision, updated_at: at }))
          .execute();
        await noteAudit(db, at, by, {
          ...{ action: 'putTag', kind: 'bundle', name: bundle, detail: { tag, ...detail } },
          ...{ before: before ? String(before.revision) : null, after: String(revision) },
        });
        return { created: !before, changed: true };
      }),

    deleteTag: (bundle, tag, { at, by, detail }) =>
      database.write(async (db) => {
        if (!(await selectLiving(db, bundle))) throw unknownBundle();
        await refuseInUse(db, { bundle, tag }, by);
        const before = await db
          .deleteFrom('tag')
          .where('bundle', '=', bundle)
          .where('name', '=', tag)
          .returning('revision')
          .executeTakeFirst();
        if (!before) throw notFound('unknown_tag', 'the bundle has no such tag');
        await noteAudit(db, at, by, {
          ...{ action: 'deleteTag', kind: 'bundle', name: bundle, detail: { tag, ...detail } },
          ...{ before: String(before.revision), after: null },
        });
      }),

    async resolveReferences(references) {
      if (references.length === 0) return [];
      const found = await database.read((db) => lookUp(db, references));
      return references.map((reference) => {
        const meaning = found.get(formatReference(reference));
        return meaning && !('code' in meaning) ? meaning : null;
      });
    },
  };
}

async function storeBodies(db: Kysely<Schema>, needed: readonly string[], bodies: ReadonlyMap<string, Uint8Array>) {
  if (needed.length === 0) return;
  const rows = await db.selectFrom('body').select('sha256').where('sha256', 'in', needed).execute();
  const stored = new Set(rows.map(({ sha256 }) => sha256));
  for (const sha256 of needed) {
    if (stored.has(sha256)) continue;
    const bytes = bodies.get(sha256);
    // It was there when the caller looked: a purge came between.
    if (!bytes) throw changedMeanwhile();
    await db.insertInto('body').values({ sha256, size: bytes.length, bytes }).execute();
  }
}

function selectRevision(db: Kysely<Schema>, bundle: string, number: number) {
  return db.selectFrom('revision').selectAll().where('bundle', '=', bundle).where('number', '=', number);
}

async function selectDigest(db: Kysely<Schema>, bundle: string, number: number): Promise<string | null> {
  const row = await db
    .selectFrom('revision')
    .select('digest')
    .where('bundle', '=', bundle)
    .where('number', '=', number)
    .executeTakeFirst();
  return row?.digest ?? null;
}

function selectLiving(db: Kysely<Schema>, name: string) {
  return db
    .selectFrom('bundle')
    .select(['latest', 'secrets_version'])
    .where('name', '=', name)
    .where('retired_at', 'is', null)
    .executeTakeFirst();
}

async function selectBundle(db: Kysely<Schema>, name: string): Promise<Bundle | null> {
  const rows = await db
    .selectFrom('bundle')
    .leftJoin('tag', 'tag.bundle', 'bundle.name')
    .where('bundle.name', '=', name)
    .select(['bundle.latest', 'bundle.created_at', 'bundle.retired_at', 'bundle.secrets_version'])
    .select(['tag.name as tag', 'tag.revision'])
    .orderBy('tag.name')
    .execute();
  const [bundle] = rows;
  if (!bundle) return null;
  // A second statement, and yet one state: of revisions only a purge changes any, and never a living bundle's newest.
  // If this one was purged, there has been a newer one since the first statement.
  const latest = await selectRevision(db, name, bundle.latest).executeTakeFirstOrThrow();
  if (bundle.retired_at === null && latest.purged_at !== null) return selectBundle(db, name);
  return {
    name,
    createdAt: bundle.created_at,
    retiredAt: bundle.retired_at,
    latest: toRevision(latest),
    tags: Object.fromEntries(rows.flatMap(({ tag, revision }) => (tag === null || revision === null ? [] : [[tag, revision]]))),
    secretsVersion: bundle.secrets_version,
  };
}

/** How many a refusal names. */
const NAMED = 5;

/** @throws conflict `in_use`, naming those that `by` may know of */
async function refuseInUse(db: Kysely<Schema>, use: { bundle: string; tag?: string; revision?: number }, by: Actor) {
  const { bundle, tag, revision } = use;
  let query = db.selectFrom('instance_reference').where('bundle', '=', bundle).select('instance').distinct();
  if (tag !== undefined) query = query.where('tag', '=', tag);
  if (revision !== undefined) query = query.where('revision', '=', revision);
  if (!(await query.limit(1).executeTakeFirst())) return;
  const rows = await query
    .where(nameFits('instance', by.scope.instances))
    .orderBy('instance')
    .limit(NAMED + 1)
    .execute();
  if (rows.length === 0) throw conflict('in_use', "instances outside of your token's scope refer to it");
  throw conflict('in_use', `${listed(rows.map(({ instance }) => instance))} refer to it: change or delete them first`);
}

/** Refuses to take away what a machine may ask for. */
async function refusePurge(db: Kysely<Schema>, bundle: string, number: number, by: Actor) {
  const living = await selectLiving(db, bundle);
  if (living?.latest === number) throw conflict('in_use', 'it is what the bundle has newest: put a newer revision first');
  const tags = await db
    .selectFrom('tag')
    .select('name')
    .where('bundle', '=', bundle)
    .where('revision', '=', number)
    .orderBy('name')
    .limit(NAMED + 1)
    .execute();
  if (tags.length > 0)
    throw conflict('in_use', `the tags ${listed(tags.map(({ name }) => name))} mean it: move or delete them first`);
  await refuseInUse(db, { bundle, revision: number }, by);
}

function listed(names: readonly string[]): string {
  return names.slice(0, NAMED).join(', ') + (names.length > NAMED ? ' and others' : '');
}

/** Which of these bodies an unpurged revision has. */
async function selectHeld(db: Kysely<Schema>, hashes: readonly string[]): Promise<Set<string>> {
  if (hashes.length === 0) return new Set();
  const rows = await db.selectFrom('revision_body').select('sha256').distinct().where('sha256', 'in', hashes).execute();
  return new Set(rows.map(({ sha256 }) => sha256));
}

/** How many revisions are named per body; a purge of those names the others. */
const HOLDERS = 100;

async function selectKept(db: Kysely<Schema>, { parts }: Revision, held: ReadonlySet<string>): Promise<KeptBody[]> {
  const kept: KeptBody[] = [];
  const left = new Set(held);
  for (const { sha256, filename } of parts) {
    // Parts with the same bytes share one body.
    if (!left.delete(sha256)) continue;
    const holders = await db
      .selectFrom('revision_body')
      .select(['bundle', 'number'])
      .where('sha256', '=', sha256)
      .orderBy('bundle')
      .orderBy('number')
      .limit(HOLDERS)
      .execute();
    kept.push({ sha256, filename, revisions: holders.map(({ bundle, number }) => `${bundle}@${number}`) });
  }
  return kept;
}

function toRevision(row: Selectable<Schema['revision']>): Revision {
  return {
    bundle: row.bundle,
    number: row.number,
    order: row.part_order as PartOrder,
    vars: JSON.parse(row.vars) as JsonObject,
    parts: JSON.parse(row.parts) as Part[],
    digest: row.digest,
    createdAt: row.created_at,
    author: row.author,
    message: row.message,
    purgedAt: row.purged_at,
  };
}

const changedMeanwhile = () =>
  conflict('changed_meanwhile', 'the bundle was changed meanwhile: read it again and repeat the change');
const unknownBundle = () => notFound('unknown_bundle', 'there is no such bundle');

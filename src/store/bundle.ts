import type { Kysely, Selectable } from 'kysely';
import type { Bundle, Part, PartOrder, Revision } from '../domain/bundle.ts';
import { conflict, notFound } from '../domain/errors.ts';
import type { JsonObject } from '../domain/json.ts';
import { formatReference } from '../domain/names.ts';
import type { Store } from '../domain/store.ts';
import { type Database, plain, type Schema } from './database.ts';

type BundleStore = Pick<
  Store,
  | 'putRevision'
  | 'findBundle'
  | 'listBundles'
  | 'retireBundle'
  | 'findRevision'
  | 'listRevisions'
  | 'findBody'
  | 'listBundleUses'
  | 'putTag'
  | 'deleteTag'
  | 'resolveReferences'
>;

/** Bundles, their revisions and tags, and the bytes of their parts. */
export function bundleStore(database: Database): BundleStore {
  return {
    async putRevision({ bundle, base, content, digest, bodies, at, author }) {
      const revision = {
        digest,
        part_order: content.order,
        vars: JSON.stringify(content.vars),
        parts: JSON.stringify(content.parts),
        part_count: content.parts.length,
        created_at: at,
        author: plain(author),
      };
      const needed = [...new Set(content.parts.map((part) => part.sha256))];
      const row = await database.write(async (db) => {
        const before = await db.selectFrom('bundle').selectAll().where('name', '=', bundle).executeTakeFirst();
        if ((before && before.retired_at === null ? before.latest : null) !== base) throw changedMeanwhile();
        const number = (before?.latest ?? 0) + 1;
        await storeBodies(db, needed, bodies);
        await db
          .insertInto('bundle')
          .values({ name: bundle, latest: number, created_at: at, retired_at: null })
          .onConflict((oc) => oc.column('name').doUpdateSet({ latest: number, retired_at: null }))
          .execute();
        return db
          .insertInto('revision')
          .values({ ...revision, bundle, number })
          .returningAll()
          .executeTakeFirstOrThrow();
      });
      return toRevision(row);
    },

    findBundle: (name) =>
      database.read(async (db): Promise<Bundle | null> => {
        const rows = await db
          .selectFrom('bundle')
          .leftJoin('tag', 'tag.bundle', 'bundle.name')
          .where('bundle.name', '=', name)
          .select(['bundle.latest', 'bundle.created_at', 'bundle.retired_at', 'tag.name as tag', 'tag.revision'])
          .orderBy('tag.name')
          .execute();
        const [bundle] = rows;
        if (!bundle) return null;
        // A second statement, and yet one state: a revision never changes.
        const latest = await selectRevision(db, name, bundle.latest).executeTakeFirstOrThrow();
        return {
          name,
          createdAt: bundle.created_at,
          retiredAt: bundle.retired_at,
          latest: toRevision(latest),
          tags: Object.fromEntries(
            rows.flatMap(({ tag, revision }) => (tag === null || revision === null ? [] : [[tag, revision]])),
          ),
        };
      }),

    listBundles: ({ after, limit }, { retired }) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('bundle')
          .innerJoin('revision', (join) =>
            join.onRef('revision.bundle', '=', 'bundle.name').onRef('revision.number', '=', 'bundle.latest'),
          )
          .where('bundle.retired_at', retired ? 'is not' : 'is', null)
          .$if(after !== null, (query) => query.where('bundle.name', '>', plain(after ?? '')))
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

    retireBundle: (name, { base, at }) =>
      database.write(async (db) => {
        const bundle = await selectLiving(db, name);
        if (bundle?.latest !== base) throw changedMeanwhile();
        await refuseInUse(db, name, null);
        await db.deleteFrom('tag').where('bundle', '=', name).execute();
        await db.updateTable('bundle').set({ retired_at: at }).where('name', '=', name).execute();
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

    findBody: (sha256) =>
      database.read(async (db) => {
        const row = await db.selectFrom('body').select('bytes').where('sha256', '=', sha256).executeTakeFirst();
        return row?.bytes ?? null;
      }),

    listBundleUses: (bundle, limit) =>
      database.read(async (db) => {
        const rows = await db
          .selectFrom('instance_reference')
          .where('bundle', '=', bundle)
          .select(['instance', 'bundle', 'tag', 'revision'])
          .select((eb) => eb.fn.countAll<number>().over().as('total'))
          .orderBy('instance')
          .orderBy('position')
          .limit(limit)
          .execute();
        const uses = rows.map(({ instance, ...reference }) => ({ instance, reference: formatReference(reference) }));
        return { uses, total: rows[0]?.total ?? 0 };
      }),

    putTag: (bundle, tag, revision, at) =>
      database.write(async (db) => {
        const living = await selectLiving(db, bundle);
        if (!living) throw unknownBundle();
        if (!hasRevision(living.latest, revision))
          throw notFound('unknown_revision', `the bundle's revisions are 1 to ${living.latest}`);
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
        return { created: !before, changed: true };
      }),

    deleteTag: (bundle, tag) =>
      database.write(async (db) => {
        if (!(await selectLiving(db, bundle))) throw unknownBundle();
        await refuseInUse(db, bundle, tag);
        const { numDeletedRows } = await db
          .deleteFrom('tag')
          .where('bundle', '=', bundle)
          .where('name', '=', tag)
          .executeTakeFirst();
        if (numDeletedRows === 0n) throw notFound('unknown_tag', 'the bundle has no such tag');
      }),

    async resolveReferences(references) {
      const bundles = [...new Set(references.map(({ bundle }) => bundle))];
      const tags = [...new Set(references.flatMap(({ tag }) => tag ?? []))];
      if (bundles.length === 0) return [];
      const latest = new Map<string, number>();
      const tagged = new Map<string, number>();
      await database.read(async (db) => {
        const rows = await db
          .selectFrom('bundle')
          .leftJoin('tag', (join) =>
            join.onRef('tag.bundle', '=', 'bundle.name').on('tag.name', 'in', tags.length > 0 ? tags : [NO_TAG]),
          )
          .where('bundle.name', 'in', bundles)
          .where('bundle.retired_at', 'is', null)
          .select(['bundle.name', 'bundle.latest', 'tag.name as tag', 'tag.revision'])
          .execute();
        for (const row of rows) {
          latest.set(row.name, row.latest);
          if (row.tag !== null && row.revision !== null) tagged.set(`${row.name}@${row.tag}`, row.revision);
        }
      });
      return references.map(({ bundle, tag, revision }) => {
        const newest = latest.get(bundle);
        if (newest === undefined) return null;
        if (tag !== null) return tagged.get(`${bundle}@${tag}`) ?? null;
        return revision === null ? newest : hasRevision(newest, revision) ? revision : null;
      });
    },
  };
}

/** Numbers run from 1 to the newest without a gap. */
export function hasRevision(latest: number, number: number): boolean {
  return Number.isInteger(number) && number >= 1 && number <= latest;
}

async function storeBodies(db: Kysely<Schema>, needed: readonly string[], bodies: ReadonlyMap<string, Uint8Array>) {
  if (needed.length === 0) return;
  const rows = await db.selectFrom('body').select('sha256').where('sha256', 'in', needed).execute();
  const stored = new Set(rows.map(({ sha256 }) => sha256));
  for (const sha256 of needed) {
    if (stored.has(sha256)) continue;
    const bytes = bodies.get(sha256);
    if (!bytes) throw new Error('a part names a body that is neither stored nor given');
    await db.insertInto('body').values({ sha256, size: bytes.length, bytes }).execute();
  }
}

function selectRevision(db: Kysely<Schema>, bundle: string, number: number) {
  return db.selectFrom('revision').selectAll().where('bundle', '=', bundle).where('number', '=', number);
}

function selectLiving(db: Kysely<Schema>, name: string) {
  return db.selectFrom('bundle').select('latest').where('name', '=', name).where('retired_at', 'is', null).executeTakeFirst();
}

/** No tag's name: SQL has no empty list. */
const NO_TAG = '';

/** How many instances a refusal names. */
const NAMED = 5;

async function refuseInUse(db: Kysely<Schema>, bundle: string, tag: string | null) {
  const rows = await db
    .selectFrom('instance_reference')
    .where('bundle', '=', bundle)
    .$if(tag !== null, (query) => query.where('tag', '=', tag))
    .select('instance')
    .distinct()
    .orderBy('instance')
    .limit(NAMED + 1)
    .execute();
  if (rows.length === 0) return;
  const names = rows.slice(0, NAMED).map(({ instance }) => instance);
  const more = rows.length > NAMED ? ' and others' : '';
  throw conflict('in_use', `${names.join(', ')}${more} refer to it: change or delete them first`);
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
  };
}

const changedMeanwhile = () =>
  conflict('changed_meanwhile', 'the bundle was changed meanwhile: read it again and repeat the change');
const unknownBundle = () => notFound('unknown_bundle', 'there is no such bundle');

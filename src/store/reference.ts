import { type Kysely, sql } from 'kysely';
import { conflict } from '../domain/errors.ts';
import { formatReference, parseReference, type Reference } from '../domain/names.ts';
import type { Meaning, Sight } from '../domain/store.ts';
import { chunks, type Schema } from './database.ts';

/** Why a reference means nothing; `why` goes on from "and". */
export interface Nothing {
  code: 'unknown_bundle' | 'unknown_tag' | 'unknown_revision' | 'purged';
  why: string;
}

const REFERENCES_PER_STATEMENT = 5000;

/** What references mean now, by their text. One statement, unless they are thousands. */
export async function lookUp(db: Kysely<Schema>, references: readonly Reference[]): Promise<Map<string, Meaning | Nothing>> {
  const wanted = new Map(references.map((reference) => [formatReference(reference), reference]));
  const found = new Map<string, Meaning | Nothing>();
  for (const some of chunks([...wanted], REFERENCES_PER_STATEMENT)) {
    const facts = await selectFacts(
      db,
      some.map(([, reference]) => reference),
    );
    for (const [text, reference] of some) found.set(text, meaningOf(text, reference, facts));
  }
  return found;
}

/**
 * Refuses a write that was based on what is so no longer; called inside its transaction, which makes it hold until the commit.
 * @throws conflict `changed_meanwhile`, naming what changed
 */
export async function checkSight(db: Kysely<Schema>, sight: Sight | undefined): Promise<void> {
  if (!sight) return;
  const now = await lookUp(db, [...sight.references.keys()].map(parseReference));
  for (const [text, { revision, secretsVersion }] of sight.references) {
    const found = now.get(text);
    const holds = found && !('code' in found) && found.revision === revision && found.secretsVersion === secretsVersion;
    if (!holds) throw changedMeanwhile(text);
  }
  if (sight.followers) await checkFollowers(db, sight.followers);
}

async function checkFollowers(db: Kysely<Schema>, { bundle, versions }: NonNullable<Sight['followers']>) {
  const rows = await db
    .selectFrom('instance')
    .where('name', 'in', db.selectFrom('instance_reference').select('instance').where('bundle', '=', bundle))
    .select(['name', 'version'])
    .execute();
  const now = new Map(rows.map(({ name, version }) => [name, version]));
  for (const [name, version] of now) if (versions.get(name) !== version) throw changedMeanwhile(name);
  for (const name of versions.keys()) if (!now.has(name)) throw changedMeanwhile(name);
}

const changedMeanwhile = (what: string) =>
  conflict('changed_meanwhile', `${what} was changed while this was looked at: repeat the change`);

/** What the database says of the bundles that references name. */
interface Facts {
  /** The living ones, each with what following it means. */
  bundles: Map<string, Meaning>;
  /** By `web@stable`. */
  tags: Map<string, number>;
  /** `web@3`. */
  purged: Set<string>;
}

/** One statement, so that all of it is of one moment. */
async function selectFacts(db: Kysely<Schema>, references: readonly Reference[]): Promise<Facts> {
  const facts: Facts = { bundles: new Map(), tags: new Map(), purged: new Set() };
  const bundles = [...new Set(references.map(({ bundle }) => bundle))];
  const tags = [...new Set(references.flatMap(({ tag }) => tag ?? []))];
  const pins = [...new Set(references.flatMap(({ revision }) => revision ?? []))];
  if (bundles.length === 0) return facts;
  const rows = await db
    .selectFrom('bundle')
    .where('name', 'in', bundles)
    .where('retired_at', 'is', null)
    .select(['name as bundle', sql<string | null>`cast(null as text)`.as('tag'), 'latest as revision'])
    .select(sql<number | null>`secrets_version`.as('secrets_version'))
    .$if(tags.length > 0, (query) =>
      query.unionAll(
        db
          .selectFrom('tag')
          .where('bundle', 'in', bundles)
          .where('name', 'in', tags)
          .select(['bundle', 'name as tag', 'revision', NO_VERSION]),
      ),
    )
    .$if(pins.length > 0, (query) =>
      query.unionAll(
        db
          .selectFrom('revision')
          .where('bundle', 'in', bundles)
          .where('number', 'in', pins)
          .where('purged_at', 'is not', null)
          .select(['bundle', sql<string | null>`cast(null as text)`.as('tag'), 'number as revision', NO_VERSION]),
      ),
    )
    .execute();
  for (const { bundle, tag, revision, secrets_version } of rows) {
    if (secrets_version !== null) facts.bundles.set(bundle, { revision, secretsVersion: secrets_version });
    else if (tag !== null) facts.tags.set(`${bundle}@${tag}`, revision);
    else facts.purged.add(`${bundle}@${revision}`);
  }
  return facts;
}

const NO_VERSION = sql<number | null>`cast(null as bigint)`.as('secrets_version');

function meaningOf(text: string, { bundle, tag, revision }: Reference, facts: Facts): Meaning | Nothing {
  const newest = facts.bundles.get(bundle);
  if (!newest) return { code: 'unknown_bundle', why: 'there is no such bundle' };
  if (tag !== null) {
    const tagged = facts.tags.get(text);
    return tagged === undefined ? { code: 'unknown_tag', why: 'the bundle has no such tag' } : { ...newest, revision: tagged };
  }
  if (revision === null) return newest;
  if (!hasRevision(newest.revision, revision))
    return { code: 'unknown_revision', why: `the bundle's revisions are 1 to ${newest.revision}` };
  if (facts.purged.has(text)) return { code: 'purged', why: 'the content of that revision was purged' };
  return { ...newest, revision };
}

/** Numbers run from 1 to the newest without a gap. */
export function hasRevision(latest: number, number: number): boolean {
  return Number.isInteger(number) && number >= 1 && number <= latest;
}

import { type Kysely, type Selectable, sql } from 'kysely';
import type { AuditDetail, AuditNote } from '../domain/audit.ts';
import { type BootFacts, NO_BOOT } from '../domain/boot.ts';
import { conflict, invalid, notFound, preconditionFailed } from '../domain/errors.ts';
import { checkSeedUnused, cloudInitInstanceId, type Instance, type InstanceSpec, instanceEtag } from '../domain/instance.ts';
import { canonicalJson, type Json, type JsonObject } from '../domain/json.ts';
import { parseReference, type Reference } from '../domain/names.ts';
import type { PolicySpec } from '../domain/policy.ts';
import { type InstanceWrite, SPECS_KEPT, type Store } from '../domain/store.ts';
import { noteAudit, noteAudits } from './audit.ts';
import { chunks, type Database, type InstanceRow, indexable, plain, type Schema } from './database.ts';
import { checkSight, lookUp } from './reference.ts';
import { describeSecrets, dropSecrets, type SecretsChange, saveSecrets, weighSecrets } from './secret.ts';
import { factsOf, listStale, matches } from './state.ts';

type InstanceStore = Pick<
  Store,
  | 'putInstances'
  | 'findVersions'
  | 'findSpec'
  | 'findInstance'
  | 'findInstanceById'
  | 'findInstanceByIdEvenRetired'
  | 'listInstances'
  | 'retireInstance'
>;

const NAMES_PER_STATEMENT = 5000;
const ROWS_PER_STATEMENT = 500;

/** Instances, and what they are found by: references, labels, addresses. */
export function instanceStore(database: Database): InstanceStore {
  return {
    async putInstances(writes, { at, by, detail, sight }) {
      const prepared = writes.map(prepare);
      const names = prepared.map(({ write }) => write.name);
      const seen = new Set<string>();
      for (const name of names) {
        if (seen.has(name)) throw invalid('duplicate_name', `${name} is in the list twice`);
        seen.add(name);
      }

      const written = await database.write(async (db) => {
        const before = await selectByName(db, names);
        const secrets = await weighSecrets(db, 'instance', secretsOf(writes));
        const outcomes = prepared.map((item) =>
          decide(item, { before: before.get(item.write.name), secrets: secrets.get(item.write.name), at }),
        );
        await checkReferences(db, prepared);
        await checkSight(db, sight);
        await save(
          db,
          outcomes.filter(({ changed }) => changed),
          at,
        );
        const versions = new Map(outcomes.map(({ row }) => [row.name, row.version]));
        await saveSecrets(db, 'instance', secrets, { at, versions });
        const notes = outcomes.filter(({ changed }) => changed).map((outcome) => noteOf(outcome, secrets, detail));
        await noteAudits(db, at, by, notes);
        return outcomes;
      });
      return written.map(({ row, created, changed }) => ({ instance: toInstance(row), created, changed }));
    },

    findVersions: (names) =>
      database.read(async (db) => {
        const found = new Map<string, number>();
        for (const some of chunks(names, NAMES_PER_STATEMENT)) {
          const rows = await db
            .selectFrom('instance')
            .select(['name', 'version'])
            .where('name', 'in', some)
            .where('retired_at', 'is', null)
            .execute();
          for (const { name, version } of rows) found.set(name, version);
        }
        return names.map((name) => found.get(name) ?? null);
      }),

    findSpec: (instance, version) =>
      database.read(async (db) => {
        const row = await db
          .selectFrom('instance_spec')
          .select('spec')
          .where('instance', '=', instance)
          .where('version', '=', version)
          .executeTakeFirst();
        // Older versions knew no policy and no tracking.
        if (!row) return null;
        return { policy: {}, track: false, ...(JSON.parse(row.spec) as Omit<InstanceSpec, 'policy' | 'track'>) };
      }),

    findInstance: (name) =>
      database.read(async (db) => {
        const row = await db.selectFrom('instance').selectAll().where('name', '=', name).executeTakeFirst();
        return row ? toInstance(row) : null;
      }),

    findInstanceById: (id) =>
      database.read(async (db) => {
        const row = await db
          .selectFrom('instance')
          .selectAll()
          .where('id', '=', id)
          .where('retired_at', 'is', null)
          .executeTakeFirst();
        return row ? toInstance(row) : null;
      }),

    findInstanceByIdEvenRetired: (id) =>
      database.read(async (db) => {
        const row = await db.selectFrom('instance').selectAll().where('id', '=', id).executeTakeFirst();
        return row ? toInstance(row) : null;
      }),

    listInstances: ({ after, limit }, { stale = false, ...filter }) =>
      database.read(async (db) => {
        const list = (from: string | null, count: number) =>
          db
            .selectFrom('instance')
            .selectAll()
            .where((eb) => matches(eb, filter))
            .$if(from !== null, (query) => query.where('name', '>', plain(from ?? '')))
            .$if(stale, (query) => query.where('first_delivery_at', 'is not', null))
            .orderBy('name')
            .limit(count)
            .execute();
        const rows = stale ? await listStale(db, after, limit, list) : await list(after, limit);
        return rows.map(toInstance);
      }),

    retireInstance: (name, { expect, at, by, detail = {}, force = false }) =>
      database.write(async (db) => {
        const row = await db
          .selectFrom('instance')
          .selectAll()
          .where('name', '=', name)
          .where('retired_at', 'is', null)
          .executeTakeFirst();
        if (!row) throw notFound('unknown_instance', 'there is no such instance');
        if (expect !== undefined && expect !== row.version) throw mismatch(name);
        checkSeedUnused(toInstance(row), force);
        await forget(db, [name]);
        await dropSecrets(db, { kind: 'instance', name }, { at, until: row.version + 1 });
        await db.updateTable('instance').set({ retired_at: at, updated_at: at }).where('name', '=', name).execute();
        const before = instanceEtag(row);
        await noteAudit(db, at, by, { action: 'delete', kind: 'instance', name, before, after: null, detail });
      }),
  };
}

/** The columns that hold the spec, each as JSON text. */
type SpecColumns = Pick<
  InstanceRow,
  'bundles' | 'vars' | 'labels' | 'meta_data' | 'vendor_data' | 'network_config' | 'policy' | 'track'
>;

interface Prepared {
  write: InstanceWrite;
  columns: SpecColumns;
  references: Reference[];
}

interface Outcome extends Prepared {
  /** The entity tag of the living instance there was. */
  before: string | null;
  row: InstanceRow;
  created: boolean;
  changed: boolean;
}

/** All that can be computed before the transaction. */
function prepare(write: InstanceWrite): Prepared {
  return { write, columns: toColumns(write.spec), references: referencesOf(write.spec).map(parseReference) };
}

/** What it refers to: what it gets, and what it may be served when its window is shut. */
function referencesOf({ bundles, policy: { afterClose = 'refuse' } }: InstanceSpec): string[] {
  return afterClose === 'refuse' ? bundles : [...bundles, ...afterClose];
}

/** The changes of secrets, by instance. */
function secretsOf(writes: readonly InstanceWrite[]) {
  return new Map(writes.flatMap(({ name, secrets }) => (secrets && secrets.size > 0 ? [[name, secrets]] : [])));
}

/** What a registration begins with. */
export const BLANK_BOOT = {
  first_delivery_at: null,
  last_delivery_at: null,
  delivery_count: 0,
  reports_dropped: 0,
  closed_at: null,
  reopened_at: null,
  open_until: null,
  last_delivery_address: null,
  include_fetched_at: null,
  seed_fetched_at: null,
  boot: '{}',
  state: 'registered',
  silent_at: null,
  told_instance_id: null,
};

interface Found {
  /** The row of that name, if there is one. */
  before: InstanceRow | undefined;
  /** What changes of its secrets, if anything does. */
  secrets: SecretsChange | undefined;
  at: number;
}

/** What a write makes of what is there. @throws precondition_failed `etag_mismatch`; conflict `changed_meanwhile` */
function decide(item: Prepared, { before, secrets, at }: Found): Outcome {
  const { write, columns } = item;
  const { name, spec, expect, seen, freshId } = write;
  const alive = before !== undefined && before.retired_at === null;
  const present = alive ? before.version : null;
  if (expect !== undefined && expect !== present) throw mismatch(name);
  if (seen !== undefined && seen !== present)
    throw conflict('changed_meanwhile', `${name} was changed meanwhile: repeat the change`);
  if (alive && !secrets && sameSpec(before, columns))
    return { ...item, before: instanceEtag(before), row: before, created: false, changed: false };
  const base = before ?? {
    id: freshId,
    version: 0,
    include_generation: 0,
    seed_generation: 0,
    report_generation: 0,
    created_at: at,
    ...BLANK_BOOT,
    waiting_since: at,
  };
  const row: InstanceRow = {
    ...base,
    ...columns,
    name,
    version: base.version + 1,
    instance_id: indexable(cloudInitInstanceId({ id: base.id, metaData: spec.metaData })),
    updated_at: at,
    retired_at: null,
  };
  // A new life of an old name: what the old stubs open must be nothing, and the counts begin anew.
  if (before && !alive) {
    row.include_generation += 1;
    row.seed_generation += 1;
    row.report_generation += 1;
    // As if reopened: what counts from the registration counts from now.
    Object.assign(row, BLANK_BOOT, { reopened_at: at, waiting_since: at });
  }
  return { ...item, before: alive ? instanceEtag(before) : null, row, created: !alive, changed: true };
}

function noteOf({ row, before }: Outcome, secrets: ReadonlyMap<string, SecretsChange>, detail: AuditDetail = {}): AuditNote {
  const told = { ...describeSecrets(secrets.get(row.name)), ...detail };
  return { action: 'put', kind: 'instance', name: row.name, before, after: instanceEtag(row), detail: told };
}

/** @throws invalid `unknown_bundle`, `unknown_tag`, `unknown_revision`, `purged`, naming the reference and the instance */
async function checkReferences(db: Kysely<Schema>, prepared: readonly Prepared[]) {
  const found = await lookUp(
    db,
    prepared.flatMap(({ references }) => references),
  );
  for (const { write } of prepared)
    for (const text of referencesOf(write.spec)) {
      const meaning = found.get(text);
      if (meaning && 'code' in meaning) throw invalid(meaning.code, `${write.name} refers to ${text}, and ${meaning.why}`);
    }
}

async function save(db: Kysely<Schema>, outcomes: readonly Outcome[], at: number) {
  for (const some of chunks(outcomes, ROWS_PER_STATEMENT)) {
    await db
      .insertInto('instance')
      .values(some.map(({ row }) => row))
      .onConflict((oc) =>
        oc.column('name').doUpdateSet(({ ref }) => ({
          version: ref('excluded.version'),
          bundles: ref('excluded.bundles'),
          vars: ref('excluded.vars'),
          labels: ref('excluded.labels'),
          meta_data: ref('excluded.meta_data'),
          vendor_data: ref('excluded.vendor_data'),
          network_config: ref('excluded.network_config'),
          policy: ref('excluded.policy'),
          track: ref('excluded.track'),
          instance_id: ref('excluded.instance_id'),
          include_generation: ref('excluded.include_generation'),
          seed_generation: ref('excluded.seed_generation'),
          report_generation: ref('excluded.report_generation'),
          updated_at: ref('excluded.updated_at'),
          retired_at: ref('excluded.retired_at'),
          first_delivery_at: ref('excluded.first_delivery_at'),
          last_delivery_at: ref('excluded.last_delivery_at'),
          delivery_count: ref('excluded.delivery_count'),
          reports_dropped: ref('excluded.reports_dropped'),
          closed_at: ref('excluded.closed_at'),
          reopened_at: ref('excluded.reopened_at'),
          open_until: ref('excluded.open_until'),
          last_delivery_address: ref('excluded.last_delivery_address'),
          include_fetched_at: ref('excluded.include_fetched_at'),
          seed_fetched_at: ref('excluded.seed_fetched_at'),
          boot: ref('excluded.boot'),
          state: ref('excluded.state'),
          waiting_since: ref('excluded.waiting_since'),
          silent_at: ref('excluded.silent_at'),
          told_instance_id: ref('excluded.told_instance_id'),
        })),
      )
      .execute();
  }
  await saveSpecs(db, outcomes, at);
  await forget(
    db,
    outcomes.filter(({ created }) => !created).map(({ row }) => row.name),
  );
  const references = outcomes.flatMap(({ row, references }) =>
    references.map((reference, position) => ({ instance: row.name, position, ...reference })),
  );
  for (const some of chunks(references, ROWS_PER_STATEMENT)) await db.insertInto('instance_reference').values(some).execute();
  const labels = outcomes.flatMap(({ row, write }) =>
    Object.entries(write.spec.labels).map(([key, value]) => ({
      instance: row.name,
      key: indexable(key),
      value: indexable(value),
    })),
  );
  for (const some of chunks(labels, ROWS_PER_STATEMENT)) await db.insertInto('instance_label').values(some).execute();
}

/** Keeps what each states at its new version. Versions count one by one, so one falls out for each that comes in. */
export async function saveSpecs(db: Kysely<Schema>, outcomes: readonly Pick<Outcome, 'row' | 'columns'>[], at: number) {
  const specs = outcomes.map(({ row, columns }) => ({ instance: row.name, version: row.version, spec: specText(columns), at }));
  for (const some of chunks(specs, ROWS_PER_STATEMENT)) {
    await db.insertInto('instance_spec').values(some).execute();
    const old = some.filter(({ version }) => version > SPECS_KEPT);
    if (old.length === 0) continue;
    const keys = old.map(({ instance, version }) => sql`(${instance}, cast(${version - SPECS_KEPT} as bigint))`);
    await db
      .deleteFrom('instance_spec')
      .where(sql<boolean>`(instance, version) in (values ${sql.join(keys)})`)
      .execute();
  }
}

/** The spec as JSON, of columns that are JSON already. */
function specText(columns: SpecColumns): string {
  const { bundles, vars, labels, meta_data, vendor_data, network_config, policy, track } = columns;
  const fields = {
    ...{ bundles, vars, labels, policy, track },
    ...{ metaData: meta_data, vendorData: vendor_data, networkConfig: network_config },
  };
  return `{${Object.entries(fields)
    .map(([field, json]) => `"${field}":${json}`)
    .join(',')}}`;
}

/** Takes instances out of what they are found by. */
async function forget(db: Kysely<Schema>, names: readonly string[]) {
  for (const some of chunks(names, NAMES_PER_STATEMENT)) {
    await db.deleteFrom('instance_reference').where('instance', 'in', some).execute();
    await db.deleteFrom('instance_label').where('instance', 'in', some).execute();
  }
}

async function selectByName(db: Kysely<Schema>, names: readonly string[]): Promise<Map<string, InstanceRow>> {
  const found = new Map<string, InstanceRow>();
  for (const some of chunks(names, NAMES_PER_STATEMENT)) {
    const rows = await db.selectFrom('instance').selectAll().where('name', 'in', some).execute();
    for (const row of rows) found.set(row.name, row);
  }
  return found;
}

function toColumns(spec: InstanceSpec): SpecColumns {
  return {
    bundles: JSON.stringify(spec.bundles),
    vars: JSON.stringify(spec.vars),
    labels: JSON.stringify(spec.labels),
    meta_data: JSON.stringify(spec.metaData),
    vendor_data: JSON.stringify(spec.vendorData),
    network_config: JSON.stringify(spec.networkConfig),
    policy: JSON.stringify(spec.policy),
    track: JSON.stringify(spec.track),
  };
}

/** Equal as values: the order of keys makes no difference. */
function sameSpec(row: SpecColumns, columns: SpecColumns): boolean {
  return (Object.keys(columns) as (keyof SpecColumns)[]).every(
    (column) =>
      row[column] === columns[column] ||
      canonicalJson(JSON.parse(row[column]) as Json) === canonicalJson(JSON.parse(columns[column]) as Json),
  );
}

export function toInstance(row: Selectable<InstanceRow>): Instance {
  return {
    id: row.id,
    name: row.name,
    version: row.version,
    bundles: JSON.parse(row.bundles) as string[],
    vars: JSON.parse(row.vars) as JsonObject,
    labels: JSON.parse(row.labels) as Record<string, string>,
    metaData: JSON.parse(row.meta_data) as JsonObject,
    vendorData: JSON.parse(row.vendor_data) as string | null,
    networkConfig: JSON.parse(row.network_config) as string | JsonObject | null,
    policy: JSON.parse(row.policy) as PolicySpec,
    track: JSON.parse(row.track) as boolean,
    generations: { include: row.include_generation, seed: row.seed_generation, report: row.report_generation },
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    retiredAt: row.retired_at,
    firstDeliveryAt: row.first_delivery_at,
    lastDeliveryAt: row.last_delivery_at,
    deliveryCount: row.delivery_count,
    fetchedAt: { include: row.include_fetched_at, seed: row.seed_fetched_at },
    reportsDropped: row.reports_dropped,
    closedAt: row.closed_at,
    reopenedAt: row.reopened_at,
    openUntil: row.open_until,
    boot: factsOf(row),
  };
}

/** What is not known is as if nothing had happened: rows of before this version hold `{}`. */
export function toFacts(text: string): BootFacts {
  return { ...NO_BOOT, ...(JSON.parse(text) as Partial<BootFacts>) };
}

export const mismatch = (name: string) =>
  preconditionFailed('etag_mismatch', `${name} was changed meanwhile: GET it again, and repeat the change on that`);

import type { Kysely, Selectable } from 'kysely';
import { invalid, notFound, preconditionFailed } from '../domain/errors.ts';
import { cloudInitInstanceId, type Instance, type InstanceSpec } from '../domain/instance.ts';
import { canonicalJson, type Json, type JsonObject } from '../domain/json.ts';
import { formatReference, parseReference, type Reference } from '../domain/names.ts';
import type { InstanceWrite, Store } from '../domain/store.ts';
import { hasRevision } from './bundle.ts';
import { chunks, type Database, type InstanceRow, indexable, plain, type Schema } from './database.ts';
import { addressText } from './delivery.ts';

type InstanceStore = Pick<Store, 'putInstances' | 'findInstance' | 'findInstanceById' | 'listInstances' | 'retireInstance'>;

const NAMES_PER_STATEMENT = 5000;
const ROWS_PER_STATEMENT = 500;

/** Instances, and what they are found by: references, labels, addresses. */
export function instanceStore(database: Database): InstanceStore {
  return {
    async putInstances(writes, at) {
      const prepared = writes.map(prepare);
      const names = prepared.map(({ write }) => write.name);
      const seen = new Set<string>();
      for (const name of names) {
        if (seen.has(name)) throw invalid('duplicate_name', `${name} is in the list twice`);
        seen.add(name);
      }

      const written = await database.write(async (db) => {
        const before = await selectByName(db, names);
        const outcomes = prepared.map((item) => decide(item, before.get(item.write.name), at));
        await checkReferences(db, prepared);
        await save(
          db,
          outcomes.filter(({ changed }) => changed),
        );
        return outcomes;
      });
      return written.map(({ row, created, changed }) => ({ instance: toInstance(row), created, changed }));
    },

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

    listInstances: ({ after, limit }, { bundle, labels = [], instanceId, address, retired = false }) =>
      database.read(async (db) => {
        let query = db
          .selectFrom('instance')
          .selectAll()
          .where('retired_at', retired ? 'is not' : 'is', null)
          .orderBy('name')
          .limit(limit);
        if (after !== null) query = query.where('name', '>', plain(after));
        if (instanceId !== undefined) query = query.where('instance_id', '=', indexable(instanceId));
        if (bundle !== undefined)
          query = query.where(
            'name',
            'in',
            db.selectFrom('instance_reference').select('instance').where('bundle', '=', plain(bundle)),
          );
        if (address !== undefined)
          query = query.where(
            'name',
            'in',
            db.selectFrom('delivery').select('instance').where('address', '=', addressText(address)),
          );
        for (const { key, value } of labels) {
          const labelled = db.selectFrom('instance_label').select('instance').where('key', '=', indexable(key));
          query = query.where('name', 'in', value === null ? labelled : labelled.where('value', '=', indexable(value)));
        }
        return (await query.execute()).map(toInstance);
      }),

    retireInstance: (name, { expect, at }) =>
      database.write(async (db) => {
        const row = await db
          .selectFrom('instance')
          .select('version')
          .where('name', '=', name)
          .where('retired_at', 'is', null)
          .executeTakeFirst();
        if (!row) throw notFound('unknown_instance', 'there is no such instance');
        if (expect !== undefined && expect !== row.version) throw mismatch(name);
        await forget(db, [name]);
        await db.updateTable('instance').set({ retired_at: at, updated_at: at }).where('name', '=', name).execute();
      }),
  };
}

/** The columns that hold the spec, each as JSON text. */
type SpecColumns = Pick<InstanceRow, 'bundles' | 'vars' | 'labels' | 'meta_data' | 'vendor_data' | 'network_config'>;

interface Prepared {
  write: InstanceWrite;
  columns: SpecColumns;
  references: Reference[];
}

interface Outcome extends Prepared {
  row: InstanceRow;
  created: boolean;
  changed: boolean;
}

/** All that can be computed before the transaction. */
function prepare(write: InstanceWrite): Prepared {
  return { write, columns: toColumns(write.spec), references: write.spec.bundles.map(parseReference) };
}

/** What a write makes of the row that is there. @throws precondition_failed `etag_mismatch` */
function decide(item: Prepared, before: InstanceRow | undefined, at: number): Outcome {
  const { write, columns } = item;
  const { name, spec, expect, freshId } = write;
  const alive = before !== undefined && before.retired_at === null;
  if (expect !== undefined && expect !== (alive ? before.version : null)) throw mismatch(name);
  if (alive && sameSpec(before, columns)) return { ...item, row: before, created: false, changed: false };
  const base = before ?? {
    id: freshId,
    version: 0,
    include_generation: 0,
    seed_generation: 0,
    report_generation: 0,
    created_at: at,
    first_delivery_at: null,
    last_delivery_at: null,
    delivery_count: 0,
    reports_dropped: 0,
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
    row.first_delivery_at = null;
    row.last_delivery_at = null;
    row.delivery_count = 0;
    row.reports_dropped = 0;
  }
  return { ...item, row, created: !alive, changed: true };
}

/** @throws invalid `unknown_bundle`, `unknown_tag`, `unknown_revision`, naming the reference and the instance */
async function checkReferences(db: Kysely<Schema>, prepared: readonly Prepared[]) {
  const wanted = prepared.flatMap(({ write, references }) =>
    references.map((reference) => ({ instance: write.name, reference })),
  );
  const bundles = new Map<string, number>();
  const tags = new Set<string>();
  for (const names of chunks([...new Set(wanted.map(({ reference }) => reference.bundle))], NAMES_PER_STATEMENT)) {
    const rows = await db
      .selectFrom('bundle')
      .select(['name', 'latest'])
      .where('name', 'in', names)
      .where('retired_at', 'is', null)
      .execute();
    for (const { name, latest } of rows) bundles.set(name, latest);
  }
  const tagged = [...new Set(wanted.flatMap(({ reference }) => (reference.tag === null ? [] : reference.bundle)))];
  for (const names of chunks(tagged, NAMES_PER_STATEMENT)) {
    const rows = await db.selectFrom('tag').select(['bundle', 'name']).where('bundle', 'in', names).execute();
    for (const { bundle, name } of rows) tags.add(`${bundle}@${name}`);
  }
  for (const { instance, reference } of wanted) {
    const text = formatReference(reference);
    const latest = bundles.get(reference.bundle);
    if (latest === undefined) throw invalid('unknown_bundle', `${instance} refers to ${text}, and there is no such bundle`);
    if (reference.tag !== null && !tags.has(text))
      throw invalid('unknown_tag', `${instance} refers to ${text}, and the bundle has no such tag`);
    if (reference.revision !== null && !hasRevision(latest, reference.revision))
      throw invalid('unknown_revision', `${instance} refers to ${text}, and the bundle's revisions are 1 to ${latest}`);
  }
}

async function save(db: Kysely<Schema>, outcomes: readonly Outcome[]) {
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
        })),
      )
      .execute();
  }
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

function toInstance(row: Selectable<InstanceRow>): Instance {
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
    generations: { include: row.include_generation, seed: row.seed_generation, report: row.report_generation },
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    retiredAt: row.retired_at,
    firstDeliveryAt: row.first_delivery_at,
    lastDeliveryAt: row.last_delivery_at,
    deliveryCount: row.delivery_count,
    reportsDropped: row.reports_dropped,
  };
}

const mismatch = (name: string) =>
  preconditionFailed('etag_mismatch', `${name} was changed meanwhile: GET it again, and repeat the change on that`);

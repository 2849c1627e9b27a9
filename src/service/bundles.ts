import { type Actor, namesFit } from '../domain/actor.ts';
import type { AuditDetail } from '../domain/audit.ts';
import {
  arrangeParts,
  type Bundle,
  type Part,
  type PartOrder,
  type Revision,
  type RevisionContent,
  revisionDigest,
} from '../domain/bundle.ts';
import { BootbundleError, conflict, invalid, notFound, tooLarge } from '../domain/errors.ts';
import { type Finding, refuseErrors } from '../domain/finding.ts';
import type { Json, JsonObject } from '../domain/json.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName, checkPartName, parseReference } from '../domain/names.ts';
import { checkPreconditions, type Preconditions } from '../domain/precondition.ts';
import type { BundleFilter, BundleSummary, BundleUse, KeptBody, Page, Store } from '../domain/store.ts';
import type { BundleUpload, PartUpload } from '../domain/upload.ts';
import type { Schemas } from '../inspect/schema.ts';
import { diffParts, type Side } from './diff.ts';
import type { DocumentService } from './documents.ts';
import type { Consent, Gate, Memory } from './gate.ts';
import { judgePart } from './lint.ts';
import type { Pause } from './slices.ts';

/** Circumstances of a write. */
export interface WriteOptions extends Consent {
  by: Actor;
  preconditions?: Preconditions;
  /** What the author says of the new revision. */
  message?: string | null;
  /** Answer what would happen, and change nothing. */
  dryRun?: boolean;
}

export interface BundleWritten {
  bundle: Bundle;
  created: boolean;
  changed: boolean;
  findings: Finding[];
  /** Which schema judged its cloud-configs; null when none did. */
  schema: string | null;
}

/** How often a write is computed anew because somebody else was quicker. */
const ATTEMPTS = 20;

export interface BundleService {
  /** The living bundle. @throws not_found `unknown_bundle` */
  get(name: string): Promise<Bundle>;
  list(page: Page<string>, filter: BundleFilter): Promise<BundleSummary[]>;
  /** The instances that refer to it, as far as `by` may know of them, and how many there are of those. */
  uses(name: string, by: Actor): Promise<{ uses: BundleUse[]; total: number }>;
  /** Adds or replaces one part. An option that is not said stays as it was. */
  putPart(
    name: string,
    upload: PartUpload,
    options: WriteOptions,
  ): Promise<BundleWritten & { part: Part; partCreated: boolean }>;
  /** States the whole bundle: what the upload does not hold is gone. */
  put(name: string, upload: BundleUpload, options: WriteOptions): Promise<BundleWritten>;
  /** Adds or replaces several parts as one revision. */
  addParts(name: string, upload: BundleUpload, options: WriteOptions): Promise<BundleWritten>;
  deletePart(name: string, filename: string, options: WriteOptions): Promise<BundleWritten>;
  /** Retires the bundle. @throws conflict `in_use` naming who refers to it */
  delete(name: string, options: WriteOptions): Promise<void>;
  /** @throws not_found `unknown_bundle`, `unknown_part` */
  getPart(name: string, filename: string): Promise<{ part: Part; body: Uint8Array }>;
  /** Every part's bytes, by SHA-256. */
  bodies(content: RevisionContent): Promise<Map<string, Uint8Array>>;
  /** @throws not_found `unknown_bundle`, `unknown_revision` */
  getRevision(name: string, number: number): Promise<Revision>;
  listRevisions(name: string, page: Page<number>): Promise<Revision[]>;
  /**
   * States an earlier revision anew, as the newest.
   * @throws not_found `unknown_bundle`, `unknown_revision`; conflict `purged`
   */
  restore(name: string, number: number, options: WriteOptions): Promise<BundleWritten>;
  /**
   * Drops a revision's content for good. @returns the revision, and which of its bodies other revisions (as far as `by` may know of them) still have
   * @throws not_found `unknown_bundle`, `unknown_revision`; conflict `in_use`
   */
  purge(name: string, number: number, by: Actor): Promise<{ revision: Revision; kept: KeptBody[] }>;
  /** A unified diff of two revisions, part by part; `from` 0: of nothing and a revision. @throws not_found; conflict `purged` */
  diff(name: string, from: number, to: number): Promise<string>;
  /** Sets, or (undefined) removes, one of the vars. */
  putVar(name: string, key: string, value: Json | undefined, options: WriteOptions): Promise<BundleWritten>;
  /** @throws would_break, as every write; not_found `unknown_bundle`, `unknown_revision`; conflict `purged` */
  putTag(
    name: string,
    tag: string,
    revision: number,
    options: Pick<WriteOptions, 'by' | 'dryRun' | 'accept' | 'force'>,
  ): Promise<{ created: boolean; changed: boolean; findings: Finding[] }>;
  deleteTag(name: string, tag: string, by: Actor): Promise<void>;
  /** Entity tag of a bundle, of a part; null where there is none. For conditions that are decided before a body is read. */
  etag(name: string, filename?: string): Promise<string | null>;
}

export function createBundleService(deps: {
  store: Store;
  documents: DocumentService;
  gate: Gate;
  schemas: () => Promise<Schemas>;
  slices: () => Pause;
  clock: () => number;
}): BundleService {
  const { store, documents, gate, schemas, slices, clock } = deps;
  async function living(name: string): Promise<Bundle | null> {
    const bundle = await store.findBundle(name);
    return bundle && bundle.retiredAt === null ? bundle : null;
  }

  async function get(name: string): Promise<Bundle> {
    checkName('bundle', name);
    const bundle = await living(name);
    if (!bundle) throw notFound('unknown_bundle', 'there is no such bundle; PUT a part to create it');
    return bundle;
  }

  /** Read, compute, compare-and-set: `change` gets the living bundle's newest content (or null) and says the next; `told` is for the audit. */
  function write(
    name: string,
    options: WriteOptions,
    etagOf: (bundle: Bundle | null) => string | null,
    change: (current: Bundle | null) => Promise<Change>,
    told: AuditDetail,
  ): Promise<BundleWritten> {
    checkName('bundle', name);
    return gate.inTurn(async () => {
      let memory: { of: string; found: Memory } | null = null;
      for (let attempt = 1; ; attempt++) {
        const current = await living(name);
        checkPreconditions(etagOf(current), options.preconditions ?? {});
        const { content, bodies, findings, schema = null } = await change(current);
        checkSize(content);
        const digest = revisionDigest(content);
        if (current?.latest.digest === digest) return { bundle: current, created: false, changed: false, findings, schema };
        const number = ((current ?? (await store.findBundle(name)))?.latest.number ?? 0) + 1;
        const key = `${name}@${number}`;
        if (memory?.of !== `${key} ${digest}`) memory = { of: `${key} ${digest}`, found: new Map() };
        const whatIf = async () => ({ revision: await documents.compile(key, content, bodies) });
        const passage = await gate.pass({ bundle: name, reference: name, whatIf }, options, memory.found);
        findings.push(...passage.findings);
        const [at, message] = [clock(), options.message ?? null];
        if (options.dryRun) {
          const circumstances = { bundle: name, digest, createdAt: at, author: options.by.name, message, purgedAt: null };
          const next = { ...content, ...circumstances, number };
          return { bundle: asBundle(current, next), created: !current, changed: true, findings, schema };
        }
        try {
          const base = current?.latest.number ?? null;
          const revision = await store.putRevision({
            ...{ bundle: name, base, content, digest, bodies, at, by: options.by, message },
            ...{ sight: passage.sight, detail: { ...told, ...passage.detail } },
          });
          return { bundle: asBundle(current, revision), created: !current, changed: true, findings, schema };
        } catch (error) {
          if (attempt >= ATTEMPTS || !(error instanceof BootbundleError) || error.code !== 'changed_meanwhile') throw error;
        }
      }
    });
  }

  async function unpurged(name: string, number: number): Promise<Revision> {
    await get(name);
    const revision = await store.findRevision(name, number);
    if (!revision) throw notFound('unknown_revision', 'the bundle has no such revision');
    if (revision.purgedAt !== null) throw conflict('purged', `the content of revision ${number} was purged`);
    return revision;
  }

  async function sideOf(revision: Revision): Promise<Side> {
    const parts = new Map<string, Side['parts'] extends ReadonlyMap<string, infer P> ? P : never>();
    for (const part of revision.parts) {
      const { filename, type, merge, template } = part;
      const options = { type, ...(merge === null ? {} : { merge }), ...(template ? { template } : {}) };
      parts.set(filename, { body: await bodyOf(store, part), options });
    }
    return { label: `${revision.bundle}@${revision.number}`, vars: revision.vars, parts };
  }

  const bundleEtag = (bundle: Bundle | null) => bundle?.latest.digest ?? null;
  const partEtag = (filename: string) => (bundle: Bundle | null) => findPart(bundle, filename)?.sha256 ?? null;

  return {
    get,
    list: (page, filter) => store.listBundles(page, filter),
    uses: (name, by) => store.listBundleUses(name, LIMITS.pageDefault, by.scope.instances),

    async putPart(name, upload, options) {
      checkPartName(upload.filename);
      let partCreated = false;
      const change = async (current: Bundle | null) => {
        partCreated = !findPart(current, upload.filename);
        return mergeUpload(current, { parts: [upload] }, await schemas(), slices());
      };
      const written = await write(name, options, partEtag(upload.filename), change, { part: upload.filename });
      const part = findPart(written.bundle, upload.filename);
      if (!part) throw new Error('the part just written is not in its revision');
      return { ...written, part, partCreated };
    },

    put: (name, upload, options) =>
      write(name, options, bundleEtag, async () => mergeUpload(null, upload, await schemas(), slices()), { whole: true }),
    addParts: (name, upload, options) =>
      write(name, options, bundleEtag, async (current) => mergeUpload(current, upload, await schemas(), slices()), {
        parts: upload.parts.map(({ filename }) => filename),
      }),

    async deletePart(name, filename, options) {
      checkPartName(filename);
      const change = async (current: Bundle | null) => {
        if (!current) throw notFound('unknown_bundle', 'there is no such bundle');
        if (!findPart(current, filename)) throw notFound('unknown_part', 'the bundle has no such part');
        const { order, vars, parts } = current.latest;
        const content = { order, vars, parts: parts.filter((part) => part.filename !== filename) };
        return { content, bodies: new Map(), findings: [] };
      };
      return write(name, options, partEtag(filename), change, { partRemoved: filename });
    },

    async delete(name, { preconditions = {}, dryRun = false, by }) {
      for (let attempt = 1; ; attempt++) {
        const bundle = await get(name);
        checkPreconditions(bundleEtag(bundle), preconditions);
        if (dryRun) {
          const { total } = await store.listBundleUses(name, 1);
          const { uses } = await store.listBundleUses(name, 10, by.scope.instances);
          const known = uses.map(({ instance }) => instance).join(', ') || "instances outside of your token's scope";
          if (total > 0) throw conflict('in_use', `${known} refer to it`);
          return;
        }
        try {
          return await store.retireBundle(name, { base: bundle.latest.number, at: clock(), by });
        } catch (error) {
          if (attempt >= ATTEMPTS || !(error instanceof BootbundleError) || error.code !== 'changed_meanwhile') throw error;
        }
      }
    },

    async getPart(name, filename) {
      checkPartName(filename);
      const part = findPart(await get(name), filename);
      if (!part) throw notFound('unknown_part', 'the bundle has no such part');
      return { part, body: await bodyOf(store, part) };
    },

    async bodies(content) {
      const bodies = new Map<string, Uint8Array>();
      for (const part of content.parts) bodies.set(part.sha256, await bodyOf(store, part));
      return bodies;
    },

    async getRevision(name, number) {
      await get(name);
      const revision = await store.findRevision(name, number);
      if (!revision) throw notFound('unknown_revision', 'the bundle has no such revision');
      return revision;
    },

    async listRevisions(name, page) {
      await get(name);
      return store.listRevisions(name, page);
    },

    async restore(name, number, options) {
      const message = options.message ?? `restores revision ${number}`;
      const change = async () => {
        const { order, vars, parts } = await unpurged(name, number);
        return { content: { order, vars, parts }, bodies: new Map(), findings: [] };
      };
      return write(name, { ...options, message }, bundleEtag, change, { restores: number });
    },

    async purge(name, number, by) {
      checkName('bundle', name);
      const { revision, kept } = await store.purgeRevision(name, number, { at: clock(), by });
      const known = (text: string) => namesFit(by.scope.bundles, parseReference(text).bundle);
      return { revision, kept: kept.map((body) => ({ ...body, revisions: body.revisions.filter(known) })) };
    },

    async diff(name, from, to) {
      const nothing: Side = { label: `${name}@0`, vars: {}, parts: new Map() };
      const before = from === 0 ? nothing : await sideOf(await unpurged(name, from));
      return diffParts(before, await sideOf(await unpurged(name, to)));
    },

    putVar(name, key, value, options) {
      const change = async (current: Bundle | null) => {
        if (!current) throw notFound('unknown_bundle', 'there is no such bundle; PUT a part to create it');
        const { order, parts } = current.latest;
        return { content: { order, parts, vars: withVar(current.latest.vars, key, value) }, bodies: new Map(), findings: [] };
      };
      return write(name, options, bundleEtag, change, value === undefined ? { varRemoved: key } : { var: key });
    },

    async putTag(name, tag, number, { dryRun = false, ...consent }) {
      checkName('tag', tag);
      return gate.inTurn(async () => {
        const memory: Memory = new Map();
        for (let attempt = 1; ; attempt++) {
          const revision = await unpurged(name, number);
          const bundle = await get(name);
          if (bundle.tags[tag] === number) return { created: false, changed: false, findings: [] };
          const whatIf = async () => ({ revision: await documents.compile(`${name}@${number}`, revision, new Map()) });
          const publication = { bundle: name, reference: `${name}@${tag}`, whatIf };
          const { findings, sight, detail } = await gate.pass(publication, consent, memory);
          if (dryRun) return { created: bundle.tags[tag] === undefined, changed: true, findings };
          try {
            const change = { at: clock(), by: consent.by, sight, detail };
            return { ...(await store.putTag(name, tag, number, change)), findings };
          } catch (error) {
            if (attempt >= ATTEMPTS || !(error instanceof BootbundleError) || error.code !== 'changed_meanwhile') throw error;
          }
        }
      });
    },

    async deleteTag(name, tag, by) {
      checkName('bundle', name);
      checkName('tag', tag);
      await store.deleteTag(name, tag, { at: clock(), by });
    },

    async etag(name, filename) {
      checkName('bundle', name);
      if (filename !== undefined) checkPartName(filename);
      const bundle = await living(name);
      return filename === undefined ? bundleEtag(bundle) : partEtag(filename)(bundle);
    },
  };
}

function asBundle(before: Bundle | null, latest: Revision): Bundle {
  return {
    name: latest.bundle,
    createdAt: before?.createdAt ?? latest.createdAt,
    retiredAt: null,
    latest,
    tags: before?.tags ?? {},
    secretsVersion: before?.secretsVersion ?? 0,
  };
}

function findPart(bundle: Bundle | null, filename: string): Part | undefined {
  return bundle?.latest.parts.find((part) => part.filename === filename);
}

/** What a write comes to. */
interface Change {
  content: RevisionContent;
  bodies: Map<string, Uint8Array>;
  findings: Finding[];
  schema?: string | null;
}

/** A bundle's content with an upload laid over it; `current` null: the upload is all there is. */
async function mergeUpload(current: Bundle | null, upload: BundleUpload, schemas: Schemas, pause: Pause): Promise<Change> {
  const order: PartOrder = upload.order ?? current?.latest.order ?? 'name';
  const vars: JsonObject = upload.vars ?? current?.latest.vars ?? {};
  const parts = new Map((current?.latest.parts ?? []).map((part) => [part.filename, part]));
  const bodies = new Map<string, Uint8Array>();
  const findings: Finding[] = [];
  let schema: string | null = null;
  for (const sent of upload.parts) {
    const judged = await judgePart(sent, parts.get(sent.filename), schemas, pause);
    refuseErrors(judged.findings);
    parts.set(sent.filename, judged.part);
    bodies.set(judged.part.sha256, sent.body);
    findings.push(...judged.findings);
    schema ??= judged.schema;
  }
  return { content: { order, vars, parts: arrangeParts(order, [...parts.values()]) }, bodies, findings, schema };
}

/** Vars with one of them set, or (undefined) removed. @throws invalid `bad_var_name`; not_found `unknown_var`; too_large `var_too_large` */
export function withVar(vars: JsonObject, key: string, value: Json | undefined): JsonObject {
  if (!/^[A-Za-z_][A-Za-z0-9_.-]{0,62}$/.test(key) || key === '__proto__')
    throw invalid('bad_var_name', 'the name of a var has 1 to 63 of A-Z a-z 0-9 _ . - and begins with a letter or _');
  const changed = new Map(Object.entries(vars));
  if (value !== undefined) changed.set(key, value);
  else if (!changed.delete(key)) throw notFound('unknown_var', 'there is no such var');
  return Object.fromEntries(changed);
}

function checkSize({ parts, vars }: RevisionContent): void {
  if (parts.length > LIMITS.partsPerBundle)
    throw tooLarge('too_many_parts', `a bundle has at most ${LIMITS.partsPerBundle} parts: use a second bundle`);
  const bytes = parts.reduce((sum, { size }) => sum + size, 0);
  if (bytes > LIMITS.bundleBytes)
    throw tooLarge('bundle_too_large', `the parts have ${bytes} bytes together; a bundle has at most ${LIMITS.bundleBytes}`);
  if (Buffer.byteLength(JSON.stringify(vars)) > LIMITS.varsBytes)
    throw tooLarge('vars_too_large', `vars have at most ${LIMITS.varsBytes} bytes as JSON`);
}

async function bodyOf(store: Store, { sha256, filename }: Part): Promise<Uint8Array> {
  const body = await store.findBody(sha256);
  if (!body) throw new Error(`the body of ${filename} is not in the database`);
  return body;
}

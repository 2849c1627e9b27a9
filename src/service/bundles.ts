import { scheduler } from 'node:timers/promises';
import {
  arrangeParts,
  type Bundle,
  type Part,
  type PartOrder,
  type Revision,
  type RevisionContent,
  revisionDigest,
  sha256,
} from '../domain/bundle.ts';
import { BootbundleError, conflict, invalid, notFound, tooLarge } from '../domain/errors.ts';
import { type Finding, refuseErrors } from '../domain/finding.ts';
import type { JsonObject } from '../domain/json.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName, checkPartName } from '../domain/names.ts';
import { checkPreconditions, type Preconditions } from '../domain/precondition.ts';
import type { BundleSummary, BundleUse, Page, Store } from '../domain/store.ts';
import type { BundleUpload, PartUpload } from '../domain/upload.ts';
import { inspectCloudConfig } from '../inspect/cloud-config.ts';
import { inspectManifest } from '../inspect/kube.ts';
import { checkMerge, mergeFindings } from '../inspect/merge.ts';
import { sniff } from '../inspect/sniff.ts';
import type { DocumentService } from './documents.ts';
import { checkFollowers } from './followers.ts';
import type { Actor } from './keys.ts';

/** Circumstances of a write. */
export interface WriteOptions {
  actor: Actor;
  preconditions?: Preconditions;
  /** Answer what would happen, and change nothing. */
  dryRun?: boolean;
}

export interface BundleWritten {
  bundle: Bundle;
  created: boolean;
  changed: boolean;
  findings: Finding[];
}

/** How often a write is computed anew because somebody else was quicker. */
const ATTEMPTS = 20;

export interface BundleService {
  /** The living bundle. @throws not_found `unknown_bundle` */
  get(name: string): Promise<Bundle>;
  list(page: Page<string>, filter: { retired: boolean }): Promise<BundleSummary[]>;
  uses(name: string): Promise<{ uses: BundleUse[]; total: number }>;
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
  /** @throws would_break, as every write; not_found `unknown_bundle`, `unknown_revision` */
  putTag(name: string, tag: string, revision: number): Promise<{ created: boolean; changed: boolean; findings: Finding[] }>;
  deleteTag(name: string, tag: string): Promise<void>;
  /** Entity tag of a bundle, of a part; null where there is none. For conditions that are decided before a body is read. */
  etag(name: string, filename?: string): Promise<string | null>;
}

export function createBundleService(deps: { store: Store; documents: DocumentService; clock: () => number }): BundleService {
  const { store, documents, clock } = deps;
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

  /** Read, compute, compare-and-set: `change` gets the living bundle's newest content (or null) and says the next. */
  async function write(
    name: string,
    { actor, preconditions = {}, dryRun = false }: WriteOptions,
    etagOf: (bundle: Bundle | null) => string | null,
    change: (current: Bundle | null) => Promise<Change>,
  ): Promise<BundleWritten> {
    checkName('bundle', name);
    for (let attempt = 1; ; attempt++) {
      const current = await living(name);
      checkPreconditions(etagOf(current), preconditions);
      const { content, bodies, findings } = await change(current);
      checkSize(content);
      const digest = revisionDigest(content);
      if (current?.latest.digest === digest) return { bundle: current, created: false, changed: false, findings };
      const number = ((current ?? (await store.findBundle(name)))?.latest.number ?? 0) + 1;
      if (current) {
        const compile = () => documents.compile(`${name}@${number}`, content, bodies);
        findings.push(...(await checkFollowers(deps, { bundle: name, reference: name }, compile)));
      }
      const at = clock();
      if (dryRun) {
        const next = { ...content, bundle: name, digest, createdAt: at, author: actor.name };
        return { bundle: asBundle(current, { ...next, number }), created: !current, changed: true, findings };
      }
      try {
        const base = current?.latest.number ?? null;
        const revision = await store.putRevision({ bundle: name, base, content, digest, bodies, at, author: actor.name });
        return { bundle: asBundle(current, revision), created: !current, changed: true, findings };
      } catch (error) {
        if (attempt >= ATTEMPTS || !(error instanceof BootbundleError) || error.code !== 'changed_meanwhile') throw error;
      }
    }
  }

  const bundleEtag = (bundle: Bundle | null) => bundle?.latest.digest ?? null;
  const partEtag = (filename: string) => (bundle: Bundle | null) => findPart(bundle, filename)?.sha256 ?? null;

  return {
    get,
    list: (page, filter) => store.listBundles(page, filter),
    uses: (name) => store.listBundleUses(name, LIMITS.pageDefault),

    async putPart(name, upload, options) {
      checkPartName(upload.filename);
      let partCreated = false;
      const written = await write(name, options, partEtag(upload.filename), (current) => {
        partCreated = !findPart(current, upload.filename);
        return mergeUpload(current, { parts: [upload] });
      });
      const part = findPart(written.bundle, upload.filename);
      if (!part) throw new Error('the part just written is not in its revision');
      return { ...written, part, partCreated };
    },

    put: (name, upload, options) => write(name, options, bundleEtag, () => mergeUpload(null, upload)),
    addParts: (name, upload, options) => write(name, options, bundleEtag, (current) => mergeUpload(current, upload)),

    async deletePart(name, filename, options) {
      checkPartName(filename);
      return write(name, options, partEtag(filename), async (current) => {
        if (!current) throw notFound('unknown_bundle', 'there is no such bundle');
        if (!findPart(current, filename)) throw notFound('unknown_part', 'the bundle has no such part');
        const { order, vars, parts } = current.latest;
        const content = { order, vars, parts: parts.filter((part) => part.filename !== filename) };
        return { content, bodies: new Map(), findings: [] };
      });
    },

    async delete(name, { preconditions = {}, dryRun = false }) {
      for (let attempt = 1; ; attempt++) {
        const bundle = await get(name);
        checkPreconditions(bundleEtag(bundle), preconditions);
        if (dryRun) {
          const { uses, total } = await store.listBundleUses(name, 10);
          if (total > 0) throw conflict('in_use', `${uses.map(({ instance }) => instance).join(', ')} refer to it`);
          return;
        }
        try {
          return await store.retireBundle(name, { base: bundle.latest.number, at: clock() });
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

    async putTag(name, tag, revision) {
      checkName('bundle', name);
      checkName('tag', tag);
      const next = await store.findRevision(name, revision);
      const compile = (content: RevisionContent) => documents.compile(`${name}@${revision}`, content, new Map());
      const followers = { bundle: name, reference: `${name}@${tag}` };
      // The store says what is wrong with a revision that is not there.
      const findings = next ? await checkFollowers(deps, followers, () => compile(next)) : [];
      return { ...(await store.putTag(name, tag, revision, clock())), findings };
    },

    async deleteTag(name, tag) {
      checkName('bundle', name);
      checkName('tag', tag);
      await store.deleteTag(name, tag);
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
}

/** A bundle's content with an upload laid over it; `current` null: the upload is all there is. */
async function mergeUpload(current: Bundle | null, upload: BundleUpload): Promise<Change> {
  const order: PartOrder = upload.order ?? current?.latest.order ?? 'name';
  const vars: JsonObject = upload.vars ?? current?.latest.vars ?? {};
  const parts = new Map((current?.latest.parts ?? []).map((part) => [part.filename, part]));
  const bodies = new Map<string, Uint8Array>();
  const findings: Finding[] = [];
  for (const sent of upload.parts) {
    // Reading a large manifest takes a while; boot fetches get their turn between two.
    await scheduler.yield();
    const built = namingPart(sent.filename, () => buildPart(sent, parts.get(sent.filename)));
    parts.set(sent.filename, built.part);
    bodies.set(built.part.sha256, sent.body);
    findings.push(...built.findings);
  }
  return { content: { order, vars, parts: arrangeParts(order, [...parts.values()]) }, bodies, findings };
}

/** Of many parts the error must say which. */
function namingPart<T>(filename: string, build: () => T): T {
  try {
    return build();
  } catch (error) {
    if (!(error instanceof BootbundleError) || error.message.startsWith(`${filename}: `)) throw error;
    const findings = error.findings === undefined ? {} : { findings: error.findings };
    throw new BootbundleError(error.kind, error.code, `${filename}: ${error.message}`, findings);
  }
}

function buildPart(sent: PartUpload, before: Part | undefined): { part: Part; findings: Finding[] } {
  if (sent.template)
    throw invalid('template_unsupported', 'templates are not served yet: leave template out, the part is sent as it is');
  const saidBefore = before?.typeSaid ? before.type : null;
  const {
    type,
    typeSaid,
    findings: remarks,
  } = sniff(sent.filename, sent.body, sent.type === undefined ? saidBefore : sent.type);
  const merge = sent.merge === undefined ? (before?.merge ?? null) : sent.merge === null ? null : checkMerge(sent.merge);
  const part = {
    filename: sent.filename,
    type,
    typeSaid,
    merge,
    template: false,
    size: sent.body.length,
    sha256: sha256(sent.body),
  };
  const findings = [
    ...remarks,
    ...(merge === null ? [] : mergeFindings(sent.filename, merge)),
    ...inspectCloudConfig(sent.filename, type, sent.body),
    ...inspectManifest(sent.filename, type, sent.body),
  ];
  refuseErrors(findings);
  return { part, findings };
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

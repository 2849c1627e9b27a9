import { scheduler } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import { KUBE_BUNDLE, type Part, type RevisionContent, sha256 } from '../domain/bundle.ts';
import { invalid, unavailable } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import type { Instance } from '../domain/instance.ts';
import { LIMITS } from '../domain/limits.ts';
import { formatReference, parseReference } from '../domain/names.ts';
import type { Store } from '../domain/store.ts';
import { inspectKubeVars } from '../inspect/kube-vars.ts';
import { type ConfigSource, findLostValues } from '../inspect/lost-values.ts';
import { statesMergeRule } from '../inspect/merge.ts';
import { handlerTypes } from '../inspect/part-handler.ts';
import { matchPrefix } from '../inspect/sniff.ts';
import { CLOUD_INIT_TYPES } from '../inspect/types.ts';
import { type CompiledPart, compilePart, keepsGivenOrder, type PartRole, renderDocument } from '../render/document.ts';
import type { KeyRing } from './keys.ts';

/** The rendered multipart of one instance at one moment. */
export interface Document {
  bytes: Buffer;
  /** Hex SHA-256 of `bytes`. */
  digest: string;
  parts: { filename: string; type: string; origin: string }[];
  /** What it was rendered from: `web@3`, in order. */
  revisions: string[];
}

/** What of an instance its document depends on. */
export type DocumentOwner = Pick<Instance, 'id' | 'name' | 'generations' | 'bundles' | 'vars'>;

export interface DocumentService {
  /**
   * Renders what a machine would get now.
   * @throws invalid `unknown_bundle` naming references that mean nothing; unavailable when a stored body is missing
   */
  render(instance: DocumentOwner): Promise<Document>;
  /**
   * Renders and inspects it: what cloud-init would pass over or refuse is a finding. A document past the limit is
   * an error finding `document_too_large`.
   */
  inspect(instance: DocumentOwner, replacement?: Replacement): Promise<{ document: Document; findings: Finding[] }>;
  /** Makes a revision ready to be sent before it is stored. `key`: `web@4`; `bodies` by SHA-256, what is missing there is in the store. */
  compile(key: string, content: RevisionContent, bodies: ReadonlyMap<string, Uint8Array>): Promise<Replacement>;
}

/** A revision in the place of the one that references to its bundle mean now. */
export interface Replacement {
  bundle: string;
  /** `web@4` */
  key: string;
  parts: CompiledPart[];
}

/** Memory for compiled revisions; they never change, so they may stay for ever. */
const CACHE_BYTES = 64 * 1024 * 1024;

export function createDocumentService({
  store,
  keys,
  publicUrl,
}: {
  store: Store;
  keys: KeyRing;
  publicUrl: string;
}): DocumentService {
  const rules = { takenTypes: CLOUD_INIT_TYPES, includeRoots: [`${publicUrl}/i/`, `${publicUrl}/s/`] };

  const compiled = new LRUCache<string, CompiledPart[]>({
    maxSize: CACHE_BYTES,
    sizeCalculation: (parts) => parts.reduce((sum, { body }) => sum + body.bytes.length, 1024),
    fetchMethod: (key) => compileRevision(store, key),
  });

  // What the merge loses depends on the revisions alone, and thousands of instances share them.
  const losses = new LRUCache<string, Finding[]>({ max: 1000 });
  function knownMergeLosses(parts: readonly CompiledPart[], revisions: readonly string[]): Finding[] {
    const key = revisions.join(' ');
    const findings = losses.get(key) ?? findMergeLosses(parts);
    losses.set(key, findings);
    return findings;
  }

  const draw = (parts: readonly CompiledPart[], instance: DocumentOwner) =>
    renderDocument(parts, { ...instance, reportUrl: `${publicUrl}/r/${keys.capability('report', instance)}` }, rules);

  async function load(
    instance: Pick<Instance, 'bundles'>,
    replacement?: Replacement,
  ): Promise<{ parts: CompiledPart[]; revisions: string[] }> {
    const references = instance.bundles.map(parseReference);
    const numbers = await store.resolveReferences(references);
    const revisions = references.map((reference, index) => {
      if (reference.bundle === replacement?.bundle) return replacement.key;
      const number = numbers[index];
      if (number === null || number === undefined)
        throw invalid(
          'unknown_bundle',
          `${formatReference(reference)} does not exist: upload the bundle (or set the tag) first`,
        );
      return `${reference.bundle}@${number}`;
    });
    const parts: CompiledPart[] = [];
    let size = 0;
    for (const revision of revisions) {
      const found =
        revision === replacement?.key
          ? replacement.parts
          : (compiled.get(revision) ?? (await compiled.fetch(revision)) ?? (await compileRevision(store, revision)));
      parts.push(...found);
      size += found.reduce((sum, { body }) => sum + body.bytes.length, 0);
      // Before it is put together, so that no reference can ask for more memory than there is.
      if (size > LIMITS.servedBytes)
        throw invalid(
          'document_too_large',
          `the document would have over ${LIMITS.servedBytes} bytes; the limit is ${LIMITS.documentBytes}`,
        );
    }
    return { parts, revisions };
  }

  return {
    async render(instance) {
      const { parts, revisions } = await load(instance);
      const { bytes, parts: sent } = draw(parts, instance);
      return { bytes, digest: sha256(bytes), parts: sent, revisions };
    },

    async inspect(instance, replacement) {
      const { parts, revisions } = await load(instance, replacement);
      const { bytes, parts: sent, findings } = draw(parts, instance);
      const document = { bytes, digest: sha256(bytes), parts: sent, revisions };
      // A revision that may never be stored must not be remembered under its number.
      const merge = replacement ? findMergeLosses(parts) : knownMergeLosses(parts, revisions);
      // Another handler may heed other keys of it.
      const kube = instance.bundles.some((text) => parseReference(text).bundle === KUBE_BUNDLE);
      findings.push(...merge, ...(kube ? inspectKubeVars(instance.vars.kube) : []));
      if (bytes.length > LIMITS.documentBytes)
        findings.push({
          severity: 'error',
          code: 'document_too_large',
          message: `the document would have ${bytes.length} bytes; the limit is ${LIMITS.documentBytes}`,
        });
      return { document, findings };
    },

    async compile(key, content, bodies) {
      const parts = await compileContent(key, content, async (sha256) => bodies.get(sha256) ?? store.findBody(sha256));
      return { bundle: key.split('@')[0] ?? '', key, parts };
    },
  };
}

function findMergeLosses(parts: readonly CompiledPart[]): Finding[] {
  return findLostValues(configSources(parts), keepsGivenOrder(parts) ? 'given' : 'reverse');
}

async function compileRevision(store: Store, key: string): Promise<CompiledPart[]> {
  const [bundle = '', number = ''] = key.split('@');
  const revision = await store.findRevision(bundle, Number(number));
  if (!revision) throw unavailable('revision_missing', `revision ${key} is not in the database`);
  return compileContent(key, revision, (sha256) => store.findBody(sha256));
}

async function compileContent(
  key: string,
  content: RevisionContent,
  bodyOf: (sha256: string) => Promise<Uint8Array | null>,
): Promise<CompiledPart[]> {
  const parts: CompiledPart[] = [];
  for (const part of content.parts) {
    // Reading a part handler takes a while; others get their turn between two.
    await scheduler.yield();
    const body = await bodyOf(part.sha256);
    if (!body) throw unavailable('body_missing', `the body of ${key}/${part.filename} is not in the database`);
    const { filename, type, merge } = part;
    parts.push(compilePart({ filename, type, merge, role: await roleOf(part, body), origin: `${key}/${filename}` }, body));
  }
  return parts;
}

/** What cloud-init will do with a part, read from its type and, where that matters, its content. */
async function roleOf({ type }: Pick<Part, 'type'>, body: Uint8Array): Promise<PartRole> {
  const text = () => Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  switch (type) {
    case 'text/part-handler':
      return { kind: 'handler', handles: await handlerTypes(text()) };
    case 'text/cloud-config':
      return { kind: 'config', statesRule: statesMergeRule(text()) };
    case 'text/cloud-config-archive':
    case 'text/cloud-config-jsonp':
      // An archive's own parts and a JSON patch mean something only after what was given before them.
      return { kind: 'config', statesRule: true };
    case 'text/jinja2': {
      // cloud-init renders it and hands the rest to the handler of the type its next line names (handlers/jinja_template.py).
      const rest = text()
        .trimStart()
        .replace(/^[^\n]*\n/, '');
      return matchPrefix(rest) === 'text/cloud-config'
        ? { kind: 'config', statesRule: statesMergeRule(rest) }
        : { kind: 'other' };
    }
    case 'text/x-include-url':
    case 'text/x-include-once-url':
      return { kind: 'include', urls: includeUrls(text()) };
    default:
      return { kind: 'other' };
  }
}

/** The URLs an include names: one in a line, after the mark too; other lines with a # are comments (user_data.py, _do_include). */
function includeUrls(text: string): string[] {
  return text
    .split(/[\r\n]+/)
    .map((line) => line.replace(/^#include(?:-once)?/i, '').trim())
    .filter((line) => URL.canParse(line));
}

function configSources(parts: readonly CompiledPart[]): ConfigSource[] {
  return parts
    .filter(({ type }) => type === 'text/cloud-config')
    .map(({ origin, role, merge, body }) => ({
      origin,
      text:
        body.encoding === '7bit'
          ? body.bytes.toString('latin1')
          : Buffer.from(body.bytes.toString('latin1'), 'base64').toString('utf8'),
      statesRule: merge !== null || (role.kind === 'config' && role.statesRule),
    }));
}

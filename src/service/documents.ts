import { scheduler } from 'node:timers/promises';
import { LRUCache } from 'lru-cache';
import type { Expectations } from '../domain/boot.ts';
import { KUBE_BUNDLE, type Part, type RevisionContent, sha256 } from '../domain/bundle.ts';
import { BootbundleError, invalid, unavailable } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import type { Instance } from '../domain/instance.ts';
import { type JsonObject, mergeJson } from '../domain/json.ts';
import { LIMITS } from '../domain/limits.ts';
import { formatReference, parseReference } from '../domain/names.ts';
import type { SecretOwner } from '../domain/secret.ts';
import type { Meaning, Sight, Store } from '../domain/store.ts';
import { inspectKubeVars } from '../inspect/kube-vars.ts';
import { type ConfigSource, findLostValues } from '../inspect/lost-values.ts';
import { statesMergeRule } from '../inspect/merge.ts';
import { inspectRendering, isJudgedBySchema } from '../inspect/part.ts';
import { handlerTypes } from '../inspect/part-handler.ts';
import type { Schemas } from '../inspect/schema.ts';
import { matchPrefix } from '../inspect/sniff.ts';
import { CLOUD_INIT_TYPES } from '../inspect/types.ts';
import {
  type CompiledPart,
  compilePart,
  keepsGivenOrder,
  type PartRole,
  type RenderedDocument,
  renderDocument,
} from '../render/document.ts';
import { decodeBody, readableBody } from '../render/mime.ts';
import { parseTemplate, renderTemplate, type Template, type TemplateContext } from '../render/template.ts';
import type { KeyRing } from './keys.ts';

/** The rendered multipart of one instance at one moment. */
export interface Document {
  bytes: Buffer;
  /** Hex SHA-256 of `bytes`. */
  digest: string;
  /** What was sent, in the order in which it was sent; `filename` is the name on the wire. */
  parts: { filename: string; type: string; origin: string }[];
  /** What it was rendered from: `web@3`, in order. */
  revisions: string[];
  /** Whether secrets are in it. */
  holdsSecrets: boolean;
  /** The secrets' version of each bundle whose templates use secrets, by bundle. */
  secretsVersions: Record<string, number>;
  /** What it makes a machine say, if all goes well. */
  expects: Expectations;
}

/** A document as a person reads it. */
export type Preview = Pick<Document, 'bytes' | 'digest' | 'parts' | 'revisions'>;

/** What of an instance its document depends on. */
export type DocumentOwner = Pick<Instance, 'id' | 'name' | 'generations' | 'bundles' | 'vars' | 'labels' | 'track'>;

/** A part whose bytes come to be for each machine. */
export interface TemplatePart {
  filename: string;
  type: string;
  merge: string | null;
  origin: string;
  template: Template;
  /** Of its source, bytes. */
  size: number;
}

/** A revision made ready to be sent: its plain parts are encoded, its templates parsed. Immutable, so it may be kept for ever. */
export interface CompiledRevision {
  bundle: string;
  /** `web@4` */
  key: string;
  /** Defaults for its templates. */
  vars: JsonObject;
  parts: readonly (CompiledPart | TemplatePart)[];
  /** Of all parts, bytes; of a template its source's. */
  size: number;
  hasTemplates: boolean;
  usesSecrets: boolean;
}

/** Values of secrets by name. */
export type SecretValues = ReadonlyMap<string, Uint8Array>;

/** What would be otherwise, if a change under trial were made. */
export interface WhatIf {
  /** A revision in the place of the one that references to its bundle mean now. */
  revision?: CompiledRevision;
  /** Changes of one owner's secrets; null removes. */
  secrets?: { owner: SecretOwner; changes: ReadonlyMap<string, Uint8Array | null> };
}

/** What bundles and secrets are at one moment, read once for as many machines as are looked at. */
export interface Scene {
  /** What each reference that was followed meant. */
  meanings: Map<string, Meaning | null>;
  revisions: Map<string, CompiledRevision>;
  secrets: Map<string, SecretValues>;
}

/** A document with what is to be said of it. */
export interface Inspected {
  /** Null when it cannot be rendered: the findings say why. */
  document: Document | null;
  findings: Finding[];
  /** Which schema judged renderings of its templates; null when none had to. */
  schema: string | null;
}

/** How a part of a document reads, with placeholders in the secrets' places; `key` is `web/a.sh`. */
export interface ReadablePart {
  key: string;
  origin: string;
  type: string;
  body: Buffer;
}

/** A moment past, as far as a document hangs on it. */
export interface Past {
  /** The instance's version then: its own secrets are those of it. */
  version: number;
  /** By bundle. */
  secretsVersions: Readonly<Record<string, number>>;
  /** Where the machine was to report to. */
  reportUrl: string;
}

export interface DocumentService {
  /**
   * Renders what a machine would get now.
   * @throws invalid `unknown_bundle` naming references that mean nothing; unavailable when a stored body or secret cannot be read
   */
  render(instance: DocumentOwner): Promise<Document>;
  /**
   * Renders what a machine got once. `instance` is as it was then, and its references are pinned (`web@3`); retired bundles' revisions are as good.
   * @throws as render; unavailable `revision_purged`
   */
  renderAt(instance: DocumentOwner, past: Past): Promise<Document>;
  /**
   * The same with `‹secret:name›` in the secrets' places. `readable`: every text as it reads instead of encoded, for a person; `masked`: with
   * `<hidden>` in the place of its capability, for whoever may not speak in its name.
   */
  preview(instance: DocumentOwner, options: { readable: boolean; masked: boolean }): Promise<Preview>;
  /** The parts of a preview, in order. */
  read(instance: DocumentOwner): Promise<ReadablePart[]>;
  /** Whether what the machine gets depends on secrets, without rendering it. */
  holdsSecrets(instance: DocumentOwner): Promise<boolean>;
  /** Reads what these machines' documents hang on; `into` adds to a scene, in which what was read stays as it was. */
  scene(instances: readonly DocumentOwner[], whatIf?: WhatIf, into?: Scene): Promise<Scene>;
  /**
   * Renders with real values and inspects: what cloud-init would pass over or refuse is a finding. A template gets LIMITS.templateTrialMs.
   * @throws unavailable when a stored body or secret cannot be read
   */
  inspect(instance: DocumentOwner, scene: Scene, whatIf?: WhatIf): Promise<Inspected>;
  /** Makes a revision ready to be sent before it is stored. `key`: `web@4`; `bodies` by SHA-256, what is missing there is in the store. */
  compile(key: string, content: RevisionContent, bodies: ReadonlyMap<string, Uint8Array>): Promise<CompiledRevision>;
}

/** Memory for compiled revisions. */
const CACHE_BYTES = 64 * 1024 * 1024;
/** So many renderings' findings are remembered: many machines' are alike. */
const REMEMBERED = 10_000;
/** So many losses of merges: they depend on the revisions alone, and thousands of instances share them. */
const REMEMBERED_LOSSES = 1000;

/** A document with what there is to say of it. */
function documentOf(
  { bytes, parts, expects }: RenderedDocument,
  instance: DocumentOwner,
  revisions: readonly CompiledRevision[],
  { meanings }: Scene,
): Document {
  const using = instance.bundles.filter((_, index) => revisions[index]?.usesSecrets);
  const versions = using.map((text) => [parseReference(text).bundle, meanings.get(text)?.secretsVersion ?? 0] as const);
  return {
    bytes,
    digest: sha256(bytes),
    parts,
    revisions: revisions.map(({ key }) => key),
    holdsSecrets: using.length > 0,
    secretsVersions: Object.fromEntries(versions),
    expects,
  };
}

export function createDocumentService({
  store,
  keys,
  publicUrl,
  schemas,
}: {
  store: Store;
  keys: KeyRing;
  publicUrl: string;
  /** What judges cloud-configs now. */
  schemas: () => Promise<Schemas>;
}): DocumentService {
  const rules = { takenTypes: CLOUD_INIT_TYPES, includeRoots: [`${publicUrl}/i/`, `${publicUrl}/s/`] };

  const compiled = new LRUCache<string, CompiledRevision>({
    maxSize: CACHE_BYTES,
    sizeCalculation: ({ size }) => size + 1024,
    fetchMethod: (key) => compileRevision(store, key),
  });
  const remarks = new LRUCache<string, Finding[]>({ max: REMEMBERED });
  const losses = new LRUCache<string, Finding[]>({ max: REMEMBERED_LOSSES });

  const reportUrlOf = (instance: DocumentOwner) => `${publicUrl}/r/${keys.capability('report', instance)}`;
  /** ASCII, so that what it stands in reads the same in a preview. */
  const maskedUrl = `${publicUrl}/r/<hidden>`;
  const draw = (parts: readonly CompiledPart[], instance: DocumentOwner, reportUrl = reportUrlOf(instance)) =>
    renderDocument(parts, { ...instance, reportUrl }, rules);

  async function readScene(instances: readonly DocumentOwner[], whatIf: WhatIf = {}, into?: Scene): Promise<Scene> {
    const scene = into ?? { meanings: new Map(), revisions: new Map(), secrets: new Map() };
    const unread = [...new Set(instances.flatMap(({ bundles }) => bundles))].filter((text) => !scene.meanings.has(text));
    const meanings = await store.resolveReferences(unread.map(parseReference));
    for (const [index, text] of unread.entries()) scene.meanings.set(text, meanings[index] ?? null);
    for (const { bundles } of instances) await readRevisions(scene, bundles);
    await readSecrets(scene, instances, whatIf);
    return scene;
  }

  /** No more of them than a document can hold, so that no instance can ask for more memory than there is. */
  async function readRevisions(scene: Scene, bundles: readonly string[]): Promise<void> {
    let size = 0;
    for (const text of bundles) {
      const meaning = scene.meanings.get(text);
      if (!meaning) continue;
      const key = `${parseReference(text).bundle}@${meaning.revision}`;
      const revision =
        scene.revisions.get(text) ?? compiled.get(key) ?? (await compiled.fetch(key)) ?? (await compileRevision(store, key));
      scene.revisions.set(text, revision);
      size += revision.size;
      if (size > LIMITS.servedBytes) return;
    }
  }

  /** What a document's making hung on, from what is kept of it. */
  async function readPast(instance: DocumentOwner, { version, secretsVersions }: Past): Promise<Scene> {
    const scene: Scene = { meanings: new Map(), revisions: new Map(), secrets: new Map() };
    const versions = new Map(Object.entries(secretsVersions));
    for (const text of instance.bundles) {
      const { bundle, revision } = parseReference(text);
      if (revision === null) throw new Error(`${text} is not pinned`);
      scene.meanings.set(text, { revision, secretsVersion: versions.get(bundle) ?? 0 });
    }
    await readRevisions(scene, instance.bundles);
    await readSecrets(scene, [instance], {}, version);
    return scene;
  }

  /**
   * Only where templates want them. A bundle's are read at the version that its reference meant, so that they are what the document says of itself
   * also when somebody changes one meanwhile; an instance's own at `version`, or (null) as they are now.
   */
  async function readSecrets(
    scene: Scene,
    instances: readonly DocumentOwner[],
    whatIf: WhatIf,
    version: number | null = null,
  ): Promise<void> {
    const owners = new Map<string, SecretOwner & { version: number | null }>();
    for (const { name, bundles } of instances)
      for (const text of bundles) {
        const bundle = parseReference(text).bundle;
        if (!scene.revisions.get(text)?.usesSecrets && !(whatIf.revision?.bundle === bundle && whatIf.revision.usesSecrets))
          continue;
        for (const owner of [
          { kind: 'bundle' as const, name: bundle, version: scene.meanings.get(text)?.secretsVersion ?? null },
          { kind: 'instance' as const, name, version },
        ])
          if (!scene.secrets.has(ownerKey(owner))) owners.set(ownerKey(owner), owner);
      }
    const wanted = [...owners.values()];
    if (wanted.length === 0) return;
    const found = await store.findSecretsAt(wanted);
    for (const [index, owner] of wanted.entries()) {
      const values = new Map<string, Uint8Array>();
      for (const { name, sealed } of found[index] ?? []) values.set(name, keys.openSecret(owner, name, sealed));
      scene.secrets.set(ownerKey(owner), values);
    }
  }

  /** The revisions of a machine in order. @throws invalid `unknown_bundle`, `document_too_large` */
  function revisionsOf(instance: DocumentOwner, scene: Scene, whatIf: WhatIf = {}): CompiledRevision[] {
    let size = 0;
    return instance.bundles.map((text) => {
      const reference = parseReference(text);
      const revision = reference.bundle === whatIf.revision?.bundle ? whatIf.revision : scene.revisions.get(text);
      if (!revision)
        throw invalid(
          'unknown_bundle',
          `${formatReference(reference)} does not exist: upload the bundle (or set the tag) first`,
        );
      size += revision.size;
      if (size > LIMITS.servedBytes) throw tooLargeToServe();
      return revision;
    });
  }

  /** Fills a revision's templates in; one that comes out blank leaves its part out. */
  async function fill(
    revision: CompiledRevision,
    context: TemplateContext,
    milliseconds: number,
    onText?: (part: TemplatePart, text: string) => Promise<void>,
  ): Promise<CompiledPart[]> {
    const parts: CompiledPart[] = [];
    for (const part of revision.parts) {
      if (!('template' in part)) {
        parts.push(part);
        continue;
      }
      const text = namingPart(part.origin, () =>
        renderTemplate(part.template, context, { milliseconds, bytes: LIMITS.templateBytes }),
      );
      if (text.trim() === '') continue;
      await onText?.(part, text);
      parts.push(await compileBody(part, Buffer.from(text)));
    }
    return parts;
  }

  function contextOf(instance: DocumentOwner, revision: CompiledRevision, scene: Scene, whatIf: WhatIf = {}): TemplateContext {
    const secretsOf = (owner: SecretOwner) => {
      const values = scene.secrets.get(ownerKey(owner)) ?? new Map<string, Uint8Array>();
      const { secrets } = whatIf;
      if (!secrets || ownerKey(secrets.owner) !== ownerKey(owner)) return [...values];
      const changed = new Map<string, Uint8Array | null>([...values, ...secrets.changes]);
      return [...changed].filter((entry): entry is [string, Uint8Array] => entry[1] !== null);
    };
    const { id, name, labels, vars } = instance;
    return {
      instance: { id, name },
      vars: mergeJson(revision.vars, vars),
      labels,
      secrets: new Map([...secretsOf({ kind: 'bundle', name: revision.bundle }), ...secretsOf({ kind: 'instance', name })]),
    };
  }

  async function renderScene(instance: DocumentOwner, scene: Scene, reportUrl: string): Promise<Document> {
    const revisions = revisionsOf(instance, scene);
    const parts: CompiledPart[] = [];
    for (const revision of revisions)
      parts.push(
        ...(await fill(revision, contextOf(instance, revision, scene), revision.hasTemplates ? LIMITS.templateFetchMs : 0)),
      );
    if (parts.reduce((sum, part) => sum + weightOf(part), 0) > LIMITS.servedBytes) throw tooLargeToServe();
    return documentOf(draw(parts, instance, reportUrl), instance, revisions, scene);
  }

  async function veiled(instance: DocumentOwner): Promise<{ parts: CompiledPart[]; revisions: string[] }> {
    const scene = await readScene([instance]);
    const revisions = revisionsOf(instance, scene);
    const parts: CompiledPart[] = [];
    for (const revision of revisions)
      parts.push(...(await fill(revision, veil(contextOf(instance, revision, scene)), LIMITS.templateFetchMs)));
    return { parts, revisions: revisions.map(({ key }) => key) };
  }

  /** What is wrong with what a template came to; told so that no secret is quoted. */
  async function inspectText(part: TemplatePart, text: string, context: TemplateContext): Promise<Finding[]> {
    const schema = await schemas();
    const judge = async (body: Buffer) => {
      const key = sha256(`${schema?.source ?? JSON.stringify(schema)}\n${part.origin}\n${part.type}\n${sha256(body)}`);
      const findings =
        remarks.get(key) ??
        (await inspectRendering(part.origin, part.filename, part.type, body, schema, () => scheduler.yield()));
      remarks.set(key, findings);
      return findings;
    };
    const findings = await judge(Buffer.from(text));
    if (findings.length === 0 || !part.template.usesSecrets) return findings;
    const limits = { milliseconds: LIMITS.templateTrialMs, bytes: LIMITS.templateBytes };
    return withoutSecrets(findings, () => judge(Buffer.from(renderTemplate(part.template, veil(context), limits))));
  }

  return {
    render: async (instance) => renderScene(instance, await readScene([instance]), reportUrlOf(instance)),
    renderAt: async (instance, past) => renderScene(instance, await readPast(instance, past), past.reportUrl),

    async preview(instance, { readable, masked }) {
      const { parts, revisions } = await veiled(instance);
      const shown = readable ? parts.map((part) => ({ ...part, body: readableBody(part.body) })) : parts;
      const { bytes, parts: sent } = draw(shown, instance, masked ? maskedUrl : undefined);
      return { bytes, digest: sha256(bytes), parts: sent, revisions };
    },

    async read(instance) {
      const { parts } = await veiled(instance);
      return parts.map(({ origin, type, body }) => ({
        key: origin.replace(/@\d+\//, '/'),
        origin,
        type,
        body: decodeBody(body),
      }));
    },

    holdsSecrets: async (instance) => usesSecrets(instance, await readScene([instance])),

    scene: readScene,

    async inspect(instance, scene, whatIf = {}) {
      const findings: Finding[] = [];
      let revisions: CompiledRevision[];
      try {
        revisions = revisionsOf(instance, scene, whatIf);
      } catch (error) {
        return { document: null, findings: findingsOf(error), schema: null };
      }
      const parts: CompiledPart[] = [];
      const templates = new Set<string>();
      let complete = true;
      for (const revision of revisions) {
        const context = contextOf(instance, revision, scene, whatIf);
        const inspectEach = async (part: TemplatePart, text: string) => {
          templates.add(part.origin);
          findings.push(...(await inspectText(part, text, context)));
        };
        try {
          parts.push(...(await fill(revision, context, LIMITS.templateTrialMs, inspectEach)));
        } catch (error) {
          findings.push(...findingsOf(error));
          complete = false;
        }
      }
      const judged = parts.some(({ type, origin }) => isJudgedBySchema(type) && templates.has(origin));
      const schema = judged ? ((await schemas())?.source ?? null) : null;
      if (!complete) return { document: null, findings, schema };

      const drawn = draw(parts, instance);
      const whole = [...drawn.findings, ...(await lossesOf(parts, revisions, whatIf))];
      const secretive = revisions.some(({ usesSecrets }) => usesSecrets);
      findings.push(
        ...(secretive ? await withoutSecrets(whole, () => blindRemarks(instance, revisions, scene, whatIf)) : whole),
      );
      // Another handler may heed other keys of it.
      if (instance.bundles.some((text) => parseReference(text).bundle === KUBE_BUNDLE))
        findings.push(...inspectKubeVars(instance.vars.kube));
      if (drawn.bytes.length > LIMITS.documentBytes)
        findings.push({
          severity: 'error',
          code: 'document_too_large',
          message: `the document would have ${drawn.bytes.length} bytes; the limit is ${LIMITS.documentBytes}`,
        });
      return { document: documentOf(drawn, instance, revisions, scene), findings, schema };
    },

    compile: (key, content, bodies) =>
      compileContent(key, content, async (sha256) => bodies.get(sha256) ?? store.findBody(sha256)),
  };

  /** What is said of the whole document with placeholders in the secrets' places. */
  async function blindRemarks(
    instance: DocumentOwner,
    revisions: readonly CompiledRevision[],
    scene: Scene,
    whatIf: WhatIf,
  ): Promise<Finding[]> {
    const parts: CompiledPart[] = [];
    for (const revision of revisions)
      parts.push(...(await fill(revision, veil(contextOf(instance, revision, scene, whatIf)), LIMITS.templateTrialMs)));
    return [...draw(parts, instance).findings, ...(await lossesOf(parts, revisions, whatIf))];
  }

  async function lossesOf(
    parts: readonly CompiledPart[],
    revisions: readonly CompiledRevision[],
    whatIf: WhatIf,
  ): Promise<Finding[]> {
    const order = keepsGivenOrder(parts) ? 'given' : 'reverse';
    const find = () => findLostValues(configSources(parts), order, () => scheduler.yield());
    // A revision that may never be stored must not be remembered under its number, nor one machine's rendering for another's.
    if (whatIf.revision || revisions.some(({ hasTemplates }) => hasTemplates)) return find();
    const key = revisions.map(({ key }) => key).join(' ');
    const findings = losses.get(key) ?? (await find());
    losses.set(key, findings);
    return findings;
  }
}

/** Whether secrets are in a machine's document, as the scene has it. */
export function usesSecrets({ bundles }: Pick<DocumentOwner, 'bundles'>, { revisions }: Scene): boolean {
  return bundles.some((text) => revisions.get(text)?.usesSecrets ?? false);
}

/** What a look with this scene was based on. */
export function sightOf(scene: Scene, followers?: Sight['followers']): Sight {
  const references = new Map([...scene.meanings].filter((entry): entry is [string, Meaning] => entry[1] !== null));
  return followers ? { references, followers } : { references };
}

/** An error of what an operator wrote, as findings. */
function findingsOf(error: unknown): Finding[] {
  if (!(error instanceof BootbundleError) || error.kind !== 'invalid') throw error;
  return error.findings?.length ? [...error.findings] : [{ severity: 'error', code: error.code, message: error.message }];
}

/** An error's findings get the part they are about. */
function namingPart<T>(part: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
    const findings = findingsOf(error).map((finding) => ({ ...finding, part }));
    throw new BootbundleError(error.kind, error.code, `${part}: ${error.message}`, { findings, cause: error });
  }
}

/** What is said without knowing the secrets, too, says nothing of them; any other sentence is kept back. */
async function withoutSecrets(findings: readonly Finding[], blind: () => Promise<Finding[]>): Promise<Finding[]> {
  const innocent = new Set<string>();
  try {
    if (findings.length > 0) for (const { message } of await blind()) innocent.add(message);
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
  }
  return findings.map((finding) =>
    innocent.has(finding.message)
      ? finding
      : { ...finding, message: 'what a template renders to is wrong here; not quoted, since secrets are in it' },
  );
}

/** Placeholders in the secrets' places, put there before anything is rendered. */
function veil(context: TemplateContext): TemplateContext {
  return { ...context, secrets: new Map([...context.secrets.keys()].map((name) => [name, Buffer.from(`‹secret:${name}›`)])) };
}

function ownerKey({ kind, name }: SecretOwner): string {
  return `${kind}/${name}`;
}

function weightOf(part: CompiledPart | TemplatePart): number {
  return 'template' in part ? part.size : part.body.bytes.length;
}

function tooLargeToServe(): BootbundleError {
  return invalid(
    'document_too_large',
    `the document would have over ${LIMITS.servedBytes} bytes; the limit is ${LIMITS.documentBytes}`,
  );
}

async function compileRevision(store: Store, key: string): Promise<CompiledRevision> {
  const [bundle = '', number = ''] = key.split('@');
  const revision = await store.findRevision(bundle, Number(number));
  if (!revision) throw unavailable('revision_missing', `revision ${key} is not in the database`);
  // Purged between the look at what a reference means and this: asked again, it means another one.
  if (revision.purgedAt !== null) throw unavailable('revision_purged', `revision ${key} was purged`);
  return compileContent(key, revision, (sha256) => store.findBody(sha256));
}

async function compileContent(
  key: string,
  content: RevisionContent,
  bodyOf: (sha256: string) => Promise<Uint8Array | null>,
): Promise<CompiledRevision> {
  const parts: (CompiledPart | TemplatePart)[] = [];
  for (const part of content.parts) {
    // Reading a part handler takes a while; others get their turn between two.
    await scheduler.yield();
    const body = await bodyOf(part.sha256);
    if (!body) throw unavailable('body_missing', `the body of ${key}/${part.filename} is not in the database`);
    const { filename, type, merge, size } = part;
    const origin = `${key}/${filename}`;
    if (part.template) {
      const template = namingPart(origin, () => parseTemplate(textOf(body)));
      parts.push({ filename, type, merge, origin, template, size });
    } else parts.push(await compileBody({ filename, type, merge, origin }, body));
  }
  const templates = parts.flatMap((part) => ('template' in part ? [part.template] : []));
  return {
    bundle: key.split('@')[0] ?? '',
    key,
    vars: content.vars,
    parts,
    size: parts.reduce((sum, part) => sum + weightOf(part), 0),
    hasTemplates: templates.length > 0,
    usesSecrets: templates.some(({ usesSecrets }) => usesSecrets),
  };
}

async function compileBody(
  { filename, type, merge, origin }: Pick<CompiledPart, 'filename' | 'type' | 'merge' | 'origin'>,
  body: Uint8Array,
): Promise<CompiledPart> {
  return compilePart({ filename, type, merge, role: await roleOf({ type }, body), origin }, body);
}

/** What cloud-init will do with a part, read from its type and, where that matters, its content. */
async function roleOf({ type }: Pick<Part, 'type'>, body: Uint8Array): Promise<PartRole> {
  const text = () => textOf(body);
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

function textOf(body: Uint8Array): string {
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
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
      text: decodeBody(body).toString('utf8'),
      statesRule: merge !== null || (role.kind === 'config' && role.statesRule),
    }));
}

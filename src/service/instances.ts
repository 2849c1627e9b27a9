import { type Actor, checkInScope, checkReferencesInScope, roleSuffices } from '../domain/actor.ts';
import type { AuditDetail } from '../domain/audit.ts';
import { NO_BOOT } from '../domain/boot.ts';
import { BootbundleError, conflict, forbidden, invalid, malformed, notFound, tooLarge } from '../domain/errors.ts';
import { type Finding, refuseErrors } from '../domain/finding.ts';
import { type Instance, type InstanceSpec, instanceEtag } from '../domain/instance.ts';
import { canonicalJson, type Json, type JsonObject } from '../domain/json.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName, parseReference } from '../domain/names.ts';
import { checkPreconditions, type Preconditions } from '../domain/precondition.ts';
import { checkSecretName, type SecretInfo } from '../domain/secret.ts';
import type { InstanceFilter, InstanceWrite, Page, Store } from '../domain/store.ts';
import { type Explanation, explain } from '../explain/explain.ts';
import { inspectNetworkConfig } from '../inspect/cloud-config.ts';
import type { SchemaSet } from '../inspect/schema.ts';
import { withVar } from './bundles.ts';
import { diffParts, type Side } from './diff.ts';
import { type Document, type DocumentOwner, type DocumentService, type Preview, type Scene, sightOf } from './documents.ts';
import type { KeyRing } from './keys.ts';
import { checkSecretValue, sealNew } from './secrets.ts';
import type { Pause } from './slices.ts';

export type StubForm = 'include-once' | 'include' | 'nocloud' | 'base64';

export interface Stub {
  /** The URL the machine fetches: a secret of the machine's. */
  url: string;
  /** What goes into Nova, or onto a kernel command line. */
  text: string;
}

/** An instance with what there is to say about it now. */
export interface InstanceReport {
  instance: Instance;
  /** Null for a dry run that would create it: there is no URL yet. */
  stub: Stub | null;
  /** What it would get now; `size` in bytes. Null when it cannot be rendered: the findings say why. */
  document: (Pick<Document, 'digest' | 'parts' | 'revisions' | 'holdsSecrets'> & { size: number }) | null;
  /** Its own, by name. */
  secrets: SecretInfo[];
  /** Which schema judged its templates' renderings; null when none had to. */
  schema: string | null;
  findings: Finding[];
}

/** Secrets to set, or (null) to remove; the others stay. */
export type SecretChanges = ReadonlyMap<string, Uint8Array | null>;

/** What a list states of one instance. */
export interface InstanceStatement {
  name: string;
  spec: InstanceSpec;
  secrets?: SecretChanges | undefined;
}

export interface InstanceWriteReport extends InstanceReport {
  created: boolean;
  changed: boolean;
}

export interface InstanceWriteOptions {
  /** He may write instances, and have them refer to bundles, of his scope only: else forbidden `out_of_scope`. */
  by: Actor;
  preconditions?: Preconditions;
  dryRun?: boolean;
}

export interface InstanceService {
  /**
   * Registers an instance or states the whole of it anew, once its document was rendered and looked at.
   * @throws invalid with findings when the machine would not boot as meant
   */
  put(
    name: string,
    spec: InstanceSpec,
    options: InstanceWriteOptions & { secrets?: SecretChanges | undefined },
  ): Promise<InstanceWriteReport>;
  /** All or nothing. */
  putAll(
    list: readonly InstanceStatement[],
    options: Pick<InstanceWriteOptions, 'by' | 'dryRun'>,
  ): Promise<InstanceWriteReport[]>;
  /** Changes what `change` makes of the present spec. @throws not_found `unknown_instance` */
  patch(
    name: string,
    change: (spec: InstanceSpec) => { spec: InstanceSpec; secrets?: SecretChanges | undefined },
    options: InstanceWriteOptions,
  ): Promise<InstanceWriteReport>;
  /** Sets, or (undefined) removes, one of the vars. @throws not_found `unknown_var` */
  putVar(name: string, key: string, value: Json | undefined, options: InstanceWriteOptions): Promise<InstanceWriteReport>;
  /**
   * Changes secrets and nothing else. `expect`: the version the caller saw. @returns findings
   * @throws precondition_failed `etag_mismatch`; invalid with findings
   */
  putSecrets(
    name: string,
    changes: SecretChanges,
    expect: number,
    options: Pick<InstanceWriteOptions, 'by' | 'dryRun'>,
  ): Promise<Finding[]>;
  get(name: string): Promise<InstanceReport>;
  list(page: Page<string>, filter: InstanceFilter): Promise<Instance[]>;
  delete(name: string, options: InstanceWriteOptions): Promise<void>;
  stub(name: string, form: StubForm): Promise<Stub & { findings: Finding[] }>;
  /**
   * The exact bytes it would get now. Not a delivery. When secrets are in it, a line of the audit says who got them before he does.
   * @throws forbidden `reveal_needed` when secrets are in it and `reveal` is not said; unavailable when the audit cannot be written
   */
  userData(name: string, reveal: boolean, by: Actor): Promise<Document>;
  /** The document as a person reads it, with `‹secret:name›` in the secrets' places, and for a viewer `<hidden>` in its capability's. */
  preview(name: string, by: Actor): Promise<Preview>;
  /** What cloud-init will make of its document, secrets left out, and for a viewer its capability. */
  explain(name: string, by: Actor): Promise<Explanation>;
  /**
   * What changed between two of its documents, part by part, secrets left out. Each is a delivery's id, or null for now.
   * @throws not_found `unknown_delivery`; conflict `delivery_forgotten` when what it was rendered from is not kept any more
   */
  diff(name: string, from: number | null, to: number | null): Promise<string>;
  /** Entity tag, or null where there is none. For conditions that are decided before a body is read. */
  etag(name: string): Promise<string | null>;
}

/** So many instances' secrets are read at a time. */
const PAGE = 100;
const FIRST_GENERATIONS = { include: 0, seed: 0, report: 0 };
/** How often a PATCH is computed anew because somebody else was quicker. */
const ATTEMPTS = 20;

export function createInstanceService(deps: {
  store: Store;
  documents: DocumentService;
  keys: KeyRing;
  publicUrl: string;
  schemas: () => Promise<SchemaSet | null>;
  slices: () => Pause;
  clock: () => number;
  freshId: () => string;
}): InstanceService {
  const { store, documents, keys, publicUrl, schemas, slices, clock } = deps;
  const loopback = isLoopback(publicUrl);

  async function living(name: string): Promise<Instance> {
    checkName('instance', name);
    const instance = await store.findInstance(name);
    if (!instance || instance.retiredAt !== null)
      throw notFound('unknown_instance', 'there is no such instance; PUT it to register it');
    return instance;
  }

  function stubOf(instance: Instance, form: StubForm): Stub {
    const url =
      form === 'nocloud'
        ? `${publicUrl}/s/${keys.capability('seed', instance)}/`
        : `${publicUrl}/i/${keys.capability('include', instance)}/user-data`;
    const include = (directive: string) => `${directive}\n${url}\n`;
    switch (form) {
      case 'include-once':
        return { url, text: include('#include-once') };
      case 'include':
        return { url, text: include('#include') };
      case 'base64':
        return { url, text: `${Buffer.from(include('#include-once')).toString('base64')}\n` };
      case 'nocloud':
        return { url, text: `ds=nocloud;s=${url}\n` };
    }
  }

  /** What there is to say about each now. */
  async function reportAll(instances: readonly Instance[]): Promise<InstanceReport[]> {
    const reports: InstanceReport[] = [];
    const scene: Scene = { meanings: new Map(), revisions: new Map(), secrets: new Map() };
    const pause = slices();
    for (let at = 0; at < instances.length; at += PAGE) {
      const page = instances.slice(at, at + PAGE);
      await documents.scene(page, {}, scene);
      const secrets = await store.findSecrets(page.map(({ name }) => ({ kind: 'instance', name })));
      for (const [index, instance] of page.entries()) {
        await pause();
        const { document, findings, schema } = await documents.inspect(instance, scene);
        reports.push({
          schema,
          instance,
          stub: stubOf(instance, 'include-once'),
          document: document && {
            size: document.bytes.length,
            digest: document.digest,
            parts: document.parts,
            revisions: document.revisions,
            holdsSecrets: document.holdsSecrets,
          },
          secrets: (secrets[index] ?? []).map(({ sealed: _, ...info }) => info),
          findings: [...loopbackFindings(), ...findings, ...(await networkFindings(instance))],
        });
      }
    }
    return reports;
  }

  async function networkFindings({ networkConfig }: InstanceSpec): Promise<Finding[]> {
    return networkConfig === null ? [] : inspectNetworkConfig(networkConfig, await schemas());
  }

  function loopbackFindings(): Finding[] {
    if (!loopback) return [];
    return [
      {
        severity: 'warning',
        code: 'public_url_loopback',
        message:
          'the stub names a loopback address, which only this host can reach: start with BOOTBUNDLE_PUBLIC_URL set to a URL your machines can reach',
      },
    ];
  }

  /** Looks at everything first, then writes all of it or nothing; what was not looked at is not written. */
  async function write(
    list: readonly (InstanceStatement & { expect?: number | null | undefined })[],
    { by, dryRun = false, detail }: Pick<InstanceWriteOptions, 'by' | 'dryRun'> & { detail?: AuditDetail },
  ): Promise<InstanceWriteReport[]> {
    for (const { name, spec } of list) {
      checkInScope(by, 'instance', name);
      checkReferencesInScope(by, referencesOf(spec));
    }
    for (let attempt = 1; ; attempt++) {
      const scene: Scene = { meanings: new Map(), revisions: new Map(), secrets: new Map() };
      const writes: InstanceWrite[] = [];
      const pause = slices();
      for (let at = 0; at < list.length; at += PAGE) {
        const page = list.slice(at, at + PAGE).map(({ name, spec, expect, secrets }) => {
          checkSpec(spec);
          return { owner: { ...spec, id: deps.freshId(), name, generations: FIRST_GENERATIONS }, spec, expect, secrets };
        });
        await documents.scene(
          page.map(({ owner }) => owner),
          {},
          scene,
        );
        for (const { owner, spec, expect, secrets } of page) {
          await pause();
          const changes = await freshSecrets(owner.name, secrets);
          const whatIf = { secrets: { owner: { kind: 'instance' as const, name: owner.name }, changes } };
          const { findings } = await documents.inspect(owner, scene, whatIf);
          refuseErrors([...findings, ...(await networkFindings(spec))], owner.name);
          writes.push({ name: owner.name, spec, freshId: owner.id, expect, secrets: seal(owner.name, changes) });
        }
      }
      try {
        const written = dryRun
          ? await foresee(writes)
          : await store.putInstances(writes, { at: clock(), by, detail, sight: sightOf(scene) });
        const reports = await reportAll(written.map(({ instance }) => instance));
        return reports.map((report, index) => {
          const { created, changed } = written[index] as { created: boolean; changed: boolean };
          return { ...report, stub: dryRun && created ? null : report.stub, created, changed };
        });
      } catch (error) {
        if (attempt >= ATTEMPTS || !(error instanceof BootbundleError) || error.code !== 'changed_meanwhile') throw error;
      }
    }
  }

  /** Those of the changes that change something. */
  async function freshSecrets(name: string, changes: SecretChanges = new Map()): Promise<SecretChanges> {
    if (changes.size === 0) return changes;
    for (const [key, value] of changes) {
      checkSecretName(key);
      if (value) checkSecretValue(value);
    }
    const owner = { kind: 'instance' as const, name };
    const [present = []] = await store.findSecrets([owner]);
    return new Map(
      [...changes].filter(([key, value]) => {
        const before = present.find((secret) => secret.name === key);
        if (!before || !value) return before !== undefined || value !== null;
        return Buffer.compare(keys.openSecret(owner, key, before.sealed), value) !== 0;
      }),
    );
  }

  function seal(name: string, changes: SecretChanges) {
    const owner = { kind: 'instance' as const, name };
    return new Map([...changes].map(([key, value]) => [key, value && sealNew(keys, owner, key, value)]));
  }

  /** What a delivery was rendered for: the instance as it was then, at the revisions it got. */
  async function ownerAt(instance: Instance, id: number | null): Promise<DocumentOwner> {
    if (id === null) return instance;
    const [delivery] = await store.listDeliveries(instance.name, { after: id + 1, limit: 1 });
    if (delivery?.id !== id) throw notFound('unknown_delivery', 'the instance has no such delivery');
    const { instanceVersion, revisions } = delivery;
    const spec = instanceVersion === null ? null : await store.findSpec(instance.name, instanceVersion);
    if (!spec)
      throw conflict(
        'delivery_forgotten',
        'what the instance stated at that delivery is not kept: it has changed too often since',
      );
    return { ...instance, ...spec, bundles: revisions };
  }

  async function sideOf(instance: Instance, id: number | null): Promise<Side> {
    const parts = await documents.read(await ownerAt(instance, id));
    return {
      label: id === null ? 'now' : `delivery:${id}`,
      vars: {},
      parts: new Map(parts.map(({ key, type, body }) => [key, { body, options: { type } }])),
    };
  }

  /** What the write would come to. */
  async function foresee(writes: readonly InstanceWrite[]) {
    return Promise.all(
      writes.map(async ({ name, spec, freshId, secrets }) => {
        const at = clock();
        const before = await store.findInstance(name);
        const alive = before !== null && before.retiredAt === null;
        const blank = {
          id: freshId,
          version: 0,
          generations: FIRST_GENERATIONS,
          createdAt: at,
          updatedAt: at,
        };
        const base = before ?? {
          ...blank,
          firstDeliveryAt: null,
          lastDeliveryAt: null,
          deliveryCount: 0,
          reportsDropped: 0,
          closedAt: null,
          reopenedAt: null,
          openUntil: null,
          boot: NO_BOOT,
        };
        const changed =
          !alive ||
          (secrets?.size ?? 0) > 0 ||
          canonicalJson(specOf(before) as unknown as Json) !== canonicalJson(spec as unknown as Json);
        const version = base.version + (changed ? 1 : 0);
        return { instance: { ...base, ...spec, name, version, retiredAt: null }, created: !alive, changed };
      }),
    );
  }

  async function put(
    name: string,
    spec: InstanceSpec,
    { preconditions = {}, secrets, ...options }: InstanceWriteOptions & { secrets?: SecretChanges | undefined },
  ) {
    checkName('instance', name);
    const conditional = preconditions.ifMatch !== undefined || preconditions.ifNoneMatch !== undefined;
    let expect: number | null | undefined;
    if (conditional) {
      const before = await store.findInstance(name);
      const alive = before !== null && before.retiredAt === null;
      checkPreconditions(alive ? instanceEtag(before) : null, preconditions);
      expect = alive ? before.version : null;
    }
    const [written] = await write([{ name, spec, secrets, expect }], options);
    return written as InstanceWriteReport;
  }

  async function patch(
    name: string,
    change: (spec: InstanceSpec) => { spec: InstanceSpec; secrets?: SecretChanges | undefined },
    { preconditions = {}, ...options }: InstanceWriteOptions & { detail?: AuditDetail },
  ) {
    for (let attempt = 1; ; attempt++) {
      const before = await living(name);
      checkPreconditions(instanceEtag(before), preconditions);
      try {
        const [written] = await write([{ name, ...change(specOf(before)), expect: before.version }], options);
        return written as InstanceWriteReport;
      } catch (error) {
        const raced = error instanceof BootbundleError && error.code === 'etag_mismatch' && preconditions.ifMatch === undefined;
        if (!raced || attempt >= ATTEMPTS) throw error;
      }
    }
  }

  return {
    put,

    async putAll(list, options) {
      if (list.length > LIMITS.instancesPerList)
        throw tooLarge('too_many_instances', `one list has at most ${LIMITS.instancesPerList} instances: send several`);
      const seen = new Set<string>();
      for (const { name } of list) {
        checkName('instance', name);
        if (seen.has(name)) throw malformed('duplicate_name', `${name} is in the list twice`);
        seen.add(name);
      }
      return write(list, options);
    },

    patch,

    putVar(name, key, value, options) {
      const detail = value === undefined ? { varRemoved: key } : { var: key };
      return patch(name, (spec) => ({ spec: { ...spec, vars: withVar(spec.vars, key, value) } }), { ...options, detail });
    },

    async putSecrets(name, secrets, expect, options) {
      const [written] = await write([{ name, spec: specOf(await living(name)), secrets, expect }], options);
      return (written as InstanceWriteReport).findings;
    },

    async get(name) {
      const [report] = await reportAll([await living(name)]);
      return report as InstanceReport;
    },

    list: (page, filter) => store.listInstances(page, filter),

    async delete(name, { preconditions = {}, dryRun = false, by }) {
      const instance = await living(name);
      checkPreconditions(instanceEtag(instance), preconditions);
      if (dryRun) return;
      const expect = preconditions.ifMatch === undefined ? undefined : instance.version;
      await store.retireInstance(name, { expect, at: clock(), by });
    },

    stub: async (name, form) => ({ ...stubOf(await living(name), form), findings: loopbackFindings() }),

    async userData(name, reveal, by) {
      const instance = await living(name);
      const refuse = () => forbidden('reveal_needed', 'secrets are in it: ask for …/preview, or (an admin) say ?reveal=true');
      if (!reveal && (await documents.holdsSecrets(instance))) throw refuse();
      const document = await documents.render(instance);
      if (!document.holdsSecrets) return document;
      // They came into it meanwhile.
      if (!reveal) throw refuse();
      const detail = { digest: document.digest, revisions: document.revisions };
      const note = { action: 'reveal', kind: 'instance' as const, name, before: null, after: null, detail };
      await store.recordAudit(note, { at: clock(), by });
      return document;
    },

    preview: async (name, by) => documents.preview(await living(name), { readable: true, masked: isMasked(by) }),

    async explain(name, by) {
      const { bytes, parts } = await documents.preview(await living(name), { readable: false, masked: isMasked(by) });
      return explain(bytes, { origins: new Map(parts.map(({ filename, origin }) => [filename, origin])) });
    },

    async diff(name, from, to) {
      const instance = await living(name);
      return diffParts(await sideOf(instance, from), await sideOf(instance, to));
    },

    async etag(name) {
      checkName('instance', name);
      const instance = await store.findInstance(name);
      return instance && instance.retiredAt === null ? instanceEtag(instance) : null;
    },
  };
}

/** What an operator stated, without what we keep beside it. */
export function specOf(spec: InstanceSpec): InstanceSpec {
  const { bundles, vars, labels, metaData, vendorData, networkConfig, policy, track } = spec;
  return { bundles, vars, labels, metaData, vendorData, networkConfig, policy, track };
}

/** Whether somebody may not have a machine's capabilities. */
function isMasked({ role }: Actor): boolean {
  return !roleSuffices(role, 'editor');
}

/** All references of a spec: what the machine gets, and what it gets once its window is shut. */
function referencesOf({ bundles, policy: { afterClose } }: InstanceSpec): readonly string[] {
  return Array.isArray(afterClose) ? [...bundles, ...afterClose] : bundles;
}

/** RFC 7396: a member replaces, null removes, objects merge. */
export function mergePatch(target: Json | undefined, patch: Json): Json {
  if (patch === null || typeof patch !== 'object' || Array.isArray(patch)) return patch;
  const base: JsonObject = target !== null && typeof target === 'object' && !Array.isArray(target) ? target : {};
  const merged = new Map(Object.entries(base));
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) merged.delete(key);
    else merged.set(key, mergePatch(merged.get(key), value));
  }
  return Object.fromEntries(merged);
}

function checkSpec(spec: InstanceSpec): void {
  if (spec.bundles.length > LIMITS.bundlesPerInstance)
    throw invalid('too_many_bundles', `an instance refers to at most ${LIMITS.bundlesPerInstance} bundles`);
  const seen = new Set<string>();
  for (const text of spec.bundles) {
    const { bundle } = parseReference(text);
    if (seen.has(bundle)) throw invalid('duplicate_bundle', `${bundle} is named twice: its parts would run twice`);
    seen.add(bundle);
  }
  const bad = ['instance-id', 'local-hostname'].find((key) => key in spec.metaData && !isPlainWord(spec.metaData[key]));
  if (bad)
    throw invalid('bad_meta_data', `metaData: ${bad} has 1 to 255 of A-Z a-z 0-9 . _ : - and begins with a letter or digit`);
  if (Buffer.byteLength(JSON.stringify(spec)) > LIMITS.instanceBodyBytes)
    throw tooLarge('instance_too_large', `an instance has at most ${LIMITS.instanceBodyBytes} bytes as JSON`);
  for (const [key, value] of Object.entries(spec.labels))
    if (!/^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$/.test(key) || !/^[\x20-\x7e]{0,255}$/.test(value))
      throw invalid(
        'bad_label',
        'a label is KEY: VALUE; the key has 1 to 63 of A-Z a-z 0-9 . _ / -, the value at most 255 printable ASCII characters',
      );
}

function isPlainWord(value: Json | undefined): boolean {
  // cloud-init makes a directory of the instance-id.
  return typeof value === 'string' && /^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$/.test(value);
}

function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' || /^127\./.test(hostname);
}

import { type Actor, checkInScope, checkReferencesInScope, roleSuffices } from '../domain/actor.ts';
import type { AuditDetail } from '../domain/audit.ts';
import { type CurrentState, type Deadlines, NO_BOOT, type State, stateAt } from '../domain/boot.ts';
import { BootbundleError, conflict, forbidden, invalid, malformed, notFound, tooLarge } from '../domain/errors.ts';
import { type Finding, refuseErrors } from '../domain/finding.ts';
import { checkSeedUnused, type Instance, type InstanceSpec, instanceEtag } from '../domain/instance.ts';
import { canonicalJson, type Json, type JsonObject } from '../domain/json.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName, parseReference } from '../domain/names.ts';
import {
  checkPolicy,
  type DeliveryWindow,
  type Policy,
  type PolicyDefaults,
  policyInForce,
  windowAt,
} from '../domain/policy.ts';
import { checkPreconditions, type Preconditions } from '../domain/precondition.ts';
import { checkSecretName, type SecretInfo } from '../domain/secret.ts';
import type { InstanceFilter, InstanceWrite, Page, Store } from '../domain/store.ts';
import { type Explanation, explain } from '../explain/explain.ts';
import { inspectNetworkConfig } from '../inspect/cloud-config.ts';
import type { Schemas } from '../inspect/schema.ts';
import { withVar } from './bundles.ts';
import { diffParts, type Side } from './diff.ts';
import {
  type Document,
  type DocumentOwner,
  type DocumentService,
  type Preview,
  type Scene,
  sightOf,
  usesSecrets,
  type WhatIf,
} from './documents.ts';
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
  state: CurrentState;
  /** Null for a dry run that would create it: there is no URL yet. */
  stub: Stub | null;
  /** What it would get now; `size` in bytes. Null when it cannot be rendered: the findings say why. */
  document: (Pick<Document, 'digest' | 'parts' | 'revisions' | 'holdsSecrets'> & { size: number }) | null;
  /** Who may fetch, and until when, as things are now. */
  policy: Policy;
  window: DeliveryWindow;
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
    options: InstanceWriteOptions & { detail?: AuditDetail },
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
  list(page: Page<string>, filter: Omit<InstanceFilter, 'state'> & { state?: State | undefined }): Promise<Instance[]>;
  /** How far its boot is now. */
  state(instance: Instance): CurrentState;
  /** @throws conflict `seed_in_use` when its seed was fetched and `force` is not said */
  delete(name: string, options: InstanceWriteOptions & { force?: boolean }): Promise<void>;
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
const NO_DEADLINES: Deadlines = { fetch: null, boot: null };
const FIRST_GENERATIONS = { include: 0, seed: 0, report: 0 };
/** How often a PATCH is computed anew because somebody else was quicker. */
const ATTEMPTS = 20;

export function createInstanceService(deps: {
  store: Store;
  documents: DocumentService;
  keys: KeyRing;
  publicUrl: string;
  schemas: () => Promise<Schemas>;
  slices: () => Pause;
  policyDefaults: PolicyDefaults;
  deadlines: Deadlines;
  clock: () => number;
  freshId: () => string;
}): InstanceService {
  const { store, documents, keys, publicUrl, schemas, slices, policyDefaults, clock } = deps;
  const loopback = isLoopback(publicUrl);

  async function living(name: string): Promise<Instance> {
    checkName('instance', name);
    const instance = await store.findInstance(name);
    if (!instance || instance.retiredAt !== null)
      throw notFound('unknown_instance', 'there is no such instance; PUT it to register it');
    return instance;
  }

  function stateOf(instance: Instance): CurrentState {
    return stateAt(instance, instance.retiredAt === null ? deps.deadlines : NO_DEADLINES, clock());
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

  /** What there is to say about each now, or if what is under trial were so. */
  async function reportAll(instances: readonly Instance[], trials?: ReadonlyMap<string, WhatIf>): Promise<InstanceReport[]> {
    const reports: InstanceReport[] = [];
    const scene: Scene = { meanings: new Map(), revisions: new Map(), secrets: new Map() };
    const pause = slices();
    for (let at = 0; at < instances.length; at += PAGE) {
      const page = instances.slice(at, at + PAGE);
      await documents.scene(page, {}, scene);
      const secrets = await store.findSecrets(page.map(({ name }) => ({ kind: 'instance', name })));
      for (const [index, instance] of page.entries()) {
        await pause();
        const { document, findings, schema } = await documents.inspect(instance, scene, trials?.get(instance.name));
        const policy = policyInForce(instance.policy, policyDefaults, instance, usesSecrets(instance, scene));
        const window = windowAt(policy, instance, clock());
        reports.push({
          policy,
          window,
          schema,
          instance,
          state: stateOf(instance),
          stub: stubOf(instance, 'include-once'),
          document: document && {
            size: document.bytes.length,
            digest: document.digest,
            parts: document.parts,
            revisions: document.revisions,
            holdsSecrets: document.holdsSecrets,
          },
          secrets: (secrets[index] ?? []).map(({ sealed: _, ...info }) => info),
          findings: [
            ...loopbackFindings(),
            ...findings,
            ...(await networkFindings(instance)),
            ...windowFindings(instance, policy, window, document),
          ],
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
      const trials = new Map<string, WhatIf>();
      const pause = slices();
      for (let at = 0; at < list.length; at += PAGE) {
        const page = list.slice(at, at + PAGE).map(({ name, spec: stated, expect, secrets }) => {
          const spec = { ...stated, policy: checkPolicy(stated.policy) };
          checkSpec(spec);
          return { owner: { ...spec, id: deps.freshId(), name, generations: FIRST_GENERATIONS }, spec, expect, secrets };
        });
        // Before its secrets are read, so that a change of them from here on is noticed.
        const versions = await store.findVersions(page.map(({ owner }) => owner.name));
        await documents.scene(
          page.flatMap(({ owner }) => [owner, ...afterCloseOf(owner)]),
          {},
          scene,
        );
        for (const [index, { owner, spec, expect, secrets }] of page.entries()) {
          await pause();
          const seen = versions[index] ?? null;
          const changes = await freshSecrets(owner.name, secrets);
          const whatIf = { secrets: { owner: { kind: 'instance' as const, name: owner.name }, changes } };
          const { findings } = await documents.inspect(owner, scene, whatIf);
          refuseErrors([...findings, ...(await networkFindings(spec))], owner.name);
          await checkAfterClose(owner, scene);
          writes.push({ name: owner.name, spec, freshId: owner.id, expect, seen, secrets: seal(owner.name, changes) });
          trials.set(owner.name, whatIf);
        }
      }
      try {
        const written = dryRun
          ? await foresee(writes)
          : await store.putInstances(writes, { at: clock(), by, detail, sight: sightOf(scene) });
        const reports = await reportAll(
          written.map(({ instance }) => instance),
          dryRun ? trials : undefined,
        );
        return reports.map((report, index) => {
          const { created, changed } = written[index] as { created: boolean; changed: boolean };
          return { ...report, stub: dryRun && created ? null : report.stub, created, changed };
        });
      } catch (error) {
        if (attempt >= ATTEMPTS || !(error instanceof BootbundleError) || error.code !== 'changed_meanwhile') throw error;
      }
    }
  }

  /** What it is served once its window is shut must boot a machine as well, and hold no secret: anybody may have the stub by then. */
  async function checkAfterClose(owner: DocumentOwner & InstanceSpec, scene: Scene): Promise<void> {
    for (const instead of afterCloseOf(owner)) {
      const secretive = instead.bundles.find((text) => scene.revisions.get(text)?.usesSecrets);
      if (secretive !== undefined)
        throw invalid(
          'after_close_secrets',
          `${owner.name}: policy: afterClose names ${secretive}, whose templates use secrets: name bundles without, or write refuse`,
        );
      const { findings } = await documents.inspect(instead, scene);
      refuseErrors(findings, `${owner.name}, afterClose`);
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
    const delivery = await store.findDelivery(instance.name, id);
    if (!delivery) throw unknownDelivery();
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
    const owner = await ownerAt(instance, id);
    if (id !== null) {
      const meanings = await store.resolveReferences(owner.bundles.map(parseReference));
      const purged = owner.bundles.filter((_, index) => !meanings[index]);
      if (purged.length > 0)
        throw conflict('delivery_forgotten', `what it was rendered from is not kept any more: ${purged.join(', ')}`);
    }
    const parts = await documents.read(owner);
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
          fetchedAt: { include: null, seed: null },
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

    list: (page, { state, ...filter }) => {
      // What is retired is waited for no more.
      const deadlines = filter.retired ? NO_DEADLINES : deps.deadlines;
      const wanted = state === undefined ? {} : { state: { is: state, now: clock(), deadlines } };
      return store.listInstances(page, { ...filter, ...wanted });
    },

    state: stateOf,

    async delete(name, { preconditions = {}, dryRun = false, force = false, by }) {
      const instance = await living(name);
      checkPreconditions(instanceEtag(instance), preconditions);
      if (dryRun) return checkSeedUnused(instance, force);
      const expect = preconditions.ifMatch === undefined ? undefined : instance.version;
      await store.retireInstance(name, { expect, at: clock(), force, by });
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

/** The machine as it is served once its window is shut, where the policy has something for that. */
function afterCloseOf<T extends DocumentOwner & Pick<InstanceSpec, 'policy' | 'track'>>(owner: T): T[] {
  const { afterClose = 'refuse' } = owner.policy;
  return afterClose === 'refuse' ? [] : [{ ...owner, bundles: afterClose, track: false }];
}

/** What a policy says that will not come to be as it reads. */
function windowFindings(
  instance: Instance,
  { closeAfter }: Policy,
  window: DeliveryWindow,
  document: Document | null,
): Finding[] {
  const findings: Finding[] = [];
  const warn = (code: string, message: string) => findings.push({ severity: 'warning', code, message });
  if (!window.open && instance.deliveryCount === 0)
    warn(
      'window_shut',
      'its window is shut (status.window says since when and why) and it was never delivered: it gets nothing',
    );
  const told = document && (document.expects.events || document.expects.manifests.length > 0);
  if (closeAfter === 'success' && told === false)
    warn(
      'success_untold',
      'closeAfter is success, and nothing in its document would tell of one: with track: true the machine does',
    );
  return findings;
}

/** What an operator stated, without what we keep beside it. */
export function specOf(spec: InstanceSpec): InstanceSpec {
  const { bundles, vars, labels, metaData, vendorData, networkConfig, policy, track } = spec;
  return { bundles, vars, labels, metaData, vendorData, networkConfig, policy, track };
}

/** Its id may never have been, or be that of another instance's. */
export function unknownDelivery(): BootbundleError {
  return notFound('unknown_delivery', 'the instance has no such delivery, or the ledger keeps it no longer');
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

import { scheduler } from 'node:timers/promises';
import { BootbundleError, invalid, malformed, notFound, tooLarge } from '../domain/errors.ts';
import { type Finding, refuseErrors } from '../domain/finding.ts';
import type { Instance, InstanceSpec } from '../domain/instance.ts';
import { canonicalJson, type Json, type JsonObject } from '../domain/json.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName, parseReference } from '../domain/names.ts';
import { checkPreconditions, type Preconditions } from '../domain/precondition.ts';
import type { InstanceFilter, InstanceWrite, Page, Store } from '../domain/store.ts';
import type { Document, DocumentService } from './documents.ts';
import type { KeyRing } from './keys.ts';

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
  /** What it would get now; `size` in bytes. */
  document: Pick<Document, 'digest' | 'parts' | 'revisions'> & { size: number };
  findings: Finding[];
}

export interface InstanceWriteReport extends InstanceReport {
  created: boolean;
  changed: boolean;
}

export interface InstanceWriteOptions {
  preconditions?: Preconditions;
  dryRun?: boolean;
}

export interface InstanceService {
  /**
   * Registers an instance or states the whole of it anew, once its document was rendered and looked at.
   * @throws invalid with findings when the machine would not boot as meant
   */
  put(name: string, spec: InstanceSpec, options: InstanceWriteOptions): Promise<InstanceWriteReport>;
  /** All or nothing. */
  putAll(list: readonly { name: string; spec: InstanceSpec }[], options: { dryRun?: boolean }): Promise<InstanceWriteReport[]>;
  /** Changes what `change` makes of the present spec. @throws not_found `unknown_instance` */
  patch(
    name: string,
    change: (spec: InstanceSpec) => InstanceSpec,
    options: InstanceWriteOptions,
  ): Promise<InstanceWriteReport>;
  get(name: string): Promise<InstanceReport>;
  list(page: Page<string>, filter: InstanceFilter): Promise<Instance[]>;
  delete(name: string, options: InstanceWriteOptions): Promise<void>;
  stub(name: string, form: StubForm): Promise<Stub & { findings: Finding[] }>;
  /** The exact bytes it would get now. Not a delivery. */
  userData(name: string): Promise<Document>;
  /** Entity tag, or null where there is none. For conditions that are decided before a body is read. */
  etag(name: string): Promise<string | null>;
}

/** How many documents are looked at before boot fetches get their turn. */
const SLICE = 20;
const FIRST_GENERATIONS = { include: 0, seed: 0, report: 0 };
/** How often a PATCH is computed anew because somebody else was quicker. */
const ATTEMPTS = 20;

export function createInstanceService(deps: {
  store: Store;
  documents: DocumentService;
  keys: KeyRing;
  publicUrl: string;
  clock: () => number;
  freshId: () => string;
}): InstanceService {
  const { store, documents, keys, publicUrl, clock } = deps;
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

  async function report(instance: Instance): Promise<InstanceReport> {
    const { document, findings } = await documents.inspect(instance);
    const { bytes, digest, parts, revisions } = document;
    return {
      instance,
      stub: stubOf(instance, 'include-once'),
      document: { size: bytes.length, digest, parts, revisions },
      findings: [...loopbackFindings(), ...findings],
    };
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

  /** Looks at everything first, then writes all of it or nothing. */
  async function write(
    list: readonly { name: string; spec: InstanceSpec; expect?: number | null | undefined }[],
    dryRun: boolean,
  ): Promise<InstanceWriteReport[]> {
    const writes: InstanceWrite[] = [];
    for (const [index, { name, spec, expect }] of list.entries()) {
      if (index % SLICE === SLICE - 1) await scheduler.yield();
      checkSpec(spec);
      const freshId = deps.freshId();
      const { findings } = await documents.inspect({ ...spec, id: freshId, name, generations: FIRST_GENERATIONS });
      refuseErrors(findings, name);
      writes.push({ name, spec, freshId, expect });
    }
    const written = dryRun ? await foresee(writes) : await store.putInstances(writes, clock());
    const reports: InstanceWriteReport[] = [];
    for (const [index, { instance, created, changed }] of written.entries()) {
      if (index % SLICE === SLICE - 1) await scheduler.yield();
      const reported = await report(instance);
      reports.push({ ...reported, stub: dryRun && created ? null : reported.stub, created, changed });
    }
    return reports;
  }

  /** What the write would come to. */
  async function foresee(writes: readonly InstanceWrite[]) {
    return Promise.all(
      writes.map(async ({ name, spec, freshId }) => {
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
        const base = before ?? { ...blank, firstDeliveryAt: null, lastDeliveryAt: null, deliveryCount: 0, reportsDropped: 0 };
        const changed = !alive || canonicalJson(specOf(before) as unknown as Json) !== canonicalJson(spec as unknown as Json);
        const version = base.version + (changed ? 1 : 0);
        return { instance: { ...base, ...spec, name, version, retiredAt: null }, created: !alive, changed };
      }),
    );
  }

  async function put(name: string, spec: InstanceSpec, { preconditions = {}, dryRun = false }: InstanceWriteOptions) {
    checkName('instance', name);
    const conditional = preconditions.ifMatch !== undefined || preconditions.ifNoneMatch !== undefined;
    let expect: number | null | undefined;
    if (conditional) {
      const before = await store.findInstance(name);
      const alive = before !== null && before.retiredAt === null;
      checkPreconditions(alive ? instanceEtag(before) : null, preconditions);
      expect = alive ? before.version : null;
    }
    const [written] = await write([{ name, spec, expect }], dryRun);
    return written as InstanceWriteReport;
  }

  return {
    put,

    async putAll(list, { dryRun = false }) {
      if (list.length > LIMITS.instancesPerList)
        throw tooLarge('too_many_instances', `one list has at most ${LIMITS.instancesPerList} instances: send several`);
      const seen = new Set<string>();
      for (const { name } of list) {
        checkName('instance', name);
        if (seen.has(name)) throw malformed('duplicate_name', `${name} is in the list twice`);
        seen.add(name);
      }
      return write(list, dryRun);
    },

    async patch(name, change, { preconditions = {}, dryRun = false }) {
      for (let attempt = 1; ; attempt++) {
        const before = await living(name);
        checkPreconditions(instanceEtag(before), preconditions);
        try {
          const [written] = await write([{ name, spec: change(specOf(before)), expect: before.version }], dryRun);
          return written as InstanceWriteReport;
        } catch (error) {
          const raced =
            error instanceof BootbundleError && error.code === 'etag_mismatch' && preconditions.ifMatch === undefined;
          if (!raced || attempt >= ATTEMPTS) throw error;
        }
      }
    },

    get: async (name) => report(await living(name)),
    list: (page, filter) => store.listInstances(page, filter),

    async delete(name, { preconditions = {}, dryRun = false }) {
      const instance = await living(name);
      checkPreconditions(instanceEtag(instance), preconditions);
      if (dryRun) return;
      const expect = preconditions.ifMatch === undefined ? undefined : instance.version;
      await store.retireInstance(name, { expect, at: clock() });
    },

    stub: async (name, form) => ({ ...stubOf(await living(name), form), findings: loopbackFindings() }),

    userData: async (name) => documents.render(await living(name)),

    async etag(name) {
      checkName('instance', name);
      const instance = await store.findInstance(name);
      return instance && instance.retiredAt === null ? instanceEtag(instance) : null;
    },
  };
}

/** What an operator stated, without what we keep beside it. */
export function specOf({ bundles, vars, labels, metaData, vendorData, networkConfig }: InstanceSpec): InstanceSpec {
  return { bundles, vars, labels, metaData, vendorData, networkConfig };
}

/** Changes with every change of the spec. */
export function instanceEtag({ id, version }: Pick<Instance, 'id' | 'version'>): string {
  return `${id}.${version}`;
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

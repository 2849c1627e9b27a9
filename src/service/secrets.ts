import { randomBytes } from 'node:crypto';
import type { Actor } from '../domain/actor.ts';
import { BootbundleError, invalid, notFound, tooLarge } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName } from '../domain/names.ts';
import { checkSecretName, type NewSecret, type SecretInfo, type SecretOwner } from '../domain/secret.ts';
import type { Change, Store, StoredSecret } from '../domain/store.ts';
import type { Consent, Gate, Memory } from './gate.ts';
import type { InstanceService } from './instances.ts';
import type { KeyRing } from './keys.ts';

export interface SecretWriteOptions extends Consent {
  by: Actor;
  dryRun?: boolean;
}

export interface SecretWritten {
  secret: SecretInfo;
  created: boolean;
  /** Whether the value is another one. */
  changed: boolean;
  findings: Finding[];
}

/** Secrets go in, and into machines' documents; never out again. */
export interface SecretService {
  /** Names, sizes and dates, by name. @throws not_found */
  list(owner: SecretOwner): Promise<SecretInfo[]>;
  /**
   * Sets one, its bytes kept as they are. What it would do to the documents that use it is looked at first.
   * @throws invalid `bad_secret_name`, or with findings for an instance that could not boot with it; would_break; too_large `secret_too_large`
   */
  put(owner: SecretOwner, name: string, value: Uint8Array, options: SecretWriteOptions): Promise<SecretWritten>;
  /** Sets one nobody has seen: `bytes` random ones, as base64url text without a line break. */
  generate(owner: SecretOwner, name: string, bytes: number, options: SecretWriteOptions): Promise<SecretWritten>;
  /** @returns findings @throws not_found `unknown_secret`; would_break or invalid when a document needs it */
  delete(owner: SecretOwner, name: string, options: SecretWriteOptions): Promise<Finding[]>;
}

/** How often a change is computed anew because somebody else was quicker. */
const ATTEMPTS = 20;
/** How many secrets are read at a time when all are sealed anew. */
const PAGE = 500;

export function createSecretService(deps: {
  store: Store;
  instances: InstanceService;
  gate: Gate;
  keys: KeyRing;
  clock: () => number;
}): SecretService {
  const { store, instances, gate, keys, clock } = deps;

  /** @throws not_found */
  async function versionOf(owner: SecretOwner): Promise<number> {
    checkName(owner.kind, owner.name);
    const found = owner.kind === 'bundle' ? await store.findBundle(owner.name) : await store.findInstance(owner.name);
    if (!found || found.retiredAt !== null) throw notFound(`unknown_${owner.kind}`, `there is no such ${owner.kind}`);
    return 'secretsVersion' in found ? found.secretsVersion : found.version;
  }

  async function list(owner: SecretOwner): Promise<SecretInfo[]> {
    await versionOf(owner);
    const [secrets = []] = await store.findSecrets([owner]);
    return secrets.map(({ name, bytes, endsWithNewline, updatedAt }) => ({ name, bytes, endsWithNewline, updatedAt }));
  }

  /** Sets or (null) removes one. `decide` gets the value there is and says whether that is a change. */
  async function change(
    owner: SecretOwner,
    name: string,
    value: Uint8Array | null,
    options: SecretWriteOptions,
  ): Promise<{ before: SecretInfo | null; changed: boolean; findings: Finding[] }> {
    checkSecretName(name);
    if (value) checkSecretValue(value);
    const work = async () => {
      const memory: Memory = new Map();
      for (let attempt = 1; ; attempt++) {
        const base = await versionOf(owner);
        const [secrets = []] = await store.findSecrets([owner]);
        const before = secrets.find((secret) => secret.name === name) ?? null;
        if (!value && !before) throw notFound('unknown_secret', `the ${owner.kind} has no such secret`);
        if (value && before && Buffer.compare(keys.openSecret(owner, name, before.sealed), value) === 0)
          return { before, changed: false, findings: [] };
        try {
          if (owner.kind === 'instance') {
            const findings = await instances.putSecrets(owner.name, new Map([[name, value]]), base, options);
            return { before, changed: true, findings };
          }
          const whatIf = async () => ({ secrets: { owner, changes: new Map([[name, value]]) } });
          const { findings, sight, detail } = await gate.pass({ bundle: owner.name, reference: null, whatIf }, options, memory);
          const sealed = new Map([[name, value && sealNew(keys, owner, name, value)]]);
          const change = { base, at: clock(), by: options.by, sight, detail };
          if (!options.dryRun) await store.putBundleSecrets(owner.name, sealed, change);
          return { before, changed: true, findings };
        } catch (error) {
          const raced = error instanceof BootbundleError && ['changed_meanwhile', 'etag_mismatch'].includes(error.code);
          if (!raced || attempt >= ATTEMPTS) throw error;
        }
      }
    };
    return owner.kind === 'bundle' ? gate.inTurn(work) : work();
  }

  async function put(owner: SecretOwner, name: string, value: Uint8Array, options: SecretWriteOptions): Promise<SecretWritten> {
    const { before, changed, findings } = await change(owner, name, value, options);
    const stored = changed && !options.dryRun ? (await list(owner)).find((secret) => secret.name === name) : before;
    const updatedAt = stored?.updatedAt ?? clock();
    return { secret: { name, ...measure(value), updatedAt }, created: !before, changed, findings };
  }

  return {
    list,
    put,

    async generate(owner, name, bytes, options) {
      return put(owner, name, Buffer.from(randomBytes(bytes).toString('base64url')), options);
    },

    delete: async (owner, name, options) => (await change(owner, name, null, options)).findings,
  };
}

/** A value ready to be stored. */
export function sealNew(keys: KeyRing, owner: SecretOwner, name: string, value: Uint8Array): NewSecret {
  return { sealed: keys.sealSecret(owner, name, value), ...measure(value) };
}

function measure(value: Uint8Array): Pick<SecretInfo, 'bytes' | 'endsWithNewline'> {
  return { bytes: value.length, endsWithNewline: value.at(-1) === 0x0a };
}

/** @throws invalid `empty_secret`; too_large `secret_too_large` */
export function checkSecretValue(value: Uint8Array): void {
  if (value.length === 0) throw invalid('empty_secret', 'the secret is empty: send its value as the body, or DELETE it');
  if (value.length > LIMITS.secretBytes) throw tooLarge('secret_too_large', `a secret has at most ${LIMITS.secretBytes} bytes`);
}

/** What sealing anew came to; `unreadable`: old values that no key of the ring opens, which stay as they are. */
export interface Resealed {
  resealed: number;
  already: number;
  unreadable: number;
}

/**
 * Seals every secret under the newest key of the ring that an older one sealed, with the old values that replays may need. Nothing else changes: no
 * version, no stub. Safe while the service runs.
 * @throws unavailable `secret_unreadable` when a secret (not an old value, which nobody could set anew) opens with no key of the ring
 */
export async function resealSecrets(store: Store, keys: KeyRing, change: Change): Promise<Resealed> {
  const count: Resealed = { resealed: 0, already: 0, unreadable: 0 };
  for (let after: StoredSecret['key'] | null = null; ; ) {
    const page: StoredSecret[] = await store.listSecrets({ after, limit: PAGE });
    for (const { key, sealed } of page) {
      if (keys.isSealedAnew(sealed)) {
        count.already++;
        continue;
      }
      const value = key.old === null ? keys.openSecret(key.owner, key.name, sealed) : openOld(keys, key, sealed);
      if (!value) {
        count.unreadable++;
        continue;
      }
      // False: somebody set or removed it meanwhile; as an old value it comes at the end of the list.
      if (await store.resealSecret(key, sealed, keys.sealSecret(key.owner, key.name, value), change)) count.resealed++;
    }
    after = page.at(-1)?.key ?? null;
    if (page.length < PAGE) return count;
  }
}

function openOld(keys: KeyRing, { owner, name }: StoredSecret['key'], sealed: Uint8Array): Uint8Array | null {
  try {
    return keys.openSecret(owner, name, sealed);
  } catch (error) {
    if (error instanceof BootbundleError && error.code === 'secret_unreadable') return null;
    throw error;
  }
}

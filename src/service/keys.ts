import { randomBytes } from 'node:crypto';
import { type CapabilityClaim, deriveCapability, deriveKey, verifyCapability } from '../domain/capability.ts';
import { unavailable } from '../domain/errors.ts';
import type { Instance, Purpose } from '../domain/instance.ts';
import { isSealedWith, openSecret, type SecretOwner, sealSecret } from '../domain/secret.ts';

/** Makes and checks capabilities, seals and opens secrets, under a ring of root keys, newest first. */
export interface KeyRing {
  capability(purpose: Purpose, instance: Pick<Instance, 'id' | 'generations'>): string;
  /** What each key of the ring makes, newest first: which one made a capability once is not kept. */
  capabilities(purpose: Purpose, instance: Pick<Instance, 'id' | 'generations'>): string[];
  verify(purpose: Purpose, text: string): CapabilityClaim | null;
  /** Seals under the newest key. */
  sealSecret(owner: SecretOwner, name: string, value: Uint8Array): Uint8Array;
  /** @throws unavailable `secret_unreadable` when no key of the ring opens it */
  openSecret(owner: SecretOwner, name: string, sealed: Uint8Array): Uint8Array;
  /** Whether the newest key sealed it. */
  isSealedAnew(sealed: Uint8Array): boolean;
  /** One value per root key, newest first, by which a database knows the key it was made under; it gives away nothing of the key. */
  readonly checks: readonly string[];
}

/** @param rootKeys newest first: the first one makes capabilities, all of them verify */
export function createKeyRing(rootKeys: readonly Uint8Array[]): KeyRing {
  const keys = rootKeys.map((key) => deriveKey(key, 'capability'));
  const secretKeys = rootKeys.map((key) => deriveKey(key, 'secret'));
  const [newest, newestSecret] = [keys[0], secretKeys[0]];
  if (!newest || !newestSecret) throw new Error('a key ring needs a key');
  return {
    capability: (purpose, instance) => deriveCapability(newest, purpose, instance),
    capabilities: (purpose, instance) => keys.map((key) => deriveCapability(key, purpose, instance)),
    verify: (purpose, text) => verifyCapability(keys, purpose, text),
    sealSecret: (owner, name, value) => sealSecret(newestSecret, owner, name, value, randomBytes(12)),
    openSecret(owner, name, sealed) {
      const value = openSecret(secretKeys, owner, name, sealed);
      if (!value)
        throw unavailable(
          'secret_unreadable',
          `the secret ${name} of the ${owner.kind} ${owner.name} opens with no key of BOOTBUNDLE_KEY: add the key it was sealed with, or set it anew`,
        );
      return value;
    },
    isSealedAnew: (sealed) => isSealedWith(newestSecret, sealed),
    checks: rootKeys.map((key) => Buffer.from(deriveKey(key, 'check')).toString('hex')),
  };
}

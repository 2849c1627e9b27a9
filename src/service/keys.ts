import { createHmac, timingSafeEqual } from 'node:crypto';
import { type CapabilityClaim, deriveCapability, deriveKey, verifyCapability } from '../domain/capability.ts';
import type { Instance, Purpose } from '../domain/instance.ts';

/** Makes and checks capabilities under a ring of root keys, newest first. */
export interface KeyRing {
  capability(purpose: Purpose, instance: Pick<Instance, 'id' | 'generations'>): string;
  verify(purpose: Purpose, text: string): CapabilityClaim | null;
  /** One value per root key, newest first, by which a database knows the key it was made under; it gives away nothing of the key. */
  readonly checks: readonly string[];
}

/** @param rootKeys newest first: the first one makes capabilities, all of them verify */
export function createKeyRing(rootKeys: readonly Uint8Array[]): KeyRing {
  const keys = rootKeys.map((key) => deriveKey(key, 'capability'));
  const newest = keys[0];
  if (!newest) throw new Error('a key ring needs a key');
  return {
    capability: (purpose, instance) => deriveCapability(newest, purpose, instance),
    verify: (purpose, text) => verifyCapability(keys, purpose, text),
    checks: rootKeys.map((key) => Buffer.from(deriveKey(key, 'check')).toString('hex')),
  };
}

/** Who asks, and what they may do. */
export interface Actor {
  name: string;
  role: 'admin';
}

/** Tells who a token belongs to, or null. In constant time: equal-length digests are compared, never the tokens themselves. */
export type Authenticate = (token: string) => Actor | null;

export function createAuthenticator(adminToken: string): Authenticate {
  const digest = (token: string) => createHmac('sha256', 'bootbundle/token').update(token).digest();
  const admin = digest(adminToken);
  return (token) => (timingSafeEqual(digest(token), admin) ? { name: 'admin', role: 'admin' } : null);
}

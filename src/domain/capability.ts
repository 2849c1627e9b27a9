import { createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { type Instance, PURPOSES, type Purpose } from './instance.ts';

/** A key for capabilities, derived from one root key. */
export type CapabilityKey = Uint8Array;

/** What a capability says about itself; worth something only once its MAC was checked. */
export interface CapabilityClaim {
  /** 16 hex digits. */
  instanceId: string;
  generation: number;
}

const ID_BYTES = 8;
const GENERATION_BYTES = 4;
const MAC_BYTES = 18;
/** 30 bytes are 40 base64url characters with no spare bits, so each capability has exactly one spelling. */
const FORM = /^[A-Za-z0-9_-]{40}$/;

/** HKDF-SHA-256 of a root key for one use: what leaks of one use says nothing of another. */
export function deriveKey(rootKey: Uint8Array, use: 'capability' | 'secret' | 'check'): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', rootKey, '', `bootbundle/${use}/v1`, 32));
}

/**
 * The unguessable path segment: base64url of instance id (8 bytes), generation (4, big endian) and the first 18 bytes of
 * HMAC-SHA-256 over purpose, id and generation. Derived, never stored: a leaked database gives no URL.
 */
export function deriveCapability(key: CapabilityKey, purpose: Purpose, instance: Pick<Instance, 'id' | 'generations'>): string {
  const head = Buffer.alloc(ID_BYTES + GENERATION_BYTES);
  head.write(instance.id, 'hex');
  head.writeUInt32BE(instance.generations[purpose], ID_BYTES);
  return Buffer.concat([head, mac(key, purpose, head)]).toString('base64url');
}

/**
 * Checks form and MAC, in constant time and without any database. `keys` is the ring, newest first.
 * @returns what it claims, or null when it is malformed or no key of the ring made it for this purpose
 */
export function verifyCapability(keys: readonly CapabilityKey[], purpose: Purpose, text: string): CapabilityClaim | null {
  if (!FORM.test(text)) return null;
  const bytes = Buffer.from(text, 'base64url');
  const head = bytes.subarray(0, ID_BYTES + GENERATION_BYTES);
  const given = bytes.subarray(ID_BYTES + GENERATION_BYTES);
  let genuine = false;
  for (const key of keys) genuine = timingSafeEqual(mac(key, purpose, head), given) || genuine;
  return genuine ? { instanceId: head.toString('hex', 0, ID_BYTES), generation: head.readUInt32BE(ID_BYTES) } : null;
}

function mac(key: CapabilityKey, purpose: Purpose, head: Uint8Array): Uint8Array {
  return createHmac('sha256', key)
    .update(Uint8Array.of(PURPOSES.indexOf(purpose)))
    .update(head)
    .digest()
    .subarray(0, MAC_BYTES);
}

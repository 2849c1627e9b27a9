import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import { invalid } from './errors.ts';

/** Whose secret it is: a bundle's (for every machine that refers to it) or one machine's own, which goes over the bundle's. */
export interface SecretOwner {
  kind: 'bundle' | 'instance';
  name: string;
}

/** What may be told of a secret. */
export interface SecretInfo {
  name: string;
  /** Of the value, as it was sent. */
  bytes: number;
  /** Whether the value ends in a line break: `echo` adds one, `-d @file` loses it. */
  endsWithNewline: boolean;
  /** Epoch milliseconds of the last change. */
  updatedAt: number;
}

/** A secret as the database holds it. */
export interface SealedSecret extends SecretInfo {
  /** What `sealSecret` made of the value. */
  sealed: Uint8Array;
}

/** A secret to be kept; the store adds when. */
export type NewSecret = Omit<SealedSecret, 'name' | 'updatedAt'>;

/** A key for secrets, derived from one root key (domain/capability.ts, deriveKey). */
export type SecretKey = Uint8Array;

/** A name that a template can write after `secrets.`, or in brackets: `secrets["tls.key"]`. */
export const SECRET_NAME_PATTERN = '^[A-Za-z_][A-Za-z0-9_.-]{0,62}$';

/** Checks a secret's name. @throws invalid `bad_secret_name` */
export function checkSecretName(name: string): string {
  if (!new RegExp(SECRET_NAME_PATTERN).test(name) || name === '__proto__')
    throw invalid(
      'bad_secret_name',
      'a secret name has 1 to 63 of A-Z a-z 0-9 _ . - and begins with a letter or _; templates write secrets.NAME',
    );
  return name;
}

const FORMAT = 1;
const KEY_ID_BYTES = 4;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const HEAD_BYTES = 1 + KEY_ID_BYTES + NONCE_BYTES;

/**
 * Seals a value with AES-256-GCM, bound to its owner and name, so that a row moved to another machine does not open. The format: one byte
 * of version, 4 of key id, 12 of nonce, the ciphertext, 16 of tag.
 * @param nonce 12 random bytes, never used twice with one key
 */
export function sealSecret(key: SecretKey, owner: SecretOwner, name: string, value: Uint8Array, nonce: Uint8Array): Uint8Array {
  if (nonce.length !== NONCE_BYTES) throw new Error('a nonce has 12 bytes');
  const cipher = createCipheriv('aes-256-gcm', key, nonce).setAAD(bindingOf(owner, name));
  return Buffer.concat([Uint8Array.of(FORMAT), keyId(key), nonce, cipher.update(value), cipher.final(), cipher.getAuthTag()]);
}

/**
 * Opens what `sealSecret` made.
 * @param keys the ring, newest first
 * @returns the value, or null when no key of the ring sealed it, or it is not this owner's secret of this name
 */
export function openSecret(
  keys: readonly SecretKey[],
  owner: SecretOwner,
  name: string,
  sealed: Uint8Array,
): Uint8Array | null {
  const key = keys.find((candidate) => isSealedWith(candidate, sealed));
  if (!key || sealed.length < HEAD_BYTES + TAG_BYTES) return null;
  try {
    const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(1 + KEY_ID_BYTES, HEAD_BYTES))
      .setAAD(bindingOf(owner, name))
      .setAuthTag(sealed.subarray(-TAG_BYTES));
    return Buffer.concat([decipher.update(sealed.subarray(HEAD_BYTES, -TAG_BYTES)), decipher.final()]);
  } catch {
    return null;
  }
}

/** Whether this key, and not another of the ring, sealed it. */
export function isSealedWith(key: SecretKey, sealed: Uint8Array): boolean {
  return sealed[0] === FORMAT && keyId(key).equals(sealed.subarray(1, 1 + KEY_ID_BYTES));
}

function keyId(key: SecretKey): Buffer {
  return createHash('sha256').update('bootbundle/secret-key-id').update(key).digest().subarray(0, KEY_ID_BYTES);
}

function bindingOf({ kind, name: owner }: SecretOwner, name: string): Buffer {
  // Neither a name of ours nor a secret's holds a NUL.
  return Buffer.from(`${kind}\0${owner}\0${name}`);
}

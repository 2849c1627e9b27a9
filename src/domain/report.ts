import { createHash } from 'node:crypto';
import type { BootEvent } from './boot.ts';

/** What a machine's applier said of one manifest: applied, failed for good, or failed and tried again. */
export type ManifestStatus = 'applied' | 'failed' | 'retrying';

/** A manifest's result, in the machine's own words: whoever is root there can say what he likes. */
export interface ManifestResult {
  /** Unique per result, so that one that is sent twice is kept once. */
  id: string;
  /** The file in the machine's spool, and the name the part was sent under. */
  file: string;
  part: string;
  /** Hex SHA-256 of the file. */
  sha256: string;
  status: ManifestStatus;
  attempts: number;
  /** `kubectl`, `k3s kubectl`, `kubecfg`; and its version, empty where it does not say. */
  client: string;
  clientVersion: string;
  /** The end of what the client printed. */
  output: string;
  /** Epoch milliseconds by the machine's clock. */
  at: number;
}

/** The logs whose ends are taken. */
export const LOG_NAMES = ['cloud-init-output.log', 'cloud-init.log', 'result.json'] as const;
export type LogName = (typeof LOG_NAMES)[number];

/** The end of a log. */
export interface LogTail {
  name: LogName;
  /** As it was posted, with `\uFFFD` for what is not UTF-8 and without capabilities. */
  text: string;
  /** Whether the beginning is missing. */
  truncated: boolean;
}

/** cloud-init's phone-home: what names the machine has, and the public SSH host keys. */
export interface PhoneHome {
  instanceId: string;
  hostname: string;
  fqdn: string;
  /** By kind (`rsa`, `ed25519`): the key's line, and its SHA-256 fingerprint as ssh-keygen prints it; null where it is no key. */
  hostKeys: readonly { kind: string; key: string; fingerprint: string | null }[];
}

/** What one report says. */
export type ReportBody =
  | { kind: 'event'; event: BootEvent }
  | { kind: 'phoneHome'; phoneHome: PhoneHome }
  | { kind: 'log'; log: LogTail }
  | { kind: 'manifest'; manifest: ManifestResult };

/** Something a machine told us, and when it arrived. */
export type Report = ReportBody & {
  /** Grows with time; also the cursor of a list. */
  id: number;
  instance: string;
  /** Epoch milliseconds by our clock. */
  at: number;
};

/** A report about to be kept. */
export interface NewReport {
  instanceId: string;
  /** Of the capability it came by. */
  generation: number;
  /** Epoch milliseconds by our clock. */
  at: number;
  body: ReportBody;
  /** Tells what is sent twice: of a phone-home and a log within one boot, since the next one may say the same. */
  key: string;
  /** So many of its kind are kept: events and manifests together, logs by name. */
  limit: number;
}

/** `repeated`: it was there already. */
export type ReportOutcome = 'stored' | 'repeated';

/**
 * A public SSH key's fingerprint as `ssh-keygen -l` prints it: SHA-256 in base64 without padding (OpenSSH sshkey.c). Null for what is no key: the
 * blob has to begin with the name before it (RFC 4253, 6.6).
 */
export function fingerprintOf(key: string): string | null {
  const [name = '', text = ''] = key.trim().split(/[ \t]+/);
  const blob = Buffer.from(text, 'base64');
  if (name === '' || blob.length < 4 + name.length || blob.toString('base64') !== text) return null;
  if (blob.readUInt32BE(0) !== name.length || blob.toString('latin1', 4, 4 + name.length) !== name) return null;
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;
}

/** What a machine says may quote the URLs it was told: a capability in it is nobody's to read. */
export function withoutCapabilities(text: string): string {
  return text.replace(/(\/[irs]\/)[\w-]{40}(?![\w-])/g, '$1‹capability›');
}

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

/** The end of a log, as it was posted. */
export interface LogTail {
  /** `cloud-init-output.log` */
  name: string;
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

/** `repeated`: it was there already. */
export type ReportOutcome = 'stored' | 'repeated';

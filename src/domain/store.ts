import type { Bundle, Revision, RevisionContent } from './bundle.ts';
import type { Delivery, DeliveryOutcome, NewDelivery } from './delivery.ts';
import type { Instance, InstanceSpec } from './instance.ts';
import type { Reference } from './names.ts';
import type { LogName, NewReport, Report, ReportOutcome } from './report.ts';
import type { NewSecret, SealedSecret, SecretOwner } from './secret.ts';

/** A page of a list: at most `limit` items whose key comes after `after` (null: from the start). */
export interface Page<Key> {
  after: Key | null;
  limit: number;
}

/** A bundle as a list shows it. */
export interface BundleSummary {
  name: string;
  revision: number;
  digest: string;
  parts: number;
  /** Who wrote the newest revision. */
  author: string;
  updatedAt: number;
  retiredAt: number | null;
}

/** A body that outlives a purge, since other revisions have it: `web@4`. */
export interface KeptBody {
  sha256: string;
  filename: string;
  revisions: string[];
}

/** Who refers to a bundle. */
export interface BundleUse {
  instance: string;
  reference: string;
}

export interface InstanceFilter {
  /** Refers to this bundle, in whatever way. */
  bundle?: string | undefined;
  /** Has all of these labels; a null value asks only for the key. */
  labels?: { key: string; value: string | null }[] | undefined;
  /** cloud-init's instance-id. */
  instanceId?: string | undefined;
  /** Fetched a document from this address. */
  address?: string | undefined;
  /** Tombstones instead of the living. */
  retired?: boolean | undefined;
}

/** What a reference means at one moment. Revisions never change, a bundle's secrets do: their version counts every change. */
export interface Meaning {
  revision: number;
  secretsVersion: number;
}

/**
 * What a look at machines was based on. A write that brings it is refused (conflict `changed_meanwhile`) once any of it no longer holds, so
 * nothing is committed that was not looked at.
 */
export interface Sight {
  /** Each reference that was followed (`web@stable`), and what it meant. */
  references: ReadonlyMap<string, Meaning>;
  /** All living instances that refer to a bundle in whatever way, with their versions. */
  followers?: { bundle: string; versions: ReadonlyMap<string, number> };
}

/** One registration or change. `expect`: the version the caller saw, null for "must not exist", undefined for "whatever it is". */
export interface InstanceWrite {
  name: string;
  spec: InstanceSpec;
  /** The id it gets if its name was never used. */
  freshId: string;
  expect: number | null | undefined;
  /** Secrets to set, or (null) to remove; the others stay. None: none changes. */
  secrets?: ReadonlyMap<string, NewSecret | null>;
}

/** A secret with whose it is. */
export interface StoredSecret {
  key: { owner: SecretOwner; name: string };
  sealed: Uint8Array;
}

/** So many versions' specs are kept per instance, the newest. */
export const SPECS_KEPT = 100;

export interface InstanceWritten {
  instance: Instance;
  created: boolean;
  changed: boolean;
}

/**
 * Where everything is kept. Each method is one whole, atomic operation: when it resolves, what it wrote is on disk;
 * when it rejects, nothing was written. Any method may reject with `unavailable` (the database is away) or `storage_full`.
 * Times are epoch milliseconds and always come from the caller.
 */
export interface Store {
  // ---- bundles

  /**
   * Adds the next revision of a bundle, with the bodies its parts name that are not stored yet (a body is stored once, by SHA-256).
   * `base` is the newest revision the caller computed from: its number, or null when the bundle does not exist or is retired.
   * Creates the bundle, or revives a retired one: numbers go on counting.
   * @throws conflict `changed_meanwhile` when `base` is no longer the newest, or `sight` no longer holds
   */
  putRevision(write: {
    bundle: string;
    base: number | null;
    content: RevisionContent;
    digest: string;
    bodies: ReadonlyMap<string, Uint8Array>;
    at: number;
    author: string;
    /** What the author says of it, or null. */
    message: string | null;
    sight?: Sight;
  }): Promise<Revision>;

  /** The bundle with its newest revision and tags; a retired one too (`retiredAt` is set, no tags). */
  findBundle(name: string): Promise<Bundle | null>;
  /** By name. Living bundles, or (`retired`) tombstones. */
  listBundles(page: Page<string>, filter: { retired: boolean }): Promise<BundleSummary[]>;
  /**
   * Leaves a tombstone, and drops the tags and secrets. Revisions and bodies stay.
   * @throws conflict `changed_meanwhile` when `base` is not the newest revision; conflict `in_use` naming instances that refer to it
   */
  retireBundle(name: string, change: { base: number; at: number }): Promise<void>;
  findRevision(bundle: string, number: number): Promise<Revision | null>;
  /** Newest first: `after` is the number of the last one seen. */
  listRevisions(bundle: string, page: Page<number>): Promise<Revision[]>;
  /**
   * Drops a revision's content for good: its vars, and the bodies that no other unpurged revision has. Number, digest, part names and hashes stay,
   * and `purgedAt` is set; purging it again changes nothing.
   * @returns the revision, and for each body that stays, which revisions still have it
   * @throws not_found `unknown_revision`; conflict `in_use` when it is what a living bundle has newest, a tag names or a living instance pins
   */
  purgeRevision(bundle: string, number: number, at: number): Promise<{ revision: Revision; kept: KeptBody[] }>;
  /** The bytes of a part, or null. */
  findBody(sha256: string): Promise<Uint8Array | null>;
  /** The living instances that refer to a bundle, by name, and how many there are in all. */
  listBundleUses(bundle: string, limit: number): Promise<{ uses: BundleUse[]; total: number }>;

  /**
   * Sets a tag. @returns whether it was new, and whether anything changed
   * @throws not_found `unknown_bundle` (or retired), `unknown_revision`; conflict `purged`; conflict `changed_meanwhile` when `sight` no longer holds
   */
  putTag(
    bundle: string,
    tag: string,
    revision: number,
    change: { at: number; sight?: Sight },
  ): Promise<{ created: boolean; changed: boolean }>;
  /** @throws not_found `unknown_bundle`, `unknown_tag`; conflict `in_use` naming instances that follow it */
  deleteTag(bundle: string, tag: string): Promise<void>;

  /** What each reference means now; null where bundle (or its tag or revision) does not exist, is retired or was purged. One query. */
  resolveReferences(references: readonly Reference[]): Promise<(Meaning | null)[]>;

  // ---- instances

  /**
   * Registers or changes instances, all or none. An equal spec without a change of secrets changes nothing. A retired name is revived with its
   * id, every generation raised by one, its delivery count begun anew. Each version's spec is kept (SPECS_KEPT of them).
   * @throws precondition_failed `etag_mismatch` when an `expect` does not hold; invalid `unknown_bundle` when a reference means nothing (any more);
   *   conflict `changed_meanwhile` when `sight` no longer holds
   */
  putInstances(writes: readonly InstanceWrite[], change: { at: number; sight?: Sight }): Promise<InstanceWritten[]>;
  /** What an instance stated at a version, or null when that is no longer known. */
  findSpec(instance: string, version: number): Promise<InstanceSpec | null>;
  /** By name; a retired one too. */
  findInstance(name: string): Promise<Instance | null>;
  /** By id, for a fetch: living ones only. */
  findInstanceById(id: string): Promise<Instance | null>;
  /** By name. */
  listInstances(page: Page<string>, filter: InstanceFilter): Promise<Instance[]>;
  /**
   * Leaves a tombstone, and drops its secrets; its capabilities open nothing from now on.
   * @throws not_found `unknown_instance`; precondition_failed `etag_mismatch` when `expect` is given and not the version
   */
  retireInstance(name: string, change: { expect: number | undefined; at: number }): Promise<void>;

  // ---- secrets

  /**
   * Sets or (null) removes a bundle's secrets, all or none, and raises its secrets' version. `base` is the version the caller computed from.
   * @throws not_found `unknown_bundle`; conflict `changed_meanwhile` when `base` or `sight` no longer holds
   */
  putBundleSecrets(
    bundle: string,
    secrets: ReadonlyMap<string, NewSecret | null>,
    change: { base: number; at: number; sight?: Sight },
  ): Promise<void>;
  /** The secrets of each owner, by name, in the order of the owners. One query. */
  findSecrets(owners: readonly SecretOwner[]): Promise<SealedSecret[][]>;
  /** Every secret there is, for sealing them anew: by kind, owner and name. */
  listSecrets(page: Page<StoredSecret['key']>): Promise<StoredSecret[]>;
  /** Puts a newly sealed form in the place of `before`, and nothing else: no version changes. @returns false when `before` is not there any more */
  resealSecret(key: StoredSecret['key'], before: Uint8Array, after: Uint8Array): Promise<boolean>;

  // ---- ledger

  /**
   * Puts deliveries into the ledger, all or none, and counts them: a `delivered` one counts unless a counted one of the
   * same instance and address lies less than REPEAT_WINDOW_MS from it. One commit for the whole batch.
   * @returns the row ids, in the same order
   */
  recordDeliveries(deliveries: readonly NewDelivery[]): Promise<number[]>;
  /** Corrects how a delivery ended. */
  closeDelivery(id: number, outcome: DeliveryOutcome): Promise<void>;
  /** Newest first: `after` is the id of the last one seen. `instance` is a name. */
  listDeliveries(instance: string, page: Page<number>): Promise<Delivery[]>;

  // ---- reports

  /**
   * Keeps what a machine told us, once, up to its limit: past it the oldest are dropped and the drops counted. In the same transaction it is noted in
   * what is known of the machine's boot; a repeated one changes nothing. @returns the instance's name, and what became of the report
   * @throws not_found `unknown_capability` when no living instance has that id, or its generation is another one
   */
  recordReport(report: NewReport): Promise<{ instance: string; outcome: ReportOutcome }>;
  /** Newest first: `after` is the id of the last one seen. `instance` is a name. */
  listReports(instance: string, page: Page<number>): Promise<Report[]>;
  /** The ends of logs that are kept, or of one log: newest first. `instance` is a name. */
  listLogs(instance: string, name: LogName | null): Promise<(Report & { kind: 'log' })[]>;

  // ---- the database itself

  /**
   * Binds the database to the key it was made under: an empty one takes `checks[0]`; one that knows any of `checks` takes `checks[0]` from now on.
   * @returns false when it knows none of them, so belongs to another key
   */
  claimKey(checks: readonly string[]): Promise<boolean>;
  /** Resolves when a trivial query does. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

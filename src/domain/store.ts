import type { Actor, NamePatterns } from './actor.ts';
import type { Alarm, Raised } from './alarm.ts';
import type { AuditDetail, AuditEntry, AuditFilter, AuditNote } from './audit.ts';
import type { Deadlines, State, StateFacts } from './boot.ts';
import type { Bundle, Revision, RevisionContent } from './bundle.ts';
import type { Delivery, DeliveryOutcome, NewDelivery, Recorded } from './delivery.ts';
import type { Instance, InstanceSpec, Purpose } from './instance.ts';
import type { Reference } from './names.ts';
import type { PolicyDefaults } from './policy.ts';
import type { LogName, NewReport, Report, ReportOutcome } from './report.ts';
import type { NewSecret, SealedSecret, SecretOwner } from './secret.ts';
import type { NewToken, StoredToken, Token, TokenCursor } from './token.ts';

/** A page of a list: at most `limit` items whose key comes after `after` (null: from the start). */
export interface Page<Key> {
  after: Key | null;
  limit: number;
  /** Of a list that goes newest first: only what is newer than this one. */
  newerThan?: Key | undefined;
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

export interface BundleFilter {
  /** Tombstones instead of the living. */
  retired: boolean;
  /** Only of names that fit. */
  names?: NamePatterns | undefined;
}

export interface InstanceFilter {
  /** Only of names that fit. */
  names?: NamePatterns | undefined;
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
  /** In this state at a moment. */
  state?: { is: State; now: number; deadlines: Deadlines } | undefined;
  /**
   * What it fetched last, since it was registered (or reopened), was rendered from other revisions or secrets, or for another version of
   * the instance, than a document would be now. Nothing is rendered: the bytes may be equal all the same.
   */
  stale?: boolean | undefined;
}

/** What an instance's state depends on, without what it states. */
export interface InstanceState extends StateFacts {
  name: string;
}

/** Which rows of the ledger. */
export interface LedgerFilter {
  /** By name. */
  instance?: string | undefined;
  /** Any revision of a bundle, or (with a number) one of them, was in it. */
  bundle?: { name: string; revision: number | null } | undefined;
  address?: string | undefined;
  outcome?: DeliveryOutcome | undefined;
  counted?: boolean | undefined;
  /** From then on, and before then: epoch milliseconds. */
  since?: number | undefined;
  until?: number | undefined;
  /** Only of instances whose names fit. */
  names?: NamePatterns | undefined;
}

/** Where a walk through the ledger stands: at the delivery seen last. */
export interface LedgerCursor {
  at: number;
  id: number;
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
  /** The version the look at it was based on, null for "not there"; its secrets are of that version. Undefined: on none. */
  seen?: number | null;
  /** Secrets to set, or (null) to remove; the others stay. None: none changes. */
  secrets?: ReadonlyMap<string, NewSecret | null>;
}

/** A secret with whose it is; `old`: which of the values it had before, null for the one it has. */
export interface StoredSecret {
  key: { owner: SecretOwner; name: string; old: number | null };
  sealed: Uint8Array;
}

/** So many versions' specs are kept per instance, the newest. */
export const SPECS_KEPT = 100;

export interface InstanceWritten {
  instance: Instance;
  created: boolean;
  changed: boolean;
}

/** `expect`: the version the caller saw, undefined for "whatever it is". */
export interface WindowChange {
  expect: number | undefined;
  at: number;
  by: Actor;
}

export interface InstanceChange {
  before: Instance;
  after: Instance;
  changed: boolean;
}

/** The connections of a pool: how many there are, how many of them do nothing, and how many uses wait for one. */
export interface PoolUse {
  total: number;
  idle: number;
  waiting: number;
}

/** Who makes a change, when, and what the audit is to say of it beside what the store knows. */
export interface Change {
  at: number;
  by: Actor;
  detail?: AuditDetail | undefined;
}

/**
 * Where everything is kept. Each method is one whole, atomic operation: when it resolves, what it wrote is on disk;
 * when it rejects, nothing was written. Any method may reject with `unavailable` (the database is away) or `storage_full`.
 * Times are epoch milliseconds and always come from the caller. What changes something that an operator states writes a line of the audit in
 * the same transaction: `by` whom, and what. What changes nothing writes none.
 */
export interface Store {
  // ---- bundles

  /**
   * Adds the next revision of a bundle, with the bodies its parts name that are not stored yet (a body is stored once, by SHA-256).
   * `base` is the newest revision the caller computed from: its number, or null when the bundle does not exist or is retired.
   * Creates the bundle, or revives a retired one: numbers go on counting.
   * @throws conflict `changed_meanwhile` when `base` is no longer the newest, or `sight` no longer holds
   */
  putRevision(
    write: Change & {
      bundle: string;
      base: number | null;
      content: RevisionContent;
      digest: string;
      bodies: ReadonlyMap<string, Uint8Array>;
      /** What the author (`by`) says of it, or null. */
      message: string | null;
      sight?: Sight;
    },
  ): Promise<Revision>;

  /** The bundle with its newest revision and tags; a retired one too (`retiredAt` is set, no tags). */
  findBundle(name: string): Promise<Bundle | null>;
  /** By name. Living bundles, or (`retired`) tombstones. */
  listBundles(page: Page<string>, filter: BundleFilter): Promise<BundleSummary[]>;
  /**
   * Leaves a tombstone, and drops the tags and secrets. Revisions and bodies stay.
   * @throws conflict `changed_meanwhile` when `base` is not the newest revision; conflict `in_use` naming instances that refer to it
   */
  retireBundle(name: string, change: Change & { base: number }): Promise<void>;
  findRevision(bundle: string, number: number): Promise<Revision | null>;
  /** Newest first: `after` is the number of the last one seen. */
  listRevisions(bundle: string, page: Page<number>): Promise<Revision[]>;
  /**
   * Drops a revision's content for good: its vars, and the bodies that no other unpurged revision has. Number, digest, part names and hashes stay,
   * and `purgedAt` is set; purging it again changes nothing.
   * @returns the revision, and for each body that stays, which revisions still have it
   * @throws not_found `unknown_revision`; conflict `in_use` when it is what a living bundle has newest, a tag names or a living instance pins
   */
  purgeRevision(bundle: string, number: number, change: Change): Promise<{ revision: Revision; kept: KeptBody[] }>;
  /** The bytes of a part, or null. */
  findBody(sha256: string): Promise<Uint8Array | null>;
  /** The living instances that refer to a bundle, those whose names fit, by name, and how many there are in all. */
  listBundleUses(bundle: string, limit: number, names?: NamePatterns): Promise<{ uses: BundleUse[]; total: number }>;

  /**
   * Sets a tag. @returns whether it was new, and whether anything changed
   * @throws not_found `unknown_bundle` (or retired), `unknown_revision`; conflict `purged`; conflict `changed_meanwhile` when `sight` no longer holds
   */
  putTag(
    bundle: string,
    tag: string,
    revision: number,
    change: Change & { sight?: Sight },
  ): Promise<{ created: boolean; changed: boolean }>;
  /** @throws not_found `unknown_bundle`, `unknown_tag`; conflict `in_use` naming instances that follow it */
  deleteTag(bundle: string, tag: string, change: Change): Promise<void>;

  /** What each reference means now; null where bundle (or its tag or revision) does not exist, is retired or was purged. One query. */
  resolveReferences(references: readonly Reference[]): Promise<(Meaning | null)[]>;

  // ---- instances

  /**
   * Registers or changes instances, all or none. An equal spec without a change of secrets changes nothing. A retired name is revived with its
   * id, every generation raised by one, its delivery count begun anew. Each version's spec is kept (SPECS_KEPT of them).
   * @throws precondition_failed `etag_mismatch` when an `expect` does not hold; invalid `unknown_bundle` when a reference means nothing (any more);
   *   conflict `changed_meanwhile` when `sight` or a `seen` no longer holds
   */
  putInstances(writes: readonly InstanceWrite[], change: Change & { sight?: Sight }): Promise<InstanceWritten[]>;
  /** The version of each living instance of these names, in the same order; null where there is none. One query. */
  findVersions(names: readonly string[]): Promise<(number | null)[]>;
  /** What an instance stated at a version, or null when that is no longer known. */
  findSpec(instance: string, version: number): Promise<InstanceSpec | null>;
  /** By name; a retired one too. */
  findInstance(name: string): Promise<Instance | null>;
  /** By id, for a fetch: living ones only. */
  findInstanceById(id: string): Promise<Instance | null>;
  /** By id, a retired one too. */
  findInstanceByIdEvenRetired(id: string): Promise<Instance | null>;
  /** By name. */
  listInstances(page: Page<string>, filter: InstanceFilter): Promise<Instance[]>;
  /** Only what their states depend on: by name. */
  listStates(page: Page<string>, filter: Omit<InstanceFilter, 'stale'>): Promise<InstanceState[]>;
  /**
   * Notes of at most `limit` living instances that a deadline has passed and it was not noted yet.
   * @returns their names: each silence is told to one caller only, also when several ask at once
   */
  sweepSilent(sweep: { now: number; deadlines: Deadlines; limit: number }): Promise<string[]>;
  /**
   * Leaves a tombstone, and drops its secrets; its capabilities open nothing from now on.
   * @throws not_found `unknown_instance`; precondition_failed `etag_mismatch` when `expect` is given and not the version; conflict
   *   `seed_in_use` when its seed was fetched and `force` is not said
   */
  retireInstance(name: string, change: Change & { expect: number | undefined; force?: boolean }): Promise<void>;

  // ---- secrets

  /**
   * Sets or (null) removes a bundle's secrets, all or none, and raises its secrets' version. `base` is the version the caller computed from.
   * @throws not_found `unknown_bundle`; conflict `changed_meanwhile` when `base` or `sight` no longer holds
   */
  putBundleSecrets(
    bundle: string,
    secrets: ReadonlyMap<string, NewSecret | null>,
    change: Change & { base: number; sight?: Sight },
  ): Promise<void>;
  /** The secrets of each owner, by name, in the order of the owners. One query. */
  findSecrets(owners: readonly SecretOwner[]): Promise<SealedSecret[][]>;
  /**
   * The same as they were at a version: a bundle's secrets version, an instance's version; null for now. A value that was replaced or removed is
   * kept, up to LIMITS.oldSecretsPerOwner of them, until {@link pruneOldSecrets} finds that no delivery needs it.
   */
  findSecretsAt(
    owners: readonly (SecretOwner & { version: number | null })[],
  ): Promise<Pick<SealedSecret, 'name' | 'sealed'>[][]>;
  /** Whether values that an owner's secrets had at a version may be gone, because there were too many old ones. */
  forgotSecrets(owner: SecretOwner, version: number): Promise<boolean>;
  /** Every secret there is, for sealing them anew: by kind, owner and name; then every old value, in the order in which they were replaced. */
  listSecrets(page: Page<StoredSecret['key']>): Promise<StoredSecret[]>;
  /** Puts a newly sealed form in the place of `before`, and nothing else: no version changes. @returns false when `before` is not there any more */
  resealSecret(key: StoredSecret['key'], before: Uint8Array, after: Uint8Array, change: Change): Promise<boolean>;

  // ---- ledger

  /**
   * Puts deliveries into the ledger, and counts them: a `delivered` one counts unless a counted one of the same instance and address lies less
   * than REPEAT_WINDOW_MS from it. Each is held against its instance as it is then (version, generation, window, allowed addresses); one that was
   * made for something else is not recorded (`changed`). What is refused, and a second machine, are alarms. A counted delivery, and one that
   * could not be rendered, are noted in the boot. One commit for the whole batch, in the order given.
   */
  recordDeliveries(deliveries: readonly NewDelivery[], defaults: PolicyDefaults): Promise<Recorded[]>;
  /** Whether a counted delivery of the present window to the same address lies less than REPEAT_WINDOW_MS from a fetch. `instance` is a name. */
  isRepeat(fetch: { instance: string; address: string; at: number }): Promise<boolean>;
  /** Corrects how a delivery ended. */
  closeDelivery(id: number, outcome: DeliveryOutcome): Promise<void>;
  /** One of an instance's; null also when the ledger keeps it no longer. `instance` is a name. */
  findDelivery(instance: string, id: number): Promise<Delivery | null>;
  /** Newest first: `after` is the id of the last one seen. `instance` is a name. */
  listDeliveries(instance: string, page: Page<number>): Promise<Delivery[]>;
  /**
   * Across instances, newest first. One call looks at so many rows only that it takes a moment, so a page may be short, even empty.
   * @returns where to go on; null at the ledger's end
   */
  scanDeliveries(
    filter: LedgerFilter,
    page: { after: LedgerCursor | null; limit: number },
  ): Promise<{ deliveries: Delivery[]; next: LedgerCursor | null }>;

  // ---- alarms and windows

  /**
   * Keeps what happened, retired instances' too; within ALARM_BURST_MS of the last of the same kind from the same address it adds to that.
   * Up to ALARMS_KEPT per instance: past it the oldest are dropped. @returns the alarm that it began; null where there was one, or no instance
   */
  recordAlarm(raised: Raised): Promise<Alarm | null>;
  /** Newest first: `after` is the id of the last one seen. `instance` is a name. */
  listAlarms(instance: string, page: Page<number>): Promise<Alarm[]>;
  /**
   * Shuts an instance's window, and says so in the audit. Shut by hand already, nothing changes.
   * @throws not_found `unknown_instance`; precondition_failed `etag_mismatch` when `expect` is given and not the version
   */
  closeWindow(name: string, change: WindowChange): Promise<InstanceChange>;
  /** Opens it, until a time or (null) for as long as the policy says: count, first delivery and boot begin anew. @throws as closeWindow */
  reopenWindow(name: string, change: WindowChange & { until: number | null }): Promise<InstanceChange>;
  /**
   * Raises generations, and with them the version: the capabilities of before open nothing.
   * @throws as closeWindow; conflict `seed_in_use` when the seed's is among them, was fetched, and `force` is not said
   */
  rotateCapabilities(
    name: string,
    change: WindowChange & { purposes: readonly Purpose[]; force: boolean },
  ): Promise<InstanceChange>;
  /**
   * One batch: drops up to `limit` of the oldest rows from before a time. What is known of an instance (its counts, its window, its boot) stays.
   * @returns how many went; fewer than `limit`: there are no more
   */
  pruneByAge(what: 'delivery' | 'report' | 'alarm', batch: { before: number; limit: number }): Promise<number>;
  /**
   * One batch: looks at some instances, in the order of their names, `after` the one done last ('' from the start), and drops up to `limit`
   * of the oldest deliveries from those that have more than `keep`, but none from `before` or later.
   * @returns how many went, and whom to go on after; null: that was the last
   */
  pruneByCount(batch: {
    after: string;
    keep: number;
    before: number;
    limit: number;
  }): Promise<{ dropped: number; next: string | null }>;
  /**
   * One batch: looks at `limit` old values of secrets, `after` the last one seen (0: from the start), and drops those that no delivery in the ledger can need: none
   * that holds secrets was rendered while they were in force. (Of a bundle's secrets: for any machine; the ledger is not searched for the bundle.)
   * `slack`, milliseconds: how long a fetch may be under way, and how far replicas' clocks may differ.
   */
  pruneOldSecrets(batch: {
    after: number;
    now: number;
    slack: number;
    limit: number;
  }): Promise<{ dropped: number; next: number | null }>;

  // ---- audit

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
  /** Which instance phoned home last under this instance-id of cloud-init's: its name. */
  findPhoneHome(instanceId: string): Promise<string | null>;

  // ---- tokens

  /**
   * Keeps a new token.
   * @throws conflict `token_exists` when one of that name is living; invalid `too_many_tokens` when `limit` are
   */
  createToken(token: NewToken, change: Change & { limit: number }): Promise<Token>;
  /**
   * Keeps `next` in the place of one that is living, with its name, role and scope; the old one expires at `until`, or when it would have.
   * @throws not_found `unknown_token`; conflict `token_revoked`, `token_expired`; invalid `too_many_tokens`
   */
  rotateToken(
    id: string,
    next: Pick<NewToken, 'id' | 'sha256'>,
    change: Change & { until: number; limit: number },
  ): Promise<{ old: Token; next: Token }>;
  /** It opens nothing from now on; revoked again it stays as it is. @throws not_found `unknown_token` */
  revokeToken(id: string, change: Change): Promise<void>;
  /** One query; of every state. */
  findToken(id: string): Promise<StoredToken | null>;
  /** Of every state: by name, then id. */
  listTokens(page: Page<TokenCursor>): Promise<Token[]>;
  /** Notes a use, at most once in USE_NOTED_MS. No line of the audit. */
  touchToken(id: string, at: number): Promise<void>;

  // ---- audit

  /** Writes a line of what changes nothing, such as a reveal. When it resolves, the line is on disk. */
  recordAudit(note: AuditNote, change: Pick<Change, 'at' | 'by'>): Promise<void>;
  /** Newest first: `after` is the id of the last one seen. */
  listAudit(filter: AuditFilter, page: Page<number>): Promise<AuditEntry[]>;

  // ---- the database itself

  /**
   * Binds the database to the key it was made under: an empty one takes `checks[0]`; one that knows any of `checks` takes `checks[0]` from now on.
   * @returns false when it knows none of them, so belongs to another key
   */
  claimKey(checks: readonly string[]): Promise<boolean>;
  /** How many living instances are in each state at `now`. One query. */
  countInstancesByState(now: number, deadlines: Deadlines): Promise<Record<State, number>>;
  /** The connections to the database now; null where there is no pool. */
  pool(): PoolUse | null;
  /** Resolves when a trivial query does. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

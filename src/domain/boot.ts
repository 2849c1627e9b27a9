import type { ManifestStatus } from './report.ts';

/** How far a machine's boot is. */
export const STATES = ['registered', 'delivered', 'booting', 'ready', 'failed', 'silent'] as const;
export type State = (typeof STATES)[number];

/** cloud-init's stages as its events name them; everything below has a slash (`modules-final/config-scripts-user`). */
export const STAGES = ['init-local', 'init-network', 'modules-config', 'modules-final'] as const;

/** What a delivered document makes a machine say, if all goes well. */
export interface Expectations {
  /** cloud-init's events come: the document carries the tracking config. */
  events: boolean;
  /** Its phone-home comes to us: nobody else's `phone_home` is in the document. */
  phoneHome: boolean;
  /** The parts, by the names they were sent under, whose results an applier reports. */
  manifests: readonly string[];
}

/** A part of a boot that failed, in the machine's words. */
export interface Failure {
  /** `modules-final/config-scripts-user` */
  what: string;
  description: string;
}

/** What is known of the boot that the last counted delivery began. Times by our clock unless said otherwise, epoch milliseconds. */
export interface BootFacts {
  /** Null: nothing was delivered since the registration (or reopening). */
  deliveredAt: number | null;
  expects: Expectations;
  /** A fetch that could not be answered since the last delivery. */
  unrenderedAt: number | null;
  /** The last time the machine said something. */
  lastWordAt: number | null;
  /** The end of the final stage: when, and by the machine's own clock. */
  finalAt: number | null;
  finalClock: number | null;
  failures: readonly Failure[];
  phoneHomeAt: number | null;
  manifests: Readonly<Record<string, ManifestStatus>>;
  /** The first time that all was well. */
  readyAt: number | null;
}

export const NO_BOOT: BootFacts = Object.freeze({
  deliveredAt: null,
  expects: { events: false, phoneHome: false, manifests: [] },
  unrenderedAt: null,
  lastWordAt: null,
  finalAt: null,
  finalClock: null,
  failures: [],
  phoneHomeAt: null,
  manifests: {},
  readyAt: null,
});

/** One of cloud-init's events (reporting/events.py). `at`: by the machine's clock. */
export interface BootEvent {
  name: string;
  type: 'start' | 'finish';
  description: string;
  result: string | null;
  at: number;
}

const FAILURES_KEPT = 10;
const MANIFESTS_KEPT = 300;

/**
 * A counted delivery begins a boot. A seed is fetched at every boot of the same machine, which then neither phones home nor applies
 * its manifests again: those stay.
 */
export function noteDelivery(
  facts: BootFacts,
  { at, purpose, expects }: { at: number; purpose: 'include' | 'seed'; expects: Expectations },
): BootFacts {
  const begun = { ...NO_BOOT, deliveredAt: at, expects };
  if (purpose === 'include' || facts.deliveredAt === null) return begun;
  const { phoneHomeAt, manifests, readyAt } = facts;
  return { ...begun, phoneHomeAt, manifests, readyAt };
}

/** A fetch that could not be answered. */
export function noteUnrendered(facts: BootFacts, at: number): BootFacts {
  return { ...facts, unrenderedAt: at };
}

/**
 * One of cloud-init's events. They may come twice and in any order. The first stages starting after the final one ended, by the
 * machine's clock, are a later boot of the same machine.
 */
export function noteEvent(facts: BootFacts, event: BootEvent, at: number): BootFacts {
  let noted = { ...facts, lastWordAt: at };
  const opens = event.type === 'start' && (event.name === 'init-local' || event.name === 'init-network');
  if (opens && noted.finalClock !== null && event.at > noted.finalClock)
    noted = { ...noted, finalAt: null, finalClock: null, failures: [] };
  if (event.type === 'finish' && event.result === 'FAIL') noted.failures = withFailure(noted.failures, event);
  if (event.type === 'finish' && event.name === 'modules-final') {
    noted.finalAt = at;
    noted.finalClock = event.at;
  }
  return settled(noted, at);
}

export function notePhoneHome(facts: BootFacts, at: number): BootFacts {
  return settled({ ...facts, lastWordAt: at, phoneHomeAt: at }, at);
}

export function noteManifest(facts: BootFacts, manifest: { part: string; status: ManifestStatus }, at: number): BootFacts {
  const known = manifest.part in facts.manifests || Object.keys(facts.manifests).length < MANIFESTS_KEPT;
  const manifests = known ? { ...facts.manifests, [manifest.part]: manifest.status } : facts.manifests;
  return settled({ ...facts, lastWordAt: at, manifests }, at);
}

function settled(facts: BootFacts, at: number): BootFacts {
  return facts.readyAt === null && stateOf(facts).state === 'ready' ? { ...facts, readyAt: at } : facts;
}

function withFailure(failures: readonly Failure[], { name, description }: BootEvent): readonly Failure[] {
  if (failures.length >= FAILURES_KEPT || failures.some(({ what }) => what === name)) return failures;
  return [...failures, { what: name.slice(0, 200), description: description.slice(0, 200) }];
}

/** The state as far as facts go; `silent` is a matter of time ({@link stateAt}). */
export interface StateReport {
  state: State;
  /** One sentence. */
  reason: string;
}

export function stateOf(facts: BootFacts): StateReport {
  if (facts.unrenderedAt !== null)
    return { state: 'failed', reason: 'its document could not be rendered when it asked for it' };
  if (facts.deliveredAt === null) return { state: 'registered', reason: 'it has not fetched its document yet' };
  const failure = failureOf(facts);
  if (failure !== null) return { state: 'failed', reason: failure };
  const missing = missingOf(facts);
  if (missing.length === 0 && (facts.expects.events || facts.expects.manifests.length > 0))
    return { state: 'ready', reason: 'it reported that all it was asked for is done' };
  if (missing.length === 0)
    return { state: 'delivered', reason: 'it fetched its document; with track: false nothing more is expected of it' };
  const waiting = `waiting for ${missing.join(', ')}`;
  return facts.lastWordAt === null
    ? { state: 'delivered', reason: `it fetched its document and has not reported since: ${waiting}` }
    : { state: 'booting', reason: waiting };
}

function failureOf({ failures, manifests }: BootFacts): string | null {
  // The most specific name says most: modules-final/config-scripts-user, not modules-final.
  const [worst] = [...failures].sort((a, b) => b.what.split('/').length - a.what.split('/').length);
  if (worst) return `cloud-init reported that ${worst.what} failed${worst.description === '' ? '' : ` (${worst.description})`}`;
  const [part] = Object.entries(manifests).find(([, status]) => status === 'failed') ?? [];
  return part === undefined ? null : `the manifest ${part} failed for good`;
}

function missingOf({ expects, finalAt, phoneHomeAt, manifests }: BootFacts): string[] {
  const missing: string[] = [];
  if (expects.events && finalAt === null) missing.push('the end of the final stage');
  if (expects.phoneHome && phoneHomeAt === null) missing.push('its phone-home');
  const unapplied = expects.manifests.filter((part) => manifests[part] !== 'applied').length;
  if (unapplied > 0) missing.push(unapplied === 1 ? '1 manifest' : `${unapplied} manifests`);
  return missing;
}

/** How long no word is no reason to worry, milliseconds; null: for ever. */
export interface Deadlines {
  /** From the registration (or reopening) to the first fetch. */
  fetch: number | null;
  /** From the fetch, or the last word, to the next. */
  boot: number | null;
}

/** What the state at a moment depends on. */
export interface StateFacts {
  createdAt: number;
  reopenedAt: number | null;
  boot: BootFacts;
}

/**
 * From when a word is waited for, or null when none is.
 */
export function waitingSince({ createdAt, reopenedAt, boot }: StateFacts): number | null {
  const { state } = stateOf(boot);
  if (state === 'registered') return Math.max(createdAt, reopenedAt ?? 0);
  if (state === 'booting') return boot.lastWordAt;
  return state === 'delivered' && missingOf(boot).length > 0 ? boot.deliveredAt : null;
}

/** A state with the time since when it is so, epoch milliseconds; null where that is not known. */
export interface CurrentState extends StateReport {
  since: number | null;
}

/** The state at a moment: what the facts say, or `silent` once the deadline has passed. */
export function stateAt(facts: StateFacts, deadlines: Deadlines, now: number): CurrentState {
  const known = stateOf(facts.boot);
  const since = waitingSince(facts);
  const patience = known.state === 'registered' ? deadlines.fetch : deadlines.boot;
  if (since === null || patience === null || since + patience > now) return { ...known, since: sinceOf(known.state, facts) };
  const reason = `no word since ${new Date(since).toISOString()}: ${known.reason}`;
  return { state: 'silent', reason, since: since + patience };
}

function sinceOf(state: State, { createdAt, reopenedAt, boot }: StateFacts): number | null {
  switch (state) {
    case 'registered':
      return Math.max(createdAt, reopenedAt ?? 0);
    case 'delivered':
      return boot.deliveredAt;
    case 'ready':
      return boot.readyAt;
    case 'failed':
      return boot.unrenderedAt;
    default:
      return null;
  }
}

/** What can be waited for, in the order in which a boot gets there. */
export const GOALS = ['delivered', 'booting', 'ready'] as const;
export type Goal = (typeof GOALS)[number];

/**
 * How a machine stands to what is waited for. `missed`: nobody but an operator can bring it about any more, since the machine failed, fell
 * silent, or (with `track: false`) never says more.
 */
export function progress(goal: Goal, facts: StateFacts, deadlines: Deadlines, now: number): 'reached' | 'waiting' | 'missed' {
  const { state } = stateAt(facts, deadlines, now);
  const { deliveredAt, lastWordAt } = facts.boot;
  if (state === 'ready') return 'reached';
  if (goal === 'delivered' && deliveredAt !== null) return 'reached';
  if (goal === 'booting' && deliveredAt !== null && lastWordAt !== null) return 'reached';
  if (state === 'failed' || state === 'silent') return 'missed';
  return state === 'delivered' && waitingSince(facts) === null ? 'missed' : 'waiting';
}

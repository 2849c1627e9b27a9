import type { ManifestStatus, ReportBody } from './report.ts';

/** How far a machine's boot is. */
export const STATES = ['registered', 'delivered', 'booting', 'ready', 'failed', 'silent'] as const;
export type State = (typeof STATES)[number];

/**
 * cloud-init's stages as its events name them; everything below has a slash (`modules-final/config-scripts-user`). No event tells that a
 * stage begins: cloud-init learns where to report to when it has begun.
 */
export const STAGES = ['init-local', 'init-network', 'modules-config', 'modules-final'] as const;

/** What a delivered document makes a machine say, if all goes well. */
export interface Expectations {
  /** cloud-init's events come: the document carries the tracking config. */
  events: boolean;
  /** It phones home. */
  phoneHome: boolean;
  /** The parts, by the names they were sent under, whose results an applier reports. */
  manifests: readonly string[];
}

/** A part of a boot that failed, in the machine's words. */
export interface Failure {
  /** `modules-final/config-scripts-user`; of an error in result.json the module's name, `scripts-user`. */
  what: string;
  description: string;
  /** By the machine's clock, epoch milliseconds; 0 in result.json, which does not say. */
  clock: number;
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
  /** What failed, and has not run well since. A module that ran before and is passed over at a reboot has not. */
  failures: readonly Failure[];
  /** The errors of result.json: they say why. */
  errors: readonly Failure[];
  /**
   * Whether this boot is a later one of the same machine, which neither phones home nor lays manifests down again: cloud-init says what
   * it passes over. Null until it is known.
   */
  again: boolean | null;
  /** The manifests that an earlier boot of the machine had still to report. */
  owed: readonly string[];
  phoneHomeAt: number | null;
  manifests: Readonly<Record<string, ManifestStatus>>;
  /** When each of them was so, by the machine's clock. */
  manifestClocks: Readonly<Record<string, number>>;
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
  errors: [],
  again: null,
  owed: [],
  phoneHomeAt: null,
  manifests: {},
  manifestClocks: {},
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
const TOLD_CHARACTERS = 200;

/** The module that runs the scripts, once per instance: every final stage runs it or says that it is passed over. */
const ONCE = /\/config-scripts[-_]user$/;
const PASSED_OVER = / previously ran$/;

/**
 * A counted delivery begins a boot. A seed is fetched at every boot of the same machine, so what it did before stays: its phone-home, its
 * manifests, and what failed and is not tried again.
 */
export function noteDelivery(
  facts: BootFacts,
  { at, purpose, expects }: { at: number; purpose: 'include' | 'seed'; expects: Expectations },
): BootFacts {
  const begun = { ...NO_BOOT, deliveredAt: at, expects };
  if (purpose === 'include' || facts.deliveredAt === null) return begun;
  const { failures, errors, phoneHomeAt, manifests, manifestClocks, readyAt } = facts;
  return { ...begun, failures, errors, phoneHomeAt, manifests, manifestClocks, readyAt, owed: unapplied(facts) };
}

/** A fetch that could not be answered. */
export function noteUnrendered(facts: BootFacts, at: number): BootFacts {
  return { ...facts, unrenderedAt: at };
}

/**
 * One of cloud-init's events. They may come twice and in any order. What belongs to the first stages and happened, by the machine's clock, after
 * the final one had ended is a later boot of the same machine.
 */
export function noteEvent(facts: BootFacts, event: BootEvent, at: number): BootFacts {
  const { name, type, result, description, at: clock } = event;
  const noted = { ...facts, lastWordAt: at };
  if (name.startsWith('init-') && noted.finalClock !== null && clock > noted.finalClock) noted.finalAt = null;
  if (type === 'start') return settled(noted, at);
  const passedOver = PASSED_OVER.test(description);
  if (result === 'FAIL') noted.failures = withFailure(noted.failures, { what: name, description, clock });
  else if (!passedOver) Object.assign(noted, withoutFailure(noted, name, clock));
  if (ONCE.test(name)) noted.again = passedOver && noted.again !== false;
  if (name === 'modules-final') {
    noted.finalAt = at;
    noted.finalClock = Math.max(noted.finalClock ?? clock, clock);
  }
  return settled(noted, at);
}

/** Any report. */
export function noteReport(facts: BootFacts, body: ReportBody, at: number): BootFacts {
  switch (body.kind) {
    case 'event':
      return noteEvent(facts, body.event, at);
    case 'phoneHome':
      return notePhoneHome(facts, at);
    case 'manifest':
      return noteManifest(facts, body.manifest, at);
    case 'log': {
      const errors = body.log.name === 'result.json' ? readResult(body.log.text) : null;
      return errors === null ? { ...facts, lastWordAt: at } : noteResult(facts, errors, at);
    }
  }
}

/** cloud-init's result.json: written once the final stage is over, with the errors of all. It comes even where events were lost. */
export function noteResult(facts: BootFacts, errors: readonly string[], at: number): BootFacts {
  const told = errors.slice(0, FAILURES_KEPT).map(readError);
  return settled({ ...facts, lastWordAt: at, finalAt: facts.finalAt ?? at, errors: told }, at);
}

export function notePhoneHome(facts: BootFacts, at: number): BootFacts {
  return settled({ ...facts, lastWordAt: at, phoneHomeAt: at, again: false }, at);
}

/** A manifest's result; `clock` by the machine's: an older one changes nothing. */
export function noteManifest(
  facts: BootFacts,
  { part, status, at: clock }: { part: string; status: ManifestStatus; at: number },
  at: number,
): BootFacts {
  const { expects, manifests, manifestClocks } = facts;
  const noted = { ...facts, lastWordAt: at };
  const known = Object.hasOwn(manifests, part);
  const kept = known || expects.manifests.includes(part) || Object.keys(manifests).length < MANIFESTS_KEPT;
  if (kept && !(known && (manifestClocks[part] ?? 0) > clock)) {
    noted.manifests = { ...manifests, [part]: status };
    noted.manifestClocks = { ...manifestClocks, [part]: clock };
  }
  return settled(noted, at);
}

function settled(facts: BootFacts, at: number): BootFacts {
  return facts.readyAt === null && stateOf(facts).state === 'ready' ? { ...facts, readyAt: at } : facts;
}

/** The latest of each, at most FAILURES_KEPT of them, oldest first. */
function withFailure(failures: readonly Failure[], { what, description, clock }: Failure): readonly Failure[] {
  const name = cut(what);
  const known = failures.find((failure) => failure.what === name);
  if (known && known.clock >= clock) return failures;
  return [...failures.filter((failure) => failure !== known), { what: name, description: cut(description), clock }]
    .sort((a, b) => a.clock - b.clock)
    .slice(-FAILURES_KEPT);
}

/** It ran well later: it, and what result.json has of it, is forgotten. */
function withoutFailure({ failures, errors }: BootFacts, name: string, clock: number): Pick<BootFacts, 'failures' | 'errors'> {
  const healed = failures.filter(({ what, clock: failed }) => what === cut(name) && failed < clock);
  if (healed.length === 0) return { failures, errors };
  return {
    failures: failures.filter((failure) => !healed.includes(failure)),
    errors: errors.filter(({ what }) => !isOf(what, name)),
  };
}

/** The errors of result.json (cmd/main.py, status_wrapper); null for what is none. */
function readResult(text: string): string[] | null {
  try {
    const { v1 } = JSON.parse(text) as { v1?: { errors?: unknown } };
    return Array.isArray(v1?.errors) ? v1.errors.filter((error) => typeof error === 'string') : null;
  } catch {
    return null;
  }
}

/** `('scripts-user', RuntimeError('Runparts: 1 failures (runcmd) in 2 attempted commands'))`: a pair as Python prints it. */
function readError(text: string): Failure {
  const [, what = '', description = text] = /^\('([^']*)', [\w.]+\((.*?),?\)\)$/s.exec(text) ?? [];
  return { what: cut(what), description: cut(description.replace(/^(['"])(.*)\1$/s, '$2')), clock: 0 };
}

/** Whether an error of result.json is about what events go by this name. */
function isOf(module: string, name: string): boolean {
  return name.endsWith(`/config-${module}`);
}

function cut(text: string): string {
  return text.slice(0, TOLD_CHARACTERS).toWellFormed();
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

function failureOf({ failures, errors, manifests }: BootFacts): string | null {
  // The most specific name says most: modules-final/config-scripts-user, not modules-final.
  const modules = failures.filter(({ what }) => what.includes('/'));
  const worst = modules[0] ?? failures[0];
  const error = worst ? errors.find(({ what }) => isOf(what, worst.what)) : errors[0];
  const told = error ? `: ${error.description}` : '';
  const more = modules.length > 1 ? ` (and ${modules.length - 1} more)` : '';
  if (worst) return `cloud-init reported that ${worst.what} failed${more}${told}`;
  if (error) return `cloud-init reported an error${error.what === '' ? '' : ` of ${error.what}`}${told}`;
  const [part] = Object.entries(manifests).find(([, status]) => status === 'failed') ?? [];
  return part === undefined ? null : `the manifest ${part} failed for good`;
}

function missingOf(facts: BootFacts): string[] {
  const { expects, finalAt, phoneHomeAt, again } = facts;
  const missing: string[] = [];
  if (expects.events && finalAt === null) missing.push('the end of the final stage');
  if (expects.phoneHome && phoneHomeAt === null && !again) missing.push('its phone-home');
  const count = unapplied(facts).length;
  if (count > 0) missing.push(count === 1 ? '1 manifest' : `${count} manifests`);
  return missing;
}

/** The manifests that are waited for. */
function unapplied({ expects, manifests, again, owed }: BootFacts): string[] {
  return (again ? owed : expects.manifests).filter((part) => !Object.hasOwn(manifests, part) || manifests[part] !== 'applied');
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

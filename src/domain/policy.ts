import { isWithin, readNetwork } from './address.ts';
import type { BootFacts } from './boot.ts';
import { REPEAT_WINDOW_MS, type Refusal } from './delivery.ts';
import { formatDuration, parseDuration } from './duration.ts';
import { invalid } from './errors.ts';
import { LIMITS } from './limits.ts';
import { parseReference } from './names.ts';

/** What an operator states of who may fetch; what is not said is the config's default. */
export interface PolicySpec {
  /** `1h`, `success`, `never`: how long after the first counted delivery, or at the boot's success. */
  closeAfter?: string;
  /** RFC 3339. */
  expiresAt?: string;
  /** IPv4 and IPv6 networks, `192.0.2.0/24`. */
  allowFrom?: string[];
  /** `refuse`, or references of bundles without secrets to serve instead. */
  afterClose?: 'refuse' | string[];
}

/** The config's defaults. */
export interface PolicyDefaults {
  /** Milliseconds; `auto`: SECRET_WINDOW_MS for a document with secrets, never for one without. */
  closeAfter: number | 'success' | 'never' | 'auto';
  /** After the registration (or reopening), milliseconds; null: never. */
  expiresAfter: number | null;
  allowFrom: readonly string[];
}

export const DEFAULT_POLICY: PolicyDefaults = Object.freeze({ closeAfter: 'auto', expiresAfter: null, allowFrom: [] });

/** cloud-init asks up to 11 times for what it did not get whole: a window that is shut sooner would end that half way. */
export const SHORTEST_WINDOW_MS = REPEAT_WINDOW_MS;

/** A document with secrets is open for so long from its first delivery, unless somebody says otherwise. */
export const SECRET_WINDOW_MS = 60 * 60 * 1000;

/** The policy in force for one instance at one moment. */
export interface Policy {
  closeAfter: number | 'success' | null;
  /** Epoch milliseconds. */
  expiresAt: number | null;
  /** Empty: from everywhere. */
  allowFrom: readonly string[];
  afterClose: 'refuse' | readonly string[];
  /** One sentence: until when, and why. */
  why: string;
}

/**
 * Reads a time as RFC 3339 writes it. @returns epoch milliseconds, or null; a 30th of February is none
 */
export function parseTime(text: string): number | null {
  const [, date = ''] =
    /^(\d{4}-(?:0[1-9]|1[0-2])-\d\d)T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/i.exec(
      text,
    ) ?? [];
  const midnight = Date.parse(`${date}T00:00:00Z`);
  if (Number.isNaN(midnight) || new Date(midnight).toISOString().slice(0, 10) !== date) return null;
  return Date.parse(text.toUpperCase());
}

/**
 * Holds a stated policy to its form. @returns it with networks and time written in their one way
 * @throws invalid `bad_policy`, which says what to write; `bad_reference`
 */
export function checkPolicy(policy: PolicySpec): PolicySpec {
  const checked: PolicySpec = {};
  const { closeAfter, expiresAt, allowFrom, afterClose } = policy;
  if (closeAfter !== undefined) checked.closeAfter = checkCloseAfter(closeAfter);
  if (expiresAt !== undefined) {
    const at = parseTime(expiresAt);
    if (at === null) throw badPolicy('expiresAt is a time as RFC 3339 writes it: 2026-12-31T23:59:59Z');
    checked.expiresAt = new Date(at).toISOString();
  }
  if (allowFrom !== undefined) checked.allowFrom = [...new Set(allowFrom.map(checkNetwork))];
  if (afterClose !== undefined) checked.afterClose = checkAfterClose(afterClose);
  return checked;
}

function checkCloseAfter(text: string): string {
  if (text === 'success' || text === 'never') return text;
  const length = parseDuration(text);
  if (length === null) throw badPolicy('closeAfter is a duration (90s, 10m, 1h, 7d), success or never');
  if (length < SHORTEST_WINDOW_MS)
    throw badPolicy(
      `closeAfter is at least ${formatDuration(SHORTEST_WINDOW_MS)}: cloud-init asks up to 11 times for a document`,
    );
  return text;
}

function checkNetwork(text: string): string {
  const reading = readNetwork(text.trim());
  if ('why' in reading) throw badPolicy(`allowFrom: ${JSON.stringify(text.slice(0, 60))} ${reading.why}`);
  return reading.network;
}

function checkAfterClose(afterClose: 'refuse' | readonly string[]): 'refuse' | string[] {
  if (afterClose === 'refuse') return afterClose;
  const bundles = afterClose.map((text) => parseReference(text).bundle);
  if (bundles.length === 0) throw badPolicy('afterClose is refuse, or the bundles to serve instead');
  if (bundles.length > LIMITS.bundlesPerInstance)
    throw badPolicy(`afterClose names at most ${LIMITS.bundlesPerInstance} bundles`);
  const twice = bundles.find((bundle, index) => bundles.indexOf(bundle) !== index);
  if (twice !== undefined) throw badPolicy(`afterClose names ${twice} twice: its parts would run twice`);
  return [...afterClose];
}

const badPolicy = (why: string) => invalid('bad_policy', `policy: ${why}`);

/**
 * What holds for an instance: what it states, and the defaults where it states nothing.
 * @param holdsSecrets whether secrets are in its document
 */
export function policyInForce(
  spec: PolicySpec,
  defaults: PolicyDefaults,
  { createdAt, reopenedAt }: Pick<WindowFacts, 'createdAt' | 'reopenedAt'>,
  holdsSecrets: boolean,
): Policy {
  const closing = closingOf(spec, defaults, holdsSecrets);
  const stated = spec.expiresAt === undefined ? null : parseTime(spec.expiresAt);
  const { expiresAfter } = defaults;
  const expiresAt = stated ?? (expiresAfter === null ? null : Math.max(createdAt, reopenedAt ?? 0) + expiresAfter);
  const allowFrom = spec.allowFrom ?? defaults.allowFrom;
  const { afterClose = 'refuse' } = spec;
  const sentence = [closing.why];
  if (expiresAt !== null)
    sentence.push(`it expires at ${new Date(expiresAt).toISOString()}, ${stated === null ? BY_DEFAULT : AS_STATED}`);
  if (allowFrom.length > 0)
    sentence.push(`only ${allowFrom.join(', ')} may fetch, ${spec.allowFrom === undefined ? BY_DEFAULT : AS_STATED}`);
  if (afterClose !== 'refuse') sentence.push(`whoever may not is served ${afterClose.join(', ')}`);
  return { closeAfter: closing.closeAfter, expiresAt, allowFrom, afterClose, why: sentence.join('; ') };
}

const AS_STATED = 'as the instance states';
const BY_DEFAULT = 'as is the default here';

function closingOf(spec: PolicySpec, defaults: PolicyDefaults, holdsSecrets: boolean): Pick<Policy, 'closeAfter' | 'why'> {
  const stated = spec.closeAfter === undefined ? null : readCloseAfter(spec.closeAfter);
  const rule = stated ?? defaults.closeAfter;
  const whose = stated === null ? BY_DEFAULT : AS_STATED;
  switch (rule) {
    case 'auto':
      return holdsSecrets
        ? {
            closeAfter: SECRET_WINDOW_MS,
            why: `closes ${formatDuration(SECRET_WINDOW_MS)} after the first delivery, because secrets are in the document`,
          }
        : {
            closeAfter: null,
            why: 'stays open, because no secrets are in the document and a refused fetch costs a rebuilt machine its users and keys',
          };
    case 'never':
      return { closeAfter: null, why: `stays open, ${whose}` };
    case 'success':
      return { closeAfter: rule, why: `closes once the machine has reported success, ${whose}` };
    default:
      return { closeAfter: rule, why: `closes ${formatDuration(rule)} after the first delivery, ${whose}` };
  }
}

function readCloseAfter(text: string): number | 'success' | 'never' | null {
  return text === 'success' || text === 'never' ? text : parseDuration(text);
}

/** What of an instance its window depends on. */
export interface WindowFacts {
  createdAt: number;
  reopenedAt: number | null;
  closedAt: number | null;
  /** Open until then whatever the policy says of closing or expiry (`reopen?for=`); shut after it. */
  openUntil: number | null;
  /** The first counted delivery since it was opened. */
  firstDeliveryAt: number | null;
  boot: Pick<BootFacts, 'readyAt'>;
}

/** Whether a document is given out at one moment. `closesAt`: when that ends as far as is known, epoch milliseconds. */
export type DeliveryWindow =
  | { open: true; closesAt: number | null }
  | { open: false; since: number; because: 'closed' | 'expired' | 'delivered' | 'succeeded' };

/** The window at a moment. A close by hand goes before all; then `openUntil`; then whichever of the policy's ends comes first. */
export function windowAt(policy: Pick<Policy, 'closeAfter' | 'expiresAt'>, facts: WindowFacts, at: number): DeliveryWindow {
  if (facts.closedAt !== null) return { open: false, since: facts.closedAt, because: 'closed' };
  const ends = endsOf(policy, facts).sort((a, b) => a.since - b.since);
  const past = ends.find(({ since }) => since <= at);
  if (past) return { open: false, ...past };
  return { open: true, closesAt: ends[0]?.since ?? null };
}

type End = { since: number; because: 'expired' | 'delivered' | 'succeeded' };

function endsOf({ closeAfter, expiresAt }: Pick<Policy, 'closeAfter' | 'expiresAt'>, facts: WindowFacts): End[] {
  if (facts.openUntil !== null) return [{ since: facts.openUntil, because: 'expired' }];
  const { readyAt } = facts.boot;
  const ends: End[] = [];
  if (expiresAt !== null) ends.push({ since: expiresAt, because: 'expired' });
  if (closeAfter === 'success' && readyAt !== null) ends.push({ since: readyAt, because: 'succeeded' });
  if (typeof closeAfter === 'number' && facts.firstDeliveryAt !== null)
    ends.push({ since: facts.firstDeliveryAt + closeAfter, because: 'delivered' });
  return ends;
}

/** A fetch, as far as a policy judges it. */
export interface Attempt {
  address: string;
  /** Epoch milliseconds. */
  at: number;
  /** Whether it is cloud-init's repeat of a counted delivery, from the same address within REPEAT_WINDOW_MS. */
  repeat: boolean;
}

/**
 * Why a fetch does not get the document, or null when it does. A repeat is the rest of a delivery that was begun (a connection that dropped
 * half way): only a close by hand ends it.
 */
export function refusalOf(
  policy: Pick<Policy, 'closeAfter' | 'expiresAt' | 'allowFrom'>,
  facts: WindowFacts,
  { address, at, repeat }: Attempt,
): Refusal | null {
  if (policy.allowFrom.length > 0 && !isWithin(address, policy.allowFrom)) return 'address';
  const window = windowAt(policy, facts, at);
  if (window.open || (repeat && window.because !== 'closed')) return null;
  return window.because;
}

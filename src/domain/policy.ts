import type { BootFacts } from './boot.ts';

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

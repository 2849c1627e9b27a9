/**
 * What somebody has to look at: a fetch after the window closed, from an address that is not allowed, with a stub that was rotated or
 * belongs to a deleted instance, and a second machine on one stub.
 */
export const ALARM_KINDS = ['late_fetch', 'foreign_address', 'old_stub', 'second_machine'] as const;
export type AlarmKind = (typeof ALARM_KINDS)[number];

/** One alarm; a burst of the same, from one address, is one. */
export interface Alarm {
  /** Grows with time; also the cursor of a list. */
  id: number;
  instance: string;
  kind: AlarmKind;
  /** First and last time, epoch milliseconds, and how often. */
  at: number;
  lastAt: number;
  count: number;
  address: string;
  userAgent: string;
}

/** What happens again within so long of the last time is the same alarm. */
export const ALARM_BURST_MS = 10 * 60 * 1000;

/** So many are kept of one instance; past it the oldest go. */
export const ALARMS_KEPT = 100;

/** What is about to be an alarm, or to add to one. */
export interface Raised {
  instanceId: string;
  kind: AlarmKind;
  at: number;
  /** How often it happened. */
  count: number;
  address: string;
  userAgent: string;
}

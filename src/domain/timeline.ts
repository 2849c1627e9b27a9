import type { Alarm } from './alarm.ts';
import type { AuditEntry } from './audit.ts';
import { type BootEvent, type CurrentState, STAGES } from './boot.ts';
import type { Delivery } from './delivery.ts';
import type { Instance } from './instance.ts';
import type { ManifestResult, PhoneHome, Report } from './report.ts';

/** What an operator did to an instance, or what it had come to. `by`: who; null where that is not known any more. */
export const LIFE_KINDS = ['registered', 'changed', 'retired', 'closed', 'reopened', 'rotated'] as const;
export type LifeKind = (typeof LIFE_KINDS)[number];

/** One of cloud-init's stages, or (when it failed) a part of one. */
export interface Stage {
  /** `modules-final`, `modules-final/config-scripts-user` */
  name: string;
  /** `SUCCESS`, `WARN`, `FAIL`, in the machine's words; null: it has not ended. */
  result: string | null;
  description: string;
  /** From the first word of it to its end, by the machine's clock; null where there was none, or the clock was set meanwhile. */
  milliseconds: number | null;
}

/** What happened to a machine, told by us or by itself. `at`: epoch milliseconds by our clock. */
export type TimelineEvent = { at: number } & (
  | { kind: LifeKind; version: number | null; by: string | null }
  | { kind: 'fetched'; delivery: Delivery }
  | { kind: 'refused'; delivery: Delivery }
  | { kind: 'stage'; stage: Stage }
  | { kind: 'event'; event: BootEvent }
  | { kind: 'manifest'; manifest: ManifestResult }
  | { kind: 'phoneHome'; phoneHome: PhoneHome }
  | { kind: 'log'; log: { name: string; bytes: number; truncated: boolean } }
  | { kind: 'alarm'; alarm: Alarm }
  | { kind: 'ready' | 'failed' | 'silent'; reason: string }
);

/** In which order kinds go that are of one millisecond. */
const ORDER: readonly TimelineEvent['kind'][] = [
  ...LIFE_KINDS,
  'fetched',
  'refused',
  'alarm',
  'event',
  'stage',
  'manifest',
  'phoneHome',
  'log',
  'ready',
  'failed',
  'silent',
];

/** By time; what has one time stays in its order, kind by kind. */
export function inOrder(events: readonly TimelineEvent[]): TimelineEvent[] {
  return [...events].sort((a, b) => a.at - b.at || ORDER.indexOf(a.kind) - ORDER.indexOf(b.kind));
}

/** A delivery's line: the document was given out, or somebody was refused it. */
export function ofDelivery(delivery: Delivery): TimelineEvent {
  return { at: delivery.at, kind: delivery.outcome === 'refused' ? 'refused' : 'fetched', delivery };
}

export function ofAlarm(alarm: Alarm): TimelineEvent {
  return { at: alarm.at, kind: 'alarm', alarm };
}

const LIFE_ACTIONS: Readonly<Record<string, LifeKind>> = {
  delete: 'retired',
  close: 'closed',
  reopen: 'reopened',
  rotate: 'rotated',
};

/** What an audited action was to the instance; null for one that changed nothing of it (a reveal). */
export function ofAudit({ at, actor, action, before, after }: AuditEntry): TimelineEvent | null {
  const version = after === null ? null : Number(/\.(\d+)$/.exec(after)?.[1] ?? Number.NaN);
  const what = { at, by: actor, version: Number.isNaN(version) ? null : version };
  const known = Object.hasOwn(LIFE_ACTIONS, action) ? LIFE_ACTIONS[action] : undefined;
  if (known !== undefined) return { ...what, kind: known };
  if (after === null || before === after) return null;
  return { ...what, kind: before === null ? 'registered' : 'changed' };
}

/** What the instance itself tells of its life: for what happened before there was an audit. */
export function lifeOf(instance: Instance): TimelineEvent[] {
  const { createdAt, updatedAt, retiredAt, closedAt, reopenedAt, version } = instance;
  const life = (at: number, kind: LifeKind) => ({ at, kind, version, by: null });
  const events: TimelineEvent[] = [{ ...life(createdAt, 'registered'), version: 1 }];
  if (version > 1 && updatedAt !== retiredAt) events.push(life(updatedAt, 'changed'));
  if (closedAt !== null) events.push(life(closedAt, 'closed'));
  if (reopenedAt !== null && reopenedAt !== updatedAt) events.push(life(reopenedAt, 'reopened'));
  if (retiredAt !== null) events.push(life(retiredAt, 'retired'));
  return events;
}

/** A state that one is told of when a machine gets there; null for those that its own events tell. */
export function ofState({ state, reason, since }: CurrentState, at: number): TimelineEvent | null {
  return state === 'ready' || state === 'failed' || state === 'silent' ? { at: since ?? at, kind: state, reason } : null;
}

/** A machine's clock may be set in the middle of a stage; none lasts longer. */
const LONGEST_STAGE_MS = 24 * 60 * 60 * 1000;

/** Makes lines of a machine's reports, given one by one in the order in which they came. */
export interface ReportReader {
  /** What the next report tells; of cloud-init's events only how each stage ended, and what failed. */
  read(report: Report): TimelineEvent[];
  /** The stage that has begun and not ended, if there is one. */
  running(): TimelineEvent[];
}

/** A stage that has begun, by the machine's clock and by ours. */
interface Begun {
  name: string;
  clock: number;
  at: number;
}

/**
 * That a stage begins is never told: cloud-init reads where to report to when it has begun. So one lasts from the first word of it, its own or
 * of a part of it, to its end.
 * @param verbose every event as it came, instead of the stages
 */
export function createReportReader({ verbose }: { verbose: boolean }): ReportReader {
  /** The stage that runs: they run one after the other, and the end of one may never be told. */
  let current: Begun | null = null;
  const ended = new Map<string, { clock: number; stage: Stage }>();
  /** The part that began last. */
  let part: Begun | null = null;

  function begin(name: string, clock: number, at: number) {
    const end = ended.get(name);
    const late = end && lasted(clock, end.clock);
    // A word that came after the end.
    if (end && late !== undefined && late !== null) {
      end.stage.milliseconds = Math.max(end.stage.milliseconds ?? 0, late);
      return;
    }
    if (current?.name === name) current.clock = Math.min(current.clock, clock);
    else if (current === null || clock >= current.clock) current = { name, clock, at };
  }

  function end({ name, result, description, at: clock }: BootEvent): Stage {
    const start = [current, part].find((begun) => begun?.name === name);
    const stage = { name, result, description, milliseconds: start ? lasted(start.clock, clock) : null };
    if (current?.name === name) current = null;
    if (isStage(name)) ended.set(name, { clock, stage });
    return stage;
  }

  function readEvent(event: BootEvent, at: number): TimelineEvent[] {
    if (verbose) return [{ at, kind: 'event', event }];
    const { name, type, result, at: clock } = event;
    const [stage = ''] = name.split('/', 1);
    const ends = type === 'finish' && name === stage;
    if (isStage(stage) && !ends) begin(stage, clock, at);
    const told = type === 'finish' && (isStage(name) || result === 'FAIL');
    const lines: TimelineEvent[] = told ? [{ at, kind: 'stage', stage: end(event) }] : [];
    if (type === 'start') part = { name, clock, at };
    return lines;
  }

  return {
    read(report) {
      const { at } = report;
      switch (report.kind) {
        case 'event':
          return readEvent(report.event, at);
        case 'manifest':
          return [{ at, kind: 'manifest', manifest: report.manifest }];
        case 'phoneHome':
          return [{ at, kind: 'phoneHome', phoneHome: report.phoneHome }];
        case 'log': {
          const { name, text, truncated } = report.log;
          return [{ at, kind: 'log', log: { name, bytes: Buffer.byteLength(text), truncated } }];
        }
      }
    },

    running: () =>
      current === null
        ? []
        : [
            {
              at: current.at,
              kind: 'stage',
              stage: { name: current.name, result: null, description: '', milliseconds: null },
            },
          ],
  };
}

/** Null where the clock was set meanwhile. */
function lasted(from: number, to: number): number | null {
  const milliseconds = to - from;
  return milliseconds >= 0 && milliseconds <= LONGEST_STAGE_MS ? milliseconds : null;
}

function isStage(name: string): boolean {
  return (STAGES as readonly string[]).includes(name);
}

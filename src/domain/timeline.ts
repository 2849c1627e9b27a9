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
  /** By the machine's clock; null where its start is not known, or the clock was set meanwhile. */
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
  /** Stages that have begun and not ended. */
  running(): TimelineEvent[];
}

/** @param verbose every event as it came, instead of the stages */
export function createReportReader({ verbose }: { verbose: boolean }): ReportReader {
  const begun = new Map<string, { event: BootEvent; at: number }>();
  /** Ends that came before their beginnings. */
  const ended = new Map<string, { event: BootEvent; stage: Stage }>();

  function begin(event: BootEvent, at: number) {
    const early = ended.get(event.name);
    const milliseconds = early ? lasted(event, early.event) : null;
    if (early && milliseconds !== null) {
      early.stage.milliseconds = milliseconds;
      ended.delete(event.name);
      return;
    }
    // A stage that begins is the first of what is still to come: what was begun later belongs to an earlier boot.
    for (const later of STAGES.slice(placeOf(event.name))) begun.delete(later);
    begun.set(event.name, { event, at });
  }

  function end(event: BootEvent): Stage {
    const { name, result, description } = event;
    const start = begun.get(name);
    const stage = { name, result, description, milliseconds: start ? lasted(start.event, event) : null };
    begun.delete(name);
    if (!start && isStage(name)) ended.set(name, { event, stage });
    return stage;
  }

  function readEvent(event: BootEvent, at: number): TimelineEvent[] {
    if (verbose) return [{ at, kind: 'event', event }];
    if (event.type === 'start') {
      if (isStage(event.name)) begin(event, at);
      return [];
    }
    return isStage(event.name) || event.result === 'FAIL' ? [{ at, kind: 'stage', stage: end(event) }] : [];
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
      [...begun.values()].map(({ event: { name, description }, at }) => ({
        at,
        kind: 'stage',
        stage: { name, result: null, description, milliseconds: null },
      })),
  };
}

/** By the machine's clock; null where that was set meanwhile. */
function lasted(start: BootEvent, end: BootEvent): number | null {
  const milliseconds = end.at - start.at;
  return milliseconds >= 0 && milliseconds <= LONGEST_STAGE_MS ? milliseconds : null;
}

function placeOf(name: string): number {
  return (STAGES as readonly string[]).indexOf(name);
}

function isStage(name: string): boolean {
  return placeOf(name) >= 0;
}

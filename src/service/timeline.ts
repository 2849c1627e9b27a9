import { setTimeout as sleep } from 'node:timers/promises';
import { type Deadlines, STATES, type State, stateAt } from '../domain/boot.ts';
import { malformed, notFound } from '../domain/errors.ts';
import type { Instance } from '../domain/instance.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName } from '../domain/names.ts';
import type { Page, Store } from '../domain/store.ts';
import {
  createReportReader,
  inOrder,
  lifeOf,
  ofAlarm,
  ofAudit,
  ofDelivery,
  ofState,
  type ReportReader,
  type TimelineEvent,
} from '../domain/timeline.ts';

export interface Timeline {
  /** Newest last: the latest `limit` of them. */
  events: TimelineEvent[];
  /** Old reports that were dropped: past the instance's limit. */
  reportsDropped: number;
}

export interface TimelineOptions {
  limit: number;
  /** Every event of cloud-init's as it came, instead of its stages. */
  verbose: boolean;
}

/** What happened since the last time, in order, and where to go on after it. */
export interface TimelineStep {
  events: TimelineEvent[];
  /** For `resume`: text without meaning to a client. */
  cursor: string;
}

export interface TimelineService {
  /** @throws not_found `unknown_instance` */
  get(instance: string, options: TimelineOptions): Promise<Timeline>;
  /**
   * What happened up to now (or, with `resume`, after that cursor), then what happens, as soon as the database tells. A step without events
   * comes at every look that finds none. Ends when `signal` does.
   * @throws not_found `unknown_instance`, malformed `bad_cursor`, at the first step
   */
  follow(
    instance: string,
    options: TimelineOptions & { resume: string | null; signal: AbortSignal },
  ): AsyncGenerator<TimelineStep, void, void>;
}

/** cloud-init says some 60 things per boot, of which 5 to 10 make a line: so many of the newest reports are read at least. */
const REPORTS_READ = 500;
/** How often a follower looks, milliseconds. */
const FOLLOW_MS = 700;

/** How far each source was read, and which state was told last. */
interface Cursor {
  delivery: number;
  report: number;
  alarm: number;
  audit: number;
  state: State;
}

export function createTimelineService(deps: {
  store: Store;
  deadlines: Deadlines;
  clock: () => number;
  /** How often a follower looks, milliseconds. */
  followMs?: number;
}): TimelineService {
  const { store, deadlines, clock, followMs = FOLLOW_MS } = deps;

  async function found(name: string): Promise<Instance> {
    const instance = await store.findInstance(name);
    if (!instance) throw notFound('unknown_instance', 'there is no such instance');
    return instance;
  }

  /** Reads each source from its newest back to `from`. Reports before it are read, too, where `reader` has not seen them. */
  async function look(
    name: string,
    reader: ReportReader,
    from: Cursor | null,
    { limit, seen }: { limit: number; seen: boolean },
  ) {
    const page = (newerThan: number | undefined, most = limit): Page<number> => ({ after: null, limit: most, newerThan });
    const reportsRead = Math.min(Math.max(limit, REPORTS_READ), LIMITS.reportsPerInstance);
    const [instance, deliveries, reports, alarms, audit] = await Promise.all([
      found(name),
      store.listDeliveries(name, page(from?.delivery)),
      store.listReports(name, page(seen ? from?.report : undefined, reportsRead)),
      store.listAlarms(name, page(from?.alarm)),
      store.listAudit({ kind: 'instance', name }, page(from?.audit)),
    ]);
    const told = reports.reverse().flatMap((report) => {
      const lines = reader.read(report);
      return from === null || report.id > from.report ? lines : [];
    });
    const events: TimelineEvent[] = [
      ...audit.reverse().flatMap((entry) => ofAudit(entry) ?? []),
      ...deliveries.reverse().map(ofDelivery),
      ...alarms.reverse().map(ofAlarm),
      ...told,
    ];
    const state = stateOf(instance);
    const cursor: Cursor = {
      delivery: deliveries.at(-1)?.id ?? from?.delivery ?? 0,
      report: reports.at(-1)?.id ?? from?.report ?? 0,
      alarm: alarms.at(-1)?.id ?? from?.alarm ?? 0,
      audit: audit.at(-1)?.id ?? from?.audit ?? 0,
      state: state.state,
    };
    return { instance, events, cursor, state };
  }

  /** A tombstone is waited for no more. */
  function stateOf(instance: Instance) {
    return stateAt(instance, instance.retiredAt === null ? deadlines : { fetch: null, boot: null }, clock());
  }

  /** The timeline as it is, with what follows from it. */
  async function snapshot(name: string, reader: ReportReader, limit: number) {
    const { instance, events, cursor, state } = await look(name, reader, null, { limit, seen: false });
    // Each change is noted at the time the instance bears for it; what has no note is from before there was an audit.
    const noted = new Set(events.flatMap((event) => ('by' in event ? [event.at] : [])));
    const life = lifeOf(instance).filter(({ at }) => !noted.has(at));
    const { deliveredAt, lastWordAt, readyAt } = instance.boot;
    const all = [...life, ...events];
    if (readyAt !== null && state.state !== 'ready')
      all.push({ at: readyAt, kind: 'ready', reason: 'it had reported that all it was asked for is done' });
    const failed = events.find((event) => event.at >= (deliveredAt ?? 0) && isFailure(event));
    const reached = ofState(state, failed?.at ?? lastWordAt ?? clock());
    if (reached) all.push(reached);
    return { instance, events: inOrder(all), cursor };
  }

  return {
    async get(name, { limit, verbose }) {
      checkName('instance', name);
      const reader = createReportReader({ verbose });
      const { instance, events } = await snapshot(name, reader, limit);
      return {
        events: inOrder([...events, ...reader.running()]).slice(-limit),
        reportsDropped: instance.reportsDropped,
      };
    },

    async *follow(name, { limit, verbose, resume, signal }) {
      checkName('instance', name);
      const reader = createReportReader({ verbose });
      let cursor: Cursor;
      let seen = true;
      if (resume === null) {
        const begun = await snapshot(name, reader, limit);
        cursor = begun.cursor;
        yield { events: begun.events.slice(-limit), cursor: formatCursor(cursor) };
      } else {
        cursor = parseCursor(resume);
        await found(name);
        seen = false;
      }
      while (!signal.aborted) {
        const { events, cursor: reached, state } = await look(name, reader, cursor, { limit: LIMITS.pageMax, seen });
        const change = state.state === cursor.state ? null : ofState(state, clock());
        cursor = reached;
        seen = true;
        yield { events: [...inOrder(events), ...(change ? [change] : [])], cursor: formatCursor(cursor) };
        await sleep(followMs, undefined, { signal }).catch(() => undefined);
      }
    },
  };
}

function isFailure(event: TimelineEvent): boolean {
  if (event.kind === 'stage') return event.stage.result === 'FAIL';
  if (event.kind === 'event') return event.event.result === 'FAIL';
  return event.kind === 'manifest' && event.manifest.status === 'failed';
}

function formatCursor({ delivery, report, alarm, audit, state }: Cursor): string {
  return [delivery, report, alarm, audit, state].join('.');
}

/** @throws malformed `bad_cursor` */
function parseCursor(text: string): Cursor {
  const [, delivery, report, alarm, audit, state] =
    /^(\d{1,15})\.(\d{1,15})\.(\d{1,15})\.(\d{1,15})\.([a-z]+)$/.exec(text) ?? [];
  if (!(STATES as readonly (string | undefined)[]).includes(state))
    throw malformed('bad_cursor', 'Last-Event-ID: not an id of this stream; leave it out to begin anew');
  const read = { delivery: Number(delivery), report: Number(report), alarm: Number(alarm), audit: Number(audit) };
  return { ...read, state: state as State };
}

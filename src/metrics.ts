import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { ALARM_KINDS } from './domain/alarm.ts';
import { STATES, type State } from './domain/boot.ts';
import type { FetchOutcome } from './domain/delivery.ts';
import type { PoolUse } from './domain/store.ts';

/**
 * What is counted, for Prometheus. The `on…` functions are the hooks of those who do the work. No label ever holds a name, an address or
 * anything else that somebody outside can choose: what is not in a list is `other`.
 */
export interface Metrics {
  /** `seconds`: until the answer could begin. */
  onFetch: (fetch: { purpose: 'include' | 'seed'; outcome: FetchOutcome; seconds: number }) => void;
  onRender: (rendering: { seconds: number; bytes: number }) => void;
  /** One commit of `rows` deliveries. */
  onCommit: (commit: { seconds: number; rows: number }) => void;
  onPublish: (publication: { seconds: number; outcome: 'published' | 'refused' }) => void;
  onAlarm: (alarm: { kind: string }) => void;
  onReport: (kind: string, outcome: string) => void;
  onSilent: () => void;
  /** An error of the database's that was nobody's mistake, by its code. */
  onDatabaseError: (code: string) => void;
  onRequest: (answered: { scope: 'boot' | 'api' | 'ops'; method: string; status: number }) => void;
  /** All of it in Prometheus's text format (version 0.0.4), with its media type. */
  expose(): Promise<{ type: string; text: string }>;
}

const PREFIX = 'bootbundle_';
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
const REPORT_KINDS = ['event', 'phoneHome', 'manifest', 'log'];
const REPORT_OUTCOMES = ['stored', 'repeated', 'ignored', 'refused', 'limited', 'failed'];
const DATABASE_ERRORS = ['database_unavailable', 'database_busy', 'database_refused', 'storage_full'];

/** Seconds. A machine that waits for 10 s has given up. */
const FETCH_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const WORK_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5];
const PUBLISH_SECONDS = [0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60];
const ROWS = [1, 2, 5, 10, 25, 50, 100, 250, 500];
/** Up to Nova's limit, and past it. */
const BYTES = [1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];

/** So long a count of instances is good for every scrape that asks, milliseconds. */
const COUNT_FRESH_MS = 10_000;
/** A scrape waits no longer for the database: what else there is to tell matters most when that is in trouble. */
const COUNT_PATIENCE_MS = 2000;

/** What the metrics are of. */
export interface MetricsDeps {
  version: string;
  engine: 'sqlite' | 'postgres';
  /** Epoch milliseconds. */
  clock: () => number;
  /** How many living instances are in each state now. */
  countStates: () => Promise<Record<State, number>>;
  /** The database's connections; null: it has no pool. */
  pool: () => PoolUse | null;
}

export function createMetrics({ version, engine, clock, countStates, pool }: MetricsDeps): Metrics {
  const registry = new Registry();
  const named = (name: string, help: string) => ({ name: PREFIX + name, help, registers: [registry] });
  const counter = <Label extends string>(name: string, help: string, ...labelNames: Label[]) =>
    new Counter({ ...named(name, help), labelNames });
  const histogram = <Label extends string>(name: string, help: string, buckets: number[], ...labelNames: Label[]) =>
    new Histogram({ ...named(name, help), buckets, labelNames });
  const gauge = <Label extends string>(name: string, help: string, ...labelNames: Label[]) =>
    new Gauge({ ...named(name, help), labelNames });

  const fetches = counter('fetches_total', 'Fetches of documents, by how they ended', 'purpose', 'outcome');
  const fetchSeconds = histogram('fetch_duration_seconds', 'From a fetch to when its answer could begin', FETCH_SECONDS);
  const renderSeconds = histogram('render_duration_seconds', 'Rendering one document for a fetch', WORK_SECONDS);
  const documentBytes = histogram('document_bytes', 'Size of rendered documents, before compression', BYTES);
  const commitSeconds = histogram('commit_duration_seconds', 'One commit of deliveries to the ledger', WORK_SECONDS);
  const commitRows = histogram('commit_deliveries', 'Deliveries in one commit', ROWS);
  const publishSeconds = histogram(
    'publish_duration_seconds',
    'Changes of what machines share, with the look at each machine and the wait for others',
    PUBLISH_SECONDS,
    'outcome',
  );
  const alarms = counter('alarms_total', 'Alarms that began', 'kind');
  const reports = counter('reports_total', 'Reports of machines', 'kind', 'outcome');
  const silent = counter('silent_total', 'Machines that were noticed to be silent past their deadline');
  const requests = counter(
    'http_requests_total',
    'Answers, by URL space, method and class of status',
    'scope',
    'method',
    'status',
  );
  const databaseErrors = counter('database_errors_total', "Trouble of the database's, after retries", 'code');
  const databaseUp = gauge('database_up', 'Whether the database answered when it was asked last (at most 10 s ago)');
  const instances = gauge('instances', 'Registered instances, by state', 'state');
  const connections = engine === 'postgres' ? gauge('database_connections', "The pool's connections", 'state') : null;
  gauge('build_info', 'The version that runs, and its database', 'version', 'engine').set({ version, engine }, 1);

  // A rate can be told from the first event on only where there was a zero before it.
  for (const kind of ALARM_KINDS) alarms.inc({ kind }, 0);
  for (const code of DATABASE_ERRORS) databaseErrors.inc({ code }, 0);

  const ofProcess = processMetrics();
  const count = createStateCount(countStates, clock);

  return {
    onFetch({ purpose, outcome, seconds }) {
      fetches.inc({ purpose, outcome });
      fetchSeconds.observe(seconds);
    },
    onRender({ seconds, bytes }) {
      renderSeconds.observe(seconds);
      documentBytes.observe(bytes);
    },
    onCommit({ seconds, rows }) {
      commitSeconds.observe(seconds);
      commitRows.observe(rows);
    },
    onPublish: ({ seconds, outcome }) => publishSeconds.observe({ outcome }, seconds),
    onAlarm: ({ kind }) => alarms.inc({ kind: oneOf(ALARM_KINDS, kind) }),
    onReport: (kind, outcome) => reports.inc({ kind: oneOf(REPORT_KINDS, kind), outcome: oneOf(REPORT_OUTCOMES, outcome) }),
    onSilent: () => silent.inc(),
    onDatabaseError: (code) => databaseErrors.inc({ code: oneOf(DATABASE_ERRORS, code) }),
    onRequest: ({ scope, method, status }) =>
      requests.inc({ scope, method: oneOf(METHODS, method), status: `${Math.floor(status / 100)}xx` }),

    async expose() {
      const states = await count();
      databaseUp.set(states ? 1 : 0);
      // Old numbers would look like new ones.
      instances.reset();
      for (const state of states ? STATES : []) instances.set({ state }, states?.[state] ?? 0);
      for (const [state, used] of Object.entries(pool() ?? {})) connections?.set({ state }, used);
      const texts = await Promise.all([registry.metrics(), ofProcess.metrics()]);
      return { type: registry.contentType, text: texts.join('') };
    },
  };
}

function oneOf(known: readonly string[], value: string): string {
  return known.includes(value) ? value : 'other';
}

/** The last count while it is fresh, else a new one; null when the database fails, or does not answer in time. One asks for all. */
function createStateCount(ask: MetricsDeps['countStates'], clock: () => number) {
  type Count = Record<State, number> | null;
  let last: { at: number; count: Count } | null = null;
  let asking: Promise<Count> | null = null;
  return async (): Promise<Count> => {
    if (last && Math.abs(clock() - last.at) < COUNT_FRESH_MS) return last.count;
    asking ??= ask()
      .catch(() => null)
      .then((count) => {
        last = { at: clock(), count };
        asking = null;
        return count;
      });
    return inTime(asking);
  };
}

async function inTime<T>(answer: Promise<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(resolve, COUNT_PATIENCE_MS, null);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

let shared: Registry | null = null;

/** CPU, memory, event loop, garbage collection: one registry for the process, since what it hangs on cannot be undone. */
function processMetrics(): Registry {
  if (!shared) {
    shared = new Registry();
    collectDefaultMetrics({ register: shared });
  }
  return shared;
}

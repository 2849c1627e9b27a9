import { LRUCache } from 'lru-cache';
import type { BootEvent } from '../domain/boot.ts';
import { sha256 } from '../domain/bundle.ts';
import { BootbundleError, notFound } from '../domain/errors.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName } from '../domain/names.ts';
import {
  LOG_NAMES,
  type LogName,
  type Report,
  type ReportBody,
  type ReportOutcome,
  withoutCapabilities,
} from '../domain/report.ts';
import type { Store } from '../domain/store.ts';
import type { KeyRing } from './keys.ts';

/** The end of a log, as it is kept. */
export type KeptLog = Report & { kind: 'log' };

export interface ReportService {
  /** Whether a key of ours made it for reports; whether it is still in force is known to `report`. Asks no database. */
  knows(capability: string): boolean;
  /**
   * Keeps what a machine says, and notes it in what is known of its boot. Sent twice, it is kept once.
   * @throws not_found `unknown_capability`; unavailable `too_many_reports` when it says more than LIMITS.reportsPerSecond
   */
  report(capability: string, body: ReportBody): Promise<{ instance: string; outcome: ReportOutcome }>;
  /** The ends of its logs, newest first. @throws not_found `unknown_instance` */
  logs(instance: string): Promise<KeptLog[]>;
  /** The newest end of a log, or the one of that id. @throws not_found `unknown_instance`, `unknown_log` */
  log(instance: string, name: string, id: number | null): Promise<KeptLog>;
}

/** So many machines' rates are remembered. */
const REMEMBERED = 10_000;

export function createReportService(deps: { store: Store; keys: KeyRing; clock: () => number }): ReportService {
  const { store, keys, clock } = deps;
  const rates = new LRUCache<string, { left: number; at: number }>({ max: REMEMBERED });

  /** A bucket of LIMITS.reportBurst that fills at LIMITS.reportsPerSecond. */
  function withinRate(instanceId: string, at: number): boolean {
    const rate = rates.get(instanceId) ?? { left: LIMITS.reportBurst, at };
    const filled = rate.left + (Math.max(0, at - rate.at) / 1000) * LIMITS.reportsPerSecond;
    const left = Math.min(LIMITS.reportBurst, filled);
    rates.set(instanceId, { left: left < 1 ? left : left - 1, at });
    return left >= 1;
  }

  async function kept(instance: string, name: LogName | null): Promise<KeptLog[]> {
    checkName('instance', instance);
    if (!(await store.findInstance(instance))) throw notFound('unknown_instance', 'there is no such instance');
    return store.listLogs(instance, name);
  }

  return {
    knows: (capability) => keys.verify('report', capability) !== null,

    async report(capability, said) {
      const claim = keys.verify('report', capability);
      if (!claim) throw notFound('unknown_capability', 'no such machine');
      const at = clock();
      if (!withinRate(claim.instanceId, at))
        throw new BootbundleError('unavailable', 'too_many_reports', 'more reports than a machine may send: ask again');
      const body = veiled(said);
      return store.recordReport({ ...claim, at, body, key: keyOf(body), limit: limitOf(body) });
    },

    logs: (instance) => kept(instance, null),

    async log(instance, name, id) {
      const known = LOG_NAMES.find((each) => each === name);
      const logs = await kept(instance, known ?? null);
      const log = known && logs.find((each) => id === null || each.id === id);
      if (!log) throw notFound('unknown_log', `${instance} has sent no such log`);
      return log;
    },
  };
}

/** cloud-init's descriptions and logs quote the URLs of its seed and its reports. */
function veiled(body: ReportBody): ReportBody {
  switch (body.kind) {
    case 'event': {
      const description = withoutCapabilities(body.event.description);
      return { ...body, event: { ...body.event, description } };
    }
    case 'log':
      return { ...body, log: { ...body.log, text: withoutCapabilities(body.log.text) } };
    default:
      return body;
  }
}

function keyOf(body: ReportBody): string {
  switch (body.kind) {
    case 'event':
      return eventKey(body.event);
    case 'manifest':
      return body.manifest.id;
    case 'phoneHome':
      return sha256(JSON.stringify(body.phoneHome));
    case 'log':
      return sha256(JSON.stringify(body.log));
  }
}

function eventKey({ name, type, at }: BootEvent): string {
  return sha256(JSON.stringify([name, type, at]));
}

function limitOf({ kind }: ReportBody): number {
  switch (kind) {
    case 'phoneHome':
      return LIMITS.phoneHomesPerInstance;
    case 'log':
      return LIMITS.tailsPerLog;
    default:
      return LIMITS.reportsPerInstance;
  }
}

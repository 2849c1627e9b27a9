import { createHash } from 'node:crypto';
import { sha256 } from '../domain/bundle.ts';
import { notFound } from '../domain/errors.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName } from '../domain/names.ts';
import type { LogTail, PhoneHome, Report, ReportBody } from '../domain/report.ts';
import type { Store } from '../domain/store.ts';
import type { KeyRing } from './keys.ts';

/** The logs a machine may send. */
export const LOG_NAMES = ['cloud-init-output.log', 'result.json', 'cloud-init.log'] as const;
export type LogName = (typeof LOG_NAMES)[number];

/** So many of each kind are kept per instance, the newest. */
const KEPT: Record<ReportBody['kind'], number> = {
  event: LIMITS.reportsPerInstance,
  manifest: LIMITS.reportsPerInstance,
  phoneHome: 10,
  log: 12,
};

/** A log as it arrived. */
export type StoredLog = Extract<Report, { kind: 'log' }>;

export interface ReportService {
  /**
   * The machine a report capability stands for. Asked before a body is made sense of.
   * @returns its name and id
   * @throws not_found `unknown_capability`
   */
  open(capability: string): Promise<{ name: string; id: string }>;
  /** Keeps what a machine says; sent twice, it is kept once. @throws not_found `unknown_instance` */
  accept(instanceId: string, body: ReportBody): Promise<void>;
  /** The logs that are kept, newest first. @throws not_found `unknown_instance` */
  logs(instance: string): Promise<StoredLog[]>;
  /** The newest log of a name. @throws not_found `unknown_instance`, `unknown_log` */
  log(instance: string, name: string): Promise<StoredLog>;
}

export function createReportService(deps: {
  store: Store;
  keys: KeyRing;
  clock: () => number;
  /** Told of each report by kind, and what became of it. */
  onReport?: (kind: string, outcome: string) => void;
}): ReportService {
  const { store, keys, clock, onReport = () => undefined } = deps;

  async function logs(name: string): Promise<StoredLog[]> {
    checkName('instance', name);
    if (!(await store.findInstance(name))) throw notFound('unknown_instance', 'there is no such instance');
    const found = await store.listReports(name, { after: null, limit: KEPT.log }, 'log');
    return found as StoredLog[];
  }

  return {
    async open(capability) {
      const claim = keys.verify('report', capability);
      const instance = claim && (await store.findInstanceById(claim.instanceId));
      if (!instance || instance.generations.report !== claim.generation)
        throw notFound('unknown_capability', 'no such machine');
      return instance;
    },

    async accept(instanceId, body) {
      const outcome = await store.recordReport({ instanceId, at: clock(), body, key: keyOf(body), limit: KEPT[body.kind] });
      onReport(body.kind, outcome);
    },

    logs,

    async log(instance, name) {
      const found = (await logs(instance)).find(({ log }) => log.name === name);
      if (!found) throw notFound('unknown_log', 'the machine has sent no such log: GET …/logs lists them');
      return found;
    },
  };
}

/** What is the same when the same is sent again. */
function keyOf(body: ReportBody): string {
  switch (body.kind) {
    case 'manifest':
      return body.manifest.id;
    case 'event':
      return sha256(JSON.stringify([body.event.name, body.event.type, body.event.at]));
    case 'phoneHome':
      return sha256(JSON.stringify(body.phoneHome));
    case 'log':
      return sha256(JSON.stringify(body.log));
  }
}

const KEY_KINDS = ['rsa', 'ecdsa', 'ed25519', 'dsa'] as const;

/** What a phone-home form says (config/cc_phone_home.py). Keys end in a line break there. */
export function readPhoneHome(form: URLSearchParams): PhoneHome {
  const field = (name: string) => (form.get(name) ?? '').trim().slice(0, 300);
  return {
    instanceId: field('instance_id'),
    hostname: field('hostname'),
    fqdn: field('fqdn'),
    hostKeys: KEY_KINDS.flatMap((kind) => {
      const key = (form.get(`pub_key_${kind}`) ?? '').trim().slice(0, 8192);
      // cloud-init posts N/A for a key that is not there.
      return key === '' || key === 'N/A' ? [] : [{ kind, key, fingerprint: fingerprintOf(key) }];
    }),
  };
}

/** `SHA256:…` of an OpenSSH public key line, as `ssh-keygen -l` prints it; null where it is none. */
function fingerprintOf(line: string): string | null {
  const [, kind = '', base64 = ''] = /^((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: |$)/.exec(line) ?? [];
  const blob = Buffer.from(base64, 'base64');
  // The blob begins with the length and name of its kind (RFC 4253, 6.6).
  if (kind === '' || blob.length < 4 + kind.length || blob.toString('latin1', 4, 4 + blob.readUInt32BE(0)) !== kind)
    return null;
  return `SHA256:${createHash('sha256').update(blob).digest('base64').replace(/=+$/, '')}`;
}

/** A log's end as text; what is not UTF-8 is marked as such. */
export function readLog(name: LogName, bytes: Uint8Array, truncated: boolean): LogTail {
  const text = new TextDecoder('utf-8').decode(bytes);
  return { name, text: text.replaceAll('\0', '\uFFFD'), truncated };
}

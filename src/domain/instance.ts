import type { BootFacts } from './boot.ts';
import { conflict } from './errors.ts';
import type { JsonObject } from './json.ts';
import type { PolicySpec } from './policy.ts';

/** What an operator states about a machine. PUT states the whole of it. */
export interface InstanceSpec {
  /** References in order: `web`, `web@stable`, `web@3`. */
  bundles: string[];
  /** Values for this machine; over the bundles' defaults. */
  vars: JsonObject;
  labels: Record<string, string>;
  /** Added to the NoCloud `meta-data`; may set `instance-id` and `local-hostname` too. */
  metaData: JsonObject;
  /** The NoCloud `vendor-data`, as it is, or null for none. */
  vendorData: string | null;
  /** The NoCloud `network-config`: as it is, or an object written as YAML; null for none. */
  networkConfig: string | JsonObject | null;
  /** Who may fetch, and until when, where it differs from the config's defaults. */
  policy: PolicySpec;
  /** Whether the document carries the cloud-config that makes the machine report. */
  track: boolean;
}

/** A capability is good for one purpose only. */
export type Purpose = 'include' | 'seed' | 'report';
export const PURPOSES: readonly Purpose[] = ['include', 'seed', 'report'];

/** A registered machine. */
export interface Instance extends InstanceSpec {
  /** 16 hex digits: 8 random bytes, kept for the name's whole life, tombstone and revival included. */
  id: string;
  name: string;
  /** Counts changes of the spec from 1; the ETag is made of it. */
  version: number;
  /** Counts from 0 per purpose; a capability of an older generation opens nothing. */
  generations: Record<Purpose, number>;
  createdAt: number;
  updatedAt: number;
  retiredAt: number | null;
  /** When the window was shut by hand, opened again, and until when that lasts; null: not. */
  closedAt: number | null;
  reopenedAt: number | null;
  openUntil: number | null;
  /** First and last counted delivery since the registration (or reopening), and how many there were; pruning the ledger changes none of them. */
  firstDeliveryAt: number | null;
  lastDeliveryAt: number | null;
  deliveryCount: number;
  /** When each URL was first fetched, by its present generation; null: not yet. */
  fetchedAt: Record<'include' | 'seed', number | null>;
  /** Old reports that were dropped because the instance has as many as it may. */
  reportsDropped: number;
  /** What is known of its boot. */
  boot: BootFacts;
}

/** cloud-init's name for the machine: stable for the life of the registration (it keys "once per instance"). */
export function cloudInitInstanceId(instance: Pick<Instance, 'id' | 'metaData'>): string {
  const own = instance.metaData['instance-id'];
  return typeof own === 'string' && own !== '' ? own : `i-${instance.id}`;
}

/**
 * A machine that booted from its seed asks it at every boot; a 404 there costs it its datasource and its SSH host keys (CLOUD-INIT.md).
 * @throws conflict `seed_in_use` when it was fetched and `force` is not said
 */
export function checkSeedUnused({ name, fetchedAt }: Pick<Instance, 'name' | 'fetchedAt'>, force: boolean): void {
  if (fetchedAt.seed === null || force) return;
  throw conflict(
    'seed_in_use',
    `${name} booted from its seed URL, and asks it at every boot: with that gone cloud-init finds no datasource, takes another instance-id and makes new SSH host keys; if that is meant, say ?force=true`,
  );
}

/** The entity tag of what an operator stated: changes with every change of it. */
export function instanceEtag({ id, version }: Pick<Instance, 'id' | 'version'>): string {
  return `${id}.${version}`;
}

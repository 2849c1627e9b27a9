import type { Alarm, AlarmKind } from '../../domain/alarm.ts';
import type { Delivery, Refusal } from '../../domain/delivery.ts';
import type { PhoneHome } from '../../domain/report.ts';
import type { Stage, TimelineEvent } from '../../domain/timeline.ts';
import { isoTime, printable } from './text.ts';

/** A machine says things of any length; of a word of its so many characters are shown. */
const SHOWN = 300;

/** One line, without its line break; what a manifest's client printed stands indented below it. */
export function lineOf(event: TimelineEvent, instance: string): string {
  return `${isoTime(event.at)}  ${printable(describe(event, instance))}${outputOf(event)}`;
}

/** Where a log that a machine sent is read. */
export function logUrl(instance: string, name: string): string {
  return `/api/v1/instances/${encodeURIComponent(instance)}/logs/${encodeURIComponent(name.toWellFormed())}`;
}

function describe(event: TimelineEvent, instance: string): string {
  switch (event.kind) {
    case 'fetched':
      return describeFetch(event.delivery);
    case 'refused':
      return `refused the document ${asker(event.delivery)}: ${whyNot(event.delivery.refusal)}`;
    case 'stage':
      return describeStage(event.stage);
    case 'event': {
      const { name, type, result, description } = event.event;
      return `${shown(name)}: ${type}${result === null ? '' : ` ${shown(result)}`}${inBrackets(description)}`;
    }
    case 'manifest': {
      const { file, status, attempts, client, clientVersion } = event.manifest;
      const by = [client, clientVersion].filter((word) => word !== '').join(' ');
      return `manifest ${shown(file)}: ${status}${by === '' ? '' : ` by ${by}`}, ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'}`;
    }
    case 'phoneHome':
      return describePhoneHome(event.phoneHome);
    case 'log': {
      const { name, bytes, truncated } = event.log;
      return `sent ${truncated ? 'the end of ' : ''}${shown(name)} (${bytes} bytes): ${logUrl(instance, name)}`;
    }
    case 'alarm':
      return describeAlarm(event.alarm);
    case 'ready':
    case 'failed':
    case 'silent':
      return `${event.kind}: ${shown(event.reason)}`;
    case 'changed':
      return `changed${event.version === null ? '' : ` to version ${event.version}`}${byWhom(event.by)}`;
    default:
      return `${event.kind}${byWhom(event.by)}`;
  }
}

function describeFetch(delivery: Delivery): string {
  const { outcome, revisions, bytes, purpose, counted, refusal } = delivery;
  // A digest hashes the secrets in it, too: not everybody who may read this may guess at them.
  const digest = delivery.holdsSecrets || delivery.digest === null ? '' : `, ${delivery.digest.slice(0, 12)}`;
  if (outcome === 'failed') return `could not be rendered for the ${purpose} URL, asked for ${asker(delivery)}`;
  const what = `${revisions.join(' ')} (${bytes} bytes${digest})`;
  if (refusal !== null)
    return `served what its policy has for late fetches ${asker(delivery)}, since ${whyNot(refusal)}: ${what}`;
  return `${outcome === 'aborted' ? 'begun to be fetched' : 'fetched'}${counted ? '' : ' again'} ${asker(delivery)}: ${what}`;
}

function asker({ address, userAgent }: Pick<Delivery, 'address' | 'userAgent'>): string {
  return `by ${address || 'nobody'} (${userAgent || 'no user agent'})`;
}

const REFUSALS: Record<Refusal, string> = {
  closed: 'its window was closed by hand',
  expired: 'its window had expired',
  delivered: 'the time from the first delivery was over',
  succeeded: 'its boot had succeeded',
  address: 'its policy does not allow the address',
};

function whyNot(refusal: Refusal | null): string {
  return refusal === null ? 'the policy forbids it' : REFUSALS[refusal];
}

function describeStage({ name, result, description, milliseconds }: Stage): string {
  if (result === null) return `${shown(name)}: running${inBrackets(description)}`;
  const time = milliseconds === null ? '' : ` after ${seconds(milliseconds)}`;
  return `${shown(name)}: ${shown(result)}${time}${inBrackets(description)}`;
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(1)} s`;
}

function describePhoneHome({ instanceId, hostname, fqdn, hostKeys }: PhoneHome): string {
  const names = [...new Set([hostname, fqdn].filter((name) => name !== ''))].map(shown).join(', ');
  const keys = hostKeys.map(
    ({ kind, fingerprint }) => `${shown(kind)} ${fingerprint === null ? 'no key' : shown(fingerprint)}`,
  );
  const parts = [`phoned home${names === '' ? '' : ` as ${names}`}`];
  if (instanceId !== '') parts.push(`instance-id ${shown(instanceId)}`);
  parts.push(keys.length === 0 ? 'no SSH host keys' : `SSH host keys ${keys.join(', ')}`);
  return parts.join('; ');
}

const ALARMS: Record<AlarmKind, string> = {
  late_fetch: 'a fetch after the window closed',
  foreign_address: 'a fetch from an address that is not allowed',
  old_stub: 'a fetch with a stub that is valid no more',
  second_machine: 'a second machine fetched with the same stub',
};

function describeAlarm({ kind, count, at, lastAt, address, userAgent }: Alarm): string {
  const often = count === 1 ? '' : `, ${count} times until ${isoTime(Math.max(at, lastAt))}`;
  return `ALARM ${kind}: ${ALARMS[kind]}${often}, ${asker({ address, userAgent })}`;
}

function byWhom(by: string | null): string {
  return by === null ? '' : ` by ${shown(by)}`;
}

function inBrackets(text: string): string {
  return text === '' ? '' : ` (${shown(text)})`;
}

function shown(text: string): string {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

function outputOf(event: TimelineEvent): string {
  if (event.kind !== 'manifest' || event.manifest.status === 'applied') return '';
  const lines = event.manifest.output.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line) => `\n    ${printable(line)}`).join('');
}

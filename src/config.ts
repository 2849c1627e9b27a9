import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { readNetwork } from './domain/address.ts';
import type { Deadlines } from './domain/boot.ts';
import { formatDuration, parseDuration } from './domain/duration.ts';
import { type PolicyDefaults, SHORTEST_WINDOW_MS } from './domain/policy.ts';

/** Everything that can be set, read once. */
export interface Config {
  readonly host: string;
  readonly port: number;
  /** A listener of their own for machines, or null: one listener for all. */
  readonly bootListen: { readonly host: string; readonly port: number } | null;
  /** What machines see, without a final slash; null: the listener's own URL. */
  readonly publicUrl: string | null;
  readonly dataDir: string;
  /** postgres://…, or null: one SQLite file in the data directory. */
  readonly databaseUrl: string | null;
  /** An admin token for as long as the process runs, or null: the one in the data directory. */
  readonly adminToken: string | null;
  /** Root keys, newest first, or null: the one in the data directory. */
  readonly keys: readonly Uint8Array[] | null;
  /** A schema file or folder that judges cloud-configs, whatever else is found; null: the newest that is found. */
  readonly cloudInitSchema: string | null;
  /** How long rows stay in the ledger, milliseconds; null: for ever. */
  readonly ledgerRetention: number | null;
  /** How long a machine may say nothing before it is silent. */
  readonly deadlines: Deadlines;
  readonly logLevel: string;
  /** Who may fetch, and until when, where an instance states nothing. */
  readonly policyDefaults: PolicyDefaults;
  /** The proxies whose X-Forwarded-For is believed, as networks. */
  readonly trustedProxies: readonly string[];
}

/** A setting that cannot be used: one line, which names it. */
export class ConfigError extends Error {}

interface Setting {
  /** Of BOOTBUNDLE_…; the flag is the same in lower case. */
  name: string;
  /** Secrets have no flag: a command line is there for everybody to read. */
  secret?: boolean;
  default?: string;
  help: string;
}

/** The one list of settings: environment, flags, `--help` and README all follow it. */
export const SETTINGS = [
  { name: 'HOST', default: '127.0.0.1', help: 'address to listen on' },
  { name: 'PORT', default: '8080', help: 'port to listen on; 0 takes a free one' },
  { name: 'BOOT_LISTEN', help: 'host:port of a listener of their own for machines; operators are then not served there' },
  { name: 'PUBLIC_URL', help: 'what machines see, such as http://192.0.2.10:8080; needed when HOST is a wildcard' },
  { name: 'DATA_DIR', default: './data', help: 'directory for the database, the key and the admin token' },
  { name: 'DATABASE_URL', secret: true, help: 'postgres://… instead of the SQLite file' },
  { name: 'ADMIN_TOKEN', secret: true, help: 'an admin token, at least 20 characters; unset: made at the first start' },
  {
    name: 'KEY',
    secret: true,
    help: 'root keys NEW,OLD of at least 32 characters each; unset with SQLite: made at the first start',
  },
  { name: 'CLOUD_INIT_SCHEMA', help: "cloud-init's schema, a file or folder; unset: the newest that is found" },
  {
    name: 'LEDGER_RETENTION',
    default: '400d',
    help: 'how long deliveries, reports and alarms are kept, such as 90d; never: for ever (10,000 deliveries each)',
  },
  {
    name: 'BOOT_DEADLINE',
    default: '30m',
    help: 'a machine that fetched and says nothing for so long is silent: 90s, 30m, 2h, 1d or never',
  },
  {
    name: 'FETCH_DEADLINE',
    default: '24h',
    help: 'a machine that does not fetch for so long after its registration is silent; or never',
  },
  { name: 'LOG_LEVEL', default: 'info', help: 'fatal, error, warn, info, debug, trace or silent' },
  {
    name: 'CLOSE_AFTER',
    default: 'auto',
    help: 'when a window shuts after the first delivery: 1h, success, never, or auto (1h for documents with secrets)',
  },
  { name: 'EXPIRES_AFTER', help: 'how long after its registration a window shuts, such as 7d; unset: never' },
  { name: 'ALLOW_FROM', help: 'networks that may fetch, 192.0.2.0/24,2001:db8::/32; unset: everywhere' },
  { name: 'TRUSTED_PROXIES', help: 'proxies whose X-Forwarded-For is believed, 192.0.2.5,10.0.0.0/8; unset: none' },
] as const satisfies readonly Setting[];

type SettingName = (typeof SETTINGS)[number]['name'];

/**
 * Reads the settings from flags (`--data-dir=…`, `--data-dir …`), then the environment (`BOOTBUNDLE_DATA_DIR`; secrets also `…_FILE`), then defaults.
 * @throws ConfigError with one line that names the setting
 */
export function readConfig(env: Readonly<Record<string, string | undefined>>, flags: ReadonlyMap<string, string>): Config {
  const known = new Set(SETTINGS.filter((setting) => !('secret' in setting)).map(({ name }) => flagOf(name)));
  for (const flag of flags.keys())
    if (!known.has(flag)) throw new ConfigError(`--${flag}: unknown flag; see bootbundle serve --help`);

  const value = (name: SettingName): string | null => {
    const setting: Setting = SETTINGS.find((candidate) => candidate.name === name) as Setting;
    const variable = `BOOTBUNDLE_${name}`;
    const file = setting.secret ? env[`${variable}_FILE`] : undefined;
    const direct = flags.get(flagOf(name)) ?? env[variable];
    if (file && direct) throw new ConfigError(`${variable}: set either it or ${variable}_FILE, not both`);
    if (file) return readSecret(`${variable}_FILE`, file);
    return direct || (setting.default ?? null);
  };
  const bad = (name: SettingName, why: string) => new ConfigError(`BOOTBUNDLE_${name}: ${why}`);

  const host = value('HOST') ?? '';
  const publicUrl = value('PUBLIC_URL');
  const boot = value('BOOT_LISTEN');
  const databaseUrl = value('DATABASE_URL');
  const adminToken = value('ADMIN_TOKEN');
  const keys = value('KEY');
  const retention = value('LEDGER_RETENTION') ?? '';
  const logLevel = value('LOG_LEVEL') ?? '';

  if (!isHost(host)) throw bad('HOST', 'not an address or host name');
  if (databaseUrl !== null && !(/^postgres(ql)?:\/\//.test(databaseUrl) && URL.canParse(databaseUrl)))
    throw bad('DATABASE_URL', 'must be a URL that begins with postgres://');
  if (adminToken !== null && !/^[\x21-\x7e]{20,}$/.test(adminToken))
    throw bad('ADMIN_TOKEN', 'needs at least 20 printable characters without white space; try: openssl rand -hex 32');
  if (!['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'].includes(logLevel))
    throw bad('LOG_LEVEL', 'must be fatal, error, warn, info, debug, trace or silent');
  const bootListen = boot === null ? null : readHostPort(boot);
  if (bootListen === undefined) throw bad('BOOT_LISTEN', 'must be HOST:PORT, such as 0.0.0.0:8081 or [::]:8081');
  if (publicUrl === null && isWildcard(bootListen?.host ?? host))
    throw bad(
      'PUBLIC_URL',
      'needed when listening on a wildcard address: say which URL machines reach, such as http://192.0.2.10:8080',
    );

  return Object.freeze({
    host,
    port: readPort(value('PORT') ?? '') ?? fail(bad('PORT', 'must be a number from 0 to 65535')),
    bootListen,
    publicUrl: publicUrl === null ? null : readPublicUrl(publicUrl),
    dataDir: value('DATA_DIR') ?? '',
    databaseUrl,
    adminToken,
    keys: keys === null ? null : readKeys(keys),
    cloudInitSchema: value('CLOUD_INIT_SCHEMA'),
    ledgerRetention:
      retention === 'never'
        ? null
        : (readRetention(retention) ?? fail(bad('LEDGER_RETENTION', 'must be 1h to 3650d, or never'))),
    deadlines: {
      boot: readDeadline('BOOT_DEADLINE', value('BOOT_DEADLINE') ?? ''),
      fetch: readDeadline('FETCH_DEADLINE', value('FETCH_DEADLINE') ?? ''),
    },
    logLevel,
    policyDefaults: {
      closeAfter: readCloseAfter(value('CLOSE_AFTER') ?? ''),
      expiresAfter: readExpiresAfter(value('EXPIRES_AFTER')),
      allowFrom: readNetworks('ALLOW_FROM', value('ALLOW_FROM')),
    },
    trustedProxies: readNetworks('TRUSTED_PROXIES', value('TRUSTED_PROXIES')),
  });
}

/** `DATA_DIR` → `data-dir`. */
export function flagOf(name: string): string {
  return name.toLowerCase().replaceAll('_', '-');
}

/** Whether a listener takes connections from everywhere; `0` and `0::0` are spellings of that, too. */
export function isWildcard(host: string): boolean {
  const url = `http://${host.includes(':') ? `[${host}]` : host}`;
  return URL.canParse(url) && ['0.0.0.0', '[::]'].includes(new URL(url).hostname);
}

function readSecret(variable: string, file: string): string {
  try {
    const text = readFileSync(file, 'utf8').trim();
    if (text === '') throw new ConfigError(`${variable}: the file is empty`);
    return text;
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`${variable}: the file cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
}

function isHost(text: string): boolean {
  return isIP(text) !== 0 || /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(text);
}

function readPort(text: string): number | null {
  return /^[0-9]{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : null;
}

/** Milliseconds, or null for ever. */
function readDeadline(name: SettingName, text: string): number | null {
  if (text === 'never') return null;
  return (
    parseDuration(text) ?? fail(new ConfigError(`BOOTBUNDLE_${name}: must be a duration such as 90s, 30m, 2h, 1d, or never`))
  );
}

function readHostPort(text: string): { host: string; port: number } | undefined {
  const [, v6, name, digits = ''] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):([0-9]+)$/.exec(text) ?? [];
  const host = v6 ?? name ?? '';
  const port = readPort(digits);
  return port === null || port === 0 || !isHost(host) ? undefined : { host, port };
}

function readPublicUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || /[?#]/.test(text))
    throw new ConfigError('BOOTBUNDLE_PUBLIC_URL: must be an http or https URL without user, query or fragment');
  if (url.href.length > 120)
    throw new ConfigError('BOOTBUNDLE_PUBLIC_URL: at most 120 characters, so that a stub stays under 200 bytes');
  return url.href.replace(/\/+$/, '');
}

/** Text, so that it reads the same from a variable and from a file: raw bytes would be garbled, and zeros are no key. */
export function isRootKey(text: string): boolean {
  return /^[\x21-\x7e]{32,}$/.test(text);
}

function readKeys(text: string): Uint8Array[] {
  return text.split(',').map((key) => {
    if (!isRootKey(key.trim()))
      throw new ConfigError(
        'BOOTBUNDLE_KEY: each key needs at least 32 printable characters without white space; try: openssl rand -hex 32',
      );
    return new TextEncoder().encode(key.trim());
  });
}

function readCloseAfter(text: string): PolicyDefaults['closeAfter'] {
  if (text === 'auto' || text === 'success' || text === 'never') return text;
  const length = parseDuration(text);
  const shortest = formatDuration(SHORTEST_WINDOW_MS);
  if (length === null || length < SHORTEST_WINDOW_MS)
    throw new ConfigError(
      `BOOTBUNDLE_CLOSE_AFTER: must be a duration of at least ${shortest} (10m, 1h, 7d), success, never or auto`,
    );
  return length;
}

function readExpiresAfter(text: string | null): number | null {
  if (text === null) return null;
  return parseDuration(text) ?? fail(new ConfigError('BOOTBUNDLE_EXPIRES_AFTER: must be a duration, such as 12h or 7d'));
}

function readNetworks(name: SettingName, text: string | null): string[] {
  const networks = text?.split(',').map((network) => network.trim()) ?? [];
  return networks.map((network) => {
    const reading = readNetwork(network);
    if ('why' in reading) throw new ConfigError(`BOOTBUNDLE_${name}: ${JSON.stringify(network)} ${reading.why}`);
    return reading.network;
  });
}

/** At least an hour: by what is younger a repeat is told from a delivery. */
function readRetention(text: string): number | null {
  const duration = parseDuration(text);
  return duration !== null && duration >= 60 * 60 * 1000 ? duration : null;
}

function fail(error: Error): never {
  throw error;
}

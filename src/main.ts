import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { type Config, ConfigError } from './config.ts';
import { type DataDir, openDataDir } from './data-dir.ts';
import type { Alarm } from './domain/alarm.ts';
import type { Deadlines } from './domain/boot.ts';
import { DEFAULT_POLICY, type PolicyDefaults } from './domain/policy.ts';
import type { Store } from './domain/store.ts';
import type { PartUpload } from './domain/upload.ts';
import { buildApp } from './http/app.ts';
import { logAlarm } from './http/boot/alarms.ts';
import type { Schemas } from './inspect/schema.ts';
import { createSchemaFinder } from './schema-files.ts';
import { ensureBuiltIns } from './service/builtin.ts';
import { createBundleService } from './service/bundles.ts';
import { createDeliveryService } from './service/deliveries.ts';
import { createDocumentService } from './service/documents.ts';
import { createGate } from './service/gate.ts';
import { createInstanceService } from './service/instances.ts';
import { type Authenticate, createAuthenticator, createKeyRing, type KeyRing } from './service/keys.ts';
import { createLedgerService } from './service/ledger.ts';
import { lint } from './service/lint.ts';
import { createLookupService } from './service/lookup.ts';
import { createReplayService } from './service/replay.ts';
import { createReportService } from './service/reports.ts';
import { createRetention } from './service/retention.ts';
import { createSecretService, type Resealed, resealSecrets } from './service/secrets.ts';
import { createSlices } from './service/slices.ts';
import { createTimelineService } from './service/timeline.ts';
import { createWaitService } from './service/wait.ts';
import { createWatch } from './service/watch.ts';
import { createWindowService } from './service/windows.ts';
import { openStore } from './store/open.ts';

/** A running service. */
export interface Running {
  /** Where operators reach it. */
  url: string;
  /** Where machines reach it. */
  publicUrl: string;
  /** Where the admin token was put, if this start made it. */
  adminTokenFile: string | null;
  /** Serves what is under way, then ends. */
  stop(): Promise<void>;
}

/**
 * The composition root: config → store → services → apps → listeners.
 * @throws ConfigError or BootbundleError, each a line for the operator
 */
export async function start(config: Config): Promise<Running> {
  const dataDir = openDataDir(config.dataDir);
  const { store, keys } = await open(config, dataDir);
  const apps: FastifyInstance[] = [];
  const onTrouble = (error: unknown, what: string) => apps[0]?.log.error({ err: error }, what);
  const retention = createRetention({ store, keepMs: config.ledgerRetention, clock: Date.now, onTrouble });
  const watch = createWatch({
    store,
    deadlines: config.deadlines,
    clock: Date.now,
    onSilent: (instance, { reason }) => apps[0]?.log.warn({ instance, reason }, 'silent'),
    onTrouble,
  });
  const close = async () => {
    await Promise.all([watch.stop(), retention.stop(), ...apps.map((app) => app.close())]);
    await store.close();
  };
  try {
    const admin = config.adminToken === null ? dataDir.adminToken() : { token: config.adminToken, made: false };
    await ensureBuiltIns(store, Date.now);
    const urls = await listen(config, store, keys, createAuthenticator(admin.token), apps);
    retention.start();
    watch.start();
    return {
      ...urls,
      adminTokenFile: admin.made ? join(dataDir.path, 'admin-token') : null,
      stop: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Seals every secret under the newest key. @throws as `start`, and unavailable when a secret opens with no key of the ring */
export async function reseal(config: Config): Promise<Resealed> {
  const { store, keys } = await open(config, openDataDir(config.dataDir));
  try {
    return await resealSecrets(store, keys);
  } finally {
    await store.close();
  }
}

/** The database, and the keys it was made under. */
async function open(config: Config, dataDir: DataDir): Promise<{ store: Store; keys: KeyRing }> {
  if (config.databaseUrl !== null && config.keys === null)
    throw new ConfigError('BOOTBUNDLE_KEY: needed with PostgreSQL, the same for every replica; try: openssl rand -hex 32');
  const file = join(dataDir.path, 'bootbundle.db');
  const keys = createKeyRing(config.keys ?? [dataDir.key(!existsSync(file))]);
  const store = await openStore(config.databaseUrl === null ? { file } : { url: config.databaseUrl });
  try {
    if (await store.claimKey(keys.checks)) return { store, keys };
    throw new ConfigError(
      'BOOTBUNDLE_KEY: this database was made under another key; start with that key (server.key in its data directory)',
    );
  } catch (error) {
    await store.close();
    throw error;
  }
}

/** The OpenAPI document, as /openapi.json gives it where one listener serves all. */
export async function describeApi(): Promise<object> {
  const store = await openStore({ file: ':memory:' });
  const keys = createKeyRing([new Uint8Array(32)]);
  const onTrouble = (error: unknown) => {
    throw error;
  };
  const schemas = async () => null;
  const deadlines: Deadlines = { fetch: null, boot: null };
  const deps = buildServices({
    ...{ store, keys, publicUrl: 'http://localhost:8080', schemas, deadlines, clock: Date.now, freshId },
    ...{ policyDefaults: DEFAULT_POLICY, onTrouble, onAlarm: () => undefined },
  });
  const app = await buildApp({ ...deps, authenticate: () => null, log: { level: 'silent' }, scopes: 'all' });
  try {
    await app.ready();
    return app.swagger();
  } finally {
    await app.close();
    await store.close();
  }
}

/** What a set of services hangs on. */
export interface Foundation {
  store: Store;
  keys: KeyRing;
  /** What machines see, without a final slash. */
  publicUrl: string;
  /** How long a machine may say nothing before it is silent. */
  deadlines: Deadlines;
  /** Epoch milliseconds. */
  clock: () => number;
  /** A new instance id: 16 hex digits nobody can foresee. */
  freshId: () => string;
  /** What judges cloud-configs now. */
  schemas: () => Promise<Schemas>;
  /** Told of trouble nobody waits for. */
  onTrouble: (error: unknown, what: string) => void;
  /** Who may fetch where an instance states nothing. */
  policyDefaults: PolicyDefaults;
  /** Told of each alarm when it begins. */
  onAlarm: (alarm: Alarm) => void;
}

/** Every service, wired; what `buildApp` wants of them. */
export function buildServices(foundation: Foundation) {
  const documents = createDocumentService(foundation);
  const deliveries = createDeliveryService({ ...foundation, documents });
  const slices = createSlices(deliveries.fetching);
  const gate = createGate({ ...foundation, documents, slices });
  const instances = createInstanceService({ ...foundation, documents, slices });
  return {
    bundles: createBundleService({ ...foundation, documents, gate, slices }),
    instances,
    windows: createWindowService({ ...foundation, documents, instances }),
    secrets: createSecretService({ ...foundation, instances, gate }),
    lint: async (uploads: readonly PartUpload[]) => lint(uploads, await foundation.schemas(), slices()),
    deliveries,
    timeline: createTimelineService(foundation),
    reports: createReportService(foundation),
    replay: createReplayService({ ...foundation, documents, instances }),
    waiting: createWaitService(foundation),
    lookup: createLookupService(foundation),
    ledger: createLedgerService(foundation),
    ready: () => foundation.store.ping(),
  };
}

/** Builds the services around the URL that machines see, and puts them behind one listener or two. */
async function listen(
  config: Config,
  store: Store,
  keys: KeyRing,
  authenticate: Authenticate,
  apps: FastifyInstance[],
): Promise<{ url: string; publicUrl: string }> {
  const operators = { host: config.host, port: config.port || (await freePort(config.host)) };
  const machines = config.bootListen ?? operators;
  const publicUrl = config.publicUrl ?? urlOf(machines);

  const onTrouble = (error: unknown, what: string) => apps[0]?.log.error({ err: error }, what);
  const schemas = await createSchemaFinder({ dataDir: config.dataDir, file: config.cloudInitSchema, onTrouble });
  const onAlarm = (alarm: Alarm) => apps[0] && logAlarm(apps[0].log, alarm);
  const { policyDefaults, trustedProxies } = config;
  const deps = {
    ...buildServices({
      ...{ store, keys, publicUrl, schemas, clock: Date.now, freshId },
      ...{ policyDefaults, deadlines: config.deadlines, onTrouble, onAlarm },
    }),
    authenticate,
    trustedProxies,
    log: { level: config.logLevel },
  };

  const separate = config.bootListen !== null;
  apps.push(await buildApp({ ...deps, scopes: separate ? 'operators' : 'all' }));
  if (separate) apps.push(await buildApp({ ...deps, scopes: 'machines' }));
  for (const [app, address] of [[apps[0], operators] as const, [apps[1], machines] as const]) if (app) await bind(app, address);
  if (!isLoopback(config.host))
    apps[0]?.log.warn(`operators are served on ${config.host} without TLS: tokens cross the network in the clear`);
  return { url: urlOf(operators), publicUrl };
}

function freshId(): string {
  return randomBytes(8).toString('hex');
}

interface Address {
  host: string;
  port: number;
}

async function bind(app: FastifyInstance, { host, port }: Address): Promise<void> {
  try {
    // Fastify would open a second server for the other address of localhost, past what app.ts does for the first.
    await app.listen({
      host: host === 'localhost' ? '127.0.0.1' : host,
      port,
      listenTextResolver: (address) => `listening at ${address}`,
    });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    const why = code === 'EADDRINUSE' ? 'something else listens there already' : code;
    throw new ConfigError(`cannot listen on ${host}:${port}: ${why}`);
  }
}

/** The URL has the port in it, so a free one is chosen before anything is built. */
async function freePort(host: string): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve, reject) => probe.once('error', reject).listen(0, host, resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

function urlOf({ host, port }: Address): string {
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import type { Server } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import product from '../package.json' with { type: 'json' };
import { type Config, ConfigError } from './config.ts';
import { type DataDir, openDataDir } from './data-dir.ts';
import { HOST_ADMIN } from './domain/actor.ts';
import type { Alarm } from './domain/alarm.ts';
import type { AuditFilter } from './domain/audit.ts';
import type { Deadlines } from './domain/boot.ts';
import { DEFAULT_POLICY, type PolicyDefaults } from './domain/policy.ts';
import type { Page, Store } from './domain/store.ts';
import type { PartUpload } from './domain/upload.ts';
import { type AppDeps, buildApp } from './http/app.ts';
import { logAlarm } from './http/boot/alarms.ts';
import type { Schemas } from './inspect/schema.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import { createSchemaFinder } from './schema-files.ts';
import { ensureBuiltIns } from './service/builtin.ts';
import { createBundleService } from './service/bundles.ts';
import { createDeliveryService } from './service/deliveries.ts';
import { createDocumentService } from './service/documents.ts';
import { createGate } from './service/gate.ts';
import { createInstanceService } from './service/instances.ts';
import { createKeyRing, type KeyRing } from './service/keys.ts';
import { createLedgerService } from './service/ledger.ts';
import { lint } from './service/lint.ts';
import { createLookupService } from './service/lookup.ts';
import { createReplayService } from './service/replay.ts';
import { createReportService } from './service/reports.ts';
import { createRetention } from './service/retention.ts';
import { createSecretService, type Resealed, resealSecrets } from './service/secrets.ts';
import { createSlices } from './service/slices.ts';
import { createTimelineService } from './service/timeline.ts';
import { createAuthenticator, createTokenService, type TokenService } from './service/tokens.ts';
import { createWaitService } from './service/wait.ts';
import { createWatch } from './service/watch.ts';
import { createWindowService } from './service/windows.ts';
import { openStore } from './store/open.ts';
import { type Certificate, openCertificate } from './tls.ts';

/** A running service. */
export interface Running {
  /** Where operators reach it. */
  url: string;
  /** Where machines reach it. */
  publicUrl: string;
  /** Where the admin token was put, if this start made it. */
  adminTokenFile: string | null;
  /** The certificate's file, if nobody else vouches for it: clients must be told to trust it. */
  selfSigned: string | null;
  /** Serves what is under way, then ends. */
  stop(): Promise<void>;
}

/**
 * The composition root: config → store → services → apps → listeners.
 * @throws ConfigError or BootbundleError, each a line for the operator
 */
export async function start(config: Config): Promise<Running> {
  const certificate = config.tls && (await openCertificate(config.tls));
  const dataDir = openDataDir(config.dataDir);
  const metrics: Metrics = createMetrics({
    version: product.version,
    engine: config.databaseUrl === null ? 'sqlite' : 'postgres',
    clock: Date.now,
    countStates: () => store.countInstancesByState(Date.now(), config.deadlines),
    pool: () => store.pool(),
  });
  const { store, keys } = await open(config, dataDir, metrics);
  const apps: FastifyInstance[] = [];
  const onTrouble = (error: unknown, what: string) => apps[0]?.log.error({ err: error }, what);
  const retention = createRetention({ store, keepMs: config.ledgerRetention, clock: Date.now, onTrouble });
  const watch = createWatch({
    store,
    deadlines: config.deadlines,
    clock: Date.now,
    onSilent: (instance, { reason }) => {
      metrics.onSilent();
      apps[0]?.log.warn({ instance, reason }, 'silent');
    },
    onTrouble,
  });
  const close = async () => {
    await Promise.all([watch.stop(), retention.stop(), ...apps.map((app) => app.close())]);
    await store.close();
  };
  try {
    const admin = config.adminToken === null ? dataDir.adminToken() : { token: config.adminToken, made: false };
    await ensureBuiltIns(store, Date.now);
    const urls = await listen(config, { store, keys, metrics, certificate }, admin.token, apps);
    retention.start();
    watch.start();
    return {
      ...urls,
      adminTokenFile: admin.made ? join(dataDir.path, 'admin-token') : null,
      selfSigned: certificate?.selfSigned && config.tls ? config.tls.cert : null,
      stop: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Seals every secret under the newest key. @throws as `start`, and unavailable when a secret opens with no key of the ring */
export async function reseal(config: Config): Promise<Resealed> {
  return withStore(config, (store, keys) => resealSecrets(store, keys, { at: Date.now(), by: HOST_ADMIN }));
}

/** Works with the tokens, as the admin of this host. @throws as `start`, and what `work` does */
export async function withTokens<T>(config: Config, work: (tokens: TokenService) => Promise<T>): Promise<T> {
  return withStore(config, (store) => work(createTokenService({ store, clock: Date.now })));
}

async function withStore<T>(config: Config, work: (store: Store, keys: KeyRing) => Promise<T>): Promise<T> {
  const { store, keys } = await open(config, openDataDir(config.dataDir));
  try {
    return await work(store, keys);
  } finally {
    await store.close();
  }
}

/** The database, and the keys it was made under. */
async function open(config: Config, dataDir: DataDir, metrics?: Metrics): Promise<{ store: Store; keys: KeyRing }> {
  if (config.databaseUrl !== null && config.keys === null)
    throw new ConfigError('BOOTBUNDLE_KEY: needed with PostgreSQL, the same for every replica; try: openssl rand -hex 32');
  const file = join(dataDir.path, 'bootbundle.db');
  const keys = createKeyRing(config.keys ?? [dataDir.key(!existsSync(file))]);
  const location = config.databaseUrl === null ? { file } : { url: config.databaseUrl };
  const store = await openStore(location, metrics?.onDatabaseError);
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
  const metrics = { expose: async () => ({ type: 'text/plain', text: '' }), onRequest: () => undefined };
  const authenticate = createAuthenticator({ adminToken: freshId(), store, clock: Date.now, onTrouble });
  const app = await buildApp({ ...deps, metrics, authenticate, log: { level: 'silent' }, scopes: 'all' });
  try {
    await app.ready();
    return app.swagger();
  } finally {
    await app.close();
    await store.close();
  }
}

/** What services tell the metrics, if there are any. */
type Hooks = Pick<Metrics, 'onFetch' | 'onRender' | 'onCommit' | 'onPublish'>;

/** What a set of services hangs on. */
export interface Foundation extends Partial<Hooks> {
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
    tokens: createTokenService(foundation),
    audit: (filter: AuditFilter, page: Page<number>) => foundation.store.listAudit(filter, page),
    ready: () => foundation.store.ping(),
  };
}

/** Builds the services around the URL that machines see, and puts them behind one listener or two. */
async function listen(
  config: Config,
  {
    store,
    keys,
    metrics,
    certificate,
  }: Pick<Foundation, 'store' | 'keys'> & { metrics: Metrics; certificate: Certificate | null },
  adminToken: string,
  apps: FastifyInstance[],
): Promise<{ url: string; publicUrl: string }> {
  const operators = { host: config.host, port: config.port || (await freePort(config.host)), tls: certificate !== null };
  const machines = config.bootListen ? { ...config.bootListen, tls: certificate !== null && config.bootTls } : operators;
  const publicUrl = config.publicUrl ?? urlOf(machines);

  const onTrouble = (error: unknown, what: string) => apps[0]?.log.error({ err: error }, what);
  const schemas = await createSchemaFinder({ dataDir: config.dataDir, file: config.cloudInitSchema, onTrouble });
  const onAlarm = (alarm: Alarm) => {
    metrics.onAlarm(alarm);
    if (apps[0]) logAlarm(apps[0].log, alarm);
  };
  const { policyDefaults, trustedProxies } = config;
  const deps = {
    ...buildServices({
      ...metrics,
      ...{ store, keys, publicUrl, schemas, clock: Date.now, freshId },
      ...{ policyDefaults, deadlines: config.deadlines, onTrouble, onAlarm },
    }),
    metrics,
    onReport: metrics.onReport,
    authenticate: createAuthenticator({ adminToken, store, clock: Date.now, onTrouble }),
    trustedProxies,
    log: { level: config.logLevel },
  };

  const separate = config.bootListen !== null;
  const build = async ({ tls }: Address, scopes: AppDeps['scopes']) => {
    apps.push(await buildApp({ ...deps, tls: tls && certificate ? certificate.options : null, scopes }));
  };
  await build(operators, separate ? 'operators' : 'all');
  if (separate) await build(machines, 'machines');
  if (certificate) renew(certificate, apps, machines.tls ? apps : apps.slice(0, 1));
  for (const [app, address] of [[apps[0], operators] as const, [apps[1], machines] as const]) if (app) await bind(app, address);
  const warn = (line: string) => apps[0]?.log.warn(line);
  for (const line of certificate?.warnings(Date.now()) ?? []) warn(line);
  if (!operators.tls && !isLoopback(config.host))
    warn(`operators are served on ${config.host} without TLS: tokens cross the network in the clear`);
  if (machines.tls && certificate?.selfSigned)
    warn(
      'machines are served with a self-signed certificate: cloud-init fetches only if its image trusts it; see BOOTBUNDLE_BOOT_TLS',
    );
  return { url: urlOf(operators), publicUrl };
}

/** A renewed certificate is served without a restart, until the first listener closes. */
function renew(certificate: Certificate, apps: readonly FastifyInstance[], withTls: readonly FastifyInstance[]): void {
  const end = certificate.follow(
    // Fastify's type knows only plain servers.
    withTls.map(({ server }) => server as unknown as Server),
    (trouble) =>
      trouble === null
        ? apps[0]?.log.info('the renewed certificate is served from now on')
        : apps[0]?.log.error(`the certificate is served as it was: ${trouble}`),
  );
  apps[0]?.addHook('preClose', async () => end());
}

function freshId(): string {
  return randomBytes(8).toString('hex');
}

interface Address {
  host: string;
  port: number;
  tls: boolean;
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

function urlOf({ host, port, tls }: Address): string {
  return `${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

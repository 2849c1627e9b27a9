import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { type Config, ConfigError } from './config.ts';
import { type DataDir, openDataDir } from './data-dir.ts';
import { HOST_ADMIN } from './domain/actor.ts';
import type { AuditFilter } from './domain/audit.ts';
import type { Page, Store } from './domain/store.ts';
import type { PartUpload } from './domain/upload.ts';
import { buildApp } from './http/app.ts';
import type { SchemaSet } from './inspect/schema.ts';
import { createSchemaFinder } from './schema-files.ts';
import { ensureBuiltIns } from './service/builtin.ts';
import { createBundleService } from './service/bundles.ts';
import { createDeliveryService } from './service/deliveries.ts';
import { createDocumentService } from './service/documents.ts';
import { createGate } from './service/gate.ts';
import { createInstanceService } from './service/instances.ts';
import { createKeyRing, type KeyRing } from './service/keys.ts';
import { lint } from './service/lint.ts';
import { createSecretService, resealSecrets } from './service/secrets.ts';
import { createSlices } from './service/slices.ts';
import { createTimelineService } from './service/timeline.ts';
import { createAuthenticator, createTokenService, type TokenService } from './service/tokens.ts';
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
  const close = async () => {
    await Promise.all(apps.map((app) => app.close()));
    await store.close();
  };
  try {
    const admin = config.adminToken === null ? dataDir.adminToken() : { token: config.adminToken, made: false };
    await ensureBuiltIns(store, Date.now);
    const urls = await listen(config, store, keys, admin.token, apps);
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
export async function reseal(config: Config): Promise<{ resealed: number; already: number }> {
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
  const deps = buildServices({ store, keys, publicUrl: 'http://localhost:8080', schemas, clock: Date.now, freshId, onTrouble });
  const authenticate = createAuthenticator({ adminToken: freshId(), store, clock: Date.now, onTrouble });
  const app = await buildApp({ ...deps, authenticate, log: { level: 'silent' }, scopes: 'all' });
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
  /** Epoch milliseconds. */
  clock: () => number;
  /** A new instance id: 16 hex digits nobody can foresee. */
  freshId: () => string;
  /** What judges cloud-configs now, or null while there is no schema. */
  schemas: () => Promise<SchemaSet | null>;
  /** Told of trouble nobody waits for. */
  onTrouble: (error: unknown, what: string) => void;
}

/** Every service, wired; what `buildApp` wants of them. */
export function buildServices(foundation: Foundation) {
  const documents = createDocumentService(foundation);
  const deliveries = createDeliveryService({ ...foundation, documents });
  const slices = createSlices(deliveries.fetching);
  const gate = createGate({ ...foundation, documents, slices });
  const instances = createInstanceService({ ...foundation, documents, slices });
  return {
    bundles: createBundleService({ ...foundation, documents, gate }),
    instances,
    secrets: createSecretService({ ...foundation, instances, gate }),
    lint: async (uploads: readonly PartUpload[]) => lint(uploads, await foundation.schemas()),
    deliveries,
    timeline: createTimelineService(foundation),
    tokens: createTokenService(foundation),
    audit: (filter: AuditFilter, page: Page<number>) => foundation.store.listAudit(filter, page),
    ready: () => foundation.store.ping(),
  };
}

/** Builds the services around the URL that machines see, and puts them behind one listener or two. */
async function listen(
  config: Config,
  store: Store,
  keys: KeyRing,
  adminToken: string,
  apps: FastifyInstance[],
): Promise<{ url: string; publicUrl: string }> {
  const operators = { host: config.host, port: config.port || (await freePort(config.host)) };
  const machines = config.bootListen ?? operators;
  const publicUrl = config.publicUrl ?? urlOf(machines);

  const onTrouble = (error: unknown, what: string) => apps[0]?.log.error({ err: error }, what);
  const schemas = createSchemaFinder({ dataDir: config.dataDir, file: config.cloudInitSchema, onTrouble });
  const deps = {
    ...buildServices({ store, keys, publicUrl, schemas, clock: Date.now, freshId, onTrouble }),
    authenticate: createAuthenticator({ adminToken, store, clock: Date.now, onTrouble }),
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

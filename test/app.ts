import type { TestContext } from 'node:test';
import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify';
import type { Role, TokenScope } from '../src/domain/actor.ts';
import type { Deadlines } from '../src/domain/boot.ts';
import { sha256 } from '../src/domain/bundle.ts';
import { DEFAULT_POLICY, type PolicyDefaults } from '../src/domain/policy.ts';
import type { Store } from '../src/domain/store.ts';
import type { ApiServices } from '../src/http/api/index.ts';
import { type AppDeps, buildApp } from '../src/http/app.ts';
import { logAlarm } from '../src/http/boot/alarms.ts';
import type { SchemaSet } from '../src/inspect/schema.ts';
import { buildServices } from '../src/main.ts';
import { createMetrics } from '../src/metrics.ts';
import { createKeyRing, type KeyRing } from '../src/service/keys.ts';
import { createAuthenticator } from '../src/service/tokens.ts';
import { openStore } from '../src/store/open.ts';
import { contractOf, type HoldContract } from './contract.ts';

export const TOKEN = 'test-admin-token-0123456789';
export const PUBLIC_URL = 'http://192.0.2.10:8080';
export const DEADLINES: Deadlines = { boot: 30 * 60 * 1000, fetch: 24 * 60 * 60 * 1000 };
/** Where every test's clock begins. */
export const START = Date.UTC(2026, 0, 1);

export interface TestApp {
  app: FastifyInstance;
  store: Store;
  keys: KeyRing;
  /** What the api scope is made of. */
  services: ApiServices;
  /** Moves the clock. */
  tick(milliseconds: number): void;
  /** Everything the app logged. */
  log(): string;
  /** A call of an operator's; `url` is what follows /api/v1. The answer is held against the OpenAPI document. */
  api(method: string, url: string, body?: unknown, headers?: Record<string, string>): Promise<LightMyRequestResponse>;
  /** Makes an API token. @returns the headers of a call with it */
  token(role: Role, scope?: Partial<TokenScope>): Promise<{ authorization: string }>;
  /** A call of a machine's. */
  boot(url: string, options?: Partial<InjectOptions>): Promise<LightMyRequestResponse>;
  /** Uploads parts (`bundle/file` → text) and registers an instance with all their bundles, in order, untracked unless it is said. @returns its include URL's path */
  register(instance: string, parts: Record<string, string>, options?: { track?: boolean }): Promise<string>;
}

/** The OpenAPI document is the same for every app. */
let holdContract: HoldContract | undefined;

/** The production app on an in-memory database, with a clock that stands still and, unless said otherwise, without a cloud-init schema. */
export async function buildTestApp(
  t: TestContext,
  overrides: Partial<AppDeps> & {
    store?: Store;
    publicUrl?: string;
    adminToken?: string;
    schemas?: () => Promise<SchemaSet | null>;
    policyDefaults?: PolicyDefaults;
    keys?: KeyRing;
  } = {},
): Promise<TestApp> {
  const {
    store = await openStore({ file: ':memory:' }),
    keys = createKeyRing([Buffer.alloc(32, 1)]),
    publicUrl = PUBLIC_URL,
    adminToken = TOKEN,
    schemas = async () => null,
    policyDefaults = DEFAULT_POLICY,
    ...rest
  } = overrides;
  let now = START;
  let ids = 0;
  let tokens = 0;
  const lines: string[] = [];
  const clock = () => now;
  const onTrouble = () => undefined;
  const metrics = createMetrics({
    version: '0.0.0',
    engine: 'sqlite',
    clock,
    countStates: () => store.countInstancesByState(now, DEADLINES),
    pool: () => store.pool(),
  });
  const services = buildServices({
    ...metrics,
    store,
    keys,
    publicUrl,
    schemas,
    deadlines: DEADLINES,
    clock,
    freshId: () => (++ids).toString(16).padStart(16, '0'),
    onTrouble,
    policyDefaults,
    onAlarm: (alarm) => {
      metrics.onAlarm(alarm);
      logAlarm(app.log, alarm);
    },
  });
  const authenticate = createAuthenticator({ adminToken, store, clock, onTrouble });
  const app: FastifyInstance = await buildApp({
    ...services,
    metrics,
    onReport: metrics.onReport,
    authenticate,
    scopes: 'all',
    log: { level: 'info', stream: { write: (line) => lines.push(line) } },
    ...rest,
  });
  t.after(async () => {
    await app.close();
    await store.close();
  });

  const api: TestApp['api'] = async (method, url, body, headers = {}) => {
    const bytes = typeof body === 'string' || Buffer.isBuffer(body);
    const answer = await app.inject({
      method: method as 'GET',
      url: `/api/v1${url}`,
      headers: {
        authorization: `Bearer ${TOKEN}`,
        ...(body !== undefined && !bytes ? { 'content-type': 'application/json' } : {}),
        ...headers,
      },
      ...(body === undefined ? {} : { payload: bytes ? body : JSON.stringify(body) }),
    });
    holdContract ??= contractOf(app.swagger());
    holdContract(method, `/api/v1${url}`, answer);
    return answer;
  };

  return {
    app,
    store,
    keys,
    services: { ...services, authenticate },
    tick: (milliseconds) => {
      now += milliseconds;
    },
    log: () => lines.join(''),
    api,
    async token(role, { bundles = null, instances = null } = {}) {
      const answer = await api('POST', '/tokens', { name: `${role}-${++tokens}`, role, bundles, instances });
      if (answer.statusCode !== 201) throw new Error(answer.body);
      return { authorization: `Bearer ${answer.json().token}` };
    },
    boot: (url, options = {}) => app.inject({ method: 'GET', url, ...options }),
    async register(instance, parts, { track = false } = {}) {
      const bundles = new Set<string>();
      for (const [path, text] of Object.entries(parts)) {
        const [bundle = '', file = ''] = path.split('/');
        bundles.add(bundle);
        const answer = await api('PUT', `/bundles/${bundle}/parts/${file}`, text);
        if (answer.statusCode > 201) throw new Error(`${path}: ${answer.body}`);
      }
      const answer = await api('PUT', `/instances/${instance}`, { bundles: [...bundles], track });
      if (answer.statusCode > 201) throw new Error(answer.body);
      return new URL(answer.json().status.stub.url).pathname;
    },
  };
}

/** A digest of what an operator could find out about the state: to tell that a call changed nothing. */
export async function snapshot({ store }: Pick<TestApp, 'store'>): Promise<string> {
  const page = { after: null, limit: 1000 };
  const all = async <T>(list: (retired: boolean) => Promise<T[]>) => [...(await list(false)), ...(await list(true))];
  const bundles = await all((retired) => store.listBundles(page, { retired }));
  const instances = await all((retired) => store.listInstances(page, { retired }));
  const revisions = await Promise.all(bundles.map(({ name }) => store.listRevisions(name, page)));
  const tags = await Promise.all(bundles.map(async ({ name }) => (await store.findBundle(name))?.tags));
  const deliveries = await Promise.all(instances.map(({ name }) => store.listDeliveries(name, page)));
  const tokens = (await store.listTokens(page)).map(({ lastUsedAt: _, ...token }) => token);
  const secrets = (await store.listSecrets(page)).map(({ key, sealed }) => [key, sha256(sealed)]);
  return sha256(JSON.stringify({ bundles, instances, revisions, tags, deliveries, secrets, tokens }));
}

/** One call that must be refused: what is wrong, the call, and what the answer is. */
export type Refusal = readonly [
  what: string,
  call: readonly [method: string, url: string, body?: unknown, headers?: Record<string, string>],
  status: number,
  code: string,
];

/** Runs a table of refusals; each must name its code and leave everything as it was. */
export async function refuses(test: TestApp, rows: readonly Refusal[]): Promise<void> {
  const before = await snapshot(test);
  for (const [what, call, status, code] of rows) {
    const answer = await test.api(...call);
    const said = answer.json();
    if (answer.statusCode !== status || said.code !== code)
      throw new Error(`${what}: want ${status} ${code}, got ${answer.statusCode} ${answer.body}`);
    if ((await snapshot(test)) !== before) throw new Error(`${what}: a refused call changed something`);
  }
}

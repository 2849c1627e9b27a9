import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { sha256 } from '../../src/domain/bundle.ts';
import type { NewDelivery } from '../../src/domain/delivery.ts';
import { BootbundleError } from '../../src/domain/errors.ts';
import type { InstanceSpec } from '../../src/domain/instance.ts';
import { DEFAULT_POLICY } from '../../src/domain/policy.ts';
import type { Store } from '../../src/domain/store.ts';
import { RENDERER_VERSION } from '../../src/render/document.ts';
import { createDeliveryService, type DeliveryService } from '../../src/service/deliveries.ts';
import { createDocumentService } from '../../src/service/documents.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { openStore } from '../../src/store/open.ts';
import { ANN } from '../actor.ts';

const SPEC: InstanceSpec = {
  bundles: [],
  vars: {},
  labels: {},
  metaData: {},
  vendorData: null,
  networkConfig: null,
  policy: {},
  track: false,
};
const FETCHER = { address: '198.51.100.7', userAgent: 'Cloud-Init/25.1.4' };
const ID = '0123456789abcdef';
const keys = createKeyRing([Buffer.alloc(32, 1)]);
const CAPABILITY = keys.capability('include', { id: ID, generations: { include: 0, seed: 0, report: 0 } });
const SEED = keys.capability('seed', { id: ID, generations: { include: 0, seed: 0, report: 0 } });

interface Bench {
  store: Store;
  deliveries: DeliveryService;
  trouble: string[];
  /** The batches handed to the store so far. */
  batches: (readonly NewDelivery[])[];
}

/** The service and one instance `node-1`. `around` stands between it and the store. */
async function bench(
  t: TestContext,
  around: (store: Store) => Partial<Store> = () => ({}),
  spec: Partial<InstanceSpec> = {},
): Promise<Bench> {
  const store = await openStore({ file: ':memory:' });
  t.after(() => store.close());
  await store.putInstances([{ name: 'node-1', spec: { ...SPEC, ...spec }, freshId: ID, expect: undefined }], {
    at: 1,
    by: ANN,
  });
  const batches: (readonly NewDelivery[])[] = [];
  const between = { ...store, ...around(store) };
  const watched: Store = {
    ...between,
    recordDeliveries: (rows, defaults) => {
      batches.push(rows);
      return between.recordDeliveries(rows, defaults);
    },
  };
  const trouble: string[] = [];
  const deliveries = createDeliveryService({
    store: watched,
    documents: createDocumentService({ store: watched, keys, publicUrl: 'http://192.0.2.10:8080', schemas: async () => null }),
    keys,
    policyDefaults: DEFAULT_POLICY,
    publicUrl: 'http://192.0.2.10:8080',
    clock: () => 1000,
    onTrouble: (_, what) => trouble.push(what),
    onAlarm: () => undefined,
  });
  return { store, deliveries, trouble, batches };
}

/** A gate that holds each call until it is let through, and says how many wait. */
function turnstile() {
  const waiting: (() => void)[] = [];
  return {
    pass: () => new Promise<void>((resolve) => waiting.push(resolve)),
    letOne: () => waiting.shift()?.(),
    get waiting() {
      return waiting.length;
    },
  };
}

async function settle(rounds = 20): Promise<void> {
  for (let round = 0; round < rounds; round++) await setImmediate();
}

const away = new BootbundleError('unavailable', 'database_away', 'ask again');
const is = (kind: string, code: string) => (error: unknown) =>
  error instanceof BootbundleError && error.kind === kind && error.code === code;

test('a fetch answers only after its row is on disk', async (t) => {
  const gate = turnstile();
  const { deliveries } = await bench(t, (store) => ({
    recordDeliveries: async (rows, defaults) => {
      await gate.pass();
      return store.recordDeliveries(rows, defaults);
    },
  }));
  let answered = false;
  const fetch = deliveries.deliver('include', CAPABILITY, FETCHER).finally(() => {
    answered = true;
  });
  await settle();
  assert.deepEqual([gate.waiting, answered], [1, false]);
  gate.letOne();
  const { bytes } = await fetch;
  const [row] = await deliveries.list('node-1', { after: null, limit: 10 });
  assert.deepEqual(row, {
    id: row?.id,
    instance: 'node-1',
    at: 1000,
    purpose: 'include',
    digest: sha256(bytes),
    bytes: bytes.length,
    ...FETCHER,
    revisions: [],
    instanceVersion: 1,
    counted: true,
    outcome: 'delivered',
    refusal: null,
    holdsSecrets: false,
    inputs: {
      generations: { include: 0, seed: 0, report: 0 },
      publicUrl: 'http://192.0.2.10:8080',
      renderer: RENDERER_VERSION,
      secretsVersions: {},
    },
  });
});

test('fetches that come together are one write', async (t) => {
  const { deliveries, batches } = await bench(t);
  await Promise.all(Array.from({ length: 50 }, () => deliveries.deliver('include', CAPABILITY, FETCHER)));
  assert.equal(batches.flat().length, 50);
  assert.ok(batches.length <= 3, `${batches.length} writes`);
});

test('while one batch is written the next gathers, however many there are; nobody is left behind', async (t) => {
  const gate = turnstile();
  const { deliveries, batches } = await bench(t, (store) => ({
    recordDeliveries: async (rows, defaults) => {
      await gate.pass();
      return store.recordDeliveries(rows, defaults);
    },
  }));
  const fetch = (address: string) => deliveries.deliver('include', CAPABILITY, { ...FETCHER, address });
  const first = fetch('first');
  await settle();
  const rest = Array.from({ length: 40 }, (_, index) => fetch(`n${index}`));
  await settle();
  assert.deepEqual(
    batches.map((batch) => batch.length),
    [1],
  );
  gate.letOne();
  await first;
  await settle();
  assert.deepEqual(
    batches.map((batch) => batch.length),
    [1, 40],
  );
  const late = fetch('late');
  gate.letOne();
  await Promise.all(rest);
  await settle();
  gate.letOne();
  await late;
  assert.equal((await deliveries.list('node-1', { after: null, limit: 100 })).length, 42);
});

test('each fetch gets the id of its own row, so that an abort marks the right one', async (t) => {
  const { deliveries, store } = await bench(t);
  const addresses = Array.from({ length: 30 }, (_, index) => `n${index}`);
  const answers = await Promise.all(
    addresses.map((address) => deliveries.deliver('include', CAPABILITY, { ...FETCHER, address })),
  );
  answers[7]?.aborted();
  answers[20]?.aborted();
  await settle();
  const rows = await store.listDeliveries('node-1', { after: null, limit: 100 });
  assert.deepEqual(
    rows
      .filter(({ outcome }) => outcome === 'aborted')
      .map(({ address }) => address)
      .sort(),
    ['n20', 'n7'],
  );
});

test('an error of the write reaches all who waited for it, and nobody after them', { timeout: 5000 }, async (t) => {
  let broken = true;
  const gate = turnstile();
  const { deliveries, batches } = await bench(t, (store) => ({
    recordDeliveries: async (rows, defaults) => {
      await gate.pass();
      if (broken) throw away;
      return store.recordDeliveries(rows, defaults);
    },
  }));
  const waiting = Array.from({ length: 10 }, () => deliveries.deliver('include', CAPABILITY, FETCHER));
  const ends = Promise.allSettled(waiting);
  await settle();
  while (gate.waiting > 0) {
    gate.letOne();
    await settle();
  }
  for (const end of await ends) assert.equal(end.status === 'rejected' && end.reason, away);
  assert.ok(batches.length < 10);

  broken = false;
  const next = deliveries.deliver('include', CAPABILITY, FETCHER);
  await settle();
  gate.letOne();
  assert.equal((await next).instance, 'node-1');
  assert.equal((await deliveries.list('node-1', { after: null, limit: 10 })).length, 1);
});

test('a document that cannot be rendered is unavailable, whatever the reason, and a failed row that does not count', async (t) => {
  const reasons: [Partial<Store>, string][] = [
    [{ resolveReferences: () => Promise.reject(away) }, 'database_away'],
    [{ resolveReferences: () => Promise.reject(new Error('bug')) }, 'cannot_render'],
    [{}, 'cannot_render'],
  ];
  for (const [broken, code] of reasons) {
    const { deliveries, store } = await bench(t, (real) => ({
      findInstanceById: async (id) => {
        const found = await real.findInstanceById(id);
        return found && { ...found, bundles: ['gone'] };
      },
      ...broken,
    }));
    await assert.rejects(deliveries.deliver('include', CAPABILITY, FETCHER), is('unavailable', code));
    const [row] = await store.listDeliveries('node-1', { after: null, limit: 10 });
    assert.deepEqual([row?.outcome, row?.digest, row?.bytes, row?.counted], ['failed', null, 0, false]);
    assert.equal((await store.findInstance('node-1'))?.deliveryCount, 0);
    await assert.rejects(deliveries.peek('include', CAPABILITY, FETCHER), is('unavailable', code));
  }
});

test('a fetch fails only after the row of its failure is on disk', async (t) => {
  const gate = turnstile();
  const { deliveries, store } = await bench(t, (real) => ({
    resolveReferences: () => Promise.reject(away),
    recordDeliveries: async (rows, defaults) => {
      await gate.pass();
      return real.recordDeliveries(rows, defaults);
    },
  }));
  let answered = false;
  const fetch = deliveries.deliver('include', CAPABILITY, FETCHER).catch((error: unknown) => {
    answered = true;
    return error;
  });
  await settle();
  assert.deepEqual([gate.waiting, answered], [1, false]);
  gate.letOne();
  assert.equal(await fetch, away);
  assert.equal((await store.listDeliveries('node-1', { after: null, limit: 10 }))[0]?.outcome, 'failed');
});

test('a row that cannot be written is told to the log, and a failure is still the one it was', async (t) => {
  const { deliveries, trouble } = await bench(t, () => ({
    resolveReferences: () => Promise.reject(away),
    recordDeliveries: () => Promise.reject(away),
    closeDelivery: () => Promise.reject(away),
  }));
  await assert.rejects(deliveries.deliver('include', CAPABILITY, FETCHER), away);
  await settle();
  assert.deepEqual(trouble, ['a failed delivery could not be put into the ledger']);

  const other = await bench(t, () => ({ closeDelivery: () => Promise.reject(away) }));
  (await other.deliveries.deliver('include', CAPABILITY, FETCHER)).aborted();
  await settle();
  assert.deepEqual(other.trouble, ['an aborted delivery could not be marked']);
});

test('a look without delivery is the same document and no row', async (t) => {
  const { deliveries, batches } = await bench(t);
  const seen = await deliveries.peek('include', CAPABILITY, FETCHER);
  assert.deepEqual(batches, []);
  const { aborted, ...delivered } = await deliveries.deliver('include', CAPABILITY, FETCHER);
  assert.equal(typeof aborted, 'function');
  assert.deepEqual(delivered, seen);
});

test('a capability that is made up, for another purpose, of an old generation or a retired machine opens nothing', async (t) => {
  let looked = 0;
  const { deliveries, store, batches } = await bench(t, (real) => ({
    findInstanceById: (id) => {
      looked++;
      return real.findInstanceById(id);
    },
  }));
  const none = is('not_found', 'unknown_capability');
  const open = async (purpose: 'include' | 'seed', capability: string) => {
    await assert.rejects(deliveries.deliver(purpose, capability, FETCHER), none);
    await assert.rejects(deliveries.peek(purpose, capability, FETCHER), none);
    if (purpose === 'seed')
      for (const name of ['meta-data', 'vendor-data', 'network-config'] as const)
        await assert.rejects(deliveries.seed(capability, name, FETCHER), none);
  };
  await open('include', '');
  await open('include', `${CAPABILITY}x`);
  await open('include', SEED);
  await open('seed', CAPABILITY);
  await open(
    'include',
    createKeyRing([Buffer.alloc(32, 2)]).capability('include', { id: ID, generations: { include: 0, seed: 0, report: 0 } }),
  );
  assert.equal(looked, 0, 'the database was asked before the MAC was checked');

  await open('include', keys.capability('include', { id: ID, generations: { include: 1, seed: 0, report: 0 } }));
  await open(
    'include',
    keys.capability('include', { id: 'ffffffffffffffff', generations: { include: 0, seed: 0, report: 0 } }),
  );
  await store.retireInstance('node-1', { expect: undefined, at: 2, by: ANN });
  await open('include', CAPABILITY);
  await open('seed', SEED);
  await store.putInstances([{ name: 'node-1', spec: SPEC, freshId: 'aaaaaaaaaaaaaaaa', expect: undefined }], {
    at: 3,
    by: ANN,
  });
  await open('include', CAPABILITY);
  assert.deepEqual(batches, []);
});

test('a seed has a stable instance-id and a name; the rest is empty until it is set', async (t) => {
  const { deliveries } = await bench(t);
  assert.equal(await deliveries.seed(SEED, 'meta-data', FETCHER), `instance-id: i-${ID}\nlocal-hostname: node-1\n`);
  assert.equal(await deliveries.seed(SEED, 'vendor-data', FETCHER), '');
  assert.equal(await deliveries.seed(SEED, 'network-config', FETCHER), '');
});

test('a seed adds what metaData says, and gives texts as they are', async (t) => {
  const { deliveries } = await bench(t, undefined, {
    metaData: { 'instance-id': 'iid-1', 'public-keys': ['k'], answer: 'yes' },
    vendorData: '#cloud-config\n{}',
    networkConfig: { version: 2 },
  });
  const metaData = "instance-id: iid-1\nlocal-hostname: node-1\npublic-keys:\n  - k\nanswer: 'yes'\n";
  assert.equal(await deliveries.seed(SEED, 'meta-data', FETCHER), metaData);
  assert.equal(await deliveries.seed(SEED, 'vendor-data', FETCHER), '#cloud-config\n{}');
  assert.equal(await deliveries.seed(SEED, 'network-config', FETCHER), 'version: 2\n');
  const other = await bench(t, undefined, { networkConfig: 'version: 1 # mine' });
  assert.equal(await other.deliveries.seed(SEED, 'network-config', FETCHER), 'version: 1 # mine');
});

test('the deliveries of an instance that never was are not an empty list', async (t) => {
  const { deliveries } = await bench(t);
  await assert.rejects(deliveries.list('nix', { after: null, limit: 10 }), is('not_found', 'unknown_instance'));
  await assert.rejects(deliveries.list('../x', { after: null, limit: 10 }), is('malformed', 'bad_name'));
  assert.deepEqual(await deliveries.list('node-1', { after: null, limit: 10 }), []);
});

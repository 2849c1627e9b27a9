import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { sha256 } from '../../src/domain/bundle.ts';
import type { Delivery } from '../../src/domain/delivery.ts';
import type { Store } from '../../src/domain/store.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { createRetention } from '../../src/service/retention.ts';
import { resealSecrets } from '../../src/service/secrets.ts';
import { openStore } from '../../src/store/open.ts';
import { ANN } from '../actor.ts';
import { buildTestApp, START, type TestApp } from '../app.ts';

const [OLD, NEW] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
const HANDLER = `#part-handler
def list_types():
    return ['text/x-bootbundle-config']


def handle_part(data, ctype, filename, payload):
    pass
`;
const SECRETIVE = '#!/bin/sh\necho {{ secrets.token | default: "none" | shell }}\n';

async function newStore(t: TestContext): Promise<Store> {
  const store = await openStore({ file: ':memory:' });
  t.after(() => store.close());
  return store;
}

/** An app on a database that others may have made. */
const on = (t: TestContext, store: Store, ring: Uint8Array[] = [OLD], publicUrl?: string) =>
  buildTestApp(t, { store, keys: createKeyRing(ring), ...(publicUrl !== undefined && { publicUrl }) });

/** What the machine gets now; null when it gets nothing. */
async function fetched({ boot, store, keys }: TestApp, name = 'vm'): Promise<Buffer | null> {
  const instance = await store.findInstance(name);
  assert.ok(instance);
  const { statusCode, rawPayload } = await boot(`/i/${keys.capability('include', instance)}/user-data`);
  return statusCode === 200 ? rawPayload : null;
}

const replay = ({ api }: TestApp, id: number, name = 'vm') =>
  api('GET', `/instances/${name}/deliveries/${id}/user-data?reveal=true`);

async function newest(store: Store, name = 'vm'): Promise<Delivery> {
  const [delivery] = await store.listDeliveries(name, { after: null, limit: 1 });
  assert.ok(delivery);
  return delivery;
}

/** `vm`, whose document holds a secret and its report URL. */
async function machine({ api }: TestApp): Promise<void> {
  await api('PUT', '/bundles/web/parts/10-handler.py', HANDLER);
  await api('PUT', '/bundles/web/parts/20-run.sh?template=true', SECRETIVE);
  await api('PUT', '/bundles/web/secrets/token', 'hunter2');
  const { statusCode, body } = await api('PUT', '/instances/vm', { bundles: ['web'] });
  assert.equal(statusCode, 201, body);
}

test('under another root key deliveries are replayed for as long as the old one is in the ring', async (t) => {
  const store = await newStore(t);
  const before = await on(t, store);
  await machine(before);
  const bytes = await fetched(before);
  const { id } = await newest(store);
  await before.api('PUT', '/bundles/web/secrets/token', 'hunter3');

  const both = await on(t, store, [NEW, OLD]);
  assert.ok((await replay(both, id)).rawPayload.equals(bytes as Buffer));
  assert.deepEqual(await resealSecrets(store, both.keys, { at: 0, by: ANN }), { resealed: 2, already: 0, unreadable: 0 });
  assert.ok((await replay(both, id)).rawPayload.equals(bytes as Buffer));
  const later = await fetched(both);
  const { id: laterId } = await newest(store);

  // The old value opens, since it was sealed anew; but nobody can make that report URL again.
  const only = await on(t, store, [NEW]);
  const answer = await replay(only, id);
  assert.deepEqual([answer.statusCode, answer.json().code], [409, 'not_replayable']);
  assert.match(answer.json().detail, /the key that its report URL was made with is no longer in BOOTBUNDLE_KEY/);
  assert.ok((await replay(only, laterId)).rawPayload.equals(later as Buffer));
});

test('an old value that no key opens keeps no other from being sealed anew', async (t) => {
  const store = await newStore(t);
  const before = await on(t, store);
  await machine(before);
  await fetched(before);
  const { id } = await newest(store);
  await before.api('DELETE', '/bundles/web/secrets/token');
  const only = await on(t, store, [NEW]);
  await only.api('PUT', '/bundles/web/secrets/token', 'hunter3');
  assert.deepEqual(await resealSecrets(store, only.keys, { at: 0, by: ANN }), { resealed: 0, already: 1, unreadable: 1 });
  assert.match((await replay(only, id)).json().detail, /opens with no key of BOOTBUNDLE_KEY/);
});

test('the public URL of then is the one of the replay', async (t) => {
  const store = await newStore(t);
  const before = await on(t, store);
  await machine(before);
  const bytes = await fetched(before);
  const { id } = await newest(store);
  const moved = await on(t, store, [OLD], 'https://boot.example.com');
  assert.ok((await replay(moved, id)).rawPayload.equals(bytes as Buffer));
  assert.notEqual(sha256((await fetched(moved)) as Buffer), sha256(bytes as Buffer));
});

test('a secret takes the role admin; what holds none does not', async (t) => {
  const store = await newStore(t);
  const editor = await buildTestApp(t, { store, authenticate: async () => ({ ...ANN, name: 'ed' }) });
  await machine(editor);
  await fetched(editor);
  const { id } = await newest(store);
  const refused = await replay(editor, id);
  assert.deepEqual([refused.statusCode, refused.json().code], [403, 'role_needed']);
  await editor.api('PUT', '/instances/plain', { bundles: [] });
  await fetched(editor, 'plain');
  const plain = await newest(store, 'plain');
  assert.equal((await editor.api('GET', `/instances/plain/deliveries/${plain.id}/user-data`)).statusCode, 200);
});

test('a secret that is changed while a document is rendered is the one the row says, so that it is replayed', async (t) => {
  const store = await newStore(t);
  const app = await on(t, store);
  await machine(app);
  // Between the look at what the reference means and the look at its secrets.
  let meanwhile: (() => Promise<unknown>) | null = () => app.api('PUT', '/bundles/web/secrets/token', 'hunter3');
  const racing: Store = {
    ...store,
    async findSecretsAt(owners) {
      const change = meanwhile;
      meanwhile = null;
      await change?.();
      return store.findSecretsAt(owners);
    },
  };
  const bytes = await fetched(await on(t, racing));
  const { id, inputs } = await newest(store);
  assert.deepEqual(inputs?.secretsVersions, { web: 1 });
  assert.ok((await replay(app, id)).rawPayload.equals(bytes as Buffer));
});

test('what was served instead after the window closed is replayed as that', async (t) => {
  const store = await newStore(t);
  const app = await on(t, store);
  await app.api('PUT', '/bundles/late/parts/a.sh', '#!/bin/sh\necho late\n');
  await machine(app);
  await app.api('PUT', '/instances/late', { bundles: ['late'], track: false });
  const bytes = await fetched(app, 'late');
  const { instance: _, id: __, counted: ___, ...row } = await newest(store, 'late');
  const vm = await store.findInstance('vm');
  assert.ok(vm && bytes);
  // The row as a late fetch of `vm` leaves it.
  const late = { ...row, instanceId: vm.id, instanceVersion: vm.version, refusal: 'closed' as const };
  const recorded = { ...store, findDelivery: async () => ({ ...late, id: 1, instance: 'vm', counted: false }) };
  const answer = await replay(await on(t, recorded), 1);
  assert.ok(answer.rawPayload.equals(bytes), answer.body);
});

/** One thing that happens. Much of it is refused (a purge of what is in use, a pin of what is not there): that is all right. */
const event = fc.oneof(
  { weight: 6, arbitrary: fc.constant(['fetch'] as const) },
  { weight: 2, arbitrary: fc.tuple(fc.constant('publish' as const), fc.constantFrom('web', 'db'), fc.nat(3)) },
  {
    weight: 2,
    arbitrary: fc.tuple(
      fc.constant('secret' as const),
      fc.constantFrom('bundles/web', 'bundles/db', 'instances/vm'),
      fc.nat(3),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(fc.constant('forget' as const), fc.constantFrom('bundles/web', 'bundles/db', 'instances/vm')),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(
      fc.constant('state' as const),
      fc.constantFrom(['web'], ['web', 'db'], ['db@1'], ['web@2', 'db'], ['db', 'web@1']),
      fc.nat(2),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(fc.constant('purge' as const), fc.constantFrom('web', 'db'), fc.integer({ min: 1, max: 4 })),
  },
  { weight: 1, arbitrary: fc.constantFrom(['retire'] as const, ['break'] as const, ['prune'] as const, ['pin'] as const) },
  { weight: 1, arbitrary: fc.tuple(fc.constant('wait' as const), fc.constantFrom(1000, 3_600_000, 86_400_000)) },
);

const DAY_MS = 86_400_000;

test('whatever happens since, each delivery in the ledger is replayed to the byte, or for a true cause not', async () => {
  let replayed = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(event, { minLength: 5, maxLength: 30 }), async (events) => {
      const store = await openStore({ file: ':memory:' });
      const app = await buildTestApp({ after: () => undefined } as unknown as TestContext, { store });
      const { api, tick } = app;
      let now = START;
      const keep = { store, keepMs: 2 * DAY_MS, clock: () => now, onTrouble: (error: unknown) => assert.fail(String(error)) };
      const delivered = new Map<number, Buffer | null>();
      const purged = new Set<string>();
      try {
        for (const bundle of ['web', 'db']) await api('PUT', `/bundles/${bundle}/parts/20-run.sh?template=true`, SECRETIVE);
        await machine(app);
        for (const [kind, subject, value] of events)
          switch (kind) {
            case 'fetch': {
              if ((await store.findInstance('vm'))?.retiredAt !== null) break;
              const bytes = await fetched(app);
              delivered.set((await newest(store)).id, bytes);
              break;
            }
            case 'publish':
              await api('PUT', `/bundles/${subject}/parts/30-more.sh?force=true`, `#!/bin/sh\necho ${value}\n`);
              break;
            case 'secret':
              await api('PUT', `/${subject}/secrets/token`, `value ${value}`);
              break;
            case 'forget':
              await api('DELETE', `/${subject}/secrets/token`);
              break;
            case 'state':
              await api('PUT', '/instances/vm', { bundles: subject, vars: { x: value }, labels: { x: `${value}` } });
              break;
            case 'purge':
              // What is newest cannot be purged.
              await api('PUT', `/bundles/${subject}/parts/50-newer.sh?force=true`, `#!/bin/sh\necho ${purged.size}\n`);
              if ((await api('DELETE', `/bundles/${subject}/revisions/${value}/content`)).statusCode === 200)
                purged.add(`${subject}@${value}`);
              break;
            case 'retire':
              await api('DELETE', '/instances/vm');
              break;
            case 'break':
              await api('PUT', '/bundles/web/parts/40-broken.sh?template=true&force=true', '#!/bin/sh\necho {{ vars.none }}\n');
              break;
            case 'prune':
              await createRetention(keep).prune();
              break;
            case 'pin':
              await api('POST', `/instances/vm/deliveries/${[...delivered.keys()].at(-1) ?? 1}/pin`);
              break;
            case 'wait':
              tick(subject);
              now += subject;
          }
        await createRetention(keep).prune();

        for (const [id, bytes] of delivered) {
          const row = await store.findDelivery('vm', id);
          const answer = await replay(app, id);
          if (!row) assert.equal(answer.json().code, 'unknown_delivery');
          else if (!bytes) assert.equal(answer.json().code, 'nothing_delivered');
          else if (row.revisions.some((revision) => purged.has(revision))) {
            assert.equal(answer.json().code, 'not_replayable', answer.body);
            assert.match(answer.json().detail, /the content of .* was purged/);
          } else {
            replayed += 1;
            assert.equal(answer.statusCode, 200, answer.body);
            assert.ok(answer.rawPayload.equals(bytes));
          }
        }
      } finally {
        await app.app.close();
        await store.close();
      }
    }),
    { numRuns: 30 },
  );
  assert.ok(replayed > 20, `${replayed} replayed`);
});

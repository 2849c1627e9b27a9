import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { BootbundleError } from '../../src/domain/errors.ts';
import type { InstanceSpec } from '../../src/domain/instance.ts';
import type { ManifestResult } from '../../src/domain/report.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { createTimelineService } from '../../src/service/timeline.ts';
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
const ID = '0123456789abcdef';
const keys = createKeyRing([Buffer.alloc(32, 1)]);
const result = (id: string): ManifestResult => ({
  id,
  file: id,
  part: id,
  sha256: '',
  status: 'applied',
  attempts: 1,
  client: '',
  clientVersion: '',
  output: '',
  at: 0,
});

/** The service, a clock to set, and calls that write what a timeline is made of. */
async function bench(t: TestContext) {
  const store = await openStore({ file: ':memory:' });
  t.after(() => store.close());
  let now = 0;
  const timeline = createTimelineService({ store, keys, clock: () => now });
  const put = (at: number, labels: Record<string, string> = {}) =>
    store.putInstances([{ name: 'vm', spec: { ...SPEC, labels }, freshId: ID, expect: undefined }], { at, by: ANN });
  const fetch = (at: number) =>
    store.recordDeliveries([
      {
        instanceId: ID,
        at,
        purpose: 'include',
        digest: 'd',
        bytes: 1,
        address: '192.0.2.1',
        userAgent: '',
        revisions: [],
        instanceVersion: 1,
        outcome: 'delivered',
        refusal: null,
        holdsSecrets: false,
        inputs: null,
      },
    ]);
  const report = async (at: number, id: string) => {
    now = at;
    const instance = await store.findInstance('vm');
    assert.ok(instance);
    return timeline.report(keys.capability('report', instance), result(id));
  };
  const events = async (limit = 100) => (await timeline.get('vm', limit)).events.map(({ at, kind }) => `${at} ${kind}`);
  return { store, timeline, put, fetch, report, events };
}

const is = (kind: string, code: string) => (error: unknown) =>
  error instanceof BootbundleError && error.kind === kind && error.code === code;

test('what happened goes by time; within one moment registered, changed, fetched, manifest', async (t) => {
  const { put, fetch, report, events } = await bench(t);
  await put(1);
  assert.deepEqual(await events(), ['1 registered']);
  await report(5, 'b');
  await report(5, 'c');
  await fetch(5);
  await put(5, { a: 'b' });
  await fetch(3);
  assert.deepEqual(await events(), ['1 registered', '3 fetched', '5 changed', '5 fetched', '5 manifest', '5 manifest']);
});

test('the latest of it, when there is more than the limit', async (t) => {
  const { put, fetch, report, events, timeline } = await bench(t);
  await put(1);
  for (const at of [10, 30, 50]) await fetch(at);
  for (const at of [20, 40, 60]) await report(at, `${at}`);
  assert.deepEqual(await events(3), ['40 manifest', '50 fetched', '60 manifest']);
  assert.deepEqual(await events(1), ['60 manifest']);
  assert.equal((await events(7)).length, 7);
  const [last] = (await timeline.get('vm', 1)).events;
  assert.deepEqual(last, { at: 60, kind: 'manifest', manifest: result('60') });
});

test('retired it ends so, without a change that was none; revived it is a change', async (t) => {
  const { store, put, fetch, events } = await bench(t);
  await put(1);
  await fetch(2);
  await store.retireInstance('vm', { expect: undefined, at: 3, by: ANN });
  assert.deepEqual(await events(), ['1 registered', '2 fetched', '3 retired']);
  await put(4);
  assert.equal((await events()).at(-1), '4 changed');
  assert.ok(!(await events()).some((event) => event.endsWith('retired')));
  await store.retireInstance('vm', { expect: undefined, at: 5, by: ANN });
  assert.deepEqual(await events(), ['1 registered', '2 fetched', '5 retired'], 'when it was changed is known no more');
});

test('a report tells whose it is; a capability for something else, or of an older generation, opens nothing', async (t) => {
  const { store, timeline, put, report } = await bench(t);
  await put(1);
  assert.equal(await report(2, 'a'), 'vm');
  const [instance] = await store.listInstances({ after: null, limit: 1 }, {});
  assert.ok(instance);
  const old = keys.capability('report', instance);
  await store.retireInstance('vm', { expect: undefined, at: 3, by: ANN });
  await assert.rejects(timeline.report(old, result('b')), is('not_found', 'unknown_capability'));
  await put(4);
  for (const capability of [old, keys.capability('include', instance), '', 'x'])
    await assert.rejects(timeline.report(capability, result('b')), is('not_found', 'unknown_capability'));
});

test('of a name that never was there is no timeline', async (t) => {
  const { timeline } = await bench(t);
  await assert.rejects(timeline.get('vm', 1), is('not_found', 'unknown_instance'));
  await assert.rejects(timeline.get('a\0', 1), is('malformed', 'bad_name'));
});

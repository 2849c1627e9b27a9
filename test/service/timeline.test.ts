import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type BootFacts, type Deadlines, NO_BOOT } from '../../src/domain/boot.ts';
import { BootbundleError } from '../../src/domain/errors.ts';
import type { InstanceSpec } from '../../src/domain/instance.ts';
import { DEFAULT_POLICY } from '../../src/domain/policy.ts';
import type { ManifestResult } from '../../src/domain/report.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { createReportService } from '../../src/service/reports.ts';
import { createTimelineService } from '../../src/service/timeline.ts';
import { ANN } from '../actor.ts';
import { storeWithRows } from '../rows.ts';

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
const ONE = { limit: 1, verbose: false };
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
async function bench(t: TestContext, deadlines: Deadlines = { fetch: null, boot: null }) {
  const { store, rows } = await storeWithRows(t);
  let now = 0;
  const timeline = createTimelineService({ store, deadlines, clock: () => now, followMs: 2 });
  const reports = createReportService({ store, keys, clock: () => now });
  const put = (at: number, labels: Record<string, string> = {}) =>
    store.putInstances([{ name: 'vm', spec: { ...SPEC, labels }, freshId: ID, expect: undefined }], { at, by: ANN });
  const fetch = async (at: number) =>
    store.recordDeliveries(
      [
        {
          instanceId: ID,
          at,
          purpose: 'include',
          digest: 'd',
          bytes: 1,
          address: '192.0.2.1',
          userAgent: '',
          revisions: [],
          instanceVersion: (await store.findInstance('vm'))?.version ?? 0,
          outcome: 'delivered',
          refusal: null,
          holdsSecrets: false,
          inputs: null,
          generation: 0,
          guarded: false,
          expects: NO_BOOT.expects,
        },
      ],
      DEFAULT_POLICY,
    );
  const report = async (at: number, id: string) => {
    now = at;
    const instance = await store.findInstance('vm');
    assert.ok(instance);
    return reports.report(keys.capability('report', instance), { kind: 'manifest', manifest: result(id) });
  };
  const events = async (limit = 100) =>
    (await timeline.get('vm', { limit, verbose: false })).events.map(({ at, kind }) => `${at} ${kind}`);
  const at = (time: number) => {
    now = time;
  };
  return { store, rows, timeline, reports, put, fetch, report, events, at };
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
  const [last] = (await timeline.get('vm', { limit: 1, verbose: false })).events;
  assert.deepEqual(last, { at: 60, kind: 'manifest', manifest: result('60') });
});

test('retired it ends so, without a change that was none; revived it is a change', async (t) => {
  const { store, put, fetch, events } = await bench(t);
  await put(1);
  await fetch(2);
  await store.retireInstance('vm', { expect: undefined, at: 3, by: ANN });
  assert.deepEqual(await events(), ['1 registered', '2 fetched', '3 retired']);
  await put(4);
  assert.deepEqual((await events()).slice(1), ['2 fetched', '3 retired', '4 registered']);
  await store.retireInstance('vm', { expect: undefined, at: 5, by: ANN });
  assert.deepEqual(await events(), ['1 registered', '2 fetched', '3 retired', '4 registered', '5 retired']);
});

test('a report tells whose it is; a capability for something else, or of an older generation, opens nothing', async (t) => {
  const { store, reports, put, report } = await bench(t);
  await put(1);
  assert.equal((await report(2, 'a')).instance, 'vm');
  const [instance] = await store.listInstances({ after: null, limit: 1 }, {});
  assert.ok(instance);
  const old = keys.capability('report', instance);
  await store.retireInstance('vm', { expect: undefined, at: 3, by: ANN });
  await assert.rejects(reports.report(old, { kind: 'manifest', manifest: result('b') }), is('not_found', 'unknown_capability'));
  await put(4);
  for (const capability of [old, keys.capability('include', instance), '', 'x'])
    await assert.rejects(
      reports.report(capability, { kind: 'manifest', manifest: result('b') }),
      is('not_found', 'unknown_capability'),
    );
});

test('of a name that never was there is no timeline', async (t) => {
  const { timeline } = await bench(t);
  await assert.rejects(timeline.get('vm', ONE), is('not_found', 'unknown_instance'));
  await assert.rejects(timeline.get('a\0', ONE), is('malformed', 'bad_name'));
});

const EXPECTS = { events: true, phoneHome: false, manifests: [] };
const BOOTING: Partial<BootFacts> = { deliveredAt: 10, expects: EXPECTS, lastWordAt: 20 };
const READY: Partial<BootFacts> = { ...BOOTING, finalAt: 30, finalClock: 30, readyAt: 30 };

test('what the audit tells goes before what the instance tells of itself', async (t) => {
  const { rows, put, timeline, events } = await bench(t);
  await put(1);
  await put(5, { a: 'b' });
  await rows.audit('vm', { at: 6, action: 'close', before: `${ID}.2`, after: `${ID}.2` });
  await rows.audit('vm', { at: 7, action: 'reveal', before: `${ID}.2`, after: `${ID}.2` });
  assert.deepEqual(await events(), ['1 registered', '5 changed', '6 closed']);
  const [first, second] = (await timeline.get('vm', { limit: 9, verbose: false })).events;
  assert.deepEqual(
    [first, second],
    [
      { at: 1, kind: 'registered', version: 1, by: 'ann' },
      { at: 5, kind: 'changed', version: 2, by: 'ann' },
    ],
  );
});

test('a whole boot: each thing one line, and what came of it', async (t) => {
  const { rows, put, events, at } = await bench(t);
  await put(1);
  await rows.delivery('vm', { at: 10 });
  await rows.delivery('vm', { at: 11, outcome: 'refused', refusal: 'delivered', counted: false });
  await rows.alarm('vm', { at: 11, kind: 'late_fetch', count: 3, lastAt: 15 });
  await rows.event('vm', 12, { name: 'init-network', type: 'start' });
  await rows.event('vm', 13, { name: 'init-network/x', type: 'finish', result: 'SUCCESS' });
  await rows.event('vm', 14, { name: 'init-network', type: 'finish', result: 'SUCCESS' });
  const phoneHome = { instanceId: 'i-1', hostname: 'vm', fqdn: '', hostKeys: [] };
  await rows.report('vm', 20, { kind: 'phoneHome', phoneHome });
  await rows.report('vm', 21, { kind: 'log', log: { name: 'result.json', text: '{}', truncated: false } });
  await rows.event('vm', 22, { name: 'modules-final', type: 'start' });
  await rows.boot('vm', BOOTING);
  at(25);
  const soFar = ['1 registered', ...['10 fetched', '11 refused', '11 alarm', '14 stage', '20 phoneHome', '21 log', '22 stage']];
  assert.deepEqual(await events(), soFar);
  await rows.event('vm', 30, { name: 'modules-final', type: 'finish' });
  await rows.boot('vm', READY);
  assert.deepEqual(await events(), [...soFar.slice(0, -1), '30 stage', '30 ready']);
});

test('a boot that failed, and one that fell silent, are told when they did', async (t) => {
  const { rows, put, events, at } = await bench(t, { fetch: 100, boot: 50 });
  await put(1);
  at(101);
  assert.deepEqual(await events(), ['1 registered', '101 silent']);
  await rows.boot('vm', BOOTING);
  at(69);
  assert.deepEqual(await events(), ['1 registered']);
  at(90);
  assert.deepEqual(await events(), ['1 registered', '70 silent']);
  await rows.event('vm', 40, { name: 'modules-final/x', type: 'finish', result: 'FAIL' });
  await rows.boot('vm', { ...BOOTING, lastWordAt: 45, failures: [{ what: 'modules-final/x', description: '', clock: 0 }] });
  assert.deepEqual(await events(), ['1 registered', '40 stage', '40 stage', '40 failed'], 'what failed, in what runs');
  await rows.boot('vm', { ...READY, failures: [{ what: 'modules-final/x', description: '', clock: 0 }] });
  assert.deepEqual(await events(), ['1 registered', '30 ready', '40 stage', '40 stage', '40 failed'], 'it had been ready once');
});

/** A follower: the next steps that tell something, or what the one step tells that comes next. */
async function follower(t: TestContext, service: Awaited<ReturnType<typeof bench>>, resume: string | null = null) {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const steps = service.timeline.follow('vm', { limit: 100, verbose: false, resume, signal: stop.signal });
  let cursor = resume;
  return {
    stop: () => stop.abort(),
    steps,
    cursor: () => cursor,
    /** The kinds of the next step that has any. */
    next: async () => {
      for (;;) {
        const { value, done } = await steps.next();
        if (done || !value) return null;
        cursor = value.cursor;
        if (value.events.length > 0) return value.events.map(({ at, kind }) => `${at} ${kind}`);
      }
    },
  };
}

test('followed, it goes on with what comes, each thing once', async (t) => {
  const service = await bench(t, { fetch: null, boot: 50 });
  const { rows, put, at } = service;
  await put(1);
  await rows.delivery('vm', { at: 10 });
  await rows.event('vm', 12, { name: 'init-network', type: 'start' });
  await rows.boot('vm', BOOTING);
  at(20);
  const { next, stop, steps } = await follower(t, service);
  assert.deepEqual(await next(), ['1 registered', '10 fetched']);
  await rows.event('vm', 14, { name: 'init-network', type: 'finish' });
  assert.deepEqual(await next(), ['14 stage']);
  await rows.alarm('vm', { at: 21, kind: 'second_machine' });
  assert.deepEqual(await next(), ['21 alarm']);
  await rows.audit('vm', { at: 22, action: 'close', before: 'x.1', after: 'x.1' });
  assert.deepEqual(await next(), ['22 closed']);
  at(70);
  assert.deepEqual(await next(), ['70 silent']);
  await rows.boot('vm', READY);
  assert.deepEqual(await next(), ['30 ready']);
  stop();
  await steps.next();
  assert.equal((await steps.next()).done, true);
});

test('followed again from where it was, nothing is lost and nothing comes twice', async (t) => {
  const service = await bench(t);
  const { rows, put } = service;
  await put(1);
  await rows.report('vm', 11, { kind: 'log', log: { name: 'result.json', text: '', truncated: false } });
  await rows.event('vm', 12, { name: 'init-network/x', type: 'start', at: 1000 });
  await rows.boot('vm', BOOTING);
  const first = await follower(t, service);
  assert.deepEqual(await first.next(), ['1 registered', '11 log']);
  first.stop();
  await rows.event('vm', 14, { name: 'init-network', type: 'finish', at: 3000 });
  await rows.boot('vm', READY);
  const second = await follower(t, service, first.cursor());
  const { value } = await second.steps.next();
  assert.deepEqual(
    value?.events.map((event) => [event.kind, event.kind === 'stage' && event.stage.milliseconds]),
    [
      ['stage', 2000],
      ['ready', false],
    ],
    'its start was seen before the cut',
  );
});

test('what cannot be followed is refused at once', async (t) => {
  const service = await bench(t);
  const begin = (name: string, resume: string | null = null) =>
    service.timeline.follow(name, { limit: 1, verbose: false, resume, signal: new AbortController().signal }).next();
  await assert.rejects(begin('vm'), is('not_found', 'unknown_instance'));
  await assert.rejects(begin('vm', '1.2.3.4.ready'), is('not_found', 'unknown_instance'));
  await assert.rejects(begin('A'), is('malformed', 'bad_name'));
  await service.put(1);
  for (const cursor of [
    '',
    'x',
    '1.2.3.4',
    '1.2.3.4.dead',
    '1.2.3.4.ready ',
    `${'9'.repeat(20)}.1.1.1.ready`,
    '1.2.3.-4.ready',
  ])
    await assert.rejects(begin('vm', cursor), is('malformed', 'bad_cursor'), cursor);
});

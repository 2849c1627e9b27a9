import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { State } from '../src/domain/boot.ts';
import type { Store } from '../src/domain/store.ts';
import { createMetrics, type MetricsDeps } from '../src/metrics.ts';
import { openStore } from '../src/store/open.ts';
import { ANN } from './actor.ts';
import { buildTestApp } from './app.ts';

const COUNTS: Record<State, number> = { registered: 1, delivered: 2, booting: 0, ready: 3, failed: 0, silent: 4 };

function metricsOf(overrides: Partial<MetricsDeps> = {}) {
  return createMetrics({
    version: '1.2.3',
    engine: 'postgres',
    clock: () => 0,
    countStates: async () => COUNTS,
    pool: () => ({ total: 3, idle: 1, waiting: 2 }),
    ...overrides,
  });
}

/**
 * Reads Prometheus's text format, version 0.0.4, and fails where a text is not in it: each family has its HELP and TYPE before its samples, and is
 * there once; names, labels, escapes and numbers are as they must be; no sample is there twice; a histogram's buckets grow up to its count.
 * @returns each sample by its name and labels, as they were written
 */
function parse(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const families = new Map<string, string>();
  let helped = '';
  let family = '';
  assert.ok(text.endsWith('\n'));
  for (const line of text.split('\n').filter((each) => each !== '')) {
    const [, help] = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (?:[^\\]|\\\\|\\n)+$/.exec(line) ?? [];
    const [, typed, type] = /^# TYPE (\S+) (counter|gauge|histogram|summary|untyped)$/.exec(line) ?? [];
    if (help !== undefined) {
      helped = help;
    } else if (typed !== undefined && type !== undefined) {
      assert.equal(typed, helped, line);
      assert.ok(!families.has(typed), `twice: ${line}`);
      families.set(typed, type);
      family = typed;
    } else {
      const label = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
      const sample = new RegExp(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(\\{(?:${label}(?:,${label})*)?,?\\})? ([^ ]+)$`).exec(line);
      assert.ok(sample, line);
      const [, name = '', labels = '', value = ''] = sample;
      const suffixes = families.get(family) === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
      assert.ok(suffixes.map((suffix) => family + suffix).includes(name), `${line} among ${family}`);
      assert.match(value, /^(?:[+-]?Inf|nan|[+-]?[0-9.]+(?:e[+-]?[0-9]+)?)$/i, line);
      assert.ok(!samples.has(name + labels), `twice: ${line}`);
      samples.set(name + labels, Number(value));
    }
  }
  for (const [name] of [...families].filter(([, type]) => type === 'histogram')) checkHistogram(name, samples);
  return samples;
}

function checkHistogram(name: string, samples: Map<string, number>): void {
  const series = new Map<string, number[]>();
  for (const [sample, value] of samples) {
    const [, before = '', after = ''] = /^\S+_bucket\{(.*?)le="[^"]+",?(.*)\}$/.exec(sample) ?? [];
    if (sample.startsWith(`${name}_bucket{`)) series.set(before + after, [...(series.get(before + after) ?? []), value]);
  }
  for (const [labels, counts] of series) {
    assert.deepEqual(
      counts,
      [...counts].sort((a, b) => a - b),
      name,
    );
    assert.equal(counts.at(-1), samples.get(`${name}_count${labels === '' ? '' : `{${labels.replace(/,$/, '')}}`}`), name);
  }
}

test('what is counted stands in the text under its name', async () => {
  const metrics = metricsOf();
  metrics.onFetch({ purpose: 'include', outcome: 'delivered', seconds: 0.004 });
  metrics.onFetch({ purpose: 'include', outcome: 'delivered', seconds: 30 });
  metrics.onFetch({ purpose: 'seed', outcome: 'not_found', seconds: 0.001 });
  metrics.onRender({ seconds: 0.002, bytes: 70_000 });
  metrics.onCommit({ seconds: 0.001, rows: 17 });
  metrics.onPublish({ seconds: 2, outcome: 'published' });
  metrics.onAlarm({ kind: 'late_fetch' });
  metrics.onReport('manifest', 'stored');
  metrics.onSilent();
  metrics.onDatabaseError('database_busy');
  metrics.onRequest({ scope: 'api', method: 'PUT', status: 201 });
  const { type, text } = await metrics.expose();
  assert.equal(type, 'text/plain; version=0.0.4; charset=utf-8');
  const samples = parse(text);
  for (const [sample, value] of [
    ['fetches_total{purpose="include",outcome="delivered"}', 2],
    ['fetches_total{purpose="seed",outcome="not_found"}', 1],
    ['fetch_duration_seconds_bucket{le="0.005"}', 2],
    ['fetch_duration_seconds_bucket{le="10"}', 2],
    ['fetch_duration_seconds_count', 3],
    ['render_duration_seconds_sum', 0.002],
    ['document_bytes_bucket{le="65536"}', 0],
    ['document_bytes_bucket{le="262144"}', 1],
    ['commit_duration_seconds_count', 1],
    ['commit_deliveries_sum', 17],
    ['publish_duration_seconds_sum{outcome="published"}', 2],
    ['alarms_total{kind="late_fetch"}', 1],
    ['alarms_total{kind="old_stub"}', 0],
    ['reports_total{kind="manifest",outcome="stored"}', 1],
    ['silent_total', 1],
    ['database_errors_total{code="database_busy"}', 1],
    ['database_errors_total{code="storage_full"}', 0],
    ['database_up', 1],
    ['database_connections{state="waiting"}', 2],
    ['http_requests_total{scope="api",method="PUT",status="2xx"}', 1],
    ['instances{state="silent"}', 4],
    ['instances{state="booting"}', 0],
    ['build_info{version="1.2.3",engine="postgres"}', 1],
  ] as const)
    assert.equal(samples.get(`bootbundle_${sample}`), value, sample);
  assert.ok((samples.get('process_resident_memory_bytes') ?? 0) > 1e6);
});

test('the text format is kept whatever a label holds', async () => {
  const { text } = await metricsOf({ version: 'a"b\\c\nd' }).expose();
  assert.equal(parse(text).get('bootbundle_build_info{version="a\\"b\\\\c\\nd",engine="postgres"}'), 1);
});

test('what is in no list is counted as other, so that nobody outside can make a series', async () => {
  const metrics = metricsOf();
  const size = async () => (await metrics.expose()).text.split('\n').filter((line) => line.startsWith('bootbundle_')).length;
  const call = (word: string) => {
    metrics.onAlarm({ kind: word });
    metrics.onReport(word, word);
    metrics.onDatabaseError(word);
    metrics.onRequest({ scope: 'boot', method: word, status: 404 });
  };
  call('first');
  const before = await size();
  for (let n = 0; n < 100; n++) call(`word-${n}`);
  assert.equal(await size(), before);
  assert.doesNotMatch((await metrics.expose()).text, /word-|first/);
});

test('instances are counted once in ten seconds, however many scrape', async () => {
  let now = 1e12;
  let asked = 0;
  const metrics = metricsOf({
    clock: () => now,
    countStates: async () => ({ ...COUNTS, ready: ++asked }),
  });
  const ready = async () => parse((await metrics.expose()).text).get('bootbundle_instances{state="ready"}');
  assert.deepEqual(await Promise.all([ready(), ready(), ready()]), [1, 1, 1]);
  now += 9999;
  assert.equal(await ready(), 1);
  now += 1;
  assert.equal(await ready(), 2);
  now -= 60_000;
  assert.equal(await ready(), 3, 'a clock that was put back stops nothing');
});

test('a database that fails, or never answers, is down, and the rest of the metrics comes all the same', async () => {
  let now = 0;
  let answer: () => Promise<Record<State, number>> = async () => COUNTS;
  const metrics = metricsOf({ clock: () => now, countStates: () => answer() });
  const scrape = async () => {
    now += 20_000;
    const samples = parse((await metrics.expose()).text);
    return [samples.get('bootbundle_database_up'), samples.get('bootbundle_instances{state="ready"}')];
  };
  assert.deepEqual(await scrape(), [1, 3]);
  answer = () => Promise.reject(new Error('away'));
  assert.deepEqual(await scrape(), [0, undefined]);
  let hanging = 0;
  answer = () => {
    hanging++;
    return new Promise(() => undefined);
  };
  const began = performance.now();
  assert.deepEqual(await Promise.all([scrape(), scrape()]), [
    [0, undefined],
    [0, undefined],
  ]);
  assert.ok(performance.now() - began < 4000);
  assert.equal(hanging, 1, 'one question is enough');
});

test('the services, the store and the listener tell what they do', async (t) => {
  const store = await openStore({ file: ':memory:' });
  let broken = false;
  const flaky = new Proxy(store, {
    get: (target, method: keyof Store) =>
      broken && method === 'findInstanceById' ? () => Promise.reject(new Error('away')) : target[method],
  });
  const test = await buildTestApp(t, { store: flaky });
  const url = await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const scrape = async () => {
    test.tick(20_000);
    return parse((await test.app.inject('/metrics')).body);
  };
  const vm = (await store.findInstance('vm')) ?? assert.fail();
  const seed = `/s/${test.keys.capability('seed', vm)}/user-data`;
  const reports = `/r/${test.keys.capability('report', vm)}`;
  const before = await scrape();
  await test.boot(url);
  await test.boot(url, { method: 'HEAD' });
  await test.boot(`/i/${'A'.repeat(40)}/user-data`);
  await test.boot('/s/x/user-data');
  await test.api('PUT', '/bundles/web/parts/b.sh', '#!/bin/sh\n');
  await test.api('PUT', '/bundles/web/parts/b.yaml', '#cloud-config\n[');
  await test.boot(`${reports}/logs/result.json`, { method: 'POST', payload: '{}' });
  await test.boot(`${reports}/events`, { method: 'POST', payload: '[]' });
  await test.api('POST', '/instances/vm/close');
  test.tick(600_000);
  await test.boot(url);
  await test.boot(seed);
  broken = true;
  await test.boot(url);
  const after = await scrape();
  const grown = (sample: string) => (after.get(`bootbundle_${sample}`) ?? 0) - (before.get(`bootbundle_${sample}`) ?? 0);
  for (const [sample, by] of [
    ['fetches_total{purpose="include",outcome="delivered"}', 1],
    ['fetches_total{purpose="include",outcome="head"}', 1],
    ['fetches_total{purpose="include",outcome="not_found"}', 1],
    ['fetches_total{purpose="include",outcome="failed"}', 1],
    ['fetches_total{purpose="include",outcome="refused"}', 1],
    ['fetches_total{purpose="seed",outcome="not_found"}', 1],
    ['fetches_total{purpose="seed",outcome="refused"}', 1],
    ['fetches_total{purpose="seed",outcome="delivered"}', 0],
    ['alarms_total{kind="late_fetch"}', 1],
    ['reports_total{kind="log",outcome="stored"}', 1],
    ['reports_total{kind="event",outcome="refused"}', 1],
    ['fetch_duration_seconds_count', 7],
    ['render_duration_seconds_count', 2],
    ['document_bytes_count', 2],
    ['commit_duration_seconds_count', 3],
    ['commit_deliveries_sum', 3],
    ['publish_duration_seconds_count{outcome="published"}', 1],
    ['http_requests_total{scope="boot",method="GET",status="2xx"}', 2],
    ['http_requests_total{scope="boot",method="HEAD",status="2xx"}', 1],
    ['http_requests_total{scope="boot",method="GET",status="4xx"}', 3],
    ['http_requests_total{scope="boot",method="GET",status="5xx"}', 1],
    ['http_requests_total{scope="api",method="PUT",status="2xx"}', 1],
    ['http_requests_total{scope="api",method="PUT",status="4xx"}', 1],
    ['http_requests_total{scope="ops",method="GET",status="2xx"}', 1],
  ] as const)
    assert.equal(grown(sample), by, sample);
  assert.equal(after.get('bootbundle_instances{state="delivered"}'), 1);
  assert.equal(after.get('bootbundle_database_connections{state="total"}'), undefined, 'SQLite has no pool');
  const machines = await buildTestApp(t, { scopes: 'machines' });
  assert.equal((await machines.app.inject('/metrics')).statusCode, 404);
});

test('errors of the database reach the metrics by their code, mistakes of its users do not', async (t) => {
  const codes: string[] = [];
  const store = await openStore({ file: ':memory:' }, (code) => codes.push(code));
  t.after(() => store.close());
  await assert.rejects(store.deleteTag('none', 'none', { at: 0, by: ANN }));
  await store.ping();
  assert.equal(codes.length, 0);
  const url = 'postgres://nobody@127.0.0.1:1/none';
  await assert.rejects(openStore({ url }, (code) => codes.push(code)));
  assert.deepEqual([...new Set(codes)], ['database_unavailable']);
});

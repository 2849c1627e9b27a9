import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { PURPOSES, type Purpose } from '../../../src/domain/instance.ts';
import { buildTestApp } from '../../app.ts';

/** So many requests, in so many rounds; the heap is looked at after each. */
const REQUESTS = 10_000;
const ROUNDS = 5;
/** Far more than what is kept of any one request, far less than what would be kept of all. */
const HEAP_GROWTH = 16 * 1024 * 1024;
/** Series of one process; 10,000 made-up words would be far more. */
const MOST_SERIES = 500;

interface Call {
  method: string;
  url: string;
  headers: Record<string, string>;
  payload: string | Buffer;
}

/** What stands after a capability, by whose URL space it is; and what does not. */
const DOCUMENTS: Record<Purpose, readonly string[]> = {
  include: ['/user-data'],
  seed: ['/user-data', '/meta-data', '/vendor-data', '/network-config'],
  report: ['/events', '/phone-home', '/manifests', '/logs/cloud-init-output.log', '/logs/result.json'],
};
const NO_DOCUMENTS = [
  '',
  '/',
  '/user-data/',
  '/user-data%00',
  '/USER-DATA',
  '/logs/',
  '/logs/..%2f..%2fetc%2fpasswd',
  '/logs/%zz',
  '/events/x',
];

/** Ways to spoil a capability, or to write it otherwise. */
const SPOILT: readonly ((good: string, other: string) => string)[] = [
  (good) => good.slice(0, -1),
  (good) => good.slice(1),
  (good) => `${good}A`,
  (good) => `${good}=`,
  (good) => good + good,
  (good) => good.toLowerCase(),
  (good) => good.toUpperCase(),
  (good) => [...good].map((letter) => `%${letter.charCodeAt(0).toString(16)}`).join(''),
  (good) => `%${good.charCodeAt(0).toString(16)}${good.slice(1)}`,
  (good) => `%25${good.charCodeAt(0).toString(16)}${good.slice(1)}`,
  (good) => good.replaceAll('-', '+').replaceAll('_', '/'),
  (good) => `${good}%00`,
  (good) => `%20${good}`,
  (good) => `${good};a=b`,
  (good) => `${good}/../${good}`,
  (good, other) => good.slice(0, 20) + other.slice(20),
  (good) => `${good.slice(0, -1)}${good.endsWith('A') ? 'B' : 'A'}`,
  () => 'A'.repeat(40),
  () => 'A'.repeat(5000),
  () => '%zz',
  () => '%c3',
  () => '__proto__',
  () => '..',
  () => '',
];

const hostileText = fc.constantFrom(
  '',
  '\0',
  '<script>alert(1)</script>',
  '\u001b[2J\u001b]0;owned\u0007',
  '../../etc/passwd',
  "'; drop table instance; --",
  '\ud800',
  'ü'.repeat(2000),
  '{{ 7 | times: 7 }}',
);
const field = fc.oneof(hostileText, fc.jsonValue({ maxDepth: 2 }));
const report = fc
  .record(
    {
      name: fc.oneof(fc.constantFrom('init-local', 'modules-final', 'modules-final/config-scripts-user'), field),
      event_type: fc.oneof(fc.constantFrom('start', 'finish'), field),
      result: fc.oneof(fc.constantFrom('SUCCESS', 'FAIL', 'WARN'), field),
      description: field,
      origin: fc.constantFrom('cloudinit', ''),
      timestamp: fc.oneof(fc.double(), fc.constantFrom(0, -1, 1e300, '1', null)),
      id: field,
      file: field,
      part: field,
      sha256: field,
      status: fc.oneof(fc.constantFrom('applied', 'failed', 'retrying'), field),
      attempts: fc.oneof(fc.nat(), field),
      output: field,
      at: fc.oneof(fc.nat(), field),
      constructor: field,
    },
    { requiredKeys: [] },
  )
  .map((value) => JSON.stringify(value));
const manifest = fc.nat(500).map((id) =>
  JSON.stringify({
    ...{ id: `r-${id}`, file: '10-web.yaml', part: 'web.yaml', sha256: 'ab', status: 'applied' },
    ...{ attempts: 1, client: 'kubectl', clientVersion: 'v1', output: 'done', at: 1 },
  }),
);
const form = fc
  .array(fc.tuple(fc.constantFrom('hostname', 'fqdn', 'instance_id', 'pub_key_rsa', 'pub_key_ed25519', 'nope'), hostileText), {
    maxLength: 6,
  })
  .map((pairs) => pairs.map(([key, value]) => `${key}=${encodeURIComponent(value.toWellFormed())}`).join('&'));
const payload = fc.oneof(
  report,
  manifest,
  form,
  hostileText,
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom(
    '{',
    '[]',
    'null',
    '"x"',
    '{"a":'.repeat(3000),
    '['.repeat(10_000),
    '{"__proto__": {"x": 1}}',
    '\ufeff{}',
    '%zz=%zz',
  ),
  fc.constant(Buffer.alloc(200_000, 'x')),
);
const headers = fc
  .array(
    fc.tuple(
      fc.constantFrom(
        'content-type',
        'accept-encoding',
        'user-agent',
        'x-forwarded-for',
        'authorization',
        'range',
        'if-none-match',
        'x-y',
      ),
      fc.constantFrom(
        ...[
          'application/json',
          'application/x-www-form-urlencoded',
          'text/html; charset=utf-7',
          'nonsense',
          'gzip',
          'gzip;q=0',
        ],
        ...['Cloud-Init/25.1', 'a'.repeat(3000), '203.0.113.9, ::1, unknown', 'Bearer x', 'bytes=0-1', '*', ''],
      ),
    ),
    { maxLength: 3 },
  )
  .map((pairs) => Object.fromEntries(pairs));
const METHODS = [
  'GET',
  'GET',
  'GET',
  'HEAD',
  'POST',
  'POST',
  'POST',
  'POST',
  'PUT',
  'DELETE',
  'PATCH',
  'OPTIONS',
  'TRACE',
  'PROPFIND',
];
const query = fc.constantFrom('', '', '', '?', '?x=1', '?__proto__=1', '?%zz', `?${'q'.repeat(3000)}`);

test('ten thousand hostile calls at machines’ URLs: nothing is our fault, nothing is echoed, nothing grows without bound', async (t) => {
  const test = await buildTestApp(t, { log: { level: 'silent' } });
  for (const name of ['vm', 'other']) await test.register(name, { 'web/a.sh': '#!/bin/sh\n' });
  const [vm, other] = await Promise.all(['vm', 'other'].map((name) => test.store.findInstance(name)));
  assert.ok(vm && other);
  const old = { ...vm, generations: { include: 7, seed: 7, report: 7 } };
  const capabilities = PURPOSES.flatMap((purpose) => [vm, other, old].map((each) => test.keys.capability(purpose, each)));
  const call = fc
    .record({
      method: fc.constantFrom(...METHODS),
      purpose: fc.constantFrom<Purpose>('include', 'seed', 'report', 'report', 'report'),
      /** Whether the capability, its spelling and the document are what they ought to be. */
      good: fc.tuple(...[0, 1, 2].map(() => fc.constantFrom(true, true, true, false))),
      any: fc.nat(),
      query,
      headers,
      payload,
    })
    .map(({ purpose, good, any, query, ...rest }): Call => {
      const [fits, spelt, asked] = good;
      const capability = fits ? test.keys.capability(purpose, vm) : pick(capabilities, any);
      const spell = spelt ? (text: string) => text : pick(SPOILT, any);
      const document = asked ? pick(DOCUMENTS[purpose], any) : pick(NO_DOCUMENTS, any);
      return { ...rest, url: `/${purpose[0]}/${spell(capability, pick(capabilities, any + 1))}${document}${query}` };
    });
  const heap = heapAfterCollection();
  const sizes: number[] = [];
  const statuses = new Map<number, number>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const one of fc.sample(call, { numRuns: REQUESTS / ROUNDS, seed: round })) {
      // Clients fold dot segments before they send; what is left must be a machine's URL.
      if (!/^\/[isr](\/|$)/.test(new URL(one.url, 'http://host').pathname)) continue;
      const bodiless = one.method === 'GET' || one.method === 'HEAD';
      const answer = await test.app.inject({
        ...{ method: one.method as 'GET', url: one.url, headers: one.headers },
        ...(bodiless ? {} : { payload: one.payload }),
      });
      const { statusCode, body } = answer;
      statuses.set(statusCode, (statuses.get(statusCode) ?? 0) + 1);
      const at = `${one.method} ${one.url.slice(0, 200)}: ${statusCode} ${body.slice(0, 200)}`;
      assert.ok(statusCode < 500, at);
      assert.equal(answer.headers['cache-control'], 'no-store', at);
      if (statusCode !== 204) assert.match(String(answer.headers['content-type']), /^text\/plain/, at);
      if (statusCode >= 400) {
        assert.match(body, /^\P{Cc}{0,200}\n?$/u, at);
        assert.doesNotMatch(body, /<script|passwd/, at);
        assert.ok(!capabilities.some((capability) => body.includes(capability)), at);
      }
    }
    sizes.push(heap());
  }
  // What was compiled and cached in the first round is warm from then on.
  const [first = 0] = sizes;
  for (const size of sizes) assert.ok(size - first < HEAP_GROWTH, sizes.map((each) => Math.round(each / 1e6)).join(' '));
  for (const [status, atLeast] of [
    [200, 100],
    [204, 10],
    [400, 100],
    [404, 1000],
  ] as const)
    assert.ok((statuses.get(status) ?? 0) >= atLeast, `too few of ${status}: ${JSON.stringify([...statuses])}`);

  const { body: metrics } = await test.app.inject('/metrics');
  const series = metrics.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  assert.ok(series.length < MOST_SERIES, `${series.length} series`);
  for (const word of ['PROPFIND', 'passwd', 'vm', ...capabilities]) assert.ok(!metrics.includes(word), word);
});

function pick<T>(list: readonly T[], index: number): T {
  return list[index % list.length] as T;
}

/** The heap in use after everything that can go has gone, bytes. */
function heapAfterCollection(): () => number {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  return () => {
    collect();
    return process.memoryUsage().heapUsed;
  };
}

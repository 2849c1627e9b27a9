import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LightMyRequestResponse } from 'fastify';
import { buildTestApp, snapshot, type TestApp, TOKEN } from '../app.ts';

interface Call {
  method: string;
  url: string;
  headers: Record<string, string>;
  payload?: string | Buffer;
}

const nasty = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('web', 'a.sh', 'vm', 'stable', '1', 'db', 'new', 'x.cfg') },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      '..',
      '%2e%2e',
      '%00',
      '%zz',
      '%c3',
      '',
      '*',
      '@',
      'ü',
      '%2F',
      "'",
      '"',
      'A'.repeat(300),
      '__proto__',
      '-1',
      '1e9',
    ),
  },
  { weight: 1, arbitrary: fc.string({ unit: 'binary-ascii', maxLength: 8 }).map(encodeURIComponent) },
);
const apiPath = fc
  .tuple(
    fc.constantFrom(
      '/bundles',
      '/bundles/$',
      '/bundles/$/parts',
      '/bundles/$/parts/',
      '/bundles/$/parts/$',
      '/bundles/$/revisions',
      '/bundles/$/revisions/$',
      '/bundles/$/revisions/$/restore',
      '/bundles/$/revisions/$/content',
      '/bundles/$/diff',
      '/bundles/$/tags',
      '/bundles/$/tags/$',
      '/tokens',
      '/tokens/self',
      '/tokens/$',
      '/tokens/$/rotate',
      '/audit',
      '/instances',
      '/instances/$',
      '/instances/$/stub',
      '/instances/$/user-data',
      '/instances/$/preview',
      '/instances/$/explain',
      '/instances/$/diff',
      '/$/$/secrets',
      '/bundles/$/secrets/$',
      '/instances/$/secrets/$',
      '/bundles/$/secrets/$/generate',
      '/instances/$/secrets/$/generate',
      '/$/$/vars/',
      '/bundles/$/vars/$',
      '/instances/$/vars/$',
      '/lint',
      '/lint/$',
      '/instances/$/deliveries',
      '/instances/$/deliveries/$',
      '/instances/$/deliveries/$/user-data',
      '/instances/$/deliveries/$/pin',
      '/instances/$/timeline',
      '/deliveries',
      '/lookup',
      '/$',
      '/$/$',
    ),
    fc.infiniteStream(nasty),
  )
  .map(([template, names]) => `/api/v1${template.replace(/\$/g, () => names.next().value ?? '')}`);
const query = fc
  .array(
    fc.tuple(
      fc.constantFrom(
        'limit',
        'after',
        'format',
        'dryRun',
        'type',
        'merge',
        'template',
        'label',
        'bundle',
        'address',
        'instanceId',
        'retired',
        'state',
        'stale',
        'verbose',
        'since',
        'outcome',
        'form',
        'message',
        'accept',
        'force',
        'reveal',
        'from',
        'to',
        'bytes',
        'filename',
        'nope',
        '__proto__',
      ),
      fc.oneof(
        nasty,
        fc.constantFrom(
          'true',
          'false',
          'append',
          'text',
          'tar',
          'json',
          'auto',
          'text/x-shellscript',
          'base64',
          'now',
          'delivery:1',
          'vm,db',
          '16',
          '0',
          '99999999999999999999',
          'web=1',
        ),
      ),
    ),
    { maxLength: 2 },
  )
  .map((pairs) => (pairs.length === 0 ? '' : `?${pairs.map(([key, value]) => `${key}=${value}`).join('&')}`));
const headers = fc
  .array(
    fc.oneof(
      fc.tuple(
        fc.constant('content-type'),
        fc.constantFrom(
          'application/json',
          'application/yaml',
          'application/x-tar',
          'multipart/form-data; boundary=x',
          'multipart/mixed; boundary="x',
          'application/x-ndjson',
          'text/x-shellscript-per-boot',
          'nonsense',
          'text/html',
        ),
      ),
      fc.tuple(fc.constantFrom('if-match', 'if-none-match'), fc.constantFrom('*', '"x"', '', 'W/"x"', ',,,', '"'.repeat(99))),
      fc.tuple(fc.constant('merge-type'), fc.constantFrom('append', 'x', '', 'list()+dict()+str()')),
      fc.tuple(
        fc.constantFrom('accept-encoding', 'user-agent', 'expect-not', 'content-range'),
        fc.constantFrom('gzip', 'ü', ''),
      ),
    ),
    { maxLength: 3 },
  )
  .map((pairs) => Object.fromEntries(pairs) as Record<string, string>);
const spec = fc.record(
  {
    name: fc.oneof(nasty, fc.jsonValue()),
    bundles: fc.oneof(
      fc.array(fc.constantFrom('web', 'web@1', 'web@stable', 'db', 'none', 'web@9', '@'), { maxLength: 3 }),
      fc.jsonValue(),
    ),
    vars: fc.jsonValue(),
    secrets: fc.oneof(fc.dictionary(nasty, fc.option(fc.string())), fc.jsonValue()),
    labels: fc.oneof(fc.dictionary(nasty, fc.string()), fc.jsonValue()),
    metaData: fc.oneof(fc.dictionary(fc.constantFrom('instance-id', 'local-hostname', 'x'), fc.jsonValue()), fc.jsonValue()),
    vendorData: fc.oneof(fc.string(), fc.constant('\0'), fc.jsonValue()),
    networkConfig: fc.jsonValue(),
    parts: fc.array(
      fc.record(
        {
          filename: nasty,
          content: fc.constantFrom('#!/bin/sh\n', '', 'x'),
          type: fc.constantFrom('auto', 'text/x-a', '\r\n'),
        },
        { requiredKeys: [] },
      ),
      { maxLength: 3 },
    ),
    revision: fc.constantFrom(0, 1, '1', 2, null),
    order: fc.constantFrom('given', 'name', 'x'),
  },
  { requiredKeys: [] },
);
const payload = fc.oneof(
  fc.constantFrom(
    '#!/bin/sh\n',
    '#cloud-config\nhostname: a\n',
    '#cloud-config\nhostname: {{ vars.x }}{{ secrets.x }}\n',
    '{% for a in (1..9) %}{{ a }}',
    '',
    '{',
    '[]',
    'null',
    'apiVersion: v1\nkind: Pod\n',
    '--x\r\n\r\n--x--',
    '--x\r\nContent-Disposition: form-data; name="secrets.x"\r\n\r\ny\r\n--x\r\nContent-Disposition: form-data; name="instance"\r\n\r\nbundles: [web]\r\n--x--\r\n',
    '\ufeff',
  ),
  spec.map((value) => JSON.stringify(value)),
  fc.array(spec, { maxLength: 3 }).map((value) => JSON.stringify(value)),
  fc.uint8Array({ maxLength: 1100 }).map((bytes) => Buffer.from(bytes)),
);
const method = fc.constantFrom('GET', 'HEAD', 'PUT', 'PUT', 'PUT', 'POST', 'PATCH', 'DELETE', 'OPTIONS');

function send({ app }: TestApp, call: Call): Promise<LightMyRequestResponse> {
  return app.inject({ ...call, method: call.method as 'GET' });
}

test('no call of an operator’s is our fault, and a refused one changes nothing', async (t) => {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': '#!/bin/sh\n', 'db/b.sh': '#!/bin/sh\n' });
  await test.api('PUT', '/bundles/web/tags/stable', { revision: 1 });
  for (const owner of ['/bundles/web', '/instances/vm'])
    for (const kind of ['secrets', 'vars']) await test.api('PUT', `${owner}/${kind}/web`, 'x');
  const call = fc.record(
    { method, url: fc.tuple(apiPath, query).map(([path, text]) => path + text), headers, payload },
    { requiredKeys: ['method', 'url', 'headers'] },
  );
  let before = await snapshot(test);
  await fc.assert(
    fc.asyncProperty(call as fc.Arbitrary<Call>, async (one) => {
      const answer = await send(test, { ...one, headers: { ...one.headers, authorization: `Bearer ${TOKEN}` } });
      const after = await snapshot(test);
      assert.ok(answer.statusCode < 500, answer.body);
      if (answer.statusCode >= 400) {
        assert.equal(after, before, `${answer.statusCode} changed something`);
        assert.equal(answer.headers['content-type'], 'application/problem+json');
        if (one.method !== 'HEAD') {
          const { status, code, requestId, detail } = answer.json();
          assert.equal(status, answer.statusCode);
          assert.ok(code && requestId && detail);
          assert.doesNotMatch(detail, /\p{Cc}/u);
        }
      }
      if (['GET', 'HEAD', 'OPTIONS'].includes(one.method)) assert.equal(after, before, 'a reading call changed something');
      before = after;
    }),
    { numRuns: 600 },
  );
});

test('no call at a machine’s URL is our fault, answers more than a line, or says anything of the URL', async (t) => {
  const test = await buildTestApp(t);
  const include = await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const instance = await test.store.findInstance('vm');
  assert.ok(instance);
  const seed = test.keys.capability('seed', instance);
  const capability = fc.oneof(
    fc.constantFrom(include.split('/')[2] ?? '', seed),
    nasty,
    fc
      .tuple(fc.constantFrom(include.split('/')[2] ?? '', seed), fc.nat(39), fc.constantFrom(...'AZaz09-_'))
      .map(([text, at, letter]) => text.slice(0, at) + letter + text.slice(at + 1)),
  );
  const path = fc
    .tuple(
      fc.constantFrom('i', 's', 'r'),
      capability,
      fc.constantFrom('/user-data', '/meta-data', '/vendor-data', '/network-config', '/events', '', '/', '/user-data/'),
    )
    .map(([scope, text, document]) => `/${scope}/${text}${document}`);
  const call = fc.record(
    { method, url: fc.tuple(path, query).map(([one, text]) => one + text), headers, payload },
    { requiredKeys: ['method', 'url', 'headers'] },
  );
  await fc.assert(
    fc.asyncProperty(call as fc.Arbitrary<Call>, async (one) => {
      // Clients fold dot segments before they send.
      fc.pre(/^\/[isr](\/|$)/.test(new URL(one.url, 'http://host').pathname));
      const before = await snapshot(test);
      const answer = await send(test, one);
      assert.ok([200, 404].includes(answer.statusCode), `${answer.statusCode} ${answer.body}`);
      assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
      assert.equal(answer.headers['cache-control'], 'no-store');
      if (answer.statusCode === 404) {
        assert.equal(answer.body, one.method === 'HEAD' ? '' : 'not found\n');
        assert.equal(await snapshot(test), before);
      } else assert.ok(['GET', 'HEAD'].includes(one.method));
    }),
    { numRuns: 300 },
  );
});

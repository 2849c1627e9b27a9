import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildTestApp, PUBLIC_URL, refuses, snapshot, type TestApp } from '../../app.ts';

const SH = '#!/bin/sh\necho hello\n';
const YAML = { 'content-type': 'application/yaml' };
const NDJSON = { 'content-type': 'application/x-ndjson' };

const FORM = { 'content-type': 'multipart/form-data; boundary=x' };
const form = (...fields: (readonly [name: string, text: string])[]) =>
  `${fields.map(([name, text]) => `--x\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${text}\r\n`).join('')}--x--\r\n`;
/** What would be another directory, another line of meta-data, or an option of a command. */
const HOSTILE_WORDS = [
  '../../etc/cron.d',
  '..',
  '.',
  '/etc',
  'a/b',
  'a\\b',
  '-rf',
  'a b',
  'a\n',
  '\na',
  'a\0',
  'a;reboot',
  '$(reboot)',
  '`x`',
  'a"b',
  "a'b",
  'ü',
  '\u202ea',
  '',
  'a'.repeat(256),
  null,
  7,
  true,
  ['a'],
  { a: 'b' },
];

/** An app with two bundles, `web` (revision 2, tag `stable` on 1) and `db`. */
async function build(t: Parameters<typeof buildTestApp>[0], overrides = {}): Promise<TestApp> {
  const test = await buildTestApp(t, overrides);
  await test.api('PUT', '/bundles/web/parts/a.sh', SH);
  await test.api('PUT', '/bundles/web/tags/stable', { revision: 1 });
  await test.api('PUT', '/bundles/web/parts/a.sh', `${SH}date\n`);
  await test.api('PUT', '/bundles/db/parts/b.sh', SH);
  return test;
}

const names = (answer: { json(): { items: { name: string }[] } }) => answer.json().items.map(({ name }) => name);

test('a registration answers with the stub, the sizes and what there is to say', async (t) => {
  const { api, boot } = await build(t);
  const answer = await api('PUT', '/instances/vm-1', { bundles: ['web', 'db@1'], labels: { site: 'fra1' } });
  assert.equal(answer.statusCode, 201);
  assert.equal(answer.headers.location, '/api/v1/instances/vm-1');
  const { status, changed, ...stated } = answer.json();
  assert.equal(answer.headers.etag, `"${status.id}.1"`);
  assert.equal(changed, true);
  assert.deepEqual(stated, {
    name: 'vm-1',
    bundles: ['web', 'db@1'],
    vars: {},
    labels: { site: 'fra1' },
    metaData: {},
    vendorData: null,
    networkConfig: null,
    policy: {},
    track: true,
  });
  assert.equal(status.stub.text, `#include-once\n${status.stub.url}\n`);
  assert.equal(status.stub.size, Buffer.byteLength(status.stub.text));
  assert.ok(status.stub.size < 200);
  assert.ok(status.stub.url.startsWith(`${PUBLIC_URL}/i/`));
  assert.deepEqual([status.instanceId, status.version, status.findings], [`i-${status.id}`, 1, []]);
  const document = await boot(new URL(status.stub.url).pathname);
  assert.deepEqual(
    [status.document.size, status.document.revisions, status.document.fitsNova],
    [document.rawPayload.length, ['web@2', 'db@1'], true],
  );
  assert.deepEqual(
    status.document.parts.map(({ filename, origin }: Record<string, string>) => [filename, origin]),
    [
      ['01-a.sh', 'web@2/a.sh'],
      ['02-b.sh', 'db@1/b.sh'],
      ['03-bootbundle-track.yaml', 'bootbundle'],
      ['00-bootbundle-report.sh', 'bootbundle'],
    ],
  );
  await api('PATCH', '/instances/vm-1', { track: false });
  const untracked = (await api('GET', '/instances/vm-1/preview')).body;
  assert.doesNotMatch(untracked, /bootbundle-track|bootbundle-report|\/r\//);
});

test('it says when the document would not have fitted into Nova', async (t) => {
  const { api } = await build(t);
  await api('PUT', '/bundles/web/parts/big.sh', `#!/bin/sh\n${'#\n'.repeat(25_000)}`);
  const { document } = (await api('PUT', '/instances/vm', { bundles: ['web'] })).json().status;
  assert.ok(document.size > 49_149);
  assert.equal(document.fitsNova, false);
});

test('a loopback URL is a finding of every registration and stub', async (t) => {
  const { api } = await build(t, { publicUrl: 'http://127.0.0.1:8080' });
  const { findings } = (await api('PUT', '/instances/vm', { bundles: ['web'] })).json().status;
  assert.deepEqual([findings[0].severity, findings[0].code], ['warning', 'public_url_loopback']);
  assert.match(String((await api('GET', '/instances/vm/stub')).headers['bootbundle-finding']), /^public_url_loopback: /);
});

test('GET, edit, PUT: unchanged it says so, whatever was set', async (t) => {
  const { api } = await build(t);
  const full = {
    bundles: ['web@stable', 'db'],
    vars: { kube: { role: 'node' }, list: [1, 'zwei', null, true, 1.5] },
    labels: { site: 'fra1', 'example.org/rack': 'r 7' },
    metaData: { 'local-hostname': 'vm.example.org', 'public-keys': ['ssh-ed25519 AAAA ü'] },
    vendorData: '#cloud-config\n{}\n',
    networkConfig: { version: 2, ethernets: { eth0: { dhcp4: true } } },
  };
  await api('PUT', '/instances/vm', full);
  for (const type of ['application/json', 'application/yaml', 'application/x-www-form-urlencoded']) {
    const got = await api('GET', '/instances/vm');
    const again = await api('PUT', '/instances/vm', got.body, { 'content-type': type, 'if-match': String(got.headers.etag) });
    assert.deepEqual([again.statusCode, again.json().changed, again.headers.etag], [200, false, got.headers.etag], type);
  }
  const got = (await api('GET', '/instances/vm')).json();
  const edited = await api('PUT', '/instances/vm', { ...got, labels: { site: 'ams2' } });
  assert.deepEqual([edited.json().changed, edited.json().labels, edited.json().status.version], [true, { site: 'ams2' }, 2]);
  assert.deepEqual(edited.json().vars, full.vars);
  const stated = await api('PUT', '/instances/vm', { bundles: ['web'] });
  assert.deepEqual([stated.json().labels, stated.json().vendorData], [{}, null], 'PUT states the whole');
});

test('references follow the newest revision, a tag, or nothing', async (t) => {
  const { api } = await build(t);
  await api('PUT', '/instances/newest', { bundles: ['web'] });
  await api('PUT', '/instances/tagged', { bundles: ['web@stable'] });
  await api('PUT', '/instances/pinned', { bundles: ['web@2'] });
  const revisions = async () =>
    Promise.all(
      ['newest', 'tagged', 'pinned'].map(
        async (name) => (await api('GET', `/instances/${name}`)).json().status.document.revisions[0],
      ),
    );
  assert.deepEqual(await revisions(), ['web@2', 'web@1', 'web@2']);
  await api('PUT', '/bundles/web/parts/a.sh', `${SH}id\n`);
  assert.deepEqual(await revisions(), ['web@3', 'web@1', 'web@2']);
  await api('PUT', '/bundles/web/tags/stable', { revision: 3 });
  assert.deepEqual(await revisions(), ['web@3', 'web@3', 'web@2']);
});

test('PATCH changes some of it, as RFC 7396 says', async (t) => {
  const { api } = await build(t);
  await api('PUT', '/instances/vm', {
    bundles: ['web'],
    labels: { a: '1', b: '2' },
    vars: { deep: { x: 1, y: [1] } },
    vendorData: 'v',
  });
  for (const [patch, want, headers] of [
    [{ labels: { b: null, c: '3' } }, { labels: { a: '1', c: '3' } }, {}],
    [{ vars: { deep: { y: [2], z: {} } } }, { vars: { deep: { x: 1, y: [2], z: {} } } }, {}],
    [{ vendorData: null, labels: null }, { vendorData: null, labels: {} }, {}],
    [JSON.stringify({ bundles: ['db'] }), { bundles: ['db'] }, { 'content-type': 'application/merge-patch+json' }],
    ['bundles: [web, db]\n', { bundles: ['web', 'db'] }, YAML],
  ] as const) {
    const answer = await api('PATCH', '/instances/vm', patch, headers);
    assert.deepEqual([answer.statusCode, answer.json().changed], [200, true], answer.body);
    const got = (await api('GET', '/instances/vm')).json();
    for (const [field, value] of Object.entries(want)) assert.deepEqual(got[field], value);
  }
  assert.equal((await api('PATCH', '/instances/vm', {})).json().changed, false);
  const got = await api('GET', '/instances/vm');
  assert.equal((await api('PATCH', '/instances/vm', got.body, YAML)).json().changed, false);
});

test('a list is registered all at once, in every form it may have', async (t) => {
  const { api } = await build(t);
  const forms = {
    json: [
      [
        { name: 'json1', bundles: ['web'] },
        { name: 'json2', bundles: ['db'] },
      ],
      {},
    ],
    'yaml list': ['- {name: list1, bundles: [web]}\n- name: list2\n  bundles: [db]\n', YAML],
    'yaml documents': ['name: doc1\nbundles: [web]\n---\nname: doc2\nbundles: [db]\n---\n', YAML],
    ndjson: ['{"name":"nd1","bundles":["web"]}\n\n{"name":"nd2","bundles":["db"]}\n', NDJSON],
    unsaid: ['- {name: un1, bundles: [web]}\n- {name: un2, bundles: [db]}\n', {}],
  } as const;
  for (const [form, [body, headers]] of Object.entries(forms)) {
    const answer = await api('PUT', '/instances', body, headers);
    assert.equal(answer.statusCode, 200, `${form}: ${answer.body}`);
    assert.equal(answer.json().changed, 2, form);
    for (const item of answer.json().items) {
      assert.equal(item.changed, true);
      assert.equal((await api('GET', `/instances/${item.name}`)).json().status.stub.url, item.status.stub.url);
    }
    assert.equal((await api('PUT', '/instances', body, headers)).json().changed, 0, form);
  }
  const got = await Promise.all(['json1', 'json2'].map(async (name) => (await api('GET', `/instances/${name}`)).json()));
  assert.equal((await api('PUT', '/instances', got)).json().changed, 0, 'what GET said, put again');
});

test('a dry run that would create: 200, no Location, no stub; and nothing is there', async (t) => {
  const test = await build(t);
  const { api } = test;
  await api('PUT', '/instances/old', { bundles: ['web'] });
  const before = await snapshot(test);
  const spec = { bundles: ['web'], labels: { a: 'b' } };
  const dry = await api('PUT', '/instances/new?dryRun=true', spec);
  assert.deepEqual([dry.statusCode, dry.headers.location], [200, undefined]);
  const { status, changed } = dry.json();
  assert.deepEqual([status.stub, changed, status.document.revisions], [null, true, ['web@2']], 'there is no URL yet');
  assert.ok(status.document.size > 0);
  const change = await api('PUT', '/instances/old?dryRun=true', spec);
  assert.deepEqual([change.statusCode, change.json().changed], [200, true]);
  assert.match(change.json().status.stub.text, /^#include-once\n/, 'an instance that is there has its stub');
  const list = await api('PUT', '/instances?dryRun=true', [
    { name: 'new', ...spec },
    { name: 'old', ...spec },
  ]);
  assert.deepEqual(
    list.json().items.map((item: { status: { stub: unknown } }) => item.status.stub === null),
    [true, false],
  );
  assert.equal(await snapshot(test), before);
  await api('DELETE', '/instances/old');
  const revived = await api('PUT', '/instances/old?dryRun=true', spec);
  assert.deepEqual([revived.statusCode, revived.json().status.stub], [200, null], 'a retired one would get a fresh URL');
});

test('a list has no entity tag: conditions on it are refused', async (t) => {
  const test = await build(t);
  const list = [{ name: 'vm', bundles: ['web'] }];
  await refuses(
    test,
    [{ 'if-match': '*' }, { 'if-match': '"x"' }, { 'if-none-match': '*' }].map(
      (condition) => [JSON.stringify(condition), ['PUT', '/instances', list, condition], 400, 'no_conditions'] as const,
    ),
  );
});

test('one instance has at most 1 MiB, in a list and by a patch too', async (t) => {
  const test = await build(t);
  const half = 'x'.repeat(600_000);
  await test.api('PUT', '/instances/vm', { bundles: ['web'], vars: { a: half } });
  await refuses(test, [
    [
      'in a list',
      [
        'PUT',
        '/instances',
        [
          { name: 'small', bundles: ['web'] },
          { name: 'large', bundles: ['web'], vars: { a: half, b: half } },
        ],
      ],
      413,
      'instance_too_large',
    ],
    ['bit by bit', ['PATCH', '/instances/vm', { vars: { b: half } }], 413, 'instance_too_large'],
  ]);
});

test('an instance may come in a form', async (t) => {
  const { api } = await build(t);
  const answer = await api('PUT', '/instances/vm', form(['instance', 'bundles: [web]\nvars: {a: "ü"}\n']), FORM);
  assert.deepEqual([answer.statusCode, answer.json().vars], [201, { a: 'ü' }], answer.body);
  const again = await api('PUT', '/instances/vm', form(['instance', '{"bundles": ["web"], "vars": {"a": "ü"}}']), FORM);
  assert.deepEqual([again.statusCode, again.json().changed], [200, false]);
});

test('secrets come with an instance, merge, and are never answered', async (t) => {
  const test = await build(t);
  const { api } = test;
  const secretsOf = (answer: {
    json(): { status: { secrets: { name: string; bytes: number; endsWithNewline: boolean }[] } };
  }) => answer.json().status.secrets.map(({ name, bytes, endsWithNewline }) => [name, bytes, endsWithNewline]);
  const put = await api('PUT', '/instances/vm', { bundles: ['web'], secrets: { b: 'x\n', 'a.key': 'ü' } });
  assert.equal(put.statusCode, 201, put.body);
  assert.equal(put.json().secrets, undefined);
  const both = [
    ['a.key', 2, false],
    ['b', 2, true],
  ];
  assert.deepEqual(secretsOf(put), both);
  const got = await api('GET', '/instances/vm');
  assert.deepEqual(secretsOf(got), both);
  const again = await api('PUT', '/instances/vm', got.body, { 'if-match': String(got.headers.etag) });
  assert.deepEqual([again.json().changed, secretsOf(again)], [false, both], 'what GET said, put again, loses none');
  const same = await api('PUT', '/instances/vm', { bundles: ['web'], secrets: { b: 'x\n', none: null } });
  assert.deepEqual([same.json().changed, same.headers.etag], [false, got.headers.etag]);
  const removed = await api('PUT', '/instances/vm', { bundles: ['web'], secrets: { b: null, c: 'y' } });
  assert.deepEqual([removed.json().changed, removed.json().status.version], [true, 2]);
  assert.deepEqual(secretsOf(removed), [
    ['a.key', 2, false],
    ['c', 1, false],
  ]);
  const patched = await api('PATCH', '/instances/vm', { secrets: { c: null, d: 'z' }, labels: { site: 'fra1' } });
  assert.deepEqual(
    [patched.statusCode, patched.json().labels, patched.json().secrets, secretsOf(patched)],
    [
      200,
      { site: 'fra1' },
      undefined,
      [
        ['a.key', 2, false],
        ['d', 1, false],
      ],
    ],
  );
  const list = await api('PUT', '/instances', [
    { name: 'vm', bundles: ['web'], secrets: { d: null } },
    { name: 'new', bundles: ['web'], secrets: { e: 'x' } },
  ]);
  assert.deepEqual(
    list.json().items.map((item: { status: { secrets: { name: string }[] } }) => item.status.secrets.map(({ name }) => name)),
    [['a.key'], ['e']],
  );
  const state = await snapshot(test);
  for (const [method, url, body] of [
    ['PUT', '/instances/vm', { bundles: ['web'], secrets: { f: 'x' } }],
    ['PATCH', '/instances/vm', { secrets: { 'a.key': null } }],
    ['PUT', '/instances', [{ name: 'new', bundles: ['web'], secrets: { e: 'y' } }]],
  ] as const) {
    assert.ok([true, 1].includes((await api(method, `${url}?dryRun=true`, body)).json().changed));
    assert.equal(await snapshot(test), state, `${method} ${url}`);
  }
});

test('secrets of a form keep their bytes', async (t) => {
  const { api } = await build(t);
  const template = '#!/bin/sh\necho {{ secrets.tls | base64 }} {{ secrets.token }}\n';
  await api('PUT', '/bundles/db/parts/t.sh?template=true', template);
  const body = form(
    ['instance', 'bundles: [db]\nsecrets: {other: x}\n'],
    ['secrets.tls', 'a\r\n\n'],
    ['secrets.token', 't0ken'],
  );
  const put = await api('PUT', '/instances/vm', body, FORM);
  assert.equal(put.statusCode, 201, put.body);
  const told = put
    .json()
    .status.secrets.map((secret: Record<string, unknown>) => [secret.name, secret.bytes, secret.endsWithNewline]);
  assert.deepEqual(told, [
    ['other', 1, false],
    ['tls', 4, true],
    ['token', 5, false],
  ]);
  const document = await api('GET', '/instances/vm/user-data?reveal=true');
  assert.ok(document.body.includes(`echo ${Buffer.from('a\r\n\n').toString('base64')} t0ken\n`), document.body);
});

test('an instance whose document cannot be rendered any more says so, and why', async (t) => {
  const { api } = await build(t);
  await api('PUT', '/instances/vm', { bundles: ['db'] });
  const broken = await api('PUT', '/bundles/db/parts/t.sh?template=true&force=true', `${SH}{{ vars.none }}\n`);
  assert.ok(broken.statusCode < 300, broken.body);
  const got = await api('GET', '/instances/vm');
  const { document, findings, stub } = got.json().status;
  assert.deepEqual([got.statusCode, document, findings[0].code], [200, null, 'unknown_variable']);
  assert.ok(stub.url);
});

test('an instance-id and a hostname of every shape that is one are taken', async (t) => {
  const { api } = await build(t);
  for (const word of [
    'i-0123',
    'iid-local01',
    'vm.example.org',
    '8c0e9f4e-7d2a-4b7e-9d36-7f4c2a',
    'A_b',
    'a:b',
    '7',
    'a'.repeat(255),
  ]) {
    const metaData = { 'instance-id': word, 'local-hostname': word };
    assert.ok((await api('PUT', '/instances/vm', { bundles: [], metaData })).statusCode < 300, word);
  }
});

test('a list with one that cannot be changes nothing', async (t) => {
  const test = await build(t);
  await test.api('PUT', '/instances/old', { bundles: ['web'] });
  const good = [
    { name: 'new', bundles: ['web'] },
    { name: 'old', bundles: ['db'] },
  ];
  const bad = (item: unknown) => ['PUT', '/instances', [...good, item]] as const;
  await refuses(test, [
    ['an unknown bundle', bad({ name: 'x', bundles: ['none'] }), 422, 'unknown_bundle'],
    ['a bad name', bad({ name: 'X', bundles: ['web'] }), 400, 'bad_request'],
    ['no name', bad({ bundles: ['web'] }), 400, 'bad_request'],
    ['a name twice', bad({ name: 'old', bundles: ['web'] }), 400, 'duplicate_name'],
    ['an unknown field', bad({ name: 'x', bundles: ['web'], nope: 1 }), 400, 'bad_request'],
    ['null', bad(null), 400, 'bad_request'],
    ['an empty list', ['PUT', '/instances', []], 400, 'bad_request'],
    ['no list', ['PUT', '/instances', { name: 'x', bundles: [] }], 400, 'bad_request'],
    ['nothing', ['PUT', '/instances', ''], 400, 'bad_request'],
    ['a broken line', ['PUT', '/instances', '{"name":"new","bundles":["web"]}\n{"name"', NDJSON], 400, 'bad_json'],
    ['a broken document', ['PUT', '/instances', 'name: new\nbundles: [web]\n---\n[', YAML], 400, 'bad_yaml'],
    ['XML', ['PUT', '/instances', '<a/>', { 'content-type': 'text/xml' }], 415, 'bad_content_type'],
    ['too much', ['PUT', '/instances', Buffer.alloc(16 * 1024 * 1024 + 1, ' '), NDJSON], 413, 'body_too_large'],
    [
      'too many',
      ['PUT', '/instances', Array.from({ length: 10_001 }, (_, n) => ({ name: `n${n}`, bundles: [] }))],
      413,
      'too_many_instances',
    ],
  ]);
  assert.match((await test.api(...bad({ name: 'x', bundles: ['none'] }))).json().detail, /none/);
  const broken = await test.api('PUT', '/instances', '{"name":"a"}\n{"name" "b"}\n', NDJSON);
  assert.match(broken.json().detail, /line 2/, 'a broken line is named');
});

test('lists go in pages, and every filter filters', async (t) => {
  const { api, boot, tick } = await build(t);
  await api('PUT', '/instances', [
    { name: 'a', bundles: ['web'], labels: { site: 'fra1', rack: '1' } },
    { name: 'b', bundles: ['web@stable', 'db'], labels: { site: 'fra1' } },
    { name: 'c', bundles: ['db@1'], labels: { site: 'ams2' }, metaData: { 'instance-id': 'iid-c' } },
  ]);
  const list = async (query: string) => names(await api('GET', `/instances?${query}`));
  assert.deepEqual(await list(''), ['a', 'b', 'c']);
  const first = (await api('GET', '/instances?limit=2')).json();
  assert.deepEqual([first.items.length, first.next], [2, 'b']);
  assert.deepEqual(await list('limit=2&after=b'), ['c']);
  assert.deepEqual(await list('bundle=web'), ['a', 'b']);
  assert.deepEqual(await list('bundle=db&label=site=fra1'), ['b']);
  assert.deepEqual(await list('bundle=none'), []);
  for (const query of ['bundle=%00', 'bundle=web%00', 'label=%00', 'label=site=%00', 'instanceId=%00', 'address=%00'])
    assert.deepEqual(await list(query), [], query);
  assert.equal((await api('GET', '/instances?after=%00')).statusCode, 200);
  assert.deepEqual(await list('label=site'), ['a', 'b', 'c']);
  assert.deepEqual(await list('label=rack'), ['a']);
  assert.deepEqual(await list('label=site%3Dfra1&label=rack=1'), ['a']);
  assert.deepEqual(await list('label=site=fra'), []);
  assert.deepEqual(await list('instanceId=iid-c'), ['c']);
  const { id } = (await api('GET', '/instances/a')).json().status;
  assert.deepEqual(await list(`instanceId=i-${id}`), ['a']);
  const url = new URL((await api('GET', '/instances/b')).json().status.stub.url).pathname;
  await boot(url, { remoteAddress: '198.51.100.7' });
  assert.deepEqual(await list('address=198.51.100.7'), ['b']);
  assert.deepEqual(await list('address=198.51.100.70'), []);
  tick(1000);
  await api('DELETE', '/instances/b');
  assert.deepEqual(await list(''), ['a', 'c']);
  assert.deepEqual(await list('retired=true'), ['b']);
  assert.equal((await api('GET', '/instances?retired=true')).json().items[0].status.retiredAt, '2026-01-01T00:00:01.000Z');
  assert.match(
    (await api('GET', '/instances?format=text')).body,
    /^NAME +STATE +BUNDLES +LABELS +DELIVERIES +LAST +UPDATED\na +registered +web +/,
  );
});

test('how far a boot is stands in each view, and lists can be asked for it and for what is stale', async (t) => {
  const { api, boot, tick } = await build(t);
  await api('PUT', '/instances', [
    { name: 'a', bundles: ['web'] },
    { name: 'b', bundles: ['web@1'], track: false },
  ]);
  const list = async (query: string) => names(await api('GET', `/instances?${query}`));
  const fetchAs = async (name: string) =>
    boot(new URL((await api('GET', `/instances/${name}`)).json().status.stub.url).pathname);
  const fresh = { state: 'registered', reason: 'it has not fetched its document yet', since: '2026-01-01T00:00:00.000Z' };
  assert.deepEqual((await api('GET', '/instances/a')).json().status.state, fresh);
  assert.deepEqual((await api('GET', '/instances')).json().items[0].status.state, fresh);
  assert.deepEqual((await api('PUT', '/instances/new?dryRun=true', { bundles: [] })).json().status.state, fresh);
  assert.deepEqual([await list('state=registered'), await list('state=silent')], [['a', 'b'], []]);
  await fetchAs('a');
  await fetchAs('b');
  assert.deepEqual(await list('stale=true'), []);
  await api('PUT', '/bundles/web/parts/z.sh', '#!/bin/sh\necho new\n');
  assert.deepEqual([await list('stale=true'), await list('stale=false')], [['a'], ['a', 'b']]);
  await api('PUT', '/instances/b', { bundles: ['web@1'], track: false, labels: { a: 'b' } });
  assert.deepEqual(await list('stale=true&label=a'), ['b']);
  tick(25 * 3_600_000);
  await api('PUT', '/instances/late', { bundles: [] });
  tick(24 * 3_600_000);
  assert.deepEqual(await list('state=silent&after=b'), ['late']);
  assert.match((await api('GET', '/instances/late')).json().status.state.reason, /^no word since 2026-01-02T01:00:00\.000Z: /);
  assert.equal((await api('GET', '/instances?state=dead')).statusCode, 400);
  await api('DELETE', '/instances/late');
  assert.deepEqual([await list('retired=true&state=silent'), await list('retired=true&state=registered')], [[], ['late']]);
});

test('a stub has four forms', async (t) => {
  const { api } = await build(t);
  const { stub } = (await api('PUT', '/instances/vm', { bundles: ['web'] })).json().status;
  const get = async (form: string) => {
    const answer = await api('GET', `/instances/vm/stub${form}`);
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
    assert.equal(answer.headers['bootbundle-finding'], undefined);
    assert.equal(answer.headers['cache-control'], 'no-store');
    return answer.body;
  };
  assert.equal(await get(''), stub.text);
  assert.equal(await get('?form=include-once'), stub.text);
  assert.equal(await get('?form=include'), `#include\n${stub.url}\n`);
  assert.equal(Buffer.from(await get('?form=base64'), 'base64').toString(), stub.text);
  assert.match(await get('?form=nocloud'), /^ds=nocloud;s=http:\/\/192\.0\.2\.10:8080\/s\/[\w-]{40}\/\n$/);
});

test('deleted it leaves a tombstone; revived it has its id, and fresh capabilities', async (t) => {
  const test = await build(t);
  const { api, boot } = test;
  const path = await test.register('vm', { 'web/a.sh': SH });
  const before = (await api('GET', '/instances/vm')).json().status;
  await boot(path);
  const state = await snapshot(test);
  assert.equal((await api('DELETE', '/instances/vm?dryRun=true')).statusCode, 204);
  assert.equal(await snapshot(test), state);
  assert.equal((await api('DELETE', '/instances/vm')).statusCode, 204);
  for (const url of ['', '/stub', '/user-data'])
    assert.equal((await api('GET', `/instances/vm${url}`)).json().code, 'unknown_instance', url);
  assert.equal((await api('DELETE', '/instances/vm')).statusCode, 404);
  assert.equal((await api('PATCH', '/instances/vm', {})).statusCode, 404);
  assert.equal((await api('GET', '/instances/vm/deliveries')).json().items.length, 1, 'the ledger stays readable');
  assert.equal((await boot(path)).statusCode, 404);
  const revived = await api('PUT', '/instances/vm', { bundles: ['web'] });
  assert.equal(revived.statusCode, 201);
  const after = revived.json().status;
  assert.deepEqual([after.id, after.instanceId, after.deliveries.count], [before.id, before.instanceId, 0]);
  assert.notEqual(after.stub.url, before.stub.url);
  assert.equal((await boot(path)).statusCode, 404, 'the old URL stays dead');
  assert.equal((await boot(new URL(after.stub.url).pathname)).statusCode, 200);
});

test('a dry run answers what would happen and changes nothing', async (t) => {
  const test = await build(t);
  const { api } = test;
  await api('PUT', '/instances/vm', { bundles: ['web'] });
  const before = await snapshot(test);
  for (const [method, url, body, changed] of [
    ['PUT', '/instances/vm', { bundles: ['db'] }, true],
    ['PUT', '/instances/vm', { bundles: ['web'] }, false],
    ['PUT', '/instances/new', { bundles: ['db'] }, true],
    ['PATCH', '/instances/vm', { bundles: ['db'] }, true],
    ['PUT', '/instances', [{ name: 'new', bundles: ['db'] }], 1],
  ] as const) {
    const answer = await api(method, `${url}?dryRun=true`, body);
    assert.ok(answer.statusCode < 300, answer.body);
    assert.equal(answer.json().changed, changed, `${method} ${url}`);
    assert.equal(await snapshot(test), before, `${method} ${url}`);
  }
  assert.equal((await api('PUT', '/instances/new?dryRun=true', { bundles: ['none'] })).statusCode, 422);
});

test('conditions hold on every write that takes them, and of two writers one wins', async (t) => {
  const test = await build(t);
  const { api } = test;
  const etag = String((await api('PUT', '/instances/vm', { bundles: ['web'] })).headers.etag);
  const spec = { bundles: ['db'] };
  await refuses(test, [
    ...(['PUT', 'PATCH', 'DELETE'] as const).flatMap((method) => [
      [
        `${method} another`,
        [method, '/instances/vm', method === 'DELETE' ? undefined : spec, { 'if-match': '"x"' }],
        412,
        'etag_mismatch',
      ] as const,
      [
        `${method} not this`,
        [method, '/instances/vm', method === 'DELETE' ? undefined : spec, { 'if-none-match': etag }],
        412,
        'exists',
      ] as const,
    ]),
    ['create only', ['PUT', '/instances/vm', spec, { 'if-none-match': '*' }], 412, 'exists'],
    ['change only', ['PUT', '/instances/new', spec, { 'if-match': '*' }], 412, 'etag_mismatch'],
    ['dry', ['PUT', '/instances/vm?dryRun=true', spec, { 'if-match': '"x"' }], 412, 'etag_mismatch'],
  ]);
  const put = await Promise.all(
    ['1', '2', '3'].map((n) => api('PUT', '/instances/vm', { ...spec, labels: { n } }, { 'if-match': etag })),
  );
  assert.deepEqual(put.map(({ statusCode }) => statusCode).sort(), [200, 412, 412]);
  const made = await Promise.all(
    ['1', '2', '3'].map((n) => api('PUT', '/instances/new', { ...spec, labels: { n } }, { 'if-none-match': '*' })),
  );
  assert.deepEqual(made.map(({ statusCode }) => statusCode).sort(), [201, 412, 412]);
  const keys = ['a', 'b', 'c', 'd', 'e'];
  await Promise.all(keys.map((key) => api('PATCH', '/instances/new', { labels: { [key]: '1' } })));
  const { labels, status } = (await api('GET', '/instances/new')).json();
  assert.deepEqual(Object.keys(labels).sort(), [...keys, 'n'], 'patches without a condition are all kept');
  const current = `"${status.id}.${status.version}"`;
  assert.equal((await api('DELETE', '/instances/new', undefined, { 'if-match': current })).statusCode, 204);
});

test('what cannot be registered is refused, and nothing changes', async (t) => {
  const test = await build(t);
  const { api } = test;
  await api('PUT', '/instances/vm', { bundles: ['web'] });
  await api(
    'PUT',
    '/bundles/kube/parts/pod.yaml',
    'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: x, image: x}]}\n',
  );
  const put = (body: unknown, headers: Record<string, string> = {}) => ['PUT', '/instances/vm', body, headers] as const;
  const spec = (more: object) => put({ bundles: ['db'], ...more });
  const json = { 'content-type': 'application/json' };
  const bomb = `bundles: [db]\nvars:\n${Array.from({ length: 9 }, (_, n) => `  a${n}: &a${n} [${Array(9).fill(n === 0 ? 'x' : `*a${n - 1}`)}]\n`).join('')}`;
  const deep = `{"bundles":["db"],"vars":{"a":${'['.repeat(200_000)}${']'.repeat(200_000)}}}`;
  await refuses(test, [
    ['no bundles', put({}), 400, 'bad_request'],
    ['an unknown field', spec({ bundels: [] }), 400, 'bad_request'],
    ['bundles as text', put({ bundles: 'db' }), 400, 'bad_request'],
    ['a bundle as a number', put({ bundles: [1] }), 400, 'bad_request'],
    ['a label as a number', spec({ labels: { a: 1 } }), 400, 'bad_request'],
    ['vars as a list', spec({ vars: [] }), 400, 'bad_request'],
    ['metaData as text', spec({ metaData: 'x' }), 400, 'bad_request'],
    ['vendorData as an object', spec({ vendorData: {} }), 400, 'bad_request'],
    ['networkConfig as a number', spec({ networkConfig: 1 }), 400, 'bad_request'],
    ['a secret as a number', spec({ secrets: { a: 1 } }), 400, 'bad_request'],
    ['secrets as a list', spec({ secrets: ['a'] }), 400, 'bad_request'],
    ['no secrets', spec({ secrets: null }), 400, 'bad_request'],
    ['a secret of a bad name', spec({ secrets: { 'a b': 'x' } }), 422, 'bad_secret_name'],
    ['a secret of a name with a line break', spec({ secrets: { 'a\n': 'x' } }), 400, 'bad_request'],
    ['an empty secret', spec({ secrets: { a: '' } }), 422, 'empty_secret'],
    ['a secret past 64 KiB', spec({ secrets: { a: 'x'.repeat(64 * 1024 + 1) } }), 413, 'secret_too_large'],
    ['a policy with an unknown field', spec({ policy: { closes: '1h' } }), 400, 'bad_request'],
    ['a list', put([]), 400, 'bad_request'],
    ['text', put('"x"', json), 400, 'bad_request'],
    ['nothing', put(''), 400, 'empty_body'],
    ['nothing at all', put(undefined), 400, 'empty_body'],
    ['broken JSON', put('{"bundles": [', json), 400, 'bad_json'],
    ['broken YAML', put('bundles: [', YAML), 400, 'bad_yaml'],
    ['two documents', put('bundles: []\n---\nbundles: []\n', YAML), 400, 'bad_yaml'],
    ['not UTF-8', put(Buffer.from([0x7b, 0xff, 0x7d]), json), 400, 'not_utf8'],
    ['an empty form', put('--x--', FORM), 400, 'bad_form'],
    ['a form without its end', put(form(['instance', 'bundles: [db]']).slice(0, -6), FORM), 400, 'bad_form'],
    [
      'a form of another boundary',
      put(form(['instance', 'bundles: [db]']), { 'content-type': 'multipart/form-data; boundary=y' }),
      400,
      'bad_form',
    ],
    ['a form with a field more', put(form(['instance', 'bundles: [db]'], ['secret.a', 'x']), FORM), 400, 'unknown_field'],
    ['a form of secrets only', put(form(['secrets.a', 'x']), FORM), 400, 'bad_form'],
    [
      'a form with a secret twice',
      put(form(['instance', 'bundles: [db]'], ['secrets.a', 'x'], ['secrets.a', 'y']), FORM),
      400,
      'duplicate_field',
    ],
    [
      'a form with a secret in it and beside it',
      put(form(['instance', 'bundles: [db]\nsecrets: {a: x}'], ['secrets.a', 'y']), FORM),
      400,
      'duplicate_field',
    ],
    ['a form with an empty secret', put(form(['instance', 'bundles: [db]'], ['secrets.a', '']), FORM), 422, 'empty_secret'],
    [
      'a form with a secret without a name',
      put(form(['instance', 'bundles: [db]'], ['secrets.', 'x']), FORM),
      422,
      'bad_secret_name',
    ],
    [
      'a form with a field twice',
      put(form(['instance', 'bundles: [db]'], ['instance', 'bundles: [db]']), FORM),
      400,
      'bad_form',
    ],
    ['a form with broken YAML', put(form(['instance', 'bundles: [']), FORM), 400, 'bad_yaml'],
    ['a form with nothing in it', put(form(['instance', '']), FORM), 400, 'empty_body'],
    ['a patch as a form', ['PATCH', '/instances/vm', form(['instance', 'labels: {a: b}']), FORM], 415, 'bad_content_type'],
    ['a Content-Type that is none', put('{}', { 'content-type': 'nonsense' }), 415, 'bad_content_type'],
    ['too much', put(Buffer.alloc(1024 * 1024 + 1, ' ')), 413, 'body_too_large'],
    ['too deep', put(deep, json), 400, 'bad_value'],
    ['a number that is none', put('{"bundles":["db"],"vars":{"a":1e400}}', json), 400, 'bad_value'],
    ['.nan', put('bundles: [db]\nvars: {a: .nan}\n', YAML), 400, 'bad_value'],
    ['half a character', put('{"bundles":["db"],"vendorData":"\\ud800"}', json), 400, 'bad_value'],
    ['__proto__', put('{"bundles":["db"],"vars":{"__proto__":{"x":1}}}', json), 400, 'unknown_field'],
    ['a YAML bomb', put(bomb, YAML), 400, 'bad_value'],
    ['a YAML tag', put('bundles: !secret [db]', YAML), 400, 'bad_yaml'],
    ['an unknown bundle', put({ bundles: ['none'] }), 422, 'unknown_bundle'],
    ['an unknown tag', put({ bundles: ['web@none'] }), 422, 'unknown_bundle'],
    ['an unknown revision', put({ bundles: ['web@9'] }), 422, 'unknown_bundle'],
    ['revision 0', put({ bundles: ['web@0'] }), 422, 'bad_reference'],
    ['no reference', put({ bundles: ['Web'] }), 422, 'bad_reference'],
    ['a reference with a line break', put({ bundles: ['web\r\n'] }), 422, 'bad_reference'],
    ['an empty reference', put({ bundles: [''] }), 422, 'bad_reference'],
    ['a long reference', put({ bundles: ['a'.repeat(131)] }), 400, 'bad_request'],
    ['a bundle twice', put({ bundles: ['web', 'web@1'] }), 422, 'duplicate_bundle'],
    ['65 bundles', put({ bundles: Array.from({ length: 65 }, (_, n) => `b${n}`) }), 422, 'too_many_bundles'],
    ['a bad label', spec({ labels: { 'a b': '1' } }), 422, 'bad_label'],
    ['a label with a line break', spec({ labels: { a: '1\n' } }), 422, 'bad_label'],
    ['an instance-id that is none', spec({ metaData: { 'instance-id': 'a b' } }), 422, 'bad_meta_data'],
    ['a hostname that is none', spec({ metaData: { 'local-hostname': 7 } }), 422, 'bad_meta_data'],
    ...['instance-id', 'local-hostname'].flatMap((key) =>
      HOSTILE_WORDS.map(
        (word) => [`${key} ${JSON.stringify(word)}`, spec({ metaData: { [key]: word } }), 422, 'bad_meta_data'] as const,
      ),
    ),
    ['a part nobody takes', put({ bundles: ['kube'] }), 422, 'unhandled_part'],
    ['a bad name', ['PUT', '/instances/A', { bundles: [] }], 400, 'bad_name'],
    ['a name of 64', ['PUT', `/instances/${'a'.repeat(64)}`, { bundles: [] }], 400, 'bad_name'],
    ['a name of 10,000', ['PUT', `/instances/${'a'.repeat(10_000)}`, { bundles: [] }], 400, 'bad_name'],
    ['a name with a line break', ['PUT', '/instances/a%0d%0ab', { bundles: [] }], 400, 'bad_name'],
    ...['%00', 'a%00', '..%2fa', 'A'].flatMap((name) =>
      [{ 'if-match': '*' }, { 'if-none-match': '*' }].flatMap((condition) => [
        [`a condition on ${name}`, ['PUT', `/instances/${name}`, { bundles: [] }, condition], 400, 'bad_name'] as const,
        [`a condition on a patch of ${name}`, ['PATCH', `/instances/${name}`, {}, condition], 400, 'bad_name'] as const,
        [`a condition on the end of ${name}`, ['DELETE', `/instances/${name}`, undefined, condition], 400, 'bad_name'] as const,
      ]),
    ),
    ['an unknown parameter', ['PUT', '/instances/vm?force=true', { bundles: [] }], 400, 'bad_request'],
    ['a patch that removes bundles', ['PATCH', '/instances/vm', { bundles: null }], 400, 'bad_request'],
    ['a patch with an unknown field', ['PATCH', '/instances/vm', { nope: 1 }], 400, 'bad_request'],
    ['a patch of all secrets', ['PATCH', '/instances/vm', { secrets: null }], 400, 'bad_request'],
    ['a patch of a secret to a list', ['PATCH', '/instances/vm', { secrets: { a: [] } }], 400, 'bad_request'],
    ['a patch that is a list', ['PATCH', '/instances/vm', []], 400, 'bad_request'],
    ['a patch to what is not there', ['PATCH', '/instances/none', {}], 404, 'unknown_instance'],
    ['a patch to an unknown bundle', ['PATCH', '/instances/vm', { bundles: ['none'] }], 422, 'unknown_bundle'],
    ['a form that is none', ['GET', '/instances/vm/stub?form=x'], 400, 'bad_request'],
    ['none', ['GET', '/instances/none'], 404, 'unknown_instance'],
    ['none to delete', ['DELETE', '/instances/none'], 404, 'unknown_instance'],
    ['eleven labels', ['GET', `/instances?${'label=a&'.repeat(11)}limit=1`], 400, 'bad_request'],
  ]);
  const detail = async (...call: Parameters<TestApp['api']>) => (await api(...call)).json().detail;
  assert.match(await detail(...put({ bundles: ['web', 'none', 'db'] })), /none does not exist/);
  assert.match(await detail('PATCH', '/instances/vm', { nope: 1 }), /"nope"/);
  assert.match(await detail(...spec({ bundels: [] })), /"bundels"/);
  assert.match(await detail(...put({ bundles: ['kube'] })), /pod\.yaml.*text\/x-kube-pod.*part handler/);
  assert.doesNotMatch(await detail(...put('bundles: !secret [db]', YAML)), /secret/, 'content is never quoted');
});

import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { pack } from 'tar-stream';
import { sha256 } from '../../../src/domain/bundle.ts';
import { LIMITS } from '../../../src/domain/limits.ts';
import { compileSchemas } from '../../../src/inspect/schema.ts';
import { buildTestApp, refuses, snapshot } from '../../app.ts';

const SH = '#!/bin/sh\necho hello\n';
const CONFIG = '#cloud-config\nhostname: a\n';
const TAR = { 'content-type': 'application/x-tar' };
const YAML = { 'content-type': 'application/yaml' };
const MERGE = 'list(append)+dict(no_replace,recurse_list)+str()';

function tar(files: Record<string, string>): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of Object.entries(files)) archive.entry({ name }, content);
  archive.finalize();
  return buffer(archive);
}

test('a part is created, kept when equal, and replaced; each change is one revision', async (t) => {
  const { api } = await buildTestApp(t);
  const created = await api('PUT', '/bundles/web/parts/a.sh', SH);
  assert.equal(created.statusCode, 201);
  assert.equal(created.headers.location, '/api/v1/bundles/web/parts/a.sh');
  assert.equal(created.headers.etag, `"${sha256(SH)}"`);
  assert.deepEqual(created.json(), {
    bundle: 'web',
    revision: 1,
    changed: true,
    filename: 'a.sh',
    type: 'text/x-shellscript',
    typeSaid: false,
    size: SH.length,
    sha256: sha256(SH),
    merge: null,
    template: false,
    findings: [],
    schema: null,
  });
  const same = await api('PUT', '/bundles/web/parts/a.sh', SH);
  assert.deepEqual([same.statusCode, same.json().changed, same.json().revision], [200, false, 1]);
  assert.equal(same.headers.location, undefined);
  const replaced = await api('PUT', '/bundles/web/parts/a.sh', `${SH}date\n`);
  assert.deepEqual([replaced.statusCode, replaced.json().changed, replaced.json().revision], [200, true, 2]);
  const second = await api('PUT', '/bundles/web/parts/b.sh', SH);
  assert.deepEqual([second.statusCode, second.json().revision], [201, 3]);
});

test('a part comes back byte for byte, to be saved and never shown, with an entity tag that answers 304', async (t) => {
  const { api } = await buildTestApp(t);
  const body = Buffer.from('#!/bin/sh\r\necho "ü ✓ 🚀"\n--bootbundle\nno final newline');
  await api('PUT', '/bundles/web/parts/a.sh', body);
  const got = await api('GET', '/bundles/web/parts/a.sh');
  assert.deepEqual(got.rawPayload, body);
  assert.equal(got.headers['content-type'], 'text/x-shellscript');
  assert.equal(got.headers['x-content-type-options'], 'nosniff');
  assert.equal(got.headers['content-disposition'], 'attachment; filename="a.sh"');
  for (const tag of [got.headers.etag, `W/${got.headers.etag}`, `"x", ${got.headers.etag}`, '*']) {
    const fresh = await api('GET', '/bundles/web/parts/a.sh', undefined, { 'if-none-match': String(tag) });
    assert.deepEqual([fresh.statusCode, fresh.body, fresh.headers.etag], [304, '', got.headers.etag], String(tag));
  }
  assert.equal((await api('GET', '/bundles/web/parts/a.sh', undefined, { 'if-none-match': '"x"' })).statusCode, 200);
  const head = await api('HEAD', '/bundles/web/parts/a.sh');
  assert.deepEqual([head.statusCode, head.body, head.headers['content-length']], [200, '', String(body.length)]);
});

test('binary is a part when its type is said', async (t) => {
  const { api } = await buildTestApp(t);
  const body = Buffer.from([0, 255, 1, 254]);
  const { statusCode } = await api('PUT', '/bundles/web/parts/blob?type=application/x-thing', body);
  assert.equal(statusCode, 201);
  const got = await api('GET', '/bundles/web/parts/blob');
  assert.deepEqual([got.rawPayload, got.headers['content-type']], [body, 'application/x-thing']);
});

test('an option that is not said stays, and can be cleared', async (t) => {
  const { api } = await buildTestApp(t);
  const put = async (query: string, body = CONFIG, headers = {}) => {
    const answer = await api('PUT', `/bundles/web/parts/c.cfg${query}`, body, headers);
    assert.ok(answer.statusCode < 300, answer.body);
    const { merge, type, changed } = answer.json();
    return { merge, type, changed };
  };
  const type = 'text/cloud-config';
  assert.deepEqual(await put('?merge=append'), { merge: MERGE, type, changed: true });
  assert.deepEqual(await put('', `${CONFIG}fqdn: b\n`), { merge: MERGE, type, changed: true }, 'a new body keeps it');
  assert.deepEqual(await put('?merge=', `${CONFIG}fqdn: b\n`), { merge: null, type, changed: true });
  // A + arrives as a space, whether it was meant so or not.
  for (const [query, headers] of [
    [`?merge=${MERGE}`, {}],
    [`?merge=${encodeURIComponent(MERGE)}`, {}],
    ['', { 'merge-type': MERGE }],
  ] as const) {
    assert.equal((await put(query, CONFIG, headers)).merge, MERGE, query);
    await put('?merge=');
  }
  assert.equal((await put('?merge=replace')).merge, 'dict(replace)+list()+str()');

  const script = async (query: string, body: string) => (await api('PUT', `/bundles/web/parts/x${query}`, body)).json().type;
  assert.equal(await script('?type=text/x-shellscript-per-boot', SH), 'text/x-shellscript-per-boot');
  assert.equal(await script('', `${SH}date\n`), 'text/x-shellscript-per-boot', 'a type that was said stays');
  assert.equal(await script('?type=auto', `${SH}date\n`), 'text/x-shellscript');
  assert.equal(await script('', CONFIG), 'text/cloud-config', 'a type that was sniffed is sniffed again');
});

test('a part is a template until it is said that it is none; its source is judged at once', async (t) => {
  const test = await buildTestApp(t);
  const put = async (query: string, body: string) => {
    const answer = await test.api('PUT', `/bundles/web/parts/c.cfg${query}`, body);
    assert.ok(answer.statusCode < 300, answer.body);
    return [answer.json().template, answer.json().type];
  };
  const template = (more = '') => `${CONFIG}fqdn: {{ vars.fqdn }}${more}\n`;
  assert.deepEqual(await put('?template=true', template()), [true, 'text/cloud-config']);
  assert.deepEqual(await put('', template('.org')), [true, 'text/cloud-config']);
  await refuses(test, [['a broken one', ['PUT', '/bundles/web/parts/c.cfg', template('{% if %}')], 422, 'bad_template']]);
  assert.deepEqual((await test.api('GET', '/bundles/web/parts/c.cfg')).body, template('.org'), 'it is kept as it was sent');
  assert.deepEqual(await put('?template=false', CONFIG), [false, 'text/cloud-config']);
});

test('an answer says which schema judged; where none has a say, it says none', async (t) => {
  const known = Object.fromEntries(['runcmd', 'users', 'write_files', 'hostname'].map((key) => [key, {}]));
  const cloudConfig = JSON.stringify({ type: 'object', properties: known });
  const schemas = compileSchemas('the schema of this test', { cloudConfig, networkV1: null, networkV2: null });
  const { api } = await buildTestApp(t, { schemas: async () => schemas });
  const parts = (content: string) => ({ parts: [{ filename: 'x', content }] });
  for (const [body, schema] of [
    [CONFIG, 'the schema of this test'],
    [SH, null],
  ] as const)
    for (const [method, url, sent] of [
      ['PUT', '/bundles/web/parts/x', body],
      ['PUT', '/bundles/web', parts(body)],
      ['POST', '/bundles/web', parts(body)],
      ['POST', '/lint', parts(body)],
      ['PUT', '/lint/x', body],
    ] as const)
      assert.equal((await api(method, url, sent)).json().schema, schema, `${method} ${url}`);
  assert.match((await api('PUT', '/lint/x?format=text', CONFIG)).body, /the schema of this test/);
  assert.equal((await api('DELETE', '/bundles/web/parts/x')).json().schema, null);
});

test('a Content-Type says the type only where no client sends it by itself', async (t) => {
  const { api } = await buildTestApp(t);
  for (const [sent, kept] of [
    ['text/x-shellscript-per-once', 'text/x-shellscript-per-once'],
    ['application/x-www-form-urlencoded', 'text/x-shellscript'],
    ['application/octet-stream', 'text/x-shellscript'],
    ['text/plain; charset=utf-8', 'text/x-shellscript'],
    ['application/json', 'text/x-shellscript'],
  ] as const) {
    const answer = await api('PUT', `/bundles/b${sent.length}/parts/a`, SH, { 'content-type': sent });
    assert.deepEqual([answer.statusCode, answer.json().type], [201, kept], sent);
  }
});

test('parts go by file name, bytewise; a part is removed as a new revision', async (t) => {
  const { api } = await buildTestApp(t);
  for (const name of ['b.sh', 'a.sh', 'B.sh', '10.sh', '9.sh'])
    await api('PUT', `/bundles/web/parts/${name}`, `${SH}# ${name}\n`);
  const names = async (url: string) => (await api('GET', url)).json().items.map((part: { filename: string }) => part.filename);
  assert.deepEqual(await names('/bundles/web/parts'), ['10.sh', '9.sh', 'B.sh', 'a.sh', 'b.sh']);
  assert.deepEqual(await names('/bundles/web/parts/'), await names('/bundles/web/parts'));
  assert.match((await api('GET', '/bundles/web/parts/')).json().hint, /curl -T '\{a\.sh,b\.yaml\}'/);
  const removed = await api('DELETE', '/bundles/web/parts/B.sh');
  assert.deepEqual([removed.statusCode, removed.json().revision, removed.json().parts.length], [200, 6, 4]);
  assert.equal((await api('GET', '/bundles/web/parts/B.sh')).json().code, 'unknown_part');
});

test('a whole bundle is one revision: as JSON, YAML, tar, form and MIME', async (t) => {
  const { api } = await buildTestApp(t);
  const parts = [{ filename: 'a.sh', content: SH }];
  const form = [
    '--x',
    'Content-Disposition: form-data; name="part"; filename="a.sh"',
    'Content-Type: application/octet-stream',
    '',
    `${SH}--x--`,
    '',
  ];
  const mime = [
    '--x',
    'Content-Type: text/x-shellscript',
    'Content-Disposition: attachment; filename="a.sh"',
    '',
    `${SH}`,
    '--x--',
    '',
  ];
  for (const [name, body, headers] of [
    ['json', { parts }, {}],
    ['unsaid', JSON.stringify({ parts }), {}],
    ['yaml', 'parts:\n- filename: a.sh\n  content: |\n    #!/bin/sh\n    echo hello\n', YAML],
    ['tar', await tar({ 'a.sh': SH }), TAR],
    ['form', form.join('\r\n').replace(`${SH}--`, `${SH}\r\n--`), { 'content-type': 'multipart/form-data; boundary=x' }],
    ['mime', mime.join('\n'), { 'content-type': 'multipart/mixed; boundary=x' }],
  ] as const) {
    const answer = await api('PUT', `/bundles/${name}`, body, headers);
    assert.equal(answer.statusCode, 201, `${name}: ${answer.body}`);
    assert.equal(answer.headers.location, `/api/v1/bundles/${name}`);
    assert.equal(answer.headers.etag, `"${answer.json().digest}"`);
    assert.deepEqual([answer.json().revision, answer.json().changed], [1, true], name);
    assert.equal((await api('GET', `/bundles/${name}/parts/a.sh`)).body, SH, name);
    const again = await api('PUT', `/bundles/${name}`, body, headers);
    assert.deepEqual([again.statusCode, again.json().revision, again.json().changed], [200, 1, false], name);
  }
});

test('PUT states the whole, POST adds', async (t) => {
  const { api } = await buildTestApp(t);
  const names = (answer: { json(): { parts: { filename: string }[] } }) => answer.json().parts.map(({ filename }) => filename);
  const part = (filename: string) => ({ filename, content: `${SH}# ${filename}\n` });
  await api('PUT', '/bundles/web', { parts: [part('a'), part('b')], vars: { x: 1 } });
  const added = await api('POST', '/bundles/web', { parts: [part('c')] });
  assert.deepEqual([names(added), added.json().vars, added.json().revision], [['a', 'b', 'c'], { x: 1 }, 2]);
  const stated = await api('PUT', '/bundles/web', { parts: [part('c')] });
  assert.deepEqual([names(stated), stated.json().vars, stated.json().revision], [['c'], {}, 3]);
  const given = await api('PUT', '/bundles/web', { order: 'given', parts: [part('z'), part('a')] });
  assert.deepEqual([names(given), given.json().order], [['z', 'a'], 'given']);
  assert.equal((await api('POST', '/bundles/fresh', { parts: [part('a')] })).statusCode, 201);
});

test('what you put comes back as a tar, and put again it changes nothing', async (t) => {
  const { api } = await buildTestApp(t);
  const source = await tar({
    '9.sh': SH,
    'c.cfg': CONFIG,
    'bundle.yaml':
      'order: given\nvars: {a: {b: [1, "2"]}}\nparts:\n- filename: c.cfg\n  merge: append\n- filename: 9.sh\n  type: text/x-shellscript-per-boot\n',
  });
  const put = await api('PUT', '/bundles/web', source, TAR);
  const got = await api('GET', '/bundles/web?format=tar');
  assert.equal(got.headers['content-type'], 'application/x-tar');
  assert.equal(got.headers['content-disposition'], 'attachment; filename="web-1.tar"');
  assert.equal(got.headers.etag, put.headers.etag);
  const again = await api('PUT', '/bundles/web', got.rawPayload, TAR);
  assert.deepEqual([again.statusCode, again.json().changed, again.json().digest], [200, false, put.json().digest]);
  const elsewhere = await api('PUT', '/bundles/copy', got.rawPayload, TAR);
  assert.equal(elsewhere.json().digest, put.json().digest);
});

test('a bundle says who refers to it; its entity tag is the digest, and only a tar is nothing but that', async (t) => {
  const { api, register } = await buildTestApp(t);
  await register('one', { 'web/a.sh': SH });
  await api('PUT', '/bundles/web/tags/stable', { revision: 1 });
  await api('PUT', '/instances/two', { bundles: ['web@stable'] });
  await api('PUT', '/instances/three', { bundles: ['web@1'] });
  const got = await api('GET', '/bundles/web');
  const { status, tags, digest } = got.json();
  assert.deepEqual(tags, { stable: 1 });
  assert.equal(got.headers.etag, `"${digest}"`);
  assert.equal(status.followers, 1);
  assert.deepEqual(status.usedBy, [
    { instance: 'one', reference: 'web' },
    { instance: 'three', reference: 'web@1' },
    { instance: 'two', reference: 'web@stable' },
  ]);
  const fresh = (url: string) => api('GET', url, undefined, { 'if-none-match': `"${digest}"` });
  const tarred = await fresh('/bundles/web?format=tar');
  assert.deepEqual([tarred.statusCode, tarred.body, tarred.headers.etag], [304, '', `"${digest}"`]);
  await api('PUT', '/bundles/web/tags/newest', { revision: 1 });
  await api('DELETE', '/instances/three');
  const changed = await fresh('/bundles/web');
  assert.deepEqual([changed.statusCode, changed.json().tags], [200, { stable: 1, newest: 1 }], 'tags and followers change');
  assert.equal(changed.json().status.usedBy.length, 2);
});

test('a bundle in use stays, and the refusal names who uses it; unused it leaves a tombstone and its numbers go on', async (t) => {
  const test = await buildTestApp(t);
  const { api } = test;
  await test.register('one', { 'web/a.sh': SH });
  await api('PUT', '/instances/two', { bundles: ['web@1'] });
  for (const query of ['', '?dryRun=true']) {
    const refused = await api('DELETE', `/bundles/web${query}`);
    assert.deepEqual([refused.statusCode, refused.json().code], [409, 'in_use'], query);
    assert.match(refused.json().detail, /one.*two/, query);
  }
  for (const name of ['one', 'two']) await api('DELETE', `/instances/${name}`);
  const before = await snapshot(test);
  assert.equal((await api('DELETE', '/bundles/web?dryRun=true')).statusCode, 204);
  assert.equal(await snapshot(test), before);
  assert.equal((await api('DELETE', '/bundles/web')).statusCode, 204);
  for (const url of [
    '/bundles/web',
    '/bundles/web/parts',
    '/bundles/web/parts/a.sh',
    '/bundles/web/revisions',
    '/bundles/web/tags',
  ])
    assert.equal((await api('GET', url)).json().code, 'unknown_bundle', url);
  assert.equal((await api('DELETE', '/bundles/web')).statusCode, 404);
  assert.deepEqual((await api('GET', '/bundles')).json().items, []);
  const [tombstone] = (await api('GET', '/bundles?retired=true')).json().items;
  assert.deepEqual([tombstone.name, tombstone.retiredAt], ['web', '2026-01-01T00:00:00.000Z']);
  const revived = await api('PUT', '/bundles/web/parts/a.sh', SH);
  assert.deepEqual([revived.statusCode, revived.json().revision, revived.json().changed], [201, 2, true]);
  assert.deepEqual((await api('GET', '/bundles?retired=true')).json().items, []);
});

test('lists go in pages, by name; revisions newest first', async (t) => {
  const { api } = await buildTestApp(t);
  for (const name of ['c', 'a', 'e', 'b', 'd']) await api('PUT', `/bundles/${name}/parts/x`, SH);
  const pages: string[][] = [];
  for (let after: string | null = ''; after !== null; ) {
    const page: { items: { name: string }[]; next: string | null } = (
      await api('GET', `/bundles?limit=2${after && `&after=${after}`}`)
    ).json();
    pages.push(page.items.map(({ name }) => name));
    after = page.next;
  }
  assert.deepEqual(pages, [['a', 'b'], ['c', 'd'], ['e']]);

  for (const n of [2, 3, 4]) await api('PUT', '/bundles/a/parts/x', `${SH}# ${n}\n`);
  const first = (await api('GET', '/bundles/a/revisions?limit=3')).json();
  assert.deepEqual([first.items.map(({ revision }: { revision: number }) => revision), first.next], [[4, 3, 2], 2]);
  const last = (await api('GET', '/bundles/a/revisions?limit=3&after=2')).json();
  assert.deepEqual([last.items.map(({ revision }: { revision: number }) => revision), last.next], [[1], null]);
  const one = (await api('GET', '/bundles/a/revisions/2')).json();
  assert.deepEqual([one.bundle, one.revision, one.author, one.createdAt], ['a', 2, 'admin', '2026-01-01T00:00:00.000Z']);
});

test('format=text gives a person columns', async (t) => {
  const { api } = await buildTestApp(t);
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  for (const [url, heading] of [
    ['/bundles', /^NAME +REVISION +PARTS +BUILT-IN +UPDATED +DIGEST\nweb +1 +1 +- +2026-01-01T00:00:00\.000Z +[0-9a-f]{12}\n$/],
    ['/bundles/web', /^FILE +TYPE +SIZE +MERGE +SHA256\na\.sh +text\/x-shellscript +21 +- +[0-9a-f]{12}\n$/],
    ['/bundles/web/parts', /^FILE /],
    ['/bundles/web/revisions', /^REVISION +CREATED +AUTHOR +PARTS +DIGEST +MESSAGE\n1 +2026.*admin +1 /],
  ] as const) {
    const answer = await api('GET', `${url}?format=text`);
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
    assert.match(answer.body, heading, url);
  }
});

test('a tag names a revision, moves, and stays while somebody follows it', async (t) => {
  const { api } = await buildTestApp(t);
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  await api('PUT', '/bundles/web/parts/a.sh', `${SH}date\n`);
  const set = async (revision: number) => {
    const answer = await api('PUT', '/bundles/web/tags/stable', { revision });
    return [answer.statusCode, answer.json().changed];
  };
  assert.deepEqual(await set(1), [201, true]);
  assert.deepEqual(await set(1), [200, false]);
  assert.deepEqual(await set(2), [200, true]);
  assert.deepEqual((await api('GET', '/bundles/web/tags')).json().items, [{ tag: 'stable', revision: 2 }]);
  await api('PUT', '/instances/one', { bundles: ['web@stable'] });
  const refused = await api('DELETE', '/bundles/web/tags/stable');
  assert.deepEqual([refused.statusCode, refused.json().code], [409, 'in_use']);
  assert.match(refused.json().detail, /one/);
  await api('DELETE', '/instances/one');
  assert.equal((await api('DELETE', '/bundles/web/tags/stable')).statusCode, 204);
  assert.deepEqual((await api('GET', '/bundles/web/tags')).json().items, []);
});

test('a dry run answers what would happen and changes nothing', async (t) => {
  const test = await buildTestApp(t);
  const { api } = test;
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  const before = await snapshot(test);
  const parts = [{ filename: 'b.sh', content: SH }];
  for (const [method, url, body, revision] of [
    ['PUT', '/bundles/web/parts/a.sh', `${SH}date\n`, 2],
    ['PUT', '/bundles/web/parts/a.sh', SH, 1],
    ['PUT', '/bundles/new/parts/a.sh', SH, 1],
    ['PUT', '/bundles/web', { parts }, 2],
    ['POST', '/bundles/web', { parts }, 2],
    ['DELETE', '/bundles/web/parts/a.sh', undefined, 2],
  ] as const) {
    const answer = await api(method, `${url}?dryRun=true`, body);
    assert.ok(answer.statusCode < 300, answer.body);
    assert.equal(answer.json().revision, revision, `${method} ${url}`);
    assert.equal(await snapshot(test), before, `${method} ${url}`);
  }
  assert.equal((await api('PUT', '/bundles/web/parts/c?dryRun=true', 'nothing known')).statusCode, 422);
});

test('a dry run creates nothing: 200 and no Location, with the number a retired bundle would go on with', async (t) => {
  const { api } = await buildTestApp(t);
  for (const number of [1, 2]) await api('PUT', '/bundles/gone/parts/a.sh', `${SH}# ${number}\n`);
  await api('DELETE', '/bundles/gone');
  const parts = [{ filename: 'a.sh', content: SH }];
  for (const [method, url, body] of [
    ['PUT', '/bundles/gone/parts/a.sh', SH],
    ['PUT', '/bundles/gone', { parts }],
    ['POST', '/bundles/gone', { parts }],
  ] as const) {
    const answer = await api(method, `${url}?dryRun=true`, body);
    assert.deepEqual([answer.statusCode, answer.headers.location], [200, undefined], `${method} ${url}`);
    assert.deepEqual([answer.json().revision, answer.json().changed], [3, true], `${method} ${url}`);
  }
  assert.equal((await api('PUT', '/bundles/gone', { parts })).json().revision, 3, 'and so it is');
});

test('each part says whether its type was said, wherever it is shown', async (t) => {
  const { api } = await buildTestApp(t);
  await api('PUT', '/bundles/web/parts/a.sh?type=text/x-shellscript-per-boot', SH);
  const added = await api('PUT', '/bundles/web/parts/b.sh', SH);
  assert.equal(added.json().typeSaid, false);
  const said = (parts: { typeSaid: boolean }[]) => parts.map(({ typeSaid }) => typeSaid);
  for (const url of ['/bundles/web', '/bundles/web/revisions/2'])
    assert.deepEqual(said((await api('GET', url)).json().parts), [true, false], url);
  assert.deepEqual(said((await api('GET', '/bundles/web/parts')).json().items), [true, false]);
});

test('a cloud-config that cloud-init would drop is 422 with the place, and nothing is stored', async (t) => {
  const test = await buildTestApp(t);
  const put = (body: string, query = '') => ['PUT', `/bundles/web/parts/c.cfg${query}`, body] as const;
  await refuses(test, [
    ['broken YAML', put('#cloud-config\nusers:\n- a\n b: c: d\n'), 422, 'bad_yaml'],
    ['a list', put('#cloud-config\n- a\n'), 422, 'not_a_mapping'],
    ['a broken archive', put('#cloud-config-archive\na: 1\n'), 422, 'not_a_list'],
    ['a broken patch', put('#cloud-config-jsonp\n[{]\n'), 422, 'bad_json'],
    ['with its type said', put('hello', '?type=text/cloud-config'), 422, 'not_a_mapping'],
    ['in a dry run', put('#cloud-config\na: [\n', '?dryRun=true'), 422, 'bad_yaml'],
    ['broken jinja', put('## template: jinja\n#cloud-config\n{% if %}\n'), 422, 'jinja_syntax'],
  ]);
  assert.equal(await test.store.findBundle('web'), null);
  const broken = (await test.api(...put('#cloud-config\na: 1\nPASSWORD: c: d\n'))).json();
  assert.deepEqual(
    broken.findings.map(({ message, ...rest }: { message: string }) => rest),
    [{ severity: 'error', code: 'bad_yaml', part: 'c.cfg', line: 3, column: 12 }],
  );
  assert.match(broken.detail, /^c\.cfg: .*line 3, column 12/);
  assert.doesNotMatch(JSON.stringify(broken), /PASSWORD/);
  const empty = await test.api(...put('#cloud-config\n# later\n'));
  assert.deepEqual([empty.statusCode, empty.json().findings[0].code], [201, 'empty_config'], 'a warning keeps nobody');
  const template = await test.api(
    'PUT',
    '/bundles/web/parts/j.cfg',
    '## template: jinja\n#cloud-config\na: {{ v1.x }}\n{% if v1.y %}\nb: [\n{% endif %}\n',
  );
  assert.deepEqual([template.statusCode, template.json().findings], [201, []]);
});

test('of an upload with several parts the error says which, whatever form it came in', async (t) => {
  const test = await buildTestApp(t);
  const form = (name: string, content: string) =>
    `--x\r\nContent-Disposition: form-data; name="part"; filename="${name}"\r\nContent-Type: application/octet-stream\r\n\r\n${content}\r\n`;
  const mime = (name: string, content: string) =>
    `--x\nContent-Type: text/plain\nContent-Disposition: attachment; filename="${name}"\n\n${content}\n`;
  for (const [what, bad, code] of [
    ['nobody knows', 'what is this', 'unrecognised_part'],
    ['its line breaks are lost', '#!/bin/shecho hello', 'newlines_lost'],
    ['a byte order mark', '\ufeff#cloud-config\n', 'bom'],
    ['broken YAML', '#cloud-config\na: [\n', 'bad_yaml'],
    ['a broken manifest', 'apiVersion: v1\nkind: Pod\nmetadata: [\n', 'bad_yaml'],
  ] as const) {
    const files = { 'a.sh': SH, bad, 'z.sh': SH };
    const contents = Object.entries(files);
    const forms = [
      ['tar', await tar(files), TAR],
      [
        'form',
        `${contents.map((file) => form(...file)).join('')}--x--\r\n`,
        { 'content-type': 'multipart/form-data; boundary=x' },
      ],
      ['JSON', { parts: contents.map(([filename, content]) => ({ filename, content })) }, {}],
      ['MIME', `${contents.map((file) => mime(...file)).join('')}--x--\n`, { 'content-type': 'multipart/mixed; boundary=x' }],
    ] as const;
    for (const [name, body, headers] of forms)
      for (const method of ['PUT', 'POST'] as const) {
        // Without a charset 8bit text of a MIME archive is another text.
        if (name === 'MIME' && code === 'bom') continue;
        const answer = await test.api(method, '/bundles/web', body, headers);
        assert.deepEqual([answer.statusCode, answer.json().code], [422, code], `${what}, ${name}: ${answer.body}`);
        assert.match(answer.json().detail, /^bad: (?!bad: )/, `${what}, ${name}`);
      }
  }
  assert.equal(await test.store.findBundle('web'), null);
});

test('MIME import: what is typed a script and begins like a cloud-config is one, as cloud-init takes it', async (t) => {
  const { api } = await buildTestApp(t);
  const archive = [
    ['text/x-shellscript', 'a.cfg', CONFIG],
    ['text/x-shellscript', 'b.sh', SH],
    ['text/x-shellscript', 'c', 'echo no mark\n'],
    ['text/x-shellscript-per-boot', 'd', SH],
    ['text/x-shellscript', 'e', '\n  #part-handler\ndef list_types():\n    return []\ndef handle_part(*args):\n    pass\n'],
  ]
    .map(([type, name, body]) => `--x\nContent-Type: ${type}\nContent-Disposition: attachment; filename="${name}"\n\n${body}\n`)
    .join('');
  const answer = await api('PUT', '/bundles/web', `${archive}--x--\n`, { 'content-type': 'multipart/mixed; boundary=x' });
  assert.equal(answer.statusCode, 201, answer.body);
  assert.deepEqual(
    answer.json().parts.map(({ filename, type, typeSaid }: Record<string, unknown>) => [filename, type, typeSaid]),
    [
      ['a.cfg', 'text/cloud-config', false],
      ['b.sh', 'text/x-shellscript', false],
      ['c', 'text/x-shellscript', true],
      ['d', 'text/x-shellscript-per-boot', true],
      ['e', 'text/part-handler', false],
    ],
  );
});

test('conditions hold on every write that takes them', async (t) => {
  const test = await buildTestApp(t);
  const { api } = test;
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  const bundle = String((await api('GET', '/bundles/web')).headers.etag);
  const part = String((await api('GET', '/bundles/web/parts/a.sh')).headers.etag);
  const parts = [{ filename: 'a.sh', content: `${SH}# 1\n` }];
  const writes = [
    ['PUT', '/bundles/web/parts/a.sh', `${SH}# 1\n`, part],
    ['DELETE', '/bundles/web/parts/a.sh', undefined, part],
    ['PUT', '/bundles/web', { parts }, bundle],
    ['POST', '/bundles/web', { parts }, bundle],
    ['DELETE', '/bundles/web', undefined, bundle],
  ] as const;
  await refuses(
    test,
    writes.flatMap(([method, url, body, tag]) => [
      [`${method} ${url} if it is another`, [method, url, body, { 'if-match': '"x"' }], 412, 'etag_mismatch'] as const,
      [`${method} ${url} if weak`, [method, url, body, { 'if-match': `W/${tag}` }], 412, 'etag_mismatch'] as const,
      [`${method} ${url} if it is not there`, [method, url, body, { 'if-none-match': '*' }], 412, 'exists'] as const,
      [`${method} ${url} if it is not this`, [method, url, body, { 'if-none-match': tag }], 412, 'exists'] as const,
    ]),
  );
  await refuses(test, [
    ['a new part if it is there', ['PUT', '/bundles/web/parts/b.sh', SH, { 'if-match': '*' }], 412, 'etag_mismatch'],
    ['a new bundle if it is there', ['PUT', '/bundles/new', { parts }, { 'if-match': '*' }], 412, 'etag_mismatch'],
  ]);
  await api('PUT', '/bundles/web/tags/stable', { revision: 1 });
  await refuses(
    test,
    [{ 'if-match': '*' }, { 'if-match': bundle }, { 'if-none-match': '*' }].flatMap((condition) => [
      ['to set a tag', ['PUT', '/bundles/web/tags/stable', { revision: 1 }, condition], 400, 'no_conditions'] as const,
      ['to delete a tag', ['DELETE', '/bundles/web/tags/stable', undefined, condition], 400, 'no_conditions'] as const,
    ]),
  );
  for (const [method, url, body] of writes) {
    const current = String((await api('GET', url)).headers.etag);
    for (const tag of [`"x", ${current}`, current.replaceAll('"', ''), '*']) {
      const answer = await api(method, `${url}?dryRun=true`, body, { 'if-match': tag });
      assert.ok(answer.statusCode < 300, `${method} ${url} ${tag}: ${answer.body}`);
    }
    assert.ok((await api(method, url, body, { 'if-match': current })).statusCode < 300, `${method} ${url}`);
    if (method === 'DELETE') await api('PUT', '/bundles/web/parts/a.sh', SH);
  }
  assert.equal((await api('PUT', '/bundles/newer', { parts }, { 'if-none-match': '*' })).statusCode, 201);
});

test('of two writers who saw the same, one wins; without a condition both writes are kept', async (t) => {
  const { api } = await buildTestApp(t);
  const created = await Promise.all(
    [1, 2, 3].map((n) => api('PUT', '/bundles/web/parts/a.sh', `${SH}# ${n}\n`, { 'if-none-match': '*' })),
  );
  assert.deepEqual(created.map(({ statusCode }) => statusCode).sort(), [201, 412, 412]);
  const etag = String((await api('GET', '/bundles/web/parts/a.sh')).headers.etag);
  const changed = await Promise.all(
    [4, 5, 6].map((n) => api('PUT', '/bundles/web/parts/a.sh', `${SH}# ${n}\n`, { 'if-match': etag })),
  );
  assert.deepEqual(changed.map(({ statusCode }) => statusCode).sort(), [200, 412, 412]);
  const names = Array.from({ length: 12 }, (_, n) => `p${String(n).padStart(2, '0')}`);
  await Promise.all(names.map((name) => api('PUT', `/bundles/many/parts/${name}`, SH)));
  const { parts, revision } = (await api('GET', '/bundles/many')).json();
  assert.deepEqual([parts.map(({ filename }: { filename: string }) => filename), revision], [names, 12]);
});

test('a part that cannot be is refused, and nothing changes', async (t) => {
  const test = await buildTestApp(t);
  await test.api('PUT', '/bundles/web/parts/a.sh', SH);
  const put = (name: string, body: string | Buffer = SH, headers: Record<string, string> = {}) =>
    ['PUT', `/bundles/${name}`, body, headers] as const;
  await refuses(test, [
    ...['/', '%2e%2ex', '%25', '%0d%0a', '%22', ';', 'A', 'ü', '-', '%00', 'a'.repeat(64), 'a'.repeat(200)].map(
      (name) => [`bundle ${name}`, put(`${encodeURIComponent(decodeURIComponent(name))}/parts/a.sh`), 400, 'bad_name'] as const,
    ),
    ...['a/b', '..x', '%', 'a\r\nb', 'a"b', 'a;b', '.a', 'ü.sh', '-a', 'a\0', 'a b', 'a'.repeat(101), 'a'.repeat(200)].map(
      (name) => [`part ${JSON.stringify(name)}`, put(`web/parts/${encodeURIComponent(name)}`), 400, 'bad_name'] as const,
    ),
    ['a name of 10,000 characters', put(`web/parts/${'a'.repeat(10_000)}`), 400, 'bad_name'],
    ...['%00', 'a%00', '%ed%9f%bf', 'A', 'a%0a'].flatMap((name) =>
      [{ 'if-match': '*' }, { 'if-none-match': '*' }].flatMap((condition) => [
        [`a condition on a part of bundle ${name}`, put(`${name}/parts/a.sh`, SH, condition), 400, 'bad_name'] as const,
        [`a condition on bundle ${name}`, put(name, '{}', condition), 400, 'bad_name'] as const,
        [`to delete bundle ${name}`, ['DELETE', `/bundles/${name}`, undefined, condition], 400, 'bad_name'] as const,
      ]),
    ),
    ...['%00', 'a%00', '.a', 'a%20b'].map(
      (name) => [`a condition on part ${name}`, put(`web/parts/${name}`, SH, { 'if-match': '*' }), 400, 'bad_name'] as const,
    ),
    ['%zz', put('web/parts/%zz'), 400, 'bad_url'],
    ['half a UTF-8 character', put('web/parts/%c3'), 400, 'bad_url'],
    ['the name of the options', put('web/parts/bundle.yaml'), 400, 'reserved_name'],
    ['no name, no slash', put('web/parts'), 400, 'filename_missing'],
    ['no name', put('web/parts/'), 400, 'filename_missing'],
    ['a folder', put('web/parts/a/b.sh'), 404, 'unknown_url'],
    ['a double slash', put('web/parts//b.sh'), 404, 'unknown_url'],
    ['an unknown parameter', put('web/parts/b.sh?tempalte=true'), 400, 'bad_request'],
    ['a parameter twice', put('web/parts/b.sh?type=auto&type=auto'), 400, 'bad_request'],
    ['not a boolean', put('web/parts/b.sh?dryRun=perhaps'), 400, 'bad_request'],
    ['nothing', put('web/parts/b.sh', ''), 422, 'empty_part'],
    ['nothing for a part that is there', put('web/parts/a.sh', ''), 422, 'empty_part'],
    ['only white space', put('web/parts/b.sh', ' \n'), 422, 'empty_part'],
    ['too much', put('web/parts/b.sh', Buffer.alloc(4 * 1024 * 1024 + 1, 'a')), 413, 'body_too_large'],
    ['not UTF-8', put('web/parts/b.sh', Buffer.from('#!/bin/sh\n\xff', 'latin1')), 422, 'not_utf8'],
    ['a byte order mark', put('web/parts/b.cfg', '\ufeff#cloud-config\n'), 422, 'bom'],
    ['gzip', put('web/parts/b.sh', Buffer.from([0x1f, 0x8b, 8, 0])), 422, 'gzip_part'],
    ['what nobody knows', put('web/parts/b', 'hello\n'), 422, 'unrecognised_part'],
    ['line breaks lost', put('web/parts/b.sh', '#!/bin/shecho hello'), 422, 'newlines_lost'],
    ['a type that is none', put('web/parts/b.sh?type=text%2Fx%0d%0aX:%20y'), 422, 'bad_type'],
    ['a type with parameters', put('web/parts/b.sh?type=text/x-a%3Bq=1'), 422, 'bad_type'],
    ['a type against the first line', put('web/parts/b.sh?type=text/cloud-config'), 422, 'type_mismatch'],
    ['a merge rule that is none', put('web/parts/b.cfg?merge=a%0d%0aX:y', CONFIG), 422, 'bad_merge'],
    ['a merge rule in a header that is none', put('web/parts/b.cfg', CONFIG, { 'merge-type': 'list(";)' }), 422, 'bad_merge'],
    ['a broken template', put('web/parts/b.sh?template=true', `${SH}{% if %}\n`), 422, 'bad_template'],
    ['a message of two lines', put('web/parts/b.sh?message=a%0ab'), 400, 'bad_message'],
    ['a message of 501 characters', put(`web/parts/b.sh?message=${'a'.repeat(501)}`), 400, 'bad_request'],
    ['consent by a name that is none', put('web/parts/b.sh?accept=vm,V%20M'), 400, 'bad_name'],
    ['consent that is no boolean', put('web/parts/b.sh?force=perhaps'), 400, 'bad_request'],
    ['a resumed upload', put('web/parts/b.sh', SH, { 'content-range': 'bytes 1-20/21' }), 400, 'content_range'],
    ['a Content-Type that is none', put('web/parts/b.sh', SH, { 'content-type': 'nonsense' }), 415, 'bad_content_type'],
    ['a part of no bundle', ['DELETE', '/bundles/none/parts/a.sh'], 404, 'unknown_bundle'],
    ['no such part', ['DELETE', '/bundles/web/parts/none'], 404, 'unknown_part'],
    ['no such part to get', ['GET', '/bundles/web/parts/none'], 404, 'unknown_part'],
    ['no such bundle to get', ['GET', '/bundles/none'], 404, 'unknown_bundle'],
    ['no such bundle to list', ['GET', '/bundles/none/parts/'], 404, 'unknown_bundle'],
    ['no such bundle to delete', ['DELETE', '/bundles/none'], 404, 'unknown_bundle'],
    ['no such revision', ['GET', '/bundles/web/revisions/2'], 404, 'unknown_revision'],
    ['a revision that is no number', ['GET', '/bundles/web/revisions/x'], 400, 'bad_request'],
    ['revision 0', ['GET', '/bundles/web/revisions/0'], 400, 'bad_request'],
    ['a huge revision', ['GET', '/bundles/web/revisions/99999999999999999999'], 400, 'bad_request'],
    ['a limit of 0', ['GET', '/bundles?limit=0'], 400, 'bad_request'],
    ['a limit of 1001', ['GET', '/bundles?limit=1001'], 400, 'bad_request'],
    ['a limit that is no number', ['GET', '/bundles?limit='], 400, 'bad_request'],
    ['an unknown format', ['GET', '/bundles?format=xml'], 400, 'bad_request'],
    ['an unknown parameter of a list', ['GET', '/bundles?nope=1'], 400, 'bad_request'],
    ['a parameter where there is none', ['GET', '/bundles/web/parts/a.sh?x=1'], 400, 'bad_request'],
    ['a tag of a bad name', ['PUT', '/bundles/web/tags/A', { revision: 1 }], 400, 'bad_name'],
    ['a tag that is a number', ['PUT', '/bundles/web/tags/3', { revision: 1 }], 400, 'bad_name'],
    ['a tag of no revision', ['PUT', '/bundles/web/tags/stable', { revision: 9 }], 404, 'unknown_revision'],
    ['a tag of no bundle', ['PUT', '/bundles/none/tags/stable', { revision: 1 }], 404, 'unknown_bundle'],
    ['a tag of nothing', ['PUT', '/bundles/web/tags/stable', {}], 400, 'bad_request'],
    ['a tag with more', ['PUT', '/bundles/web/tags/stable', { revision: 1, x: 1 }], 400, 'bad_request'],
    ['a tag of text', ['PUT', '/bundles/web/tags/stable', { revision: '1' }], 400, 'bad_request'],
    ['a tag of much', ['PUT', '/bundles/web/tags/stable', ' '.repeat(65 * 1024)], 413, 'body_too_large'],
    ['a tag without a body', ['PUT', '/bundles/web/tags/stable'], 400, 'empty_body'],
    [
      'a tag as XML',
      ['PUT', '/bundles/web/tags/stable', '<a/>', { 'content-type': 'application/xml' }],
      415,
      'bad_content_type',
    ],
    ['no such tag', ['DELETE', '/bundles/web/tags/stable'], 404, 'unknown_tag'],
    ['a method there is none of', ['PATCH', '/bundles/web', {}], 404, 'unknown_url'],
  ]);
});

test('a whole bundle that cannot be is refused, and nothing changes', async (t) => {
  const test = await buildTestApp(t);
  await test.api('PUT', '/bundles/web/parts/a.sh', SH);
  const many = Object.fromEntries(Array.from({ length: 257 }, (_, n) => [`p${n}`, SH]));
  const big = `#!/bin/sh\n${'#'.repeat(4 * 1024 * 1024 - 10)}`;
  const part = { filename: 'a.sh', content: SH };
  const rows = [
    ['a raw body', SH, {}, 415, 'bad_content_type'],
    ['a raw body of octets', SH, { 'content-type': 'application/octet-stream' }, 415, 'bad_content_type'],
    ['nothing', '', {}, 415, 'bad_content_type'],
    ['no parts', { parts: [] }, {}, 422, 'empty_bundle'],
    ['no list of parts', {}, {}, 400, 'bad_field'],
    ['a list', [part], {}, 400, 'bad_field'],
    ['an unknown field', { parts: [part], extra: 1 }, {}, 400, 'unknown_field'],
    ['an unknown field of a part', { parts: [{ ...part, extra: 1 }] }, {}, 400, 'unknown_field'],
    ['a wrong type', { parts: [{ filename: 1, content: SH }] }, {}, 400, 'bad_field'],
    ['a part without content', { parts: [{ filename: 'a.sh' }] }, {}, 400, 'bad_field'],
    ['a bad name', { parts: [{ filename: '../a', content: SH }] }, {}, 400, 'bad_name'],
    ['a name twice', { parts: [part, part] }, {}, 422, 'duplicate_part'],
    ['broken JSON', '{"parts": [', {}, 400, 'bad_json'],
    ['broken YAML', 'parts: [', YAML, 400, 'bad_yaml'],
    ['a YAML alias to nothing', 'parts: *secret', YAML, 400, 'bad_yaml'],
    ['a broken tar', 'x'.repeat(600), TAR, 400, 'bad_tar'],
    ['an empty tar', await tar({}), TAR, 422, 'empty_bundle'],
    ['a folder in a tar', await tar({ 'd/a.sh': SH }), TAR, 422, 'tar_entry'],
    ['257 parts', await tar(many), TAR, 413, 'too_many_parts'],
    ['a part past 4 MiB', await tar({ 'a.sh': `${big}#` }), TAR, 413, 'part_too_large'],
    ['11 MiB and some', await tar(Object.fromEntries([1, 2, 3].map((n) => [`${n}.sh`, big]))), TAR, 413, 'bundle_too_large'],
    ['vars past 64 KiB', { parts: [part], vars: { a: 'x'.repeat(64 * 1024) } }, {}, 413, 'vars_too_large'],
    ['vars past 64 KiB in UTF-8', { parts: [part], vars: { a: '✓'.repeat(22_000) } }, {}, 413, 'vars_too_large'],
    ['more than the URL takes', Buffer.alloc(24 * 1024 * 1024 + 1), TAR, 413, 'body_too_large'],
    ['a broken form', '--y--', { 'content-type': 'multipart/form-data; boundary=x' }, 400, 'bad_form'],
    ['a form without a boundary', 'x', { 'content-type': 'multipart/form-data' }, 400, 'bad_form'],
    ['a broken MIME archive', 'x', { 'content-type': 'multipart/mixed; boundary=x' }, 400, 'bad_mime'],
    ['gzip', Buffer.from([0x1f, 0x8b, 8, 0]), TAR, 415, 'gzip_body'],
    ['a Content-Type that is none', SH, { 'content-type': '\u00a0' }, 415, 'bad_content_type'],
  ] as const;
  await refuses(
    test,
    rows.flatMap(([what, body, headers, status, code]) => [
      [`PUT ${what}`, ['PUT', '/bundles/web', body, headers], status, code] as const,
      [`POST ${what}`, ['POST', '/bundles/web', body, headers], status, code] as const,
    ]),
  );
});

test('a bundle may have 11 MiB of parts and 64 KiB of vars: so much, and a byte less than too much', async (t) => {
  const test = await buildTestApp(t);
  const { bundleBytes, varsBytes, partBytes } = LIMITS;
  const script = (bytes: number) => `#!/bin/sh\n${'#'.repeat(bytes - 10)}`;
  const sizes = [partBytes, partBytes, bundleBytes - 2 * partBytes];
  const upload = (more: number) =>
    tar(Object.fromEntries(sizes.map((size, index) => [`${index}.sh`, script(size + (index === 2 ? more : 0))])));
  assert.equal((await test.api('PUT', '/bundles/big', await upload(1), TAR)).json().code, 'bundle_too_large');
  assert.equal((await test.api('PUT', '/bundles/big', await upload(0), TAR)).statusCode, 201);
  await refuses(test, [['one more part', ['PUT', '/bundles/big/parts/x.sh', SH], 413, 'bundle_too_large']]);

  const vars = (length: number) => ({ parts: [{ filename: 'a.sh', content: SH }], vars: { a: 'x'.repeat(length) } });
  const fits = varsBytes - '{"a":""}'.length;
  assert.equal((await test.api('PUT', '/bundles/vars', vars(fits + 1))).json().code, 'vars_too_large');
  assert.equal((await test.api('PUT', '/bundles/vars', vars(fits))).statusCode, 201);
});

test('an error names its part, also one whose name begins the sentence', async (t) => {
  const { api } = await buildTestApp(t);
  const gzip = Buffer.from([0x1f, 0x8b, 8, 0]).toString('base64');
  const answer = await api('PUT', '/bundles/web', {
    parts: [
      { filename: 'ok.sh', content: SH },
      { filename: 'a', contentBase64: gzip },
    ],
  });
  assert.equal(answer.statusCode, 422);
  assert.match(answer.json().detail, /^a: a part cannot be gzip/);
});

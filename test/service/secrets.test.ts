import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Store } from '../../src/domain/store.ts';
import { parseMime } from '../../src/inspect/mime.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { resealSecrets } from '../../src/service/secrets.ts';
import { openStore } from '../../src/store/open.ts';
import { ANN } from '../actor.ts';
import { buildTestApp, refuses, type TestApp } from '../app.ts';

const VALUE = 'hunter2-the-one-and-only';
const CONFIG = '#cloud-config\nwrite_files:\n  - path: /etc/token\n    content: {{ secrets.token | yaml }}\n';

/** A machine whose document holds its bundle's secret. */
async function fleet(t: TestContext, overrides: Parameters<typeof buildTestApp>[1] = {}) {
  const app = await buildTestApp(t, overrides);
  await app.api('PUT', '/bundles/web/parts/base.yaml?template=true', CONFIG);
  await app.api('PUT', '/bundles/web/secrets/token', VALUE);
  await app.api('PUT', '/instances/vm', { bundles: ['web'] });
  return app;
}

/** The text of the first part of what a machine would fetch. */
async function fetched({ api, boot }: TestApp, name = 'vm'): Promise<string> {
  const { url } = (await api('GET', `/instances/${name}`)).json().status.stub;
  const [part] = parseMime((await boot(new URL(url).pathname)).rawPayload).children;
  return Buffer.from(part?.body() ?? []).toString();
}

test('a secret gets into the document, and an instance’s own goes over its bundle’s', async (t) => {
  const app = await fleet(t);
  assert.match(await fetched(app), /content: ['"]?hunter2-the-one-and-only['"]?\n$/);
  await app.api('PUT', '/instances/vm/secrets/token', 'its-own');
  assert.match(await fetched(app), /content: ['"]?its-own['"]?\n$/);
  await app.api('DELETE', '/instances/vm/secrets/token');
  assert.match(await fetched(app), /hunter2/);
});

test('no answer, log line or database row holds a secret', async (t) => {
  const store = await openStore({ file: ':memory:' });
  const app = await fleet(t, { store });
  await app.api('PUT', '/instances/vm/secrets/own', VALUE);
  const answers = await Promise.all(
    [
      '/bundles/web',
      '/bundles/web/secrets',
      '/bundles/web/parts/base.yaml',
      '/bundles/web/revisions',
      '/instances/vm',
      '/instances/vm/secrets',
      '/instances/vm/preview',
      '/instances/vm/explain',
      '/instances/vm/user-data',
      '/instances/vm/timeline',
    ].map((url) => app.api('GET', url)),
  );
  for (const { body } of answers) {
    assert.doesNotMatch(body, /hunter2/);
    assert.ok(!body.includes(Buffer.from(VALUE).toString('base64').slice(0, 20)));
  }
  assert.doesNotMatch(app.log(), /hunter2/);
  const [secrets] = await store.findSecrets([{ kind: 'bundle', name: 'web' }]);
  assert.ok(secrets?.every(({ sealed }) => !Buffer.from(sealed).includes('hunter2')));
});

test('a secret that is spoilt by what it does to a document is not quoted by the refusal', async (t) => {
  const app = await fleet(t);
  await app.api('PUT', '/bundles/web/parts/base.yaml', CONFIG.replace(' | yaml', ''));
  for (const value of ['"hunter2: [', 'x\nhunter2_key: [1', '{hunter2: 1}', 'a: hunter2: b']) {
    const refused = await app.api('PUT', '/instances/vm/secrets/token', value);
    assert.ok([200, 201, 422].includes(refused.statusCode));
    assert.doesNotMatch(refused.body, /hunter2/);
  }
  assert.doesNotMatch(app.log(), /hunter2/);
});

test('what is said of the document as a whole quotes no secret either', async (t) => {
  const app = await buildTestApp(t);
  const apt = (value: string) => `#cloud-config\napt: {sources: { {{ secrets.k }}: ${value} } }\n`;
  await app.api('PUT', '/bundles/web/parts/a.yaml?template=true', apt('{source: a}'));
  await app.api('PUT', '/bundles/web/parts/b.yaml?template=true', apt('[a]'));
  const answer = await app.api('PUT', '/instances/vm', { bundles: ['web'], secrets: { k: 'hunter2' } });
  assert.deepEqual(
    [answer.statusCode, answer.json().status.findings.some(({ code }: { code: string }) => code === 'merge_clash')],
    [201, true],
  );
  assert.doesNotMatch(answer.body, /hunter2/);
});

test('its bytes are kept as they were sent, and the answer tells what a person may have got wrong', async (t) => {
  const app = await fleet(t);
  const said = (await app.api('PUT', '/instances/vm/secrets/token', 'with a newline\n')).json();
  assert.deepEqual([said.bytes, said.endsWithNewline, said.changed], [15, true, true]);
  const same = (await app.api('PUT', '/instances/vm/secrets/token', 'with a newline\n')).json();
  assert.equal(same.changed, false);
  await app.api('PUT', '/bundles/web/parts/base.yaml', CONFIG.replace('| yaml', '| base64'));
  const bytes = Buffer.from([0, 255, 10]);
  assert.equal((await app.api('PUT', '/instances/vm/secrets/token', bytes)).statusCode, 200);
  assert.match(await fetched(app), /content: AP8K\n$/);
});

test('a generated secret has as many random bytes as were asked for, and is seen by nobody', async (t) => {
  const app = await fleet(t);
  const said = await app.api('POST', '/instances/vm/secrets/token/generate?bytes=32');
  assert.deepEqual([said.statusCode, said.json().bytes], [201, 43]);
  const first = await fetched(app);
  const [value = ''] = /[\w-]{43}/.exec(first) ?? [];
  assert.ok(value && !said.body.includes(value));
  await app.api('POST', '/instances/vm/secrets/token/generate?bytes=32');
  assert.notEqual(await fetched(app), first);
});

test('what cannot be a secret is refused', async (t) => {
  const app = await fleet(t);
  await refuses(app, [
    ['a name with a control character', ['PUT', '/instances/vm/secrets/a%07b', 'x'], 422, 'bad_secret_name'],
    ['a prototype’s name', ['PUT', '/instances/vm/secrets/__proto__', 'x'], 422, 'bad_secret_name'],
    ['nothing', ['PUT', '/instances/vm/secrets/token', ''], 422, 'empty_secret'],
    ['too much', ['PUT', '/instances/vm/secrets/token', 'x'.repeat(65_537)], 413, 'body_too_large'],
    ['no such machine', ['PUT', '/instances/nobody/secrets/token', 'x'], 404, 'unknown_instance'],
    ['no such bundle', ['PUT', '/bundles/nothing/secrets/token', 'x'], 404, 'unknown_bundle'],
    ['no such secret', ['DELETE', '/instances/vm/secrets/nothing'], 404, 'unknown_secret'],
  ]);
});

test('a value with control characters goes in as it is, where its place takes it', async (t) => {
  const app = await fleet(t);
  assert.equal((await app.api('PUT', '/instances/vm/secrets/token', '\x1b[2J\r\n\x07')).statusCode, 201);
  assert.match(await fetched(app), /content: "\\e\[2J\\r\\n\\a"\n$|content: "\\x1[bB]\[2J\\r\\n\\[ax]/);
});

test('secrets are sealed anew under another key, and nothing else changes', async (t) => {
  const old = Buffer.alloc(32, 1);
  const next = Buffer.alloc(32, 2);
  const store: Store = await openStore({ file: ':memory:' });
  const app = await fleet(t, { store });
  await app.api('PUT', '/instances/vm/secrets/own', VALUE);
  const before = (await app.api('GET', '/instances/vm')).json();
  const ring = createKeyRing([next, old]);
  assert.deepEqual(await resealSecrets(store, ring, { at: 1, by: ANN }), { resealed: 2, already: 0, unreadable: 0 });
  assert.deepEqual(await resealSecrets(store, ring, { at: 1, by: ANN }), { resealed: 0, already: 2, unreadable: 0 });
  const owner = { kind: 'bundle' as const, name: 'web' };
  const [[secret] = []] = await store.findSecrets([owner]);
  const only = createKeyRing([next]);
  assert.equal(Buffer.from(only.openSecret(owner, 'token', secret?.sealed ?? new Uint8Array())).toString(), VALUE);
  assert.throws(() => createKeyRing([old]).openSecret(owner, 'token', secret?.sealed ?? new Uint8Array()), {
    code: 'secret_unreadable',
  });
  assert.equal((await store.findInstance('vm'))?.version, before.status.version);
});

test('secrets are of no use to another machine, and go with their owner', async (t) => {
  const app = await fleet(t);
  await app.api('PUT', '/instances/vm/secrets/token', VALUE);
  await app.api('DELETE', '/instances/vm');
  await app.api('PUT', '/instances/vm', { bundles: ['web'] });
  assert.deepEqual((await app.api('GET', '/instances/vm/secrets')).json().items, []);
});

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Finding } from '../../src/domain/finding.ts';
import type { Store } from '../../src/domain/store.ts';
import { openStore } from '../../src/store/open.ts';
import { buildTestApp, refuses } from '../app.ts';

const SH = '#!/bin/sh\n';
const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers: [{name: x, image: x}]\n';
const HANDLER = '#part-handler\ndef list_types():\n    return ["text/x-kube-pod"]\ndef handle_part(*args):\n    pass\n';

/** `waiting` and `booted` have a pod and its handler from two bundles; `waiting` was never fetched; the others' windows are shut. */
async function fleet(t: TestContext) {
  const app = await buildTestApp(t);
  const path = await app.register('booted', { 'h/handler.py': HANDLER, 'web/a.sh': SH });
  await app.boot(path);
  await app.register('waiting', { 'h/handler.py': HANDLER, 'web/a.sh': SH });
  await app.register('plain', { 'web/a.sh': SH });
  await app.boot(new URL((await app.api('GET', '/instances/plain')).json().status.stub.url).pathname);
  for (const name of ['booted', 'plain']) await app.api('POST', `/instances/${name}/close`);
  return app;
}

test('a change that would break a machine that has still to boot is refused, by every way in, and says which and why', async (t) => {
  const app = await fleet(t);
  assert.equal((await app.api('PUT', '/bundles/web/parts/db.pod', POD)).statusCode, 201);
  await app.api('PUT', '/bundles/other/parts/a.sh', SH);
  await refuses(app, [
    ['a part that is needed', ['DELETE', '/bundles/h/parts/handler.py'], 409, 'would_break'],
    ['another handler', ['PUT', '/bundles/h/parts/handler.py', HANDLER.replace('pod', 'service')], 409, 'would_break'],
    ['the whole bundle', ['PUT', '/bundles/h', { parts: [{ filename: 'b.sh', content: SH }] }], 409, 'would_break'],
    ['a dry run', ['DELETE', '/bundles/h/parts/handler.py?dryRun=true'], 409, 'would_break'],
  ]);
  const { detail, findings } = (await app.api('DELETE', '/bundles/h/parts/handler.py')).json();
  assert.match(detail, /^waiting has still to boot and would break: web@2\/db\.pod: .*text\/x-kube-pod/);
  assert.deepEqual(
    findings.map(({ code }: { code: string }) => code),
    ['unhandled_part'],
  );
});

test('for machines that booted already it is a warning', async (t) => {
  const app = await fleet(t);
  await app.api('DELETE', '/instances/waiting');
  // `plain` has no handler; it and `booted` have both been fetched.
  const answer = await app.api('PUT', '/bundles/web/parts/db.pod', POD);
  assert.equal(answer.statusCode, 201);
  const [finding, ...more] = answer.json().findings;
  assert.deepEqual([finding.severity, finding.code, more], ['warning', 'would_break', []]);
  assert.match(finding.message, /^plain booted already and would break when rebuilt: web@2\/db\.pod: /);
});

test('a machine that booted has still to boot for as long as its window is open', async (t) => {
  const app = await fleet(t);
  await app.api('DELETE', '/instances/waiting');
  const remove = ['DELETE', '/bundles/h/parts/handler.py'] as const;
  await app.api('PUT', '/bundles/web/parts/db.pod?accept=plain', POD);
  await app.api('PATCH', '/instances/booted', { policy: { closeAfter: '1h' } });
  await app.api('POST', '/instances/booted/reopen');
  await refuses(app, [['never delivered since it was opened', [...remove], 409, 'would_break']]);
  await app.boot(new URL((await app.api('GET', '/instances/booted')).json().status.stub.url).pathname);
  await refuses(app, [['delivered, and open for another hour', [...remove], 409, 'would_break']]);
  app.tick(60 * 60_000);
  assert.equal((await app.api(...remove)).statusCode, 200);
});

test('what is broken already does not hold up a change that does not break more', async (t) => {
  const app = await fleet(t);
  await app.api('DELETE', '/instances/waiting');
  await app.api('PUT', '/bundles/web/parts/db.pod', POD);
  const answer = await app.api('PUT', '/bundles/web/parts/a.sh', `${SH}date\n`);
  assert.deepEqual([answer.statusCode, answer.json().findings], [200, []]);
});

test('a tag is held to it for those who follow it, and pinned machines are nobody’s followers', async (t) => {
  const app = await buildTestApp(t);
  const { api } = app;
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  await api('PUT', '/bundles/web/tags/stable', { revision: 1 });
  await api('PUT', '/instances/tagged', { bundles: ['web@stable'] });
  await api('PUT', '/instances/pinned', { bundles: ['web@1'] });
  const published = await api('PUT', '/bundles/web/parts/db.pod', POD);
  assert.deepEqual([published.statusCode, published.json().findings], [201, []]);
  await refuses(app, [
    ['the tag', ['PUT', '/bundles/web/tags/stable', { revision: 2 }], 409, 'would_break'],
    ['a revision that is not there', ['PUT', '/bundles/web/tags/stable', { revision: 9 }], 404, 'unknown_revision'],
  ]);
  assert.equal((await api('PUT', '/bundles/web/tags/new', { revision: 2 })).statusCode, 201);
});

test('many machines are named by a few and counted', async (t) => {
  const { api } = await buildTestApp(t);
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  await api(
    'PUT',
    '/instances',
    Array.from({ length: 1200 }, (_, n) => ({ name: `n${String(n).padStart(4, '0')}`, bundles: ['web'] })),
  );
  const { code, detail } = (await api('PUT', '/bundles/web/parts/db.pod', POD)).json();
  assert.equal(code, 'would_break');
  assert.match(detail, /^n0000, n0001, n0002, n0003, n0004 and 1195 more have still to boot/);
});

test('a machine whose vars.kube make its document too large is looked at by itself', async (t) => {
  const app = await buildTestApp(t);
  const { api } = app;
  const handler = HANDLER.replace('"text/x-kube-pod"', '"text/x-blob", "text/x-bootbundle-config"');
  await api('PUT', '/bundles/blobs/parts/handler.py', handler);
  const blob = (mebibytes: number) => `${'x'.repeat(63)}\n`.repeat(mebibytes * 16_384);
  for (const name of ['a', 'b']) await api('PUT', `/bundles/blobs/parts/${name}?type=text/x-blob`, blob(4));
  for (const name of ['a', 'b', 'c']) await api('PUT', `/bundles/web/parts/${name}?type=text/x-blob`, blob(2.25));
  const kube = { enable: Array.from({ length: 8000 }, (_, n) => `${'u'.repeat(50)}-${n}`) };
  for (const [name, vars] of Object.entries({ 'vm-1': {}, 'vm-2': { kube }, 'vm-3': {} }))
    assert.equal((await api('PUT', `/instances/${name}`, { bundles: ['blobs', 'web'], vars })).statusCode, 201);
  const url = '/bundles/web/parts/d?type=text/x-blob';
  const refused = await api('PUT', url, blob(1));
  assert.deepEqual([refused.statusCode, refused.json().code], [409, 'would_break'], refused.body.slice(0, 500));
  assert.match(refused.json().detail, /^vm-2 has still to boot and would break: the document would have \d+ bytes/);
});

const TEMPLATE = '#cloud-config\nhostname: {{ instance.name }}\nusers:\n  - name: {{ vars.user }}\n';

/** `a` and `b` have a user each, `c` has none of the vars; `b` has booted, and its window is shut. All follow `web`. */
async function templated(t: TestContext, overrides: Parameters<typeof buildTestApp>[1] = {}) {
  const app = await buildTestApp(t, overrides);
  await app.api('PUT', '/bundles/web/parts/base.yaml', '#cloud-config\npackages: [jq]\n');
  for (const [name, vars] of Object.entries({ a: { user: 'ann' }, b: { user: 'bob' }, c: {} }))
    await app.api('PUT', `/instances/${name}`, { bundles: ['web'], vars });
  await app.boot(new URL((await app.api('GET', '/instances/b')).json().status.stub.url).pathname);
  await app.api('POST', '/instances/b/close');
  return app;
}

test('each machine is rendered with its own values: only the one that lacks a var is named', async (t) => {
  const app = await templated(t);
  const url = '/bundles/web/parts/base.yaml?template=true';
  await refuses(app, [['a var that is not there', ['PUT', url, TEMPLATE], 409, 'would_break']]);
  const { detail, findings } = (await app.api('PUT', url, TEMPLATE)).json();
  assert.match(detail, /^c has still to boot and would break: web@2\/base\.yaml: line 4: .*vars\.user/);
  assert.deepEqual(
    findings.map(({ code, part, line, column }: Finding) => [code, part, line, column]),
    [['unknown_variable', 'web@2/base.yaml', 4, 14]],
  );
});

test('what is named in accept may break, force lets all break, and both say what they broke', async (t) => {
  const app = await templated(t);
  const url = '/bundles/web/parts/base.yaml?template=true';
  await refuses(app, [['another one is accepted', ['PUT', `${url}&accept=a,b`, TEMPLATE], 409, 'would_break']]);
  const trial = (await app.api('PUT', `${url}&accept=c&dryRun=true`, TEMPLATE)).json();
  const accepted = (await app.api('PUT', `${url}&accept=a,c`, TEMPLATE)).json();
  for (const { findings } of [trial, accepted]) {
    assert.equal(findings[0].severity, 'warning');
    assert.match(findings[0].message, /^c breaks, as accepted: web@2\/base\.yaml: line 4: /);
  }
  assert.equal(accepted.revision, 2);
  const missing = TEMPLATE.replace('vars.user', 'vars.nobody');
  await refuses(app, [['now a breaks', ['PUT', url, missing], 409, 'would_break']]);
  const forced = (await app.api('PUT', `${url}&force=true`, missing)).json();
  assert.deepEqual(
    forced.findings.map(({ message }: Finding) => message.split(':')[0]),
    ['a breaks, as accepted', 'b booted already and would break when rebuilt'],
  );
});

test('a bundle’s secret that documents need cannot be removed, and one that spoils them cannot be set', async (t) => {
  const app = await buildTestApp(t);
  await app.api('PUT', '/bundles/web/parts/base.yaml?template=true', TEMPLATE.replace('vars.user', 'secrets.user'));
  await app.api('PUT', '/bundles/web/secrets/user', 'ann');
  await app.api('PUT', '/instances/a', { bundles: ['web'] });
  await app.api('PUT', '/instances/pinned', { bundles: ['web@1'] });
  await refuses(app, [
    ['removal', ['DELETE', '/bundles/web/secrets/user'], 409, 'would_break'],
    ['not YAML with it', ['PUT', '/bundles/web/secrets/user', '"hunter2: ['], 409, 'would_break'],
  ]);
  const answer = await app.api('PUT', '/bundles/web/secrets/user', '"hunter2: [');
  assert.match(answer.json().detail, /^a, pinned have still to boot/);
  assert.doesNotMatch(answer.body + app.log(), /hunter2/);
  assert.equal((await app.api('PUT', '/bundles/web/secrets/user', 'bob')).statusCode, 200);
});

test('a registration that comes between the look and the commit is looked at before anything is committed', async (t) => {
  const store = await openStore({ file: ':memory:' });
  let between: (() => Promise<unknown>) | null = null;
  let looks = 0;
  const racing: Store = {
    ...store,
    async putRevision(write) {
      looks++;
      const event = between;
      between = null;
      await event?.();
      return store.putRevision(write);
    },
  };
  const app = await templated(t, { store: racing });
  await app.api('DELETE', '/instances/c');
  const url = '/bundles/web/parts/base.yaml?template=true';

  between = () => app.api('PUT', '/instances/late', { bundles: ['web'] });
  const refused = await app.api('PUT', url, TEMPLATE);
  assert.deepEqual([refused.statusCode, refused.json().code], [409, 'would_break']);
  assert.match(refused.json().detail, /^late has still to boot/);

  await app.api('DELETE', '/instances/late');
  looks = 0;
  between = () => app.api('PUT', '/instances/fine', { bundles: ['web'], vars: { user: 'fay' } });
  assert.equal((await app.api('PUT', url, TEMPLATE)).statusCode, 200);
  assert.equal(looks, 2);
});

test('a publication that comes between the look at a registration and its commit is heeded', async (t) => {
  const store = await openStore({ file: ':memory:' });
  let between: (() => Promise<unknown>) | null = null;
  const racing: Store = {
    ...store,
    async putInstances(writes, change) {
      const event = between;
      between = null;
      await event?.();
      return store.putInstances(writes, change);
    },
  };
  const app = await templated(t, { store: racing });
  await app.api('DELETE', '/instances/c');
  between = () => app.api('PUT', '/bundles/web/parts/base.yaml?template=true', TEMPLATE);
  const answer = await app.api('PUT', '/instances/late', { bundles: ['web'] });
  assert.deepEqual([answer.statusCode, answer.json().code], [422, 'unknown_variable']);
});

test('publications run one at a time, whoever sends them', async (t) => {
  const app = await templated(t);
  await app.api('DELETE', '/instances/c');
  const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => app.api('PUT', `/bundles/web/parts/${n}.sh`, SH)));
  assert.deepEqual(
    answers.map(({ statusCode }) => statusCode),
    Array(8).fill(201),
  );
  assert.equal((await app.api('GET', '/bundles/web')).json().revision, 9);
});

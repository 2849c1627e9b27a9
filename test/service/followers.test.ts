import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { buildTestApp, refuses } from '../app.ts';

const SH = '#!/bin/sh\n';
const POD = 'apiVersion: v1\nkind: Pod\n';
const HANDLER = '#part-handler\ndef list_types():\n    return ["text/x-kube-pod"]\ndef handle_part(*args):\n    pass\n';

/** `waiting` and `booted` have a pod and its handler from two bundles; `waiting` was never fetched. */
async function fleet(t: TestContext) {
  const app = await buildTestApp(t);
  const path = await app.register('booted', { 'h/handler.py': HANDLER, 'web/a.sh': SH });
  await app.boot(path);
  await app.register('waiting', { 'h/handler.py': HANDLER, 'web/a.sh': SH });
  await app.register('plain', { 'web/a.sh': SH });
  await app.boot(new URL((await app.api('GET', '/instances/plain')).json().status.stub.url).pathname);
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

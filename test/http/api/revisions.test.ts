import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../../src/domain/limits.ts';
import { buildTestApp, refuses, snapshot, type TestApp } from '../../app.ts';

const SH = '#!/bin/sh\n';
const POD = 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - name: x\n    image: img\n';

/** The bundle `web` with the revisions 1 (a.sh), 2 (a.sh changed) and 3 (b.sh and a var more); the tag `stable` on 1. */
async function build(t: Parameters<typeof buildTestApp>[0]): Promise<TestApp> {
  const test = await buildTestApp(t);
  await test.api('PUT', '/bundles/web/parts/a.sh?message=the%20first', `${SH}one\n`);
  await test.api('PUT', '/bundles/web/tags/stable', { revision: 1 });
  await test.api('PUT', '/bundles/web/parts/a.sh', `${SH}two\n`);
  const parts = [
    { filename: 'a.sh', content: `${SH}two\n` },
    { filename: 'b.sh', content: `${SH}three\n`, type: 'text/x-shellscript-per-boot' },
  ];
  await test.api('PUT', '/bundles/web?message=more', { parts, vars: { site: 'fra1' } });
  return test;
}

test('each write may say what it is about; revisions show it, to a person too', async (t) => {
  const { api } = await build(t);
  await api('POST', '/bundles/web?message=posted', { parts: [{ filename: 'c.sh', content: SH }] });
  await api('DELETE', '/bundles/web/parts/c.sh?message=removed');
  await api('PUT', '/bundles/web/parts/d.sh?message=', SH);
  await api('PUT', `/bundles/web/parts/e.sh?message=${encodeURIComponent('ü'.repeat(LIMITS.messageLength))}`, SH);
  const { items } = (await api('GET', '/bundles/web/revisions')).json();
  const messages = items.map(({ message }: { message: string | null }) => message);
  assert.deepEqual(messages, ['ü'.repeat(500), null, 'removed', 'posted', 'more', null, 'the first']);
  assert.deepEqual(items[0].purgedAt, null);
  const text = (await api('GET', '/bundles/web/revisions?format=text')).body;
  assert.match(text, /^REVISION +CREATED +AUTHOR +PARTS +DIGEST +MESSAGE\n/);
  assert.match(text, /\n1 +2026.* the first\n$/);
});

test('restored, an earlier revision is the newest, with a number of its own', async (t) => {
  const test = await build(t);
  const { api } = test;
  const [first, newest] = await Promise.all([1, 3].map(async (n) => (await api('GET', `/bundles/web/revisions/${n}`)).json()));
  const before = await snapshot(test);
  const dry = await api('POST', '/bundles/web/revisions/1/restore?dryRun=true');
  assert.deepEqual([dry.statusCode, dry.json().revision, dry.json().changed], [200, 4, true]);
  assert.equal(await snapshot(test), before);
  const restored = await api('POST', '/bundles/web/revisions/1/restore', undefined, { 'if-match': `"${newest.digest}"` });
  assert.equal(restored.statusCode, 200, restored.body);
  assert.equal(restored.headers.etag, `"${first.digest}"`);
  const { revision, digest, parts, vars, changed, schema } = restored.json();
  assert.deepEqual([revision, digest, parts, vars, changed, schema], [4, first.digest, first.parts, {}, true, null]);
  assert.equal((await api('GET', '/bundles/web/revisions/4')).json().message, 'restores revision 1');
  assert.equal((await api('GET', '/bundles/web/parts/a.sh')).body, `${SH}one\n`);
  const again = await api('POST', '/bundles/web/revisions/1/restore', undefined, { 'content-type': 'application/json' });
  assert.deepEqual([again.statusCode, again.json().revision, again.json().changed], [200, 4, false]);
  await api('POST', '/bundles/web/revisions/3/restore?message=back%20again');
  assert.equal((await api('GET', '/bundles/web/revisions/5')).json().message, 'back again');
});

test('purged, a revision keeps its number, digest and names; its bytes are gone, but for those that others have', async (t) => {
  const { api } = await build(t);
  const before = (await api('GET', '/bundles/web/revisions/2')).json();
  const purged = await api('DELETE', '/bundles/web/revisions/2/content');
  const [part] = before.parts;
  assert.equal(purged.statusCode, 200, purged.body);
  assert.deepEqual(purged.json(), {
    bundle: 'web',
    revision: 2,
    purgedAt: '2026-01-01T00:00:00.000Z',
    kept: [{ filename: 'a.sh', sha256: part.sha256, revisions: ['web@3'] }],
  });
  const after = (await api('GET', '/bundles/web/revisions/2')).json();
  assert.deepEqual([after.digest, after.parts, after.purgedAt], [before.digest, before.parts, '2026-01-01T00:00:00.000Z']);
  assert.equal((await api('GET', '/bundles/web/parts/a.sh')).body, `${SH}two\n`);
  assert.deepEqual((await api('DELETE', '/bundles/web/revisions/2/content')).json(), purged.json(), 'twice is once');
  await api('DELETE', '/bundles/web/tags/stable');
  assert.deepEqual((await api('DELETE', '/bundles/web/revisions/1/content')).json().kept, []);
});

test('a diff of two revisions, by number or tag; without saying so the newest and the one before', async (t) => {
  const { api } = await build(t);
  const diff = async (query = '') => {
    const answer = await api('GET', `/bundles/web/diff${query}`);
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8', answer.body);
    assert.equal(answer.headers['x-content-type-options'], 'nosniff');
    return answer.body;
  };
  const newest = await diff();
  assert.match(newest, /^--- \/dev\/null.*\n\+\+\+ web@3\/b\.sh/);
  assert.match(newest, /\+three\n/);
  assert.match(newest, /\n\+site: fra1\n/);
  assert.doesNotMatch(newest, /a\.sh/);
  assert.equal(await diff('?from=2&to=3'), newest);
  assert.equal(await diff('?from=2'), newest);
  const changed = await diff('?from=stable&to=2');
  assert.match(changed, /^--- web@1\/a\.sh\n\+\+\+ web@2\/a\.sh\n/);
  assert.match(changed, /\n-one\n\+two\n/);
  assert.equal(await diff('?to=2'), changed);
  assert.match(await diff('?from=2&to=stable'), /\n-two\n\+one\n/);
  for (const query of ['?from=3', '?from=1&to=stable']) assert.equal(await diff(query), '', query);
  assert.match(await diff('?to=1'), /^--- \/dev\/null.*\n\+\+\+ web@1\/a\.sh/, 'there is nothing before the first');
  assert.equal(await diff('?from=0&to=1'), await diff('?to=1'));
});

test('what cannot be restored, purged or compared is refused, and nothing changes', async (t) => {
  const test = await build(t);
  const { api } = test;
  await api('PUT', '/instances/pinned', { bundles: ['web@2'] });
  const restore = (number: string | number, more = '') => ['POST', `/bundles/web/revisions/${number}/restore${more}`] as const;
  const purge = (number: string | number) => ['DELETE', `/bundles/web/revisions/${number}/content`] as const;
  const diff = (query: string) => ['GET', `/bundles/web/diff${query}`] as const;
  await refuses(test, [
    ['no such revision', restore(9), 404, 'unknown_revision'],
    ['revision 0', restore(0), 400, 'bad_request'],
    ['no number', restore('x'), 400, 'bad_request'],
    ['no such bundle', ['POST', '/bundles/none/revisions/1/restore'], 404, 'unknown_bundle'],
    ['a body', [...restore(1), '{"message": "x"}'], 400, 'unwanted_body'],
    ['another state', [...restore(1), undefined, { 'if-match': '"x"' }], 412, 'etag_mismatch'],
    ['a message of 501', restore(1, `?message=${'a'.repeat(LIMITS.messageLength + 1)}`), 400, 'bad_request'],
    ['a message of two lines', restore(1, '?message=a%0ab'), 400, 'bad_message'],
    ['a message with a NUL', restore(1, '?message=%00'), 400, 'bad_message'],
    ['an unknown parameter', restore(1, '?nope=1'), 400, 'bad_request'],
    ['to purge the newest', purge(3), 409, 'in_use'],
    ['to purge what a tag names', purge(1), 409, 'in_use'],
    ['to purge what an instance pins', purge(2), 409, 'in_use'],
    ['to purge no revision', purge(9), 404, 'unknown_revision'],
    ['to purge of no bundle', ['DELETE', '/bundles/none/revisions/1/content'], 404, 'unknown_revision'],
    ['to purge of a bad name', ['DELETE', '/bundles/A/revisions/1/content'], 400, 'bad_name'],
    ['to purge on a condition', [...purge(3), undefined, { 'if-match': '*' }], 400, 'no_conditions'],
    ['a diff of no revision', diff('?from=9'), 404, 'unknown_revision'],
    ['a diff to nothing', diff('?to=0'), 404, 'unknown_revision'],
    ['a diff of no tag', diff('?from=none'), 404, 'unknown_tag'],
    ['a diff of what every object has', diff('?from=constructor'), 404, 'unknown_tag'],
    ['a diff of no name', diff('?to=A%20b'), 400, 'bad_name'],
    ['a diff of a huge number', diff('?to=99999999999'), 400, 'bad_name'],
    ['a diff of no bundle', ['GET', '/bundles/none/diff'], 404, 'unknown_bundle'],
    ['a diff with a parameter more', diff('?nope=1'), 400, 'bad_request'],
  ]);
  await api('DELETE', '/instances/pinned');
  await api(...purge(2));
  await refuses(test, [
    ['to restore what is purged', restore(2), 409, 'purged'],
    ['to compare with what is purged', diff('?from=2'), 409, 'purged'],
    ['to compare what is purged', diff('?from=1&to=2'), 409, 'purged'],
    ['to tag what is purged', ['PUT', '/bundles/web/tags/old', { revision: 2 }], 409, 'purged'],
    ['to refer to what is purged', ['PUT', '/instances/new', { bundles: ['web@2'] }], 422, 'unknown_bundle'],
  ]);
});

test('a tag may be moved on trial', async (t) => {
  const test = await build(t);
  const before = await snapshot(test);
  for (const [tag, revision, changed] of [
    ['stable', 2, true],
    ['stable', 1, false],
    ['new', 1, true],
  ] as const) {
    const answer = await test.api('PUT', `/bundles/web/tags/${tag}?dryRun=true`, { revision });
    assert.deepEqual([answer.statusCode, answer.headers.location, answer.json().changed], [200, undefined, changed]);
    assert.equal(await snapshot(test), before);
  }
});

test('whoever publishes although machines break is in the audit, with what he said and who breaks; a trial is not', async (t) => {
  const test = await buildTestApp(t);
  const { api } = test;
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  await api('PUT', '/bundles/web/parts/db.pod', POD);
  await api('PUT', '/bundles/web/parts/b.sh?template=true', `${SH}echo {{ vars.user }}\n`);
  await api('PUT', '/bundles/web/tags/sound', { revision: 1 });
  await api('PUT', '/bundles/web/tags/stable', { revision: 1 });
  await api('PUT', '/instances/vm', { bundles: ['web@stable'] });
  await api('PUT', '/bundles/own/parts/a.sh', SH);
  await api('PUT', '/bundles/own/vars/user', 'ann');
  await api('PUT', '/bundles/own/secrets/user', 'ann');
  await api('PUT', '/bundles/own/parts/b.sh?template=true', `${SH}echo {{ vars.user }} {{ secrets.user }}\n`);
  await api('PUT', '/instances/vm2', { bundles: ['own'] });
  const lines = async () => (await api('GET', '/audit?limit=1000')).json().items;
  const parts = [{ filename: 'x.pod', content: POD }];
  const sound = ['POST', '/bundles/own/revisions/3/restore', undefined, null] as const;
  for (const [method, url, body, told] of [
    ['PUT', '/bundles/web/tags/stable', { revision: 2 }, { bundle: 'web' }],
    ['PUT', '/bundles/own/parts/x.pod', POD, { bundle: 'own' }],
    sound,
    ['PUT', '/bundles/own', { parts }, { bundle: 'own' }],
    sound,
    ['POST', '/bundles/own', { parts }, { bundle: 'own' }],
    sound,
    ['POST', '/bundles/own/revisions/4/restore', undefined, { bundle: 'own' }],
    sound,
    ['DELETE', '/bundles/own/secrets/user', undefined, { bundle: 'own' }],
    ['PUT', '/bundles/own/secrets/user', 'ann', null],
    ['DELETE', '/bundles/own/vars/user', undefined, { bundle: 'own' }],
  ] as const) {
    const what = `${method} ${url}`;
    const name = url.includes('/web/') ? 'vm' : 'vm2';
    for (const accept of [`?accept=${name}`, '?force=true', `?accept=none,&accept=other,%20${name}`]) {
      const before = (await lines()).length;
      const dry = await api(method, `${url}${accept}&dryRun=true`, body);
      assert.ok(dry.statusCode < 300, `${what}: ${dry.body}`);
      assert.equal((await lines()).length, before, `${what}: a trial`);
    }
    if (told !== null) await refuses(test, [[what, [method, `${url}?accept=none`, body], 409, 'would_break']]);
    const before = (await lines()).length;
    const answer = await api(method, `${url}?accept=${name}`, body);
    assert.ok(answer.statusCode < 300, `${what}: ${answer.body}`);
    const [line, ...earlier] = await lines();
    assert.equal(earlier.length, before, `${what}: one line`);
    if (told === null) {
      assert.equal(line.detail.breaks, undefined, `${what} breaks nothing`);
      continue;
    }
    assert.ok(
      answer.json().findings.some(({ code }: { code: string }) => code === 'breaks_as_accepted'),
      what,
    );
    const { accept, breaks, breaksInAll, force } = line.detail;
    assert.deepEqual(
      [line.actor, line.kind, line.name, accept, force, breaks, breaksInAll],
      ['admin', 'bundle', told.bundle, [name], undefined, [name], 1],
      what,
    );
  }
});

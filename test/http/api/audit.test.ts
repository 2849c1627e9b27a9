import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BUILT_IN_AUTHOR } from '../../../src/domain/bundle.ts';
import { ensureBuiltIns } from '../../../src/service/builtin.ts';
import { buildTestApp, refuses, START } from '../../app.ts';

const SH = '#!/bin/sh\n';

test('every call that changes something is a line with who and what, and no value; a trial and a repetition are none', async (t) => {
  const { api, log } = await buildTestApp(t);
  const part = { filename: 'b.sh', content: `${SH}v4lue\n` };
  for (const [method, url, body, told] of [
    [
      'PUT',
      '/bundles/web/parts/a.sh?message=why',
      `${SH}v4lue\n`,
      ['put', 'bundle', 'web', { revision: 1, message: 'why', part: 'a.sh' }],
    ],
    ['POST', '/bundles/web', { parts: [part] }, ['put', 'bundle', 'web', { revision: 2, parts: ['b.sh'] }]],
    ['DELETE', '/bundles/web/parts/b.sh', undefined, ['put', 'bundle', 'web', { revision: 3, partRemoved: 'b.sh' }]],
    ['PUT', '/bundles/web', { parts: [part] }, ['put', 'bundle', 'web', { revision: 4, whole: true }]],
    ['PUT', '/bundles/web/vars/user', 'v4lue', ['put', 'bundle', 'web', { revision: 5, var: 'user' }]],
    ['DELETE', '/bundles/web/vars/user', undefined, ['put', 'bundle', 'web', { revision: 6, varRemoved: 'user' }]],
    ['PUT', '/bundles/web/tags/stable', { revision: 2 }, ['putTag', 'bundle', 'web', { tag: 'stable' }]],
    ['DELETE', '/bundles/web/tags/stable', undefined, ['deleteTag', 'bundle', 'web', { tag: 'stable' }]],
    ['PUT', '/bundles/web/secrets/key', 'v4lue', ['putSecrets', 'bundle', 'web', { secrets: ['key'] }]],
    ['DELETE', '/bundles/web/secrets/key', undefined, ['putSecrets', 'bundle', 'web', { secretsRemoved: ['key'] }]],
    ['DELETE', '/bundles/web/revisions/1/content', undefined, ['purge', 'bundle', 'web', { revision: 1 }]],
    ['PUT', '/instances/vm', { bundles: [], secrets: { k: 'v4lue' } }, ['put', 'instance', 'vm', { secrets: ['k'] }]],
    ['PATCH', '/instances/vm', { labels: { a: 'v4lue' } }, ['put', 'instance', 'vm', {}]],
    ['PUT', '/instances/vm/vars/user', 'v4lue', ['put', 'instance', 'vm', { var: 'user' }]],
    ['DELETE', '/instances/vm/vars/user', undefined, ['put', 'instance', 'vm', { varRemoved: 'user' }]],
    ['PUT', '/instances/vm/secrets/l', 'v4lue', ['put', 'instance', 'vm', { secrets: ['l'] }]],
    ['POST', '/instances/vm/secrets/l/generate', undefined, ['put', 'instance', 'vm', { secrets: ['l'] }]],
    ['DELETE', '/instances/vm/secrets/l', undefined, ['put', 'instance', 'vm', { secretsRemoved: ['l'] }]],
    ['PUT', '/instances', [{ name: 'vm2', bundles: [] }], ['put', 'instance', 'vm2', {}]],
    ['DELETE', '/instances/vm', undefined, ['delete', 'instance', 'vm', {}]],
    [
      'POST',
      '/bundles/web/revisions/2/restore',
      undefined,
      ['put', 'bundle', 'web', { revision: 7, message: 'restores revision 2', restores: 2 }],
    ],
    ['DELETE', '/bundles/web', undefined, ['delete', 'bundle', 'web', {}]],
    ['POST', '/tokens', { name: 'ci', role: 'viewer' }, ['create', 'token', 'ci', { role: 'viewer' }]],
  ] as const) {
    const what = `${method} ${url}`;
    const all = async () => (await api('GET', '/audit?limit=1000')).json().items;
    const before = (await all()).length;
    const takesTrials = !/tags\/stable$|content$|tokens/.test(url) || (method === 'PUT' && url.includes('tags'));
    if (takesTrials) {
      const trial = await api(method, `${url}${url.includes('?') ? '&' : '?'}dryRun=true`, body);
      assert.ok(trial.statusCode < 300, `${what}: ${trial.body}`);
      assert.equal((await all()).length, before, `${what}: a trial`);
    }
    const answer = await api(method, url, body);
    assert.ok(answer.statusCode < 300, `${what}: ${answer.body}`);
    const [line, ...earlier] = await all();
    assert.equal(earlier.length, before, what);
    assert.deepEqual([line.action, line.kind, line.name, line.detail], told, what);
    assert.deepEqual(
      [line.actor, line.role, line.address, line.at],
      ['admin', 'admin', '127.0.0.1', new Date(START).toISOString()],
    );
    assert.ok(log().includes(`"reqId":"${line.requestId}"`), what);
    if (method !== 'PUT' || url.startsWith('/instances/vm/secrets')) continue;
    await api(method, url, body);
    assert.equal((await all()).length, before + 1, `${what}: again`);
  }
  const everything = (await api('GET', '/audit?limit=1000')).body;
  assert.doesNotMatch(everything, /v4lue/);
  const etag = String((await api('GET', '/instances/vm2')).headers.etag).replaceAll('"', '');
  const [vm2] = (await api('GET', '/audit?name=vm2')).json().items;
  assert.deepEqual([vm2.before, vm2.after], [null, etag]);
});

test('what the service does by itself is in it, too', async (t) => {
  const { api, store } = await buildTestApp(t);
  await ensureBuiltIns(store, () => START);
  const [line, ...more] = (await api('GET', '/audit')).json().items;
  assert.deepEqual(
    [line.actor, line.action, line.kind, line.name, line.address, more],
    [BUILT_IN_AUTHOR, 'put', 'bundle', 'kube', '', []],
  );
});

test('it is asked for by what, who, what was done and since when; for a person in columns', async (t) => {
  const { api, tick, token } = await buildTestApp(t);
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  tick(1000);
  await api('PUT', '/instances/vm', { bundles: ['web'] }, await token('editor'));
  const found = async (query: string) =>
    (await api('GET', `/audit${query}`)).json().items.map(({ kind, name }: Record<string, string>) => `${kind} ${name}`);
  assert.deepEqual(await found('?kind=bundle'), ['bundle web']);
  assert.deepEqual(await found('?name=vm'), ['instance vm']);
  assert.deepEqual(await found('?actor=editor-1'), ['instance vm']);
  assert.deepEqual(await found('?action=create'), ['token editor-1']);
  assert.deepEqual(await found('?since=2026-01-01T00:00:01Z'), ['instance vm', 'token editor-1']);
  assert.deepEqual(await found('?actor=%00'), []);
  const { items, next } = (await api('GET', '/audit?limit=2')).json();
  assert.equal(next, items[1].id);
  assert.deepEqual(await found(`?limit=2&after=${next}`), ['bundle web']);
  const text = (await api('GET', '/audit?format=text')).body;
  assert.match(text, /^ID +AT +ACTOR +ADDRESS +ACTION +KIND +NAME +BEFORE +AFTER +DETAIL\n/);
  assert.match(text, /admin +127\.0\.0\.1 +put +bundle +web +- +[0-9a-f]{24} +revision=1,part=a\.sh\n$/);
});

test('nothing changes or removes a line, and not everybody reads it', async (t) => {
  const test = await buildTestApp(t);
  await refuses(test, [
    ['a deletion', ['DELETE', '/audit'], 404, 'unknown_url'],
    ['a line’s deletion', ['DELETE', '/audit/1'], 404, 'unknown_url'],
    ['a kind there is not', ['GET', '/audit?kind=tag'], 400, 'bad_request'],
    ['a time that is none', ['GET', '/audit?since=yesterday'], 422, 'bad_time'],
    ['an editor', ['GET', '/audit', undefined, await test.token('editor')], 403, 'role_needed'],
  ]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { sha256 } from '../../../src/domain/bundle.ts';
import { unavailable } from '../../../src/domain/errors.ts';
import type { Store } from '../../../src/domain/store.ts';
import { openStore } from '../../../src/store/open.ts';
import { buildTestApp, refuses, snapshot, type TestApp } from '../../app.ts';

const SH = '#!/bin/sh\n';
const TEMPLATE = `${SH}echo {{ vars.user }} {{ secrets.token }} ü\n`;

/** The instance `vm` with a part that holds the secret `t0p-secret`, and `plain` without. */
async function build(t: Parameters<typeof buildTestApp>[0], store?: Store): Promise<TestApp> {
  const test = await buildTestApp(t, store && { store });
  await test.api('PUT', '/bundles/web/parts/a.sh?template=true', TEMPLATE);
  await test.api('PUT', '/bundles/web/parts/c.cfg', '#cloud-config\npackages: [jq]\n');
  const put = await test.api('PUT', '/instances/vm', {
    bundles: ['web'],
    vars: { user: 'ann' },
    secrets: { token: 't0p-secret' },
  });
  assert.equal(put.statusCode, 201, put.body);
  await test.register('plain', { 'other/a.sh': SH });
  return test;
}

async function bootPath({ api }: TestApp, instance: string): Promise<string> {
  return new URL((await api('GET', `/instances/${instance}`)).json().status.stub.url).pathname;
}

test('user-data are the exact bytes of the next delivery, and no delivery', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  const path = await register('vm', { 'web/u.sh': '#!/bin/sh\necho ü\n' });
  const preview = await api('GET', '/instances/vm/user-data');
  assert.equal(preview.headers['content-type'], 'text/plain; charset=utf-8');
  assert.equal(preview.headers['x-content-type-options'], 'nosniff');
  assert.deepEqual(preview.rawPayload, (await boot(path)).rawPayload);
  assert.equal((await api('GET', '/instances/vm/deliveries')).json().items.length, 1);
  const etag = String(preview.headers.etag);
  assert.equal(etag, `"${(await api('GET', '/instances/vm')).json().status.document.digest}"`);
  assert.equal((await api('GET', '/instances/vm/user-data', undefined, { 'if-none-match': etag })).statusCode, 304);
});

test('with secrets in it, user-data is asked for twice, and the audit says who got it', async (t) => {
  const test = await build(t);
  const { api, boot } = test;
  const reveals = async () => (await api('GET', '/audit?action=reveal')).json().items;
  for (const query of ['', '?reveal=false']) {
    const refused = await api('GET', `/instances/vm/user-data${query}`);
    assert.deepEqual([refused.statusCode, refused.json().code], [403, 'reveal_needed']);
    assert.match(refused.json().detail, /preview.*reveal=true/);
  }
  assert.deepEqual(await reveals(), []);
  const revealed = await api('GET', '/instances/vm/user-data?reveal=true');
  assert.deepEqual(revealed.rawPayload, (await boot(await bootPath(test, 'vm'))).rawPayload);
  assert.equal((await api('GET', '/instances/vm/deliveries')).json().items.length, 1);
  const [line, ...more] = await reveals();
  assert.deepEqual([line.actor, line.kind, line.name, more], ['admin', 'instance', 'vm', []]);
  assert.deepEqual(line.detail, { digest: sha256(revealed.rawPayload), revisions: ['web@2'] });
  assert.equal((await api('GET', '/instances/plain/user-data?reveal=true')).statusCode, 200);
  assert.equal((await reveals()).length, 1, 'there was nothing to reveal');
});

test('what the audit cannot be told of is not revealed', async (t) => {
  const store = await openStore({ file: ':memory:' });
  const deaf = {
    ...store,
    recordAudit: async () => {
      throw unavailable('database_unavailable', 'away');
    },
  };
  const { api } = await build(t, deaf);
  const refused = await api('GET', '/instances/vm/user-data?reveal=true');
  assert.deepEqual([refused.statusCode, refused.body.includes('t0p-secret')], [503, false]);
});

test('a preview reads as the machine will have it, with the names of secrets in their places', async (t) => {
  const test = await build(t);
  const preview = await test.api('GET', '/instances/vm/preview');
  assert.equal(preview.headers['content-type'], 'text/plain; charset=utf-8');
  assert.equal(preview.headers['x-content-type-options'], 'nosniff');
  assert.match(preview.body, /echo ann ‹secret:token› ü\n/);
  assert.match(preview.body, /^Content-Type: multipart\/mixed/);
  assert.ok(!preview.body.includes('t0p-secret'));
  assert.equal((await test.api('GET', '/instances/vm/deliveries')).json().items.length, 0);
});

test('an explanation says what cloud-init will make of it, to a program and to a person', async (t) => {
  const { api } = await build(t);
  const answer = await api('GET', '/instances/vm/explain');
  const { parts, scripts, config, failure } = answer.json();
  assert.deepEqual(
    parts.map(({ origin, type }: Record<string, string>) => [origin, type]),
    [
      ['web@2/a.sh', 'text/x-shellscript'],
      ['web@2/c.cfg', 'text/cloud-config'],
      ['bootbundle', 'text/cloud-config'],
      ['bootbundle', 'text/x-shellscript'],
    ],
  );
  assert.deepEqual(
    scripts.map(({ origin }: { origin: string }) => origin),
    ['bootbundle', 'web@2/a.sh'],
  );
  const keys = [
    { key: 'packages', origins: ['web@2/c.cfg'] },
    { key: 'reporting', origins: ['bootbundle'] },
  ];
  assert.deepEqual([config.keys, failure], [keys, null]);
  assert.deepEqual(answer.json().warnings, []);
  const text = await api('GET', '/instances/vm/explain?format=text');
  assert.equal(text.headers['content-type'], 'text/plain; charset=utf-8');
  for (const word of ['web@2/a.sh', 'web@2/c.cfg', 'packages']) assert.ok(text.body.includes(word), word);
  for (const { body } of [answer, text]) assert.ok(!body.includes('t0p-secret'));
});

test('a diff of what was delivered and what would be now, secrets left out', async (t) => {
  const test = await build(t);
  const { api, boot } = test;
  const path = await bootPath(test, 'vm');
  await boot(path);
  await api('PUT', '/instances/vm', { bundles: ['web'], vars: { user: 'bob' }, secrets: { token: 'an0ther-secret' } });
  await boot(path);
  await api('PUT', '/bundles/web/parts/c.cfg', '#cloud-config\npackages: [jq, git]\n');
  const [second, first] = (await api('GET', '/instances/vm/deliveries')).json().items.map(({ id }: { id: number }) => id);
  const diff = async (query: string) => {
    const answer = await api('GET', `/instances/vm/diff?${query}`);
    assert.deepEqual(
      [answer.statusCode, answer.headers['content-type'], answer.headers['x-content-type-options']],
      [200, 'text/plain; charset=utf-8', 'nosniff'],
      answer.body,
    );
    assert.doesNotMatch(answer.body, /0p-secret|0ther-secret/);
    return answer.body;
  };
  const vars = await diff(`from=delivery:${first}&to=delivery:${second}`);
  assert.match(vars, /^--- delivery:\d+\/web\/a\.sh\n\+\+\+ delivery:\d+\/web\/a\.sh\n/);
  assert.match(vars, /\n-echo ann ‹secret:token› ü\n\+echo bob ‹secret:token› ü\n/);
  const config = await diff(`from=delivery:${second}`);
  assert.match(config, /\n-packages: \[jq\]\n\+packages: \[jq, git\]\n/);
  assert.equal(await diff(`from=delivery:${second}&to=now`), config);
  for (const query of ['from=now', `from=delivery:${first}&to=delivery:${first}`]) assert.equal(await diff(query), '', query);
});

test('what cannot be shown is refused, and nothing changes', async (t) => {
  const test = await build(t);
  await test.boot(await bootPath(test, 'vm'));
  const before = await snapshot(test);
  const [{ id }] = (await test.api('GET', '/instances/vm/deliveries')).json().items;
  const documents = ['user-data', 'preview', 'explain', 'diff?from=now'];
  await refuses(test, [
    ...documents.flatMap((document) => [
      [`${document} of none`, ['GET', `/instances/none/${document}`], 404, 'unknown_instance'] as const,
      [`${document} of a bad name`, ['GET', `/instances/A/${document}`], 400, 'bad_name'] as const,
    ]),
    ['reveal that is no boolean', ['GET', '/instances/vm/user-data?reveal=perhaps'], 400, 'bad_request'],
    ['a parameter more', ['GET', '/instances/vm/preview?reveal=true'], 400, 'bad_request'],
    ['an unknown format', ['GET', '/instances/vm/explain?format=xml'], 400, 'bad_request'],
    ['a diff from nowhere', ['GET', '/instances/vm/diff'], 400, 'bad_request'],
    ...['', 'then', 'delivery:', 'delivery:x', 'delivery:-1', `delivery:${'9'.repeat(16)}`, '7', 'NOW'].flatMap((moment) => [
      [`a diff from ${moment}`, ['GET', `/instances/vm/diff?from=${moment}`], 400, 'bad_moment'] as const,
      [`a diff to ${moment}`, ['GET', `/instances/vm/diff?from=now&to=${moment}`], 400, 'bad_moment'] as const,
    ]),
    ...[0, id + 1, 999_999_999_999_999].map(
      (other) =>
        [
          `a diff from delivery ${other}`,
          ['GET', `/instances/vm/diff?from=delivery:${other}`],
          404,
          'unknown_delivery',
        ] as const,
    ),
    ['a diff from another’s delivery', ['GET', `/instances/plain/diff?from=delivery:${id}`], 404, 'unknown_delivery'],
  ]);
  assert.equal(await snapshot(test), before);
  await test.api('PUT', '/bundles/web/parts/a.sh?template=true&force=true', `${SH}{{ vars.none }}\n`);
  await refuses(
    test,
    ['user-data?reveal=true', 'preview', 'explain', 'diff?from=now'].map(
      (document) =>
        [`${document} that cannot be rendered`, ['GET', `/instances/vm/${document}`], 422, 'unknown_variable'] as const,
    ),
  );
});

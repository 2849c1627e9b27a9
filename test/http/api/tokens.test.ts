import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildTestApp, refuses, START, snapshot, type TestApp, TOKEN } from '../../app.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const iso = (at: number) => new Date(at).toISOString();
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

/** Makes a token. @returns what the answer says of it */
async function make({ api }: TestApp, wish: object, headers?: Record<string, string>) {
  const answer = await api('POST', '/tokens', wish, headers);
  assert.equal(answer.statusCode, 201, answer.body);
  return answer.json();
}

/** What a call with a token comes to. */
async function tried({ api }: TestApp, token: string, url = '/bundles') {
  const answer = await api('GET', url, undefined, bearer(token));
  return answer.statusCode === 200 ? 200 : answer.json().code;
}

test('a token is told once, opens as what it was made, and is known by its name', async (t) => {
  const test = await buildTestApp(t);
  const { api } = test;
  const answer = await api('POST', '/tokens', { name: 'web-ci', role: 'editor', bundles: ['web-*'], expiresIn: '90d' });
  const { token, ...shown } = answer.json();
  assert.match(token, new RegExp(`^bb_${shown.id}_[A-Za-z0-9_-]{43}$`));
  assert.equal(answer.headers.location, `/api/v1/tokens/${shown.id}`);
  assert.equal(answer.headers['cache-control'], 'no-store');
  assert.deepEqual(shown, {
    id: shown.id,
    name: 'web-ci',
    role: 'editor',
    bundles: ['web-*'],
    instances: null,
    expiresAt: iso(START + 90 * DAY),
    createdAt: iso(START),
    createdBy: 'admin',
    revokedAt: null,
    lastUsedAt: null,
  });
  assert.deepEqual((await api('GET', `/tokens/${shown.id}`)).json(), shown);
  assert.deepEqual((await api('GET', '/tokens')).json(), { items: [shown], next: null });
  assert.match(
    (await api('GET', '/tokens?format=text')).body,
    /^ID +NAME +ROLE .*\n\w{8} +web-ci +editor +web-\* +\* +- +2026/,
  );
  const own = { id: shown.id, name: 'web-ci', role: 'editor', bundles: ['web-*'], instances: null, expiresAt: shown.expiresAt };
  assert.deepEqual((await api('GET', '/tokens/self', undefined, bearer(token))).json(), own);
  const basic = { authorization: `Basic ${Buffer.from(`any:${token}`).toString('base64')}` };
  assert.deepEqual((await api('GET', '/tokens/self', undefined, basic)).json(), own);
  const admin = { id: null, name: 'admin', role: 'admin', bundles: null, instances: null, expiresAt: null };
  assert.deepEqual((await api('GET', '/tokens/self')).json(), admin);

  await api('PUT', '/bundles/web-a/parts/a.sh', '#!/bin/sh\n', bearer(token));
  assert.equal((await api('GET', '/bundles/web-a/revisions/1')).json().author, 'web-ci');
  const [line] = (await api('GET', '/audit?kind=bundle')).json().items;
  assert.deepEqual([line.actor, line.role, line.name, line.address], ['web-ci', 'editor', 'web-a', '127.0.0.1']);
  const logged = test.log();
  assert.ok(
    !logged.includes(token.slice(12)) && !JSON.stringify((await api('GET', '/audit')).json()).includes(token.slice(12)),
  );
});

test('a token stops at its expiry, at once when it is revoked, and stays listed', async (t) => {
  const test = await buildTestApp(t);
  const { api, tick } = test;
  const { token } = await make(test, { name: 'short', role: 'viewer', expiresAt: iso(START + HOUR) });
  const { token: other, id } = await make(test, { name: 'other', role: 'viewer' });
  tick(HOUR - 1);
  assert.equal(await tried(test, token), 200);
  tick(1);
  assert.equal(await tried(test, token), 'token_expired');
  assert.equal(await tried(test, other), 200);
  assert.equal((await api('DELETE', `/tokens/${id}`)).statusCode, 204);
  assert.equal(await tried(test, other), 'token_revoked');
  assert.equal((await api('DELETE', `/tokens/${id}`)).statusCode, 204);
  assert.equal((await api('GET', `/tokens/${id}`)).json().revokedAt, iso(START + HOUR));
  assert.equal((await api('GET', '/tokens')).json().items.length, 2);
  // Who does not have the secret is not told which.
  assert.equal(await tried(test, `bb_${id}_${'A'.repeat(43)}`), 'bad_token');
});

test('rotated, the old token goes on for the overlap; the new one is alike', async (t) => {
  const test = await buildTestApp(t);
  const { api, tick } = test;
  const wish = { name: 'ci', role: 'editor', instances: ['web-*'], expiresIn: '10d' };
  const first = await make(test, wish);
  tick(DAY);
  const answer = await api('POST', `/tokens/${first.id}/rotate?overlap=2h`);
  assert.equal(answer.statusCode, 201, answer.body);
  const second = answer.json();
  assert.notEqual(second.token, first.token);
  const { id: _, token: __, createdAt, expiresAt, ...alike } = second;
  const { id: ___, token: ____, createdAt: _____, expiresAt: ______, ...before } = first;
  assert.deepEqual(alike, before);
  assert.deepEqual([createdAt, expiresAt], [iso(START + DAY), iso(START + 11 * DAY)]);
  assert.deepEqual([await tried(test, first.token), await tried(test, second.token)], [200, 200]);
  tick(2 * HOUR);
  assert.deepEqual([await tried(test, first.token), await tried(test, second.token)], ['token_expired', 200]);
  assert.equal((await api('POST', `/tokens/${first.id}/rotate`)).json().code, 'token_expired');
  // Without an overlap said it is an hour; 0s is none.
  const third = (await api('POST', `/tokens/${second.id}/rotate`)).json();
  assert.equal((await api('GET', `/tokens/${second.id}`)).json().expiresAt, iso(START + DAY + 3 * HOUR));
  await api('POST', `/tokens/${third.id}/rotate?overlap=0s`);
  assert.equal(await tried(test, third.token), 'token_expired');
  const actions = (await api('GET', '/audit?kind=token'))
    .json()
    .items.map(({ action, name }: Record<string, string>) => [action, name]);
  assert.deepEqual(actions, [
    ['rotate', 'ci'],
    ['rotate', 'ci'],
    ['rotate', 'ci'],
    ['create', 'ci'],
  ]);
});

test('the last use is told to the minute', async (t) => {
  const test = await buildTestApp(t);
  const { token, id } = await make(test, { name: 'ci', role: 'viewer' });
  const used = async () => {
    await tried(test, token);
    await new Promise((resolve) => setImmediate(resolve));
    return (await test.api('GET', `/tokens/${id}`)).json().lastUsedAt;
  };
  assert.equal(await used(), iso(START));
  test.tick(MINUTE - 1);
  assert.equal(await used(), iso(START));
  test.tick(1);
  assert.equal(await used(), iso(START + MINUTE));
});

test('an admin of some names makes, sees, rotates and revokes no token that can do more than his', async (t) => {
  const test = await buildTestApp(t);
  const { api } = test;
  const scope = { bundles: ['web-*'], instances: ['web-*'] };
  const { token } = await make(test, { name: 'web-admin', role: 'admin', ...scope });
  const { id: wide, token: wideToken } = await make(test, { name: 'wide', role: 'viewer' });
  const { id: db } = await make(test, { name: 'db', role: 'viewer', bundles: ['db-*'], instances: [] });
  const as = bearer(token);
  const before = await snapshot(test);
  for (const [bundles, instances] of [
    [undefined, undefined],
    [['web-*'], null],
    [['web-*'], ['*']],
    [['web*'], ['web-*']],
    [['web-*', 'db'], []],
  ]) {
    const refused = await api('POST', '/tokens', { name: 'x', role: 'viewer', bundles, instances }, as);
    assert.deepEqual([refused.statusCode, refused.json().code], [403, 'beyond_token'], JSON.stringify([bundles, instances]));
  }
  for (const id of [wide, db, 'aaaaaaaa'])
    for (const [method, url] of [
      ['GET', `/tokens/${id}`],
      ['DELETE', `/tokens/${id}`],
      ['POST', `/tokens/${id}/rotate`],
    ] as const)
      assert.equal((await api(method, url, undefined, as)).json().code, 'unknown_token', `${method} ${url}`);
  assert.equal(await snapshot(test), before);
  const own = await make(test, { name: 'web-ci', role: 'editor', bundles: ['web-a', 'web-b*'], instances: [] }, as);
  const listed = (await api('GET', '/tokens', undefined, as)).json().items.map(({ name }: { name: string }) => name);
  assert.deepEqual(listed, ['web-admin', 'web-ci']);
  assert.equal((await api('POST', `/tokens/${own.id}/rotate`, undefined, as)).statusCode, 201);
  assert.equal((await api('DELETE', `/tokens/${own.id}`, undefined, as)).statusCode, 204);
  assert.equal(await tried(test, wideToken), 200);
});

test('lists of tokens go page by page', async (t) => {
  const test = await buildTestApp(t);
  const names = ['a', 'b', 'b.c', 'c', 'd'];
  for (const name of [...names].reverse()) await make(test, { name, role: 'viewer' });
  const seen: string[] = [];
  for (let after = ''; ; ) {
    const { items, next } = (await test.api('GET', `/tokens?limit=2${after}`)).json();
    seen.push(...items.map(({ name }: { name: string }) => name));
    if (next === null) break;
    after = `&after=${encodeURIComponent(next)}`;
  }
  assert.deepEqual(seen, names);
});

test('what cannot be is refused, and changes nothing', async (t) => {
  const test = await buildTestApp(t);
  const { id } = await make(test, { name: 'ci', role: 'viewer' });
  const post = (change: object) => ['POST', '/tokens', { name: 'x', role: 'viewer', ...change }] as const;
  await refuses(test, [
    ['no role', ['POST', '/tokens', { name: 'x' }], 400, 'bad_request'],
    ['an unknown role', post({ role: 'root' }), 400, 'bad_request'],
    ['an unknown field', post({ token: 'mine' }), 400, 'bad_request'],
    ['a bad name', post({ name: 'Web CI' }), 400, 'bad_name'],
    ['the admin’s name', post({ name: 'admin' }), 422, 'reserved_name'],
    ['our own name', post({ name: 'bootbundle' }), 422, 'reserved_name'],
    ['a living one’s name', post({ name: 'ci' }), 409, 'token_exists'],
    ['a bad pattern', post({ bundles: ['web_*'] }), 422, 'bad_scope'],
    ['no list of patterns', post({ bundles: 'web-*' }), 400, 'bad_request'],
    ['an expiry in the past', post({ expiresAt: iso(START) }), 422, 'bad_expiry'],
    ['an expiry that is no time', post({ expiresAt: 'tomorrow' }), 422, 'bad_expiry'],
    ['a 30th of February', post({ expiresAt: '2027-02-30T00:00:00Z' }), 422, 'bad_expiry'],
    ['two expiries', post({ expiresAt: iso(START + DAY), expiresIn: '1d' }), 400, 'bad_field'],
    ['a duration that is none', post({ expiresIn: '1 week' }), 422, 'bad_duration'],
    ['a duration too long', post({ expiresIn: '4000d' }), 422, 'bad_duration'],
    ['no body', ['POST', '/tokens'], 400, 'empty_body'],
    ['an overlap that is none', ['POST', `/tokens/${id}/rotate?overlap=soon`], 422, 'bad_duration'],
    ['a body for rotate', ['POST', `/tokens/${id}/rotate`, { overlap: '1h' }], 400, 'unwanted_body'],
    ['an unknown id', ['GET', '/tokens/aaaaaaaa'], 404, 'unknown_token'],
    ['an id that is none', ['DELETE', '/tokens/%00'], 404, 'unknown_token'],
    ['a condition', ['DELETE', `/tokens/${id}`, undefined, { 'if-match': 'x' }], 400, 'no_conditions'],
  ]);
  assert.equal((await test.api('GET', '/tokens?after=%00%3A', undefined)).statusCode, 200);
});

test('a revoked admin is out; the admin token of the host is not a token to be revoked', async (t) => {
  const test = await buildTestApp(t);
  const { token, id } = await make(test, { name: 'root', role: 'admin' });
  assert.equal((await test.api('DELETE', `/tokens/${id}`, undefined, bearer(token))).statusCode, 204);
  assert.equal(await tried(test, token), 'token_revoked');
  assert.equal((await test.api('DELETE', '/tokens/admin')).statusCode, 404);
  assert.equal(await tried(test, TOKEN), 200);
});

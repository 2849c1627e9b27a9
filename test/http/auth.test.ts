import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tokenOf } from '../../src/http/auth.ts';
import { buildTestApp, snapshot, TOKEN } from '../app.ts';

const basic = (pair: string) => `Basic ${Buffer.from(pair).toString('base64')}`;

test('a token is read from Bearer, or from Basic as the password of anybody', () => {
  for (const [header, token] of [
    ['Bearer abc', 'abc'],
    ['bearer   abc', 'abc'],
    ['Bearer p@ss!{word},#1', 'p@ss!{word},#1'],
    [basic(':abc'), 'abc'],
    [basic('me:abc'), 'abc'],
    [basic('me:a:b:c'), 'a:b:c'],
    [basic('me:').replace('Basic', 'BASIC'), ''],
    [basic('me'), null],
    ['Basic !!!', null],
    ['Bearer', null],
    ['Bearer ', null],
    ['Bearer a b', null],
    ['Token abc', null],
    ['abc', null],
    ['', null],
    [undefined, null],
  ] as const)
    assert.equal(tokenOf(header), token, header);
});

test('the token opens; what is wrong, absent or malformed gets 401 and how to ask', async (t) => {
  const test = await buildTestApp(t);
  const status = async (authorization: string) => (await test.api('GET', '/bundles', undefined, { authorization })).statusCode;
  for (const header of [`Bearer ${TOKEN}`, basic(`:${TOKEN}`), basic(`anybody:${TOKEN}`)])
    assert.equal(await status(header), 200, header);
  const wrong = [
    'Bearer wrong',
    `Bearer ${TOKEN}x`,
    `Bearer ${TOKEN.slice(1)}`,
    `Bearer ${TOKEN} `.repeat(2),
    basic(TOKEN),
    basic(':'),
    'Bearer',
    '',
    `Token ${TOKEN}`,
    TOKEN,
  ];
  for (const header of wrong) {
    const answer = await test.api('GET', '/bundles', undefined, { authorization: header });
    assert.equal(answer.statusCode, 401, header);
    assert.match(answer.json().code, /^(no|bad)_token$/);
    assert.equal(answer.headers['www-authenticate'], 'Bearer realm="bootbundle", Basic realm="bootbundle"');
    assert.ok(!answer.body.includes(TOKEN.slice(1)), header);
  }
});

test('every printable token that the configuration takes opens by Bearer and by Basic', async (t) => {
  const token = Array.from({ length: 0x7e - 0x20 }, (_, index) => String.fromCharCode(0x21 + index)).join('');
  const { api } = await buildTestApp(t, { adminToken: token });
  for (const authorization of [`Bearer ${token}`, basic(`x:${token}`)])
    assert.equal((await api('GET', '/bundles', undefined, { authorization })).statusCode, 200);
});

test('a hostile Authorization header is 401 at once, and never in the log', async (t) => {
  const test = await buildTestApp(t);
  const { id } = (await test.api('POST', '/tokens', { name: 'ci', role: 'viewer' })).json();
  const guess = `bb_${id}_${'G'.repeat(43)}`;
  const nasty = [
    `Bearer ${'a'.repeat(14_000)}`,
    `Bearer ${' '.repeat(14_000)}x`,
    `${'Bearer '.repeat(1500)}x`,
    `Basic ${'='.repeat(14_000)}`,
    `Basic ${'A'.repeat(14_000)}`,
    basic(`${':'.repeat(9000)}`),
    basic(`x:${TOKEN}\0`),
    basic(`${TOKEN}:`),
    basic(`x:${guess}`),
    `Bearer ${guess}`,
    `Bearer ${guess}, Bearer ${TOKEN}`,
    `Bearer bb_${'%00'.repeat(20)}`,
    `Bearer bb_'or'1'='1_${'G'.repeat(43)}`,
    `Bearer bb___proto___${'G'.repeat(43)}`,
    'Bearer undefined',
    'Bearer null',
    'Digest username="x"',
    'Negotiate YII=',
  ];
  const began = performance.now();
  for (const authorization of nasty) {
    const answer = await test.api('GET', '/tokens/self', undefined, { authorization });
    assert.equal(answer.statusCode, 401, authorization.slice(0, 60));
    assert.doesNotMatch(answer.body, /GGGG|test-admin/);
  }
  assert.ok(performance.now() - began < 2000);
  assert.doesNotMatch(test.log(), /GGGG|aaaaaaaa|AAAAAAAA|test-admin|authorization/i);
});

test('every call under /api/v1 needs the token, before anything of it is looked at', async (t) => {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const before = await snapshot(test);
  const { paths } = test.app.swagger() as { paths: Record<string, Record<string, { security?: unknown[] }>> };
  let calls = 0;
  for (const [path, operations] of Object.entries(paths)) {
    if (!path.startsWith('/api/v1')) continue;
    const url = path
      .slice('/api/v1'.length)
      .replace('{bundle}', 'web')
      .replace('{instance}', 'vm')
      .replace(/\{\w+\}/, 'x');
    for (const [method, { security }] of Object.entries(operations)) {
      calls++;
      assert.notDeepEqual(security, [], `${method} ${path} says it needs none`);
      for (const authorization of ['', 'Bearer wrong']) {
        const body = method === 'get' ? undefined : 'x'.repeat(100_000);
        const answer = await test.api(method.toUpperCase(), `${url}?nope=1`, body, {
          authorization,
          'content-range': 'x',
          'if-match': 'x',
        });
        assert.equal(answer.statusCode, 401, `${method} ${path}`);
      }
    }
  }
  assert.ok(calls >= 23);
  assert.equal(await snapshot(test), before);
});

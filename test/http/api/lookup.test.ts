import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildTestApp, refuses } from '../../app.ts';

const SH = '#!/bin/sh\n';
const UUID = '6b8b4567-327b-23c6-643c-986966334873';

test('what was found in Nova tells the machine, however it is sent, and is never answered or logged', async (t) => {
  const { api, boot, register, log } = await buildTestApp(t);
  const path = await register('vm', { 'web/a.sh': SH });
  const capability = path.split('/')[2] ?? '';
  await boot(path, { remoteAddress: '192.0.2.77' });
  await api('PUT', '/instances/nova', { bundles: [], metaData: { 'instance-id': UUID } });
  const stub = async (form: string) => (await api('GET', `/instances/vm/stub?form=${form}`)).body;
  const json = { 'content-type': 'application/json' };
  const found: [body: unknown, headers: Record<string, string>, instance: string, by: string][] = [
    [{ url: path }, {}, 'vm', 'url'],
    [{ url: await stub('base64') }, {}, 'vm', 'url'],
    [{ address: '192.0.2.77' }, {}, 'vm', 'address'],
    [{ uuid: UUID }, {}, 'nova', 'instanceId'],
    [{ instanceId: UUID }, {}, 'nova', 'instanceId'],
    [JSON.stringify({ url: path }), json, 'vm', 'url'],
    [JSON.stringify({ url: path }), {}, 'vm', 'url'],
    [`url: ${path}\n`, { 'content-type': 'application/yaml' }, 'vm', 'url'],
    [await stub('include-once'), {}, 'vm', 'url'],
    [await stub('include'), { 'content-type': 'text/plain' }, 'vm', 'url'],
    [await stub('nocloud'), { 'content-type': 'application/x-www-form-urlencoded' }, 'vm', 'url'],
    [await stub('base64'), {}, 'vm', 'url'],
    [capability, {}, 'vm', 'url'],
    ['192.0.2.77\n', {}, 'vm', 'address'],
    [UUID, {}, 'nova', 'instanceId'],
  ];
  for (const [body, headers, instance, by] of found) {
    const answer = await api('POST', '/lookup', body, headers);
    assert.deepEqual([answer.statusCode, answer.json().instance, answer.json().by], [200, instance, by], String(body));
    assert.ok(!answer.body.includes(capability));
  }
  assert.match(
    (await api('POST', '/lookup?format=text', path)).body,
    /^INSTANCE +BY +PURPOSE +WORKS +REASON\nvm +url +include +true +its include capability\n$/,
  );
  assert.ok(!log().includes(capability));
});

test('what tells nothing is refused, and not quoted', async (t) => {
  const test = await buildTestApp(t);
  const path = await test.register('vm', { 'web/a.sh': SH });
  const wrong = path.replace(/.(?=\/user-data)/, (last) => (last === 'A' ? 'B' : 'A'));
  await refuses(test, [
    ['no body', ['POST', '/lookup'], 400, 'no_body'],
    ['nothing asked', ['POST', '/lookup', {}], 400, 'bad_request'],
    ['two things', ['POST', '/lookup', { address: '192.0.2.1', uuid: UUID }], 400, 'bad_request'],
    ['an unknown thing', ['POST', '/lookup', { name: 'vm' }], 400, 'bad_request'],
    ['a wrong MAC', ['POST', '/lookup', wrong], 404, 'unknown_capability'],
    ['no URL', ['POST', '/lookup', { url: 'hello' }], 400, 'no_clue'],
    ['an unknown address', ['POST', '/lookup', '192.0.2.200'], 404, 'unknown_address'],
    ['an unknown id', ['POST', '/lookup', UUID], 404, 'unknown_instance_id'],
    ['a NUL', ['POST', '/lookup', { address: '\0' }], 404, 'unknown_address'],
    ['a huge text', ['POST', '/lookup', 'x'.repeat(17_000)], 413, 'body_too_large'],
    ['binary', ['POST', '/lookup', Buffer.from([0, 255, 254])], 400, 'no_clue'],
  ]);
  const { body } = await test.api('POST', '/lookup', wrong);
  assert.ok(!body.includes(wrong.split('/')[2] ?? ''));
});

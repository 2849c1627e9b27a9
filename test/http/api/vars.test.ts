import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../../src/domain/limits.ts';
import { buildTestApp, refuses, snapshot, type TestApp } from '../../app.ts';

const SH = '#!/bin/sh\n';
const OWNERS = ['/bundles/web', '/instances/vm'] as const;
const JSON_TYPE = { 'content-type': 'application/json' };
const YAML = { 'content-type': 'application/yaml' };

async function build(t: Parameters<typeof buildTestApp>[0]): Promise<TestApp> {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': SH });
  return test;
}

test('a text is kept as it is: every character, a line break at its end, whatever curl says it is', async (t) => {
  const { api } = await build(t);
  for (const owner of OWNERS)
    for (const [text, endsWithNewline] of [
      ['fra1', false],
      ['fra1\n', true],
      ['-----BEGIN-----\r\nü ✓ 🚀\t\r\n', true],
      ['\ufeffbom', false],
      ['{"a": 1}', false],
      ['true', false],
      ['', false],
    ] as const)
      for (const headers of [{}, { 'content-type': 'application/x-www-form-urlencoded' }, { 'content-type': 'text/plain' }]) {
        const put = await api('PUT', `${owner}/vars/site.name`, text, headers);
        assert.equal(put.statusCode, 200, put.body);
        const { key, bytes, endsWithNewline: ends, findings } = put.json();
        assert.deepEqual([key, bytes, ends, findings], ['site.name', Buffer.byteLength(text), endsWithNewline, []]);
        assert.equal((await api('GET', `${owner}/vars/site.name`)).json(), text);
        const asText = await api('GET', `${owner}/vars/site.name?format=text`);
        assert.deepEqual(asText.rawPayload, Buffer.from(text));
        assert.equal(asText.headers['x-content-type-options'], 'nosniff');
      }
});

test('with a type that says so, it is the value that JSON or YAML states', async (t) => {
  const { api } = await build(t);
  for (const owner of OWNERS)
    for (const [body, headers, value] of [
      ['{"a": [1, "zwei", null]}', JSON_TYPE, { a: [1, 'zwei', null] }],
      ['"text"', JSON_TYPE, 'text'],
      ['0', JSON_TYPE, 0],
      ['null', JSON_TYPE, null],
      ['a: 1\nb: [x]\n', YAML, { a: 1, b: ['x'] }],
      ['- 1\n- 2\n', { 'content-type': 'text/yaml' }, [1, 2]],
    ] as const) {
      const put = await api('PUT', `${owner}/vars/x`, body, headers);
      assert.deepEqual([put.statusCode, put.json().endsWithNewline], [200, false], put.body);
      assert.equal(put.json().bytes, typeof value === 'string' ? 4 : Buffer.byteLength(JSON.stringify(value)));
      const got = await api('GET', `${owner}/vars/x`);
      assert.deepEqual([got.json(), got.headers['content-type']], [value, 'application/json; charset=utf-8']);
      assert.deepEqual((await api('GET', `${owner}/vars`)).json(), { x: value });
    }
});

test('one var is changed, the others stay; of a bundle it is a revision, of an instance a version', async (t) => {
  const { api } = await build(t);
  await api('PUT', '/bundles/web', { parts: [{ filename: 'a.sh', content: SH }], vars: { a: 1, b: { c: 2 } } });
  const put = await api('PUT', '/bundles/web/vars/a?message=another%20a', 'x');
  assert.deepEqual(put.json(), {
    bundle: 'web',
    revision: 3,
    key: 'a',
    bytes: 1,
    endsWithNewline: false,
    changed: true,
    findings: [],
  });
  const revision = (await api('GET', '/bundles/web/revisions/3')).json();
  assert.deepEqual([revision.vars, revision.message, revision.parts.length], [{ a: 'x', b: { c: 2 } }, 'another a', 1]);
  const same = await api('PUT', '/bundles/web/vars/a', 'x');
  assert.deepEqual([same.json().changed, same.json().revision], [false, 3]);
  const removed = await api('DELETE', '/bundles/web/vars/b');
  assert.deepEqual(removed.json(), { bundle: 'web', revision: 4, key: 'b', changed: true, findings: [] });
  assert.deepEqual((await api('GET', '/bundles/web/vars')).json(), { a: 'x' });

  await api('PUT', '/instances/vm', { bundles: ['web'], vars: { a: 1 }, labels: { site: 'fra1' } });
  const own = await api('PUT', '/instances/vm/vars/b', 'y\n');
  assert.deepEqual(own.json(), { instance: 'vm', key: 'b', bytes: 2, endsWithNewline: true, changed: true, findings: [] });
  assert.equal((await api('PUT', '/instances/vm/vars/b', 'y\n')).json().changed, false);
  const { vars, labels, status } = (await api('GET', '/instances/vm')).json();
  assert.deepEqual([vars, labels, status.version], [{ a: 1, b: 'y\n' }, { site: 'fra1' }, 3]);
  const gone = await api('DELETE', '/instances/vm/vars/a');
  assert.deepEqual(gone.json(), { instance: 'vm', key: 'a', changed: true, findings: [] });
});

test('a person gets columns, of which none is too wide', async (t) => {
  const { api } = await build(t);
  for (const owner of OWNERS) {
    await api('PUT', `${owner}/vars/a`, 'x\u001b[31m\n');
    await api('PUT', `${owner}/vars/long`, 'x'.repeat(10_000));
    await api('PUT', `${owner}/vars/list`, '[1, 2]', JSON_TYPE);
    for (const slash of ['', '/']) {
      const { body } = await api('GET', `${owner}/vars${slash}?format=text`);
      assert.match(body, /^KEY +VALUE\n/);
      assert.match(body, /\na +"x\\u001b\[31m\\n"\n/);
      assert.match(body, /\nlist +\[1,2\]\n/);
      assert.ok(body.length < 400);
    }
  }
  assert.equal((await api('GET', '/bundles/web/vars/list?format=text')).body, '[\n  1,\n  2\n]\n');
});

test('a dry run answers what would happen and changes nothing', async (t) => {
  const test = await build(t);
  for (const owner of OWNERS) await test.api('PUT', `${owner}/vars/old`, 'x');
  const before = await snapshot(test);
  for (const owner of OWNERS)
    for (const [method, name, body, changed] of [
      ['PUT', 'new', 'x', true],
      ['PUT', 'old', 'y', true],
      ['PUT', 'old', 'x', false],
      ['DELETE', 'old', undefined, true],
    ] as const) {
      const answer = await test.api(method, `${owner}/vars/${name}?dryRun=true`, body);
      assert.deepEqual([answer.statusCode, answer.json().changed], [200, changed], `${method} ${owner} ${name}`);
      assert.equal(await snapshot(test), before, `${method} ${owner} ${name}`);
    }
});

test('a value that documents need is not taken away, and a template names the var it lacks', async (t) => {
  const test = await build(t);
  await test.api('PUT', '/bundles/web/vars/user', 'ann');
  await test.api('PUT', '/bundles/web/parts/c.cfg?template=true', '#cloud-config\nhostname: {{ vars.user }}\n');
  await refuses(test, [
    ['a bundle’s', ['DELETE', '/bundles/web/vars/user'], 409, 'would_break'],
    ['a bundle’s, spoilt', ['PUT', '/bundles/web/vars/user', '['], 409, 'would_break'],
    ['an instance’s, spoilt', ['PUT', '/instances/vm/vars/user', '['], 422, 'bad_yaml'],
  ]);
  assert.match((await test.api('DELETE', '/bundles/web/vars/user')).json().detail, /^vm has still to boot.*vars\.user/);
  await test.api('PUT', '/instances/vm/vars/user', 'bob');
  assert.equal((await test.api('DELETE', '/bundles/web/vars/user')).statusCode, 200, 'the machine has its own');
  await refuses(test, [['its own', ['DELETE', '/instances/vm/vars/user'], 422, 'unknown_variable']]);
});

test('what is no var is refused, and nothing changes', async (t) => {
  const test = await build(t);
  for (const owner of OWNERS) await test.api('PUT', `${owner}/vars/old`, 'x');
  for (const owner of OWNERS) {
    const at = (name: string) => `${owner}/vars/${name}`;
    const nobody = `${owner.replace(/\w+$/, 'none')}/vars`;
    const unknown = owner === '/bundles/web' ? 'unknown_bundle' : 'unknown_instance';
    const [bytes, half] = [Buffer.from([0x61, 0xff]), Buffer.from([0x61, 0x00])];
    await refuses(test, [
      ['not UTF-8', ['PUT', at('a'), bytes], 400, 'not_utf8'],
      ['a NUL', ['PUT', at('a'), half], 400, 'bad_value'],
      ['broken JSON', ['PUT', at('a'), '{"a', JSON_TYPE], 400, 'bad_json'],
      ['no JSON', ['PUT', at('a'), '', JSON_TYPE], 400, 'empty_body'],
      ['broken YAML', ['PUT', at('a'), 'a: [', YAML], 400, 'bad_yaml'],
      ['__proto__ in it', ['PUT', at('a'), '{"__proto__": 1}', JSON_TYPE], 400, 'unknown_field'],
      ['too much', ['PUT', at('a'), 'x'.repeat(LIMITS.varBytes + 1)], 413, 'body_too_large'],
      ['a form', ['PUT', at('a'), '--x--', { 'content-type': 'multipart/form-data; boundary=x' }], 415, 'bad_content_type'],
      ['no name, no slash', ['PUT', `${owner}/vars`, 'x'], 400, 'filename_missing'],
      ['no name', ['PUT', at(''), 'x'], 400, 'filename_missing'],
      ...['.a', '1a', 'a b', 'a/b', 'ü', '__proto__', 'a'.repeat(64)].flatMap((name) => [
        [`the name ${name}`, ['PUT', at(encodeURIComponent(name)), 'x'], 422, 'bad_var_name'] as const,
        [`to remove ${name}`, ['DELETE', at(encodeURIComponent(name))], 422, 'bad_var_name'] as const,
      ]),
      ['no such var', ['GET', at('none')], 404, 'unknown_var'],
      ['what every object has', ['GET', at('constructor')], 404, 'unknown_var'],
      ['no such var to remove', ['DELETE', at('none')], 404, 'unknown_var'],
      ['nobody’s', ['PUT', `${nobody}/a`, 'x'], 404, unknown],
      ['nobody’s to remove', ['DELETE', `${nobody}/a`], 404, unknown],
      ['nobody’s to read', ['GET', `${nobody}/a`], 404, unknown],
      ['nobody’s list', ['GET', nobody], 404, unknown],
      ['an unknown parameter', ['PUT', `${at('a')}?nope=1`, 'x'], 400, 'bad_request'],
      ['a condition', ['PUT', at('old'), 'y', { 'if-match': '*' }], 400, 'no_conditions'],
      ['a condition on a removal', ['DELETE', at('old'), undefined, { 'if-match': '*' }], 400, 'no_conditions'],
    ]);
  }
  await refuses(test, [
    ['a message of an instance’s', ['PUT', '/instances/vm/vars/a?message=x', 'x'], 400, 'bad_request'],
    ['vars past 64 KiB', ['PUT', '/bundles/web/vars/a', 'x'.repeat(LIMITS.varBytes)], 413, 'vars_too_large'],
  ]);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../../src/domain/limits.ts';
import type { Store } from '../../../src/domain/store.ts';
import { openStore } from '../../../src/store/open.ts';
import { ANN } from '../../actor.ts';
import { buildTestApp, refuses, START, snapshot, type TestApp } from '../../app.ts';

const SH = '#!/bin/sh\n';
const OWNERS = ['/bundles/web', '/instances/vm'] as const;

/** An app with the bundle `web`, and `vm`, which refers to it and was not fetched yet. */
async function build(t: Parameters<typeof buildTestApp>[0]): Promise<TestApp> {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': SH });
  return test;
}

/** Puts a template that uses secrets, and waits for the bytes a machine would get for it. */
async function rendered({ api }: TestApp, template: string): Promise<string> {
  const put = await api('PUT', '/bundles/web/parts/t.sh?template=true', `${SH}${template}\n`);
  assert.ok(put.statusCode < 300, put.body);
  const document = await api('GET', '/instances/vm/user-data?reveal=true');
  assert.equal(document.statusCode, 200, document.body);
  return document.body;
}

test('a secret is created, kept when equal, and replaced; the answer tells its length and its end, never the value', async (t) => {
  const { api, tick } = await build(t);
  for (const owner of OWNERS) {
    const url = `${owner}/secrets/db.password`;
    const created = await api('PUT', url, 'hunter2\n');
    assert.equal(created.statusCode, 201, created.body);
    assert.equal(created.headers.location, `/api/v1${owner}/secrets`);
    assert.deepEqual(created.json(), {
      name: 'db.password',
      bytes: 8,
      endsWithNewline: true,
      updatedAt: created.json().updatedAt,
      changed: true,
      findings: [],
    });
    tick(1000);
    const same = await api('PUT', url, 'hunter2\n');
    assert.deepEqual([same.statusCode, same.json().changed], [200, false]);
    assert.equal(same.json().updatedAt, created.json().updatedAt);
    assert.equal(same.headers.location, undefined);
    const replaced = await api('PUT', url, 'hunter2');
    assert.deepEqual(
      [replaced.statusCode, replaced.json().changed, replaced.json().bytes, replaced.json().endsWithNewline],
      [200, true, 7, false],
    );
    assert.notEqual(replaced.json().updatedAt, created.json().updatedAt);
  }
});

test('whatever its Content-Type, the body is the value: every byte gets into the document', async (t) => {
  const test = await build(t);
  const value = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  for (const owner of OWNERS)
    for (const type of ['', 'application/x-www-form-urlencoded', 'application/json', 'text/plain', 'application/x-pem-file']) {
      const headers: Record<string, string> = type === '' ? {} : { 'content-type': type };
      await test.api('PUT', `${owner}/secrets/key`, 'another', headers);
      const put = await test.api('PUT', `${owner}/secrets/key`, value, headers);
      assert.deepEqual([put.statusCode, put.json().bytes, put.json().changed], [200, 256, true], type);
      assert.match(
        await rendered(test, 'echo {{ secrets.key | base64 }}'),
        new RegExp(value.toString('base64').slice(0, 64).replaceAll('+', '\\+')),
      );
    }
});

test('an instance’s own secret goes over the bundle’s', async (t) => {
  const test = await build(t);
  await test.api('PUT', '/bundles/web/secrets/a', 'of-the-bundle');
  await test.api('PUT', '/bundles/web/secrets/b', 'of-the-bundle-too');
  await test.api('PUT', '/instances/vm/secrets/a', 'of-the-machine');
  const document = await rendered(test, 'echo {{ secrets.a }} {{ secrets.b }}');
  assert.match(document, /echo of-the-machine of-the-bundle-too/);
});

test('a secret that is generated is seen by nobody, and is another one each time', async (t) => {
  const test = await build(t);
  for (const owner of OWNERS) {
    const generate = (query = '') => test.api('POST', `${owner}/secrets/token/generate${query}`);
    const first = await generate();
    assert.deepEqual([first.statusCode, first.json().bytes, first.json().endsWithNewline], [201, 43, false], first.body);
    assert.equal(first.headers.location, `/api/v1${owner}/secrets`);
    const value = () => rendered(test, 'echo "<{{ secrets.token }}>"').then((text) => /<([\w-]*)>/.exec(text)?.[1] ?? '');
    const before = await value();
    assert.match(before, /^[\w-]{43}$/);
    const second = await generate();
    assert.deepEqual([second.statusCode, second.json().changed], [200, true]);
    assert.notEqual(await value(), before);
    assert.equal((await generate('?bytes=16')).json().bytes, 22);
    assert.equal((await generate('?bytes=1024')).json().bytes, 1366);
  }
});

test('a list has names, sizes and dates, by name, for a program and a person', async (t) => {
  const { api } = await build(t);
  for (const owner of OWNERS) {
    for (const [name, value] of Object.entries({ b: 'x\n', 'a.key': 'xyz', _c: 'x' }))
      await api('PUT', `${owner}/secrets/${name}`, value);
    for (const url of [`${owner}/secrets`, `${owner}/secrets/`]) {
      const { items, next } = (await api('GET', url)).json();
      const updatedAt = '2026-01-01T00:00:00.000Z';
      assert.equal(next, null);
      assert.deepEqual(items, [
        { name: '_c', bytes: 1, endsWithNewline: false, updatedAt },
        { name: 'a.key', bytes: 3, endsWithNewline: false, updatedAt },
        { name: 'b', bytes: 2, endsWithNewline: true, updatedAt },
      ]);
    }
    const text = await api('GET', `${owner}/secrets?format=text`);
    assert.match(text.body, /^NAME +BYTES +NEWLINE +UPDATED\n_c +1 +- +2026.*\na\.key +3 +- +2026.*\nb +2 +yes +2026/);
    assert.equal((await api('GET', `${owner}/secrets/b`)).statusCode, 404, 'there is no reading it');
  }
});

test('removed it is gone; retired with its owner it is gone, too', async (t) => {
  const { api } = await build(t);
  const names = async (owner: string) =>
    (await api('GET', `${owner}/secrets`)).json().items.map(({ name }: { name: string }) => name);
  for (const owner of OWNERS) {
    for (const name of ['a', 'b']) await api('PUT', `${owner}/secrets/${name}`, 'x');
    const removed = await api('DELETE', `${owner}/secrets/a`);
    assert.deepEqual([removed.statusCode, removed.json()], [200, { name: 'a', findings: [] }]);
    assert.deepEqual(await names(owner), ['b']);
  }
  await api('DELETE', '/instances/vm');
  await api('DELETE', '/bundles/web');
  for (const owner of OWNERS) assert.equal((await api('GET', `${owner}/secrets`)).statusCode, 404, owner);
  await api('PUT', '/bundles/web/parts/a.sh', SH);
  await api('PUT', '/instances/vm', { bundles: ['web'] });
  for (const owner of OWNERS) assert.deepEqual(await names(owner), [], owner);
});

test('a dry run answers what would happen and changes nothing', async (t) => {
  const test = await build(t);
  for (const owner of OWNERS) await test.api('PUT', `${owner}/secrets/old`, 'x');
  const before = await snapshot(test);
  for (const owner of OWNERS)
    for (const [method, url, body, status, changed] of [
      ['PUT', `${owner}/secrets/new`, 'x', 200, true],
      ['PUT', `${owner}/secrets/old`, 'y', 200, true],
      ['PUT', `${owner}/secrets/old`, 'x', 200, false],
      ['POST', `${owner}/secrets/new/generate`, undefined, 200, true],
      ['DELETE', `${owner}/secrets/old`, undefined, 200, undefined],
    ] as const) {
      const answer = await test.api(method, `${url}?dryRun=true`, body);
      assert.deepEqual([answer.statusCode, answer.json().changed, answer.headers.location], [status, changed, undefined], url);
      assert.equal(await snapshot(test), before, `${method} ${url}`);
    }
});

test('what is no secret is refused, and nothing changes', async (t) => {
  const test = await build(t);
  for (const owner of OWNERS) await test.api('PUT', `${owner}/secrets/old`, 'x');
  for (const owner of OWNERS) {
    const at = (name: string) => `${owner}/secrets/${name}`;
    const nobody = owner.replace(/\w+$/, 'none');
    await refuses(test, [
      ['nothing', ['PUT', at('a'), ''], 422, 'empty_secret'],
      ['nothing for one that is there', ['PUT', at('old'), ''], 422, 'empty_secret'],
      ['too much', ['PUT', at('a'), Buffer.alloc(LIMITS.secretBytes + 1, 'a')], 413, 'body_too_large'],
      ['a form', ['PUT', at('a'), '--x--', { 'content-type': 'multipart/form-data; boundary=x' }], 415, 'bad_content_type'],
      ['a Content-Type that is none', ['PUT', at('a'), 'x', { 'content-type': 'nonsense' }], 415, 'bad_content_type'],
      ['no name, no slash', ['PUT', `${owner}/secrets`, 'x'], 400, 'filename_missing'],
      ['no name', ['PUT', at(''), 'x'], 400, 'filename_missing'],
      ['no name, with options', ['PUT', `${at('')}?force=true`, 'x'], 400, 'filename_missing'],
      ['a resumed upload', ['PUT', at('a'), 'x', { 'content-range': 'bytes 1-1/2' }], 400, 'content_range'],
      ...['.a', '-a', '1a', 'a b', 'a/b', 'a\0', 'a\n', 'ü', '__proto__', 'a'.repeat(64)].flatMap((name) => [
        [`the name ${name}`, ['PUT', at(encodeURIComponent(name)), 'x'], 422, 'bad_secret_name'] as const,
        [`to generate ${name}`, ['POST', `${at(encodeURIComponent(name))}/generate`], 422, 'bad_secret_name'] as const,
        [`to remove ${name}`, ['DELETE', at(encodeURIComponent(name))], 422, 'bad_secret_name'] as const,
      ]),
      ['a long name', ['PUT', at('a'.repeat(1000)), 'x'], 400, 'bad_name'],
      ['no such secret', ['DELETE', at('none')], 404, 'unknown_secret'],
      ['15 bytes', ['POST', `${at('a')}/generate?bytes=15`], 400, 'bad_request'],
      ['1025 bytes', ['POST', `${at('a')}/generate?bytes=1025`], 400, 'bad_request'],
      ['half a byte', ['POST', `${at('a')}/generate?bytes=16.5`], 400, 'bad_request'],
      ['a body where there is none', ['POST', `${at('a')}/generate`, '{"bytes": 16}'], 400, 'unwanted_body'],
      ['an unknown parameter', ['PUT', `${at('a')}?nope=1`, 'x'], 400, 'bad_request'],
      ['a parameter of another call', ['PUT', `${at('a')}?bytes=16`, 'x'], 400, 'bad_request'],
      ...(['PUT', 'DELETE'] as const).flatMap((method) =>
        [{ 'if-match': '*' }, { 'if-none-match': '*' }].map(
          (condition) => [`a condition on a ${method}`, [method, at('old'), 'x', condition], 400, 'no_conditions'] as const,
        ),
      ),
      ['nobody’s', ['PUT', `${nobody}/secrets/a`, 'x'], 404, owner === '/bundles/web' ? 'unknown_bundle' : 'unknown_instance'],
      ['nobody’s list', ['GET', `${nobody}/secrets`], 404, owner === '/bundles/web' ? 'unknown_bundle' : 'unknown_instance'],
      ['a bad name’s', ['GET', `${owner.replace(/\w+$/, 'A')}/secrets`], 400, 'bad_name'],
    ]);
  }
  await refuses(test, [
    ['consent for one machine’s own', ['PUT', '/instances/vm/secrets/a?force=true', 'x'], 400, 'bad_request'],
    ['consent by a name that is none', ['PUT', '/bundles/web/secrets/a?accept=A', 'x'], 400, 'bad_name'],
  ]);
});

test('an owner has 256 secrets at most', async (t) => {
  const test = await build(t);
  const secrets = Object.fromEntries(Array.from({ length: LIMITS.secretsPerOwner }, (_, n) => [`s${n}`, 'x']));
  assert.equal((await test.api('PUT', '/instances/vm', { bundles: ['web'], secrets })).statusCode, 200);
  await refuses(test, [['one more', ['PUT', '/instances/vm/secrets/more', 'x'], 422, 'too_many_secrets']]);
  assert.equal((await test.api('PUT', '/instances/vm/secrets/s0', 'y')).statusCode, 200);
});

test('a value that spoils the document of its machine is refused, and quoted nowhere', async (t) => {
  const test = await build(t);
  for (const owner of OWNERS) await test.api('PUT', `${owner}/secrets/name`, 'fine');
  const template = '#cloud-config\nhostname: {{ secrets.name }}\n';
  assert.equal((await test.api('PUT', '/bundles/web/parts/c.cfg?template=true', template)).statusCode, 201);
  await test.api('DELETE', '/instances/vm/secrets/name');
  const spoilt = 'SPOILT-VALUE: [';
  await refuses(test, [
    ['a bundle’s', ['PUT', '/bundles/web/secrets/name', spoilt], 409, 'would_break'],
    ['a bundle’s, removed', ['DELETE', '/bundles/web/secrets/name'], 409, 'would_break'],
    ['an instance’s', ['PUT', '/instances/vm/secrets/name', spoilt], 422, 'bad_yaml'],
  ]);
  const answer = await test.api('PUT', '/bundles/web/secrets/name', spoilt);
  assert.match(answer.json().detail, /^vm has still to boot and would break: /);
  assert.doesNotMatch(answer.body, /SPOILT/);
});

test('no value is in any answer, nor in the log, whatever is done with it', async (t) => {
  const test = await build(t);
  const VALUE = 'S3CRET-value: ["';
  const forms = [VALUE, Buffer.from(VALUE).toString('base64').slice(0, 16), Buffer.from(VALUE).toString('hex'), 'S3CRET'];
  const answers: string[] = [];
  const call: TestApp['api'] = async (...args) => {
    const answer = await test.api(...args);
    answers.push(JSON.stringify(answer.headers), answer.body);
    return answer;
  };
  for (const owner of OWNERS) {
    await call('PUT', `${owner}/secrets/key`, VALUE);
    await call('PUT', `${owner}/secrets/key`, VALUE);
    await call('PUT', `${owner}/secrets/-bad`, VALUE);
    await call('PUT', `${owner}/secrets/`, VALUE);
    await call('PUT', `${owner}/secrets/key`, VALUE, { 'content-type': 'multipart/form-data; boundary=x' });
    await call('POST', `${owner}/secrets/key/generate`, VALUE);
    await call('GET', `${owner}/secrets`);
    await call('GET', `${owner}/secrets?format=text`);
  }
  const instance = { bundles: ['web'], secrets: { key: VALUE } };
  await call('PUT', '/instances/vm', instance);
  await call('PUT', '/instances/vm?dryRun=true', instance);
  await call('PUT', '/instances', [{ name: 'vm', ...instance }]);
  await call('PATCH', '/instances/vm', { secrets: { key: VALUE } });
  await call('PUT', '/instances/vm', { bundles: ['web'], secrets: [VALUE] });
  await call('PUT', '/instances/vm', { bundles: ['web'], secrets: { key: { value: VALUE } } });
  await call('PUT', '/instances/vm', { bundles: ['web'], secrets: VALUE });
  await call('PUT', '/instances/vm', { bundles: ['none'], secrets: { key: VALUE } });
  await call('PUT', '/instances/vm', `{"bundles": ["web"], "secrets": {"key": "${VALUE}`);
  await call('PUT', '/instances/vm', `bundles: [web]\nsecrets:\n  key: ${VALUE}\n`);
  await call('GET', '/instances/vm');
  // Of templates: what is wrong with them, and with what they come to.
  for (const template of [
    '{{ secrets.key }}',
    '{{ secrets.key | nope }}',
    '{{ secrets[secrets.key] }}',
    '{{ vars[secrets.key] }}',
    '{{ secrets.key | base64 | nope }}',
    '{% for a in secrets.key %}{{ a.b.c }}{% endfor %}',
    '{{ secrets.key.length.nope }}',
    '{% assign x = secrets.key %}{{ x | indent: secrets.key }}',
    '{% if secrets.key contains "S" %}: [{% endif %}',
  ])
    for (const query of ['', '&dryRun=true', '&force=true'])
      await call('PUT', `/bundles/web/parts/c.cfg?template=true${query}`, `#cloud-config\nhostname: ${template}\n`);
  await call('PUT', '/bundles/web/parts/c.cfg?template=true&force=true', '#cloud-config\nhostname: {{ secrets.key }}\n');
  for (const path of ['', '/preview', '/explain', '/explain?format=text', '/user-data', '/diff?from=now', '/stub'])
    await call('GET', `/instances/vm${path}`);
  for (const path of ['', '/parts/c.cfg', '/revisions', '/diff', '/vars']) await call('GET', `/bundles/web${path}`);
  await test.app.inject('/openapi.json').then(({ body }) => answers.push(body));
  for (const owner of OWNERS) await call('DELETE', `${owner}/secrets/key?dryRun=true`);
  assert.ok(answers.length > 100);
  for (const text of [...answers, test.log()]) for (const form of forms) assert.ok(!text.includes(form), `${form} in ${text}`);
  const revealed = await test.api('GET', '/instances/vm/user-data?reveal=true');
  assert.ok(revealed.body.includes('S3CRET'), 'else this test looks for nothing');
  assert.ok(!test.log().includes('S3CRET'));
});

test('a secret that goes away while a registration is looked at is missed before anything is written', async (t) => {
  const real = await openStore({ file: ':memory:' });
  let between: (() => Promise<unknown>) | null = null;
  const store: Store = {
    ...real,
    putInstances: async (writes, change) => {
      const first = between;
      between = null;
      await first?.();
      return real.putInstances(writes, change);
    },
  };
  const test = await buildTestApp(t, { store });
  await test.register('vm', { 'web/a.sh': SH });
  await test.api('PUT', '/instances/vm/secrets/key', 'value');
  await test.api('PUT', '/bundles/web/parts/t.sh?template=true', `${SH}{{ secrets.key }}\n`);
  const spec = {
    bundles: [],
    vars: {},
    labels: {},
    metaData: {},
    vendorData: null,
    networkConfig: null,
    policy: {},
    track: true,
  };
  const without = { name: 'vm', spec, freshId: '', expect: undefined, secrets: new Map([['key', null]]) };
  for (const secrets of [{ key: 'value' }, {}]) {
    await test.api('PUT', '/instances/vm', { bundles: ['web'], secrets: { key: 'value' } });
    between = () => real.putInstances([without], { at: START, by: ANN });
    const answer = await test.api('PUT', '/instances/vm', { bundles: ['web'], secrets });
    const { document } = (await test.api('GET', '/instances/vm')).json().status;
    // Set anew where the caller stated it, else told to be missing: never a machine without its document.
    assert.deepEqual([answer.statusCode, document === null], 'key' in secrets ? [200, false] : [422, false], answer.body);
  }
});

test('a dry run of a new machine is judged with the secrets it brings', async (t) => {
  const { api } = await build(t);
  await api('PUT', '/instances/vm/secrets/key', 'value');
  await api('PUT', '/bundles/web/parts/t.sh?template=true', `${SH}{{ secrets.key }}\n`);
  const instance = { bundles: ['web'], secrets: { key: 'value' } };
  const dry = await api('PUT', '/instances/new?dryRun=true', instance);
  assert.equal(dry.statusCode, 200, dry.body);
  const { findings, document } = (await api('PUT', '/instances/new', instance)).json().status;
  assert.deepEqual(dry.json().status.findings, findings);
  assert.equal(dry.json().status.document.parts.length, document.parts.length);
});

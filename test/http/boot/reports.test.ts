import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Purpose } from '../../../src/domain/instance.ts';
import { LIMITS } from '../../../src/domain/limits.ts';
import type { OnReport } from '../../../src/http/boot/reports.ts';
import { buildTestApp } from '../../app.ts';

const RESULT = {
  id: 'r-1',
  file: '03-db.yaml',
  part: '03-db.yaml',
  sha256: 'a'.repeat(64),
  status: 'applied',
  attempts: 2,
  client: 'kubectl',
  clientVersion: 'v1.30.1',
  output: 'pod/db created\n',
  at: Date.UTC(2026, 0, 1, 0, 0, 5),
};

/** An app with one registered machine that reports. */
async function machine(t: TestContext) {
  const outcomes: string[] = [];
  const onReport: OnReport = (kind, outcome) => outcomes.push(`${kind} ${outcome}`);
  const test = { ...(await buildTestApp(t, { onReport })), outcomes };
  await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const url = async (purpose: Purpose = 'report', name = 'vm') => {
    const instance = await test.store.findInstance(name);
    assert.ok(instance);
    return `/r/${test.keys.capability(purpose, instance)}/manifests`;
  };
  /** What a machine posts below its report URL. */
  const say = async (what: string, body: string | Buffer, headers: Record<string, string> = {}) =>
    test.app.inject({ method: 'POST', url: (await url()).replace('manifests', what), headers, payload: body });
  const kept = async () => (await test.store.listReports('vm', { after: null, limit: 1000 })).reverse();
  const post = async (body: unknown, { path, type = 'application/json' }: { path?: string; type?: string | null } = {}) =>
    test.app.inject({
      method: 'POST',
      url: path ?? (await url()),
      ...(type === null ? {} : { headers: { 'content-type': type } }),
      payload: typeof body === 'string' ? body : JSON.stringify(body),
    });
  const timeline = async () => (await test.api('GET', '/instances/vm/timeline')).json();
  return { ...test, url, post, say, kept, timeline };
}

test('a manifest’s result is kept, once, and stands in the timeline', async (t) => {
  const { post, timeline, tick } = await machine(t);
  tick(1000);
  for (const type of ['application/json', 'text/plain', null]) {
    const answer = await post({ ...RESULT, later: 'a newer applier says more' }, { type });
    assert.deepEqual([answer.statusCode, answer.body], [204, '']);
  }
  const { items } = await timeline();
  assert.deepEqual(items, [
    { at: '2026-01-01T00:00:00.000Z', kind: 'registered', version: 1, by: 'admin' },
    { at: '2026-01-01T00:00:01.000Z', kind: 'manifest', manifest: { ...RESULT, at: '2026-01-01T00:00:05.000Z' } },
  ]);
});

test('the timeline has fetches and results in the order in which they came, newest last, and as lines', async (t) => {
  const { api, boot, post, tick, app } = await machine(t);
  const { url } = (await api('GET', '/instances/vm')).json().status.stub;
  await boot(new URL(url).pathname, { headers: { 'user-agent': 'Cloud-Init/25.1' } });
  tick(5);
  await post({ ...RESULT, id: 'r-0', status: 'failed', attempts: 1, output: 'error: \u001b[31munknown field\nline two\n' });
  tick(5);
  await post(RESULT);
  const lines = (await api('GET', '/instances/vm/timeline?format=text')).body;
  assert.match(
    lines,
    /^2026-01-01T00:00:00.000Z {2}registered by admin\n2026-01-01T00:00:00.000Z {2}fetched by 127.0.0.1 \(Cloud-Init\/25.1\): web@1 \(\d+ bytes, [0-9a-f]{12}\)\n2026-01-01T00:00:00.005Z {2}manifest 03-db.yaml: failed by kubectl v1.30.1, 1 attempt\n {4}error: \?\[31munknown field\n {4}line two\n2026-01-01T00:00:00.010Z {2}manifest 03-db.yaml: applied by kubectl v1.30.1, 2 attempts\n$/,
  );
  await post({ ...RESULT, id: 'r-2', client: undefined, clientVersion: undefined, status: 'retrying' });
  assert.match((await api('GET', '/instances/vm/timeline?format=text')).body, /manifest 03-db.yaml: retrying, 2 attempts\n/);
  const limited = (await api('GET', '/instances/vm/timeline?limit=1')).json();
  assert.deepEqual(
    limited.items.map(({ kind }: { kind: string }) => kind),
    ['manifest'],
  );
  assert.equal(app.hasRoute({ method: 'GET', url: '/r/:capability/manifests' }), false);
});

test('what is no report is refused with a 4xx, in one line, and nothing is kept', async (t) => {
  const { post, timeline, url } = await machine(t);
  const bad: [unknown, number][] = [
    ['', 400],
    ['{', 400],
    ['[]', 400],
    ['null', 400],
    ['{"__proto__": {"id": "x"}}', 400],
    ['['.repeat(20_000), 400],
    [{ ...RESULT, status: 'done' }, 400],
    [{ ...RESULT, attempts: '2' }, 400],
    [{ ...RESULT, at: -1 }, 400],
    [{ ...RESULT, at: 1e300 }, 400],
    [{ ...RESULT, id: '' }, 400],
    [{ ...RESULT, file: undefined }, 400],
    [{ ...RESULT, output: 'x'.repeat(20_000) }, 400],
    [{ ...RESULT, output: 'x'.repeat(LIMITS.reportBytes) }, 413],
  ];
  for (const [body, status] of bad) {
    const answer = await post(body);
    assert.equal(answer.statusCode, status, JSON.stringify(body).slice(0, 100));
    assert.match(answer.body, /^[^\n]+\n$/);
  }
  for (const path of [
    await url('include'),
    await url('seed'),
    (await url()).replace(/.{3}\/manifests/, 'AAA/manifests'),
    '/r/x/manifests',
  ]) {
    const answer = await post(RESULT, { path });
    assert.deepEqual([answer.statusCode, answer.body], [404, 'not found\n']);
  }
  assert.equal((await timeline()).items.length, 1);
});

test('hostile text in every field is kept as it is said, and shown without control characters', async (t) => {
  const { api, post } = await machine(t);
  const evil = '<script>\u001b]0;x\u0007\u202e\0';
  const { statusCode } = await post({
    ...RESULT,
    id: evil,
    file: evil,
    part: evil,
    sha256: evil,
    client: evil,
    clientVersion: evil,
    output: evil,
    status: 'failed',
  });
  assert.equal(statusCode, 204);
  const { body } = await api('GET', '/instances/vm/timeline?format=text');
  assert.doesNotMatch(body.replaceAll('\n', ''), /[\p{Cc}\p{Cf}]/u);
  assert.equal((await api('GET', '/instances/vm/timeline')).json().items[1].manifest.file, evil);
});

test('a deleted instance’s report URL is dead, and so is the old one when its name is revived', async (t) => {
  const { api, post, url } = await machine(t);
  const path = await url();
  await api('DELETE', '/instances/vm');
  assert.equal((await post(RESULT, { path })).statusCode, 404);
  await api('PUT', '/instances/vm', { bundles: [] });
  assert.equal((await post(RESULT, { path })).statusCode, 404);
  assert.equal((await post(RESULT)).statusCode, 204);
});

test('a retired instance’s timeline stays readable and ends in its retirement', async (t) => {
  const { api, post, tick, timeline } = await machine(t);
  tick(1000);
  await post(RESULT);
  tick(1000);
  await api('DELETE', '/instances/vm');
  const kinds = async () => (await timeline()).items.map(({ kind, at }: Record<string, string>) => [kind, at?.slice(17, 19)]);
  assert.deepEqual(await kinds(), [
    ['registered', '00'],
    ['manifest', '01'],
    ['retired', '02'],
  ]);
  assert.match(
    (await api('GET', '/instances/vm/timeline?format=text')).body,
    /\n2026-01-01T00:00:02\.000Z {2}retired by admin\n$/,
  );
});

test('past the limit the oldest reports are dropped and counted', async (t) => {
  const { post, store, timeline } = await machine(t);
  const instance = await store.findInstance('vm');
  for (let n = 0; n < LIMITS.reportsPerInstance; n++)
    await store.recordReport({
      instanceId: instance?.id ?? '',
      at: 1,
      generation: 0,
      body: { kind: 'manifest', manifest: { ...RESULT, id: `${n}`, status: 'applied' } },
      key: `${n}`,
      limit: LIMITS.reportsPerInstance,
    });
  assert.equal((await post({ ...RESULT, id: 'one more' })).statusCode, 204);
  const { items, reportsDropped } = await timeline();
  assert.equal(reportsDropped, 1);
  assert.equal(items.at(-1).manifest.id, 'one more');
});

test('the report URL comes with the document only: a handler that asks for it gets it', async (t) => {
  const { api, boot, register, url } = await machine(t);
  const path = await register('node', {
    'h/h.py': '#part-handler\ndef list_types():\n    return ["text/x-bootbundle-config"]\ndef handle_part(*a):\n    pass\n',
  });
  const { body } = await boot(path);
  const config = JSON.parse(/^\{"instance".*$/m.exec(body)?.[0] ?? '');
  const instance = (await api('GET', '/instances/node')).json();
  assert.deepEqual(config.instance, { name: 'node', id: instance.status.id });
  assert.equal(`${new URL(config.report).pathname}/manifests`, await url('report', 'node'));
  assert.doesNotMatch(JSON.stringify(instance), /\/r\//);
});

const EVENT = {
  name: 'modules-final/config-scripts-user',
  description: 'running config-scripts-user with frequency once-per-instance',
  event_type: 'finish',
  origin: 'cloudinit',
  timestamp: 1795407549.2057288,
  result: 'FAIL',
};
/** What cloud-init 25.1.4 posted, shortened. */
const HOME =
  'pub_key_ed25519=ssh-ed25519+AAAAC3NzaC1lZDI1NTE5AAAAIFdKRbYIaXuPUZ34kJjrvHJbTWsgu6iVrJDR3wLRA6ij+root%40rig-node%0A&pub_key_rsa=N%2FA&instance_id=iid-rig-01&hostname=rig-node&fqdn=rig-node.example.org';
const FORM = { 'content-type': 'application/x-www-form-urlencoded' };

test('an event is kept as cloud-init posts it: without a Content-Type, with fields that nobody asked for, once', async (t) => {
  const { say, kept, outcomes } = await machine(t);
  for (const headers of [{}, { 'content-type': 'application/json' }, { 'content-type': 'text/html; charset=utf-16' }])
    assert.deepEqual((await say('events', JSON.stringify(EVENT), headers)).statusCode, 204);
  await say('events', JSON.stringify({ ...EVENT, timestamp: EVENT.timestamp + 1, event_type: 'start', result: undefined }));
  await say('events', JSON.stringify({ ...EVENT, event_type: 'diagnostic' }));
  const { name, description, result } = EVENT;
  assert.deepEqual(
    (await kept()).map((report) => report.kind === 'event' && report.event),
    [
      { name, type: 'finish', description, result, at: 1795407549206 },
      { name, type: 'start', description, result: null, at: 1795407550206 },
    ],
  );
  assert.deepEqual(outcomes, ['event stored', 'event repeated', 'event repeated', 'event stored', 'event ignored']);
});

test('a phone-home is kept with the fingerprints of its host keys', async (t) => {
  const { say, kept } = await machine(t);
  assert.equal((await say('phone-home', HOME, FORM)).statusCode, 204);
  const [report] = await kept();
  assert.deepEqual(report?.kind === 'phoneHome' && report.phoneHome, {
    instanceId: 'iid-rig-01',
    hostname: 'rig-node',
    fqdn: 'rig-node.example.org',
    hostKeys: [
      {
        kind: 'ed25519',
        key: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFdKRbYIaXuPUZ34kJjrvHJbTWsgu6iVrJDR3wLRA6ij root@rig-node',
        fingerprint: 'SHA256:FDhcEX7ota72w16iD6uP2ZG6/9t4udgNGBForIxMQ8g',
      },
    ],
  });
});

test('the ends of logs are kept as they came, and a capability that they quote is nobody’s to read', async (t) => {
  const { say, kept, url } = await machine(t);
  const capability = (await url()).split('/')[2] ?? '';
  const text = `Grüße\0\u001b[31m posting http://192.0.2.10:8080/r/${capability}/events failed\n`;
  assert.equal((await say('logs/cloud-init-output.log?truncated=true', Buffer.from(text))).statusCode, 204);
  assert.equal((await say('logs/result.json', Buffer.from('{"v1": {"errors": []}}\xff', 'latin1'))).statusCode, 204);
  await say('events', JSON.stringify({ ...EVENT, description: `found http://192.0.2.10:8080/s/${capability}/` }));
  const [output, result, event] = await kept();
  const hidden = text.replace(capability, '‹capability›');
  assert.deepEqual(output?.kind === 'log' && output.log, { name: 'cloud-init-output.log', text: hidden, truncated: true });
  assert.deepEqual(result?.kind === 'log' && [result.log.text, result.log.truncated], ['{"v1": {"errors": []}}\ufffd', false]);
  assert.equal(event?.kind === 'event' && event.event.description, 'found http://192.0.2.10:8080/s/‹capability›/');
});

test('reports that are none are refused in one line, counted, and nothing is kept', async (t) => {
  const { say, kept, outcomes, log, url } = await machine(t);
  const event = (change: object) => JSON.stringify({ ...EVENT, ...change });
  const huge = Buffer.alloc(10 * 1024 * 1024, 'x');
  const bad: [what: string, body: string | Buffer, status: number][] = [
    ...['', 'null', '[]', '{', '"x"', '<html>', '['.repeat(16_000), '{"a":'.repeat(3000)].map(
      (body): [string, string, number] => ['events', body, 400],
    ),
    ['events', Buffer.from('fffe7b007d00', 'hex'), 400],
    ['events', Buffer.from(event({}).replace('FAIL', '\0')), 400],
    ['events', `{"__proto__": ${event({})}}`, 400],
    ['events', event({ name: '' }), 400],
    ['events', event({ name: null }), 400],
    ['events', event({ name: 'a lone surrogate \ud800' }), 400],
    ['events', event({ event_type: 1 }), 400],
    ['events', event({ timestamp: '1' }), 400],
    ['events', event({ timestamp: -1 }), 400],
    ['events', event({ timestamp: 1e300 }), 400],
    ['events', event({ result: {} }), 400],
    ['events', event({ description: 'x'.repeat(LIMITS.eventBytes) }), 413],
    ['events', huge, 413],
    ['phone-home', '', 400],
    ['phone-home', '<html>&&&&', 400],
    ['phone-home', '{"instance_id": "i"}', 400],
    ['phone-home', 'instance_id=', 400],
    ['phone-home', 'instance_id=a&instance_id=b', 400],
    ['phone-home', Buffer.from('instance_id=\xff', 'latin1'), 400],
    ['phone-home', huge, 413],
    ['logs/result.json', '', 400],
    ['logs/result.json', huge, 413],
  ];
  for (const [what, body, status] of bad) {
    const answer = await say(what, body);
    assert.equal(answer.statusCode, status, `${what} ${body.toString().slice(0, 60)}`);
    assert.match(answer.body, /^[^\p{Cc}<]{1,200}\n$/u);
    assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
  }
  assert.deepEqual([...new Set(outcomes)].sort(), ['event refused', 'log refused', 'phoneHome refused']);
  assert.equal(outcomes.length, bad.length);
  for (const what of ['logs/', 'logs/passwd', 'logs/..%2fresult.json', 'logs', 'events/x', 'event']) {
    const answer = await say(what, 'x');
    assert.deepEqual([answer.statusCode, answer.body], [404, 'not found\n'], what);
  }
  assert.deepEqual(await kept(), []);
  assert.doesNotMatch(log(), new RegExp((await url()).split('/')[2] ?? '?'));
});

test('a made-up capability is refused before anything of its body is read', async (t) => {
  const { app, outcomes, url } = await machine(t);
  const paths = [
    await url('include'),
    await url('seed'),
    (await url()).replace(/.{4}\/manifests/, 'AAAA/manifests'),
    '/r/x/manifests',
  ];
  for (const path of paths)
    for (const what of ['events', 'phone-home', 'logs/result.json', 'manifests']) {
      const answer = await app.inject({ method: 'POST', url: path.replace('manifests', what), payload: '{' });
      assert.deepEqual([answer.statusCode, answer.body], [404, 'not found\n']);
    }
  assert.equal(outcomes.length, 16);
});

test('hostile text in every field is kept as it is said, cut to what is kept', async (t) => {
  const { say, kept } = await machine(t);
  const evil = '__proto__ <script>alert(1)</script> \u0000\u001b]0;x\u0007 \u202e';
  await say(
    'events',
    JSON.stringify({ ...EVENT, name: evil, description: evil.repeat(40), result: evil, origin: evil, __proto__: evil }),
  );
  const form = new URLSearchParams({
    instance_id: evil,
    hostname: 'x'.repeat(9999),
    fqdn: evil,
    pub_key_rsa: evil,
    pub_key___proto__: 'x',
  });
  form.append('pub_key_constructor', '\n');
  await say('phone-home', form.toString(), FORM);
  const [event, home] = await kept();
  assert.ok(event?.kind === 'event' && home?.kind === 'phoneHome');
  assert.equal(event.event.name, evil);
  assert.deepEqual([event.event.description.length, event.event.result], [1000, evil.slice(0, 20)]);
  assert.deepEqual(
    [home.phoneHome.hostname.length, home.phoneHome.hostKeys.map(({ kind, fingerprint }) => [kind, fingerprint])],
    [255, [['rsa', null]]],
  );
});

test('a machine that says more than a machine may is told to wait, and the others are not', async (t) => {
  const { app, say, tick, outcomes, register, url, log } = await machine(t);
  const send = (timestamp: number) => say('events', JSON.stringify({ ...EVENT, timestamp }));
  for (let n = 0; n < LIMITS.reportBurst; n++) await send(n);
  const answer = await send(1e6);
  assert.deepEqual([answer.statusCode, answer.headers['retry-after']], [429, '5']);
  assert.match(answer.body, /^[^\n]+\n$/);
  await register('other', {});
  const other = (await url('report', 'other')).replace('manifests', 'events');
  assert.equal((await app.inject({ method: 'POST', url: other, payload: JSON.stringify(EVENT) })).statusCode, 204);
  tick(1000);
  for (let n = 0; n < LIMITS.reportsPerSecond; n++) assert.equal((await send(1e6 + n)).statusCode, 204);
  assert.equal((await send(2e6)).statusCode, 429);
  assert.equal(outcomes.filter((outcome) => outcome === 'event limited').length, 2);
  assert.doesNotMatch(log(), /"level":50/);
});

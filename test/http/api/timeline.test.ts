import assert from 'node:assert/strict';
import { get, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LIMITS } from '../../../src/domain/limits.ts';
import type { LogName } from '../../../src/domain/report.ts';
import { buildTestApp, refuses, START, TOKEN } from '../../app.ts';
import { MANIFEST, storeWithRows } from '../../rows.ts';

const SH = '#!/bin/sh\necho hello\n';
const EXPECTS = { events: true, phoneHome: true, manifests: ['db.yaml'] };
const EVIL = 'x\n2026-01-01T00:00:00.000Z  ready: \u001b[31m\u009b2J\u202e\u2028\u0000\ud800';

async function bench(t: TestContext) {
  const { store, rows } = await storeWithRows(t);
  const app = await buildTestApp(t, { store });
  return { ...app, rows };
}

test('a good boot reads as a short story', async (t) => {
  const { api, rows, register, boot, tick } = await bench(t);
  const path = await register('vm', { 'web/a.sh': SH });
  tick(1000);
  await boot(path, { headers: { 'user-agent': 'Cloud-Init/25.1' }, remoteAddress: '192.0.2.77' });
  const at = (second: number) => START + second * 1000;
  for (const [second, name] of [
    [2, 'init-network'],
    [4, 'modules-config'],
    [6, 'modules-final'],
  ] as const) {
    await rows.event('vm', at(second), { name, type: 'start' });
    for (let n = 0; n < 20; n++) await rows.event('vm', at(second), { name: `${name}/config-${n}`, result: 'SUCCESS' });
    await rows.event('vm', at(second + 1), { name, result: 'SUCCESS', description: 'all well' });
  }
  await rows.report('vm', at(8), {
    kind: 'phoneHome',
    phoneHome: {
      ...{ instanceId: 'i-1', hostname: 'vm', fqdn: 'vm.example.com' },
      hostKeys: [
        { kind: 'ed25519', key: 'ssh-ed25519 AAAA', fingerprint: 'SHA256:abc' },
        { kind: 'rsa', key: '?', fingerprint: null },
      ],
    },
  });
  await rows.report('vm', at(9), { kind: 'log', log: { name: 'cloud-init-output.log', text: 'hello\n', truncated: true } });
  await rows.report('vm', at(10), { kind: 'manifest', manifest: MANIFEST });
  await rows.alarm('vm', { at: at(11), lastAt: at(20), count: 4, kind: 'late_fetch' });
  const { body, headers } = await api('GET', '/instances/vm/timeline?format=text');
  assert.equal(headers['content-type'], 'text/plain; charset=utf-8');
  assert.deepEqual(
    body
      .replace(/ \(\d+ bytes, [0-9a-f]{12}\)/, ' (BYTES)')
      .replaceAll('2026-01-01T00:', '')
      .split('\n'),
    [
      '00:00.000Z  registered by admin',
      '00:01.000Z  fetched by 192.0.2.77 (Cloud-Init/25.1): web@1 (BYTES)',
      '00:03.000Z  init-network: SUCCESS after 1.0 s (all well)',
      '00:05.000Z  modules-config: SUCCESS after 1.0 s (all well)',
      '00:07.000Z  modules-final: SUCCESS after 1.0 s (all well)',
      '00:08.000Z  phoned home as vm, vm.example.com; instance-id i-1; SSH host keys ed25519 SHA256:abc, rsa no key',
      '00:09.000Z  sent the end of cloud-init-output.log (6 bytes): /api/v1/instances/vm/logs/cloud-init-output.log',
      '00:10.000Z  manifest 01-db.yaml: applied by kubectl v1.30.0, 1 attempt',
      '00:11.000Z  ALARM late_fetch: a fetch after the window closed, 4 times until 00:20.000Z, by 198.51.100.9 (curl/8)',
      '',
    ],
  );
});

test('every kind of event is what the OpenAPI document says, verbose or not', async (t) => {
  const { api, rows, register, boot } = await bench(t);
  await boot(await register('vm', { 'web/a.sh': SH }));
  await rows.delivery('vm', { at: START + 1, outcome: 'refused', refusal: 'address', counted: false });
  await rows.event('vm', START + 2, { name: 'modules-final/x', result: 'FAIL', description: 'no' });
  await rows.event('vm', START + 3, { name: 'modules-final', type: 'start' });
  const phoneHome = { instanceId: '', hostname: '', fqdn: '', hostKeys: [{ kind: 'rsa', key: '', fingerprint: null }] };
  await rows.report('vm', START + 4, { kind: 'phoneHome', phoneHome });
  await rows.report('vm', START + 5, { kind: 'log', log: { name: 'a/b' as LogName, text: '', truncated: false } });
  await rows.report('vm', START + 6, { kind: 'manifest', manifest: { ...MANIFEST, status: 'failed', output: 'no\nway' } });
  await rows.alarm('vm', { at: START + 7, kind: 'second_machine' });
  for (const [action, before, after] of [
    ['put', 'x.1', 'x.2'],
    ['close', 'x.2', 'x.2'],
    ['reopen', 'x.2', 'x.2'],
    ['rotate', 'x.2', 'x.3'],
    ['delete', 'x.3', null],
  ] as const)
    await rows.audit('vm', { at: START + 8, action, before, after });
  await rows.boot('vm', {
    deliveredAt: START,
    expects: EXPECTS,
    failures: [{ what: 'x', description: '', clock: 0 }],
    readyAt: START + 9,
  });
  const kinds = async (query: string) => {
    const { items } = (await api('GET', `/instances/vm/timeline${query}`)).json();
    return items.map(({ kind }: { kind: string }) => kind);
  };
  const after = ['phoneHome', 'log', 'manifest', 'alarm', 'changed', 'retired', 'closed', 'reopened', 'rotated', 'ready'];
  assert.deepEqual(await kinds(''), ['registered', 'fetched', 'refused', 'stage', 'stage', 'failed', ...after]);
  assert.deepEqual(await kinds('?verbose=true'), ['registered', 'fetched', 'refused', 'event', 'failed', 'event', ...after]);
  assert.deepEqual(await kinds('?limit=2'), ['rotated', 'ready']);
  const { body } = await api('GET', '/instances/vm/timeline?format=text');
  assert.match(body, /manifest 01-db\.yaml: failed by kubectl v1\.30\.0, 1 attempt\n {4}no\n {4}way\n/);
  assert.match(body, /refused the document by 192\.0\.2\.1 \(Cloud-Init\/25\.1\): its policy does not allow the address\n/);
  assert.match(body, /logs\/a%2Fb\n/);
});

test('silence is told with its reason, when the deadline has passed', async (t) => {
  const { api, register, tick } = await bench(t);
  await register('vm', { 'web/a.sh': SH });
  const last = async () => (await api('GET', '/instances/vm/timeline?format=text')).body.trimEnd().split('\n').at(-1);
  tick(24 * 3_600_000 - 1);
  assert.match((await last()) ?? '', /registered by admin$/);
  tick(1);
  assert.equal(
    await last(),
    '2026-01-02T00:00:00.000Z  silent: no word since 2026-01-01T00:00:00.000Z: it has not fetched its document yet',
  );
});

test('whatever a machine says, a line stays a line and a terminal itself', async (t) => {
  const { api, rows, register, app } = await bench(t);
  await register('vm', { 'web/a.sh': SH });
  const long = EVIL.repeat(5000);
  await rows.event('vm', START, { name: EVIL, result: 'FAIL', description: long });
  const hostKeys = [{ kind: EVIL, key: EVIL, fingerprint: EVIL }];
  await rows.report('vm', START, { kind: 'phoneHome', phoneHome: { instanceId: EVIL, hostname: EVIL, fqdn: long, hostKeys } });
  await rows.report('vm', START, { kind: 'log', log: { name: EVIL as LogName, text: EVIL, truncated: false } });
  const manifest = { ...MANIFEST, file: EVIL, client: EVIL, status: 'failed' as const, output: EVIL };
  await rows.report('vm', START, { kind: 'manifest', manifest });
  await rows.delivery('vm', { at: START, address: EVIL, userAgent: EVIL, outcome: 'refused', refusal: 'closed' });
  await rows.boot('vm', { deliveredAt: START, expects: EXPECTS, failures: [{ what: EVIL, description: EVIL, clock: 0 }] });
  const { body } = await api('GET', '/instances/vm/timeline?format=text');
  assert.doesNotMatch(body.replaceAll('\n', ''), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  const lines = body.trimEnd().split('\n');
  assert.equal(lines.filter((line) => !/^(2026-01-01T00:00:00\.000Z| {4}|1970)/.test(line)).length, 0);
  assert.ok(lines.every((line) => line.length < 2000));
  assert.ok(!lines.some((line) => /^\S+ {2}ready/.test(line)), 'no line of ours is forged');

  const json = await app.inject({ url: '/api/v1/instances/vm/timeline', headers: { authorization: `Bearer ${TOKEN}` } });
  assert.doesNotMatch(json.body.replaceAll('\n', ''), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  const told = json.json().items.find(({ kind }: { kind: string }) => kind === 'phoneHome');
  assert.equal(told.phoneHome.hostname, EVIL, 'it is what the machine said, all the same');
});

test('a timeline that cannot be shown is refused', async (t) => {
  const test = await bench(t);
  await test.register('vm', { 'web/a.sh': SH });
  await refuses(test, [
    ['of nobody', ['GET', '/instances/none/timeline'], 404, 'unknown_instance'],
    ['of nobody, followed', ['GET', '/instances/none/timeline?follow=true'], 404, 'unknown_instance'],
    ['of a bad name', ['GET', '/instances/A/timeline?follow=true'], 400, 'bad_name'],
    ['from a wrong id', ['GET', '/instances/vm/timeline?follow=true', undefined, { 'last-event-id': 'x' }], 400, 'bad_cursor'],
    ['too many', ['GET', '/instances/vm/timeline?limit=1001'], 400, 'bad_request'],
    ['followed maybe', ['GET', '/instances/vm/timeline?follow=maybe'], 400, 'bad_request'],
  ]);
});

/** An app that listens, and streams of it. */
async function listening(t: TestContext) {
  const test = await bench(t);
  await test.register('vm', { 'web/a.sh': SH });
  await test.app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = test.app.server.address() as AddressInfo;
  const open = (path: string, headers: Record<string, string> = {}) =>
    new Promise<IncomingMessage>((resolve, reject) => {
      const options = { port, path: `/api/v1${path}`, headers: { authorization: `Bearer ${TOKEN}`, ...headers } };
      const request = get(options, resolve).on('error', reject);
      t.after(() => request.destroy());
    });
  const follow = async (query = '', headers: Record<string, string> = {}) => {
    const answer = await open(`/instances/vm/timeline?follow=true${query}`, headers);
    answer.setEncoding('utf8').on('error', () => undefined);
    let text = '';
    answer.on('data', (chunk) => {
      text += chunk;
    });
    /** Waits until so much was written. */
    const until = async (pattern: RegExp) => {
      for (let waited = 0; !pattern.test(text); waited += 10) {
        if (waited > 5000) throw new Error(`no ${pattern} in: ${text}`);
        await sleep(10);
      }
      return text;
    };
    return { answer, until, text: () => text };
  };
  return { ...test, port, open, follow };
}

test('followed, events come as they happen; a new connection goes on after the last', async (t) => {
  const { rows, follow } = await listening(t);
  const first = await follow();
  assert.equal(first.answer.headers['content-type'], 'text/event-stream; charset=utf-8');
  assert.equal(first.answer.headers['cache-control'], 'no-store');
  const text = await first.until(/registered/);
  const [, id = ''] =
    /^retry: 2000\n\nid: (\S+)\ndata: \{"at":"2026-01-01T00:00:00\.000Z",[^\n]*"kind":"registered"[^\n]*\}\n\n$/.exec(text) ??
    [];
  assert.match(id, /^\d+\.\d+\.\d+\.\d+\.registered$/);
  await rows.report('vm', START + 5, { kind: 'log', log: { name: EVIL as LogName, text: '', truncated: false } });
  const line = (await first.until(/"log"/)).split('\n').find((each) => each.includes('"log"')) ?? '';
  assert.equal(JSON.parse(line.replace(/^data: /, '')).log.name, EVIL);
  first.answer.destroy();
  await rows.alarm('vm', { at: START + 6, kind: 'old_stub' });
  const second = await follow('', { 'last-event-id': id });
  const again = await second.until(/"alarm"/);
  assert.match(again, /"log"/);
  assert.doesNotMatch(again, /registered"/);
});

test('as text it is lines and nothing else', async (t) => {
  const { rows, follow } = await listening(t);
  const { answer, until } = await follow('&format=text');
  assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
  await until(/registered by admin\n$/);
  await rows.alarm('vm', { at: START + 6, kind: 'old_stub' });
  assert.match(await until(/ALARM/), /^\S+ {2}registered by admin\n\S+ {2}ALARM old_stub: [^\n]+\n$/);
});

test('a server that stops ends its streams, and begins none', async (t) => {
  const { app, follow } = await listening(t);
  const streams = [await follow(), await follow('&format=text')];
  for (const { until } of streams) await until(/registered/);
  const ends = streams.map(({ answer }) => new Promise((resolve) => answer.once('end', resolve)));
  const began = performance.now();
  await app.close();
  await Promise.all(ends);
  assert.ok(performance.now() - began < 2000);
});

test('so many follow at a time, and who went away counts no more', async (t) => {
  const { app, api, open, follow } = await listening(t);
  app.server.maxConnections = LIMITS.followers + 50;
  const streams = await Promise.all(Array.from({ length: LIMITS.followers }, () => open('/instances/vm/timeline?follow=true')));
  const full = await api('GET', '/instances/vm/timeline?follow=true');
  assert.deepEqual([full.statusCode, full.json().code, full.headers['retry-after']], [503, 'too_many_standing', '5']);
  assert.equal((await api('GET', '/instances/vm/timeline')).statusCode, 200);
  for (const stream of streams) stream.destroy();
  for (let waited = 0; ; waited += 20) {
    const { answer } = await follow();
    if (answer.statusCode === 200) return;
    assert.ok(waited < 4000);
    await sleep(20);
  }
});

test('a HEAD, and a refused follower, hold no place', async (t) => {
  const { app, api } = await bench(t);
  const headers = { authorization: `Bearer ${TOKEN}` };
  await api('PUT', '/instances/vm', { bundles: [] });
  for (let n = 0; n <= LIMITS.followers; n++)
    assert.equal((await api('GET', '/instances/none/timeline?follow=true')).statusCode, 404);
  const head = await app.inject({ method: 'HEAD', url: '/api/v1/instances/vm/timeline?follow=true', headers });
  assert.equal(head.statusCode, 200);
});

test('a stream lives on where an ordinary connection that lies still is cut', async (t) => {
  const { app, rows, follow } = await listening(t);
  app.server.setTimeout(100);
  const stream = await follow('&format=text');
  await stream.until(/registered/);
  await sleep(400);
  await rows.alarm('vm', { at: START + 6, kind: 'old_stub' });
  await stream.until(/ALARM/);
});

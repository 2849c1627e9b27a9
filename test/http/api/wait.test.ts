import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildTestApp, refuses, START, TOKEN } from '../../app.ts';
import { storeWithRows } from '../../rows.ts';

const EXPECTS = { events: true, phoneHome: false, manifests: [] };
const BOOTING = { deliveredAt: START, expects: EXPECTS, lastWordAt: START };
const READY = { ...BOOTING, finalAt: START, finalClock: START, readyAt: START };
const FAILED = {
  ...BOOTING,
  failures: [{ what: 'modules-final/config-scripts-user', description: '', clock: 0 }],
  errors: [{ what: 'scripts-user', description: 'exit\u001b code', clock: 0 }],
};

async function bench(t: TestContext) {
  const { store, rows } = await storeWithRows(t);
  const app = await buildTestApp(t, { store });
  const put = async (name: string, labels = {}) => {
    assert.equal((await app.api('PUT', `/instances/${name}`, { bundles: [], labels })).statusCode, 201);
  };
  return { ...app, rows, put };
}

test('a machine that is ready ends the call at once, with its state', async (t) => {
  const { api, rows, put } = await bench(t);
  await put('vm');
  await rows.boot('vm', READY);
  const { statusCode, body } = await api('GET', '/instances/vm/wait');
  assert.deepEqual(
    [statusCode, JSON.parse(body)],
    [
      200,
      {
        name: 'vm',
        state: { state: 'ready', reason: 'it reported that all it was asked for is done', since: '2026-01-01T00:00:00.000Z' },
      },
    ],
  );
  assert.equal(
    (await api('GET', '/instances/vm/wait?format=text')).body,
    'NAME  STATE  REASON\nvm    ready  it reported that all it was asked for is done\n',
  );
});

test('one that gets there meanwhile ends it then', async (t) => {
  const { api, rows, put } = await bench(t);
  await put('vm');
  const answer = api('GET', '/instances/vm/wait?for=booting&timeout=1h');
  await sleep(50);
  await rows.boot('vm', BOOTING);
  assert.equal((await answer).json().state.state, 'booting');
});

test('one that failed is 409 with the last that happened, as JSON and as text', async (t) => {
  const { api, rows, put } = await bench(t);
  await put('vm');
  await rows.event('vm', START + 5, {
    name: 'modules-final/config-scripts-user',
    result: 'FAIL',
    description: 'exit\u001b code',
  });
  await rows.boot('vm', FAILED);
  const problem = await api('GET', '/instances/vm/wait');
  const { code, detail, lines } = problem.json();
  assert.deepEqual([problem.statusCode, code], [409, 'not_reached']);
  assert.equal(
    detail,
    'not ready, and will not be without help: vm is failed (cloud-init reported that modules-final/config-scripts-user failed: exit? code)',
  );
  assert.deepEqual(
    lines.map((line: string) => line.slice(26, 70)),
    [
      'registered by admin',
      'modules-final/config-scripts-user: FAIL (exi',
      'modules-final: running',
      'failed: cloud-init reported that modules-fin',
    ],
  );
  const text = await api('GET', '/instances/vm/wait?format=text');
  assert.deepEqual([text.statusCode, text.headers['content-type']], [409, 'text/plain; charset=utf-8']);
  assert.equal(text.body, `${detail}\n${lines.join('\n')}\n`);
  assert.equal((await api('GET', '/instances/vm/wait?for=delivered')).statusCode, 200);
});

test('time that is over is 504', async (t) => {
  const { api, put, tick } = await bench(t);
  await put('vm');
  const answer = api('GET', '/instances/vm/wait?timeout=5s');
  await sleep(30);
  tick(5000);
  const { statusCode, body } = await answer;
  assert.deepEqual([statusCode, JSON.parse(body).code], [504, 'timeout']);
  assert.match(JSON.parse(body).detail, /^not ready in that time: vm is registered \(it has not fetched its document yet\)$/);
  assert.equal(JSON.parse(body).lines.length, 1);
});

test('a group: all of them, or who is to blame', async (t) => {
  const { api, rows, put } = await bench(t);
  for (const name of ['a', 'b', 'c']) await put(name, { role: 'db', rack: name });
  for (const name of ['a', 'b', 'c']) await rows.boot(name, READY);
  const url = '/wait?label=role%3Ddb&timeout=1s';
  const { items } = (await api('GET', url)).json();
  assert.deepEqual(
    items.map(({ name, state }: { name: string; state: { state: string } }) => `${name} ${state.state}`),
    ['a ready', 'b ready', 'c ready'],
  );
  await rows.boot('b', FAILED);
  const problem = await api('GET', url);
  assert.deepEqual([problem.statusCode, problem.json().detail], [409, 'not ready, and will not be without help: b is failed']);
  assert.deepEqual(problem.json().lines, [
    'b: failed: cloud-init reported that modules-final/config-scripts-user failed: exit? code',
  ]);
  assert.equal((await api('GET', `${url}&label=rack=a`)).json().items.length, 1);
  assert.match((await api('GET', `${url}&format=text`)).body, /^not ready.*\nb: failed: .*\n$/);
});

test('what cannot be waited for is refused', async (t) => {
  const test = await bench(t);
  await test.put('vm');
  await refuses(test, [
    ['nobody', ['GET', '/instances/none/wait'], 404, 'unknown_instance'],
    ['a bad name', ['GET', '/instances/A/wait'], 400, 'bad_name'],
    ['an unknown goal', ['GET', '/instances/vm/wait?for=silent'], 400, 'bad_request'],
    ['no time', ['GET', '/instances/vm/wait?timeout=soon'], 400, 'bad_timeout'],
    ['too long', ['GET', '/instances/vm/wait?timeout=61m'], 400, 'bad_timeout'],
    ['no label', ['GET', '/wait'], 400, 'bad_request'],
    ['a label nobody has', ['GET', '/wait?label=a=b'], 404, 'no_instances'],
  ]);
});

test('a server that stops lets none wait, and a client that went away holds no place', async (t) => {
  const { app, put } = await bench(t);
  await put('vm');
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  const headers = { authorization: `Bearer ${TOKEN}` };
  const gone = new AbortController();
  const lost = fetch(`${url}/api/v1/instances/vm/wait`, { headers, signal: gone.signal }).catch(() => 'gone');
  const answer = fetch(`${url}/api/v1/instances/vm/wait`, { headers });
  await sleep(100);
  gone.abort();
  assert.equal(await lost, 'gone');
  const began = performance.now();
  await Promise.all([app.close(), answer]);
  assert.ok(performance.now() - began < 2000);
  const { status } = await answer;
  assert.equal(status, 503);
});

test('waiting lives on where an ordinary connection that lies still is cut, and its connection is an ordinary one again', async (t) => {
  const { app, rows, put } = await bench(t);
  await put('vm');
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  app.server.setTimeout(100);
  const answer = fetch(`${url}/api/v1/instances/vm/wait`, { headers: { authorization: `Bearer ${TOKEN}` } });
  await sleep(500);
  await rows.boot('vm', READY);
  assert.equal((await answer).status, 200);
});

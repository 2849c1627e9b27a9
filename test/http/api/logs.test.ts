import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { buildTestApp, refuses } from '../../app.ts';

/** A machine that has sent logs. */
async function build(t: TestContext) {
  const test = await buildTestApp(t);
  await test.register('vm', {});
  const instance = await test.store.findInstance('vm');
  assert.ok(instance);
  const send = async (name: string, text: string) => {
    const url = `/r/${test.keys.capability('report', instance)}/logs/${name}`;
    assert.equal((await test.app.inject({ method: 'POST', url, payload: text })).statusCode, 204);
    test.tick(1000);
  };
  return { ...test, send };
}

const OUTPUT = 'cloud-init-output.log';

test('the logs that a machine sent are listed, newest first, and read as they were sent', async (t) => {
  const { api, send } = await build(t);
  assert.deepEqual((await api('GET', '/instances/vm/logs')).json(), { items: [], next: null });
  await send(`${OUTPUT}?truncated=true`, 'one ü\n');
  await send('result.json', '{}');
  await send(OUTPUT, 'two\t\u001b[31mred\u0007\n');
  const { items } = (await api('GET', '/instances/vm/logs')).json();
  assert.deepEqual(
    items.map(({ id: _, ...item }: { id: number }) => item),
    [
      { name: OUTPUT, at: '2026-01-01T00:00:02.000Z', bytes: 14, truncated: false },
      { name: 'result.json', at: '2026-01-01T00:00:01.000Z', bytes: 2, truncated: false },
      { name: OUTPUT, at: '2026-01-01T00:00:00.000Z', bytes: 7, truncated: true },
    ],
  );
  const newest = await api('GET', `/instances/vm/logs/${OUTPUT}`);
  assert.deepEqual(
    ['content-type', 'content-disposition', 'x-content-type-options'].map((name) => newest.headers[name]),
    ['text/plain; charset=utf-8', `attachment; filename="${OUTPUT}"`, 'nosniff'],
  );
  assert.equal(newest.body, 'two\t\u001b[31mred\u0007\n');
  assert.equal((await api('GET', `/instances/vm/logs/${OUTPUT}?format=text`)).body, 'two\t?[31mred?\n');
  assert.equal((await api('GET', `/instances/vm/logs/${OUTPUT}?id=${items[2].id}`)).body, 'one ü\n');
  assert.match((await api('GET', '/instances/vm/logs?format=text')).body, /^ID +AT +BYTES +TRUNCATED +NAME\n/);
  await api('DELETE', '/instances/vm');
  assert.equal((await api('GET', '/instances/vm/logs/result.json')).body, '{}');
});

test('of each log the newest three are kept', async (t) => {
  const { api, send } = await build(t);
  await send('result.json', 'kept');
  for (const n of [1, 2, 3, 4, 5]) await send(OUTPUT, `${n}`);
  const { items } = (await api('GET', '/instances/vm/logs')).json();
  assert.deepEqual(
    items.map(({ name }: { name: string }) => name),
    [OUTPUT, OUTPUT, OUTPUT, 'result.json'],
  );
  assert.equal((await api('GET', `/instances/vm/logs/${OUTPUT}?id=${items[2].id}`)).body, '3');
});

test('what is not there is refused', async (t) => {
  const test = await build(t);
  await test.send('result.json', '{}');
  await refuses(test, [
    ['no instance', ['GET', '/instances/none/logs'], 404, 'unknown_instance'],
    ['no instance', ['GET', '/instances/none/logs/result.json'], 404, 'unknown_instance'],
    ['never sent', ['GET', `/instances/vm/logs/${OUTPUT}`], 404, 'unknown_log'],
    ['no such log', ['GET', '/instances/vm/logs/passwd'], 404, 'unknown_log'],
    ['no such log', ['GET', '/instances/vm/logs/..%2fresult.json'], 404, 'unknown_log'],
    ['an id of none', ['GET', '/instances/vm/logs/result.json?id=99999'], 404, 'unknown_log'],
    ['a name of none', ['GET', '/instances/A/logs'], 400, 'bad_name'],
    ['an unknown parameter', ['GET', '/instances/vm/logs?x=1'], 400, 'bad_request'],
  ]);
});

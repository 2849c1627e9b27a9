import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildTestApp, refuses } from '../../app.ts';

const SH = '#!/bin/sh\necho hello\n';

test('the ledger goes in pages, newest first', async (t) => {
  const { api, boot, register, tick } = await buildTestApp(t);
  const path = await register('vm', { 'web/a.sh': SH });
  await register('other', { 'web/a.sh': SH });
  for (let n = 0; n < 5; n++) {
    await boot(path, { remoteAddress: `198.51.100.${n}` });
    tick(1000);
  }
  const seen: string[] = [];
  for (let after: number | null = 0; after !== null; ) {
    const page: { items: { address: string }[]; next: number | null } = (
      await api('GET', `/instances/vm/deliveries?limit=2${after ? `&after=${after}` : ''}`)
    ).json();
    assert.ok(page.items.length <= 2);
    seen.push(...page.items.map(({ address }) => address.slice(-1)));
    after = page.next;
  }
  assert.deepEqual(seen, ['4', '3', '2', '1', '0']);
  assert.deepEqual((await api('GET', '/instances/other/deliveries')).json(), { items: [], next: null });
});

test('format=text gives a person columns, and no control byte of a client’s', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  await boot(await register('vm', { 'web/a.sh': SH }), { headers: { 'user-agent': 'evil\u0085\u001b[31m' } });
  const { body, headers } = await api('GET', '/instances/vm/deliveries?format=text');
  assert.equal(headers['content-type'], 'text/plain; charset=utf-8');
  assert.match(
    body,
    /^ID +AT +OUTCOME +COUNTED +BYTES +ADDRESS +CLIENT +REVISIONS +DIGEST\n1 +2026-01-01T00:00:00\.000Z +delivered +true +/,
  );
  assert.match(body, /web@1 +[0-9a-f]{12}\n$/);
  assert.doesNotMatch(body.replaceAll('\n', ''), /\p{Cc}/u);
});

test('a client’s name of any length is kept at a bounded one', async (t) => {
  const { api, boot, register } = await buildTestApp(t);
  await boot(await register('vm', { 'web/a.sh': SH }), { headers: { 'user-agent': 'x'.repeat(10_000) } });
  const [{ userAgent }] = (await api('GET', '/instances/vm/deliveries')).json().items;
  assert.match(userAgent, /^x{100,1000}/);
  assert.ok(userAgent.length <= 1000);
});

test('a ledger that cannot be shown is refused', async (t) => {
  const test = await buildTestApp(t);
  await test.register('vm', { 'web/a.sh': SH });
  await refuses(test, [
    ['of nobody', ['GET', '/instances/none/deliveries'], 404, 'unknown_instance'],
    ['of a bad name', ['GET', '/instances/A/deliveries'], 400, 'bad_name'],
    ['after text', ['GET', '/instances/vm/deliveries?after=x'], 400, 'bad_request'],
    ['after a fraction', ['GET', '/instances/vm/deliveries?after=1.5'], 400, 'bad_request'],
    ['after more than a row can be', ['GET', '/instances/vm/deliveries?after=1e30'], 400, 'bad_request'],
    ['too many', ['GET', '/instances/vm/deliveries?limit=1001'], 400, 'bad_request'],
    ['with an unknown parameter', ['GET', '/instances/vm/deliveries?counted=true'], 400, 'bad_request'],
  ]);
});

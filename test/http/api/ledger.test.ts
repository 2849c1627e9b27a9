import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { buildTestApp, refuses, START } from '../../app.ts';
import { storeWithRows } from '../../rows.ts';

async function bench(t: TestContext, count: number) {
  const { store, rows } = await storeWithRows(t);
  const app = await buildTestApp(t, { store });
  for (const name of ['a', 'b']) await app.api('PUT', `/instances/${name}`, { bundles: [] });
  for (let n = 0; n < count; n++)
    await rows.delivery(n % 2 === 0 ? 'a' : 'b', {
      ...{ at: START - n * 60_000, revisions: [`web@${n + 1}`], address: `192.0.2.${n % 4}` },
      ...(n === 3 ? { outcome: 'refused', refusal: 'expired', userAgent: 'x\u009b\n' } : {}),
    });
  return { ...app, rows };
}

const revisionsOf = (items: { revisions: string[] }[]) => items.map(({ revisions }) => revisions[0]?.slice(4)).join(' ');

test('the ledger goes in pages across instances, newest first', async (t) => {
  const { api } = await bench(t, 7);
  const seen: string[] = [];
  for (let after: string | null = ''; after !== null; ) {
    const page: { items: { revisions: string[] }[]; next: string | null } = (
      await api('GET', `/deliveries?limit=3${after && `&after=${after}`}`)
    ).json();
    seen.push(revisionsOf(page.items));
    after = page.next;
  }
  assert.deepEqual(seen, ['1 2 3', '4 5 6', '7']);
});

test('filters, and times as they are or so long ago', async (t) => {
  const { api } = await bench(t, 7);
  for (const [query, wanted] of [
    ['instance=a', '1 3 5 7'],
    ['bundle=web@2', '2'],
    ['bundle=web', '1 2 3 4 5 6 7'],
    ['bundle=we', ''],
    ['address=192.0.2.1', '2 6'],
    ['outcome=refused', '4'],
    ['counted=false', ''],
    ['since=2m', '1 2 3'],
    ['until=5m', '7'],
    ['since=2025-12-31T23:58:00Z&until=2026-01-01T00:00:00Z', '2 3'],
  ] as const)
    assert.equal(revisionsOf((await api('GET', `/deliveries?${query}`)).json().items), wanted, query);
});

test('as text for a person, without a control byte of a client’s', async (t) => {
  const { api } = await bench(t, 4);
  const { body } = await api('GET', '/deliveries?format=text&outcome=refused');
  assert.match(
    body,
    /^ID +AT +INSTANCE +OUTCOME +COUNTED .*\n4 +2025-12-31T23:57:00\.000Z +b +refused \(expired\) +true .*\n$/,
  );
});

test('ndjson is all pages, one object a line, or so many as asked', async (t) => {
  const { api, rows } = await bench(t, 4);
  for (let n = 0; n < 1200; n++) await rows.delivery('a', { at: START + 1 + n, userAgent: 'x\u009b\u2028y' });
  const lines = async (query = '') => {
    const { body, headers } = await api('GET', `/deliveries?format=ndjson${query}`);
    assert.match(String(headers['content-type']), /^application\/x-ndjson/);
    assert.doesNotMatch(body.replaceAll('\n', ''), /[\p{Cc}\p{Zl}]/u);
    return body
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line));
  };
  const all = await lines();
  assert.equal(all.length, 1204);
  assert.equal(new Set(all.map(({ id }) => id)).size, 1204);
  assert.deepEqual([all[0].userAgent, all.at(-1).revisions], ['x\u009b\u2028y', ['web@4']]);
  assert.equal((await lines('&limit=7')).length, 7);
  assert.equal((await lines('&outcome=failed')).length, 0);
});

test('what the ledger cannot be asked is refused', async (t) => {
  await refuses(await bench(t, 1), [
    ['a bad cursor', ['GET', '/deliveries?after=7'], 400, 'bad_cursor'],
    ['a bad time', ['GET', '/deliveries?since=yesterday'], 400, 'bad_time'],
    ['another bad time', ['GET', '/deliveries?until=2026-99-01T00:00:00Z'], 400, 'bad_time'],
    ['a tag', ['GET', '/deliveries?bundle=web@stable'], 400, 'bad_reference'],
    ['no reference', ['GET', '/deliveries?bundle=web@@'], 422, 'bad_reference'],
    ['a bad name', ['GET', '/deliveries?instance=A'], 400, 'bad_name'],
    ['an unknown outcome', ['GET', '/deliveries?outcome=lost'], 400, 'bad_request'],
    ['an unknown format', ['GET', '/deliveries?format=csv'], 400, 'bad_request'],
  ]);
});

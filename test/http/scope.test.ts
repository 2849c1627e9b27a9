import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { buildTestApp, snapshot, type TestApp } from '../app.ts';

const SH = '#!/bin/sh\n';
const POD = 'apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - name: x\n    image: img\n';

interface Team extends TestApp {
  /** A call of the web team's CI. */
  web: TestApp['api'];
}

/** Bundles and instances of two teams, and an editor's token for one of them; `base` is everybody's. */
async function build(t: TestContext, role: 'editor' | 'admin' = 'editor'): Promise<Team> {
  const test = await buildTestApp(t);
  for (const bundle of ['web-app', 'web-x', 'db-app']) await test.api('PUT', `/bundles/${bundle}/parts/a.sh`, SH);
  for (const [instance, bundles] of [
    ['web-1', ['web-app']],
    ['web-2', ['web-app']],
    ['db-1', ['db-app', 'web-app']],
    ['db-2', ['db-app', 'web-app']],
  ] as const)
    assert.equal((await test.api('PUT', `/instances/${instance}`, { bundles })).statusCode, 201);
  const token = await test.token(role, { bundles: ['web-*'], instances: ['web-*'] });
  const web: Team['web'] = (method, url, body, headers = {}) => test.api(method, url, body, { ...token, ...headers });
  return { ...test, web };
}

const names = (answer: { json(): { items: { name: string }[] } }) => answer.json().items.map(({ name }) => name);

test('lists hold what is in the scope, page by page', async (t) => {
  const { web } = await build(t);
  assert.deepEqual(names(await web('GET', '/bundles')), ['web-app', 'web-x']);
  assert.deepEqual(names(await web('GET', '/instances')), ['web-1', 'web-2']);
  assert.deepEqual(names(await web('GET', '/instances?bundle=db-app')), []);
  const page = (await web('GET', '/instances?limit=1')).json();
  assert.deepEqual(names(await web('GET', `/instances?limit=1&after=${page.next}`)), ['web-2']);
  assert.doesNotMatch((await web('GET', '/instances?format=text')).body, /db/);
});

test('a machine gets no bundle that the token is not for, in whatever way it is asked for', async (t) => {
  const team = await build(t);
  const { web, api } = team;
  await api('PUT', '/instances/web-db', { bundles: ['web-app', 'db-app'] });
  const before = await snapshot(team);
  for (const [what, call] of [
    ['a registration', ['PUT', '/instances/web-3', { bundles: ['web-app', 'db-app'] }]],
    ['a tag of it', ['PUT', '/instances/web-3', { bundles: ['db-app@stable'] }]],
    ['a pinned one', ['PUT', '/instances/web-1', { bundles: ['db-app@1'] }]],
    ['one that does not exist', ['PUT', '/instances/web-1', { bundles: ['none'] }]],
    ['a trial', ['PUT', '/instances/web-1?dryRun=true', { bundles: ['db-app'] }]],
    ['after closing', ['PUT', '/instances/web-1', { bundles: [], policy: { afterClose: ['db-app'] } }]],
    ['a patch', ['PATCH', '/instances/web-1', { bundles: ['db-app'] }]],
    ['a patch after closing', ['PATCH', '/instances/web-1', { policy: { afterClose: ['web-x', 'db-app@1'] } }]],
    [
      'a list',
      [
        'PUT',
        '/instances',
        [
          { name: 'web-3', bundles: ['web-app'] },
          { name: 'web-4', bundles: ['db-app'] },
        ],
      ],
    ],
    [
      'a list with another’s instance',
      [
        'PUT',
        '/instances',
        [
          { name: 'web-3', bundles: [] },
          { name: 'db-1', bundles: [] },
        ],
      ],
    ],
    ['a list with one that does not exist', ['PUT', '/instances', [{ name: 'db-9', bundles: [] }]]],
    ['a var of one that has it', ['PUT', '/instances/web-db/vars/k', 'v']],
    ['a secret of one that has it', ['PUT', '/instances/web-db/secrets/k', 'v']],
  ] as const) {
    const refused = await web(call[0], call[1], call[2]);
    assert.deepEqual([refused.statusCode, refused.json().code], [403, 'out_of_scope'], `${what}: ${refused.body}`);
  }
  assert.equal(await snapshot(team), before);
  assert.equal((await web('PUT', '/instances/web-3', { bundles: ['web-app', 'web-x@1'] })).statusCode, 201);
  assert.equal((await web('PUT', '/instances', [{ name: 'web-4', bundles: ['web-x'] }])).statusCode, 200);
});

test('a publication is refused for machines out of scope, too, and tells of them by number only', async (t) => {
  const team = await build(t);
  const { web, api } = team;
  const bad = ['PUT', '/bundles/web-app/parts/x.pod', POD] as const;
  const before = await snapshot(team);
  const refused = await web(...bad);
  assert.equal(refused.json().code, 'would_break');
  assert.match(refused.json().detail, /^web-1, web-2, and 2 instances outside of your token's scope have still to boot/);
  assert.match(refused.json().findings[0].message, /^web-1, web-2, and 2 instances outside/);
  const answers = [refused];
  for (const query of ['?accept=web-1,web-2', '?accept=web-1', '?accept=web-1&dryRun=true']) {
    const answer = await web(bad[0], bad[1] + query, bad[2]);
    assert.equal(answer.json().code, 'would_break', query);
    answers.push(answer);
  }
  assert.match(answers[1]?.json().detail, /^2 instances outside of your token's scope have still to boot/);
  const foreign = await web(bad[0], `${bad[1]}?accept=web-1,web-2,db-1,db-2`, bad[2]);
  assert.deepEqual([foreign.statusCode, foreign.json().code], [403, 'out_of_scope']);
  for (const answer of answers) assert.doesNotMatch(answer.body, /db-/);
  assert.equal(await snapshot(team), before);

  // Those outside of the scope have booted, and their windows are shut: they are only told of.
  for (const name of ['db-1', 'db-2']) {
    const url = (await api('GET', `/instances/${name}`)).json().status.stub.url;
    await team.boot(new URL(url).pathname);
    await api('POST', `/instances/${name}/close`);
  }
  const accepted = await web(bad[0], `${bad[1]}?accept=web-1,web-2`, bad[2]);
  assert.equal(accepted.statusCode, 201, accepted.body);
  assert.match(accepted.json().findings.at(-1).message, /^2 instances outside of your token's scope booted already/);
  assert.doesNotMatch(accepted.body, /db-/);
});

test('what breaks in a part of another team’s bundle is told by its code only', async (t) => {
  const { web, api } = await build(t);
  const handler = '#part-handler\ndef list_types():\n    return ["text/x-odd"]\ndef handle_part(*_):\n    pass\n';
  await api('PUT', '/bundles/web-app/parts/h.py', handler);
  await api('PUT', '/bundles/db-app/parts/s3cret-plan.odd?type=text/x-odd', 'x');
  const refused = await web('DELETE', '/bundles/web-app/parts/h.py?accept=web-1,web-2');
  assert.equal(refused.json().code, 'would_break', refused.body);
  assert.match(refused.json().detail, /: a part of a bundle outside of your token's scope: unhandled_part$/);
  assert.doesNotMatch(refused.body, /db-|s3cret-plan/);
  assert.match((await api('DELETE', '/bundles/web-app/parts/h.py')).json().detail, /db-1.*s3cret-plan/);
});

test('an admin of some names forces what is in them, and nothing else', async (t) => {
  const team = await build(t, 'admin');
  const { web, api } = team;
  const forced = await web('PUT', '/bundles/web-app/parts/x.pod?force=true', POD);
  assert.equal(forced.json().code, 'would_break');
  assert.match(forced.json().detail, /^2 instances outside/);
  for (const name of ['db-1', 'db-2']) await api('DELETE', `/instances/${name}`);
  assert.equal((await web('PUT', '/bundles/web-app/parts/x.pod?force=true', POD)).statusCode, 201);
  const [line] = (await web('GET', '/audit?kind=bundle')).json().items;
  assert.deepEqual(line.detail.breaks, ['web-1', 'web-2']);
  assert.equal(line.detail.force, true);
});

test('who uses a bundle is told as far as the scope goes, and so is why it cannot go', async (t) => {
  const { web, api } = await build(t);
  const { usedBy } = (await web('GET', '/bundles/web-app')).json().status;
  assert.deepEqual(
    usedBy.map(({ instance }: { instance: string }) => instance),
    ['web-1', 'web-2'],
  );
  for (const query of ['', '?dryRun=true']) {
    const refused = await web('DELETE', `/bundles/web-app${query}`);
    assert.equal(refused.json().code, 'in_use');
    assert.doesNotMatch(refused.body, /db-/);
  }
  await api('PUT', '/instances/db-3', { bundles: ['web-x'] });
  for (const query of ['', '?dryRun=true'])
    assert.match(
      (await web('DELETE', `/bundles/web-x${query}`)).json().detail,
      /^instances outside of your token's scope refer/,
    );
});

test('a purge tells of bodies that other bundles have, and not which those are', async (t) => {
  const { web } = await build(t, 'admin');
  await web('PUT', '/bundles/web-x/parts/a.sh', `${SH}two\n`);
  const { kept } = (await web('DELETE', '/bundles/web-x/revisions/1/content')).json();
  assert.deepEqual(
    kept.map(({ filename, revisions }: { filename: string; revisions: string[] }) => [filename, revisions]),
    [['a.sh', ['web-app@1']]],
  );
});

test('the audit tells of what is in the scope', async (t) => {
  const { web, api } = await build(t, 'admin');
  const subjects = new Set((await web('GET', '/audit?limit=1000')).json().items.map(({ name }: { name: string }) => name));
  assert.deepEqual([...subjects].sort(), ['web-1', 'web-2', 'web-app', 'web-x']);
  assert.deepEqual((await web('GET', '/audit?name=db-1')).json().items, []);
  assert.ok((await api('GET', '/audit?name=db-1')).json().items.length > 0);
});

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { BootbundleError } from '../../src/domain/errors.ts';
import { explain, formatExplanation } from '../../src/explain/explain.ts';
import { DISAGREEMENTS, multipart, part, QUIRKS, summarise } from './cases.ts';

describe('explain, as the real client does it', () => {
  for (const { name, document, expected, client = '25.1', launchIndex = null } of [...DISAGREEMENTS, ...QUIRKS])
    it(name, async () => {
      const summary = summarise(await explain(document, { client, launchIndex }));
      for (const key of Object.keys(expected) as (keyof typeof expected)[]) assert.deepEqual(summary[key], expected[key], key);
    });
});

const CONFIG = multipart(
  part('text/cloud-config', '01-a', '#cloud-config\na: [1]\nb: x\nc: 1\n'),
  part(
    'text/cloud-config',
    '02-b',
    '#cloud-config\na: [2]\nb: y\nd: 1\n',
    'Merge-Type: list(append)+dict(no_replace,recurse_list)',
  ),
  part('text/cloud-config', '03-c', '#cloud-config\nc: 2\n'),
  part('text/cloud-config-jsonp', '04-d', '[{"op": "add", "path": "/d", "value": 2}]'),
);

it('each top-level key has the parts its value comes from', async () => {
  const origins = new Map([
    ['01-a', 'web@3/a'],
    ['04-d', 'db@1/d'],
  ]);
  const { config, parts } = await explain(CONFIG, { origins });
  assert.deepEqual(config?.keys, [
    { key: 'a', origins: ['web@3/a', '02-b'] },
    { key: 'b', origins: ['web@3/a'] },
    { key: 'c', origins: ['03-c'] },
    { key: 'd', origins: ['02-b', 'db@1/d'] },
  ]);
  assert.deepEqual(
    parts.map(({ origin }) => origin),
    ['web@3/a', null, null, 'db@1/d'],
  );
});

it('keys that Python cannot sort, once the parts are merged: the newer clients end there', async () => {
  const document = (...bodies: string[]) =>
    multipart(
      ...bodies.map((body, index) =>
        part('text/cloud-config', `0${index}`, body, 'Merge-Type: list(append)+dict(no_replace,recurse_list)'),
      ),
    );
  for (const [bodies, path] of [
    [['x: {1: a}\n', 'x: {b: c}\n'], 'x'],
    [['x: [{1: a, b: c}]\n', 'd: 1\n'], 'x[0]'],
    [['hostname: x\n', 'on: 1\n'], 'the cloud-config'],
    [['x: {1: a}\n', 'x: {2: c}\n'], null],
    [['x: {"1": a}\n', 'x: {b: c}\n'], null],
  ] as const) {
    const { warnings, versions } = await explain(document(...bodies));
    const told = warnings.map(({ code, logged, message }) => [
      code,
      logged,
      message.startsWith(`once merged, ${path} has a key `),
    ]);
    assert.deepEqual(told, path === null ? [] : [['odd_key', true, true]], bodies.join());
    assert.equal(versions.length, path === null ? 0 : 1);
    assert.deepEqual((await explain(document(...bodies), { client: '22.4' })).warnings, []);
  }
  const patch = part('text/cloud-config-jsonp', '09', '[{"op": "add", "path": "/x/b", "value": 2}]');
  const { warnings } = await explain(multipart(part('text/cloud-config', '01', 'x: {1: a}\n'), patch));
  assert.deepEqual(
    warnings.map(({ code }) => code),
    ['odd_key'],
  );
});

it('an include: its URLs are told, not fetched, and not quoted in a warning', async () => {
  const include = '#include-once http://192.0.2.1/i/secret/user-data\n#include\nhttp://192.0.2.1/b\n# comment\n';
  const { includes, parts, warnings } = await explain(Buffer.from(include));
  assert.deepEqual(
    includes.map(({ url, once }) => `${url} ${once}`),
    ['http://192.0.2.1/i/secret/user-data true', 'http://192.0.2.1/b false'],
  );
  assert.deepEqual(
    parts.map(({ takenBy }) => takenBy.kind),
    ['include'],
  );
  assert.doesNotMatch(JSON.stringify(warnings), /secret/);
});

it('a Jinja template with syntax is not rendered, and who takes it is told all the same', async () => {
  const document = multipart(
    part('text/jinja2', 'a', '## template: jinja\n#cloud-config\nhostname: {{ v1.x }}\n'),
    part('text/jinja2', 'b', '## template: jinja\n#!/bin/sh\necho {{ v1.x }}\n'),
    part('text/cloud-config', 'c', '#cloud-config\na: 1\n'),
  );
  const summary = summarise(await explain(document));
  assert.deepEqual(summary.parts, ['a text/jinja2 → jinja', 'b text/jinja2 → jinja', 'c text/cloud-config → cloud-config']);
  assert.deepEqual(
    [summary.scripts, summary.config, summary.warnings],
    [['scripts/b'], { a: 1 }, ['jinja_not_rendered', 'jinja_not_rendered']],
  );
});

it('a handler whose types cannot be read: what nobody takes is only a warning then', async () => {
  const handler = 'def list_types():\n    return load()\ndef handle_part(data, ctype, filename, payload):\n    pass\n';
  const { warnings } = await explain(multipart(part('text/part-handler', 'h', handler), part('text/x-one', 'p', 'x')));
  assert.deepEqual(
    warnings.map(({ severity, code }) => `${severity} ${code}`),
    ['warning handler_types_unknown', 'warning unhandled_part'],
  );
});

it('warnings do not quote content', async () => {
  const document = multipart(
    part('text/cloud-config', 'a', 'a: [S3CRET'),
    part('text/cloud-config', 'b', '#cloud-config\nmerge_how: S3CRET\n'),
    part('text/cloud-config', 'c', '- S3CRET'),
    part('text/cloud-config-jsonp', 'd', '[{"op": "S3CRET", "path": "S3CRET"}]'),
    part('text/part-handler', 'e', 'S3CRET ('),
    part('text/x-nobody', 'f', 'S3CRET'),
    part('text/jinja2', 'g', '## template: jinja\nS3CRET'),
  );
  const { warnings } = await explain(document);
  assert.equal(warnings.length > 6, true);
  assert.doesNotMatch(JSON.stringify(warnings), /S3CRET/i);
});

describe('hostile documents are judged in bounded time and memory', () => {
  const within = async <T>(milliseconds: number, work: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    const took = Math.round(performance.now() - start);
    assert.ok(took < milliseconds, `${took} ms`);
    return result;
  };
  const told = (document: Buffer, milliseconds: number) => within(milliseconds, () => explain(document));
  const refused = (document: Buffer, code: string) =>
    within(2000, () => assert.rejects(explain(document), (error) => error instanceof BootbundleError && error.code === code));
  const bomb = `a: &a [${'x,'.repeat(9)}x]\n${[...'bcdefghi'].map((key, index) => `${key}: &${key} [${`*${'abcdefgh'[index]},`.repeat(9)}*${'abcdefgh'[index]}]\n`).join('')}`;

  it('a YAML bomb', async () => {
    const { warnings } = await told(Buffer.from(`#cloud-config\n${bomb}`), 1000);
    assert.equal(warnings[0]?.code, 'bad_yaml');
  });

  it('a gzip bomb, as the document or as a part', async () => {
    const zeros = gzipSync(Buffer.alloc(200 * 1024 * 1024));
    await refused(zeros, 'gzip_bomb');
    const inPart = multipart(part('application/gzip', 'a', zeros.toString('base64'), 'Content-Transfer-Encoding: base64'));
    await refused(inPart, 'gzip_bomb');
  });

  it('a JSON patch that doubles the config with each operation', async () => {
    const operations = Array.from({ length: 60 }, (_, index) => `{"op": "copy", "from": "/a", "path": "/a/${index}"}`).join(
      ',',
    );
    const document = multipart(
      part('text/cloud-config', 'a', '#cloud-config\na: {b: 1}\n'),
      part('text/cloud-config-jsonp', 'b', `[${operations}]`),
    );
    const { warnings } = await told(document, 2000);
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['merge_failed'],
    );
  });

  it('10,000 parts, deep nesting, a megabyte on one line, a thousand merges', async () => {
    const scripts = Array.from({ length: 10_000 }, (_, index) => part('text/x-shellscript', `${index}.sh`, '#!/bin/sh\n'));
    assert.equal((await told(multipart(...scripts), 4000)).scripts.length, 10_000);
    await told(multipart('Content-Type: message/rfc822\n\n'.repeat(19)), 1000);
    await told(Buffer.from(`#cloud-config\na: ${'x'.repeat(1 << 20)}\n`), 1000);
    await told(Buffer.from(`#cloud-config-jsonp\n${'['.repeat(1 << 20)}`), 1000);
    const configs = Array.from({ length: 1000 }, (_, index) =>
      part(
        'text/cloud-config',
        `${index}`,
        `#cloud-config\nl: [${index}]\nk${index}: 1\n`,
        'Merge-Type: list(append)+dict(recurse_list)',
      ),
    );
    assert.equal((await told(multipart(...configs), 3000)).config?.keys.length, 1001);
  });
});

describe('as text', () => {
  it('has a section for what there is, in columns, and none for what there is not', async () => {
    assert.equal(
      formatExplanation(await explain(CONFIG, { origins: new Map([['01-a', 'web@3/a']]), client: '22.4' })),
      `a MIME document: ${CONFIG.length} bytes (fits into Nova's 49149), as cloud-init 22.4 takes it

parts, in order
  01-a  text/cloud-config          31  → cloud-config  web@3/a
  02-b  text/cloud-config          31  → cloud-config           list(append)+dict(no_replace,recurse_list)
  03-c  text/cloud-config          19  → cloud-config
  04-d  text/cloud-config-jsonp    41  → cloud-config

cloud-config keys
  a  web@3/a 02-b
  b  web@3/a
  c  03-c
  d  02-b 04-d

merged cloud-config
  a:
    - 1
    - 2
  b: x
  c: 2
  d: 2
`,
    );
  });
});

it('what a document includes is told although the document fails later: it was fetched before that', async () => {
  const document = multipart(
    part('text/x-include-url', '01-a', '#include\nhttp://192.0.2.1/a\n'),
    part('text/cloud-config', '02-b', '#cloud-config\na: 1\n', 'X-Form: a\x0cb'),
  );
  const { failure, includes } = await explain(document, { client: '22.4' });
  assert.deepEqual([failure?.code, includes.map(({ url }) => url)], ['unstorable', ['http://192.0.2.1/a']]);
});

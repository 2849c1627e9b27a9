import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { pack } from 'tar-stream';
import { LIMITS } from '../../../src/domain/limits.ts';
import { buildTestApp, refuses, snapshot } from '../../app.ts';

const SH = '#!/bin/sh\necho hello\n';
const BROKEN = '#cloud-config\nhostname: a\nusers:\n- a\n b: c: d\n';
const FORM = { 'content-type': 'multipart/form-data; boundary=x' };
const MIXED = { 'content-type': 'multipart/mixed; boundary=x' };

const form = (files: Record<string, string>) =>
  `${Object.entries(files)
    .map(
      ([name, content]) =>
        `--x\r\nContent-Disposition: form-data; name="part"; filename="${name}"\r\nContent-Type: application/octet-stream\r\n\r\n${content}\r\n`,
    )
    .join('')}--x--\r\n`;

async function tar(files: Record<string, string>): Promise<Buffer> {
  const archive = pack();
  for (const [name, content] of Object.entries(files)) archive.entry({ name }, content);
  archive.finalize();
  return buffer(archive);
}

interface Report {
  parts: { filename: string; type: string | null; findings: { code: string; severity: string; line?: number }[] }[];
}
const summary = ({ parts }: Report) =>
  parts.map(({ filename, type, findings }) => [filename, type, findings.map(({ code }) => code)]);

test('files are inspected in every form a bundle may have, and nothing is kept', async (t) => {
  const test = await buildTestApp(t);
  const before = await snapshot(test);
  const files = { 'a.sh': SH, 'c.cfg': BROKEN, d: 'what is this' };
  const parts = Object.entries(files).map(([filename, content]) => ({ filename, content }));
  const mime = `${parts.map(({ filename, content }) => `--x\nContent-Type: text/plain\nContent-Disposition: attachment; filename="${filename}"\n\n${content}\n`).join('')}--x--\n`;
  for (const [what, body, headers] of [
    ['a form', form(files), FORM],
    ['a tar', await tar(files), { 'content-type': 'application/x-tar' }],
    ['JSON', { parts }, {}],
    ['YAML', `parts: ${JSON.stringify(parts)}`, { 'content-type': 'application/yaml' }],
    ['MIME', mime, MIXED],
  ] as const) {
    const answer = await test.api('POST', '/lint', body, headers);
    assert.equal(answer.statusCode, 200, `${what}: ${answer.body}`);
    assert.deepEqual(
      summary(answer.json()),
      [
        ['a.sh', 'text/x-shellscript', []],
        ['c.cfg', 'text/cloud-config', ['bad_yaml']],
        ['d', null, ['unrecognised_part']],
      ],
      what,
    );
    assert.deepEqual([answer.json().errors, answer.json().warnings, answer.json().schema], [2, 0, null], what);
  }
  assert.equal(await snapshot(test), before);
});

test('one file as it is: by its URL as curl -T gives it, or with ?filename=; with the options of a part', async (t) => {
  const { api } = await buildTestApp(t);
  const calls = [
    (name: string, body: string, query = '', headers = {}) => api('PUT', `/lint/${name}?${query}`, body, headers),
    (name: string, body: string, query = '', headers = {}) => api('POST', `/lint?filename=${name}&${query}`, body, headers),
    (name: string, body: string, query = '', headers = {}) =>
      api('POST', `/lint?filename=${name}&${query}`, body, { 'content-type': 'application/x-www-form-urlencoded', ...headers }),
  ];
  for (const call of calls) {
    const report = async (...args: Parameters<typeof call>) => {
      const answer = await call(...args);
      assert.equal(answer.statusCode, 200, answer.body);
      return summary(answer.json());
    };
    assert.deepEqual(await report('a.sh', SH), [['a.sh', 'text/x-shellscript', []]]);
    assert.deepEqual(await report('c.cfg', BROKEN), [['c.cfg', 'text/cloud-config', ['bad_yaml']]]);
    assert.deepEqual(await report('x', 'x', 'type=text/x-thing'), [['x', 'text/x-thing', []]]);
    assert.deepEqual(await report('c.cfg', '#cloud-config\na: 1\n', 'merge=nonsense'), [['c.cfg', null, ['bad_merge']]]);
    const merged = await report('c.cfg', '#cloud-config\nhostname: a\n', '', { 'merge-type': 'nonsense' });
    assert.deepEqual(merged, [['c.cfg', null, ['bad_merge']]]);
    const [[name, type, codes] = []] = await report('t.sh', `${SH}{% if %}\n`, 'template=true');
    assert.deepEqual([name, type, codes?.length], ['t.sh', 'text/x-shellscript', 1]);
    assert.deepEqual(await report('a.json', '{"parts": []}', 'type=text/x-thing'), [['a.json', 'text/x-thing', []]]);
  }
});

test('a person gets lines as compilers write them, and the sum', async (t) => {
  const { api } = await buildTestApp(t);
  const files = { 'a.sh': SH, 'c.cfg': BROKEN, d: 'what is this' };
  const answer = await api('POST', '/lint?format=text', form(files), FORM);
  assert.equal(answer.headers['content-type'], 'text/plain; charset=utf-8');
  const [config, unknown, sum, end] = answer.body.split('\n');
  assert.match(config ?? '', /^c\.cfg:5:\d+: error.*bad_yaml/);
  assert.match(unknown ?? '', /^d: error.*unrecognised_part/);
  assert.match(sum ?? '', /2 errors, 0 warnings/);
  assert.equal(end, '');
  assert.match((await api('PUT', '/lint/a.sh?format=text', SH)).body, /^[^\n]*0 errors, 0 warnings[^\n]*\n$/);
});

test('what is no upload is refused', async (t) => {
  const test = await buildTestApp(t);
  const big = `#!/bin/sh\n${'#'.repeat(LIMITS.partBytes)}`;
  await refuses(test, [
    ['a file without a name', ['POST', '/lint', SH], 400, 'filename_missing'],
    ['nothing', ['POST', '/lint'], 400, 'filename_missing'],
    ['octets without a name', ['POST', '/lint', SH, { 'content-type': 'application/octet-stream' }], 400, 'filename_missing'],
    ['an option of one file for many', ['POST', '/lint?template=true', form({ a: SH }), FORM], 400, 'filename_missing'],
    ['no name, no slash', ['PUT', '/lint', SH], 400, 'filename_missing'],
    ['no name', ['PUT', '/lint/', SH], 400, 'filename_missing'],
    ['no name, with options', ['PUT', '/lint/?template=true', SH], 400, 'filename_missing'],
    ['a bad name', ['PUT', '/lint/.a', SH], 400, 'bad_name'],
    ['a bad name in the query', ['POST', '/lint?filename=a/b', SH], 400, 'bad_name'],
    ['an empty name', ['POST', '/lint?filename=', SH], 400, 'bad_name'],
    ['the name of the options', ['PUT', '/lint/bundle.yaml', SH], 400, 'reserved_name'],
    ['a form with a name', ['POST', '/lint?filename=a', form({ a: SH }), FORM], 415, 'bad_content_type'],
    ['a broken form', ['POST', '/lint', '--y--', FORM], 400, 'bad_form'],
    ['an unknown field', ['POST', '/lint', { parts: [], nope: 1 }], 400, 'unknown_field'],
    ['no parts', ['POST', '/lint', { parts: [] }], 422, 'empty_bundle'],
    ['gzip', ['POST', '/lint', Buffer.from([0x1f, 0x8b, 8, 0]), FORM], 415, 'gzip_body'],
    ['too much', ['PUT', '/lint/a.sh', big], 413, 'body_too_large'],
    ['too much with a name', ['POST', '/lint?filename=a.sh', big], 413, 'part_too_large'],
    ['an unknown parameter', ['POST', '/lint?dryRun=true', SH], 400, 'bad_request'],
    ['a condition', ['POST', '/lint', SH, { 'if-match': '*' }], 400, 'no_conditions'],
    ['a GET', ['GET', '/lint'], 404, 'unknown_url'],
  ]);
});

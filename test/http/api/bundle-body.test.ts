import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { pack } from 'tar-stream';
import { arrangeParts, type RevisionContent, sha256 } from '../../../src/domain/bundle.ts';
import { BootbundleError, type ErrorKind } from '../../../src/domain/errors.ts';
import { canonicalJson, type JsonObject } from '../../../src/domain/json.ts';
import { LIMITS } from '../../../src/domain/limits.ts';
import type { BundleUpload } from '../../../src/domain/upload.ts';
import { formatBundleOptions, packBundle, readBundleUpload } from '../../../src/http/api/bundle-body.ts';

const TAR = 'application/x-tar';
const FORM = 'multipart/form-data; boundary=----b';
const JSON_TYPE = 'application/json';
const YAML = 'application/yaml';

const missing = (tool: string) => (spawnSync(tool, ['--version']).status === 0 ? false : `${tool} is not installed`);

/** An upload with its bodies as text. */
function readable(upload: BundleUpload) {
  return { ...upload, parts: upload.parts.map((part) => ({ ...part, body: Buffer.from(part.body).toString('latin1') })) };
}

async function read(contentType: string | undefined, body: string | Uint8Array) {
  return readable(await readBundleUpload(contentType, Buffer.from(body)));
}

async function refuses(
  contentType: string | undefined,
  body: string | Uint8Array,
  kind: ErrorKind,
  code: string,
  says?: RegExp,
) {
  await assert.rejects(readBundleUpload(contentType, Buffer.from(body)), (error) => {
    assert.ok(error instanceof BootbundleError, String(error));
    assert.deepEqual([error.kind, error.code], [kind, code], error.message);
    if (says !== undefined) assert.match(error.message, says);
    return true;
  });
}

type Entry = Parameters<ReturnType<typeof pack>['entry']>[0];

function tar(...entries: [header: string | Entry, body?: string | Uint8Array][]): Promise<Buffer> {
  const archive = pack();
  for (const [header, body = ''] of entries) {
    const named = typeof header === 'string' ? { name: header } : header;
    if (named.type === undefined || named.type === 'contiguous-file') archive.entry(named, Buffer.from(body));
    else archive.entry(named);
  }
  archive.finalize();
  return buffer(archive);
}

interface Field {
  name: string;
  filename?: string;
  headers?: string[];
  body: string | Uint8Array;
}

/** A form as curl writes it. */
function form(...fields: Field[]): Buffer {
  const pieces = fields.flatMap(({ name, filename, headers = [], body }) => [
    `------b\r\nContent-Disposition: form-data; name="${name}"${filename === undefined ? '' : `; filename="${filename}"`}\r\n`,
    ...headers.map((header) => `${header}\r\n`),
    '\r\n',
    body,
    '\r\n',
  ]);
  return Buffer.concat([...pieces, '------b--\r\n'].map((piece) => Buffer.from(piece)));
}

const file = (filename: string, body: string | Uint8Array = 'x', headers: string[] = []): Field => ({
  name: 'part',
  filename,
  headers: ['Content-Type: application/octet-stream', ...headers],
  body,
});

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'bundle-body-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

// ---- tar

test('tar: parts in the order of the archive, bytes kept, nothing said', async () => {
  const bytes = Uint8Array.from({ length: 1500 }, (_, index) => index % 256);
  const upload = await readBundleUpload(TAR, await tar(['b.sh', '#!/bin/sh\r\n'], ['./a.bin', bytes]));
  assert.deepEqual(upload, {
    parts: [
      { filename: 'b.sh', body: Buffer.from('#!/bin/sh\r\n') },
      { filename: 'a.bin', body: Buffer.from(bytes) },
    ],
  });
});

test('tar: bundle.yaml holds options and is never a part', async () => {
  const options =
    'vars: {a: 0o17, b: [x]}\nparts:\n  b.yaml: {type: text/x-kube-pod, template: true}\n  a.yaml: {merge: append}\n';
  assert.deepEqual(await read(TAR, await tar(['./bundle.yaml', options], ['b.yaml', 'b'], ['a.yaml', 'a'], ['c', 'c'])), {
    vars: { a: 15, b: ['x'] },
    parts: [
      { filename: 'b.yaml', body: 'b', type: 'text/x-kube-pod', template: true },
      { filename: 'a.yaml', body: 'a', merge: 'append' },
      { filename: 'c', body: 'c' },
    ],
  });
});

test('tar: order given is that of the list, then that of the archive', async () => {
  const archive = (options: string) => tar(['a', '1'], ['b', '2'], ['c', '3'], ['bundle.yaml', options]);
  const names = async (options: string) => {
    const upload = await readBundleUpload(TAR, await archive(options));
    return [upload.order, ...upload.parts.map((part) => part.filename)];
  };
  assert.deepEqual(await names('order: given\nparts: [{filename: c}, {filename: a, type: auto}]'), ['given', 'c', 'a', 'b']);
  assert.deepEqual(await names('order: given\nparts: {c: {}, a: {}}'), ['given', 'a', 'b', 'c']);
  assert.deepEqual(await names('order: name\nparts: [{filename: c}]'), ['name', 'a', 'b', 'c']);
  assert.deepEqual(await names('# nothing yet\n'), [undefined, 'a', 'b', 'c']);
});

test('tar: null, auto and the empty string clear an option', async () => {
  const options = 'parts: {a: {type: auto, merge: ""}, b: {type: null, merge: null, template: false}}';
  assert.deepEqual((await read(TAR, await tar(['a', '1'], ['b', '2'], ['bundle.yaml', options]))).parts, [
    { filename: 'a', body: '1', type: null, merge: null },
    { filename: 'b', body: '2', type: null, merge: null, template: false },
  ]);
});

test('tar: what git archive writes', { skip: missing('git') }, async (t) => {
  const repo = folder(t);
  mkdirSync(join(repo, 'bundles', 'web'), { recursive: true });
  writeFileSync(join(repo, 'bundles', 'web', 'a.sh'), '#!/bin/sh\necho ä\n');
  writeFileSync(join(repo, 'bundles', 'web', 'pod.yaml'), 'kind: Pod\n');
  writeFileSync(join(repo, 'bundles', 'web', 'bundle.yaml'), 'parts: {pod.yaml: {type: text/x-kube-pod}}\n');
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.org', '-C', repo, ...args]);
  git('init', '-q');
  git('add', '.');
  git('commit', '-qm', 'x');
  const folderOnly = git('archive', 'HEAD:bundles/web');
  const commit = git('archive', 'HEAD');
  assert.ok(commit.includes('pax_global_header'));
  assert.deepEqual((await readBundleUpload(TAR, folderOnly)).parts, [
    { filename: 'a.sh', body: Buffer.from('#!/bin/sh\necho ä\n') },
    { filename: 'pod.yaml', body: Buffer.from('kind: Pod\n'), type: 'text/x-kube-pod' },
  ]);
  await refuses(TAR, commit, 'invalid', 'tar_entry', /"bundles\/".*git archive HEAD:FOLDER/);
});

test('tar: a pax global header is skipped', { skip: missing('git') }, async (t) => {
  const repo = folder(t);
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=t', '-c', 'user.email=t@example.org', '-C', repo, ...args]);
  git('init', '-q');
  writeFileSync(join(repo, 'a.sh'), 'x');
  git('add', '.');
  git('commit', '-qm', 'x');
  const bytes = git('archive', 'HEAD');
  assert.ok(bytes.includes('pax_global_header'));
  assert.deepEqual(
    (await read(TAR, bytes)).parts.map((part) => part.filename),
    ['a.sh'],
  );
});

test('tar: what GNU tar writes; folders, links and devices are refused by name', { skip: missing('tar') }, async (t) => {
  const path = folder(t);
  const long = `${'l'.repeat(96)}.txt`;
  writeFileSync(join(path, 'a.sh'), 'x');
  writeFileSync(join(path, long), 'y');
  for (const format of ['gnu', 'ustar', 'pax']) {
    const bytes = execFileSync('tar', ['-C', path, `--format=${format}`, '-c', '.']);
    assert.deepEqual((await readBundleUpload(TAR, bytes)).parts.map((part) => part.filename).sort(), ['a.sh', long], format);
  }
  const pipe = (...args: string[]) => execFileSync('tar', ['-C', path, '-c', ...args]);
  symlinkSync('/etc/shadow', join(path, 'soft'));
  await refuses(TAR, pipe('./a.sh', './soft'), 'invalid', 'tar_entry', /"soft".*symlink/);
  linkSync(join(path, 'a.sh'), join(path, 'hard'));
  await refuses(TAR, pipe('a.sh', 'hard'), 'invalid', 'tar_entry', /"hard".*link/);
  mkdirSync(join(path, 'sub'));
  writeFileSync(join(path, 'sub', 'b.sh'), 'x');
  await refuses(TAR, pipe('sub'), 'invalid', 'tar_entry', /"sub\/" in the tar is a folder/);
  await refuses(TAR, pipe('sub/b.sh'), 'invalid', 'tar_entry', /"sub\/b.sh" in the tar is in a folder/);
  await refuses(TAR, pipe('-P', join(path, 'a.sh')), 'invalid', 'tar_entry');
});

test('tar: ErrTarEntry for names that lead elsewhere and for devices', async () => {
  for (const name of ['../x', '/etc/passwd', './../x', 'a/../b', './/x/y'])
    await refuses(TAR, await tar([name, 'x']), 'invalid', 'tar_entry');
  for (const type of ['character-device', 'block-device', 'fifo', 'symlink', 'link', 'contiguous-file'] as const)
    await refuses(TAR, await tar([{ name: 'odd', type, linkname: 'x' }]), 'invalid', 'tar_entry', /"odd"/);
});

test('tar: ErrBadName names the file', async () => {
  for (const name of ['.gitignore', '._a.sh', '..', 'a b', 'ä', 'a%', 'x'.repeat(101), 'bundle\r\nX: y', ''])
    await refuses(TAR, await tar(['ok', 'x'], [name, 'x']), 'malformed', 'bad_name', /^"/);
});

test('tar: ErrDuplicatePart, across ./a and a, and for bundle.yaml', async () => {
  await refuses(TAR, await tar(['a', '1'], ['./a', '2']), 'invalid', 'duplicate_part', /"a"/);
  await refuses(
    TAR,
    await tar(['a', '1'], ['bundle.yaml', ''], ['./bundle.yaml', '']),
    'invalid',
    'duplicate_part',
    /bundle\.yaml/,
  );
});

test('tar: ErrTooLarge for a header that claims 10 GB, at once; for a part past the limit; for 257 parts', async () => {
  const huge = await tar(['huge.bin', 'x']);
  const header = huge.subarray(0, 512);
  header.write('000000000000', 124);
  Buffer.from([0x80, 0, 0, 0, 0, 0, 0, 2, 0x54, 0x0b, 0xe4, 0x00]).copy(header, 124);
  header.write('        ', 148);
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  await refuses(TAR, huge, 'too_large', 'part_too_large', /"huge\.bin" has 10000000000 bytes/);

  const limit = new Uint8Array(LIMITS.partBytes);
  assert.equal((await readBundleUpload(TAR, await tar(['a', limit]))).parts[0]?.body.length, LIMITS.partBytes);
  await refuses(TAR, await tar(['a', Buffer.alloc(LIMITS.partBytes + 1)]), 'too_large', 'part_too_large', /"a"/);

  const many = Array.from({ length: LIMITS.partsPerBundle }, (_, index): [string, string] => [`p${index}`, 'x']);
  assert.equal((await readBundleUpload(TAR, await tar(...many, ['bundle.yaml', '']))).parts.length, LIMITS.partsPerBundle);
  await refuses(TAR, await tar(...many, ['one-more', 'x']), 'too_large', 'too_many_parts');
});

test('tar: ErrBadTar for garbage and for an archive that ends too early', async () => {
  const whole = await tar(['a', 'x'.repeat(600)], ['b', 'y']);
  await refuses(TAR, 'not a tar', 'malformed', 'bad_tar');
  await refuses(TAR, Buffer.alloc(2048, 'x'), 'malformed', 'bad_tar');
  // assert that: cut between two entries, where a reader sees nothing wrong, is an error too.
  await refuses(TAR, whole.subarray(0, 1536), 'malformed', 'bad_tar', /ends too early/);
  for (let length = 1; length < whole.length - 1024; length += 7)
    await refuses(TAR, whole.subarray(0, length), 'malformed', 'bad_tar');
});

test('tar: ErrEmptyBundle for no parts at all', async () => {
  await refuses(TAR, '', 'invalid', 'empty_bundle');
  await refuses(TAR, await tar(['./bundle.yaml', 'order: given']), 'invalid', 'empty_bundle');
  await refuses(TAR, await tar([{ name: './', type: 'directory' }]), 'invalid', 'empty_bundle');
});

test('gzip is refused with what to do, whatever the type', async () => {
  for (const type of [TAR, 'application/gzip', YAML, undefined])
    await refuses(type, gzipSync(await tar(['a', 'x'])), 'unsupported', 'gzip_body', /gunzip -c/);
});

test('bundle.yaml: ErrUnknownPart, ErrUnknownField, ErrBadField, ErrBadOption, ErrBadYaml', async () => {
  const say = async (options: string, kind: ErrorKind, code: string, says: RegExp) =>
    refuses(TAR, await tar(['a', 'x'], ['bundle.yaml', options]), kind, code, says);
  await say('parts: {b: {merge: append}}', 'invalid', 'unknown_part', /"b"/);
  await say('parts: [{filename: b}]', 'invalid', 'unknown_part', /"b"/);
  await say('parts: [{filename: a}, {filename: a}]', 'invalid', 'duplicate_part', /"a"/);
  await say('partz: {}', 'malformed', 'unknown_field', /"partz"/);
  await say('parts: {a: {mrege: x}}', 'malformed', 'unknown_field', /"parts\/a".*"mrege"/);
  await say('parts: {a: {type: 3}}', 'malformed', 'bad_field', /"parts\/a\/type" must be string or be null/);
  await say('parts: {a: {template: "yes"}}', 'malformed', 'bad_field', /template/);
  await say('parts: 3', 'malformed', 'bad_field', /parts/);
  await say('order: reverse', 'malformed', 'bad_field', /"order" must be name or be given/);
  await say('vars: []', 'malformed', 'bad_field', /vars/);
  await say('vars: {a: .inf}', 'malformed', 'bad_value', /finite/);
  await say('- a', 'malformed', 'bad_field', /bundle\.yaml must be object/);
  await say('parts: {a: {merge: "x\\r\\ny"}}', 'invalid', 'bad_option', /merge of "a"/);
  await say('parts: {a: {type: "x\\u0085y"}}', 'invalid', 'bad_option', /type of "a"/);
  await say('a: b\nc: [hunter2\n', 'malformed', 'bad_yaml', /^(?!.*hunter2).*line 3, column 1/);
  await say('vars: {p: *hunter2}', 'malformed', 'bad_yaml', /^(?!.*hunter2).*line 1, column/);
  await say('vars: !!hunter2 x', 'malformed', 'bad_yaml', /^(?!.*hunter2).*line 1, column/);
  await say('vars: {p: 1, p: 2}', 'malformed', 'bad_yaml', /line 1/);
  await say('a: 1\n---\nb: 2', 'malformed', 'bad_yaml', /single document/);
  await say('a: \xff'.repeat(1), 'malformed', 'unknown_field', /"a"/);
  await refuses(TAR, await tar(['a', 'x'], ['bundle.yaml', Uint8Array.of(0xff)]), 'malformed', 'not_utf8');
});

test('YAML bombs are refused', async () => {
  const levels = Array.from(
    { length: 9 },
    (_, level) => `  l${level + 1}: &l${level + 1} [${Array(9).fill(`*l${level}`).join(', ')}]`,
  );
  const bomb = `vars:\n  l0: &l0 x\n${levels.join('\n')}\nparts: []`;
  await refuses(YAML, bomb, 'malformed', 'bad_value', /more than/);
  await refuses(YAML, `vars: {a: &a [1]}\nparts: [${'*a, '.repeat(1000)}]`, 'malformed', 'bad_yaml');
  await refuses(YAML, 'a: &a [*a]', 'malformed', 'bad_value', /nested|more than/);
  await refuses(YAML, '['.repeat(5000), 'malformed', 'bad_yaml');
  for (const text of ['\n', ' ', ' #\n', '#', '\t\n'])
    await refuses(YAML, text.repeat(1_000_000), 'malformed', 'bad_field', /must be object/);
  await refuses(YAML, `vars: {x: [${'1,'.repeat(5_000_000)}]}`, 'too_large', 'yaml_too_large');
});

// ---- out again

const contentArbitrary: fc.Arbitrary<{ content: RevisionContent; bodies: Map<string, Uint8Array> }> = fc
  .record({
    order: fc.constantFrom('name' as const, 'given' as const),
    vars: fc.dictionary(
      fc.string().filter((key) => key !== '__proto__'),
      fc.jsonValue({ maxDepth: 3 }).filter((value) => !JSON.stringify(value).includes('__proto__')),
      { maxKeys: 4 },
    ),
    parts: fc.uniqueArray(
      fc.record({
        filename: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/).filter((name) => name !== 'bundle.yaml'),
        type: fc.constantFrom('text/x-kube-pod', 'text/x-shellscript'),
        typeSaid: fc.boolean(),
        merge: fc.option(fc.constantFrom('append', 'list(append)+dict(no_replace,recurse_list)+str()', 'yes', '~')),
        template: fc.boolean(),
        body: fc.uint8Array({ minLength: 1, maxLength: 1200 }),
      }),
      { selector: (part) => part.filename, minLength: 1, maxLength: 6 },
    ),
  })
  .map(({ order, vars, parts }) => ({
    content: {
      order,
      vars: vars as JsonObject,
      parts: arrangeParts(
        order,
        parts.map(({ body, ...part }) => ({ ...part, size: body.length, sha256: sha256(body) })),
      ),
    },
    bodies: new Map(parts.map(({ body }) => [sha256(body), body])),
  }));

test('packBundle: what comes out goes in again as the same bundle, however the tar is sorted', async () => {
  await fc.assert(
    fc.asyncProperty(contentArbitrary, async ({ content, bodies }) => {
      const bytes = await packBundle(content, bodies);
      assert.deepEqual(await packBundle(content, bodies), bytes);
      const options = formatBundleOptions(content);
      const sorted = await tar(
        ...(options === null ? [] : [['bundle.yaml', options] as [string, string]]),
        ...arrangeParts('name', content.parts).map((part): [string, Uint8Array] => [
          part.filename,
          bodies.get(part.sha256) ?? Buffer.alloc(0),
        ]),
      );
      for (const archive of [bytes, sorted]) {
        const upload = await readBundleUpload(TAR, archive);
        assert.equal(upload.order ?? 'name', content.order);
        assert.equal(canonicalJson(upload.vars ?? {}), canonicalJson(content.vars));
        assert.deepEqual(
          arrangeParts(
            content.order,
            upload.parts.map((part) => ({
              filename: part.filename,
              type: part.type ?? 'sniffed',
              typeSaid: part.type !== undefined,
              merge: part.merge ?? null,
              template: part.template ?? false,
              size: part.body.length,
              sha256: sha256(part.body),
            })),
          ),
          content.parts.map((part) => (part.typeSaid ? part : { ...part, type: 'sniffed' })),
        );
      }
    }),
    { numRuns: 60 },
  );
});

test('packBundle: GNU tar reads it, with plain headers', { skip: missing('tar') }, async () => {
  const body = Buffer.from('x');
  const part = { type: 'text/plain', typeSaid: false, merge: null, template: false, size: 1, sha256: sha256(body) };
  const content: RevisionContent = {
    order: 'given',
    vars: {},
    parts: [
      { ...part, filename: 'b' },
      { ...part, filename: 'a' },
    ],
  };
  const bytes = await packBundle(content, new Map([[part.sha256, body]]));
  const listed = execFileSync('tar', ['-tv', '--utc', '--numeric-owner'], { input: bytes, encoding: 'utf8' });
  assert.deepEqual(
    listed
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/ +[0-9]+ 1970/, ' 1970')),
    ['b', 'a', 'bundle.yaml'].map((name) => `-rw-r--r-- 0/0 1970-01-01 00:00 ${name}`),
  );
  assert.equal(formatBundleOptions(content), 'order: given\nparts:\n  - filename: b\n  - filename: a\n');
});

test('formatBundleOptions: null when there is nothing to say', () => {
  const part = {
    filename: 'a',
    type: 'text/x-shellscript',
    typeSaid: false,
    merge: null,
    template: false,
    size: 1,
    sha256: '',
  };
  assert.equal(formatBundleOptions({ order: 'name', vars: {}, parts: [part] }), null);
  assert.equal(
    formatBundleOptions({ order: 'name', vars: { a: '0644' }, parts: [{ ...part, typeSaid: true, template: true }] }),
    "vars:\n  a: '0644'\nparts:\n  a:\n    type: text/x-shellscript\n    template: true\n",
  );
});

// ---- form

test('form: files of any field name, bytes kept exactly, octet-stream is not said', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.uint8Array({ maxLength: 50 }), { minLength: 1, maxLength: 4 }), async (bodies) => {
      const upload = await readBundleUpload(FORM, form(...bodies.map((body, index) => file(`f${index}`, body))));
      assert.deepEqual(upload, { parts: bodies.map((body, index) => ({ filename: `f${index}`, body: Buffer.from(body) })) });
    }),
  );
  const tricky = ['\r\n', '\n', '\r', 'a\r\n', 'a\r', '--', '------', '\r\n-----b', 'no break', ''];
  assert.deepEqual(
    (await read(FORM, form(...tricky.map((body, index) => file(`f${index}`, body))))).parts.map((part) => part.body),
    tricky,
  );
});

test('form: a said type, a Merge-Type header, order, vars and bundle.yaml', async () => {
  const body = form(
    { name: 'x', filename: 'b.yaml', headers: ['Content-Type: text/x-kube-pod; charset=utf-8'], body: 'b' },
    file('a.yaml', 'a', ['Merge-Type: list(append)+str()']),
    file('c.yaml', 'c', ['merge-type:']),
    { name: 'order', body: 'given' },
    { name: 'vars', body: 'a: 1\n' },
    { name: 'o', filename: 'bundle.yaml', body: 'parts: {c.yaml: {type: text/cloud-config}, b.yaml: {type: text/x-other}}' },
  );
  assert.deepEqual(await read(FORM, body), {
    order: 'given',
    vars: { a: 1 },
    parts: [
      { filename: 'b.yaml', body: 'b', type: 'text/x-kube-pod' },
      { filename: 'a.yaml', body: 'a', merge: 'list(append)+str()' },
      { filename: 'c.yaml', body: 'c', type: 'text/cloud-config', merge: null },
    ],
  });
});

test('form: bundle.yaml as a text field; vars as JSON', async () => {
  const body = form(file('a', '1'), file('b', '2'), {
    name: 'bundle.yaml',
    body: 'order: given\nparts: [{filename: b}, {filename: a}]',
  });
  assert.deepEqual(
    (await read(FORM, body)).parts.map((part) => part.filename),
    ['b', 'a'],
  );
  assert.deepEqual((await read(FORM, form(file('a'), { name: 'vars', body: '{"a": {"b": 1}}' }))).vars, { a: { b: 1 } });
});

test('form: a part that is MIME itself, or says base64, is taken as it is', async () => {
  const mime = 'Content-Type: multipart/mixed; boundary=i\n\n--i\n\nx\n--i--\n';
  const upload = await read(
    FORM,
    form(
      { name: 'p', filename: 'a', headers: ['Content-Type: multipart/mixed; boundary=i'], body: mime },
      { name: 'p', filename: 'b', headers: ['Content-Type: message/rfc822'], body: mime },
      file('c', 'eA==', ['Content-Transfer-Encoding: base64']),
    ),
  );
  assert.deepEqual(
    upload.parts.map((part) => part.body),
    [mime, mime, 'eA=='],
  );
});

test('form: names with a path are refused, not cut', async () => {
  for (const name of ['d/a.sh', '../a.sh', '/a.sh', 'C:\\\\a.sh', 'a\\\\b', 'a\\"b', 'a%22b', ''])
    await refuses(FORM, form(file(name)), 'malformed', 'bad_name', /^"/);
  await refuses(FORM, form(file('a'), file('a')), 'invalid', 'duplicate_part', /"a"/);
});

test('form: ErrUnknownField, ErrDuplicateField, ErrBadField', async () => {
  await refuses(FORM, form(file('a'), { name: 'ordre', body: 'given' }), 'malformed', 'unknown_field', /"ordre"/);
  await refuses(FORM, form(file('a'), { name: '__proto__', body: 'x' }), 'malformed', 'unknown_field');
  await refuses(FORM, form(file('a'), { name: 'order', body: 'x' }), 'malformed', 'bad_field');
  await refuses(FORM, form(file('a'), { name: 'vars', body: '- x' }), 'malformed', 'bad_field');
  await refuses(FORM, form(file('a'), { name: 'vars', body: '{' }), 'malformed', 'bad_yaml');
  await refuses(
    FORM,
    form(file('a'), { name: 'vars', body: 'a: 1' }, { name: 'vars', body: '' }),
    'malformed',
    'duplicate_field',
  );
  await refuses(
    FORM,
    form(file('a'), { name: 'order', body: 'name' }, { name: 'bundle.yaml', body: 'order: given' }),
    'malformed',
    'duplicate_field',
  );
});

test('form: ErrBadForm for another boundary, none, and wherever it is cut', async () => {
  const whole = form(file('a', 'x'.repeat(50)), file('b', 'y'));
  await refuses('multipart/form-data', whole, 'malformed', 'bad_form', /no boundary/);
  await refuses('multipart/form-data; boundary=other', whole, 'malformed', 'bad_form');
  await refuses(FORM, '------b\r\n\r\nx\r\n------b--\r\n', 'malformed', 'bad_form', /no name/);
  for (let length = 0; length < whole.length - 4; length++)
    await refuses(FORM, whole.subarray(0, length), 'malformed', 'bad_form');
  await refuses(FORM, '------b--\r\n', 'invalid', 'empty_bundle');
});

test('form: 10,000 tiny parts and other attacks on the boundary', async () => {
  const many = Array.from({ length: 10_000 }, (_, index) => file(`p${index}`));
  await refuses(FORM, form(...many), 'too_large', 'too_many_parts');
  await refuses(FORM, '------b\r\n'.repeat(100_000), 'malformed', 'bad_form');
  await refuses(FORM, '------b\r\n\r\n'.repeat(100_000), 'too_large', 'mime_limit');
  await refuses(`multipart/form-data; boundary="${'x'.repeat(10_000)}"`, '--x'.repeat(100_000), 'malformed', 'bad_form');
  await refuses('multipart/form-data; boundary=""', '--\r\n'.repeat(100_000), 'malformed', 'bad_form');
  await refuses(FORM, form(file('a', 'x', [`X: ${'y'.repeat(100_000)}`])), 'too_large', 'mime_limit');
  // assert that: a line that only looks like the boundary stays content.
  const lookalike = 'a\r\n------bb\r\n -----b\r\n-----b--\r\n';
  assert.equal((await read(FORM, form(file('a', lookalike)))).parts[0]?.body, lookalike);
});

// ---- JSON, YAML

test('JSON and YAML alike', async () => {
  const document = {
    order: 'given',
    vars: { a: [1, null, { b: 'x' }] },
    parts: [
      { filename: 'b', content: '#!/bin/sh\nä✓\n', type: 'text/x-shellscript', template: true },
      { filename: 'a', contentBase64: 'AP8=', type: null, merge: '' },
      { filename: 'c', contentBase64: 'AP\n 8', type: 'auto', merge: 'append' },
    ],
  };
  const expected = {
    order: 'given',
    vars: document.vars,
    parts: [
      { filename: 'b', body: Buffer.from('#!/bin/sh\nä✓\n'), type: 'text/x-shellscript', template: true },
      { filename: 'a', body: Buffer.from([0, 255]), type: null, merge: null },
      { filename: 'c', body: Buffer.from([0, 255]), type: null, merge: 'append' },
    ],
  };
  const json = Buffer.from(JSON.stringify(document));
  for (const type of [
    JSON_TYPE,
    'Application/JSON; charset=utf-8',
    YAML,
    'text/yaml',
    undefined,
    'application/x-www-form-urlencoded',
  ])
    assert.deepEqual(await readBundleUpload(type, json), expected, type);
  assert.deepEqual(await readBundleUpload(undefined, Buffer.concat([Buffer.from(' \r\n\t'), json])), expected);
  for (const type of [YAML, 'text/x-yaml', 'application/x-yaml'])
    assert.deepEqual(await read(type, 'parts:\n- filename: a\n  content: |\n    x: 0644\n'), {
      parts: [{ filename: 'a', body: 'x: 0644\n' }],
    });
});

test('what a GET answers may stay in the document', async () => {
  const got = {
    name: 'web',
    revision: 3,
    digest: 'd',
    order: 'name',
    vars: {},
    tags: { stable: 1 },
    status: { createdAt: 'x' },
    changed: false,
    createdAt: 1,
    author: 'me',
    message: 'first',
    purgedAt: null,
    findings: [],
    schema: null,
    parts: [
      {
        filename: 'a',
        type: 'text/x-shellscript',
        typeSaid: false,
        size: 1,
        sha256: 's',
        merge: null,
        template: false,
        content: 'x',
      },
    ],
  };
  assert.deepEqual(await read(JSON_TYPE, JSON.stringify(got)), {
    order: 'name',
    vars: {},
    parts: [{ filename: 'a', body: 'x', merge: null, template: false }],
  });
});

test('JSON: errors say where', async () => {
  const part = { filename: 'a', content: 'x' };
  const say = (document: unknown, kind: ErrorKind, code: string, says: RegExp) =>
    refuses(JSON_TYPE, JSON.stringify(document), kind, code, says);
  await say({ parts: [part], partz: 1 }, 'malformed', 'unknown_field', /"partz"/);
  await say({ parts: [{ ...part, mode: 1 }] }, 'malformed', 'unknown_field', /"parts\/0".*"mode"/);
  await say({ parts: [{ ...part, toString: 1 }] }, 'malformed', 'unknown_field', /"toString"/);
  await say({ parts: [part, { ...part, type: 1 }] }, 'malformed', 'bad_field', /"parts\/1\/type" must be string or be null/);
  await say({ parts: [{ filename: 'a', content: 5 }] }, 'malformed', 'bad_field', /"parts\/0\/content" must be string/);
  await say({ parts: {} }, 'malformed', 'bad_field', /"parts" must be array/);
  await say({}, 'malformed', 'bad_field', /must have parts/);
  await say([], 'malformed', 'bad_field', /must be object/);
  await say({ parts: [{ filename: 'a' }] }, 'malformed', 'bad_field', /part "a" needs either content or contentBase64/);
  await say({ parts: [{ ...part, contentBase64: '' }] }, 'malformed', 'bad_field', /either/);
  for (const contentBase64 of ['x', 'eA===', 'e-_8', 'eA==eA==', '%'])
    await say({ parts: [{ filename: 'a', contentBase64 }] }, 'malformed', 'bad_base64', /"a"/);
  await say({ parts: [part, part] }, 'invalid', 'duplicate_part', /"a"/);
  await say({ parts: [{ ...part, filename: '../a' }] }, 'malformed', 'bad_name', /"\.\.\/a"/);
  await say({ parts: [{ ...part, filename: 'bundle.yaml' }] }, 'malformed', 'reserved_name', /bundle/);
  await say({ parts: [{ ...part, merge: 'a\nb' }] }, 'invalid', 'bad_option', /merge of "a"/);
  await say({ parts: [] }, 'invalid', 'empty_bundle', /no parts/);
  await say(
    { parts: Array.from({ length: 257 }, (_, i) => ({ ...part, filename: `p${i}` })) },
    'too_large',
    'too_many_parts',
    /256/,
  );
  await refuses(JSON_TYPE, '{"parts":[{"filename":"a","content":"\\ud800"}]}', 'malformed', 'bad_value', /surrogate/);
  await refuses(JSON_TYPE, '{"a": hunter2}', 'malformed', 'bad_json', /^(?!.*hunter2)/);
  await refuses(JSON_TYPE, '{"a": "hunter2"\n "b"', 'malformed', 'bad_json', /^(?!.*hunter2).*line 2, column 2/);
  await refuses(JSON_TYPE, Uint8Array.of(0x7b, 0xff), 'malformed', 'not_utf8');
  await refuses(JSON_TYPE, '', 'malformed', 'empty_body');
  await refuses(JSON_TYPE, '['.repeat(200_000) + ']'.repeat(200_000), 'malformed', 'bad_value', /nested/);
});

test('__proto__ is an unknown field, at any depth, and pollutes nothing', async () => {
  for (const document of [
    '{"__proto__": {"polluted": 1}, "parts": [{"filename": "a", "content": "x"}]}',
    '{"parts": [{"filename": "a", "content": "x", "__proto__": {"polluted": 1}}]}',
    '{"vars": {"a": {"__proto__": {"polluted": 1}}}, "parts": [{"filename": "a", "content": "x"}]}',
  ])
    for (const type of [JSON_TYPE, YAML]) await refuses(type, document, 'malformed', 'unknown_field', /__proto__/);
  await refuses(TAR, await tar(['a', 'x'], ['bundle.yaml', 'parts: {__proto__: {merge: x}}']), 'malformed', 'unknown_field');
  await refuses(TAR, await tar(['__proto__', 'x']), 'malformed', 'bad_name');
  assert.equal(({} as { polluted?: number }).polluted, undefined);
});

// ---- MIME

const MIME = [
  'Content-Type: multipart/mixed; boundary="===b==="',
  'MIME-Version: 1.0',
  '',
  '--===b===',
  'Content-Type: text/x-kube-pod; charset="us-ascii"',
  'Content-Disposition: attachment; filename="z.yaml"',
  'Merge-Type: list(append)',
  ' +dict()',
  'X-Merge-Type: other',
  '',
  'kind: Pod',
  '--===b===',
  'Content-Type: multipart/alternative; boundary=i',
  '',
  '--i',
  'Content-Type: text/plain',
  'X-Merge-Type: append',
  'Content-Transfer-Encoding: base64',
  '',
  'IyEvYmluL3No',
  '--i--',
  '--===b===',
  'Content-Type: text/x-not-multipart; name=n',
  'merge-type: not seen by cloud-init',
  '',
  'last',
  '',
  '--===b===--',
  '',
].join('\n');

const imported = {
  order: 'given',
  parts: [
    { filename: 'z.yaml', body: 'kind: Pod', type: 'text/x-kube-pod', merge: 'list(append) +dict()' },
    { filename: 'part-002', body: '#!/bin/sh', merge: 'append' },
    { filename: 'n', body: 'last\n' },
  ],
};

test('MIME: with its own headers, after a From line, or with the boundary in HTTP', async () => {
  const body = MIME.slice(MIME.indexOf('\n\n') + 2);
  assert.deepEqual(await read('multipart/mixed', MIME), imported);
  assert.deepEqual(await read('multipart/mixed', `From nobody Mon Jan 1\n${MIME}`), imported);
  assert.deepEqual(await read('multipart/mixed; boundary="===b==="', MIME), imported);
  assert.deepEqual(await read('multipart/mixed; boundary="===b==="', body), imported);
  assert.deepEqual(await read('multipart/related; boundary=another', MIME), imported);
  assert.deepEqual(await read('multipart/mixed', MIME.replaceAll('\n', '\r\n')), {
    ...imported,
    parts: imported.parts.map((part) => ({ ...part, body: part.body.replace('\n', '\r\n') })),
  });
  assert.deepEqual(await read('multipart/mixed', MIME.slice(0, MIME.indexOf('--===b===--'))), imported);
});

test('MIME: ErrBadMime, ErrGzipPart, ErrBadName, ErrDuplicatePart', async () => {
  const archive = (...parts: string[]) =>
    `Content-Type: multipart/mixed; boundary=b\n\n${parts.map((part) => `--b\n${part}\n`).join('')}--b--\n`;
  const type = 'multipart/mixed';
  await refuses(type, '#!/bin/sh\n', 'malformed', 'bad_mime');
  await refuses(type, '', 'malformed', 'bad_mime');
  await refuses(type, archive(), 'malformed', 'bad_mime');
  await refuses(type, 'Content-Type: text/plain\n\nx', 'malformed', 'bad_mime');
  await refuses(type, 'Content-Type: message/rfc822\n\nx', 'malformed', 'bad_mime');
  await refuses(type, archive('Content-Type: message/rfc822\n\nA: b\n\nx'), 'malformed', 'bad_mime');
  await refuses(type, archive('Content-Type: multipart/mixed\n\nx'), 'malformed', 'bad_mime');
  await refuses(
    type,
    archive(
      `Content-Type: application/x-gzip; name=g\nContent-Transfer-Encoding: base64\n\n${gzipSync('x').toString('base64')}`,
    ),
    'invalid',
    'gzip_part',
    /"g"/,
  );
  await refuses(type, archive('Content-Type: text/plain; name="d/a"\n\nx'), 'malformed', 'bad_name', /"d\/a"/);
  await refuses(type, archive('Content-Type: text/plain; name="=?utf-8?q?a?="\n\nx'), 'malformed', 'bad_name');
  await refuses(
    type,
    archive('Content-Type: text/plain; name=a\n\nx', 'Content-Type: text/plain; name=a\n\nx'),
    'invalid',
    'duplicate_part',
  );
  await refuses(type, archive(...Array(257).fill('\nx')), 'too_large', 'too_many_parts');
});

// ---- the rest

test('ErrBadContentType says what a whole bundle is taken as, and where a single file goes', async () => {
  const types = [
    undefined,
    '',
    'text/plain',
    'application/octet-stream',
    'application/x-www-form-urlencoded',
    'nonsense',
    'text/x-shellscript',
  ];
  for (const type of types)
    await refuses(type, '#!/bin/sh\n', 'unsupported', 'bad_content_type', /application\/x-tar.*\/bundles\/NAME\/parts\/FILE/);
});

test('whatever the bytes, nothing but a BootbundleError, and soon', async () => {
  const part = { type: 'text/plain', typeSaid: true, merge: 'append', template: false, size: 3, sha256: sha256('x') };
  const content: RevisionContent = {
    order: 'given',
    vars: { a: 1 },
    parts: [
      { ...part, filename: 'a' },
      { ...part, filename: 'b' },
    ],
  };
  const seeds: [string, Buffer][] = [
    [TAR, Buffer.from(await packBundle(content, new Map([[part.sha256, Buffer.from('x'.repeat(700))]])))],
    [FORM, form(file('a', 'x'), { name: 'vars', body: 'a: 1' })],
    [JSON_TYPE, Buffer.from(JSON.stringify({ vars: {}, parts: [{ filename: 'a', content: 'x' }] }))],
    [YAML, Buffer.from('order: given\nparts:\n- {filename: a, content: x}\n')],
    ['multipart/mixed', Buffer.from(MIME)],
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.option(fc.nat()),
      async ([type, seed], changes, cut) => {
        const bytes = Buffer.from(seed);
        for (const [at, byte] of changes) bytes[at % bytes.length] = byte;
        const body = cut === null ? bytes : bytes.subarray(0, cut % bytes.length);
        try {
          assert.ok((await readBundleUpload(type, body)).parts.length > 0);
        } catch (error) {
          assert.ok(error instanceof BootbundleError, String(error));
        }
      },
    ),
    { numRuns: 1500 },
  );
});

test('tar headers with every number spoilt end in an error or a bundle, never a hang', { timeout: 60_000 }, async () => {
  const whole = await tar([{ name: `${'n'.repeat(90)}`, pax: { comment: 'x' } } as Entry, 'body'], ['b', 'y']);
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(0, 1, 2, 3, 4),
      fc.oneof(
        fc.uint8Array({ minLength: 12, maxLength: 12 }),
        fc.stringMatching(/^[0-7 ]{11}$/).map((text) => Buffer.from(`${text}\0`)),
      ),
      fc.constantFrom(...'01234567gxLKNSV\0'),
      async (block, size, flag) => {
        const bytes = Buffer.from(whole);
        const header = bytes.subarray(block * 512, block * 512 + 512);
        Buffer.from(size).copy(header, 124);
        header.write(flag, 156, 'latin1');
        header.write('        ', 148);
        header.write(
          `${header
            .reduce((sum, byte) => sum + byte, 0)
            .toString(8)
            .padStart(6, '0')}\0 `,
          148,
        );
        await readBundleUpload(TAR, bytes).catch((error) => assert.ok(error instanceof BootbundleError, String(error)));
      },
    ),
    { numRuns: 500 },
  );
});

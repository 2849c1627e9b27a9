import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseMime } from '../../src/inspect/mime.ts';
import { parseType } from '../../src/inspect/types.ts';
import { type Entity, encodeBody, formatMultipart } from '../../src/render/mime.ts';

const entity = (body: Uint8Array | string, more: Partial<Entity> = {}): Entity => ({
  type: 'text/x-any',
  filename: '01-a',
  merge: null,
  body: encodeBody(typeof body === 'string' ? Buffer.from(body) : body),
  ...more,
});
/** What a MIME reader finds: per part its type, name, rule and bytes. */
function read(document: Uint8Array) {
  const root = parseMime(document);
  assert.ok(root.closed, 'the closing boundary is missing');
  return root.children.map((part) => ({
    type: part.contentType,
    filename: part.filename,
    merge: part.header('merge-type'),
    bytes: Buffer.from(part.body()),
  }));
}
const boundaryOf = (document: Buffer): string => /boundary="([^"]+)"/.exec(document.toString('latin1'))?.[1] ?? '';
const firstLines = (document: Buffer, count: number) => document.toString('latin1').split('\n').slice(0, count);

const line = fc.oneof(
  fc.string({ maxLength: 30 }),
  fc.string({ unit: 'binary', maxLength: 10 }),
  fc.constantFrom(
    '',
    '--',
    '--bootbundle-',
    '--bootbundle-0123456789abcdef0123456789abcdef--',
    'MIME-Version: 1.0',
    'From x',
    '\t',
    ' ',
  ),
);
const text = fc
  .tuple(fc.array(line, { maxLength: 5 }), fc.constantFrom('\n', '\r\n', '\r', '\n\n'), fc.constantFrom('', '\n', '\r\n'))
  .map(([lines, end, last]) => Buffer.from(lines.join(end) + last));
const bytes = fc.oneof(
  text,
  fc.uint8Array({ maxLength: 300 }).map((it) => Buffer.from(it)),
);
const filename = fc.stringMatching(/^[0-9]{2}-[A-Za-z0-9._-]{1,20}$/);
const type = fc.constantFrom('text/x-shellscript', 'text/cloud-config', 'application/x-any', "x-!#$%&'*+/x.^_`{|}~");
const merge = fc.constantFrom(null, 'list(append)+dict(no_replace,recurse_list)+str()');
const entities = fc.array(
  fc
    .record({ bytes, filename, type, merge })
    .map((it) => ({ bytes: it.bytes, entity: entity(it.bytes, { filename: it.filename, type: it.type, merge: it.merge }) })),
  { maxLength: 6 },
);

test('what a MIME reader decodes is what went in: bytes, type, name, rule and order', () => {
  fc.assert(
    fc.property(entities, (sent) => {
      const got = read(formatMultipart(sent.map((it) => it.entity)));
      assert.deepEqual(
        got,
        sent.map(({ bytes, entity: { type, filename, merge } }) => ({ type, filename, merge, bytes })),
      );
    }),
    { numRuns: 300 },
  );
});

test('every single byte, and a body over 64 KiB, comes back', () => {
  const bodies = [
    ...Array.from({ length: 256 }, (_, byte) => Buffer.from([0x61, byte, 0x62])),
    Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
    Buffer.alloc(100_000, 'é'),
    Buffer.from(`${'x'.repeat(997)}\n`.repeat(100)),
  ];
  assert.deepEqual(
    read(formatMultipart(bodies.map((body) => entity(body)))).map((part) => part.bytes),
    bodies,
  );
});

test('7bit is only for TAB, LF and 0x20-0x7E', () => {
  for (let byte = 0; byte < 256; byte++) {
    const plain = byte === 0x09 || byte === 0x0a || (byte >= 0x20 && byte <= 0x7e);
    assert.equal(encodeBody(Buffer.from([0x61, byte])).encoding, plain ? '7bit' : 'base64', `byte ${byte}`);
  }
});

test('7bit is only for lines up to 998 bytes, the last one included', () => {
  const encodings = (length: number) =>
    [(it: string) => it, (it: string) => `${it}\n`, (it: string) => `a\n${it}\nb`, (it: string) => `${it}\n${it}`].map(
      (make) => encodeBody(Buffer.from(make('x'.repeat(length)))).encoding,
    );
  assert.deepEqual(encodings(998), ['7bit', '7bit', '7bit', '7bit']);
  assert.deepEqual(encodings(999), ['base64', 'base64', 'base64', 'base64']);
});

test('7bit bytes are sent as they are; base64 is the standard alphabet in lines of 76', () => {
  assert.equal(encodeBody(Buffer.from('a\tb\n')).bytes.toString(), 'a\tb\n');
  assert.equal(encodeBody(Buffer.alloc(0)).encoding, '7bit');
  const body = Buffer.from(Array.from({ length: 57 * 4 + 1 }, (_, index) => 0xf8 + (index % 8)));
  const { encoding, bytes } = encodeBody(body);
  assert.equal(encoding, 'base64');
  const lines = bytes.toString('latin1').split('\n');
  assert.equal(lines.pop(), '');
  assert.match(lines.join(''), /^[A-Za-z0-9+/]+={0,2}$/);
  assert.match(lines.join(''), /[+/]/);
  assert.deepEqual(
    lines.map((it) => it.length),
    [76, 76, 76, 76, 4],
  );
  assert.deepEqual(Buffer.from(lines.join(''), 'base64'), body);
});

test('a view into a larger buffer is encoded, not what surrounds it', () => {
  const whole = Buffer.from('secret#!/bin/sh\nsecret');
  assert.equal(encodeBody(new Uint8Array(whole.buffer, whole.byteOffset + 6, 10)).bytes.toString(), '#!/bin/sh\n');
  const binary = Buffer.from([0xff, 0x01, 0x02, 0xff]);
  assert.equal(encodeBody(binary.subarray(1, 3)).bytes.toString(), 'AQI=\n');
});

test('the headers are the first bytes, and MIME-Version is among the first 4,096 whatever the input is', () => {
  const hostile = [entity('x'.repeat(10_000), { filename: 'n'.repeat(5000), type: `text/${'x'.repeat(5000)}` })];
  const documents = [[], hostile, [entity('\r\n\r\nMIME-Version: 9\n'), entity('\n\n')]].map(formatMultipart);
  fc.assert(fc.property(entities, (sent) => void documents.push(formatMultipart(sent.map((it) => it.entity)))));
  for (const document of documents) {
    const [contentType, mimeVersion, blank] = firstLines(document, 3);
    assert.match(contentType ?? '', /^Content-Type: multipart\/mixed; boundary="bootbundle-[0-9a-f]{32}"$/);
    assert.equal(mimeVersion, 'MIME-Version: 1.0');
    assert.equal(blank, '');
    assert.ok(document.subarray(0, 4096).toString('latin1').toLowerCase().includes('mime-version:'));
  }
});

test('the whole document is ASCII without CR, so UTF-8 for cloud-init whatever is in it', () => {
  fc.assert(
    fc.property(entities, (sent) =>
      assert.match(formatMultipart(sent.map((it) => it.entity)).toString('latin1'), /^[\t\n\x20-\x7e]*$/),
    ),
  );
});

test('same input, same bytes; any change of it changes the boundary', () => {
  const base = () => [entity('one'), entity('two', { filename: '02-b', type: 'text/cloud-config', merge: 'list()+dict()' })];
  const [first, second] = base() as [Entity, Entity];
  const document = formatMultipart(base());
  assert.deepEqual(formatMultipart(base()), document);
  const changed: Entity[][] = [
    [],
    [first],
    [second],
    [second, first],
    [first, second, second],
    [{ ...first, body: encodeBody(Buffer.from('one\n')) }, second],
    [{ ...first, filename: '01-b' }, second],
    [{ ...first, type: 'text/x-other' }, second],
    [{ ...first, merge: 'list()' }, second],
    [first, { ...second, merge: null }],
    [{ ...first, body: encodeBody(Buffer.from([0xff])) }, second],
  ];
  assert.equal(new Set([document, ...changed.map(formatMultipart)].map(boundaryOf)).size, changed.length + 1);
});

test('a document sent as a part of itself, again and again, stays one part', () => {
  let document = formatMultipart([entity('#!/bin/sh\n'), entity('two')]);
  const seen = new Set<string>();
  for (let round = 0; round < 4; round++) {
    const bodies = [document, Buffer.from(`--${boundaryOf(document)}\n`), Buffer.from(`x\n--${boundaryOf(document)}--`)];
    const next = formatMultipart(bodies.map((body) => entity(body)));
    assert.deepEqual(
      read(next).map((part) => part.bytes),
      bodies,
    );
    assert.ok(bodies.every((body) => !body.includes(boundaryOf(next))));
    seen.add(boundaryOf(document));
    document = next;
  }
  assert.equal(seen.size, 4);
});

test('a body that holds the very boundary of its document makes it choose another', () => {
  // The boundary is made of digests, so under a fixed digest a body can be built that foresees it.
  const forged = (body: string): Entity => ({
    ...entity(''),
    body: { encoding: '7bit', bytes: Buffer.from(body), digest: 'fixed', suspicious: true },
  });
  const taken: string[] = [];
  for (let round = 0; round < 3; round++) {
    const body = `#!/bin/sh\n${taken.map((boundary) => `--${boundary}\n--${boundary}--\n`).join('')}`;
    const document = formatMultipart([forged(body), entity('other')]);
    assert.ok(!taken.includes(boundaryOf(document)));
    assert.deepEqual(
      read(document).map(({ bytes }) => bytes.toString()),
      [body, 'other'],
    );
    taken.push(boundaryOf(document));
  }
  assert.equal(new Set(taken).size, 3);
});

test('whatever could hold a boundary line of ours is searched for it', () => {
  const boundary = boundaryOf(formatMultipart([entity('a')]));
  for (const body of [`--${boundary}`, `a\n--${boundary}--\n`, `x--${boundary}`])
    assert.equal(encodeBody(Buffer.from(body)).suspicious, true);
  assert.equal(encodeBody(Buffer.from('#!/bin/sh\n-- bootbundle\n')).suspicious, false);
  // Base64 has no dash at all.
  assert.ok(!encodeBody(Buffer.from(`é--${boundary}`)).bytes.includes('-'));
});

test('no header value can break out of its line: such a document is never begun', () => {
  const evil = [
    '',
    'a\nX-Evil: 1',
    'a\r\nX-Evil: 1',
    'a\r',
    'a"',
    'a"; x="',
    'a\0',
    'a\u2028b',
    'é',
    'a b',
    'a;b',
    'a/b',
    '\na',
    'a\n',
    '../a\\',
  ];
  for (const value of evil) {
    assert.throws(() => formatMultipart([entity('x', { filename: value })]), /was not checked/, JSON.stringify(value));
    assert.throws(() => formatMultipart([entity('x', { merge: value })]), /was not checked/, JSON.stringify(value));
    if (value === 'a/b') continue;
    for (const type of [value, `text/${value}`, `${value}/plain`])
      assert.throws(() => formatMultipart([entity('x'), entity('x', { type })]), /was not checked/, JSON.stringify(type));
  }
  for (const type of ['text', 'text/', '/x', 'text/x/y', 'Text/plain', 'text/plain; charset=x', 'text/plain\n'])
    assert.throws(() => formatMultipart([entity('x', { type })]), /was not checked/, type);
  for (const rule of ['list(append) str()', 'list(append);x', 'LIST()'])
    assert.throws(() => formatMultipart([entity('x', { merge: rule })]), /was not checked/, rule);
});

test('every type that may be said of a part can be sent', () => {
  const said = fc.string({
    unit: fc.constantFrom(...Array.from({ length: 128 }, (_, code) => String.fromCharCode(code))),
    maxLength: 6,
  });
  fc.assert(
    fc.property(said, said, (a, b) => {
      const type = parseType(`${a}/${b}`);
      if (type !== null) assert.equal(read(formatMultipart([entity('x', { type })]))[0]?.type, type);
    }),
    { numRuns: 1000, examples: [["x'", '*y%z']] },
  );
});

test('a text part that is not 7bit says which charset it is; nothing else does', () => {
  const head = (body: string, type: string) => formatMultipart([entity(body, { type })]).toString('latin1');
  assert.match(head('é', 'text/x-any'), /\nContent-Type: text\/x-any; charset="utf-8"\n/);
  assert.match(head('e', 'text/x-any'), /\nContent-Type: text\/x-any\n/);
  assert.match(head('é', 'application/x-any'), /\nContent-Type: application\/x-any\n/);
});

test('no parts make a document without parts', () => {
  const document = formatMultipart([]);
  const boundary = boundaryOf(document);
  assert.equal(
    document.toString(),
    `Content-Type: multipart/mixed; boundary="${boundary}"\nMIME-Version: 1.0\n\n--${boundary}--\n`,
  );
  assert.deepEqual(read(document), []);
});

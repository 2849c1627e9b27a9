import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import fc from 'fast-check';
import { BootbundleError } from '../../src/domain/errors.ts';
import { MIME_LIMITS, type MimeEntity, parseMime } from '../../src/inspect/mime.ts';

const noPython = spawnSync('python3', ['-c', 'import email']).status === 0 ? false : 'python3 is not installed';

/** What both readers are asked to say of an entity. */
interface Shape {
  type: string;
  filename: string | null;
  /** Base64 of the decoded payload; null for a container. */
  payload: string | null;
  children: Shape[];
}

function shape(entity: MimeEntity): Shape {
  const leaf = entity.children.length === 0;
  return {
    type: entity.contentType,
    filename: entity.filename,
    payload: leaf ? Buffer.from(entity.body()).toString('base64') : null,
    children: entity.children.map(shape),
  };
}

const PYTHON = `
import base64, email, json, sys
def shape(m):
    leaf = not m.is_multipart()
    return {"type": m.get_content_type(), "filename": m.get_filename(),
            "payload": base64.b64encode(m.get_payload(decode=True)).decode() if leaf else None,
            "children": [] if leaf else [shape(c) for c in m.get_payload()]}
for line in sys.stdin:
    print(json.dumps(shape(email.message_from_bytes(base64.b64decode(line)))))
`;

/** Reads all documents with Python's email, in one process. */
function readWithPython(documents: readonly Uint8Array[]): Shape[] {
  const input = documents.map((bytes) => `${Buffer.from(bytes).toString('base64')}\n`).join('');
  const run = spawnSync('python3', ['-c', PYTHON], { input, encoding: 'utf8', maxBuffer: 1 << 28 });
  assert.equal(run.status, 0, run.stderr);
  return run.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** Pieces of MIME thrown together: most documents are broken, as an attacker's would be. */
const soup = fc
  .array(
    fc.constantFrom(
      'Content-Type: multipart/mixed; boundary=B',
      'Content-Type: multipart/mixed;\n boundary="B C"; x=1',
      'content-type: Multipart/Alternative; BOUNDARY="B"',
      'Content-Type: multipart/digest; boundary=D',
      'Content-Type: multipart/mixed',
      'Content-Type: message/rfc822',
      'Content-Type: text/x-shellscript; charset="utf-8"; name="n.sh"',
      'Content-Type: nonsense',
      'Content-Type: text/cloud-config ; name=a;b',
      'Content-Disposition: attachment; filename="a;b\\"c.sh"',
      'Content-Disposition: attachment; filename=plain.sh',
      "Content-Disposition: attachment; filename*=utf-8''%C3%BC%22.sh",
      'Content-Disposition: attachment; filename*0="one-"; filename*1*=%41two; filename*2=".sh"',
      'Content-Disposition: attachment; filename="=?utf-8?q?a?="',
      'Content-Disposition: attachment; filename="<x>"',
      'Content-Transfer-Encoding: base64',
      'Content-Transfer-Encoding: Quoted-Printable',
      'Content-Transfer-Encoding: 8bit',
      'MIME-Version: 1.0',
      ': no name',
      ' folded',
      'no colon',
      'b\u00fc: not a header',
      '',
      '',
      '--B',
      '--B--',
      '--B \t',
      '--B-- ',
      '--Bx',
      '--B C',
      '--B C--',
      '--D',
      '--D--',
      '--',
      'aGVsbG8gd29ybGQ=',
      'aGVsbG8',
      'aGVsbG8',
      'a!GVsb\u00fcA',
      'aGVs bG8\t=',
      'aGVsbA==aGVs',
      'a!b?c',
      'x=3D=\u00fc=',
      'caf=C3=A9 = =zz ==41',
      'text',
    ),
    { maxLength: 30 },
  )
  .chain((lines) =>
    fc
      .array(fc.constantFrom('\n', '\n', '\n', '\r\n', '\r', ''), { minLength: lines.length, maxLength: lines.length })
      .map((ends) => Buffer.from(lines.map((line, index) => line + ends[index]).join(''))),
  )
  // The same piece of one name twice (RFC 2231): Python 3.11 and 3.13 differ.
  .filter((bytes) => !/Content-Disposition[^\r\n]*Content-Disposition/.test(bytes.toString('latin1')));

/** Well-formed archives, as the tools make them, with hostile contents. */
const archive = fc
  .record({
    eol: fc.constantFrom('\n', '\r\n'),
    preamble: fc.constantFrom('', 'This is a multi-part message.'),
    epilogue: fc.constantFrom('', 'bye'),
    closed: fc.boolean(),
    parts: fc.array(
      fc.record({
        body: fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc.string({ unit: 'binary', maxLength: 80 }).map((s) => Buffer.from(s)),
        ),
        encoding: fc.constantFrom('base64', 'wrapped', 'unpadded', '8bit'),
        name: fc.option(fc.stringMatching(/^[a-z .;=<>-]{1,12}$/)),
        type: fc.constantFrom('text/plain', 'text/x-kube-pod', 'application/octet-stream'),
      }),
      { minLength: 1, maxLength: 5 },
    ),
  })
  .map(({ eol, preamble, epilogue, closed, parts }) => {
    const pieces: (string | Uint8Array)[] = [
      `Content-Type: multipart/mixed;${eol} boundary="==B=="${eol}MIME-Version: 1.0${eol}${eol}${preamble}${eol}`,
    ];
    for (const { body, encoding, name, type } of parts) {
      const base64 = Buffer.from(body).toString('base64');
      const cte = encoding === '8bit' ? '8bit' : 'base64';
      pieces.push(`--==B==${eol}Content-Type: ${type}${eol}Content-Transfer-Encoding: ${cte}${eol}`);
      if (name !== null) pieces.push(`Content-Disposition: attachment; filename="${name}"${eol}`);
      pieces.push(eol);
      if (encoding === 'base64') pieces.push(base64);
      if (encoding === 'wrapped') pieces.push(base64.replace(/.{76}/g, `$&${eol}`));
      if (encoding === 'unpadded') pieces.push(base64.replace(/=+$/, ''));
      if (encoding === '8bit') pieces.push(body);
      pieces.push(eol);
    }
    if (closed) pieces.push(`--==B==--${eol}${epilogue}`);
    return Buffer.concat(pieces.map((piece) => Buffer.from(piece)));
  });

/** Base64 that goes on after its padding: Pythons differ. */
const goesOn = (entity: MimeEntity) =>
  entity.header('content-transfer-encoding') === 'base64' &&
  /=[^=]*[A-Za-z0-9+/]/.test(Buffer.from(entity.raw).toString('latin1'));

test('reads whatever comes as Python email reads it', { skip: noPython }, () => {
  const documents = [...fc.sample(soup, 4000), ...fc.sample(archive, 1000)].filter(
    (bytes) => ![...parseMime(bytes).walk()].some(goesOn),
  );
  for (const [index, expected] of readWithPython(documents).entries()) {
    const bytes = documents[index] ?? Buffer.alloc(0);
    assert.deepEqual(shape(parseMime(bytes)), expected, JSON.stringify(bytes.toString('latin1')));
  }
});

test('reads what cloud-utils and make-mime write', { skip: noPython }, () => {
  // assert that: names, types, order and bytes come back, UTF-8 included.
  const script = `
import sys
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
outer = MIMEMultipart()
for name, subtype, text in [("a.sh", "x-shellscript", "#!/bin/sh\\necho h\\u00e4\\n"), ("b.yaml", "cloud-config", "#cloud-config\\nx: 1")]:
    part = MIMEText(text, subtype, sys.getdefaultencoding())
    part.add_header("Content-Disposition", 'attachment; filename="%s"' % name)
    outer.attach(part)
print(outer)
`;
  const root = parseMime(spawnSync('python3', ['-c', script]).stdout);
  assert.deepEqual(
    root.children.map((part) => [part.filename, part.contentType, Buffer.from(part.body()).toString()]),
    [
      ['a.sh', 'text/x-shellscript', '#!/bin/sh\necho hä\n'],
      ['b.yaml', 'text/cloud-config', '#cloud-config\nx: 1'],
    ],
  );
});

test('keeps headers as sent and finds them in any case', () => {
  const entity = parseMime(Buffer.from('From me Mon\nMerge-Type: list(append)\n +dict()\nX-A: 1\nx-a: 2\n\nbody'));
  assert.deepEqual(entity.headers, [
    { name: 'Merge-Type', value: 'list(append)\n +dict()' },
    { name: 'X-A', value: '1' },
    { name: 'x-a', value: '2' },
  ]);
  assert.equal(entity.header('x-A'), '1');
  assert.equal(entity.header('absent'), null);
  assert.equal(Buffer.from(entity.raw).toString(), 'body');
});

test('takes the boundary from the Content-Type of HTTP', () => {
  const root = parseMime(Buffer.from('--X\r\n\r\none\r\n--X--\r\n'), { contentType: 'multipart/mixed; boundary=X' });
  assert.deepEqual(
    root.children.map((part) => Buffer.from(part.raw).toString()),
    ['one'],
  );
  assert.equal(root.closed, true);
});

test('flat: a part that is a multipart itself stays whole', () => {
  const inner = 'Content-Type: multipart/mixed; boundary=Y\r\n\r\n--Y\r\n\r\nin\r\n--Y--\r\n';
  const root = parseMime(Buffer.from(`--X\r\n${inner}\r\n--X--`), {
    contentType: 'multipart/form-data; boundary=X',
    flat: true,
  });
  assert.equal(Buffer.from(root.children[0]?.raw ?? []).toString(), '--Y\r\n\r\nin\r\n--Y--\r\n');
});

test('walks in the order of the document', () => {
  const text =
    'Content-Type: multipart/mixed; boundary=A\n\n--A\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\n1\n--B\n\n2\n--B--\n--A\n\n3\n--A--';
  const leaves = [...parseMime(Buffer.from(text)).walk()].filter((entity) => entity.children.length === 0);
  assert.deepEqual(
    leaves.map((leaf) => Buffer.from(leaf.raw).toString()),
    ['1', '2', '3'],
  );
});

test('never throws anything but a BootbundleError, whatever the bytes', () => {
  fc.assert(
    fc.property(fc.oneof(soup, fc.uint8Array({ maxLength: 300 })), (bytes) => {
      for (const entity of parseMime(bytes).walk()) assert.ok(entity.body() instanceof Uint8Array);
    }),
  );
});

const refused = (error: unknown) =>
  error instanceof BootbundleError && error.kind === 'too_large' && error.code === 'mime_limit';

test('ErrMimeLimit: nesting, number of parts, size of headers', () => {
  let nested = '';
  for (let depth = 0; depth <= MIME_LIMITS.depth + 1; depth++)
    nested += `Content-Type: multipart/mixed; boundary=b${depth}x\n\n--b${depth}x\n`;
  assert.throws(() => parseMime(Buffer.from(nested)), refused);
  assert.throws(() => parseMime(Buffer.from('Content-Type: message/rfc822\n\n'.repeat(1000))), refused);
  assert.throws(
    () => parseMime(Buffer.from(`Content-Type: multipart/mixed; boundary=b\n\n${'--b\n\n\n'.repeat(30_000)}`)),
    refused,
  );
  assert.throws(() => parseMime(Buffer.from(`X: ${'y'.repeat(MIME_LIMITS.headerBytes)}\n\n`)), refused);
  assert.throws(() => parseMime(Buffer.from('a:\n'.repeat(30_000))), refused);
});

test('hostile input takes linear time', () => {
  const size = 4 * 1024 * 1024;
  const multipart = 'Content-Type: multipart/mixed; boundary=b\n\n';
  const documents = [
    multipart + '\n'.repeat(size),
    multipart + '--\n'.repeat(size / 3),
    multipart + '--b'.repeat(size / 3),
    `${multipart}--b\n${'--b\n'.repeat(size / 4)}`,
    `${multipart}--b\nContent-Transfer-Encoding: base64\n\n${'='.repeat(size)}`,
    `${multipart}--b\nContent-Transfer-Encoding: quoted-printable\n\n${'=\r'.repeat(size / 2)}`,
    `Content-Type: text/plain${';"'.repeat(30_000)}\n\n`,
    `Content-Type: text/plain${';a*0*=%'.repeat(9_000)}\n\n`,
  ];
  const started = performance.now();
  for (const text of documents)
    for (const entity of parseMime(Buffer.from(text)).walk()) {
      entity.body();
      entity.filename;
    }
  // Quadratic would be hours.
  assert.ok(performance.now() - started < 30_000, 'took longer than any linear reader would');
});

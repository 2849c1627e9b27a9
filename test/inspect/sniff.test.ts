import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { BootbundleError } from '../../src/domain/errors.ts';
import { LIMITS } from '../../src/domain/limits.ts';
import { matchPrefix, sniff } from '../../src/inspect/sniff.ts';
import { CLOUD_INIT_TYPES, KUBE_TYPES } from '../../src/inspect/types.ts';

const bytes = (body: string | Uint8Array): Uint8Array => (typeof body === 'string' ? new TextEncoder().encode(body) : body);
/** The type, then the codes of the findings. */
const answer = (body: string | Uint8Array, filename = 'file', said: string | null = null): string[] => {
  const { type, findings } = sniff(filename, bytes(body), said);
  for (const finding of findings) assert.equal(finding.part, filename);
  return [type, ...findings.map(({ code }) => code)];
};
const refused = (
  code: string,
  body: string | Uint8Array,
  filename = 'file',
  said: string | null = null,
  kind = 'invalid',
): void => {
  assert.throws(
    () => sniff(filename, bytes(body), said),
    (error) => {
      assert.ok(error instanceof BootbundleError, String(error));
      assert.deepEqual([error.kind, error.code], [kind, code], `${said} ${Buffer.from(bytes(body).subarray(0, 60))}`);
      return true;
    },
  );
};

const MARKS: [mark: string, type: string][] = [
  ['#include', 'text/x-include-url'],
  ['#include-once', 'text/x-include-once-url'],
  ['#!', 'text/x-shellscript'],
  ['#cloud-config', 'text/cloud-config'],
  ['#part-handler', 'text/part-handler'],
  ['#cloud-boothook', 'text/cloud-boothook'],
  ['#cloud-config-archive', 'text/cloud-config-archive'],
  ['#cloud-config-jsonp', 'text/cloud-config-jsonp'],
  ['## template: jinja', 'text/jinja2'],
  ['#kube-pod', 'text/x-kube-pod'],
  ['#kube-service', 'text/x-kube-service'],
  ['#kube-replica', 'text/x-kube-replica'],
  ['#kube-manifest', 'text/x-kube-manifest'],
];

test('each first line states its type', () => {
  for (const [mark, type] of MARKS) assert.equal(answer(`${mark}\n#!/bin/sh\n`)[0], type, mark);
});

test("a first line is matched as cloud-init's type_from_starts_with does (asked on 22.4 and 25.1)", () => {
  for (const [text, type] of [
    ['#Cloud-Config\r\nhostname: x\r\n', 'text/cloud-config'],
    ['#cloud-configuration\nhostname: x\n', 'text/cloud-config'],
    ['#cloud-config-arch\n', 'text/cloud-config'],
    ['\n \t\r\n\v\f#cloud-config\n', 'text/cloud-config'],
    ['\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000#cloud-config\n', 'text/cloud-config'],
    ['#include-once\nhttp://a\n', 'text/x-include-once-url'],
    ['#includes\n', 'text/x-include-url'],
    ['#CLOUD-CONFIG-ARCHIVE\n', 'text/cloud-config-archive'],
    ['## Template: Jinja\n', 'text/jinja2'],
    ['##  template: jinja\n', null],
    ['# template: jinja\n', null],
    ['# cloud-config\n', null],
    ['\ufeff#cloud-config\n', null],
    ['\u200b#cloud-config\n', null],
    ['\0#cloud-config\n', null],
    ['x#cloud-config\n', null],
    ['', null],
  ] as const)
    assert.equal(matchPrefix(text), type, JSON.stringify(text));
});

test('what the script of 2014 confused is told apart', () => {
  assert.deepEqual(answer('#include-once\nhttp://a/\n'), ['text/x-include-once-url']);
  assert.deepEqual(answer('#cloud-config-archive\n- "#cloud-config"\n'), ['text/cloud-config-archive']);
  assert.deepEqual(
    answer(
      'id: dbserver\nkind: Pod\napiVersion: v1beta1\ndesiredState:\n  manifest: {version: v1beta1, id: dbserver}\n',
      'dbserver.yaml',
    ),
    ['text/x-kube-pod'],
  );
});

test('the type said stays; what is sniffed again by cloud-init was not said', () => {
  assert.deepEqual(sniff('a', bytes('#!/bin/sh\n'), 'text/x-shellscript-per-boot'), {
    type: 'text/x-shellscript-per-boot',
    typeSaid: true,
    findings: [],
  });
  for (const said of ['text/plain', 'Text/Plain', 'text/x-not-multipart'])
    assert.deepEqual(sniff('a', bytes('#!/bin/sh\n'), said), { type: 'text/x-shellscript', typeSaid: false, findings: [] });
  refused('unrecognised_part', 'hello\n', 'a', 'text/plain');
});

test("a type may be said that refines the first line, or is neither cloud-init's nor ours", () => {
  for (const said of [
    'text/x-shellscript',
    'text/x-shellscript-per-boot',
    'text/x-shellscript-per-instance',
    'text/x-shellscript-per-once',
    'text/cloud-boothook',
  ])
    assert.deepEqual(answer('#!/bin/sh\n', 'a', said), [said]);
  assert.deepEqual(answer('#!/usr/bin/python3\ndef list_types(): return []\n', 'a', 'text/part-handler'), [
    'text/part-handler',
  ]);
  for (const said of KUBE_TYPES) assert.deepEqual(answer('#kube-pod\nkind: x\n', 'a', said), [said]);
  for (const [mark, type] of MARKS) {
    assert.equal(answer(`${mark}\n#!/bin/sh\n`, 'a', type)[0], type);
    assert.deepEqual(answer(`${mark}\n`, 'a', 'Text/X-Our-Own'), ['text/x-our-own']);
    assert.deepEqual(answer(`${mark}\n`, 'a', 'application/x-our-own'), ['application/x-our-own']);
  }
});

test('a type that belongs to another first line is a mismatch, which names both', () => {
  for (const [mark, type] of MARKS)
    for (const said of [...CLOUD_INIT_TYPES, ...KUBE_TYPES]) {
      if (
        said === type ||
        (mark === '#!' && /shellscript|boothook|part-handler/.test(said)) ||
        (mark.startsWith('#kube-') && KUBE_TYPES.has(said))
      )
        continue;
      refused('type_mismatch', `${mark}\n#!/bin/sh\n`, 'a', said);
    }
  assert.throws(
    () => sniff('a', bytes('## template: jinja\n#cloud-config\n'), 'text/cloud-config'),
    /## template: jinja.*text\/cloud-config/,
  );
});

test('a type said without a first line is believed', () => {
  assert.deepEqual(answer('hostname: x\n', 'a', 'text/cloud-config'), ['text/cloud-config']);
  assert.deepEqual(answer('kind: Pod\n', 'a', 'text/x-kube-manifest'), ['text/x-kube-manifest']);
  assert.deepEqual(answer('echo\n', 'a', 'text/x-shellscript-per-boot'), ['text/x-shellscript-per-boot', 'no_shebang']);
  assert.deepEqual(answer('http://a/\n', 'a', 'text/x-include-once-url'), ['text/x-include-once-url', 'include_not_once']);
  refused('jinja_line', 'hostname: x\n', 'a', 'text/jinja2');
  assert.deepEqual(answer('##template:  JINJA \r\nx\n', 'a', 'text/jinja2'), ['text/jinja2']);
});

test('a jinja line that cloud-init would not render is refused', () => {
  for (const text of [
    '\n## template: jinja\n#cloud-config\n',
    '## template: jinja2\n#cloud-config\n',
    '## template: jinja x\n#cloud-config\n',
  ])
    refused('jinja_line', text);
});

test('what is no type, or cannot be the type of a part, is refused', () => {
  for (const said of [
    '',
    'text',
    'a b',
    'text/x\r\nX: y',
    'text/x; a=b',
    'multipart/mixed',
    'message/rfc822',
    'text/"x"',
    `text/${'x'.repeat(200)}`,
  ])
    refused('bad_type', '#!/bin/sh\n', 'a', said);
  for (const said of ['application/gzip', 'application/x-gzip', 'application/x-compress'])
    refused('gzip_part', '#!/bin/sh\n', 'a', said);
});

test('a script that cannot be run is warned of', () => {
  assert.deepEqual(answer('\n#!/bin/sh\n'), ['text/x-shellscript', 'no_shebang']);
  assert.deepEqual(answer('echo\n', 'a.sh'), ['text/x-shellscript', 'no_shebang']);
  assert.deepEqual(answer('#cloud-boothook\necho\n'), ['text/cloud-boothook', 'no_shebang']);
  assert.deepEqual(answer('#cloud-boothook\n\n #!/bin/sh\necho\n'), ['text/cloud-boothook']);
  assert.deepEqual(answer('#!/bin/sh\r\necho\r\n'), ['text/x-shellscript']);
});

test('a Kubernetes manifest is known by its content', () => {
  for (const [text, type] of [
    ['apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n', 'text/x-kube-pod'],
    ['# a comment\n---\n# another\nkind: Service\nmetadata:\n  name: x\napiVersion: v1\n', 'text/x-kube-service'],
    ['apiVersion: v1\r\nkind: ReplicationController\r\n', 'text/x-kube-replica'],
    ['apiVersion: apps/v1\nkind: ReplicaSet\n', 'text/x-kube-replica'],
    ['apiVersion: v1\nkind: ReplicationController\n---\napiVersion: apps/v1\nkind: ReplicaSet\n', 'text/x-kube-replica'],
    ['apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Pod\n---\n', 'text/x-kube-pod'],
    ['apiVersion: v1\nkind: Pod\n---\napiVersion: v1\nkind: Service\n', 'text/x-kube-manifest'],
    ['apiVersion: v1\nkind: Pod\n---\na: b\n', 'text/x-kube-manifest'],
    ['apiVersion: v1\nkind: List\nitems: []\n', 'text/x-kube-manifest'],
    ['apiVersion: apps/v1\nkind: Deployment\n', 'text/x-kube-manifest'],
    ['{"apiVersion": "v1", "kind": "Pod"}', 'text/x-kube-pod'],
    ['{\n\t"kind": "Pod",\n\t"apiVersion": "v1"\n}\n', 'text/x-kube-pod'],
    ['{apiVersion: v1, kind: Service}', 'text/x-kube-service'],
    ['--- {apiVersion: v1, kind: Service}\n', 'text/x-kube-service'],
    ['"apiVersion": v1\n\'kind\' : Pod\n', 'text/x-kube-pod'],
    ['  apiVersion: v1\n  kind: Pod\n', 'text/x-kube-pod'],
    ['x: &k Pod\napiVersion: v1\nkind: *k\n', 'text/x-kube-pod'],
    ['id: web\nkind: Service\napiVersion: v1beta1\nport: 80\n', 'text/x-kube-service'],
    ['id: web\nkind: ReplicationController\napiVersion: v1beta1\n', 'text/x-kube-replica'],
    ['apiVersion: v1\nkind: Pod\nspec: {args: [\n"a"\n]}\n', 'text/x-kube-pod'],
  ] as const)
    assert.deepEqual(answer(text, 'x.yaml'), [type], text);
  for (const text of [
    'apiVersion: v1\n',
    'kind: Pod\n',
    'apiVersion: 1\nkind: Pod\n',
    'a:\n  apiVersion: v1\n  kind: Pod\n',
    '- apiVersion: v1\n  kind: Pod\n',
  ])
    refused('unrecognised_part', text, 'x.yaml');
});

test('what looks like a manifest and is no YAML is refused with its line', () => {
  assert.throws(
    () => sniff('pod.yaml', bytes('apiVersion: v1\nkind: Pod\nmetadata: [\n'), null),
    (error) =>
      error instanceof BootbundleError &&
      error.kind === 'invalid' &&
      error.code === 'bad_yaml' &&
      (error.findings?.[0]?.line ?? 0) >= 3,
  );
  assert.deepEqual(answer('cat <<E\napiVersion: v1\nkind: Pod\nE\n: [\n', 'a.sh'), ['text/x-shellscript', 'no_shebang']);
});

test('a part handler is known without its first line', () => {
  assert.deepEqual(
    answer(
      'import os\n\ndef list_types():\n    return []\n\ndef handle_part(data, ctype, filename, payload):\n    """\napiVersion: v1\nkind: Pod\n: [\n"""\n',
      'h.py',
    ),
    ['text/part-handler'],
  );
  refused('unrecognised_part', 'def list_types():\n    return []\n', 'h.py');
});

test('extensions are asked last, and keep out namesakes', () => {
  for (const [filename, text, type] of [
    ['a.pod', 'id: x\n', 'text/x-kube-pod'],
    ['a.SERVICE', 'id: x\n', 'text/x-kube-service'],
    ['a.replica', 'id: x\n', 'text/x-kube-replica'],
    ['a.service', 'apiVersion: v1\nkind: Pod\n', 'text/x-kube-pod'],
    ['a.pod', '#!/bin/sh\n', 'text/x-shellscript'],
    ['a.cfg', 'hostname: x\n', 'text/cloud-config'],
    ['a.cloud-config', 'hostname: x\n', 'text/cloud-config'],
    ['a.part-handler', 'def list_types(): return []\n', 'text/part-handler'],
    ['a.include', 'http://a/\n', 'text/x-include-url'],
  ] as const)
    assert.deepEqual(answer(text, filename), [type], filename);
  for (const [filename, text] of [
    ['a.service', '# /etc/systemd\n\n[Unit]\nDescription=x\n'],
    ['a.service', '; x\r\n[Unit]\r\nDescription=x\r\n'],
    ['a.pod', '[Pod]\nPodName=x\n'],
    ['a.cfg', '[main]\na = b\n'],
    ['a.include', 'hello\n'],
    ['a.constructor', 'hello\n'],
    ['a.', 'hello\n'],
  ] as const)
    refused('unrecognised_part', text, filename);
});

test('what fits nothing is refused with what is recognised', () => {
  assert.throws(
    () => sniff('notes.txt', bytes('hello\n'), null),
    (error) => {
      assert.ok(error instanceof BootbundleError);
      assert.equal(error.code, 'unrecognised_part');
      for (const [mark] of MARKS) assert.ok(error.message.includes(mark), mark);
      assert.match(error.message, /apiVersion.*\.pod.*\?type=/);
      return true;
    },
  );
});

test('an empty body is refused: curl -T of a directory sends one', () => {
  for (const body of ['', ' ', '\n\n', ' \t\r\n\v\f'])
    for (const said of [null, 'text/x-our-own', 'application/x-our-own']) refused('empty_part', body, 'somedir', said);
  assert.throws(() => sniff('d', bytes(''), null), /was this a directory/);
});

test('a body past the limit is too large, one of the limit is not', () => {
  refused('part_too_large', new Uint8Array(LIMITS.partBytes + 1), 'a', null, 'too_large');
  const body = new Uint8Array(LIMITS.partBytes).fill(0x61);
  body.set(bytes('#!/bin/sh\n'));
  assert.deepEqual(answer(body), ['text/x-shellscript']);
});

test('line breaks that curl -d removed are noticed', () => {
  for (const text of [
    '#!/bin/sh\nset -e\necho hi\n',
    '#!/bin/sh\nreboot\n',
    '#!/bin/sh -e\necho hi\n',
    '#!/bin/sh -e\nreboot\n',
    '#!/bin/sh\n/opt/start\n',
    '#! /bin/bash\necho\n',
    '#!/usr/bin/env python3\nimport os\n',
    '#!/usr/bin/env bash\nset -eu\n',
    '#!/usr/bin/python3.11\nimport os\n',
    `#!/opt/tool\n${'run me\n'.repeat(50)}`,
    '#cloud-config\nhostname: x\n',
    '#cloud-config\nruncmd:\n- [a, b]\n',
    '#Cloud-Config\nhostname: x\n',
    '#cloud-config-archive\n- x\n',
    '#part-handler\nimport os\n',
    '#cloud-boothook\n#!/bin/sh\nset -e\n',
    '#cloud-boothook\necho\n',
    '## template: jinja\n#cloud-config\nhostname: x\n',
    '#include\nhttp://a/x\nhttp://b/y\n',
    '#include-once\nhttp://a/x\nhttp://b/y\n',
    '#kube-pod\napiVersion: v1\nkind: Pod\n',
    '#kube-service\nid: x\n',
    '#kube-replica\nid: x\n',
    '#kube-manifest\nid: x\n',
    'apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\n',
    'id: x\nkind: Pod\napiVersion: v1beta1\n',
  ]) {
    refused('newlines_lost', text.replaceAll('\n', ''));
    assert.ok(sniff('file', bytes(text), null).type, text);
  }
  assert.throws(() => sniff('a', bytes('#cloud-confighostname: x'), null), /curl -T/);
});

test('what works in one line is taken', () => {
  for (const text of [
    '#!/bin/true',
    '#!/bin/sh',
    '#! /bin/sh -e',
    '#!/bin/sh /opt/start',
    '#!/usr/bin/env python3',
    "#!/usr/bin/env -S bash -c 'reboot now'",
    '#!/sbin/shutdown',
    '#!/usr/bin/touch /tmp/x',
    '#!/usr/bin/shred -u',
    '#!/usr/bin/perl -w',
    '#include http://a/',
    '#includehttp://a/?next=http://b/',
    '#include-once https://a/i/x/user-data',
    '#include-once',
    '#cloud-config',
    '#cloud-config ',
    '#cloud-config-jsonp [{"op": "add", "path": "/a", "value": 1}]',
    '#cloud-boothook#!/bin/true',
    '#part-handler',
    '## template: jinja',
    '#kube-pod',
    '{"apiVersion": "v1", "kind": "Pod"}',
    'hostname: x',
  ])
    assert.ok(sniff('a.cfg', bytes(text), null).type, text);
  // A handler of one's own may make of a line what it likes.
  assert.deepEqual(answer('#cloud-confighostname: x', 'a', 'text/x-our-own'), ['text/x-our-own']);
});

test('gzip is refused, unless it is bytes of a type of its own', () => {
  for (const said of [null, 'text/cloud-config', 'text/x-our-own'])
    refused('gzip_part', gzipSync('#cloud-config\n'), 'a.gz', said);
  assert.deepEqual(answer(gzipSync('x'), 'a.gz', 'application/x-our-own'), ['application/x-our-own']);
});

test('a MIME archive is sent to where it belongs', () => {
  for (const text of [
    'Content-Type: multipart/mixed; boundary="x"\nMIME-Version: 1.0\n\n--x\n',
    'MIME-Version: 1.0\r\nX-A: b\r\n folded\r\ncontent-type: Multipart/Mixed; boundary="x"\r\n\r\n--x\r\n',
    'From nobody Thu Oct 16 10:00:00 2014\nContent-Type: multipart/mixed; boundary="x"\n\n',
  ])
    refused('mime_archive', text);
  refused('unrecognised_part', 'Subject: x\n\nContent-Type: multipart/mixed\n');
});

test('text is UTF-8 without a byte order mark; other bytes need a type that is not text/*', () => {
  for (const said of [null, 'text/cloud-config', 'text/x-our-own']) {
    refused('not_utf8', Uint8Array.of(0x23, 0x21, 0x2f, 0xff, 0x0a), 'a', said);
    refused('bom', Buffer.from('\ufeff#cloud-config\n', 'utf16le'), 'a', said);
    refused('bom', Buffer.from('\ufeff#cloud-config\n', 'utf16le').swap16(), 'a', said);
  }
  for (const said of [null, 'text/cloud-config', 'text/x-shellscript', 'text/x-kube-pod'])
    refused('bom', '\ufeff#cloud-config\n', 'a', said);
  assert.deepEqual(answer('\ufeffx', 'a', 'text/x-our-own'), ['text/x-our-own']);
  assert.deepEqual(answer(Uint8Array.of(0xff, 0xfe, 0), 'a', 'application/x-our-own'), ['application/x-our-own']);
  assert.deepEqual(answer('#cloud-config\nhostname: grün ✓ 😀\n'), ['text/cloud-config']);
});

test('a NUL byte in text is warned of', () => {
  assert.deepEqual(answer('#!/bin/sh\necho \0\n'), ['text/x-shellscript', 'nul_byte']);
});

test('odd but valid bodies are taken', () => {
  for (const [text, type] of [
    ['\r\n\r\n#cloud-config\r\nhostname: x', 'text/cloud-config'],
    ['#cloud-config', 'text/cloud-config'],
    ['#cloud-config\r', 'text/cloud-config'],
    ['#cloud-config\rhostname: x\r', 'text/cloud-config'],
    ['#!/bin/sh\n--===BOUNDARY==\n', 'text/x-shellscript'],
    ['#cloud-config # and more\nhostname: x\n', 'text/cloud-config'],
    ['a: &a {b: c}\napiVersion: v1\nkind: Pod\nx: {<<: *a}\n', 'text/x-kube-pod'],
  ] as const)
    assert.equal(answer(text)[0], type, JSON.stringify(text));
});

test('no body, name or type makes it throw anything but a BootbundleError, and no message quotes the body', () => {
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.string({ unit: 'binary', maxLength: 200 }).map(bytes),
    fc
      .tuple(
        fc.constantFrom('', '\n', ' ', '\ufeff', '\0'),
        fc.constantFrom(...MARKS.map(([mark]) => mark), 'apiVersion: v1\nkind: ', 'def list_types('),
        fc.string({ unit: 'binary' }),
      )
      .map((pieces) => bytes(pieces.join(''))),
    fc
      .array(
        fc.constantFrom(
          'apiVersion: v1\n',
          'kind: Pod\n',
          '---\n',
          '{',
          '}',
          '[',
          '- ',
          '*a',
          '&a ',
          '"',
          "'",
          '#!',
          '\n',
          'x',
        ),
        { maxLength: 20 },
      )
      .map((pieces) => bytes(pieces.join(''))),
  );
  const said = fc.oneof(
    fc.constant(null),
    fc.constantFrom(...CLOUD_INIT_TYPES, ...KUBE_TYPES, 'text/x-a', 'application/x-a'),
    fc.string({ unit: 'binary' }),
  );
  const filename = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('a.sh', 'a.cfg', 'a.pod', 'a.service', '__proto__', 'a.__proto__', '../x', 'a\r\nb'),
  );
  fc.assert(
    fc.property(filename, noise, said, (name, body, type) => {
      try {
        const result = sniff(name, body, type);
        assert.match(result.type, /^[^\s"();,/]+\/[^\s"();,/]+$/);
        assert.deepEqual(sniff(name, body, type), result);
      } catch (error) {
        assert.ok(error instanceof BootbundleError, String(error));
      }
    }),
    { numRuns: 3_000 },
  );
  const secret = 'hunter2hunter2';
  for (const text of [
    secret,
    `#!/bin/sh${secret}`,
    `#cloud-config${secret}`,
    `apiVersion: v1\nkind: Pod\nx: *${secret}\n`,
    `apiVersion: v1\nkind: Pod\n!!${secret} x: [`,
    `## template: ${secret}\n`,
  ])
    assert.throws(
      () => sniff('a', bytes(text), null),
      (error) =>
        error instanceof BootbundleError &&
        !error.message.includes(secret) &&
        !JSON.stringify(error.findings ?? []).includes(secret),
    );
});

test('4 MiB are sniffed in bounded time', () => {
  const size = LIMITS.partBytes;
  const fill = (head: string, unit: string) => bytes(head + unit.repeat(Math.floor((size - head.length) / unit.length)));
  for (const body of [
    fill('', 'x'),
    fill('x', ' '),
    fill(' #cloud-config', ' '),
    fill('#!/bin/sh', ' '),
    fill('', 'kind: \n'),
    fill('', '[Unit\n'),
    fill('', '{,'),
    fill('', '\r\n x'),
    fill('', 'def list_types \n'),
    fill('#include', 'http:/'),
    fill('X: ', 'Content-Type:'),
    fill('apiVersion: v1\nkind: Pod\n', '- a\n'),
    fill('apiVersion: v1\nkind: Pod\nx:\n', '- a\n'),
    fill('apiVersion: v1\nkind: Pod\nx: [\n', '1,\n'),
    fill('{"apiVersion": 1, "kind": 2, "x": ', '['),
  ]) {
    const start = performance.now();
    try {
      sniff('a.cfg', body, null);
    } catch (error) {
      assert.ok(error instanceof BootbundleError, String(error));
    }
    assert.ok(performance.now() - start < 5_000, Buffer.from(body.subarray(0, 20)).toString());
  }
});

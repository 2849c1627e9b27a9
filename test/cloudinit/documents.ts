import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { compilePart, renderDocument } from '../../src/render/document.ts';

/** Documents for the differential test: what operators send, and what they send by mistake. */

export interface TestDocument {
  bytes: Buffer;
  launchIndex?: number;
}

/** A part before it is encoded. */
interface Piece {
  type: string;
  body: Buffer;
}

const HANDLED = [
  'text/x-one',
  'text/x-two',
  'application/x-one',
  'text/x-shellscript',
  'text/cloud-config',
  'text/cloud-boothook',
  'text/cloud-config-jsonp',
  'text/jinja2',
  'text/part-handler',
];
const RULES = [
  'list(append)+dict(no_replace,recurse_list)+str()',
  'list(prepend)+dict(no_replace,recurse_list)',
  'dict(replace)+list()+str()',
  'dict(recurse_array)+list(append)+str(append)',
  'dict(recurse_str,recurse_list)+list(recurse_dict,recurse_str,recurse_list)+str(append)',
  'dict(no_replace,allow_delete)+list(no_replace)',
  'dict()+list(replace)',
  'list(append)',
  'str(append)',
  'm_dict(replace)+LIST( Append )',
  'dict(recurse-str)+str(append)',
  'dict(recurse_list)+list(prepend,recurse_dict)',
  '',
  '+',
  'append',
  'dict',
  'dict(no_replace',
  'tuple(append)',
  'dict(replace)+nonsense()',
];
const NAMES = [
  'a.sh',
  'b.sh',
  '10.sh',
  '9.sh',
  'A b.sh',
  'dir/x.sh',
  'äöü.yaml',
  '..',
  '.',
  '/',
  'x/',
  '???',
  'ä',
  '',
  ' ',
  'a;b',
  'q"uote',
  'back\\slash',
  'tab\tx',
  "o'clock",
  'part-001',
  'nel\u0085x: y',
  'form\ffeed',
  'unit\x1fx',
  'vertical\v: y',
  'line\u2028x',
  '\ufeffbom',
  'x'.repeat(256),
  'ab\u0301',
];

const scalar = fc.oneof(
  fc.integer({ min: -9, max: 999 }),
  fc.boolean(),
  fc.constant(null),
  fc.constantFrom(
    '',
    'x',
    'yz',
    'ä✓',
    'yes',
    '0644',
    '1:30',
    '2020-01-01',
    '~',
    'a: b',
    '# c',
    '{{ x }}',
    '=',
    '1e3',
    '0o14',
    '1_000',
    '- a',
    'line\nbreak',
    ' pad ',
  ),
);
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2, depthSize: 'small' },
    scalar,
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom('a', 'b', 'c', '1'), tie('value'), { maxKeys: 3, noNullPrototype: true }),
  ),
}));
const rule = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...RULES) },
  {
    weight: 1,
    arbitrary: fc
      .array(
        fc.tuple(
          fc.constantFrom('dict', 'list', 'str'),
          fc.subarray(
            [
              'replace',
              'no_replace',
              'append',
              'prepend',
              'recurse_dict',
              'recurse_list',
              'recurse_str',
              'recurse_array',
              'allow_delete',
            ],
            { maxLength: 3 },
          ),
        ),
        { minLength: 1, maxLength: 3 },
      )
      .map((mergers) => mergers.map(([name, settings]) => `${name}(${settings.join(',')})`).join('+')),
  },
);
const goodRule = rule.filter((each) => /^(?:(?:dict|list|str)\([a-z_,]*\)\+?)+$/.test(each));
const ruleInBody = fc.oneof(
  rule,
  fc.constantFrom<unknown>(
    ['dict(replace)'],
    [
      ['dict', 'replace'],
      ['list', 'append'],
    ],
    [
      { name: 'dict', settings: ['no_replace', 'recurse_list'] },
      { name: 'list', settings: ['append'] },
    ],
    [{ name: 'm-dict', settings: 'replace' }],
    [{ name: 'list', settings: null }],
    [{ name: 'dict' }],
    [['list', 'append'], ['']],
    ['d'],
    [[]],
    [null],
    {},
    { dict: 'replace' },
    5,
    [],
  ),
);
const config = fc
  .tuple(
    fc.dictionary(fc.constantFrom('a', 'b', 'runcmd', 'packages', 'hostname', 'launch-index'), value, {
      maxKeys: 4,
      noNullPrototype: true,
    }),
    fc.option(fc.tuple(fc.constantFrom('merge_how', 'merge_type'), ruleInBody), { freq: 4 }),
  )
  .map(([body, how]) => (how === null ? body : { ...body, [how[0]]: how[1] }));
const BAD_YAML = [
  'a: 1_0',
  'a: 0b11',
  'a: 1e3',
  'a: .5',
  'a: 12:30:45',
  "a: 'x'  # c",
  'a: |\n  x\n',
  'a: >-\n  x\n  y\n',
  '? a\n: b\n',
  'a: *x',
  'a: &x [1]\nb: *x\nmerge_how: list(append)+dict(recurse_list)',
  '%YAML 1.1\n---\na: 1\n',
  '--- {a: 1}\n...\n',
  'a: !foo x',
  'a: !!str 5',
  "a: !!int '5'",
  '[a]: b',
  'a:\n- 1\n- 2\n',
  'a:\n  - 1\n - 2',
  'a: b\n c: d',
  'a: "\\u00e9\\x41"',
  'a: b#c',
  'a: @x',
  'a: `x`',
  'a: %x',
  'a: - b',
  'a: [b, c,]',
  'a: {b, c}',
  'a: [,]',
  'a: "\\ud800"',
  'a: b: {{ c }}',
  'a: {{ c }}',
  'a: x\u0085b: y\n',
  'a: 0o7\nb: 08\nc: +1\nd: 1.\n',
  'a: [',
  '- a\n- b\n',
  'text',
  '',
  '# nothing\n',
  'a: b: c',
  'a: "x',
  '\tx: 1',
  'a: 1\n---\nb: 2\n',
  'a: \u0001\n',
  'x: !!python/unicode y\n',
  'a: &x {b: 1}\nc: *x\n',
  '<<: {a: 1}\nb: 2\n',
  'a: 1\na: 2\n',
  'a: =',
  'null',
  '{a: 010, b: yes, c: 1:30, d: 0x1f}',
];
const yaml = fc.oneof(
  { weight: 5, arbitrary: config.map((each) => JSON.stringify(each)) },
  { weight: 1, arbitrary: fc.constantFrom(...BAD_YAML) },
);
const cloudConfig = fc
  .tuple(
    fc.constantFrom(
      '#cloud-config\n',
      '#cloud-config\n',
      '#cloud-config\r\n',
      '\n #Cloud-Config stuff\n',
      '#cloud-configuration\n',
      '\ufeff#cloud-config\n',
      '',
    ),
    yaml,
  )
  .map(([head, body]) => `${head}${body}\n`);

const pointer = fc.constantFrom(
  '/a',
  '/b',
  '/a/0',
  '/a/-',
  '/a/b',
  '/runcmd/-',
  '/runcmd/1',
  '/hostname',
  '',
  '/',
  '/x/y',
  'a',
  '/a/01',
  '/a~1b',
  '/~2',
  '/c/b',
);
const operation = fc.oneof(
  fc.record(
    { op: fc.constantFrom('add', 'replace', 'test'), path: pointer, value },
    { requiredKeys: ['op', 'path'], noNullPrototype: true },
  ),
  fc.record({ op: fc.constant('remove'), path: pointer }, { noNullPrototype: true }),
  fc.record(
    { op: fc.constantFrom('move', 'copy'), path: pointer, from: pointer },
    { requiredKeys: ['op', 'path'], noNullPrototype: true },
  ),
  fc.constantFrom<unknown>({ op: 'add' }, { op: 'nonsense', path: '/a' }, { path: '/a' }, 'add', 5),
);
const jsonp = fc
  .tuple(
    fc.constantFrom('#cloud-config-jsonp\n', '#cloud-config-jsonp ', '\n#cloud-config-jsonp\n', '#Cloud-config-jsonp\n'),
    fc.oneof(
      { weight: 5, arbitrary: fc.array(operation, { maxLength: 2 }).map((each) => JSON.stringify(each)) },
      { weight: 1, arbitrary: fc.constantFrom('{}', '""', 'nonsense', '5', '{"a": 1}', '[', '') },
    ),
  )
  .map(([head, body]) => head + body);

const ending = fc.constantFrom('\n', '\n', '\r\n', '\r');
const script = fc
  .tuple(
    fc.constantFrom('#!/bin/sh', ' #!/bin/sh', '#!/bin/bash -e', '\n#!/bin/sh', 'echo no shebang'),
    fc.constantFrom('true', 'echo äöü ✓ 😀', 'x\r', '\u0000', ''),
    ending,
  )
  .map(([first, second, end]) => `${first}${end}${second}${end}`);
const boothook = fc
  .tuple(fc.constantFrom('#cloud-boothook', '#cloud-boothook ', ' #cloud-boothook', '#Cloud-Boothook'), ending, script)
  .map(([head, end, body]) => `${head}${end}${body}`);
const jinja = fc
  .tuple(
    fc.constantFrom(
      '## template: jinja\n',
      '## template:jinja\n',
      '## template: jinja\r\n',
      ' ## template: jinja\n',
      '## template: jinja',
      '## template: basic\n',
      '## Template: Jinja \n',
    ),
    fc.oneof(cloudConfig, script, boothook, jsonp, fc.constantFrom('', 'text', '#include\nfile:///dev/null\n')),
  )
  .map(([head, body]) => head + body.replace(/\{(?=[{%#])/g, '{ '));
const handler = fc
  .tuple(
    fc.subarray(HANDLED, { maxLength: 3 }),
    fc.constantFrom(
      '',
      '',
      'handler_version = 2\n',
      'handler_version = 3\n',
      'handler_version = "2"\n',
      'frequency = "once"\n',
      'frequency = "always"\n',
      'frequency = "sometimes"\n',
      'import os\n',
    ),
    fc.constantFrom('whole', 'whole', 'whole', 'whole', 'no list_types', 'no handle_part', 'syntax', 'empty', 'jinja'),
    fc.constantFrom('#part-handler\n', '#part-handler\n', '\n#part-handler\n', '#part-handler äöü\n'),
  )
  .map(([types, more, kind, head]) => {
    const list = kind === 'no list_types' ? '' : `def list_types():\n    return ${JSON.stringify(types)}\n`;
    const part =
      kind === 'no handle_part'
        ? ''
        : `def handle_part(data, ctype, filename, payload, *rest):\n${kind === 'syntax' ? '    (((\n' : '    pass\n'}`;
    return kind === 'empty' ? head : `${head}${more}${list}${part}`;
  });
const include = fc
  .array(
    fc.constantFrom(
      'file:///dev/null',
      '#include-once file:///dev/null',
      '#include',
      '# comment',
      '',
      '  file:///dev/null  ',
      '#include-once',
    ),
    { maxLength: 3 },
  )
  .map((lines) => `#include\n${lines.join('\n')}\n`);

const entry = fc.oneof(
  { weight: 2, arbitrary: fc.oneof(script, cloudConfig, boothook) },
  {
    weight: 5,
    arbitrary: fc.record(
      {
        content: fc.oneof(
          { weight: 6, arbitrary: fc.oneof(script, cloudConfig, boothook, handler, jinja, jsonp) },
          { weight: 1, arbitrary: fc.constantFrom<unknown>(null, 5, {}, [], ['x'], { a: 1 }, false, '') },
        ),
        type: fc.constantFrom<unknown>(
          'text/cloud-config',
          'text/x-shellscript',
          'Text/x-shellscript',
          'text/x-one',
          'application/x-one',
          'application/x-nobody',
          '',
          null,
          'nonsense',
          'a/b/c',
          'text/plain',
          5,
        ),
        filename: fc.constantFrom<unknown>('a.sh', 'e.sh', '', null, 5, true, 'ä/b', 'q"x', 'two\nlines'),
        'launch-index': fc.constantFrom<unknown>(0, 1, 'x', '2', null),
        'Merge-Type': rule,
        'merge-type': rule,
        'Content-Transfer-Encoding': fc.constantFrom<unknown>('base64', '7bit', null),
        other: fc.constantFrom<unknown>('x', null, 5),
      },
      { requiredKeys: ['content'], noNullPrototype: true },
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom<unknown>(5, null, ['x']) },
);
const archive = fc
  .oneof(
    { weight: 8, arbitrary: fc.array(entry, { maxLength: 4 }).map((each) => JSON.stringify(each)) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        'a: 1',
        '[',
        '',
        '!!set {a}',
        '- "#!/bin/sh\\n"\n- type: text/cloud-config\n  content: |\n    a: [1]\n',
      ),
    },
  )
  .map((body) => `#cloud-config-archive\n${body}\n`);

const text = (type: string, said: readonly string[], body: fc.Arbitrary<string>): fc.Arbitrary<Piece> =>
  fc
    .tuple(fc.constantFrom(type, type, ...said), body)
    .map(([chosen, content]) => ({ type: chosen, body: Buffer.from(content) }));
const SNIFFED = ['text/plain', 'text/x-not-multipart', 'text/x-shellscript'];

const piece = fc.oneof(
  { weight: 5, arbitrary: text('text/cloud-config', SNIFFED, cloudConfig) },
  {
    weight: 4,
    arbitrary: text(
      'text/x-shellscript',
      [
        'text/plain',
        'text/x-shellscript-per-boot',
        'text/x-shellscript-per-once',
        'text/x-shellscript-per-instance',
        'text/cloud-boothook',
      ],
      script,
    ),
  },
  { weight: 3, arbitrary: text('text/part-handler', ['text/plain'], handler) },
  { weight: 2, arbitrary: text('text/cloud-config-jsonp', SNIFFED, jsonp) },
  { weight: 2, arbitrary: text('text/cloud-boothook', SNIFFED, boothook) },
  { weight: 2, arbitrary: text('text/jinja2', ['text/plain', 'text/cloud-config'], jinja) },
  { weight: 2, arbitrary: text('text/cloud-config-archive', SNIFFED, archive) },
  { weight: 1, arbitrary: text('text/x-include-url', [...SNIFFED, 'text/x-include-once-url'], include) },
  {
    weight: 3,
    arbitrary: text(
      'text/x-one',
      ['text/x-two', 'application/x-one', 'text/x-nobody', 'application/octet-stream', 'nonsense', 'text/plain', 'image/png'],
      fc.oneof(
        script,
        cloudConfig,
        fc.constantFrom('', 'hello\n', '#kube-pod\nid: x\n', 'text/x-shellscript-per-boot\n', '--x\n\nFrom here\n', '==\n'),
      ),
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .tuple(
        fc.constantFrom(
          'text/x-one',
          'application/x-one',
          'text/x-shellscript',
          'text/cloud-config',
          'text/part-handler',
          'text/plain',
        ),
        fc.uint8Array({ maxLength: 20 }),
        fc.constantFrom('', '#!/bin/sh\n', '#cloud-config\na: '),
      )
      .map(([type, bytes, head]) => ({ type, body: Buffer.concat([Buffer.from(head), bytes]) })),
  },
);
const gzipped = piece.map(({ body }): Piece => ({ type: 'application/x-gzip', body: gzipSync(body) }));
const badGzip = fc.constantFrom<Piece>(
  { type: 'application/gzip', body: Buffer.from('not gzip') },
  { type: 'application/gzip', body: gzipSync(Buffer.from([0xff])) },
  { type: 'application/x-compress', body: Buffer.alloc(0) },
  { type: 'application/x-gzip', body: Buffer.concat([gzipSync('#!/bin/sh\n'), gzipSync('true\n'), Buffer.alloc(3)]) },
);

/** As bootbundle renders. */
const rendered = fc
  .array(
    fc.tuple(
      fc.constantFrom('a.sh', 'b.yaml', 'c'),
      piece,
      fc.option(
        rule.filter((each) => /^[a-z_(),+]+$/.test(each)),
        { freq: 4 },
      ),
    ),
    { maxLength: 7 },
  )
  .map((parts): TestDocument => {
    const compiled = parts
      .filter(([, each]) => each.body.length > 0)
      .map(([filename, { type, body }, merge]) => {
        const role =
          type === 'text/cloud-config' ? ({ kind: 'config', statesRule: false } as const) : ({ kind: 'other' } as const);
        return compilePart(
          { filename, type: /^[a-z]+\//.test(type) ? type : 'text/plain', merge, role, origin: filename },
          body,
        );
      });
    const target = {
      name: 'node',
      id: '0123456789abcdef',
      vars: {},
      reportUrl: 'http://192.0.2.10/r/x',
      track: compiled.length % 2 === 0,
    };
    return { bytes: renderDocument(compiled, target, { takenTypes: new Set(), includeRoots: [] }).bytes };
  });

const encoding = fc.constantFrom(
  'base64',
  'base64',
  'base64',
  '7bit',
  '8bit',
  '',
  'quoted-printable',
  'BASE64',
  'base64 ',
  'bad base64',
  'binary',
  'nonsense',
);

function encode(body: Buffer, how: string): Buffer {
  switch (how) {
    case 'base64':
    case 'BASE64':
    case 'base64 ':
      return Buffer.from(body.toString('base64').replace(/(.{76})/g, '$1\n'));
    case 'bad base64':
      return Buffer.from(`${body.toString('base64url')}!`);
    case 'quoted-printable':
      return Buffer.from(
        [...body]
          .map((byte) =>
            byte > 0x7e || byte === 0x3d || byte === 0x0d
              ? `=${byte.toString(16).toUpperCase().padStart(2, '0')}`
              : String.fromCharCode(byte),
          )
          .join(''),
        'latin1',
      );
    default:
      return body;
  }
}

const nameHeader = fc.tuple(
  fc.constantFrom('filename', 'filename', 'filename', 'name', 'none', 'rfc2231', 'unquoted'),
  fc.constantFrom(...NAMES),
);
const header = fc.oneof(
  { weight: 3, arbitrary: rule.map((each) => `Merge-Type: ${each}`) },
  { weight: 1, arbitrary: rule.map((each) => `X-Merge-Type: ${each}`) },
  { weight: 1, arbitrary: rule.map((each) => `merge-type: ${each}`) },
  { weight: 1, arbitrary: rule.map((each) => `Merge-Type: ${each.replace(/,/g, ',\n ')}`) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      'Launch-Index: 0',
      'Launch-Index: 1',
      'launch-index: x',
      'X-Other: ä',
      'Content-Type: text/x-two',
      'Content-Disposition: inline',
      'Content-Transfer-Encoding: base64',
      'X-Long: a\n b\n\tc',
      'Content-Type:',
      'X-Form: a\fb',
      'MIME-Version: 1.0',
      ': no name',
      'no colon',
    ),
  },
);

interface Leaf {
  piece: Piece;
  how: string;
  name: [string, string];
  headers: string[];
}
const leaf: fc.Arbitrary<Leaf> = fc.record({
  piece: fc.oneof({ weight: 14, arbitrary: piece }, { weight: 1, arbitrary: gzipped }, { weight: 1, arbitrary: badGzip }),
  how: encoding,
  name: nameHeader,
  headers: fc.array(header, { maxLength: 2 }),
}) as fc.Arbitrary<Leaf>;

function formatLeaf({ piece: { type, body }, how, name: [place, name], headers }: Leaf): Buffer {
  const quoted = name.replaceAll('\\', '\\\\').replaceAll('"', '\\"');
  const lines = [
    `Content-Type: ${type}${place === 'name' ? `; name="${quoted}"` : ''}${how === '8bit' ? '; charset=utf-8' : ''}`,
    ...(how === '' ? [] : [`Content-Transfer-Encoding: ${how === 'bad base64' ? 'base64' : how}`]),
    ...(place === 'filename' ? [`Content-Disposition: attachment; filename="${quoted}"`] : []),
    ...(place === 'rfc2231' ? [`Content-Disposition: attachment; filename*=utf-8''${encodeURIComponent(name)}`] : []),
    // inspect/mime.ts trims a byte order mark that stands outside of quotes, Python does not.
    ...(place === 'unquoted' && !name.startsWith('\ufeff') ? [`Content-Disposition: attachment; filename=${name}`] : []),
    ...headers,
  ];
  return Buffer.concat([Buffer.from(`${lines.join('\n')}\n\n`), encode(body, how)]);
}

type Node = { kind: 'leaf'; leaf: Leaf } | { kind: 'multipart' | 'message'; subtype: string; nodes: Node[]; faults: string[] };
const { node } = fc.letrec<{ node: Node }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 2, depthSize: 'small', withCrossShrink: true },
    { weight: 12, arbitrary: leaf.map((each): Node => ({ kind: 'leaf', leaf: each })) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('multipart' as const),
        subtype: fc.constantFrom('mixed', 'alternative', 'digest'),
        nodes: fc.array(tie('node'), { maxLength: 3 }),
        faults: fc.subarray(['no end', 'no boundary', 'epilogue'], { maxLength: 1 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('message' as const),
        subtype: fc.constantFrom('rfc822', 'rfc822', 'partial'),
        nodes: fc.tuple(tie('node')),
        faults: fc.constant([]),
      }),
    },
  ) as fc.Arbitrary<Node>,
}));

function formatNode(each: Node, path: string): Buffer {
  if (each.kind === 'leaf') return formatLeaf(each.leaf);
  if (each.kind === 'message')
    return Buffer.concat([
      Buffer.from(`Content-Type: message/${each.subtype}\n\n`),
      ...each.nodes.map((child) => formatNode(child, `${path}m`)),
    ]);
  const boundary = each.faults.includes('no boundary') ? '' : `; boundary="b${path}"`;
  return Buffer.concat([
    Buffer.from(`Content-Type: multipart/${each.subtype}${boundary}\n\n`),
    formatParts(each.nodes, path, each.faults),
  ]);
}

function formatParts(nodes: readonly Node[], path: string, faults: readonly string[]): Buffer {
  return Buffer.concat([
    ...(faults.includes('preamble') ? [Buffer.from('read with a MIME reader\n')] : []),
    ...nodes.flatMap((child, index) => [Buffer.from(`--b${path}\n`), formatNode(child, path + index), Buffer.from('\n')]),
    ...(faults.includes('no end') ? [] : [Buffer.from(`--b${path}--\n`)]),
    ...(faults.includes('epilogue') ? [Buffer.from('--bx\nthe end\n')] : []),
  ]);
}

const byHand = fc
  .record({
    nodes: fc.array(node, { minLength: 1, maxLength: 6 }),
    faults: fc.subarray(['no end', 'preamble', 'epilogue', 'crlf', 'late', 'bom'], { maxLength: 1 }),
    frame: fc.constantFrom(
      'Content-Type: multipart/mixed; boundary="bx"\nMIME-Version: 1.0\n\n',
      'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=bx\n\n',
    ),
    single: fc.boolean(),
    gzip: fc.nat(9),
    launchIndex: fc.constantFrom(undefined, undefined, undefined, 0, 1),
  })
  .map(({ nodes, faults, frame, single, gzip, launchIndex }): TestDocument => {
    const [first] = nodes;
    const whole =
      single && nodes.length === 1 && first
        ? Buffer.concat([Buffer.from('MIME-Version: 1.0\n'), formatNode(first, 'x')])
        : Buffer.concat([Buffer.from(frame), formatParts(nodes, 'x', faults)]);
    const started = faults.includes('bom')
      ? Buffer.concat([Buffer.from('\ufeff'), whole])
      : faults.includes('late')
        ? Buffer.concat([Buffer.alloc(4100, 'X-A: b\n'), whole])
        : whole;
    const ended = faults.includes('crlf')
      ? Buffer.from(started.toString('latin1').replace(/\r?\n/g, '\r\n'), 'latin1')
      : started;
    return { bytes: gzip === 0 ? gzipSync(ended) : ended, ...(launchIndex === undefined ? {} : { launchIndex }) };
  });

/** Parts that go well on the whole, one sort each: most faults above hide what comes after them. */
function together(pieces: fc.Arbitrary<Piece>, minLength: number): fc.Arbitrary<TestDocument> {
  const good = fc.record({
    piece: pieces,
    how: fc.constantFrom('base64', '7bit', 'quoted-printable'),
    name: fc.tuple(fc.constant('filename'), fc.constantFrom('a', 'b', 'b', 'c/d', 'ä b', '')),
    headers: fc.oneof(
      { weight: 1, arbitrary: fc.constant([]) },
      {
        weight: 2,
        arbitrary: fc.array(
          fc.oneof(
            goodRule.map((each) => `Merge-Type: ${each}`),
            goodRule.map((each) => `X-Merge-Type: ${each}`),
          ),
          { minLength: 1, maxLength: 2 },
        ),
      },
    ),
  }) as fc.Arbitrary<Leaf>;
  return fc.array(good, { minLength, maxLength: 6 }).map((leaves) => ({
    bytes: Buffer.concat([
      Buffer.from('Content-Type: multipart/mixed; boundary="bx"\nMIME-Version: 1.0\n\n'),
      formatParts(
        leaves.map((each): Node => ({ kind: 'leaf', leaf: each })),
        'x',
        [],
      ),
    ]),
  }));
}
const goodYaml = fc
  .tuple(
    fc.dictionary(fc.constantFrom('a', 'b', 'c'), value, { minKeys: 1, maxKeys: 3, noNullPrototype: true }),
    fc.option(goodRule, { freq: 5 }),
  )
  .map(([body, how]) => `#cloud-config\n${JSON.stringify(how === null ? body : { ...body, merge_how: how })}\n`);
const merging = together(
  fc.oneof(
    { weight: 6, arbitrary: text('text/cloud-config', [], goodYaml) },
    { weight: 2, arbitrary: text('text/cloud-config-jsonp', [], jsonp) },
    {
      weight: 1,
      arbitrary: text(
        'text/jinja2',
        [],
        goodYaml.map((body) => `## template: jinja\n${body.replace(/\{(?=[{%#])/g, '{ ')}`),
      ),
    },
    { weight: 1, arbitrary: text('text/cloud-config', [], cloudConfig) },
  ),
  2,
);
const goodHandler = fc
  .tuple(
    fc.subarray(HANDLED, { minLength: 1 }),
    fc.constantFrom('', 'handler_version = 2\n', 'handler_version = 3\n', 'frequency = "always"\n', 'frequency = "once"\n'),
    fc.constantFrom('\n', '', '# no list_types\n'),
  )
  .map(
    ([types, more, list]) =>
      `#part-handler\n${more}${list.startsWith('#') ? '' : `def list_types():\n    return ${JSON.stringify(types)}\n`}def handle_part(data, ctype, filename, payload, *rest):\n    pass\n`,
  );
const handling = together(
  fc.oneof(
    { weight: 3, arbitrary: text('text/part-handler', [], goodHandler) },
    { weight: 1, arbitrary: text('text/part-handler', [], handler) },
    {
      weight: 4,
      arbitrary: fc
        .tuple(fc.constantFrom(...HANDLED), fc.oneof(script, goodYaml))
        .map(([type, body]) => ({ type, body: Buffer.from(body) })),
    },
    { weight: 1, arbitrary: piece },
  ),
  3,
);

const bare = fc
  .tuple(piece, fc.nat(9))
  .map(([{ body }, gzip]): TestDocument => ({ bytes: gzip === 0 ? gzipSync(body) : body }));

/** What an include brings is not looked at, so a message within a message, whose parts are counted, does not go with one. */
const isCountable = ({ bytes }: TestDocument) => !(bytes.includes('message/') && bytes.includes('dev/null'));

export const documents: fc.Arbitrary<TestDocument> = fc.oneof(
  { weight: 3, arbitrary: rendered },
  { weight: 5, arbitrary: byHand.filter(isCountable) },
  { weight: 3, arbitrary: merging },
  { weight: 3, arbitrary: handling },
  { weight: 1, arbitrary: bare },
);

/** Documents of which most parts do something. */
export const wholesome: fc.Arbitrary<TestDocument> = fc.oneof(merging, handling);

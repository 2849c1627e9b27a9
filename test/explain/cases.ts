import { gzipSync } from 'node:zlib';
import type { ClientVersion, Explanation } from '../../src/explain/explanation.ts';
import { readYaml } from '../../src/inspect/yaml.ts';

/** A document with what cloud-init makes of it: tried on the real client by test/cloudinit/explain.test.ts. */
export interface Case {
  name: string;
  document: Buffer;
  expected: Partial<Summary>;
  launchIndex?: number;
  client?: ClientVersion;
}

/** An explanation in few words. */
export interface Summary {
  /** Its code. */
  failure: string | null;
  /** `name type → taker` */
  parts: string[];
  /** `folder/name`, in the order in which they run. */
  scripts: string[];
  config: unknown;
  /** Codes, `*` where the client's log tells it too. */
  warnings: string[];
  handlers: string[];
  versions: number;
}

export function summarise(explanation: Explanation): Summary {
  const { failure, parts, scripts, config, warnings, handlers, versions } = explanation;
  return {
    failure: failure?.code ?? null,
    parts: parts.map(
      ({ filename, type, takenBy }) => `${filename} ${type} → ${takenBy.kind === 'handler' ? takenBy.filename : takenBy.kind}`,
    ),
    scripts: scripts.map(({ folder, filename }) => `${folder}/${filename}`),
    config: config && readYaml(config.yaml)[0],
    warnings: warnings.map(({ code, logged }) => code + (logged ? '*' : '')),
    handlers: handlers.map(
      ({ filename, registered, takes }) => `${filename}${registered ? '' : ' (not registered)'}: ${takes.join(' ')}`,
    ),
    versions: versions.length,
  };
}

/** A multipart of parts that are each headers and a body. */
export function multipart(...parts: (string | Buffer)[]): Buffer {
  return Buffer.concat([
    Buffer.from('Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n'),
    ...parts.flatMap((part) => [Buffer.from('--b\n'), Buffer.from(part as Buffer), Buffer.from('\n')]),
    Buffer.from('--b--\n'),
  ]);
}

/** One part, with its file name where all the world puts it. */
export function part(type: string, filename: string | null, body: string | Buffer, ...headers: string[]): Buffer {
  const lines = [
    `Content-Type: ${type}`,
    ...(filename === null ? [] : [`Content-Disposition: attachment; filename="${filename}"`]),
    ...headers,
  ];
  return Buffer.concat([Buffer.from(`${lines.join('\n')}\n\n`), Buffer.from(body as Buffer)]);
}

const BASE64 = 'Content-Transfer-Encoding: base64';
const base64 = (body: string | Buffer) => Buffer.from(body as Buffer).toString('base64');
const script = '#!/bin/sh\ntrue\n';
const config = (value: unknown) => `#cloud-config\n${JSON.stringify(value)}\n`;
const handler = (types: string[], more = '') =>
  `#part-handler\n${more}def list_types():\n    return ${JSON.stringify(types)}\ndef handle_part(data, ctype, filename, payload, *rest):\n    pass\n`;
const NO_LIST_TYPES = '#part-handler\ndef handle_part(data, ctype, filename, payload):\n    pass\n';
const archive = (entries: unknown) => `#cloud-config-archive\n${JSON.stringify(entries)}\n`;

/** Where this emulator and the real client once disagreed; found by the generated documents. */
export const DISAGREEMENTS: readonly Case[] = [
  {
    name: 'a message as the document: its type is overwritten by its content’s, so it cannot be stored and all is lost',
    document: Buffer.from(`MIME-Version: 1.0\nContent-Type: message/rfc822\n\nContent-Type: text/x-shellscript\n\n${script}`),
    expected: { failure: 'unstorable', scripts: [] },
  },
  {
    name: 'an archive whose entry has a line break in its name: all is lost',
    document: Buffer.from(archive([{ content: script, filename: 'two\nlines' }])),
    expected: { failure: 'unstorable', scripts: [] },
  },
  {
    name: 'an archive whose entry holds a list: nothing is handed out, what stands before it neither',
    document: multipart(
      part('text/x-shellscript', 'a.sh', script),
      part('text/cloud-config-archive', 'b', archive([{ content: ['x'], type: 'application/x' }])),
    ),
    expected: { failure: 'unstorable', parts: [], scripts: [] },
  },
  {
    name: 'it is read to its end before that is found',
    document: Buffer.from(archive([{ content: 5, type: 'application/x' }, '- a list'])),
    expected: { failure: 'unstorable', warnings: ['bad_yaml*'] },
  },
  {
    name: 'a name with U+0085, to YAML a line break: the merged config cannot be read back',
    document: multipart(part('text/cloud-config', 'a\u0085x: y', config({ hostname: 'a' }))),
    expected: { config: {}, warnings: ['config_unreadable*'] },
  },
  {
    name: 'the same in the name of a part that is dropped: 25.1 names those in the file as well',
    document: multipart(
      part('text/cloud-config', 'a', config({ hostname: 'a' })),
      part('text/cloud-config', 'b\u0085x: y', ''),
    ),
    client: '25.1',
    expected: { config: {}, warnings: ['merge_failed*', 'config_unreadable*'] },
  },
  {
    name: 'and 22.4 does not',
    document: multipart(
      part('text/cloud-config', 'a', config({ hostname: 'a' })),
      part('text/cloud-config', 'b\u0085x: y', ''),
    ),
    client: '22.4',
    expected: { config: { hostname: 'a' }, warnings: ['merge_failed*'] },
  },
  {
    name: 'a byte order mark stays in a file name',
    document: multipart(part('text/x-nobody', '\ufeffbom', 'x')),
    expected: { parts: ['\ufeffbom text/x-nobody → nobody'], warnings: ['unhandled_part*'] },
  },
  {
    name: 'a handler that was not decoded is a name nobody knows to Python: not imported, so it is not in the next one’s way',
    document: multipart(
      part('text/part-handler', 'a', base64(NO_LIST_TYPES), 'Content-Transfer-Encoding: base64 '),
      part('text/part-handler', 'b', handler(['text/x-one'])),
    ),
    client: '22.4',
    expected: { handlers: ['a (not registered): ', 'b: '], warnings: ['handler_not_registered*'], versions: 1 },
  },
  {
    name: 'a cloud-config typed as a part handler: null is a name to Python, so it is not imported',
    document: multipart(
      part('text/part-handler', 'a', config({ a: null })),
      part('text/part-handler', 'b', handler(['text/x-one'])),
    ),
    expected: { handlers: ['a (not registered): ', 'b: '], warnings: ['handler_not_registered*'] },
  },
  {
    name: 'a cloud-config typed as a part handler: to Python an annotation, whose name nobody knows',
    document: multipart(
      part('text/part-handler', 'a', '#cloud-config\na: M\n'),
      part('text/part-handler', 'b', handler(['text/x-one'])),
    ),
    expected: { handlers: ['a (not registered): ', 'b: '], warnings: ['handler_not_registered*'] },
  },
  {
    name: 'a JSON patch that leaves nothing: what comes after it begins anew',
    document: multipart(
      part('text/cloud-config', 'a', config({ a: 1 })),
      part('text/cloud-config-jsonp', 'b', '#cloud-config-jsonp\n[{"op": "replace", "path": "", "value": null}]\n'),
      part('text/cloud-config', 'c', config({ c: 1 })),
    ),
    expected: { config: { c: 1 }, warnings: [] },
  },
  {
    name: 'a JSON patch that leaves nothing, at the end: no config and no warning',
    document: multipart(
      part('text/cloud-config', 'a', config({ a: 1 })),
      part('text/cloud-config-jsonp', 'b', '#cloud-config-jsonp\n[{"op": "replace", "path": "", "value": null}]\n'),
    ),
    expected: { config: {}, warnings: [] },
  },
  {
    name: 'an entry of an archive with an encoding and without content ends the walk: what comes before it holds',
    document: Buffer.from(archive([script, { content: null, type: 'application/x', 'Content-Transfer-Encoding': 'base64' }])),
    expected: { failure: 'archive_entry', scripts: ['scripts/part-001'] },
  },
];

/** What else is easily got wrong. */
export const QUIRKS: readonly Case[] = [
  {
    name: 'nothing at all',
    document: Buffer.alloc(0),
    expected: { failure: null, parts: ['part-001 text/x-not-multipart → nobody'], warnings: [], config: null },
  },
  { name: 'a bare script', document: Buffer.from(script), expected: { scripts: ['scripts/part-001'], warnings: [] } },
  { name: 'a bare text that is nothing', document: Buffer.from('hello\n'), expected: { warnings: ['unhandled_document*'] } },
  {
    name: 'a document as gzip',
    document: gzipSync(multipart(part('text/x-shellscript', 'a.sh', script))),
    expected: { scripts: ['scripts/a.sh'] },
  },
  {
    name: 'mime-version after the first 4,096 bytes: one text that is nothing',
    document: Buffer.from(`X-A: ${'b'.repeat(4100)}\n${multipart(part('text/x-shellscript', 'a.sh', script))}`),
    expected: { parts: ['part-001 text/x-not-multipart → nobody'] },
  },
  {
    name: 'a MIME document that is not UTF-8',
    document: multipart(part('application/x', 'a', Buffer.from([0xff]))),
    expected: { failure: 'not_utf8', parts: [] },
  },
  {
    name: '8bit: é becomes a byte that is no UTF-8, so the script is not written; ✓ becomes \\u2713',
    document: multipart(
      part('text/x-shellscript', 'a.sh', '#!/bin/sh\necho é\n'),
      part('text/x-shellscript', 'b.sh', '#!/bin/sh\necho ✓\n'),
    ),
    expected: { scripts: ['scripts/b.sh'], warnings: ['eight_bit', 'eight_bit', 'handler_failed*'] },
  },
  {
    name: 'a name in Content-Type is lost when the type is sniffed',
    document: multipart(part('text/plain; name="a.sh"', null, script), part('text/x-shellscript; name="b.sh"', null, script)),
    expected: { scripts: ['scripts/b.sh', 'scripts/part-001'], warnings: ['name_lost'] },
  },
  {
    name: 'a gzip part loses its type and its merge rule',
    document: multipart(
      part('text/cloud-config', 'a', config({ l: [1] })),
      part(
        'application/gzip',
        'b',
        base64(gzipSync(config({ l: [2] }))),
        BASE64,
        'Merge-Type: list(append)+dict(recurse_list)',
      ),
    ),
    expected: { config: { l: [2] }, warnings: ['gzip_merge_lost'] },
  },
  {
    name: 'a part of a gzip type that is none ends all',
    document: multipart(part('text/x-shellscript', 'a.sh', script), part('application/gzip', 'b', 'x')),
    expected: { failure: 'gzip_undecodable', scripts: [] },
  },
  {
    name: 'an archive: names, types and merge rules of its entries',
    document: multipart(
      part(
        'text/plain',
        'x',
        archive([
          script,
          { content: config({ l: [1] }) },
          { content: '{l: [2]}', 'Merge-Type': 'list(append)+dict(recurse_list)' },
          { content: script, filename: 'n/a.sh', type: 'text/x-shellscript' },
        ]),
      ),
    ),
    expected: {
      parts: [
        'x text/cloud-config-archive → archive',
        'part-001 text/x-shellscript → script',
        'part-002 text/cloud-config → cloud-config',
        'part-003 text/cloud-config → cloud-config',
        'n/a.sh text/x-shellscript → script',
      ],
      scripts: ['scripts/n_a.sh', 'scripts/part-001'],
      config: { l: [1, 2] },
    },
  },
  {
    name: 'scripts: names are cleaned, the later of the same wins, the order is by name',
    document: multipart(
      part('text/x-shellscript', '9.sh', script),
      part('text/x-shellscript', '10.sh', script),
      part('text/x-shellscript', 'a b', script),
      part('text/x-shellscript', 'äab', script, 'X: y'),
      part('text/x-shellscript', '../c', script),
      part('text/x-shellscript', '???', script),
      part('text/x-shellscript-per-once', 'x/o.sh', script),
      part('text/x-shellscript-per-boot', 'b.sh', script),
      part('text/x-shellscript-per-instance', 'i.sh', script),
      part('text/cloud-boothook', 'h', `#cloud-boothook\n${script}`),
    ),
    expected: {
      scripts: [
        'boothooks/h',
        'per-once/o.sh',
        'per-boot/b.sh',
        'per-instance/i.sh',
        'scripts/.._c',
        'scripts/10.sh',
        'scripts/9.sh',
        'scripts/ab',
      ],
      warnings: ['overwritten', 'handler_failed*'],
    },
  },
  {
    name: 'a handler takes what comes after it; a later one takes a type over',
    document: multipart(
      part('text/x-one', 'early', 'x'),
      part('text/part-handler', 'h1', handler(['text/x-one', 'text/x-two'])),
      part('text/x-one', 'p1', 'x'),
      part('text/part-handler', 'h2', handler(['text/x-one'], 'handler_version = 3\n')),
      part('text/x-one', 'p2', 'x'),
      part('text/x-two', 'p3', 'x'),
    ),
    expected: { handlers: ['h1: p1 p3', 'h2: p2'], warnings: ['unhandled_part*', 'handler_replaced'] },
  },
  {
    name: 'a handler may take cloud-init’s own types; without both of cloud-config’s no config is written',
    document: multipart(
      part('text/cloud-config', 'a', config({ a: 1 })),
      part('text/part-handler', 'h', handler(['text/cloud-config', 'text/cloud-config-jsonp', 'text/x-shellscript'])),
      part('text/x-shellscript', 's', script),
    ),
    expected: { handlers: ['h: s'], config: null, scripts: [], warnings: ['config_not_written'] },
  },
  {
    name: 'a handler without list_types takes the next one down with it',
    document: multipart(
      part('text/part-handler', 'a', NO_LIST_TYPES),
      part('text/part-handler', 'b', handler(['text/x-one'])),
      part('text/x-one', 'p', 'x'),
    ),
    expected: {
      handlers: ['a (not registered): ', 'b (not registered): '],
      warnings: ['handler_not_registered*', 'handler_shadowed', 'handler_not_registered*', 'unhandled_part*'],
    },
  },
  {
    name: 'a handler that does not parse does not',
    document: multipart(
      part('text/part-handler', 'a', 'def list_types(:\n'),
      part('text/part-handler', 'b', handler(['text/x-one'])),
      part('text/x-one', 'p', 'x'),
    ),
    expected: { handlers: ['a (not registered): ', 'b: p'], warnings: ['handler_not_registered*'] },
  },
  {
    name: 'a handler of frequency once is registered and never called',
    document: multipart(
      part('text/part-handler', 'a', handler(['text/x-one'], 'frequency = "once"\n')),
      part('text/x-one', 'p', 'x'),
    ),
    expected: { handlers: ['a: p'], warnings: ['handler_never_called'] },
  },
  {
    name: 'a handler that is not UTF-8 ends the walk: what comes before it holds',
    document: multipart(
      part('text/x-shellscript', 'a', script),
      part('text/part-handler', 'b', base64(Buffer.from([0x23, 0xff])), BASE64),
      part('text/x-shellscript', 'c', script),
    ),
    expected: { failure: 'handler_undecodable', scripts: ['scripts/a'] },
  },
  {
    name: 'merge: by default the later config replaces the earlier one’s keys',
    document: multipart(
      part('text/cloud-config', 'a', config({ a: [1], b: 1 })),
      part('text/cloud-config', 'b', config({ a: [2] })),
    ),
    expected: { config: { a: [2], b: 1 } },
  },
  {
    name: 'merge: header and body add up, and the body’s come first',
    document: multipart(
      part('text/cloud-config', 'a', config({ l: [1], s: 'a' })),
      part(
        'text/cloud-config',
        'b',
        config({ l: [2], s: 'b', merge_how: 'dict(recurse_list,recurse_str)+str(append)' }),
        'Merge-Type: list(append)+str()',
      ),
    ),
    expected: { config: { l: [1, 2], s: 'ab' } },
  },
  {
    name: 'merge: Merge-Type must be spelt so, yet has the value of the first of its spellings',
    document: multipart(
      part('text/cloud-config', 'a', config({ l: [1] })),
      part('text/cloud-config', 'b', config({ l: [2] }), 'merge-type: list(append)+dict(recurse_list)'),
      part(
        'text/cloud-config',
        'c',
        config({ l: [3] }),
        'merge-type: list(append)+dict(recurse_list)',
        'Merge-Type: dict(replace)',
      ),
    ),
    expected: { config: { l: [2, 3] } },
  },
  {
    name: 'merge: without a dict merger nothing of the part is kept, without a word',
    document: multipart(
      part('text/cloud-config', 'a', config({ a: 1 })),
      part('text/cloud-config', 'b', config({ b: 1 }), 'Merge-Type: list(append)'),
    ),
    expected: { config: { a: 1 }, warnings: [] },
  },
  {
    name: 'merge: a rule as a list of texts is read letter by letter, so the part is dropped',
    document: multipart(part('text/cloud-config', 'a', config({ a: 1, merge_how: ['dict(replace)', 'list(append)'] }))),
    expected: { config: {}, warnings: ['merge_failed*'] },
  },
  {
    name: 'merge: a bad rule, bad YAML, a list and an empty part are dropped',
    document: multipart(
      part('text/cloud-config', 'a', config({ a: 1 })),
      part('text/cloud-config', 'b', config({ a: 2 }), 'Merge-Type: append'),
      part('text/cloud-config', 'c', 'a: ['),
      part('text/cloud-config', 'd', '- a\n'),
      part('text/cloud-config', 'e', ''),
    ),
    expected: {
      config: { a: 1 },
      warnings: ['bad_yaml*', 'bad_yaml*', 'merge_failed*', 'merge_failed*', 'merge_failed*', 'merge_failed*'],
    },
  },
  {
    name: 'a JSON patch: what an anchor shares stays shared; a failing operation drops the patch',
    document: multipart(
      part('text/cloud-config', 'a', '#cloud-config\na: &x {b: 1}\nc: *x\n'),
      part('text/cloud-config-jsonp', 'b', '#cloud-config-jsonp\n[{"op": "add", "path": "/a/d", "value": [2]}]\n'),
      part(
        'text/cloud-config-jsonp',
        'c',
        '#cloud-config-jsonp\n[{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/z"}]\n',
      ),
    ),
    expected: { config: { a: { b: 1, d: [2] }, c: { b: 1, d: [2] } }, warnings: ['merge_failed*'] },
  },
  {
    name: 'a JSON patch: two parts of one text share nothing',
    document: multipart(
      part('text/cloud-config', 'a', config({ l: [{}] }), 'Merge-Type: list(append)+dict(recurse_list)'),
      part('text/cloud-config', 'b', config({ l: [{}] }), 'Merge-Type: list(append)+dict(recurse_list)'),
      part('text/cloud-config-jsonp', 'c', '#cloud-config-jsonp\n[{"op": "add", "path": "/l/0/x", "value": 1}]\n'),
    ),
    expected: { config: { l: [{ x: 1 }, {}] } },
  },
  {
    name: 'Jinja without syntax renders to itself; in an #include it is refused',
    document: multipart(
      part('text/jinja2', 'a', `## template: jinja\n${config({ a: 1 })}`),
      part('text/plain', 'b', `## template: jinja\n${script}`),
      part('text/plain', 'c', '## template: jinja\n#include\nhttp://192.0.2.1/\n'),
      part('text/plain', 'd', ` ## template: jinja\n${script}`),
    ),
    expected: { config: { a: 1 }, scripts: ['scripts/b'], warnings: ['jinja_ignored*', 'handler_failed*'] },
  },
  {
    name: 'a Jinja boothook: dropped by 22.4',
    document: multipart(part('text/jinja2', 'a', `## template: jinja\n#cloud-boothook\n${script}`)),
    client: '22.4',
    expected: { scripts: [], warnings: ['jinja_ignored*'], versions: 1 },
  },
  {
    name: 'a Jinja boothook: run by 25.1',
    document: multipart(part('text/jinja2', 'a', `## template: jinja\n#cloud-boothook\n${script}`)),
    client: '25.1',
    expected: { scripts: ['boothooks/a'], warnings: [], versions: 1 },
  },
  {
    name: 'Launch-Index: another machine’s part is dropped where the datasource tells an index',
    document: multipart(
      part('text/x-shellscript', 'a', script, 'Launch-Index: 0'),
      part('text/x-shellscript', 'b', script, 'Launch-Index: 1'),
      part('text/cloud-config', 'c', config({ 'launch-index': 1 })),
    ),
    launchIndex: 1,
    expected: { scripts: ['scripts/b'], config: { 'launch-index': 1 }, warnings: [] },
  },
  {
    name: 'a form feed in a header that is ASCII: all is lost',
    document: multipart(part('text/x-shellscript', 'a\ffeed', script)),
    expected: { failure: 'unstorable' },
  },
  {
    name: 'the same beside a letter beyond ASCII is no harm',
    document: multipart(part('text/x-shellscript', 'ä\ffeed', script)),
    expected: { failure: null, scripts: ['scripts/feed'] },
  },
  {
    name: 'a message within the document is gone through twice',
    document: multipart(
      'Content-Type: message/rfc822\n\nContent-Type: text/cloud-config\nContent-Disposition: attachment; filename="a"\nMerge-Type: list(append)+dict(recurse_list)\n\n#cloud-config\nl: [1]\n',
    ),
    expected: {
      parts: ['part-001 message/rfc822 → nobody', 'a text/cloud-config → cloud-config', 'a text/cloud-config → cloud-config'],
      config: { l: [1, 1] },
    },
  },
  {
    name: 'a blank behind base64: left encoded by 22.4 (Python 3.11), decoded by 25.1 (3.13)',
    document: multipart(part('text/x-one', 'a', base64('hello'), 'Content-Transfer-Encoding: base64 ')),
    expected: { versions: 1, warnings: ['unhandled_part*'] },
  },
];

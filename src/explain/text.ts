import type { ExplainedPart, Explanation, Remark, Taker } from './explanation.ts';

/** A script's folder, in words. */
const WHEN = {
  boothooks: 'boothook, while the document is read',
  'per-once': 'once, ever',
  'per-boot': 'at every boot',
  'per-instance': 'once per instance (per-instance)',
  scripts: 'once per instance',
} as const;

/** An explanation for people, in sections with aligned columns; a section that would be empty is left out. Ends in a line break. */
export function formatExplanation(explanation: Explanation): string {
  const { client, size, parts, handlers, scripts, config, includes, warnings, versions, failure } = explanation;
  const fit = size.fitsNova ? `fits into Nova's ${size.novaLimit}` : `too large for Nova's ${size.novaLimit}`;
  return [
    `${explanation.isMime ? 'a MIME document' : 'no MIME document, so one part'}: ${size.bytes} bytes (${fit}), as cloud-init ${client} takes it\n`,
    failure ? `\nFAILS: ${formatRemark(failure)}\n` : '',
    section('parts, in order', parts.map(partRow)),
    section(
      'part handlers',
      handlers.map(({ filename, types, version, registered, takes, replacedBy }) => [
        filename,
        registered ? `version ${version ?? '?'}` : 'NOT registered',
        types === null ? 'types unknown' : types.join(' '),
        `takes ${takes.join(' ') || 'nothing'}`,
        replacedBy.map((each) => `${each.type} goes to ${each.filename}`).join(', '),
      ]),
    ),
    section(
      'scripts, in the order in which they run',
      scripts.map(({ filename, folder, from }) => [filename, WHEN[folder], filename === from ? '' : `from ${from}`]),
    ),
    section(
      'written over',
      explanation.overwrites.map(({ folder, filename, lost, kept }) => [
        `${folder}/${filename}`,
        `${lost} is lost`,
        `${kept} stays`,
      ]),
    ),
    section(
      'fetched by the machine',
      includes.map(({ url, once, from }) => [url, once ? 'once' : 'at each boot that looks', `from ${from}`]),
    ),
    config
      ? `${section(
          'cloud-config keys',
          config.keys.map(({ key, origins }) => [key, origins.join(' ')]),
        )}\nmerged cloud-config\n${indent(config.yaml)}`
      : '',
    section(
      'nobody takes',
      explanation.unhandled.map((filename) => [filename]),
    ),
    section(
      'warnings',
      warnings.map((remark) => [formatRemark(remark)]),
    ),
    section(
      'clients differ',
      versions.map((difference) => [difference]),
    ),
  ].join('');
}

function partRow(part: ExplainedPart): string[] {
  const { filename, type, saidType, encoding, size, merge, origin, takenBy } = part;
  return [
    filename,
    saidType === null || saidType === type ? type : `${type} (sent as ${saidType})`,
    encoding ?? '',
    `${size}`,
    `→ ${nameTaker(takenBy)}`,
    origin ?? '',
    merge ?? '',
  ];
}

function nameTaker(taker: Taker): string {
  switch (taker.kind) {
    case 'handler':
      return taker.filename;
    case 'include':
      return 'fetched';
    case 'archive':
      return 'unpacked';
    default:
      return taker.kind;
  }
}

function formatRemark({ severity, code, part, line, column, message, logged }: Remark): string {
  const place = line === undefined || message.includes(`line ${line}`) ? '' : `:${line}:${column}`;
  const about = part === undefined ? '' : `${part}${place}: `;
  return `${severity}: ${about}${message} [${code}${logged ? '' : ', not in the log'}]`;
}

function section(title: string, rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const widths = rows.reduce<number[]>((known, row) => row.map((cell, index) => Math.max(known[index] ?? 0, cell.length)), []);
  const lines = rows.map((row) => `  ${row.map((cell, index) => cell.padEnd(widths[index] ?? 0)).join('  ')}`.trimEnd());
  return `\n${title}\n${lines.join('\n')}\n`;
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '  ');
}

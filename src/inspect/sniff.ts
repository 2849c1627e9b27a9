import { isUtf8 } from 'node:buffer';
import { BootbundleError, invalid, tooLarge } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import { LIMITS } from '../domain/limits.ts';
import { CLOUD_INIT_TYPES, KUBE_TYPES, parseType } from './types.ts';
import { isMapping, readYaml } from './yaml.ts';

/** A first line that says what a file is. */
interface Mark {
  mark: string;
  type: string;
  /** Types that may be said of such a file all the same; what is neither cloud-init's nor ours may always be said. */
  also?: ReadonlySet<string>;
  /** What follows the mark in a file without any line break: has it lost its line breaks, or does it work so? */
  lost: (rest: string) => boolean;
}

const SCRIPT_TYPES = new Set([
  'text/x-shellscript',
  'text/x-shellscript-per-boot',
  'text/x-shellscript-per-instance',
  'text/x-shellscript-per-once',
  'text/cloud-boothook',
]);

/** The mark is a comment to whoever reads the file, and then so is all that follows in its line. */
const anything = (rest: string): boolean => rest.trim() !== '';
/** `#include URL` works, and so does `#includeURL` (user_data.py, _do_include): only two URLs that ran into one are lost. */
const twoUrls = (rest: string): boolean => /^\S*[^\s=?&/]https?:\/\//i.test(rest);

/**
 * THE TABLE of first lines. cloud-init's own are those of handlers/__init__.py, INCLUSION_TYPES_MAP. A prefix that is part of
 * another comes after it: the longest wins.
 */
const MARKS: readonly Mark[] = (
  [
    { mark: '#include', type: 'text/x-include-url', lost: twoUrls },
    { mark: '#include-once', type: 'text/x-include-once-url', lost: twoUrls },
    { mark: '#!', type: 'text/x-shellscript', also: new Set([...SCRIPT_TYPES, 'text/part-handler']), lost: isJoinedScript },
    { mark: '#cloud-config', type: 'text/cloud-config', lost: anything },
    { mark: '#part-handler', type: 'text/part-handler', lost: anything },
    {
      mark: '#cloud-boothook',
      type: 'text/cloud-boothook',
      // The mark is cut off before the script is run (handlers/boot_hook.py).
      lost: (rest) => !rest.trim().startsWith('#!') || isJoinedScript(rest.trim().slice(2)),
    },
    { mark: '#cloud-config-archive', type: 'text/cloud-config-archive', lost: anything },
    // Cut off before the JSON is read (handlers/cloud_config.py), and JSON needs no line break.
    { mark: '#cloud-config-jsonp', type: 'text/cloud-config-jsonp', lost: () => false },
    { mark: '## template: jinja', type: 'text/jinja2', lost: anything },
    { mark: '#kube-pod', type: 'text/x-kube-pod', also: KUBE_TYPES, lost: anything },
    { mark: '#kube-service', type: 'text/x-kube-service', also: KUBE_TYPES, lost: anything },
    { mark: '#kube-replica', type: 'text/x-kube-replica', also: KUBE_TYPES, lost: anything },
    { mark: '#kube-manifest', type: 'text/x-kube-manifest', also: KUBE_TYPES, lost: anything },
  ] satisfies Mark[]
).sort((a, b) => b.mark.length - a.mark.length);

/** THE TABLE of extensions, asked last: `fits` keeps out namesakes. */
const EXTENSIONS: ReadonlyMap<string, { type: string; fits: (text: string) => boolean }> = new Map([
  // systemd and podman have files of these names too, which begin with a [Section].
  ['pod', { type: 'text/x-kube-pod', fits: isNoUnit }],
  ['service', { type: 'text/x-kube-service', fits: isNoUnit }],
  ['replica', { type: 'text/x-kube-replica', fits: isNoUnit }],
  ['sh', { type: 'text/x-shellscript', fits: always }],
  ['bash', { type: 'text/x-shellscript', fits: always }],
  ['cfg', { type: 'text/cloud-config', fits: isConfig }],
  ['cloud-config', { type: 'text/cloud-config', fits: always }],
  ['boothook', { type: 'text/cloud-boothook', fits: always }],
  ['part-handler', { type: 'text/part-handler', fits: always }],
  ['include', { type: 'text/x-include-url', fits: isUrlList }],
]);

const KUBE_KINDS: ReadonlyMap<string, string> = new Map([
  ['Pod', 'text/x-kube-pod'],
  ['Service', 'text/x-kube-service'],
  ['ReplicationController', 'text/x-kube-replica'],
  ['ReplicaSet', 'text/x-kube-replica'],
]);

/** Said, they mean "not said": cloud-init looks at the content then (user_data.py, TYPE_NEEDED). */
const SNIFFED_AGAIN = new Set(['text/plain', 'text/x-not-multipart']);
/** cloud-init unpacks these, and loses what was said of the part (user_data.py, DECOMP_TYPES). */
const GZIP_TYPE = /^application\/(?:gzip|gzip-compressed|gzipped|x-compress|x-compressed|x-gunzip|x-gzip|x-gzip-compressed)$/;

const GZIP =
  'a part cannot be gzip: cloud-init would lose its type and its merge rule. Upload it uncompressed; documents are compressed on the way';
const BOM = 'the file begins with a byte order mark, which hides its first line from cloud-init: save it as UTF-8 without BOM';

/**
 * Finds a part's content type. Order of authority: the first line, then what was said, then the content, then the file name's
 * extension. Time is bounded for every body.
 *
 * @param saidType what `?type=` or a Content-Type that means something (`isSaidType`) says, or null
 * @returns the type in lower case; whether it was said (then it stays when the body changes); warnings
 * @throws too_large `part_too_large`; invalid `empty_part`, `bad_type`, `gzip_part`, `bom`, `not_utf8`,
 *   `newlines_lost`, `type_mismatch`, `jinja_line`, `mime_archive`, `bad_yaml`, `unrecognised_part`
 */
export function sniff(
  filename: string,
  body: Uint8Array,
  saidType: string | null,
): { type: string; typeSaid: boolean; findings: Finding[] } {
  if (body.length > LIMITS.partBytes) throw tooLarge('part_too_large', `a part has at most ${LIMITS.partBytes} bytes`);
  if (isBlank(body)) throw invalid('empty_part', 'the part is empty: was this a directory?');
  const said = saidType === null ? null : checkSaid(saidType);

  if (said !== null && !said.startsWith('text/')) return { type: said, typeSaid: true, findings: [] };
  const custom = said !== null && !CLOUD_INIT_TYPES.has(said) && !KUBE_TYPES.has(said);
  const text = decode(body, custom);
  const findings: Finding[] = [];
  const warn = (code: string, message: string) => findings.push({ severity: 'warning', code, part: filename, message });
  if (text.includes('\0'))
    warn('nul_byte', 'the text holds a NUL byte: YAML with one is not read at all, and a shell drops it');
  if (custom) return { type: said, typeSaid: true, findings };

  const mark = findMark(text);
  if (mark) checkLineBreaks(mark, text);
  if (mark && said !== null && said !== mark.type && !mark.also?.has(said))
    throw invalid(
      'type_mismatch',
      `the first line says ${mark.mark} (${mark.type}), the type said is ${said}: drop one of them (?type=auto forgets what was said)`,
    );
  const type = said ?? mark?.type ?? sniffUnsaid(filename, text);

  // cloud-init's renderer looks at the very first line (templater.py, detect_template), the sniffer skips white space.
  if (type === 'text/jinja2' && !/^##[^\S\n]*template:[^\S\n]*jinja[^\S\n]*(?:\n|$)/i.test(text))
    throw invalid('jinja_line', 'text/jinja2 needs "## template: jinja" as its very first line, and nothing else in that line');
  if (SCRIPT_TYPES.has(type) && !scriptOf(type, text).startsWith('#!'))
    warn('no_shebang', 'a script that does not begin with #! cannot be run ("Exec format error"): begin it with #!/bin/sh');
  // Only the line makes an include one for ever (user_data.py, _do_include), whatever its type is.
  if (type === 'text/x-include-once-url' && !/^#include-once/im.test(text))
    warn('include_not_once', 'without a line #include-once the URLs are fetched anew: begin the file with it');
  return { type, typeSaid: said !== null, findings };
}

/**
 * Finds the content type of what a template renders to, from its source: the first line, then what was said, then how it looks. The source
 * itself is no YAML, so it is not read.
 * @throws as `sniff` does
 */
export function sniffTemplate(
  filename: string,
  source: Uint8Array,
  saidType: string | null,
): { type: string; typeSaid: boolean; findings: Finding[] } {
  const said = saidType === null ? null : checkSaid(saidType);
  if (said !== null && !said.startsWith('text/')) throw invalid('bad_type', 'a template renders to text: say a text/* type');
  const text = decode(source, false);
  if (said === null && !findMark(text) && API_VERSION.test(text) && KIND.test(text)) {
    const { findings } = sniff(filename, source, 'text/x-kube-manifest');
    return { type: 'text/x-kube-manifest', typeSaid: false, findings };
  }
  return sniff(filename, source, said);
}

/**
 * The type a text's first line states, as cloud-init reads it (handlers/__init__.py, type_from_starts_with): left-trimmed,
 * lower-cased, longest prefix first; so `#Cloud-Configuration` counts as `#cloud-config`.
 */
export function matchPrefix(text: string): string | null {
  return findMark(text)?.type ?? null;
}

/** What Python's `str.lstrip` removes: unlike JavaScript's trim U+001C to U+001F and U+0085 too, and not the BOM. */
export const PYTHON_BLANK = new Set(
  '\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000',
);

/** As Python's `str.lstrip`. */
export function trimStart(text: string): string {
  let start = 0;
  while (PYTHON_BLANK.has(text.charAt(start))) start++;
  return text.slice(start);
}

function findMark(text: string): Mark | undefined {
  const start = trimStart(text).slice(0, 64).toLowerCase();
  return MARKS.find(({ mark }) => start.startsWith(mark));
}

function isBlank(body: Uint8Array): boolean {
  return body.every((byte) => byte === 0x20 || (byte >= 0x09 && byte <= 0x0d));
}

/** @throws invalid `bad_type`, `gzip_part` */
function checkSaid(saidType: string): string | null {
  const type = parseType(saidType);
  if (type === null) throw invalid('bad_type', 'a type is TYPE/SUBTYPE, without parameters, such as text/x-shellscript');
  if (GZIP_TYPE.test(type)) throw invalid('gzip_part', GZIP);
  if (/^(?:multipart|message)\//.test(type))
    throw invalid(
      'bad_type',
      `a part cannot be ${type}: upload a MIME archive as a whole bundle with Content-Type: multipart/mixed`,
    );
  return SNIFFED_AGAIN.has(type) ? null : type;
}

/** @throws invalid `gzip_part`, `bom`, `not_utf8` */
function decode(body: Uint8Array, custom: boolean): string {
  const [first, second, third] = body;
  if (first === 0x1f && second === 0x8b) throw invalid('gzip_part', GZIP);
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)) throw invalid('bom', BOM);
  // A handler of one's own may well take a BOM: to cloud-init it is then no first line.
  if (!custom && first === 0xef && second === 0xbb && third === 0xbf) throw invalid('bom', BOM);
  if (!isUtf8(body))
    throw invalid('not_utf8', 'the text is not UTF-8: binary is taken only with an explicit type that is not text/*');
  return Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
}

/** @throws invalid `newlines_lost` */
function checkLineBreaks(mark: Mark, text: string): void {
  const line = trimStart(text);
  if (!/[\n\r\x85\u2028\u2029]/.test(line) && mark.lost(line.slice(mark.mark.length))) throw newlinesLost();
}

function newlinesLost(): BootbundleError {
  return invalid('newlines_lost', 'the file has lost its line breaks: upload it with curl -T (curl -d removes them)');
}

/** The kernel reads so much of a first line (linux/binfmts.h, BINPRM_BUF_SIZE). */
const SHEBANG_BYTES = 256;
const INTERPRETER = /^(?:(?:ba|da|a|z|k|tc|c|fi)?sh|nodejs|(?:python|perl|ruby|node|php|lua)[\d.]*|[gm]?awk)/;
/** Commands whose names begin like an interpreter's. */
const NAMESAKE = /^(?:shutdown|shred|shuf|shasum|sha\d+sum|showmount|showkey|bashbug|perlbug|perldoc|node_\w+|luac|phpize)$/;

/**
 * Whether a script in one line, here without its `#!`, is several lines run together (`#!/bin/shset -e`). What works is left
 * alone: `#!/bin/true`, `#!/bin/sh -e`, `#!/usr/bin/touch /tmp/x`. The kernel hands over all that follows the interpreter as one
 * argument, so it can do with an option or a file at most, unless `env -S` splits it.
 */
function isJoinedScript(rest: string): boolean {
  if (rest.length >= SHEBANG_BYTES) return true;
  const words = rest.trim().split(/[ \t]+/);
  const path = words.shift() ?? '';
  if (/\/bin\/(?:ba|da)?sh\//.test(path)) return true;
  let command = path.slice(path.lastIndexOf('/') + 1);
  let split = false;
  if (command === 'env') {
    for (; words[0]?.startsWith('-') || words[0]?.includes('='); words.shift()) split ||= words[0].startsWith('-S');
    command = words.shift() ?? '';
  }
  const interpreter = INTERPRETER.exec(command)?.[0];
  if (interpreter === undefined || NAMESAKE.test(command)) return false;
  if (interpreter !== command) return true;
  if (split || words.length === 0) return false;
  return words.length > 1 || !/^(?:-[A-Za-z]{1,5}|--[a-z-]+|\/.*)$/.test(words[0] ?? '');
}

/** What neither first line nor operator said. @throws invalid `mime_archive`, `newlines_lost`, `bad_yaml`, `unrecognised_part` */
function sniffUnsaid(filename: string, text: string): string {
  if (isMimeArchive(text))
    throw invalid('mime_archive', 'this is a MIME archive: upload it as a whole bundle with Content-Type: multipart/mixed');
  // Without its #part-handler line; said so, cloud-init takes it.
  if (/^def[ \t]+list_types[ \t]*\(/m.test(text) && /^def[ \t]+handle_part[ \t]*\(/m.test(text)) return 'text/part-handler';
  if (isJoinedManifest(text)) throw newlinesLost();
  const manifest = sniffManifest(text);
  if (typeof manifest === 'string') return manifest;

  const extension = EXTENSIONS.get(filename.slice(filename.lastIndexOf('.') + 1).toLowerCase());
  if (extension?.fits(text)) return extension.type;
  throw manifest ?? invalid('unrecognised_part', UNRECOGNISED);
}

const UNRECOGNISED = `nothing says what this file is. Recognised are: a first line ${MARKS.map(({ mark }) => mark)
  .sort()
  .join(', ')}; a Kubernetes manifest with apiVersion and kind; Python with list_types and handle_part; a name that ends in ${[
  ...EXTENSIONS.keys(),
]
  .map((extension) => `.${extension}`)
  .join(' ')}. Add a first line, or say ?type=`;

/** Whether a text begins with the headers of a MIME multipart. */
export function isMimeArchive(text: string): boolean {
  for (const line of text.slice(0, 4096).split(/\r?\n/)) {
    if (/^content-type:\s*multipart\//i.test(line)) return true;
    // Headers, folded ones too, and the line an mbox begins with.
    if (!/^(?:[\w-]+:|[ \t]+\S|From )/.test(line)) return false;
  }
  return false;
}

/** Both keys where a key can stand: cheap, so that only what may be a manifest is parsed. */
const API_VERSION = /(?:^|[{,]|^--- )[ \t]*["']?apiVersion["']?[ \t]*:/m;
const KIND = /(?:^|[{,]|^--- )[ \t]*["']?kind["']?[ \t]*:/m;

/** Two keys of a block mapping cannot stand in one line. */
function isJoinedManifest(text: string): boolean {
  return /^\s*(?:apiVersion|kind|id):[^\n\r]*$/.test(text) && text.includes('apiVersion:') && text.includes('kind:');
}

/**
 * The type of a Kubernetes manifest, of today's shape or of v1beta1's, YAML or JSON, one document or many.
 * @returns null when it is none; the error when it looks like one and cannot be read
 */
function sniffManifest(text: string): string | BootbundleError | null {
  if (!API_VERSION.test(text) || !KIND.test(text)) return null;
  let documents: unknown[];
  try {
    documents = readDocuments(text).filter((document) => document !== null);
  } catch (error) {
    return error instanceof BootbundleError ? invalid('bad_yaml', error.message, error.findings) : null;
  }
  const kinds = documents.flatMap((document) =>
    isMapping(document) && typeof document.apiVersion === 'string' && typeof document.kind === 'string' ? [document.kind] : [],
  );
  if (kinds.length === 0) return null;
  const [type, ...others] = new Set(kinds.map((kind) => KUBE_KINDS.get(kind)));
  return type !== undefined && others.length === 0 && kinds.length === documents.length ? type : 'text/x-kube-manifest';
}

/** JSON as JSON, so that tabs may indent it; YAML does not allow that. */
function readDocuments(text: string): unknown[] {
  if (/^\s*\{/.test(text)) {
    try {
      return [JSON.parse(text)];
    } catch {
      // YAML's flow style begins so too.
    }
  }
  return readYaml(text, { multi: true });
}

/** systemd's and podman's files begin with a `[Section]`. */
function isNoUnit(text: string): boolean {
  const line = text
    .slice(0, 65_536)
    .split('\n')
    .find((candidate) => /^\s*[^\s#;]/.test(candidate));
  return !/^\s*\[[A-Za-z][\w-]*\]\s*$/.test(line ?? '');
}

/** A cloud-config without its first line, not an INI file of that name. */
function isConfig(text: string): boolean {
  try {
    return isMapping(readYaml(text)[0]);
  } catch {
    return false;
  }
}

function isUrlList(text: string): boolean {
  return /^[ \t]*[a-z]+:\/\//im.test(text);
}

function always(): boolean {
  return true;
}

/** The bytes that will be run: cloud-init cuts a boothook's mark off, if it is spelt exactly (handlers/boot_hook.py). */
function scriptOf(type: string, text: string): string {
  if (type !== 'text/cloud-boothook') return text;
  return trimStart(text.startsWith('#cloud-boothook') ? text.slice('#cloud-boothook'.length) : text);
}

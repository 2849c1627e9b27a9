import { isUtf8 } from 'node:buffer';
import { matchPrefix, trimStart } from '../inspect/sniff.ts';
import { CLOUD_INIT_TYPES } from '../inspect/types.ts';
import { isMapping } from '../inspect/yaml.ts';
import type { YamlReader } from './cloud-config.ts';
import type { ClientVersion } from './explanation.ts';
import { type GzipBudget, gunzip, gzipBudget } from './gzip.ts';
import {
  addHeader,
  bytesOf,
  type Decoded,
  decodePayload,
  encodingOf,
  exactHeaderOf,
  filenameOf,
  headerOf,
  isContainer,
  type Message,
  makeMessage,
  readMessage,
  replaceHeader,
  type Source,
  setFilename,
  storingTrouble,
  textPayload,
  typeOf,
  walk,
} from './message.ts';
import { bufferOf, encodeStrict, isAscii, splitLines, toInteger, toText } from './python.ts';
import type { Remarks } from './remarks.ts';

/** Where Python raises and nobody catches it: what is not done by then is not done at all. */
export class StageFailure extends Error {
  readonly code: string;
  readonly part: string | undefined;

  constructor(code: string, part: string | undefined, message: string) {
    super(message);
    this.code = code;
    this.part = part;
  }
}

/** A part that is replaced by what it holds. */
export interface Wrapper {
  kind: 'include' | 'archive';
  filename: string;
  type: string;
  size: number;
  message: Message;
  /** How many parts stand before it. */
  position: number;
}

/** What `UserDataProcessor.process` (user_data.py) leaves. */
export interface Unpacked {
  isMime: boolean;
  messages: Message[];
  wrappers: Wrapper[];
  includes: { from: string; url: string; once: boolean }[];
  /** Why nothing of it is handed out, or null. */
  failure: StageFailure | null;
}

/** user_data.py, TYPE_NEEDED, and text/x-shellscript, which is looked at as well. */
const SNIFFED = ['text/plain', 'text/x-not-multipart', 'text/x-shellscript'];
/** user_data.py, DECOMP_TYPES */
const GZIP_TYPES = /^application\/(?:gzip|gzip-compressed|gzipped|x-compress|x-compressed|x-gunzip|x-gzip|x-gzip-compressed)$/;
const INCLUDE_TYPES = ['text/x-include-url', 'text/x-include-once-url'];
/** Three types stand in handlers/__init__.py's table of first lines as their own first line. */
const SPELT_TYPE = /^text\/x-shellscript-per-(?:boot|instance|once)/;
const HEAD = 4096;
const NAME_LOST =
  'cloud-init loses a name that stands in Content-Type when it finds the type by itself: say filename in Content-Disposition';

/**
 * Takes a document apart as cloud-init does. Includes are not fetched: each URL counts as one part.
 * @throws too_large `mime_limit`, `gzip_bomb`
 */
export function unpack(document: Uint8Array, client: ClientVersion, yaml: YamlReader, remarks: Remarks): Unpacked {
  const budget = gzipBudget();
  const bytes = gunzip(document, budget) ?? bufferOf(document);
  const isMime = /mime-version:/i.test(bytes.toString('latin1', 0, HEAD));
  const unpacker = new Unpacker(client, yaml, remarks, budget);
  const { messages, wrappers, includes } = unpacker;
  try {
    unpacker.process(parse(bytes, isMime));
    messages.forEach(checkStorable);
    return { isMime, messages, wrappers, includes, failure: null };
  } catch (failure) {
    if (!(failure instanceof StageFailure)) throw failure;
    // What was to be fetched was fetched before it failed.
    return { isMime, messages: [], wrappers: [], includes, failure };
  }
}

/** user_data.py, `convert_string` @throws StageFailure */
function parse(bytes: Buffer, isMime: boolean): Message {
  const unsaid: Source = { filename: null, type: null, encoding: null, eightBit: false };
  if (!isMime) return makeMessage('text/x-not-multipart', { kind: 'content', bytes }, unsaid);
  if (isUtf8(bytes)) return readMessage(bytes);
  throw new StageFailure('not_utf8', undefined, 'the MIME document is not UTF-8, so cloud-init reads none of it');
}

/** @throws StageFailure */
function checkStorable(message: Message): void {
  const trouble = storingTrouble(message);
  if (trouble === null) return;
  const filename = filenameOf(message) ?? undefined;
  throw new StageFailure('unstorable', filename, `${trouble}: cloud-init cannot store it, and gives up the whole document`);
}

class Unpacker {
  readonly messages: Message[] = [];
  readonly wrappers: Wrapper[] = [];
  readonly includes: Unpacked['includes'] = [];
  readonly #client: ClientVersion;
  readonly #yaml: YamlReader;
  readonly #remarks: Remarks;
  readonly #budget: GzipBudget;
  /** Number-Attachments: an include counts though it holds nothing here. */
  #count = 0;

  constructor(client: ClientVersion, yaml: YamlReader, remarks: Remarks, budget: GzipBudget) {
    this.#client = client;
    this.#yaml = yaml;
    this.#remarks = remarks;
    this.#budget = budget;
  }

  /** user_data.py, `_process_msg` */
  process(root: Message): void {
    for (const message of walk(root)) {
      if (isContainer(message)) continue;
      const said = typeOf(message);
      const decoded = decodePayload(message, this.#client);
      if (GZIP_TYPES.test(said)) this.#processGzip(root, message, decoded);
      else {
        this.#noteEncoding(message);
        this.#processDecoded(root, message, said, decoded);
      }
    }
  }

  #processGzip(root: Message, message: Message, decoded: Decoded): void {
    const content = decoded.kind === 'bytes' ? gunzip(decoded.bytes, this.#budget) : null;
    const name = this.#nameOf(message);
    if (content === null || !isUtf8(content))
      throw new StageFailure(
        'gzip_undecodable',
        name,
        'a part of a gzip type cannot be unpacked to UTF-8 text: cloud-init gives up the whole document',
      );
    const text = content.toString('utf8');
    const type = sniff(text) ?? 'text/plain';
    const unpacked = makeMessage(type, textPayload(text), message.source);
    const filename = filenameOf(message);
    if (filename) setFilename(unpacked, filename);
    const index = headerOf(message, 'Launch-Index');
    if (index !== null) replaceHeader(unpacked, 'Launch-Index', index);
    if (exactHeaderOf(message, 'Merge-Type') || exactHeaderOf(message, 'X-Merge-Type'))
      this.#remarks.note('warning', 'gzip_merge_lost', name, 'a gzip part loses its merge rule: send it uncompressed');
    if (!isAscii(text)) this.#noteCorruption(name, 'a gzip part');
    this.#processDecoded(root, unpacked, 'text/plain', { kind: 'text', text });
  }

  #processDecoded(root: Message, message: Message, said: string, decoded: Decoded): void {
    const sniffed = SNIFFED.includes(said) && decoded.kind === 'text' ? sniff(decoded.text) : null;
    const type = sniffed ?? said;
    const before = filenameOf(message);
    if (type !== said) replaceHeader(message, 'Content-Type', type);
    if (decoded.kind === 'text' && INCLUDE_TYPES.includes(type)) this.#include(message, type, decoded.text);
    else if (decoded.kind === 'text' && type === 'text/cloud-config-archive') this.#archive(message, type, decoded.text);
    else {
      // Of a document that is one part this drops the parameters, too.
      replaceHeader(root, 'Content-Type', type);
      if (before && !filenameOf(message)) this.#remarks.note('warning', 'name_lost', before, NAME_LOST);
      this.#attach(message);
    }
  }

  /** user_data.py, `_attach_part` */
  #attach(message: Message): void {
    if (!filenameOf(message)) setFilename(message, partName(this.#count + 1));
    this.#attachLaunchIndex(message);
    this.messages.push(message);
    this.#count++;
  }

  /** user_data.py, `_attach_launch_index`: reads each cloud-config once more, and says so when it cannot. */
  #attachLaunchIndex(message: Message): void {
    const header = headerOf(message, 'Launch-Index');
    let index: unknown = header;
    if (typeOf(message) === 'text/cloud-config') {
      const bytes = bytesOf(message, this.#client);
      if (bytes && isUtf8(bytes)) {
        const config = this.#yaml.peek(bufferOf(bytes).toString('utf8'), this.#nameOf(message));
        index ??= config && Object.hasOwn(config, 'launch-index') ? config['launch-index'] : null;
      }
    }
    const digits = toInteger(index);
    if (digits !== null) addHeader(message, 'Launch-Index', digits);
  }

  /** user_data.py, `_do_include` */
  #include(message: Message, type: string, text: string): void {
    const filename = this.#wrap('include', message, type, text);
    let once = false;
    for (const line of splitLines(text)) {
      const mark = /^#include(-once)?/i.exec(line);
      if (mark) once = mark[1] !== undefined;
      const url = (mark ? line.slice(mark[0].length) : line).trim();
      if (url === '' || (mark ? url : line).startsWith('#')) continue;
      this.includes.push({ from: filename, url, once });
      this.#count++;
    }
  }

  /** user_data.py, `_explode_archive` */
  #archive(message: Message, type: string, text: string): void {
    const filename = this.#wrap('archive', message, type, text);
    for (const entry of this.#yaml.list(text, filename)) {
      const fields = typeof entry === 'string' ? { content: entry } : entry;
      if (isMapping(fields)) this.#attach(this.#entry(fields, filename));
    }
  }

  #entry(entry: Record<string, unknown>, archive: string): Message {
    const fail = (what: string) =>
      new StageFailure('archive_entry', archive, `an entry of the archive ${what}: cloud-init gives up the whole document`);
    const content = Object.hasOwn(entry, 'content') ? entry.content : '';
    let type = isFalse(entry.type) ? null : entry.type;
    if (type === null) {
      if (typeof content !== 'string' && !(content instanceof Uint8Array)) throw fail('has neither a type nor text');
      const isText = typeof content === 'string' || isUtf8(content);
      const found = isText ? sniff(typeof content === 'string' ? content : bufferOf(content).toString('utf8')) : null;
      type = found ?? (typeof content === 'string' ? 'text/cloud-config' : 'application/octet-stream');
    }
    if (typeof type !== 'string' || !type.includes('/')) throw fail('has a type that is not TYPE/SUBTYPE');
    const source = {
      filename: archive,
      type: typeof entry.type === 'string' ? entry.type : null,
      encoding: null,
      eightBit: false,
    };
    const message = makeMessage(type, entryPayload(type, content, fail), source);
    if (Object.hasOwn(entry, 'filename')) setFilename(message, toText(entry.filename));
    if (Object.hasOwn(entry, 'launch-index')) addHeader(message, 'Launch-Index', toText(entry['launch-index']));
    for (const [name, value] of Object.entries(entry)) {
      if (NO_HEADERS.has(name.toLowerCase())) continue;
      if (value !== null && typeof value !== 'string') throw fail('has a field that is not text');
      addHeader(message, name, value ?? '');
    }
    if (message.payload.kind === 'encoded' && !isAscii(String(content)))
      this.#noteCorruption(filenameOf(message) || archive, 'an entry that is not text/*');
    return message;
  }

  #wrap(kind: Wrapper['kind'], message: Message, type: string, text: string): string {
    const filename = this.#nameOf(message);
    const size = Buffer.byteLength(text);
    this.wrappers.push({ kind, filename, type, size, message, position: this.messages.length });
    return filename;
  }

  #nameOf(message: Message): string {
    return filenameOf(message) || partName(this.#count + 1);
  }

  #noteEncoding(message: Message): void {
    const { source } = message;
    const encoding = encodingOf(message, this.#client);
    const name = this.#nameOf(message);
    if (source.eightBit && !['base64', 'quoted-printable'].includes(encoding)) this.#noteCorruption(name, 'a part');
    if (encoding === 'base64' && message.payload.kind === 'encoded' && !isBase64(message.payload.bytes))
      this.#remarks.note(
        'warning',
        'bad_base64',
        name,
        'the part is no clean base64: cloud-init skips what does not belong, or leaves it undecoded',
      );
    if (/^(?:(?:x-)?uu(?:encode|e)|x-uue)$/.test(encoding))
      this.#remarks.note('warning', 'uuencode', name, 'uuencode is not followed here: send base64');
  }

  #noteCorruption(name: string, what: string): void {
    this.#remarks.note(
      'warning',
      'eight_bit',
      name,
      `${what} with letters beyond ASCII must come as base64 or quoted-printable: cloud-init corrupts it`,
    );
  }
}

/** What an entry says of itself, and what cloud-init says of it, are no headers. */
const NO_HEADERS = new Set([
  'content',
  'filename',
  'type',
  'launch-index',
  'content-disposition',
  'number-attachments',
  'content-type',
]);

function entryPayload(type: string, content: unknown, fail: (what: string) => StageFailure): Message['payload'] {
  if (type.startsWith('text/')) {
    const text = content instanceof Uint8Array && isUtf8(content) ? bufferOf(content).toString('utf8') : content;
    const bytes = typeof text === 'string' ? encodeStrict(text) : null;
    if (bytes === null) throw fail('of a text type holds no text');
    return { kind: 'content', bytes };
  }
  if (typeof content === 'string') return textPayload(content);
  if (content instanceof Uint8Array) return { kind: 'encoded', bytes: content };
  return { kind: 'value', value: content };
}

/** handlers/__init__.py, `type_from_starts_with` */
export function sniff(text: string): string | null {
  const type = matchPrefix(text);
  if (type !== null && CLOUD_INIT_TYPES.has(type)) return type;
  return SPELT_TYPE.exec(trimStart(text).slice(0, 64).toLowerCase())?.[0] ?? null;
}

/** `part-NNN`: from one while the document is taken apart, from zero in the walk. */
export function partName(number: number): string {
  return `part-${String(number).padStart(3, '0')}`;
}

/** As a type: what Python takes for false. */
function isFalse(value: unknown): boolean {
  return value === undefined || value === null || value === false || value === 0 || value === '';
}

function isBase64(bytes: Uint8Array): boolean {
  const text = bufferOf(bytes).toString('latin1');
  if (/[^A-Za-z0-9+/=\r\n \t]/.test(text)) return false;
  const end = text.search(/=/);
  const digits = text.replace(/[=\s]/g, '').length;
  return digits % 4 !== 1 && (end < 0 || /^[=\s]*$/.test(text.slice(end)));
}

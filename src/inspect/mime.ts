import { tooLarge } from '../domain/errors.ts';

/** What bounds a MIME document beside its size. The largest that bootbundle itself renders has 64 × 256 parts. */
export const MIME_LIMITS = { entities: 20_000, depth: 20, headerBytes: 64 * 1024 } as const;

/** A header as sent: a folded value keeps its line breaks, a byte that is not ASCII reads as U+FFFD (unless `utf8Headers`). */
export interface MimeHeader {
  name: string;
  value: string;
}

export interface MimeOptions {
  /** The Content-Type that came with HTTP: the bytes are then a body and have no headers of their own. */
  contentType?: string;
  /** Reads the parts of the outermost multipart as they are, whatever their type (multipart/form-data, RFC 7578). */
  flat?: boolean;
  /** Reads headers as UTF-8, as `email.message_from_string` does: so cloud-init reads a document (user_data.py, convert_string). */
  utf8Headers?: boolean;
}

const CR = 0x0d;
const LF = 0x0a;
const SPACE = 0x20;
const TAB = 0x09;
const DASH = 0x2d;
const COLON = 0x3a;

/** One message or part. A leaf has no children; so has a multipart whose boundary is not said or never comes. */
export class MimeEntity {
  readonly headers: readonly MimeHeader[];
  /** Lower case, without parameters; `text/plain` when it is missing or is not TYPE/SUBTYPE (RFC 2045, 5.2). */
  readonly contentType: string;
  children: MimeEntity[] = [];
  /** Whether a multipart's closing boundary came. */
  closed = false;
  /** A leaf's bytes as sent, without the line break that belongs to the boundary. */
  raw: Uint8Array = new Uint8Array();

  constructor(headers: readonly MimeHeader[], defaultType: string) {
    this.headers = headers;
    this.contentType = essence(this.header('content-type'), defaultType);
  }

  get isMultipart(): boolean {
    return this.contentType.startsWith('multipart/');
  }

  /** The first header of that name in whatever case, or null. */
  header(name: string): string | null {
    const wanted = name.toLowerCase();
    return this.headers.find((header) => header.name.toLowerCase() === wanted)?.value ?? null;
  }

  /** A parameter of a header, unquoted, RFC 2231 pieces put together; RFC 2047 words stay as they are. Null when it is missing. */
  parameter(header: string, name: string): string | null {
    const value = this.header(header);
    const found = value === null ? undefined : parseParameters(value).find(([key]) => key.toLowerCase() === name);
    return found === undefined ? null : found[1];
  }

  /** As cloud-init names it: `filename` of Content-Disposition, else `name` of Content-Type; may be empty. Null when neither is said. */
  get filename(): string | null {
    const name = this.parameter('content-disposition', 'filename') ?? this.parameter('content-type', 'name');
    return name?.trim() ?? null;
  }

  /** A leaf's bytes, base64 and quoted-printable undone; any other encoding (x-uuencode too) stays as sent. */
  body(): Uint8Array {
    switch (this.header('content-transfer-encoding')?.trim().toLowerCase()) {
      case 'base64':
        return decodeBase64(this.raw);
      case 'quoted-printable':
        return decodeQuotedPrintable(this.raw);
      default:
        return this.raw;
    }
  }

  /** This entity, then all below it, in the order of the document. */
  *walk(): Generator<MimeEntity> {
    yield this;
    for (const child of this.children) yield* child.walk();
  }
}

/**
 * Reads MIME as Python's `email.message_from_bytes` does under its compat32 policy, because that is what cloud-init reads
 * with: never a syntax error, the line break before a boundary belongs to it, a missing closing boundary is forgiven.
 * Two things differ: a `From ` line among the headers keeps the blank line after it, and message/delivery-status is
 * read like any message/*. Time is linear in the size (times the nesting, at most MIME_LIMITS.depth).
 * @throws too_large `mime_limit` past MIME_LIMITS
 */
export function parseMime(bytes: Uint8Array, options: MimeOptions = {}): MimeEntity {
  return new MimeParser(bytes, options).parse();
}

interface Line {
  start: number;
  /** Past its line break: LF, CRLF or CR. */
  end: number;
}

/** email.feedparser.FeedParser, with positions instead of copied lines. */
class MimeParser {
  readonly #bytes: Uint8Array;
  readonly #options: MimeOptions;
  #position = 0;
  #entities = 0;
  /** The boundaries of the multiparts around the current position: any of them ends what is being read (RFC 2046, 5.1.2). */
  readonly #separators: Uint8Array[] = [];
  /** The entity whose end the next boundary marks. */
  #last: MimeEntity | null = null;

  constructor(bytes: Uint8Array, options: MimeOptions) {
    this.#bytes = bytes;
    this.#options = options;
  }

  parse(): MimeEntity {
    const { contentType } = this.#options;
    if (contentType === undefined) return this.#entity('text/plain', 0);
    const root = new MimeEntity([{ name: 'Content-Type', value: contentType }], 'text/plain');
    this.#content(root, 0);
    return root;
  }

  #entity(defaultType: string, depth: number): MimeEntity {
    if (++this.#entities > MIME_LIMITS.entities) throw limit(`has more than ${MIME_LIMITS.entities} parts`);
    if (depth > MIME_LIMITS.depth) throw limit(`is nested deeper than ${MIME_LIMITS.depth}`);
    const entity = new MimeEntity(this.#headers(), defaultType);
    this.#last = entity;
    this.#content(entity, depth);
    return entity;
  }

  #content(entity: MimeEntity, depth: number): void {
    const flatPart = this.#options.flat === true && depth > 0;
    const boundary = entity.isMultipart ? entity.parameter('content-type', 'boundary') : null;
    if (!flatPart && boundary !== null) this.#multipart(entity, Buffer.from(`--${boundary.trimEnd()}`), depth);
    else if (!flatPart && entity.contentType.startsWith('message/'))
      entity.children.push(this.#entity('text/plain', depth + 1));
    else {
      const start = this.#position;
      this.#skip();
      entity.raw = this.#bytes.subarray(start, this.#position);
    }
  }

  #multipart(entity: MimeEntity, separator: Uint8Array, depth: number): void {
    const start = this.#position;
    const childType = entity.contentType === 'multipart/digest' ? 'message/rfc822' : 'text/plain';
    for (let line = this.#next(); line !== null; line = this.#next()) {
      const kind = this.#boundary(line, separator);
      if (kind === 'close') {
        if (entity.children.length === 0) entity.raw = this.#bytes.subarray(start, line.start);
        entity.closed = true;
        this.#skip();
        return;
      }
      if (kind === null) continue;
      this.#skipBoundaries(separator);
      this.#separators.push(separator);
      entity.children.push(this.#entity(childType, depth + 1));
      this.#separators.pop();
      this.#giveLineBreakToBoundary();
      this.#last = entity;
    }
    if (entity.children.length === 0) entity.raw = this.#bytes.subarray(start, this.#position);
  }

  /** Boundaries in a row hold no parts between them. */
  #skipBoundaries(separator: Uint8Array): void {
    for (let line = this.#next(); line !== null; line = this.#next()) {
      if (this.#boundary(line, separator) !== null) continue;
      this.#position = line.start;
      return;
    }
  }

  #giveLineBreakToBoundary(): void {
    const last = this.#last;
    if (last === null || last.children.length > 0 || (last.isMultipart && this.#options.flat !== true)) return;
    const { raw } = last;
    const end = raw.at(-1) === LF ? (raw.at(-2) === CR ? 2 : 1) : raw.at(-1) === CR ? 1 : 0;
    last.raw = raw.subarray(0, raw.length - end);
  }

  #headers(): MimeHeader[] {
    const lines: Line[] = [];
    let size = 0;
    for (let line = this.#next(); line !== null; line = this.#next()) {
      if (!this.#isHeader(line)) {
        if (this.#bytes[line.start] !== CR && this.#bytes[line.start] !== LF) this.#position = line.start;
        break;
      }
      size += line.end - line.start;
      if (size > MIME_LIMITS.headerBytes) throw limit(`has a part with more than ${MIME_LIMITS.headerBytes} bytes of headers`);
      lines.push(line);
    }

    const headers: MimeHeader[] = [];
    let open: MimeHeader | null = null;
    for (const [index, line] of lines.entries()) {
      const bytes = this.#bytes.subarray(line.start, line.end);
      const text = this.#options.utf8Headers ? Buffer.from(bytes).toString('utf8') : asciiOf(bytes);
      if (text.startsWith(' ') || text.startsWith('\t')) {
        if (open !== null) open.value += text;
        continue;
      }
      open = null;
      if (text.startsWith('From ')) {
        // First: the envelope of a mailbox. Last: most likely the first line of the body.
        if (index > 0 && index === lines.length - 1) this.#position = line.start;
        continue;
      }
      const colon = text.indexOf(':');
      if (colon === 0) continue;
      open = { name: text.slice(0, colon), value: text.slice(colon + 1) };
      headers.push(open);
    }
    for (const header of headers) header.value = trimLineBreaks(header.value.replace(/^[ \t\r\n]+/, ''));
    return headers;
  }

  /** `From `, a continuation, or printable ASCII up to a colon. */
  #isHeader(line: Line): boolean {
    const bytes = this.#bytes;
    const first = bytes[line.start];
    if (first === SPACE || first === TAB) return true;
    for (let at = line.start; at < line.end; at++) {
      const byte = bytes[at] as number;
      if (byte === COLON) return true;
      if (byte <= SPACE || byte > 0x7e)
        return byte === SPACE && asciiOf(bytes.subarray(line.start, line.start + 5)) === 'From ';
    }
    return false;
  }

  /** Reads to the end of what surrounds this. */
  #skip(): void {
    while (this.#next() !== null);
  }

  /** The next line; null at the end and, without reading it, at a boundary of a multipart around this. */
  #next(): Line | null {
    const bytes = this.#bytes;
    const start = this.#position;
    if (start >= bytes.length) return null;
    let end = start;
    while (end < bytes.length && bytes[end] !== LF && bytes[end] !== CR) end++;
    if (bytes[end] === CR && bytes[end + 1] === LF) end++;
    const line = { start, end: Math.min(end + 1, bytes.length) };
    if (bytes[start] === DASH && this.#separators.some((separator) => this.#boundary(line, separator) !== null)) return null;
    this.#position = line.end;
    return line;
  }

  /** Whether a line is a separator: `--BOUNDARY`, at the end `--` more, then blanks. */
  #boundary(line: Line, separator: Uint8Array): 'open' | 'close' | null {
    const bytes = this.#bytes;
    let at = line.start;
    if (line.end - at < separator.length) return null;
    for (const byte of separator) if (bytes[at++] !== byte) return null;
    const close = at + 1 < line.end && bytes[at] === DASH && bytes[at + 1] === DASH;
    if (close) at += 2;
    while (at < line.end && (bytes[at] === SPACE || bytes[at] === TAB)) at++;
    if (at < line.end && bytes[at] !== CR && bytes[at] !== LF) return null;
    return close ? 'close' : 'open';
  }
}

function limit(what: string) {
  return tooLarge('mime_limit', `the MIME document ${what}`);
}

function asciiOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    .toString('latin1')
    .replace(/[\u0080-\u00ff]/g, '\ufffd');
}

function trimLineBreaks(text: string): string {
  let end = text.length;
  while (end > 0 && (text[end - 1] === '\n' || text[end - 1] === '\r')) end--;
  return text.slice(0, end);
}

function essence(contentType: string | null, defaultType: string): string {
  if (contentType === null) return defaultType;
  const type = (contentType.split(';', 1)[0] ?? '').trim().toLowerCase();
  return type.split('/').length === 2 ? type : 'text/plain';
}

/**
 * A header's value and parameters as email.message and email.utils.decode_params read them (they unquote twice); the first
 * pair is the value itself.
 */
function parseParameters(header: string): [name: string, value: string][] {
  const [first = ['', ''] as const, ...rest] = splitParameters(header);
  const parameters: [string, string][] = [[first[0], unquote(unquote(first[1]))]];
  const continued = new Map<string, { index: number; text: string; encoded: boolean }[]>();
  for (const [name, quotedText] of rest) {
    const text = unquote(quotedText);
    const match = /^(\w+)\*(?:([0-9]+)\*?)?$/.exec(name);
    if (!match) {
      parameters.push([name, unquote(text)]);
      continue;
    }
    const [, base = '', index = '0'] = match;
    const pieces = continued.get(base) ?? [];
    pieces.push({ index: Number(index), text, encoded: name.endsWith('*') });
    continued.set(base, pieces);
  }
  for (const [name, pieces] of continued) {
    pieces.sort((a, b) => a.index - b.index);
    const text = pieces.map((piece) => (piece.encoded ? percentDecode(piece.text) : piece.text)).join('');
    parameters.push([name, pieces.some((piece) => piece.encoded) ? decodeCharset(text) : unquote(text)]);
  }
  return parameters;
}

/** Splits at the semicolons outside quotes. */
function splitParameters(header: string): [name: string, value: string][] {
  const pairs: [string, string][] = [];
  let start = 0;
  let quoted = false;
  for (let at = 0; at <= header.length; at++) {
    if (header[at] === '"' && (at === start || header[at - 1] !== '\\')) quoted = !quoted;
    if (at < header.length && (header[at] !== ';' || quoted)) continue;
    const pair = header.slice(start, at);
    const equals = pair.indexOf('=');
    if (equals < 0) pairs.push([pair.trim(), '']);
    else pairs.push([pair.slice(0, equals).trim().toLowerCase(), pair.slice(equals + 1).trim()]);
    start = at + 1;
    quoted = false;
  }
  return pairs;
}

function unquote(text: string): string {
  if (text.length > 1 && text.startsWith('"') && text.endsWith('"'))
    return text.slice(1, -1).replaceAll('\\\\', '\\').replaceAll('\\"', '"');
  return text.length > 1 && text.startsWith('<') && text.endsWith('>') ? text.slice(1, -1) : text;
}

function percentDecode(text: string): string {
  return text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/**
 * RFC 2231 `charset'language'text`, where a character stands for a byte (one that cannot becomes `\uXXXX`, Python's
 * raw-unicode-escape). A charset we do not know leaves the text as it is.
 */
function decodeCharset(value: string): string {
  const [charset = '', language, ...rest] = value.split("'");
  const known = language !== undefined && rest.length > 0;
  const text = known ? rest.join("'") : value;
  const bytes = text.replace(/[\u0100-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
  switch (known ? charset.toLowerCase() : 'us-ascii') {
    case 'us-ascii':
    case 'ascii':
      return bytes.replace(/[\u0080-\u00ff]/g, '\ufffd');
    case 'utf-8':
    case 'utf8':
      return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.from(bytes, 'latin1'));
    default:
      return unquote(text);
  }
}

const BASE64 = new Int8Array(256).fill(-1);
for (const [value, char] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'].entries())
  BASE64[char.charCodeAt(0)] = value;

/**
 * As email._encoded_words.decode_b: the standard alphabet only, anything else skipped, missing padding forgiven, the first
 * full padding ends it (Debian 13's patched Python goes on). One character too many makes it undecodable: then the text
 * comes back without its line breaks.
 */
export function decodeBase64(encoded: Uint8Array): Uint8Array {
  const out = new Uint8Array(Math.floor(encoded.length / 4) * 3 + 3);
  let length = 0;
  let bits = 0;
  let digits = 0;
  let pads = 0;
  for (const byte of encoded) {
    const digit = BASE64[byte] as number;
    if (byte === 0x3d) {
      if (digits >= 2 && digits + ++pads >= 4) return out.subarray(0, length);
    } else if (digit >= 0) {
      pads = 0;
      bits = ((bits << 6) | digit) & 0xffff;
      digits = (digits + 1) % 4;
      if (digits === 2) out[length++] = bits >> 4;
      else if (digits === 3) out[length++] = bits >> 2;
      else if (digits === 0) out[length++] = bits;
    }
  }
  return digits === 1 ? encoded.filter((byte) => byte !== CR && byte !== LF) : out.subarray(0, length);
}

/** As binascii.a2b_qp: `=` before a line break joins lines, a bad escape stays as it is. */
export function decodeQuotedPrintable(encoded: Uint8Array): Uint8Array {
  const out = new Uint8Array(encoded.length);
  let length = 0;
  for (let at = 0; at < encoded.length; ) {
    const byte = encoded[at++] as number;
    if (byte !== 0x3d) {
      out[length++] = byte;
      continue;
    }
    if (at >= encoded.length) break;
    if (encoded[at] === LF || encoded[at] === CR) {
      const end = encoded.indexOf(LF, at);
      at = end < 0 ? encoded.length : end + 1;
      continue;
    }
    const hex = Buffer.from(encoded.subarray(at, at + 2)).toString('latin1');
    if (/^[0-9A-Fa-f]{2}$/.test(hex)) {
      out[length++] = Number.parseInt(hex, 16);
      at += 2;
    } else {
      out[length++] = 0x3d;
      if (encoded[at] === 0x3d) at++;
    }
  }
  return out.subarray(0, length);
}

import {
  decodeBase64,
  decodeQuotedPrintable,
  MimeEntity,
  type MimeHeader,
  type MimeOptions,
  parseMime,
} from '../inspect/mime.ts';
import type { ClientVersion } from './explanation.ts';
import { bufferOf, decodeEscaped, isAscii, rawUnicodeEscape, splitLines, strip } from './python.ts';

/** What a message holds: other messages, text still encoded for the wire, bytes as they are, or (in an archive) any value of YAML. */
export type Payload =
  | { kind: 'messages'; messages: Message[] }
  | { kind: 'encoded'; bytes: Uint8Array }
  | { kind: 'content'; bytes: Uint8Array }
  | { kind: 'value'; value: unknown };

/** How a part came: for people, cloud-init keeps none of it. */
export interface Source {
  filename: string | null;
  type: string | null;
  encoding: string | null;
  /** It was sent with bytes that are not ASCII, which cloud-init corrupts. */
  eightBit: boolean;
}

/** Python's `email.message.Message`: cloud-init changes headers of the very objects that it has attached elsewhere. */
export interface Message {
  headers: MimeHeader[];
  defaultType: string;
  payload: Payload;
  source: Source;
}

/** What `util.fully_decoded_payload` hands out: a str, bytes, or None. */
export type Decoded = { kind: 'text'; text: string } | { kind: 'bytes'; bytes: Uint8Array } | { kind: 'none' };

const READ: MimeOptions = { utf8Headers: true };

/** As `email.message_from_string`. @throws too_large `mime_limit` */
export function readMessage(document: Uint8Array): Message {
  return fromEntity(parseMime(document, READ));
}

function fromEntity(entity: MimeEntity): Message {
  const said = entity.header('content-type');
  const ascii = entity.raw.every((byte) => byte < 0x80);
  return {
    headers: entity.headers.map((header) => ({ ...header })),
    defaultType: said === null ? entity.contentType : 'text/plain',
    payload:
      entity.children.length > 0
        ? { kind: 'messages', messages: entity.children.map(fromEntity) }
        : { kind: 'encoded', bytes: ascii ? entity.raw : rawUnicodeEscape(bufferOf(entity.raw).toString('utf8')) },
    source: {
      filename: entity.filename,
      type: said === null ? null : entity.contentType,
      encoding: entity.header('content-transfer-encoding'),
      eightBit: !ascii && entity.children.length === 0,
    },
  };
}

/** As `MIMEBase` or `MIMENonMultipart`: a message made, not read. */
export function makeMessage(type: string, payload: Payload, source: Source): Message {
  const headers = [
    { name: 'Content-Type', value: type },
    { name: 'MIME-Version', value: '1.0' },
  ];
  return { headers, defaultType: 'text/plain', payload, source };
}

/** `set_payload` of a str that is sent as it stands. */
export function textPayload(text: string): Payload {
  return { kind: 'encoded', bytes: rawUnicodeEscape(text) };
}

function headersOf(message: Message): MimeEntity {
  return new MimeEntity(message.headers, message.defaultType);
}

/** As `get_content_type`: lower case, without parameters. */
export function typeOf(message: Message): string {
  return headersOf(message).contentType;
}

/** As `get_filename`: may be empty; null when none is said. */
export function filenameOf(message: Message): string | null {
  const headers = headersOf(message);
  const name = headers.parameter('content-disposition', 'filename') ?? headers.parameter('content-type', 'name');
  return name === null ? null : strip(name);
}

/** As `get`: the first of that name, in whatever case. */
export function headerOf(message: Message, name: string): string | null {
  return headersOf(message).header(name);
}

/** As `dict(message).get`: the name must be spelt so, yet the value is that of the first of its spellings. */
export function exactHeaderOf(message: Message, name: string): string | null {
  return message.headers.some((header) => header.name === name) ? headerOf(message, name) : null;
}

/** As `del` and a new header: whatever parameters the old one had are gone. */
export function replaceHeader(message: Message, name: string, value: string): void {
  const lower = name.toLowerCase();
  message.headers = [...message.headers.filter((header) => header.name.toLowerCase() !== lower), { name, value }];
}

export function addHeader(message: Message, name: string, value: string): void {
  message.headers = [...message.headers, { name, value }];
}

/** As user_data.py, `_set_filename` (and email.message, `_formatparam`). */
export function setFilename(message: Message, filename: string): void {
  const quoted = filename.replaceAll('\\', '\\\\').replaceAll('"', '\\"');
  const encoded = encodeURIComponent(filename.toWellFormed()).replaceAll("'", '%27');
  const parameter = isAscii(filename) ? `filename="${quoted}"` : `filename*=utf-8''${encoded}`;
  replaceHeader(message, 'Content-Disposition', `attachment; ${parameter}`);
}

/** As `is_skippable`: a multipart is only a container. */
export function isContainer(message: Message): boolean {
  return typeOf(message).startsWith('multipart/');
}

/** As `walk`: this message, then all below it. */
export function* walk(message: Message): Generator<Message> {
  yield message;
  if (message.payload.kind === 'messages') for (const child of message.payload.messages) yield* walk(child);
}

/**
 * As `get_payload(decode=True)`. With a blank behind it `base64 ` is none to the Python of 22.4 (Debian 12's 3.11); that of 25.1 (3.13)
 * takes it. uuencode is not undone here.
 */
export function bytesOf(message: Message, client: ClientVersion): Uint8Array | null {
  const { payload } = message;
  if (payload.kind === 'content') return payload.bytes;
  if (payload.kind !== 'encoded') return null;
  switch (encodingOf(message, client)) {
    case 'base64':
      return decodeBase64(payload.bytes);
    case 'quoted-printable':
      return decodeQuotedPrintable(payload.bytes);
    default:
      return payload.bytes;
  }
}

export function encodingOf(message: Message, client: ClientVersion): string {
  const encoding = (headerOf(message, 'content-transfer-encoding') ?? '').toLowerCase();
  return client === '22.4' ? encoding : encoding.trim();
}

/** As `util.fully_decoded_payload`. */
export function decodePayload(message: Message, client: ClientVersion): Decoded {
  const bytes = bytesOf(message, client);
  if (bytes === null) return { kind: 'none' };
  return typeOf(message).startsWith('text/') ? { kind: 'text', text: decodeEscaped(bytes) } : { kind: 'bytes', bytes };
}

/**
 * Why cloud-init cannot write the message down (`str(message)`, email.generator), which it does before it hands out any part; null when it can.
 * A header of ASCII must not go on in a line of its own, and what holds messages must say so in its type.
 */
export function storingTrouble(message: Message): string | null {
  const { headers, payload } = message;
  if (!headers.every(isFoldable)) return 'a header of it (its name?) has a line break or a form feed';
  if (payload.kind === 'value' && payload.value !== null) return 'its content is neither text nor bytes';
  if (payload.kind !== 'messages') return null;
  if (!/^(?:message|multipart)\//.test(typeOf(message))) return 'the document is a message/* with a part inside';
  return payload.messages.map(storingTrouble).find((trouble) => trouble !== null) ?? null;
}

function isFoldable({ name, value }: MimeHeader): boolean {
  if (/[\r\n]/.test(name)) return false;
  if (!isAscii(value)) return true;
  return splitLines(value).every((line, index) => index === 0 || line === '' || /^[ \t]/.test(line));
}

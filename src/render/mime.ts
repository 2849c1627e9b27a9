import { isUtf8 } from 'node:buffer';
import { createHash } from 'node:crypto';

/** A body encoded for the wire: computed once per revision, since it never changes. */
export interface EncodedBody {
  /** 8bit only in a preview, for a person: cloud-init corrupts it. */
  encoding: '7bit' | 'base64' | '8bit';
  bytes: Buffer;
  /** Hex SHA-256 of the bytes as encoded; the boundary is made of it. */
  digest: string;
  /** Whether it could hold one of our boundary lines; only then must a document be searched. */
  suspicious: boolean;
}

/** One entity of a multipart document. */
export interface Entity {
  /** RFC 2045 type, lower case, no parameters. */
  type: string;
  filename: string;
  merge: string | null;
  body: EncodedBody;
}

/** RFC 5322: a line is at most 998 bytes before its line break. */
const LINE_MAX = 998;
const BASE64_LINE = 76;
const BOUNDARY_MARK = 'bootbundle-';
/** RFC 2045 tokens, lower case: all that may be said as a type (inspect/types.ts). */
const TYPE = /^[a-z0-9!#$%&'*+.^_`{|}~-]+\/[a-z0-9!#$%&'*+.^_`{|}~-]+$/;

/**
 * Encodes a body so that cloud-init hands over exactly these bytes. 7bit only when every byte is TAB, LF or 0x20-0x7E in lines of
 * up to 998: anything else cloud-init's str round trip may corrupt (user_data.py, convert_string), so it goes base64.
 */
export function encodeBody(body: Uint8Array): EncodedBody {
  const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
  if (isPlain(bytes))
    return { encoding: '7bit', bytes, digest: digestOf(bytes), suspicious: bytes.includes(`--${BOUNDARY_MARK}`) };
  const text = bytes.toString('base64');
  const lines: string[] = [];
  for (let at = 0; at < text.length; at += BASE64_LINE) lines.push(text.slice(at, at + BASE64_LINE));
  const encoded = Buffer.from(`${lines.join('\n')}\n`, 'latin1');
  return { encoding: 'base64', bytes: encoded, digest: digestOf(encoded), suspicious: false };
}

/** A body's own bytes. */
export function decodeBody({ encoding, bytes }: EncodedBody): Buffer {
  return encoding === 'base64' ? Buffer.from(bytes.toString('latin1'), 'base64') : bytes;
}

/** The body as a person can read it, where it is text: for a preview, never for a machine. */
export function readableBody(body: EncodedBody): EncodedBody {
  if (body.encoding !== 'base64') return body;
  const bytes = decodeBody(body);
  if (!isUtf8(bytes) || bytes.includes(0)) return body;
  return { encoding: '8bit', bytes, digest: digestOf(bytes), suspicious: bytes.includes(`--${BOUNDARY_MARK}`) };
}

function digestOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function isPlain(bytes: Buffer): boolean {
  let line = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    if (byte === 0x0a) line = 0;
    else if (byte !== 0x09 && (byte < 0x20 || byte > 0x7e)) return false;
    else if (++line > LINE_MAX) return false;
  }
  return true;
}

/**
 * Puts entities together as one multipart/mixed document. The headers are the first bytes of the body, because cloud-init looks for
 * `mime-version:` in the first 4,096 and ignores HTTP headers. The boundary is derived from the content, so equal input gives
 * equal bytes, and proved absent from it.
 * @throws Error when a header value could break out of its line: names, types and rules are checked long before, so that is a bug
 */
export function formatMultipart(entities: readonly Entity[]): Buffer {
  const heads = entities.map(formatHead);
  const boundary = chooseBoundary(entities, heads);
  const chunks: Buffer[] = [
    Buffer.from(`Content-Type: multipart/mixed; boundary="${boundary}"\nMIME-Version: 1.0\n\n`, 'latin1'),
  ];
  entities.forEach(({ body }, index) => {
    chunks.push(Buffer.from(`--${boundary}\n${heads[index]}\n`, 'latin1'), body.bytes, Buffer.from('\n', 'latin1'));
  });
  chunks.push(Buffer.from(`--${boundary}--\n`, 'latin1'));
  return Buffer.concat(chunks);
}

function formatHead({ type, filename, merge, body }: Entity): string {
  const charset = body.encoding !== '7bit' && type.startsWith('text/') ? '; charset="utf-8"' : '';
  const lines = [
    `Content-Type: ${guard(type, TYPE)}${charset}`,
    'MIME-Version: 1.0',
    `Content-Transfer-Encoding: ${body.encoding}`,
    `Content-Disposition: attachment; filename="${guard(filename, /^[A-Za-z0-9._-]+$/)}"`,
  ];
  if (merge !== null) lines.push(`Merge-Type: ${guard(merge, /^[a-z_(),+]+$/)}`);
  return `${lines.join('\n')}\n`;
}

function guard(value: string, allowed: RegExp): string {
  if (!allowed.test(value)) throw new Error('a header value was not checked before it was rendered');
  return value;
}

function chooseBoundary(entities: readonly Entity[], heads: readonly string[]): string {
  const suspects = entities.filter(({ body }) => body.suspicious);
  for (let attempt = 0; ; attempt++) {
    const hash = createHash('sha256').update(`${attempt}\n`);
    entities.forEach(({ body }, index) => {
      hash.update(`${heads[index]}${body.digest}\n`);
    });
    const boundary = BOUNDARY_MARK + hash.digest('hex').slice(0, 32);
    if (!suspects.some(({ body }) => body.bytes.includes(`--${boundary}`))) return boundary;
  }
}

import { isUtf8 } from 'node:buffer';
import { PYTHON_BLANK, trimStart } from '../inspect/sniff.ts';

// What Python's str and codecs do where JavaScript's differ. A str that Python decoded with `surrogateescape` holds a lone
// surrogate U+DC80 to U+DCFF for each byte that was not UTF-8; a JavaScript string can hold that too.

/** As `str.strip`. */
export function strip(text: string): string {
  const start = trimStart(text);
  let end = start.length;
  while (end > 0 && PYTHON_BLANK.has(start.charAt(end - 1))) end--;
  return start.slice(0, end);
}

const LINE_BREAK = new RegExp(['\r\n', ...'\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029'].join('|'));

/** As `str.splitlines`. */
export function splitLines(text: string): string[] {
  const lines = text.split(LINE_BREAK);
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

/** As `bytes.decode('utf-8', 'surrogateescape')`. */
export function decodeEscaped(bytes: Uint8Array): string {
  const buffer = bufferOf(bytes);
  if (isUtf8(buffer)) return buffer.toString('utf8');
  const units = new Uint16Array(buffer.length);
  let count = 0;
  for (let at = 0; at < buffer.length; ) {
    const length = sequenceLength(buffer, at);
    if (length <= 1) units[count++] = length === 1 ? (buffer[at] as number) : 0xdc00 + (buffer[at] as number);
    else for (const unit of unitsOf(buffer, at, length)) units[count++] = unit;
    at += length || 1;
  }
  return Buffer.from(units.buffer, 0, count * 2).toString('utf16le');
}

/** Bytes of the UTF-8 sequence that begins here (RFC 3629, 4); 0 when none does. */
function sequenceLength(buffer: Buffer, at: number): number {
  const first = buffer[at] as number;
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const second = buffer[at + 1] ?? 0;
  const low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  if (second < low || second > high) return 0;
  const length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  for (let next = at + 2; next < at + length; next++) if (((buffer[next] ?? 0) & 0xc0) !== 0x80) return 0;
  return length;
}

function unitsOf(buffer: Buffer, at: number, length: number): number[] {
  let code = (buffer[at] as number) & (0xff >> (length + 1));
  for (let next = at + 1; next < at + length; next++) code = (code << 6) | ((buffer[next] as number) & 0x3f);
  return code < 0x10000 ? [code] : [0xd7c0 + (code >> 10), 0xdc00 + (code & 0x3ff)];
}

/** As `str.encode('utf-8')`; null where Python raises, because the text holds a lone surrogate. */
export function encodeStrict(text: string): Buffer | null {
  return text.isWellFormed() ? Buffer.from(text, 'utf8') : null;
}

/** As `str.encode('raw-unicode-escape')`: one byte up to U+00FF, six or ten characters above. */
export function rawUnicodeEscape(text: string): Buffer {
  const escaped = text.replace(/[\u{100}-\u{10ffff}]/gu, (char) => {
    const code = char.codePointAt(0) as number;
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
  return Buffer.from(escaped, 'latin1');
}

/** As `int(…)`, in digits; null where Python raises. */
export function toInteger(value: unknown): string | null {
  if (typeof value === 'boolean') return value ? '1' : '0';
  if (typeof value === 'number') return Number.isFinite(value) ? BigInt(Math.trunc(value)).toString() : null;
  if (typeof value !== 'string') return null;
  const text = strip(value);
  // A thousand digits are no index, and BigInt is slow with more.
  return text.length < 1000 && /^[-+]?[0-9]+(?:_[0-9]+)*$/.test(text)
    ? BigInt(text.replaceAll('_', '').replace(/^\+/, '')).toString()
    : null;
}

/** As `str(…)` of what YAML can hold, lists and mappings aside: those and dates read differently in Python. */
export function toText(value: unknown): string {
  if (value === null || value === undefined) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  return String(value);
}

export function isAscii(text: string): boolean {
  return Buffer.byteLength(text) === text.length;
}

export function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

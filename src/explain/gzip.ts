import { crc32, inflateRawSync } from 'node:zlib';
import { tooLarge } from '../domain/errors.ts';
import { bufferOf } from './python.ts';

/** What everything compressed in a document may come to, bytes. */
const MAX_UNPACKED = 64 * 1024 * 1024;
const MAX_MEMBERS = 1000;

/** How much may still be unpacked: one per document. */
export interface GzipBudget {
  left: number;
}

export function gzipBudget(): GzipBudget {
  return { left: MAX_UNPACKED };
}

/**
 * Unpacks as Python's `gzip.GzipFile` does: several members, zeros after one; anything else behind it spoils the whole.
 * @returns null where Python raises
 * @throws too_large `gzip_bomb` past the budget
 */
export function gunzip(bytes: Uint8Array, budget: GzipBudget): Buffer | null {
  const input = bufferOf(bytes);
  const members: Buffer[] = [];
  for (let at = 0; at < input.length; ) {
    if (members.length >= MAX_MEMBERS) throw bomb();
    const start = headerEnd(input, at);
    if (start === null) return null;
    const member = inflate(input.subarray(start), budget);
    if (member === null) return null;
    const end = start + member.read;
    if (end + 8 > input.length) return null;
    const size = member.content.length % 2 ** 32;
    if (input.readUInt32LE(end) !== crc32(member.content) || input.readUInt32LE(end + 4) !== size) return null;
    members.push(member.content);
    at = end + 8;
    while (input[at] === 0) at++;
  }
  return Buffer.concat(members);
}

/** Where a member's header ends (RFC 1952, 2.3); null when it is none. */
function headerEnd(input: Buffer, start: number): number | null {
  if (input[start] !== 0x1f || input[start + 1] !== 0x8b || input[start + 2] !== 8) return null;
  const flags = input[start + 3] ?? 0;
  let at = start + 10;
  if (flags & 4) at += 2 + (at + 2 <= input.length ? input.readUInt16LE(at) : 0);
  for (const flag of [8, 16]) {
    if (!(flags & flag)) continue;
    const zero = input.indexOf(0, at);
    if (zero < 0) return null;
    at = zero + 1;
  }
  if (flags & 2) at += 2;
  return at < input.length ? at : null;
}

function inflate(input: Buffer, budget: GzipBudget): { content: Buffer; read: number } | null {
  try {
    const maxOutputLength = Math.max(1, budget.left);
    const { buffer, engine } = inflateRawSync(input, { info: true, maxOutputLength }) as unknown as {
      buffer: Buffer;
      engine: { bytesWritten: number };
    };
    budget.left -= buffer.length;
    return { content: buffer, read: engine.bytesWritten };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw bomb();
    return null;
  }
}

function bomb() {
  return tooLarge('gzip_bomb', `what is compressed in the document comes to more than ${MAX_UNPACKED} bytes`);
}

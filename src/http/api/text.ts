import type { FastifyReply } from 'fastify';

/** Answers a person: aligned columns under a heading line. Cells hold no control bytes: they become `?`. */
export function sendColumns(
  reply: FastifyReply,
  heading: readonly string[],
  rows: readonly (readonly unknown[])[],
): FastifyReply {
  const cells = [heading, ...rows].map((row) => row.map(cell));
  const widths = heading.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  const lines = cells.map((row) =>
    row
      .map((text, column) => text.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  return reply.type('text/plain; charset=utf-8').send(`${lines.join('\n')}\n`);
}

/** Answers a text of somebody's, as it is: to be read or saved, never shown as a page. */
export function sendText(reply: FastifyReply, text: string | Buffer): FastifyReply {
  return reply.type('text/plain; charset=utf-8').header('x-content-type-options', 'nosniff').send(text);
}

function cell(value: unknown): string {
  if (value === null || value === undefined || value === '') return '-';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(cell).join(',');
  return printable(String(value));
}

/** Text of somebody's as a terminal may show it: control and format characters become `?`. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}

/** The same for a text of several lines, which may be indented by tabs. */
export function printableLines(text: string): string {
  return text.replace(/(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}

/** Epoch milliseconds as the API and people read them. */
export function isoTime(at: number): string {
  return new Date(at).toISOString();
}

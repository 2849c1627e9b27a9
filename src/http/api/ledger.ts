import { Readable } from 'node:stream';
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply } from 'fastify';
import type { Actor } from '../../domain/actor.ts';
import { parseDuration } from '../../domain/duration.ts';
import { malformed } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import { checkName, parseReference } from '../../domain/names.ts';
import type { LedgerCursor, LedgerFilter } from '../../domain/store.ts';
import type { LedgerService } from '../../service/ledger.ts';
import { formatJsonLine } from '../errors.ts';
import { Limit, Nullable, orText, problems } from '../schemas.ts';
import { viewDelivery } from './deliveries.ts';
import { sendColumns } from './text.ts';

const Moment = Type.Optional(Type.String({ description: 'RFC 3339, or so long ago: 90s, 24h, 7d' }));

const LedgerQuery = Type.Object(
  {
    instance: Type.Optional(Type.String({ description: 'Of this one only' })),
    bundle: Type.Optional(Type.String({ description: 'With this bundle in it, or with one revision of it (`web@3`)' })),
    address: Type.Optional(Type.String({ description: 'Asked for from here' })),
    outcome: Type.Optional(
      Type.Union([Type.Literal('delivered'), Type.Literal('aborted'), Type.Literal('failed'), Type.Literal('refused')]),
    ),
    counted: Type.Optional(Type.Boolean({ description: 'false: repeats only' })),
    since: Moment,
    until: Moment,
    limit: Limit,
    after: Type.Optional(Type.String({ description: 'The `next` of the page before' })),
    format: Type.Optional(
      Type.Union([Type.Literal('json'), Type.Literal('text'), Type.Literal('ndjson')], {
        description: 'text: aligned columns; ndjson: all pages, one object a line (or `limit` lines)',
      }),
    ),
  },
  { additionalProperties: false },
);

/** The ledger across instances. */
export const ledgerRoutes: FastifyPluginAsyncTypebox<{ ledger: LedgerService }> = async (app, { ledger }) => {
  app.get(
    '/deliveries',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'listAllDeliveries',
        summary: 'What all instances fetched, newest first',
        description:
          'A page may be shorter than `limit` and have a `next` all the same: a rare thing is looked for piece by piece.',
        tags: ['ledger'],
        querystring: LedgerQuery,
        response: {
          200: orText(
            Type.Object({ items: Type.Array(Type.Ref('Delivery#')), next: Nullable(Type.String()) }),
            'application/x-ndjson',
          ),
          ...problems(400, 422),
        },
      },
    },
    async (request, reply) => {
      const { limit, after, format, bundle, since, until, ...rest } = request.query;
      const now = ledger.now();
      const filter: LedgerFilter = {
        ...rest,
        names: request.actor.scope.instances,
        bundle: bundle === undefined ? undefined : readBundle(bundle),
        since: since === undefined ? undefined : readMoment('since', since, now),
        until: until === undefined ? undefined : readMoment('until', until, now),
      };
      const from = after === undefined ? null : readCursor(after);
      if (filter.instance !== undefined) checkName('instance', filter.instance);
      if (format === 'ndjson') {
        const lines = ledger.walk(filter, { after: from, limit: limit ?? null });
        return sendLines(reply, Readable.from(written(lines, request.actor), { objectMode: false }));
      }
      const { deliveries, next } = await ledger.list(filter, { after: from, limit: limit ?? LIMITS.pageDefault });
      const items = deliveries.map((delivery) => viewDelivery(delivery, request.actor));
      if (format === 'text')
        return sendColumns(
          reply,
          ['ID', 'AT', 'INSTANCE', 'OUTCOME', 'COUNTED', 'BYTES', 'ADDRESS', 'REVISIONS', 'DIGEST'],
          items.map((item) => [
            ...[item.id, item.at, item.instance, item.refusal === null ? item.outcome : `${item.outcome} (${item.refusal})`],
            ...[item.counted, item.bytes, item.address, item.revisions, item.digest?.slice(0, 12)],
          ]),
        );
      return reply.send({ items, next: next && formatCursor(next) });
    },
  );
};

/** A stream is no answer that a schema describes. */
function sendLines(reply: FastifyReply, lines: Readable): FastifyReply {
  return reply.type('application/x-ndjson').send(lines);
}

async function* written(pages: ReturnType<LedgerService['walk']>, actor: Actor): AsyncGenerator<string> {
  for await (const page of pages) {
    const lines = page.map((delivery) => `${formatJsonLine(viewDelivery(delivery, actor))}\n`).join('');
    if (lines !== '') yield lines;
  }
}

function readBundle(text: string): { name: string; revision: number | null } {
  const { bundle, tag, revision } = parseReference(text);
  if (tag !== null)
    throw malformed('bad_reference', 'query: bundle is NAME or NAME@REVISION: the ledger has revisions, no tags');
  return { name: bundle, revision };
}

function readMoment(name: string, text: string, now: number): number {
  const ago = parseDuration(text);
  if (ago !== null) return now - ago;
  const at = /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(at)) throw malformed('bad_time', `query: ${name} is a time (2026-12-31T23:59:59Z) or so long ago (24h)`);
  return at;
}

function formatCursor({ at, id }: LedgerCursor): string {
  return `${at}.${id}`;
}

function readCursor(text: string): LedgerCursor {
  const [, at, id] = /^(\d{1,15})\.(\d{1,15})$/.exec(text) ?? [];
  if (at === undefined) throw malformed('bad_cursor', 'query: after is the `next` of the page before');
  return { at: Number(at), id: Number(id) };
}

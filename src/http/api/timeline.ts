import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply } from 'fastify';
import type { Actor } from '../../domain/actor.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { Timeline, TimelineEvent, TimelineService } from '../../service/timeline.ts';
import { Format, Limit, orText, PathName, problems, Time } from '../schemas.ts';
import { viewDelivery } from './deliveries.ts';
import { isoTime, printable } from './text.ts';

const ManifestView = Type.Object(
  {
    id: Type.String(),
    file: Type.String({ description: 'In the machine’s spool' }),
    part: Type.String({ description: 'The name the part was sent under' }),
    sha256: Type.String(),
    status: Type.Union([Type.Literal('applied'), Type.Literal('failed'), Type.Literal('retrying')]),
    attempts: Type.Integer(),
    client: Type.String({ examples: ['kubectl'] }),
    clientVersion: Type.String(),
    output: Type.String({ description: 'The end of what the client printed' }),
    at: Time,
  },
  { $id: 'ManifestResult', description: 'A manifest’s result, in the machine’s own words; `at` is by its clock' },
);

const EventView = Type.Object(
  {
    at: Time,
    kind: Type.Union((['registered', 'changed', 'retired', 'fetched', 'manifest'] as const).map((kind) => Type.Literal(kind))),
    version: Type.Optional(Type.Integer({ description: 'registered, changed' })),
    delivery: Type.Optional(Type.Ref('Delivery#')),
    manifest: Type.Optional(Type.Ref('ManifestResult#')),
  },
  { $id: 'TimelineEvent' },
);

/** What the routes' answers refer to by name. */
export const timelineSchemas = [ManifestView, EventView];

/** What happened to a machine. */
export const timelineRoutes: FastifyPluginAsyncTypebox<{ timeline: TimelineService }> = async (app, { timeline }) => {
  app.get(
    '/instances/:instance/timeline',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'getTimeline',
        summary: 'What happened to an instance, newest last',
        tags: ['ledger'],
        params: Type.Object({ instance: PathName('instance') }),
        querystring: Type.Object({ limit: Limit, format: Format }, { additionalProperties: false }),
        response: {
          200: orText(
            Type.Object({
              items: Type.Array(Type.Ref('TimelineEvent#')),
              next: Type.Null(),
              reportsDropped: Type.Integer({ description: 'Old reports that were dropped: past the instance’s limit' }),
            }),
          ),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const { limit = LIMITS.pageDefault, format } = request.query;
      const found = await timeline.get(request.params.instance, limit);
      if (format === 'text') return sendLines(reply, found, request.actor);
      return reply.send({
        items: found.events.map((event) => viewEvent(event, request.actor)),
        next: null,
        reportsDropped: found.reportsDropped,
      });
    },
  );
};

function viewEvent(event: TimelineEvent, actor: Actor) {
  const at = isoTime(event.at);
  switch (event.kind) {
    case 'fetched':
      return { at, kind: event.kind, delivery: viewDelivery(event.delivery, actor) };
    case 'manifest':
      return { at, kind: event.kind, manifest: { ...event.manifest, at: isoTime(event.manifest.at) } };
    default:
      return { at, kind: event.kind, version: event.version };
  }
}

/** One readable line per event; what a manifest's client printed stands indented below it. */
function sendLines(reply: FastifyReply, { events, reportsDropped }: Timeline, actor: Actor): FastifyReply {
  const lines = events.map((event) => `${isoTime(event.at)}  ${printable(describe(event, actor))}${outputOf(event)}\n`);
  if (reportsDropped > 0)
    lines.push(`${reportsDropped} older reports were dropped: the limit is ${LIMITS.reportsPerInstance}\n`);
  return reply.type('text/plain; charset=utf-8').send(lines.join(''));
}

function describe(event: TimelineEvent, actor: Actor): string {
  switch (event.kind) {
    case 'registered':
      return 'registered';
    case 'retired':
      return 'retired';
    case 'changed':
      return `changed to version ${event.version}`;
    case 'fetched': {
      const { outcome, revisions, bytes, address, userAgent, purpose, counted, digest } = viewDelivery(event.delivery, actor);
      const from = `by ${address || 'nobody'} (${userAgent || 'no user agent'})`;
      if (outcome === 'failed') return `could not be rendered for the ${purpose} URL, asked for ${from}`;
      const what = `${revisions.join(' ')} (${[`${bytes} bytes`, ...(digest === null ? [] : [digest.slice(0, 12)])].join(', ')})`;
      return `${outcome === 'aborted' ? 'begun to be fetched' : 'fetched'}${counted ? '' : ' again'} ${from}: ${what}`;
    }
    case 'manifest': {
      const { file, status, attempts, client, clientVersion } = event.manifest;
      const by = [client, clientVersion].filter((word) => word !== '').join(' ');
      return `manifest ${file}: ${status}${by === '' ? '' : ` by ${by}`}, ${attempts} ${attempts === 1 ? 'attempt' : 'attempts'}`;
    }
  }
}

function outputOf(event: TimelineEvent): string {
  if (event.kind !== 'manifest' || event.manifest.status === 'applied') return '';
  const lines = event.manifest.output.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line) => `\n    ${printable(line)}`).join('');
}

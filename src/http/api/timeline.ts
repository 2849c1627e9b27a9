import { Readable } from 'node:stream';
import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Actor } from '../../domain/actor.ts';
import { ALARM_KINDS } from '../../domain/alarm.ts';
import { LIMITS } from '../../domain/limits.ts';
import { LIFE_KINDS, type TimelineEvent } from '../../domain/timeline.ts';
import type { TimelineOptions, TimelineService, TimelineStep } from '../../service/timeline.ts';
import { formatJsonLine } from '../errors.ts';
import { Format, Limit, Nullable, orText, PathName, problems, Time } from '../schemas.ts';
import { viewDelivery } from './deliveries.ts';
import { standingRequests } from './standing.ts';
import { isoTime } from './text.ts';
import { lineOf, logUrl } from './timeline-lines.ts';

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

const AlarmView = Type.Object(
  {
    id: Type.Integer(),
    instance: Type.String(),
    kind: Type.Union(ALARM_KINDS.map((kind) => Type.Literal(kind))),
    at: Time,
    lastAt: Time,
    count: Type.Integer({ description: 'How often from `at` to `lastAt`' }),
    address: Type.String(),
    userAgent: Type.String(),
  },
  { $id: 'Alarm', description: 'What somebody has to look at; a burst of the same is one' },
);

const told = (what: string) => ({ description: `${what}, in the machine’s own words` });

/** What comes with each kind of event. */
const eventKinds = [
  ...LIFE_KINDS.map((kind) => ({
    kind,
    fields: { version: Nullable(Type.Integer()), by: Nullable(Type.String({ description: 'Who; null: not known any more' })) },
  })),
  ...(['fetched', 'refused'] as const).map((kind) => ({ kind, fields: { delivery: Type.Ref('Delivery#') } })),
  {
    kind: 'stage',
    fields: {
      stage: Type.Object(
        {
          name: Type.String({ examples: ['modules-final'] }),
          result: Nullable(Type.String({ description: 'null: it has not ended', examples: ['SUCCESS', 'WARN', 'FAIL'] })),
          description: Type.String(),
          milliseconds: Nullable(Type.Integer({ description: 'By the machine’s clock; null: not known' })),
        },
        told('One of cloud-init’s four stages, or a part of one that failed'),
      ),
    },
  },
  {
    kind: 'event',
    fields: {
      event: Type.Object(
        {
          name: Type.String(),
          type: Type.Union([Type.Literal('start'), Type.Literal('finish')]),
          description: Type.String(),
          result: Nullable(Type.String()),
          at: Type.String({ description: 'By its clock' }),
        },
        told('With verbose=true: one of cloud-init’s events'),
      ),
    },
  },
  { kind: 'manifest', fields: { manifest: Type.Ref('ManifestResult#') } },
  {
    kind: 'phoneHome',
    fields: {
      phoneHome: Type.Object(
        {
          instanceId: Type.String(),
          hostname: Type.String(),
          fqdn: Type.String(),
          hostKeys: Type.Array(
            Type.Object({
              kind: Type.String({ examples: ['ed25519'] }),
              key: Type.String(),
              fingerprint: Nullable(Type.String({ description: 'As ssh-keygen prints it; null: it is no key' })),
            }),
          ),
        },
        told('cloud-init’s phone-home'),
      ),
    },
  },
  {
    kind: 'log',
    fields: {
      log: Type.Object({
        name: Type.String({ examples: ['cloud-init-output.log'] }),
        bytes: Type.Integer(),
        truncated: Type.Boolean({ description: 'Its beginning is missing' }),
        url: Type.String({ description: 'Where it is read' }),
      }),
    },
  },
  { kind: 'alarm', fields: { alarm: Type.Ref('Alarm#') } },
  ...(['ready', 'failed', 'silent'] as const).map((kind) => ({
    kind,
    fields: { reason: Type.String({ description: 'Why the state is that: one sentence' }) },
  })),
];

const EventView = Type.Union(
  eventKinds.map(({ kind, fields }) => Type.Object({ at: Time, kind: Type.Literal(kind), ...fields })),
  { $id: 'TimelineEvent', description: '`kind` tells what else is in it' },
);

/** What the routes' answers refer to by name. */
export const timelineSchemas = [ManifestView, AlarmView, EventView];

/** A stream says something at least so often, milliseconds: what lies between would cut it otherwise. */
const HEARTBEAT_MS = 15_000;
/** How soon a browser asks again when a stream ended, milliseconds. */
const RETRY_MS = 2000;

/** What happened to a machine. */
export const timelineRoutes: FastifyPluginAsyncTypebox<{ timeline: TimelineService }> = async (app, { timeline }) => {
  const begin = standingRequests(app, LIMITS.followers);

  app.get(
    '/instances/:instance/timeline',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'getTimeline',
        summary: 'What happened to an instance, newest last',
        description:
          'With follow=true it goes on as it happens: Server-Sent Events, each with a TimelineEvent as data; with format=text lines. Last-Event-ID goes on after the last event that came.',
        tags: ['ledger'],
        params: Type.Object({ instance: PathName('instance') }),
        querystring: Type.Object(
          {
            limit: Limit,
            verbose: Type.Optional(Type.Boolean({ description: 'Every event of cloud-init’s, not its stages only' })),
            follow: Type.Optional(Type.Boolean({ description: 'Go on as it happens' })),
            format: Format,
          },
          { additionalProperties: false },
        ),
        response: {
          200: orText(
            Type.Object({
              items: Type.Array(Type.Ref('TimelineEvent#')),
              next: Type.Null(),
              reportsDropped: Type.Integer({ description: 'Old reports that were dropped: past the instance’s limit' }),
            }),
            'text/event-stream',
          ),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const { instance } = request.params;
      const { limit = LIMITS.pageDefault, verbose = false, follow = false, format } = request.query;
      if (follow) return sendStream(request, reply, instance, { limit, verbose, format });
      const { events, reportsDropped } = await timeline.get(instance, { limit, verbose });
      if (format !== 'text')
        return reply.send({
          items: events.map((event) => viewEvent(event, instance, request.actor)),
          next: null,
          reportsDropped,
        });
      const lines = events.map((event) => `${lineOf(event, instance)}\n`);
      if (reportsDropped > 0)
        lines.push(`${reportsDropped} older reports were dropped: the limit is ${LIMITS.reportsPerInstance}\n`);
      return reply.type('text/plain; charset=utf-8').send(lines.join(''));
    },
  );

  /** The first look comes before the answer begins, so that what is wrong with the request has its status. */
  async function sendStream(
    request: FastifyRequest,
    reply: FastifyReply,
    instance: string,
    { format, ...options }: TimelineOptions & { format: 'json' | 'text' | undefined },
  ) {
    const signal = begin(request, reply);
    const resume = request.headers['last-event-id'];
    const steps = timeline.follow(instance, { ...options, resume: typeof resume === 'string' ? resume : null, signal });
    const first = await steps.next();
    const text = format === 'text';
    const chunks = streamed(
      first,
      steps,
      text ? (step) => linesOf(step, instance) : (step) => messagesOf(step, instance, request.actor),
    );
    const written = text ? chunks : withHeartbeats(chunks);
    return reply
      .type(text ? 'text/plain; charset=utf-8' : 'text/event-stream; charset=utf-8')
      .header('x-accel-buffering', 'no')
      .header('x-content-type-options', 'nosniff')
      .send(Readable.from(untilTrouble(written, request), { objectMode: false, highWaterMark: 0 }));
  }
};

/** What each step comes to; empty where nothing happened. */
async function* streamed(
  first: IteratorResult<TimelineStep, void>,
  steps: AsyncGenerator<TimelineStep, void, void>,
  format: (step: TimelineStep) => string,
): AsyncGenerator<string> {
  if (first.done) return;
  yield format(first.value);
  for await (const step of steps) yield format(step);
}

async function* withHeartbeats(chunks: AsyncGenerator<string>): AsyncGenerator<string> {
  yield `retry: ${RETRY_MS}\n\n`;
  let last = performance.now();
  for await (const chunk of chunks) {
    const quiet = chunk === '' && performance.now() - last < HEARTBEAT_MS;
    if (quiet) continue;
    last = performance.now();
    yield chunk === '' ? ': still here\n\n' : chunk;
  }
}

/** Once an answer has begun there is no status left to tell of trouble: it ends, and whoever follows asks again. */
async function* untilTrouble(chunks: AsyncGenerator<string>, request: FastifyRequest): AsyncGenerator<string> {
  try {
    for await (const chunk of chunks) if (chunk !== '') yield chunk;
  } catch (error) {
    request.log.error({ err: error }, 'a timeline could not be followed any longer');
  }
}

function linesOf({ events }: TimelineStep, instance: string): string {
  return events.map((event) => `${lineOf(event, instance)}\n`).join('');
}

/** Server-Sent Events. Only the last of a step has an id: what was cut off within one comes again as a whole. */
function messagesOf({ events, cursor }: TimelineStep, instance: string, actor: Actor): string {
  return events
    .map((event, index) => {
      const id = index === events.length - 1 ? `id: ${cursor}\n` : '';
      return `${id}data: ${formatJsonLine(viewEvent(event, instance, actor))}\n\n`;
    })
    .join('');
}

function viewEvent({ at: time, ...event }: TimelineEvent, instance: string, actor: Actor) {
  const at = isoTime(time);
  switch (event.kind) {
    case 'fetched':
    case 'refused':
      return { at, kind: event.kind, delivery: viewDelivery(event.delivery, actor) };
    case 'manifest':
      return { at, kind: event.kind, manifest: { ...event.manifest, at: isoTime(event.manifest.at) } };
    case 'event':
      return { at, kind: event.kind, event: { ...event.event, at: isoTime(event.event.at) } };
    case 'alarm':
      return {
        at,
        kind: event.kind,
        alarm: { ...event.alarm, at: isoTime(event.alarm.at), lastAt: isoTime(event.alarm.lastAt) },
      };
    case 'log':
      return { at, kind: event.kind, log: { ...event.log, url: logUrl(instance, event.log.name) } };
    default:
      return { at, ...event };
  }
}

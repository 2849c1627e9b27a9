import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Goal } from '../../domain/boot.ts';
import { formatDuration, parseDuration } from '../../domain/duration.ts';
import { BootbundleError, malformed } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { TimelineService } from '../../service/timeline.ts';
import type { Awaited, Standing, WaitOutcome, WaitService } from '../../service/wait.ts';
import { Format, Name, orText, PathName, problems } from '../schemas.ts';
import { StateView, viewState } from './instance-views.ts';
import { LabelQuery, parseLabel } from './labels.ts';
import { standingRequests } from './standing.ts';
import { printable, sendColumns } from './text.ts';
import { lineOf } from './timeline-lines.ts';

const WaitQuery = {
  for: Type.Optional(
    Type.Union([Type.Literal('delivered'), Type.Literal('booting'), Type.Literal('ready')], {
      description: 'What it must have come to, or further; ready unless said otherwise',
    }),
  ),
  timeout: Type.Optional(Type.String({ description: '90s, 10m (the default), up to 1h' })),
  format: Format,
};
const StandingView = Type.Object({ name: Name('instance'), state: StateView });

const DEFAULT_WAIT_MS = 10 * 60 * 1000;
/** So many lines, or machines, a refusal tells of. */
const LINES_TOLD = 10;

/** For scripts: one call that ends when a machine, or a group, is up. */
export const waitRoutes: FastifyPluginAsyncTypebox<{ waiting: WaitService; timeline: TimelineService }> = async (
  app,
  { waiting, timeline },
) => {
  const begin = standingRequests(app, LIMITS.waiters);
  const description =
    'Waits until it is. 409: it will not be without an operator, since it failed, fell silent, or reports nothing; 504: not in that time. Both tell the last that happened, as `lines`; with format=text that alone.';

  app.get(
    '/instances/:instance/wait',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'waitForInstance',
        summary: 'Wait until an instance is ready',
        description,
        tags: ['ledger'],
        params: Type.Object({ instance: PathName('instance') }),
        querystring: Type.Object(WaitQuery, { additionalProperties: false }),
        response: { 200: orText(StandingView), ...refusals(400, 404) },
      },
    },
    async (request, reply) => {
      const { instance } = request.params;
      const { outcome, goal } = await wait(request, reply, { instance }, request.query);
      const [standing] = outcome.standings as [Standing];
      if (outcome.result === 'reached')
        return request.query.format === 'text' ? sendStandings(reply, [standing]) : reply.send(viewStanding(standing));
      const { events } = await timeline.get(instance, { limit: LINES_TOLD, verbose: false });
      return refuse(reply, request.query.format, {
        ...refusal(outcome, goal),
        lines: events.flatMap((event) => lineOf(event, instance).split('\n')),
      });
    },
  );

  app.get(
    '/wait',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'waitForInstances',
        summary: 'Wait until all instances with some labels are ready',
        description,
        tags: ['ledger'],
        querystring: Type.Object({ label: LabelQuery, ...WaitQuery }, { additionalProperties: false }),
        response: { 200: orText(Type.Object({ items: Type.Array(StandingView) })), ...refusals(400, 404, 422) },
      },
    },
    async (request, reply) => {
      const labels = request.query.label.map(parseLabel);
      const { outcome, goal } = await wait(request, reply, { labels, names: request.actor.scope.instances }, request.query);
      const { standings, result } = outcome;
      if (result === 'reached')
        return request.query.format === 'text'
          ? sendStandings(reply, standings)
          : reply.send({ items: standings.map(viewStanding) });
      const guilty = standings.filter(({ progress }) => progress === (result === 'missed' ? 'missed' : 'waiting'));
      const lines = guilty.slice(0, LINES_TOLD).map(standingLine);
      if (guilty.length > LINES_TOLD) lines.push(`and ${guilty.length - LINES_TOLD} more`);
      return refuse(reply, request.query.format, { ...refusal(outcome, goal), lines });
    },
  );

  async function wait(
    request: FastifyRequest,
    reply: FastifyReply,
    awaited: Awaited,
    { for: goal = 'ready', timeout }: { for?: Goal; timeout?: string },
  ) {
    const timeoutMs = timeout === undefined ? DEFAULT_WAIT_MS : parseDuration(timeout);
    if (timeoutMs === null || timeoutMs > LIMITS.waitMs)
      throw malformed('bad_timeout', `query: timeout is a duration (90s, 10m) of at most ${formatDuration(LIMITS.waitMs)}`);
    return { goal, outcome: await waiting.wait(awaited, goal, timeoutMs, begin(request, reply)) };
  }
};

interface WaitRefusal {
  kind: 'conflict' | 'timed_out';
  code: string;
  message: string;
  lines: string[];
}

function refusal({ result, standings }: WaitOutcome, goal: Goal): Omit<WaitRefusal, 'lines'> {
  const missed = result === 'missed';
  const some = standings.filter(({ progress }) => progress === (missed ? 'missed' : 'waiting'));
  const names = some
    .slice(0, LINES_TOLD)
    .map(({ name, state }) => `${name} is ${state.state}${standings.length === 1 ? ` (${state.reason})` : ''}`)
    .join(', ');
  const more = some.length > LINES_TOLD ? ` and ${some.length - LINES_TOLD} more are not there` : '';
  const said = printable(`${names}${more}`);
  return missed
    ? { kind: 'conflict', code: 'not_reached', message: `not ${goal}, and will not be without help: ${said}` }
    : { kind: 'timed_out', code: 'timeout', message: `not ${goal} in that time: ${said}` };
}

/** @throws conflict `not_reached`, timed_out `timeout`, unless a text was asked for */
function refuse(reply: FastifyReply, format: 'json' | 'text' | undefined, { kind, code, message, lines }: WaitRefusal) {
  if (format !== 'text') throw new BootbundleError(kind, code, message, { lines });
  return reply
    .code(kind === 'conflict' ? 409 : 504)
    .type('text/plain; charset=utf-8')
    .send(`${message}\n${lines.map((line) => `${line}\n`).join('')}`);
}

function viewStanding({ name, state }: Standing) {
  return { name, state: viewState(state) };
}

function standingLine({ name, state }: Standing): string {
  return printable(`${name}: ${state.state}: ${state.reason}`);
}

function sendStandings(reply: FastifyReply, standings: readonly Standing[]): FastifyReply {
  return sendColumns(
    reply,
    ['NAME', 'STATE', 'REASON'],
    standings.map(({ name, state }) => [name, state.state, state.reason]),
  );
}

/** Refusals that may come as text. */
function refusals(...statuses: number[]) {
  const all: Record<number, { content: object }> = problems(409, 504, ...statuses) as never;
  for (const status of [409, 504]) {
    const answer = all[status];
    if (answer) answer.content = { ...answer.content, 'text/plain': { schema: Type.String() } };
  }
  return all as ReturnType<typeof problems>;
}

import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { parseDuration } from '../../domain/duration.ts';
import { malformed } from '../../domain/errors.ts';
import { instanceEtag, PURPOSES } from '../../domain/instance.ts';
import type { InstanceService } from '../../service/instances.ts';
import type { WindowReport, WindowService } from '../../service/windows.ts';
import { ConditionHeaders, DryRun, Name, Nullable, PathName, problems, Time } from '../schemas.ts';
import { beforeBody, preconditionsOf, sendEtag } from './conditions.ts';
import { nullableTime, viewPolicy, viewWindow } from './instance-views.ts';

const Purpose = Type.Union(PURPOSES.map((purpose) => Type.Literal(purpose)));

const WindowChangeView = Type.Object(
  {
    name: Name('instance'),
    changed: Type.Boolean({ description: 'false: it was so already' }),
    policy: Type.Ref('Policy#'),
    window: Type.Ref('Window#'),
    urls: Type.Array(
      Type.Object({
        purpose: Purpose,
        usedAt: Nullable(Time),
        works: Type.Boolean({ description: 'Whether the URL that machines may have gives anything from now on' }),
        effect: Type.String({ description: 'What whoever asks it gets: one sentence' }),
        stub: Nullable(
          Type.Object(
            { url: Type.String({ description: 'A secret of the machine’s' }), text: Type.String() },
            { description: 'What to use from now on; null for the report URL, and where a dry run would make a new one' },
          ),
        ),
      }),
      { description: 'What the change means for each URL; usedAt: first fetched, or (report) last used' },
    ),
  },
  {
    $id: 'WindowChange',
    examples: [
      {
        name: 'my-atomic-server',
        changed: true,
        policy: {
          closeAfter: '1h',
          expiresAt: null,
          allowFrom: [],
          afterClose: 'refuse',
          why: 'closes 1h after the first delivery, because secrets are in the document',
        },
        window: { open: false, since: '2026-11-22T12:00:00.000Z', because: 'closed' },
        urls: [
          {
            purpose: 'include',
            usedAt: '2026-11-22T11:00:00.000Z',
            works: false,
            effect: 'answers 410; each fetch is an alarm',
            stub: {
              url: 'http://192.0.2.10:8080/i/X1ELG-Cpo_QAAAAA0zO4kFq0XyVvPq9b2fQpVnkT/user-data',
              text: '#include-once\nhttp://192.0.2.10:8080/i/X1ELG-Cpo_QAAAAA0zO4kFq0XyVvPq9b2fQpVnkT/user-data\n',
            },
          },
        ],
      },
    ],
  },
);

/** What the routes' answers refer to by name. */
export const windowSchemas = [WindowChangeView];

/** Of what takes its seed from a machine that boots from it. */
export const ForceSeed = Type.Optional(
  Type.Boolean({ description: 'Although the seed URL was fetched, so that a machine boots from it; needs an admin' }),
);

const Params = Type.Object({ instance: PathName('instance') });

/** When an instance's document is given out, and by which URLs. */
export const windowRoutes: FastifyPluginAsyncTypebox<{ windows: WindowService; instances: InstanceService }> = async (
  app,
  { windows, instances },
) => {
  const preParsing = beforeBody((request) => instances.etag((request.params as Static<typeof Params>).instance));
  const route = (operationId: string, summary: string, description: string) => ({
    operationId,
    summary,
    description,
    tags: ['instances'],
    params: Params,
    headers: ConditionHeaders,
  });
  const response = { 200: Type.Ref('WindowChange#'), ...problems(400, 403, 404, 409, 412) };
  const options = (request: FastifyRequest, { dryRun = false }: { dryRun?: boolean }) => ({
    preconditions: preconditionsOf(request),
    dryRun,
    by: request.actor,
  });

  app.post(
    '/instances/:instance/close',
    {
      preParsing,
      config: { role: 'editor' },
      schema: {
        ...route('closeWindow', 'Shut an instance’s window', 'Its document is given out no more, whatever the policy says.'),
        querystring: Type.Object({ dryRun: DryRun }, { additionalProperties: false }),
        response,
      },
    },
    async (request, reply) => send(reply, await windows.close(request.params.instance, options(request, request.query))),
  );

  app.post(
    '/instances/:instance/reopen',
    {
      preParsing,
      config: { role: 'editor' },
      schema: {
        ...route(
          'reopenWindow',
          'Open an instance’s window again',
          'Window and count begin anew, with the same URLs: for a rebuild.',
        ),
        querystring: Type.Object(
          {
            for: Type.Optional(
              Type.String({ description: 'How long (`1h`), whatever the policy says; without it the policy decides' }),
            ),
            dryRun: DryRun,
          },
          { additionalProperties: false },
        ),
        response,
      },
    },
    async (request, reply) => {
      const { for: text } = request.query;
      const length = text === undefined ? null : parseDuration(text);
      if (text !== undefined && length === null) throw malformed('bad_duration', 'for is a duration: 90s, 10m, 1h or 7d');
      return send(reply, await windows.reopen(request.params.instance, { ...options(request, request.query), length }));
    },
  );

  app.post(
    '/instances/:instance/rotate',
    {
      preParsing,
      config: { role: 'editor' },
      schema: {
        ...route(
          'rotateCapabilities',
          'Make new URLs for an instance',
          'The old ones answer 404 from now on. Without a purpose all of them are made anew.',
        ),
        querystring: Type.Object(
          {
            purpose: Type.Optional(Type.Array(Purpose, { maxItems: 3, description: 'Only this one; several: all of these' })),
            force: ForceSeed,
            dryRun: DryRun,
          },
          { additionalProperties: false },
        ),
        response,
      },
    },
    async (request, reply) => {
      const { purpose: purposes = [], force = false } = request.query;
      return send(
        reply,
        await windows.rotate(request.params.instance, { ...options(request, request.query), purposes, force }),
      );
    },
  );
};

function send(reply: FastifyReply, { instance, policy, window, changed, urls }: WindowReport): FastifyReply {
  return sendEtag(reply, instanceEtag(instance)).send({
    name: instance.name,
    changed,
    policy: viewPolicy(policy),
    window: viewWindow(window),
    urls: urls.map((url) => ({ ...url, usedAt: nullableTime(url.usedAt) })),
  });
}

import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { instanceEtag } from '../../domain/instance.ts';
import type { InstanceService } from '../../service/instances.ts';
import type { ReplayService } from '../../service/replay.ts';
import { ConditionHeaders, Findings, file, Name, Nothing, PathName, problems, WriteQuery } from '../schemas.ts';
import { beforeBody, isFresh, preconditionsOf, sendEtag } from './conditions.ts';
import { viewDelivery } from './deliveries.ts';
import { sendText } from './text.ts';

const Params = Type.Object({
  instance: PathName('instance'),
  delivery: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description: 'Its id, as …/deliveries lists it' }),
});
const References = Type.Array(Type.String(), { examples: [['atomic@1', 'db@3']] });
const PinView = Type.Object(
  {
    instance: Name('instance'),
    delivery: Type.Integer(),
    before: Type.Array(Type.String(), {
      description: 'The instance’s references until now',
      examples: [['atomic', 'db@stable']],
    }),
    after: References,
    changed: Type.Boolean({ description: 'false: it was so already' }),
    findings: Findings,
  },
  { $id: 'Pin' },
);

/** What the routes' answers refer to by name. */
export const replaySchemas = [PinView];

/** A delivery by itself: what it was, its bytes once more, and back to it. */
export const replayRoutes: FastifyPluginAsyncTypebox<{ replay: ReplayService; instances: InstanceService }> = async (
  app,
  { replay, instances },
) => {
  const tags = ['ledger'];

  app.get(
    '/instances/:instance/deliveries/:delivery',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'getDelivery',
        summary: 'One delivery, of a deleted instance too',
        tags,
        params: Params,
        response: { 200: Type.Ref('Delivery#'), ...problems(400, 404) },
      },
    },
    async (request, reply) => {
      const { instance, delivery } = request.params;
      return reply.send(viewDelivery(await replay.find(instance, delivery), request.actor));
    },
  );

  app.get(
    '/instances/:instance/deliveries/:delivery/user-data',
    {
      config: { role: 'editor' },
      schema: {
        operationId: 'replayDelivery',
        summary: 'The exact bytes of a delivery, rendered anew and held against its digest; not a delivery',
        description:
          'From what the row says it was rendered from: revisions, the instance’s version, secrets as they were. When the bytes cannot be made again, 409 `not_replayable` says why.',
        tags,
        params: Params,
        querystring: Type.Object(
          { reveal: Type.Optional(Type.Boolean({ description: 'Needed when secrets are in it; goes into the audit' })) },
          { additionalProperties: false },
        ),
        response: { 200: file('The document', 'text/plain'), 304: Nothing('Not modified'), ...problems(400, 403, 404, 409) },
      },
    },
    async (request, reply) => {
      const { instance, delivery } = request.params;
      const options = { reveal: request.query.reveal ?? false, by: request.actor };
      const { document, revealed } = await replay.userData(instance, delivery, options);
      if (revealed)
        request.log.warn(
          { actor: request.actor.name, instance, delivery },
          'a delivered document with its secrets was revealed',
        );
      sendEtag(reply, document.digest);
      if (isFresh(request, document.digest)) return reply.code(304).send(null);
      return sendText(reply, document.bytes);
    },
  );

  app.post(
    '/instances/:instance/deliveries/:delivery/pin',
    {
      config: { role: 'editor' },
      preParsing: beforeBody((request) => instances.etag((request.params as { instance: string }).instance)),
      schema: {
        operationId: 'pinDelivery',
        summary: 'Set an instance’s references to the revisions of one of its deliveries',
        description:
          'All of its references, in that order: bundles that were added since are dropped, others come back. Vars, secrets and the rest stay as they are now.',
        tags,
        params: Params,
        querystring: WriteQuery,
        headers: ConditionHeaders,
        response: { 200: Type.Ref('Pin#'), ...problems(400, 404, 409, 412, 422) },
      },
    },
    async (request, reply) => {
      const { instance, delivery } = request.params;
      const options = { ...request.query, preconditions: preconditionsOf(request), by: request.actor };
      const { report, before, after } = await replay.pin(instance, delivery, options);
      const { changed, findings } = report;
      sendEtag(reply, instanceEtag(report.instance));
      return reply.send({ instance, delivery, before: [...before], after: [...after], changed, findings });
    },
  );
};

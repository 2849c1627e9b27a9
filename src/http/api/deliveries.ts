import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { type Actor, roleSuffices } from '../../domain/actor.ts';
import type { Delivery } from '../../domain/delivery.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { DeliveryService } from '../../service/deliveries.ts';
import { Format, Limit, Name, Nullable, orText, PathName, problems, Sha256, Time } from '../schemas.ts';
import { isoTime, sendColumns } from './text.ts';

const DeliveryView = Type.Object(
  {
    id: Type.Integer(),
    instance: Name('instance'),
    at: Time,
    purpose: Type.Union([Type.Literal('include'), Type.Literal('seed')], { description: 'Which URL was fetched' }),
    digest: Type.Union([Sha256, Type.Null()], {
      description: 'Null when nothing was rendered; for a viewer also when secrets are in it',
    }),
    bytes: Type.Integer({ description: 'Before compression' }),
    address: Type.String(),
    userAgent: Type.String(),
    revisions: Type.Array(Type.String(), { examples: [['atomic@1', 'db@3']] }),
    instanceVersion: Nullable(
      Type.Integer({ description: 'The version of the instance it was rendered for; null: from before that was noted' }),
    ),
    counted: Type.Boolean({ description: 'false: a repeat of cloud-init’s within two minutes of a counted one' }),
    outcome: Type.Union([Type.Literal('delivered'), Type.Literal('aborted'), Type.Literal('failed'), Type.Literal('refused')], {
      description: 'aborted: the client went away first (best effort); failed: nothing could be rendered',
    }),
    refusal: Nullable(
      Type.Union(
        (['closed', 'expired', 'delivered', 'succeeded', 'address'] as const).map((why) => Type.Literal(why)),
        { description: 'Why the document was refused; delivered all the same: the policy’s afterClose bundles' },
      ),
    ),
    holdsSecrets: Type.Boolean({ description: 'Whether secrets were in it' }),
  },
  { $id: 'Delivery' },
);

/** What the routes' answers refer to by name. */
export const deliverySchemas = [DeliveryView];

/** The ledger. */
export const deliveryRoutes: FastifyPluginAsyncTypebox<{ deliveries: DeliveryService }> = async (app, { deliveries }) => {
  app.get(
    '/instances/:instance/deliveries',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'listDeliveries',
        summary: 'What an instance fetched, newest first',
        tags: ['ledger'],
        params: Type.Object({ instance: PathName('instance') }),
        querystring: Type.Object(
          {
            limit: Limit,
            after: Type.Optional(
              Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'The `next` of the page before' }),
            ),
            format: Format,
          },
          { additionalProperties: false },
        ),
        response: {
          200: orText(Type.Object({ items: Type.Array(Type.Ref('Delivery#')), next: Nullable(Type.Integer()) })),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const { limit = LIMITS.pageDefault, after = null, format } = request.query;
      const found = await deliveries.list(request.params.instance, { after, limit });
      const items = found.map((delivery) => viewDelivery(delivery, request.actor));
      if (format === 'text')
        return sendColumns(
          reply,
          ['ID', 'AT', 'OUTCOME', 'COUNTED', 'BYTES', 'ADDRESS', 'CLIENT', 'REVISIONS', 'DIGEST'],
          items.map((item) => [
            item.id,
            item.at,
            item.outcome,
            item.counted,
            item.bytes,
            item.address,
            item.userAgent,
            item.revisions,
            item.digest?.slice(0, 12),
          ]),
        );
      return reply.send({ items, next: items.length === limit ? (items.at(-1)?.id ?? null) : null });
    },
  );
};

/** From the digest of a document that holds secrets they could be guessed at: a viewer is not told it, nor where that is not known (older rows). */
export function viewDelivery({ inputs, ...delivery }: Delivery, { role }: Pick<Actor, 'role'>) {
  const masked = (delivery.holdsSecrets || inputs === null) && !roleSuffices(role, 'editor');
  return { ...delivery, at: isoTime(delivery.at), digest: masked ? null : delivery.digest };
}

import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { ROLES } from '../../domain/actor.ts';
import type { AuditEntry, AuditFilter } from '../../domain/audit.ts';
import { invalid } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import { parseTime } from '../../domain/policy.ts';
import type { Page } from '../../domain/store.ts';
import { Format, FreeObject, Limit, Nullable, orText, problems, Time } from '../schemas.ts';
import { isoTime, sendColumns } from './text.ts';

const Kind = Type.Union([Type.Literal('bundle'), Type.Literal('instance'), Type.Literal('token'), Type.Literal('service')]);
const EntryView = Type.Object(
  {
    id: Type.Integer(),
    at: Time,
    actor: Type.String({ description: 'The name of the token; admin: the admin token, bootbundle: the service itself' }),
    role: Type.Union(ROLES.map((role) => Type.Literal(role))),
    address: Type.String({ description: 'Empty: a command on the host' }),
    requestId: Type.String({ description: 'Stands in the log, too' }),
    action: Type.String({ examples: ['put', 'delete', 'reveal'] }),
    kind: Kind,
    name: Type.String(),
    before: Nullable(
      Type.String({ description: 'A digest, an entity tag or a revision, never a value; null: nothing was there' }),
    ),
    after: Nullable(Type.String()),
    detail: FreeObject('What else there is to say: names of parts and secrets, force, accept'),
  },
  { $id: 'AuditEntry', description: 'One line of the audit' },
);

/** What the routes' answers refer to by name. */
export const auditSchemas = [EntryView];

/** Lines of the audit, newest first. */
export type Audit = (filter: AuditFilter, page: Page<number>) => Promise<AuditEntry[]>;

/** Who changed, revealed or forced what. Append-only: there is no call that changes or removes a line. */
export const auditRoutes: FastifyPluginAsyncTypebox<{ audit: Audit }> = async (app, { audit }) => {
  app.get(
    '/audit',
    {
      config: { role: 'admin' },
      schema: {
        operationId: 'listAudit',
        summary: 'Who changed, revealed or forced what, newest first',
        description: 'To a token with a scope only what was done to bundles and instances in it.',
        tags: ['audit'],
        querystring: Type.Object(
          {
            kind: Type.Optional(Kind),
            name: Type.Optional(Type.String({ description: 'Of the bundle, the instance or the token' })),
            actor: Type.Optional(Type.String({ description: 'The name of the token it was done with' })),
            action: Type.Optional(Type.String()),
            since: Type.Optional(Type.String({ description: 'From then on: RFC 3339' })),
            limit: Limit,
            after: Type.Optional(
              Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER, description: 'The `next` of the page before' }),
            ),
            format: Format,
          },
          { additionalProperties: false },
        ),
        response: {
          200: orText(Type.Object({ items: Type.Array(Type.Ref('AuditEntry#')), next: Nullable(Type.Integer()) })),
          ...problems(400, 422),
        },
      },
    },
    async (request, reply) => {
      const { limit = LIMITS.pageDefault, after = null, since, format, ...rest } = request.query;
      const filter = { ...rest, since: since === undefined ? undefined : timeOf(since), scope: request.actor.scope };
      const entries = await audit(filter, { after, limit });
      if (format === 'text')
        return sendColumns(
          reply,
          ['ID', 'AT', 'ACTOR', 'ADDRESS', 'ACTION', 'KIND', 'NAME', 'BEFORE', 'AFTER', 'DETAIL'],
          entries.map((entry) => [
            ...[entry.id, isoTime(entry.at), entry.actor, entry.address, entry.action, entry.kind, entry.name],
            ...[entry.before?.slice(0, SHOWN), entry.after?.slice(0, SHOWN), detailText(entry.detail)],
          ]),
        );
      const items = entries.map((entry) => ({ ...entry, at: isoTime(entry.at) }));
      return reply.send({ items, next: items.length === limit ? (items.at(-1)?.id ?? null) : null });
    },
  );
};

/** So much of a digest is shown in a column; an entity tag of an instance fits. */
const SHOWN = 24;

function detailText(detail: AuditEntry['detail']): string[] {
  return Object.entries(detail).map(([key, value]) => `${key}=${Array.isArray(value) ? value.join('+') : value}`);
}

/** @throws invalid `bad_time` */
function timeOf(text: string): number {
  const at = parseTime(text);
  if (at === null) throw invalid('bad_time', 'since is a time as RFC 3339 writes it: 2026-12-31T23:59:59Z');
  return at;
}

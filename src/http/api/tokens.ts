import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply } from 'fastify';
import type { NamePatterns, TokenScope } from '../../domain/actor.ts';
import { parseDuration } from '../../domain/duration.ts';
import { invalid, malformed } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import { parseTime } from '../../domain/policy.ts';
import type { Token, TokenCursor } from '../../domain/token.ts';
import type { FreshToken, TokenService, TokenWish } from '../../service/tokens.ts';
import { DOCUMENT_TYPES, readDocument } from '../document.ts';
import { Format, Limit, Name, Nothing, Nullable, orText, PathName, problems, Time } from '../schemas.ts';
import { beforeBody } from './conditions.ts';
import { nullableTime } from './instance-views.ts';
import { isoTime, sendColumns } from './text.ts';
import { refuseBody } from './uploads.ts';

const RoleName = Type.Union([Type.Literal('viewer'), Type.Literal('editor'), Type.Literal('admin')], {
  description:
    'viewer: reads, but no secret and no URL of a machine’s; editor: writes; admin: force, reveal, tokens, audit, purge',
});
const Patterns = (what: string) =>
  Nullable(
    Type.Array(Type.String(), {
      description: `Only ${what} whose names fit one of these; * stands for anything`,
      examples: [['web-*']],
    }),
  );

const bearerFields = {
  id: Nullable(Type.String({ description: 'Public; null: the admin token of the configuration', examples: ['k3v9x0aa'] })),
  name: Name('token'),
  role: RoleName,
  bundles: Patterns('bundles'),
  instances: Patterns('instances'),
  expiresAt: Nullable(Time),
};
const Bearer = Type.Object(bearerFields);
const tokenFields = {
  ...bearerFields,
  id: Type.String({ description: 'Public', examples: ['k3v9x0aa'] }),
  createdAt: Time,
  createdBy: Type.String({ description: 'The name of the token it was made with' }),
  revokedAt: Nullable(Time),
  lastUsedAt: Nullable(Type.String({ format: 'date-time', description: 'To the minute' })),
};
const TokenView = Type.Object(tokenFields, { $id: 'Token', description: 'An API token, without its secret' });
const FreshTokenView = Type.Object(
  {
    ...tokenFields,
    token: Type.String({
      description: 'For Authorization: Bearer, or as a password. Told this once',
      examples: ['bb_k3v9x0aa_…'],
    }),
  },
  { $id: 'FreshToken' },
);

/** What the routes' answers refer to by name. */
export const tokenSchemas = [TokenView, FreshTokenView];

const TokenBody = Type.Object(
  {
    name: Type.String({ description: 'What the audit knows its bearer by' }),
    role: RoleName,
    bundles: Type.Optional(bearerFields.bundles),
    instances: Type.Optional(bearerFields.instances),
    expiresAt: Type.Optional(Nullable(Time)),
    expiresIn: Type.Optional(
      Type.String({ description: 'Instead of expiresAt: a whole number of s, m, h or d', examples: ['90d'] }),
    ),
  },
  {
    additionalProperties: false,
    examples: [{ name: 'web-ci', role: 'editor', bundles: ['web-*'], instances: ['web-*'], expiresIn: '90d' }],
  },
);

const Params = Type.Object({ token: PathName('token') });
const DEFAULT_OVERLAP = '1h';

/** API tokens: who may call, what, and until when. */
export const tokenRoutes: FastifyPluginAsyncTypebox<{ tokens: TokenService }> = async (app, { tokens }) => {
  const tags = ['tokens'];

  app.post(
    '/tokens',
    {
      config: { role: 'admin' },
      preParsing: beforeBody(),
      preValidation: readDocument,
      schema: {
        operationId: 'createToken',
        summary: 'Make a token; its text is in this answer and nowhere else',
        description: 'Without bundles or instances it is for all of them. It can be no more than the token it is made with.',
        tags,
        body: TokenBody,
        consumes: DOCUMENT_TYPES,
        response: { 201: Type.Ref('FreshToken#'), ...problems(400, 409, 413, 415, 422) },
      },
    },
    async (request, reply) => {
      const { name, role, bundles = null, instances = null, ...expiry } = request.body;
      const wish = { name, role, scope: { bundles, instances }, expiry: expiryOf(expiry) };
      return sendFresh(reply, await tokens.create(wish, request.actor));
    },
  );

  app.get(
    '/tokens',
    {
      config: { role: 'admin' },
      schema: {
        operationId: 'listTokens',
        summary: 'List tokens by name, revoked and expired ones too',
        tags,
        querystring: Type.Object(
          {
            limit: Limit,
            after: Type.Optional(Type.String({ description: 'The `next` of the page before' })),
            format: Format,
          },
          { additionalProperties: false },
        ),
        response: {
          200: orText(Type.Object({ items: Type.Array(Type.Ref('Token#')), next: Nullable(Type.String()) })),
          ...problems(400),
        },
      },
    },
    async (request, reply) => {
      const { limit = LIMITS.pageDefault, after, format } = request.query;
      const found = await tokens.list({ after: after === undefined ? null : parseCursor(after), limit }, request.actor);
      if (format === 'text')
        return sendColumns(
          reply,
          ['ID', 'NAME', 'ROLE', 'BUNDLES', 'INSTANCES', 'LAST-USED', 'EXPIRES', 'REVOKED'],
          found
            .map(viewToken)
            .map((token) => [
              ...[token.id, token.name, token.role, patternsText(token.bundles), patternsText(token.instances)],
              ...[token.lastUsedAt, token.expiresAt, token.revokedAt],
            ]),
        );
      const last = found.length === limit ? found.at(-1) : undefined;
      return reply.send({ items: found.map(viewToken), next: last ? formatCursor(last) : null });
    },
  );

  app.get(
    '/tokens/self',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'getOwnToken',
        summary: 'Who am I, and what is this token for?',
        tags,
        response: { 200: Bearer, ...problems(400) },
      },
    },
    async (request, reply) => {
      const { tokenId, name, role, scope } = request.actor;
      const token = await tokens.self(request.actor);
      return reply.send({ id: tokenId, name, role, ...viewScope(scope), expiresAt: nullableTime(token?.expiresAt ?? null) });
    },
  );

  app.get(
    '/tokens/:token',
    {
      config: { role: 'admin' },
      schema: {
        operationId: 'getToken',
        summary: 'One token, by its id',
        tags,
        params: Params,
        response: { 200: Type.Ref('Token#'), ...problems(400, 404) },
      },
    },
    async (request, reply) => reply.send(viewToken(await tokens.get(request.params.token, request.actor))),
  );

  app.delete(
    '/tokens/:token',
    {
      config: { role: 'admin' },
      preParsing: beforeBody(),
      schema: {
        operationId: 'revokeToken',
        summary: 'Revoke a token: it opens nothing from now on, and stays listed',
        tags,
        params: Params,
        response: { 204: Nothing('Revoked'), ...problems(400, 404) },
      },
    },
    async (request, reply) => {
      await tokens.revoke(request.params.token, request.actor);
      return reply.code(204).send(null);
    },
  );

  app.post(
    '/tokens/:token/rotate',
    {
      config: { role: 'admin' },
      preParsing: beforeBody(),
      preValidation: refuseBody,
      schema: {
        operationId: 'rotateToken',
        summary: 'Make a token with the same name, role and scope; the old one expires after the overlap',
        description: 'The new one is given as long a life as the old one was.',
        tags,
        params: Params,
        querystring: Type.Object(
          {
            overlap: Type.Optional(
              Type.String({
                description: `How long the old one goes on (${DEFAULT_OVERLAP}); 0s: not at all`,
                examples: ['1h'],
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 201: Type.Ref('FreshToken#'), ...problems(400, 404, 409, 413, 415, 422) },
      },
    },
    async (request, reply) => {
      const { overlap = DEFAULT_OVERLAP } = request.query;
      const milliseconds = overlap === '0s' ? 0 : durationOf('overlap', overlap);
      return sendFresh(reply, await tokens.rotate(request.params.token, milliseconds, request.actor));
    },
  );
};

function expiryOf({ expiresAt, expiresIn }: Pick<Static<typeof TokenBody>, 'expiresAt' | 'expiresIn'>): TokenWish['expiry'] {
  if (expiresIn !== undefined && (expiresAt ?? null) !== null)
    throw malformed('bad_field', 'say expiresAt or expiresIn, not both');
  if (expiresIn !== undefined) return { in: durationOf('expiresIn', expiresIn) };
  if ((expiresAt ?? null) === null) return null;
  const at = parseTime(expiresAt ?? '');
  if (at === null) throw invalid('bad_expiry', 'expiresAt is a time as RFC 3339 writes it: 2026-12-31T23:59:59Z');
  return { at };
}

/** @throws invalid `bad_duration` */
function durationOf(what: string, text: string): number {
  const milliseconds = parseDuration(text);
  if (milliseconds === null) throw invalid('bad_duration', `${what} is a whole number of s, m, h or d, such as 90d`);
  return milliseconds;
}

function viewToken({ scope, ...token }: Token): Static<typeof TokenView> {
  return {
    ...{ id: token.id, name: token.name, role: token.role, ...viewScope(scope), expiresAt: nullableTime(token.expiresAt) },
    ...{ createdAt: isoTime(token.createdAt), createdBy: token.createdBy },
    ...{ revokedAt: nullableTime(token.revokedAt), lastUsedAt: nullableTime(token.lastUsedAt) },
  };
}

function viewScope({ bundles, instances }: TokenScope) {
  return { bundles: bundles && [...bundles], instances: instances && [...instances] };
}

function sendFresh(reply: FastifyReply, { token, text }: FreshToken): FastifyReply {
  reply.code(201).header('location', `/api/v1/tokens/${token.id}`);
  return reply.send({ ...viewToken(token), token: text });
}

function patternsText(patterns: NamePatterns): string {
  if (patterns === null) return '*';
  return patterns.length === 0 ? 'none' : patterns.join(',');
}

/** Neither a name nor an id holds a colon. */
function formatCursor({ name, id }: TokenCursor): string {
  return `${name}:${id}`;
}

function parseCursor(text: string): TokenCursor {
  const [name = '', id = ''] = text.split(':');
  return { name, id };
}

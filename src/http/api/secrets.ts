import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { LIMITS } from '../../domain/limits.ts';
import { SECRET_NAME_PATTERN, type SecretInfo, type SecretOwner } from '../../domain/secret.ts';
import type { SecretService, SecretWritten } from '../../service/secrets.ts';
import { ConsentQuery, Findings, Format, orText, PathName, problems, Time, WriteQuery } from '../schemas.ts';
import { BINARY } from './bundle-body.ts';
import { beforeBody } from './conditions.ts';
import { consentOf, type PublicationQuery } from './consent.ts';
import { isoTime, sendColumns } from './text.ts';
import { fileOf, refuseBody, refuseNameless } from './uploads.ts';

const infoFields = {
  name: Type.String({ pattern: SECRET_NAME_PATTERN }),
  bytes: Type.Integer({ description: 'Length of the value as it was sent' }),
  endsWithNewline: Type.Boolean({ description: '`echo` and most editors add a line break; `curl -d @FILE` loses them' }),
  updatedAt: Time,
};
const SecretView = Type.Object(infoFields, {
  $id: 'Secret',
  description: 'What is told of a secret; its value goes into documents and nowhere else',
});
const SecretWrittenView = Type.Object(
  { ...infoFields, changed: Type.Boolean({ description: 'false: it had this value already' }), findings: Findings },
  { $id: 'SecretWritten' },
);
const SecretRemoved = Type.Object({ name: Type.String(), findings: Findings });

/** What the routes' answers refer to by name. */
export const secretSchemas = [SecretView, SecretWrittenView];

const VALUE_BODY = { required: true, content: { 'application/octet-stream': { schema: BINARY } } };
const GenerateBytes = Type.Optional(
  Type.Integer({ minimum: 16, maximum: 1024, description: 'Random bytes (32); the value is their base64url text' }),
);

/** Secrets of a bundle, for every machine that refers to it, and of an instance, which go over the bundle's. Write-only. */
export const secretRoutes: FastifyPluginAsyncTypebox<{ secrets: SecretService }> = async (app, { secrets }) => {
  for (const kind of ['bundle', 'instance'] as const) {
    const Kind = kind === 'bundle' ? 'Bundle' : 'Instance';
    const tags = [`${kind}s`];
    const collection = `/${kind}s/:${kind}/secrets`;
    const Owner = Type.Object({ [kind]: PathName(kind) });
    const Params = Type.Object({ ...Owner.properties, key: PathName('secret') });
    // What one machine's own secret breaks is refused as any registration is: there is nobody else to answer for.
    const query = kind === 'bundle' ? ConsentQuery : WriteQuery;
    const refusals = kind === 'bundle' ? [400, 404, 409] : [400, 404];

    refuseNameless(app, collection);
    for (const url of [collection, `${collection}/`])
      app.get(
        url,
        {
          config: { role: 'viewer' },
          schema: {
            operationId: url.endsWith('/') ? `list${Kind}SecretsSlash` : `list${Kind}Secrets`,
            hide: url.endsWith('/'),
            summary: `Names, sizes and dates of ${kind === 'bundle' ? "a bundle's" : "an instance's own"} secrets`,
            tags,
            params: Owner,
            querystring: Type.Object({ format: Format }, { additionalProperties: false }),
            response: {
              200: orText(Type.Object({ items: Type.Array(Type.Ref('Secret#')), next: Type.Null() })),
              ...problems(400, 404),
            },
          },
        },
        async (request, reply) => {
          const found = await secrets.list(ownerOf(kind, request));
          if (request.query.format === 'text')
            return sendColumns(
              reply,
              ['NAME', 'BYTES', 'NEWLINE', 'UPDATED'],
              found.map((each) => [each.name, each.bytes, each.endsWithNewline ? 'yes' : '', isoTime(each.updatedAt)]),
            );
          return reply.send({ items: found.map(viewSecret), next: null });
        },
      );

    app.put(
      `${collection}/:key`,
      {
        bodyLimit: LIMITS.secretBytes,
        config: { role: 'editor', requestBody: VALUE_BODY },
        preParsing: beforeBody(),
        schema: {
          operationId: `put${Kind}Secret`,
          summary: 'Set a secret: the body is the value as it is',
          description: 'Bytes are kept as sent, a final line break too: the answer says whether there is one.',
          tags,
          params: Params,
          querystring: query,
          response: {
            200: Type.Ref('SecretWritten#'),
            201: Type.Ref('SecretWritten#'),
            ...problems(...refusals, 413, 415, 422),
          },
        },
      },
      async (request, reply) => {
        const { owner, name, said } = call(kind, request);
        return answer(reply, kind, said, await secrets.put(owner, name, fileOf(request), optionsOf(request, said)));
      },
    );

    app.post(
      `${collection}/:key/generate`,
      {
        config: { role: 'editor' },
        preParsing: beforeBody(),
        preValidation: refuseBody,
        schema: {
          operationId: `generate${Kind}Secret`,
          summary: 'Set a secret to a random value that nobody has seen',
          tags,
          params: Params,
          querystring: Type.Object({ bytes: GenerateBytes, ...query.properties }, { additionalProperties: false }),
          response: {
            200: Type.Ref('SecretWritten#'),
            201: Type.Ref('SecretWritten#'),
            ...problems(...refusals, 413, 415, 422),
          },
        },
      },
      async (request, reply) => {
        const { owner, name, said } = call(kind, request);
        const { bytes = 32 } = request.query;
        return answer(reply, kind, said, await secrets.generate(owner, name, bytes, optionsOf(request, said)));
      },
    );

    app.delete(
      `${collection}/:key`,
      {
        config: { role: 'editor' },
        preParsing: beforeBody(),
        schema: {
          operationId: `delete${Kind}Secret`,
          summary: 'Remove a secret that no document needs',
          tags,
          params: Params,
          querystring: query,
          response: { 200: SecretRemoved, ...problems(...refusals, 422) },
        },
      },
      async (request, reply) => {
        const { owner, name, said } = call(kind, request);
        const findings = await secrets.delete(owner, name, optionsOf(request, said));
        return reply.send({ name, findings });
      },
    );
  }
};

function ownerOf(kind: SecretOwner['kind'], request: FastifyRequest): SecretOwner {
  return { kind, name: (request.params as Record<typeof kind, string>)[kind] };
}

/** Whose secret a call is about, which one, and what else it says. */
function call(kind: SecretOwner['kind'], request: FastifyRequest) {
  const said: Static<typeof ConsentQuery> = request.query as object;
  return { owner: ownerOf(kind, request), name: (request.params as { key: string }).key, said };
}

function optionsOf(request: FastifyRequest, said: PublicationQuery) {
  return { dryRun: said.dryRun ?? false, ...consentOf(request, said) };
}

function answer(
  reply: FastifyReply,
  kind: SecretOwner['kind'],
  said: PublicationQuery,
  { secret, created, changed, findings }: SecretWritten,
): FastifyReply {
  // There is no reading it: where it is listed is where it is.
  if (created && !said.dryRun)
    reply.code(201).header('location', `/api/v1/${kind}s/${ownerOf(kind, reply.request).name}/secrets`);
  return reply.send({ ...viewSecret(secret), changed, findings });
}

export function viewSecret({ name, bytes, endsWithNewline, updatedAt }: SecretInfo) {
  return { name, bytes, endsWithNewline, updatedAt: isoTime(updatedAt) };
}

import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import { isBuiltIn } from '../../domain/bundle.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { BundleService } from '../../service/bundles.ts';
import { bodyOf } from '../document.ts';
import {
  ConditionHeaders,
  Format,
  Limit,
  Name,
  Nothing,
  Nullable,
  orText,
  PublishQuery,
  problems,
  Sha256,
  Time,
  WriteQuery,
} from '../schemas.ts';
import { packBundle, readBundleUpload, WHOLE_BUNDLE } from './bundle-body.ts';
import {
  BuiltIn,
  BundleParams,
  BundleWrittenView,
  PartView,
  revisionFields,
  sendBundle,
  sendParts,
  viewContent,
} from './bundle-views.ts';
import { beforeBody, isFresh, sendEtag } from './conditions.ts';
import { writeOptions } from './consent.ts';
import { isoTime, sendColumns } from './text.ts';

const BundleView = Type.Object(
  {
    name: Name('bundle'),
    ...revisionFields,
    tags: Type.Record(Type.String(), Type.Integer(), { description: 'Tag to revision' }),
    status: Type.Object({
      createdAt: Time,
      updatedAt: Time,
      author: Type.String(),
      builtIn: BuiltIn,
      followers: Type.Integer({ description: 'Instances whose document changes with the next revision' }),
      usedBy: Type.Array(Type.Object({ instance: Name('instance'), reference: Type.String({ examples: ['web@stable'] }) }), {
        description: 'Who refers to it (the first 100)',
      }),
    }),
  },
  { $id: 'Bundle' },
);

/** What the routes' answers refer to by name. */
export const bundleSchemas = [PartView, BundleView, BundleWrittenView];

/** Whole bundles. */
export const bundleRoutes: FastifyPluginAsyncTypebox<{ bundles: BundleService }> = async (app, { bundles }) => {
  const tags = ['bundles'];

  app.get(
    '/bundles',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'listBundles',
        summary: 'List bundles by name',
        tags,
        querystring: Type.Object(
          {
            limit: Limit,
            after: Type.Optional(Type.String({ description: 'The `next` of the page before' })),
            retired: Type.Optional(Type.Boolean({ description: 'Deleted ones instead' })),
            format: Format,
          },
          { additionalProperties: false },
        ),
        response: {
          200: orText(
            Type.Object({
              items: Type.Array(
                Type.Object({
                  name: Name('bundle'),
                  revision: Type.Integer(),
                  digest: Sha256,
                  parts: Type.Integer(),
                  builtIn: BuiltIn,
                  updatedAt: Time,
                  retiredAt: Nullable(Time),
                }),
              ),
              next: Nullable(Type.String()),
            }),
          ),
          ...problems(400),
        },
      },
    },
    async (request, reply) => {
      const { limit = LIMITS.pageDefault, after = null, retired = false, format } = request.query;
      const found = await bundles.list({ after, limit }, { retired, names: request.actor.scope.bundles });
      const items = found.map(({ author, ...item }) => ({
        ...item,
        builtIn: isBuiltIn({ author }),
        updatedAt: isoTime(item.updatedAt),
        retiredAt: item.retiredAt === null ? null : isoTime(item.retiredAt),
      }));
      if (format === 'text')
        return sendColumns(
          reply,
          ['NAME', 'REVISION', 'PARTS', 'BUILT-IN', 'UPDATED', 'DIGEST'],
          items.map((item) => [
            item.name,
            item.revision,
            item.parts,
            item.builtIn ? 'yes' : '',
            item.updatedAt,
            item.digest.slice(0, 12),
          ]),
        );
      return reply.send({ items, next: items.length === limit ? (items.at(-1)?.name ?? null) : null });
    },
  );

  app.get(
    '/bundles/:bundle',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'getBundle',
        summary: 'A bundle with who refers to it, or its files as a tar',
        tags,
        params: BundleParams,
        querystring: Type.Object(
          { format: Type.Optional(Type.Union([Type.Literal('json'), Type.Literal('text'), Type.Literal('tar')])) },
          { additionalProperties: false },
        ),
        response: {
          200: orText(Type.Ref('Bundle#'), 'application/x-tar'),
          304: Nothing('Not modified'),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const bundle = await bundles.get(request.params.bundle);
      const { latest } = bundle;
      sendEtag(reply, latest.digest);
      if (request.query.format === 'tar') {
        // Only the tar is the digest's and nothing else: tags and followers change without a revision.
        if (isFresh(request, latest.digest)) return reply.code(304).send(null);
        reply
          .type('application/x-tar')
          .header('content-disposition', `attachment; filename="${bundle.name}-${latest.number}.tar"`);
        return reply.send(await packBundle(latest, await bundles.bodies(latest)));
      }
      if (request.query.format === 'text') return sendParts(reply, latest.parts);
      const { uses } = await bundles.uses(bundle.name, request.actor);
      return reply.send({
        name: bundle.name,
        ...viewContent(latest),
        tags: bundle.tags,
        status: {
          createdAt: isoTime(bundle.createdAt),
          updatedAt: isoTime(latest.createdAt),
          author: latest.author,
          builtIn: isBuiltIn(latest),
          followers: uses.filter(({ reference }) => reference === bundle.name).length,
          usedBy: uses,
        },
      });
    },
  );

  for (const { method, operationId, summary, write } of [
    {
      method: 'PUT',
      operationId: 'putBundle',
      summary: 'State the whole bundle, options too, as one revision',
      write: bundles.put,
    },
    {
      method: 'POST',
      operationId: 'addParts',
      summary: 'Add or replace several parts as one revision',
      write: bundles.addParts,
    },
  ] as const)
    app.route({
      method,
      url: '/bundles/:bundle',
      bodyLimit: LIMITS.bundleBodyBytes,
      config: { role: 'editor', requestBody: { required: true, content: WHOLE_BUNDLE } },
      schema: {
        operationId,
        summary,
        tags,
        params: BundleParams,
        querystring: PublishQuery,
        headers: ConditionHeaders,
        response: {
          200: Type.Ref('BundleWritten#'),
          201: Type.Ref('BundleWritten#'),
          ...problems(400, 409, 412, 413, 415, 422),
        },
      },
      preParsing: beforeBody((request) => bundles.etag((request.params as Static<typeof BundleParams>).bundle)),
      handler: async (request, reply) => {
        const upload = await readBundleUpload(request.headers['content-type'], bodyOf(request));
        const written = await write(request.params.bundle, upload, writeOptions(request, request.query));
        return sendBundle(reply, written, request.query);
      },
    });

  app.delete(
    '/bundles/:bundle',
    {
      config: { role: 'editor' },
      schema: {
        operationId: 'deleteBundle',
        summary: 'Retire a bundle; its name and revisions stay known',
        tags,
        params: BundleParams,
        querystring: WriteQuery,
        headers: ConditionHeaders,
        response: { 204: Nothing('Gone'), ...problems(400, 404, 409, 412) },
      },
    },
    async (request, reply) => {
      await bundles.delete(request.params.bundle, writeOptions(request, request.query));
      return reply.code(204).send(null);
    },
  );
};

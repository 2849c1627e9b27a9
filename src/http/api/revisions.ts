import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { Revision } from '../../domain/bundle.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { BundleService } from '../../service/bundles.ts';
import { DOCUMENT_TYPES, readDocument } from '../document.ts';
import { Findings, Format, Limit, Name, Nothing, Nullable, orText, PathName, problems, Time } from '../schemas.ts';
import { BundleParams, revisionFields, viewContent } from './bundle-views.ts';
import { beforeBody } from './conditions.ts';
import { isoTime, sendColumns } from './text.ts';

const RevisionView = Type.Object(
  { bundle: Name('bundle'), ...revisionFields, createdAt: Time, author: Type.String() },
  { $id: 'Revision' },
);

/** What the routes' answers refer to by name. */
export const revisionSchemas = [RevisionView];

const TagBody = Type.Object(
  { revision: Type.Integer({ minimum: 1, maximum: 999_999_999 }) },
  { additionalProperties: false, examples: [{ revision: 3 }] },
);
const TagView = Type.Object({
  bundle: Name('bundle'),
  tag: Name('tag'),
  revision: Type.Integer(),
  changed: Type.Boolean(),
  findings: Findings,
});

/** A bundle's history, and the names that point into it. */
export const revisionRoutes: FastifyPluginAsyncTypebox<{ bundles: BundleService }> = async (app, { bundles }) => {
  const tags = ['bundles'];

  app.get(
    '/bundles/:bundle/revisions',
    {
      schema: {
        operationId: 'listRevisions',
        summary: 'List revisions, newest first',
        tags,
        params: BundleParams,
        querystring: Type.Object(
          {
            limit: Limit,
            after: Type.Optional(
              Type.Integer({ minimum: 0, maximum: 999_999_999, description: 'The `next` of the page before' }),
            ),
            format: Format,
          },
          { additionalProperties: false },
        ),
        response: {
          200: orText(Type.Object({ items: Type.Array(Type.Ref('Revision#')), next: Nullable(Type.Integer()) })),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const { limit = LIMITS.pageDefault, after = null, format } = request.query;
      const items = await bundles.listRevisions(request.params.bundle, { after, limit });
      if (format === 'text')
        return sendColumns(
          reply,
          ['REVISION', 'CREATED', 'AUTHOR', 'PARTS', 'DIGEST'],
          items.map((item) => [item.number, isoTime(item.createdAt), item.author, item.parts.length, item.digest.slice(0, 12)]),
        );
      return reply.send({
        items: items.map(viewRevision),
        next: items.length === limit ? (items.at(-1)?.number ?? null) : null,
      });
    },
  );

  app.get(
    '/bundles/:bundle/revisions/:revision',
    {
      schema: {
        operationId: 'getRevision',
        summary: 'One immutable revision',
        tags,
        params: Type.Object({ bundle: PathName('bundle'), revision: Type.Integer({ minimum: 1, maximum: 999_999_999 }) }),
        response: { 200: Type.Ref('Revision#'), ...problems(400, 404) },
      },
    },
    async (request, reply) =>
      reply.send(viewRevision(await bundles.getRevision(request.params.bundle, request.params.revision))),
  );

  app.get(
    '/bundles/:bundle/tags',
    {
      schema: {
        operationId: 'listTags',
        summary: 'Tags and the revisions they name',
        tags,
        params: BundleParams,
        response: {
          200: Type.Object({
            items: Type.Array(Type.Object({ tag: Name('tag'), revision: Type.Integer() })),
            next: Type.Null(),
          }),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const bundle = await bundles.get(request.params.bundle);
      return reply.send({ items: Object.entries(bundle.tags).map(([tag, revision]) => ({ tag, revision })), next: null });
    },
  );

  const TagParams = Type.Object({ bundle: PathName('bundle'), tag: PathName('tag') });
  app.put(
    '/bundles/:bundle/tags/:tag',
    {
      preParsing: beforeBody(),
      preValidation: readDocument,
      schema: {
        operationId: 'putTag',
        summary: 'Set or move a tag',
        tags,
        params: TagParams,
        body: TagBody,
        consumes: DOCUMENT_TYPES,
        response: { 200: TagView, 201: TagView, ...problems(400, 404, 409, 413, 415) },
      },
    },
    async (request, reply) => {
      const { bundle, tag } = request.params;
      const { revision } = request.body;
      const { created, changed, findings } = await bundles.putTag(bundle, tag, revision);
      if (created) reply.code(201).header('location', `/api/v1/bundles/${bundle}/tags`);
      return reply.send({ bundle, tag, revision, changed, findings });
    },
  );

  app.delete(
    '/bundles/:bundle/tags/:tag',
    {
      preParsing: beforeBody(),
      schema: {
        operationId: 'deleteTag',
        summary: 'Remove a tag nobody follows',
        tags,
        params: TagParams,
        response: { 204: Nothing('Gone'), ...problems(400, 404, 409) },
      },
    },
    async (request, reply) => {
      await bundles.deleteTag(request.params.bundle, request.params.tag);
      return reply.code(204).send(null);
    },
  );
};

function viewRevision(revision: Revision) {
  return { bundle: revision.bundle, ...viewContent(revision), createdAt: isoTime(revision.createdAt), author: revision.author };
}

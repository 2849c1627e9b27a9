import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { Bundle, Revision } from '../../domain/bundle.ts';
import { notFound } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import { checkName } from '../../domain/names.ts';
import type { BundleService } from '../../service/bundles.ts';
import { DOCUMENT_TYPES, readDocument } from '../document.ts';
import {
  ConditionHeaders,
  ConsentQuery,
  FileName,
  Findings,
  Format,
  file,
  Limit,
  Name,
  Nothing,
  Nullable,
  orText,
  PathName,
  PublishQuery,
  problems,
  Sha256,
  Time,
} from '../schemas.ts';
import { BundleParams, revisionFields, sendBundle, viewContent } from './bundle-views.ts';
import { beforeBody } from './conditions.ts';
import { consentOf, writeOptions } from './consent.ts';
import { isoTime, sendColumns, sendText } from './text.ts';
import { refuseBody } from './uploads.ts';

const RevisionView = Type.Object(
  {
    bundle: Name('bundle'),
    ...revisionFields,
    createdAt: Time,
    author: Type.String(),
    message: Nullable(Type.String({ description: 'What its author said of it' })),
    purgedAt: Nullable(Type.String({ format: 'date-time', description: 'When its content was dropped for good' })),
  },
  { $id: 'Revision' },
);

/** What the routes' answers refer to by name. */
export const revisionSchemas = [RevisionView];

const RevisionParams = Type.Object({
  bundle: PathName('bundle'),
  revision: Type.Integer({ minimum: 1, maximum: 999_999_999 }),
});
const PurgeView = Type.Object({
  bundle: Name('bundle'),
  revision: Type.Integer(),
  purgedAt: Time,
  kept: Type.Array(
    Type.Object({ filename: FileName, sha256: Sha256, revisions: Type.Array(Type.String({ examples: ['web@4'] })) }),
    { description: 'Bodies that are still there, since these revisions have them, too: purge those as well' },
  ),
});

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
      config: { role: 'viewer' },
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
          ['REVISION', 'CREATED', 'AUTHOR', 'PARTS', 'DIGEST', 'MESSAGE'],
          items.map((item) => [
            item.number,
            isoTime(item.createdAt),
            item.author,
            item.parts.length,
            item.digest.slice(0, 12),
            item.message,
          ]),
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
      config: { role: 'viewer' },
      schema: {
        operationId: 'getRevision',
        summary: 'One immutable revision',
        tags,
        params: RevisionParams,
        response: { 200: Type.Ref('Revision#'), ...problems(400, 404) },
      },
    },
    async (request, reply) =>
      reply.send(viewRevision(await bundles.getRevision(request.params.bundle, request.params.revision))),
  );

  app.get(
    '/bundles/:bundle/tags',
    {
      config: { role: 'viewer' },
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

  app.post(
    '/bundles/:bundle/revisions/:revision/restore',
    {
      config: { role: 'editor' },
      preParsing: beforeBody((request) => bundles.etag((request.params as Static<typeof RevisionParams>).bundle)),
      preValidation: refuseBody,
      schema: {
        operationId: 'restoreRevision',
        summary: 'State an earlier revision anew, as the newest',
        tags,
        params: RevisionParams,
        querystring: PublishQuery,
        headers: ConditionHeaders,
        response: { 200: Type.Ref('BundleWritten#'), ...problems(400, 404, 409, 412, 413, 415) },
      },
    },
    async (request, reply) => {
      const { bundle, revision } = request.params;
      const restored = await bundles.restore(bundle, revision, writeOptions(request, request.query));
      return sendBundle(reply, restored, request.query);
    },
  );

  app.delete(
    '/bundles/:bundle/revisions/:revision/content',
    {
      config: { role: 'admin' },
      preParsing: beforeBody(),
      schema: {
        operationId: 'purgeRevision',
        summary: "Drop an old revision's content for good; its number, digest and part names stay",
        description: 'For what should never have been uploaded. Bodies that other revisions have, too, are kept, and named.',
        tags,
        params: RevisionParams,
        response: { 200: PurgeView, ...problems(400, 404, 409) },
      },
    },
    async (request, reply) => {
      const { revision, kept } = await bundles.purge(request.params.bundle, request.params.revision, request.actor);
      if (revision.purgedAt === null) throw new Error('the revision just purged does not say when');
      return reply.send({ bundle: revision.bundle, revision: revision.number, purgedAt: isoTime(revision.purgedAt), kept });
    },
  );

  app.get(
    '/bundles/:bundle/diff',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'diffRevisions',
        summary: 'What changed between two revisions, as a unified diff, part by part',
        description: 'Empty when nothing did.',
        tags,
        params: BundleParams,
        querystring: Type.Object(
          {
            from: Type.Optional(
              Type.String({
                description: 'A revision or a tag: the one before `to`; 0: nothing at all',
                examples: ['3', 'stable'],
              }),
            ),
            to: Type.Optional(Type.String({ description: 'A revision or a tag: the newest' })),
          },
          { additionalProperties: false },
        ),
        response: { 200: file('A diff', 'text/plain'), ...problems(400, 404, 409) },
      },
    },
    async (request, reply) => {
      const bundle = await bundles.get(request.params.bundle);
      const to = request.query.to === undefined ? bundle.latest.number : revisionNumber(bundle, request.query.to);
      const from = request.query.from === undefined ? to - 1 : revisionNumber(bundle, request.query.from);
      return sendText(reply, await bundles.diff(bundle.name, from, to));
    },
  );

  const TagParams = Type.Object({ bundle: PathName('bundle'), tag: PathName('tag') });
  app.put(
    '/bundles/:bundle/tags/:tag',
    {
      config: { role: 'editor' },
      preParsing: beforeBody(),
      preValidation: readDocument,
      schema: {
        operationId: 'putTag',
        summary: 'Set or move a tag',
        tags,
        params: TagParams,
        querystring: ConsentQuery,
        body: TagBody,
        consumes: DOCUMENT_TYPES,
        response: { 200: TagView, 201: TagView, ...problems(400, 404, 409, 413, 415) },
      },
    },
    async (request, reply) => {
      const { bundle, tag } = request.params;
      const { revision } = request.body;
      const { dryRun = false } = request.query;
      const options = { dryRun, ...consentOf(request, request.query) };
      const { created, changed, findings } = await bundles.putTag(bundle, tag, revision, options);
      if (created && !dryRun) reply.code(201).header('location', `/api/v1/bundles/${bundle}/tags`);
      return reply.send({ bundle, tag, revision, changed, findings });
    },
  );

  app.delete(
    '/bundles/:bundle/tags/:tag',
    {
      config: { role: 'editor' },
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
      await bundles.deleteTag(request.params.bundle, request.params.tag, request.actor);
      return reply.code(204).send(null);
    },
  );
};

function viewRevision(revision: Revision) {
  const { bundle, createdAt, author, message, purgedAt } = revision;
  const circumstances = {
    createdAt: isoTime(createdAt),
    author,
    message,
    purgedAt: purgedAt === null ? null : isoTime(purgedAt),
  };
  return { bundle, ...viewContent(revision), ...circumstances };
}

/** The revision a query names by its number or a tag. @throws not_found `unknown_tag` */
function revisionNumber({ tags }: Bundle, text: string): number {
  if (/^[0-9]{1,9}$/.test(text)) return Number(text);
  const number = Object.hasOwn(tags, checkName('tag', text)) ? tags[text] : undefined;
  if (number === undefined) throw notFound('unknown_tag', 'the bundle has no such tag');
  return number;
}

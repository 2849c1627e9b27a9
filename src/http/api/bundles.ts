import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { isBuiltIn, type Part, type Revision } from '../../domain/bundle.ts';
import { malformed } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { PartUpload } from '../../domain/upload.ts';
import { isSaidType } from '../../inspect/types.ts';
import type { BundleService, BundleWritten, WriteOptions } from '../../service/bundles.ts';
import { BundleDocument, packBundle, readBundleUpload } from './bundle-body.ts';
import { beforeBody, isFresh, preconditionsOf, sendEtag } from './conditions.ts';
import { DOCUMENT_TYPES, readDocument } from './document.ts';
import {
  ConditionHeaders,
  DryRun,
  FileName,
  Findings,
  Format,
  FreeObject,
  file,
  Limit,
  Name,
  Nothing,
  Nullable,
  orText,
  PathName,
  problems,
  Sha256,
  Time,
} from './schemas.ts';
import { isoTime, sendColumns } from './text.ts';

const BuiltIn = Type.Boolean({
  description: 'The product’s own, which an upgrade may change; false once an operator changed it',
});

const PartView = Type.Object(
  {
    filename: FileName,
    type: Type.String({ description: 'Content type it is sent with', examples: ['text/x-kube-pod'] }),
    size: Type.Integer({ description: 'Bytes' }),
    sha256: Sha256,
    merge: Nullable(Type.String({ description: 'Merge-Type of a cloud-config' })),
    template: Type.Boolean(),
  },
  { $id: 'Part' },
);

const revisionFields = {
  revision: Type.Integer({ minimum: 1 }),
  digest: Sha256,
  order: Type.Union([Type.Literal('name'), Type.Literal('given')]),
  vars: FreeObject('Defaults for templates'),
  parts: Type.Array(Type.Ref('Part#')),
};

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

const BundleWrittenView = Type.Object(
  {
    name: Name('bundle'),
    ...revisionFields,
    tags: Type.Record(Type.String(), Type.Integer()),
    changed: Type.Boolean({ description: 'false: it was so already, no revision was made' }),
    findings: Findings,
  },
  { $id: 'BundleWritten' },
);

const PartWritten = Type.Object(
  {
    bundle: Name('bundle'),
    revision: Type.Integer({ minimum: 1, description: 'The newest revision of the bundle, which holds it' }),
    changed: Type.Boolean({ description: 'false: it was so already, no revision was made' }),
    filename: FileName,
    type: Type.String(),
    size: Type.Integer(),
    sha256: Sha256,
    merge: Nullable(Type.String()),
    template: Type.Boolean(),
    findings: Findings,
  },
  {
    $id: 'PartWritten',
    examples: [
      {
        bundle: 'db',
        revision: 1,
        changed: true,
        filename: 'dbserver.yaml',
        type: 'text/x-kube-pod',
        size: 312,
        sha256: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
        merge: null,
        template: false,
        findings: [],
      },
    ],
  },
);

const RevisionView = Type.Object(
  { bundle: Name('bundle'), ...revisionFields, createdAt: Time, author: Type.String() },
  { $id: 'Revision' },
);

/** What the routes' answers refer to by name. */
export const bundleSchemas = [PartView, BundleView, BundleWrittenView, PartWritten, RevisionView];

const TagBody = Type.Object(
  { revision: Type.Integer({ minimum: 1, maximum: 999_999_999 }) },
  { additionalProperties: false, examples: [{ revision: 3 }] },
);
const TagView = Type.Object({ bundle: Name('bundle'), tag: Name('tag'), revision: Type.Integer(), changed: Type.Boolean() });

const PartQuery = Type.Object(
  {
    type: Type.Optional(
      Type.String({
        description: 'Content type, when the file does not show it; `auto` forgets one that was said',
        examples: ['text/x-shellscript-per-boot'],
      }),
    ),
    merge: Type.Optional(
      Type.String({
        description: 'Merge rule of a cloud-config: `append`, `replace` or cloud-init’s own spelling; empty clears',
      }),
    ),
    template: Type.Optional(Type.Boolean({ description: 'Templates are not served yet: only false' })),
    dryRun: DryRun,
  },
  { additionalProperties: false },
);
const WriteQuery = Type.Object({ dryRun: DryRun }, { additionalProperties: false });

const BundleParams = Type.Object({ bundle: PathName('bundle') });
const PartParams = Type.Object({ bundle: PathName('bundle'), file: PathName('part file') });

/** What a whole bundle may be sent as; for the OpenAPI document, since the body arrives as bytes. */
const BINARY = { type: 'string', format: 'binary' };
const WHOLE_BUNDLE_BODY = {
  required: true,
  content: {
    'application/json': { schema: BundleDocument },
    'application/yaml': { schema: BundleDocument },
    'application/x-tar': {
      schema: { ...BINARY, description: 'Files, and options in bundle.yaml: git archive HEAD:bundles/web' },
    },
    'multipart/form-data': { schema: { type: 'object', additionalProperties: BINARY, description: 'One file field per part' } },
    'multipart/mixed': { schema: { ...BINARY, description: 'A MIME archive made by another tool; order: given' } },
  },
};
const FILE_BODY = { required: true, content: { 'application/octet-stream': { schema: BINARY } } };

/** Bundles, their parts, revisions and tags. */
export const bundleRoutes: FastifyPluginAsyncTypebox<{ bundles: BundleService }> = async (app, { bundles }) => {
  const tags = ['bundles'];

  app.get(
    '/bundles',
    {
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
      const found = await bundles.list({ after, limit }, { retired });
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
      if (isFresh(request, latest.digest)) return reply.code(304).send(null);
      if (request.query.format === 'tar') {
        reply
          .type('application/x-tar')
          .header('content-disposition', `attachment; filename="${bundle.name}-${latest.number}.tar"`);
        return reply.send(await packBundle(latest, await bundles.bodies(latest)));
      }
      if (request.query.format === 'text') return sendParts(reply, latest.parts);
      const { uses } = await bundles.uses(bundle.name);
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
      summary: 'State the whole bundle as one revision',
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
      config: { requestBody: WHOLE_BUNDLE_BODY },
      schema: {
        operationId,
        summary,
        tags,
        params: BundleParams,
        querystring: WriteQuery,
        headers: ConditionHeaders,
        response: {
          200: Type.Ref('BundleWritten#'),
          201: Type.Ref('BundleWritten#'),
          ...problems(400, 409, 412, 413, 415, 422),
        },
      },
      preParsing: beforeBody((request) => bundles.etag((request.params as Static<typeof BundleParams>).bundle)),
      handler: async (request, reply) => {
        const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
        const upload = await readBundleUpload(request.headers['content-type'], body);
        const written = await write(request.params.bundle, upload, writeOptions(request, request.query));
        return sendBundle(reply, written, request.query);
      },
    });

  app.delete(
    '/bundles/:bundle',
    {
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

  // curl -T FILE …/parts (no slash) and … | curl -T - …/parts/ put no name on the wire.
  for (const url of ['/bundles/:bundle/parts', '/bundles/:bundle/parts/']) {
    app.put(url, { schema: { hide: true }, preParsing: beforeBody() }, async () => {
      throw malformed(
        'filename_missing',
        'no file name came along: end the URL with / (curl -T FILE …/parts/), or name the part (curl -T - …/parts/FILE)',
      );
    });
    app.get(
      url,
      {
        schema: {
          operationId: url.endsWith('/') ? 'listPartsSlash' : 'listParts',
          hide: url.endsWith('/'),
          summary: 'List the parts of the newest revision, in order',
          tags,
          params: BundleParams,
          querystring: Type.Object({ format: Format }, { additionalProperties: false }),
          response: {
            200: orText(Type.Object({ items: Type.Array(Type.Ref('Part#')), next: Type.Null(), hint: Type.String() })),
            ...problems(400, 404),
          },
        },
      },
      async (request, reply) => {
        const { latest } = await bundles.get(request.params.bundle);
        sendEtag(reply, latest.digest);
        if (request.query.format === 'text') return sendParts(reply, latest.parts);
        // curl -T m/*.yaml U/p/ uploads the first file and GETs the rest: whoever reads this may have meant to upload.
        const hint = "to upload several files: curl -T '{a.sh,b.yaml}' …/parts/, or a tar to the bundle's own URL";
        return reply.send({ items: latest.parts.map(viewPart), next: null, hint });
      },
    );
  }

  app.put(
    '/bundles/:bundle/parts/:file',
    {
      bodyLimit: LIMITS.partBytes,
      config: { requestBody: FILE_BODY },
      schema: {
        operationId: 'putPart',
        summary: 'Add or replace one part: the body is the file as it is',
        description: 'Options that are not said stay as they are. The Content-Types that curl sends by itself mean "not said".',
        tags,
        params: PartParams,
        querystring: PartQuery,
        headers: Type.Object({
          ...ConditionHeaders.properties,
          'merge-type': Type.Optional(Type.String({ description: 'The same as ?merge=' })),
        }),
        response: { 200: Type.Ref('PartWritten#'), 201: Type.Ref('PartWritten#'), ...problems(400, 412, 413, 415, 422) },
      },
      preParsing: beforeBody((request) => {
        const { bundle, file } = request.params as Static<typeof PartParams>;
        return bundles.etag(bundle, file);
      }),
    },
    async (request, reply) => {
      const upload = partUpload(request.params.file, request.body, request.headers, request.query);
      const { bundle, part, changed, partCreated, findings } = await bundles.putPart(
        request.params.bundle,
        upload,
        writeOptions(request, request.query),
      );
      sendEtag(reply, part.sha256);
      if (partCreated && changed && !request.query.dryRun)
        reply.code(201).header('location', `/api/v1/bundles/${bundle.name}/parts/${part.filename}`);
      return reply.send({ bundle: bundle.name, revision: bundle.latest.number, changed, ...viewPart(part), findings });
    },
  );

  app.get(
    '/bundles/:bundle/parts/:file',
    {
      schema: {
        operationId: 'getPart',
        summary: "A part's bytes as they are",
        tags,
        params: PartParams,
        response: {
          200: file('The file, with its own Content-Type', '*/*'),
          304: Nothing('Not modified'),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const { part, body } = await bundles.getPart(request.params.bundle, request.params.file);
      sendEtag(reply, part.sha256);
      if (isFresh(request, part.sha256)) return reply.code(304).send(null);
      // Whatever an operator uploaded is a file to save, never a page to show.
      reply
        .type(part.type)
        .header('x-content-type-options', 'nosniff')
        .header('content-disposition', `attachment; filename="${part.filename}"`);
      return reply.send(Buffer.from(body));
    },
  );

  app.delete(
    '/bundles/:bundle/parts/:file',
    {
      schema: {
        operationId: 'deletePart',
        summary: 'Remove a part, as a new revision',
        tags,
        params: PartParams,
        querystring: WriteQuery,
        headers: ConditionHeaders,
        response: { 200: Type.Ref('BundleWritten#'), ...problems(400, 404, 412) },
      },
    },
    async (request, reply) => {
      const { bundle, file } = request.params;
      return sendBundle(reply, await bundles.deletePart(bundle, file, writeOptions(request, request.query)), request.query);
    },
  );

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
        response: { 200: TagView, 201: TagView, ...problems(400, 404, 413, 415) },
      },
    },
    async (request, reply) => {
      const { bundle, tag } = request.params;
      const { revision } = request.body;
      const { created, changed } = await bundles.putTag(bundle, tag, revision);
      if (created) reply.code(201).header('location', `/api/v1/bundles/${bundle}/tags`);
      return reply.send({ bundle, tag, revision, changed });
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

function writeOptions(request: FastifyRequest, { dryRun = false }: { dryRun?: boolean }): WriteOptions {
  return { actor: request.actor, preconditions: preconditionsOf(request), dryRun };
}

/** A raw upload: options come in the query, or as a `Merge-Type` or telling `Content-Type` header. */
function partUpload(
  filename: string,
  body: unknown,
  headers: FastifyRequest['headers'],
  query: { type?: string; merge?: string; template?: boolean },
): PartUpload {
  const upload: PartUpload = { filename, body: Buffer.isBuffer(body) ? body : Buffer.alloc(0) };
  const type = query.type ?? isSaidType(headers['content-type']) ?? undefined;
  if (type !== undefined) upload.type = type === 'auto' ? null : type;
  const header = headers['merge-type'];
  const merge = query.merge ?? (Array.isArray(header) ? header.join(', ') : header);
  if (merge !== undefined) upload.merge = merge === '' ? null : merge;
  if (query.template !== undefined) upload.template = query.template;
  return upload;
}

function viewPart({ filename, type, size, sha256, merge, template }: Part) {
  return { filename, type, size, sha256, merge, template };
}

function viewContent({ number, digest, order, vars, parts }: Revision) {
  return { revision: number, digest, order, vars, parts: parts.map(viewPart) };
}

function viewRevision(revision: Revision) {
  return { bundle: revision.bundle, ...viewContent(revision), createdAt: isoTime(revision.createdAt), author: revision.author };
}

function sendParts(reply: FastifyReply, parts: readonly Part[]): FastifyReply {
  return sendColumns(
    reply,
    ['FILE', 'TYPE', 'SIZE', 'MERGE', 'SHA256'],
    parts.map((part) => [part.filename, part.type, part.size, part.merge, part.sha256.slice(0, 12)]),
  );
}

function sendBundle(
  reply: FastifyReply,
  { bundle, created, changed, findings }: BundleWritten,
  { dryRun = false }: { dryRun?: boolean },
): FastifyReply {
  sendEtag(reply, bundle.latest.digest);
  if (created && !dryRun) reply.code(201).header('location', `/api/v1/bundles/${bundle.name}`);
  return reply.send({ name: bundle.name, ...viewContent(bundle.latest), tags: bundle.tags, changed, findings });
}

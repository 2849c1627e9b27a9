import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyRequest } from 'fastify';
import { LIMITS } from '../../domain/limits.ts';
import type { PartUpload } from '../../domain/upload.ts';
import { isSaidType } from '../../inspect/types.ts';
import type { BundleService } from '../../service/bundles.ts';
import { bodyOf } from '../document.ts';
import {
  ConditionHeaders,
  FileName,
  Findings,
  Format,
  file,
  Name,
  Nothing,
  Nullable,
  orText,
  PathName,
  PublishQuery,
  problems,
  publishFields,
  Sha256,
} from '../schemas.ts';
import { BINARY } from './bundle-body.ts';
import { BundleParams, SchemaName, sendBundle, sendParts, viewPart } from './bundle-views.ts';
import { beforeBody, isFresh, sendEtag } from './conditions.ts';
import { writeOptions } from './consent.ts';
import { refuseNameless } from './uploads.ts';

const PartWritten = Type.Object(
  {
    bundle: Name('bundle'),
    revision: Type.Integer({ minimum: 1, description: 'The newest revision of the bundle, which holds it' }),
    changed: Type.Boolean({ description: 'false: it was so already, no revision was made' }),
    filename: FileName,
    type: Type.String(),
    size: Type.Integer(),
    sha256: Sha256,
    typeSaid: Type.Boolean(),
    merge: Nullable(Type.String()),
    template: Type.Boolean(),
    findings: Findings,
    schema: SchemaName,
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
        typeSaid: false,
        size: 312,
        sha256: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
        merge: null,
        template: false,
        findings: [],
        schema: null,
      },
    ],
  },
);

/** What the routes' answers refer to by name. */
export const partSchemas = [PartWritten];

/** What may be said of a file beside its bytes. */
export const partOptionFields = {
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
  template: Type.Optional(Type.Boolean({ description: 'Liquid, rendered for each instance with its vars and secrets' })),
};
export const MergeTypeHeader = { 'merge-type': Type.Optional(Type.String({ description: 'The same as ?merge=' })) };

const PartQuery = Type.Object({ ...partOptionFields, ...publishFields }, { additionalProperties: false });
const PartParams = Type.Object({ bundle: PathName('bundle'), file: PathName('part file') });
const FILE_BODY = { required: true, content: { 'application/octet-stream': { schema: BINARY } } };

/** A bundle's parts, one by one. */
export const partRoutes: FastifyPluginAsyncTypebox<{ bundles: BundleService }> = async (app, { bundles }) => {
  const tags = ['bundles'];

  refuseNameless(app, '/bundles/:bundle/parts');
  for (const url of ['/bundles/:bundle/parts', '/bundles/:bundle/parts/'])
    app.get(
      url,
      {
        config: { role: 'viewer' },
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

  app.put(
    '/bundles/:bundle/parts/:file',
    {
      bodyLimit: LIMITS.partBytes,
      config: { role: 'editor', requestBody: FILE_BODY },
      schema: {
        operationId: 'putPart',
        summary: 'Add or replace one part: the body is the file as it is',
        description: 'Options that are not said stay as they are. The Content-Types that curl sends by itself mean "not said".',
        tags,
        params: PartParams,
        querystring: PartQuery,
        headers: Type.Object({ ...ConditionHeaders.properties, ...MergeTypeHeader }),
        response: { 200: Type.Ref('PartWritten#'), 201: Type.Ref('PartWritten#'), ...problems(400, 409, 412, 413, 415, 422) },
      },
      preParsing: beforeBody((request) => {
        const { bundle, file } = request.params as Static<typeof PartParams>;
        return bundles.etag(bundle, file);
      }),
    },
    async (request, reply) => {
      const upload = partUpload(request.params.file, request, request.query);
      const { bundle, part, changed, partCreated, findings, schema } = await bundles.putPart(
        request.params.bundle,
        upload,
        writeOptions(request, request.query),
      );
      sendEtag(reply, part.sha256);
      if (partCreated && changed && !request.query.dryRun)
        reply.code(201).header('location', `/api/v1/bundles/${bundle.name}/parts/${part.filename}`);
      return reply.send({ bundle: bundle.name, revision: bundle.latest.number, changed, ...viewPart(part), findings, schema });
    },
  );

  app.get(
    '/bundles/:bundle/parts/:file',
    {
      config: { role: 'viewer' },
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
      config: { role: 'editor' },
      schema: {
        operationId: 'deletePart',
        summary: 'Remove a part, as a new revision',
        tags,
        params: PartParams,
        querystring: PublishQuery,
        headers: ConditionHeaders,
        response: { 200: Type.Ref('BundleWritten#'), ...problems(400, 404, 409, 412) },
      },
    },
    async (request, reply) => {
      const { bundle, file } = request.params;
      return sendBundle(reply, await bundles.deletePart(bundle, file, writeOptions(request, request.query)), request.query);
    },
  );
};

/** A raw upload: options come in the query, or as a `Merge-Type` or telling `Content-Type` header. */
export function partUpload(
  filename: string,
  request: FastifyRequest,
  query: { type?: string; merge?: string; template?: boolean },
): PartUpload {
  const { headers } = request;
  const upload: PartUpload = { filename, body: bodyOf(request) };
  const type = query.type ?? isSaidType(headers['content-type']) ?? undefined;
  if (type !== undefined) upload.type = type === 'auto' ? null : type;
  const header = headers['merge-type'];
  const merge = query.merge ?? (Array.isArray(header) ? header.join(', ') : header);
  if (merge !== undefined) upload.merge = merge === '' ? null : merge;
  if (query.template !== undefined) upload.template = query.template;
  return upload;
}

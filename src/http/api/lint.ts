import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { malformed, tooLarge } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import { checkPartName } from '../../domain/names.ts';
import type { PartUpload } from '../../domain/upload.ts';
import { countFindings, formatLint, type LintReport } from '../../service/lint.ts';
import { bodyOf } from '../document.ts';
import { Findings, Format, Nullable, orText, PathName, problems } from '../schemas.ts';
import { BINARY, bundleForm, readBundleUpload, WHOLE_BUNDLE } from './bundle-body.ts';
import { SchemaName } from './bundle-views.ts';
import { beforeBody } from './conditions.ts';
import { MergeTypeHeader, partOptionFields, partUpload } from './parts.ts';
import { printableLines, sendText } from './text.ts';
import { fileOf, refuseNameless } from './uploads.ts';

const LintView = Type.Object(
  {
    parts: Type.Array(
      Type.Object({
        filename: Type.String(),
        type: Nullable(Type.String({ description: 'What it would be sent as; null: that cannot be told' })),
        findings: Findings,
      }),
    ),
    schema: SchemaName,
    errors: Type.Integer({ description: 'How many findings would refuse an upload' }),
    warnings: Type.Integer(),
  },
  { $id: 'LintReport' },
);

/** What the routes' answers refer to by name. */
export const lintSchemas = [LintView];

export type Lint = (uploads: readonly PartUpload[]) => Promise<LintReport>;

const FileQuery = Type.Object({ ...partOptionFields, format: Format }, { additionalProperties: false });
const LintQuery = Type.Object(
  {
    filename: Type.Optional(Type.String({ description: 'What the file is called, when the body is a single one as it is' })),
    ...FileQuery.properties,
  },
  { additionalProperties: false },
);
const Headers = Type.Object(MergeTypeHeader);
const schema = {
  tags: ['lint'],
  headers: Headers,
  response: { 200: orText(Type.Ref('LintReport#')), ...problems(400, 413, 415, 422) },
};

/** Inspecting files without keeping them. */
export const lintRoutes: FastifyPluginAsyncTypebox<{ lint: Lint }> = async (app, { lint }) => {
  app.post(
    '/lint',
    {
      bodyLimit: LIMITS.bundleBodyBytes,
      config: {
        role: 'viewer',
        requestBody: { required: true, content: { ...WHOLE_BUNDLE, 'application/octet-stream': { schema: BINARY } } },
      },
      preParsing: beforeBody(),
      schema: {
        ...schema,
        operationId: 'lint',
        summary: 'Inspect files without keeping them: a whole bundle, or with ?filename= a single file',
        description: 'Findings are the answer, not an error: the status is 200 for any file that can be read.',
        querystring: LintQuery,
      },
    },
    async (request, reply) => sendReport(reply, await lint(await uploadsOf(request, request.query)), request.query.format),
  );

  // curl -T FILE …/lint/ puts the name of the file on the wire.
  refuseNameless(app, '/lint', 'viewer');
  app.put(
    '/lint/:file',
    {
      bodyLimit: LIMITS.partBytes,
      config: { role: 'viewer', requestBody: { required: true, content: { 'application/octet-stream': { schema: BINARY } } } },
      preParsing: beforeBody(),
      schema: {
        ...schema,
        operationId: 'lintFile',
        summary: 'Inspect one file without keeping it: the body is the file as it is',
        params: Type.Object({ file: PathName('file') }),
        querystring: FileQuery,
      },
    },
    async (request, reply) =>
      sendReport(reply, await lint([singleFile(request, request.params.file, request.query)]), request.query.format),
  );
};

async function uploadsOf(request: FastifyRequest, query: Static<typeof LintQuery>): Promise<PartUpload[]> {
  const { filename, type, merge, template } = query;
  if (filename !== undefined) return [singleFile(request, filename, query)];
  const contentType = request.headers['content-type'];
  const ofOneFile = [type, merge, template].some((option) => option !== undefined);
  if (ofOneFile || bundleForm(contentType, bodyOf(request)) === null)
    throw malformed(
      'filename_missing',
      'say what the file is called: …/lint?filename=FILE, or curl -T FILE …/lint/; several files go as -F part=@FILE or a tar',
    );
  return (await readBundleUpload(contentType, bodyOf(request))).parts;
}

function singleFile(request: FastifyRequest, filename: string, query: Static<typeof FileQuery>): PartUpload {
  checkPartName(filename);
  const { length } = fileOf(request);
  if (length > LIMITS.partBytes)
    throw tooLarge('part_too_large', `the file has ${length} bytes; a part has at most ${LIMITS.partBytes}`);
  return partUpload(filename, request, query);
}

function sendReport(reply: FastifyReply, report: LintReport, format: 'json' | 'text' = 'json'): FastifyReply {
  if (format !== 'text') return reply.send({ ...report, ...countFindings(report) });
  return sendText(reply, printableLines(formatLint(report)));
}

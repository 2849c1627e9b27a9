import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import { BootbundleError, invalid } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { TimelineService } from '../../service/timeline.ts';
import { parseJson } from '../document.ts';
import { classify, sendBootLine } from '../errors.ts';
import { machineSchema } from '../schemas.ts';

/** What the applier of the bundle `kube` posts (src/guest/README.md). A newer one may say more: it is passed over. */
const ManifestBody = Type.Object({
  id: Type.String({ minLength: 1, maxLength: 200 }),
  file: Type.String({ minLength: 1, maxLength: 300 }),
  part: Type.String({ maxLength: 300 }),
  sha256: Type.String({ maxLength: 64 }),
  status: Type.Union([Type.Literal('applied'), Type.Literal('failed'), Type.Literal('retrying')]),
  attempts: Type.Integer({ minimum: 0, maximum: 1_000_000_000 }),
  // None where there was no client to try with.
  client: Type.Optional(Type.String({ maxLength: 100 })),
  clientVersion: Type.Optional(Type.String({ maxLength: 100 })),
  output: Type.String({ maxLength: 16_384 }),
  at: Type.Integer({ minimum: 0, maximum: 8_640_000_000_000_000 }),
});

/** Machines' reports. What comes is whatever a root on that machine wants to say: it is held to its shape, kept, and shown as such. */
export const reportRoutes: FastifyPluginAsyncTypebox<{ timeline: TimelineService }> = async (app, { timeline }) => {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

  app.setErrorHandler((error, request, reply) => {
    const { kind, message } = classify(error);
    if (kind !== 'invalid' && kind !== 'too_large') return sendBootLine(error, request, reply);
    // The sender drops what is refused with a 4xx: it would be refused again.
    return reply
      .code(kind === 'invalid' ? 400 : 413)
      .type('text/plain; charset=utf-8')
      .send(`${message}\n`);
  });

  app.post<{ Params: { capability: string } }>(
    '/r/:capability/manifests',
    {
      bodyLimit: LIMITS.reportBytes,
      config: { requestBody: { required: true, content: { 'application/json': { schema: ManifestBody } } } },
      schema: machineSchema(
        'reportManifest',
        'A manifest’s result, from the applier of the bundle kube',
        { status: 204, description: 'Kept; sent twice, kept once' },
        { 400: 'No such result: its sender drops it', 413: 'Too large: its sender drops it' },
      ),
    },
    async (request, reply) => {
      const body = readReport(request.body);
      if (!request.validateInput(body, ManifestBody)) throw badReport('it does not have the fields of a manifest result');
      const { id, file, part, sha256, status, attempts, output, at, ...by } = body as Static<typeof ManifestBody>;
      const { client = '', clientVersion = '' } = by;
      const manifest = { id, file, part, sha256, status, attempts, client, clientVersion, output, at };
      request.instanceName = await timeline.report(request.params.capability, manifest);
      return reply.code(204).send(null);
    },
  );
};

function readReport(body: unknown): unknown {
  try {
    return parseJson(Buffer.isBuffer(body) ? body : Buffer.alloc(0), 'the report');
  } catch (error) {
    if (error instanceof BootbundleError) throw badReport(error.message);
    throw error;
  }
}

function badReport(why: string): BootbundleError {
  return invalid('bad_report', why);
}

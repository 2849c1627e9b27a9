import { type FastifyPluginAsyncTypebox, type Static, type TSchema, Type } from '@fastify/type-provider-typebox';
import type { FastifyRequest } from 'fastify';
import { BootbundleError, invalid, notFound } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { ReportBody } from '../../domain/report.ts';
import { LOG_NAMES, type ReportService, readLog, readPhoneHome } from '../../service/reports.ts';
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

/** What cloud-init's webhook posts (reporting/events.py). What else it says is passed over. `timestamp`: seconds. */
const EventBody = Type.Object({
  name: Type.String({ minLength: 1, maxLength: 200 }),
  event_type: Type.Union([Type.Literal('start'), Type.Literal('finish')]),
  description: Type.Optional(Type.String()),
  result: Type.Optional(Type.String({ maxLength: 20 })),
  timestamp: Type.Number({ minimum: 0, maximum: 8_640_000_000_000 }),
});

const Params = Type.Object({ capability: Type.String(), log: Type.Optional(Type.String()) });

interface Posted {
  suffix: string;
  operationId: string;
  summary: string;
  /** Of the body, bytes. */
  limit: number;
  mediaType: string;
  schema: TSchema;
  /** What the body says. @throws invalid */
  read: (request: FastifyRequest, body: Buffer) => ReportBody;
}

const POSTED: readonly Posted[] = [
  {
    suffix: '/manifests',
    operationId: 'reportManifest',
    summary: 'A manifest’s result, from the applier of the bundle kube',
    limit: LIMITS.reportBytes,
    mediaType: 'application/json',
    schema: ManifestBody,
    read(request, bytes) {
      const body = readJson(request, bytes, ManifestBody, 'a manifest result');
      const { id, file, part, sha256, status, attempts, output, at, client = '', clientVersion = '' } = body;
      return {
        kind: 'manifest',
        manifest: { id, file, part, sha256, status, attempts, client, clientVersion, output, at },
      };
    },
  },
  {
    suffix: '/events',
    operationId: 'reportEvent',
    summary: 'One of cloud-init’s events, from its webhook; no Content-Type',
    limit: LIMITS.eventBytes,
    mediaType: 'application/json',
    schema: EventBody,
    read(request, bytes) {
      const body = readJson(request, bytes, EventBody, 'one of cloud-init’s events');
      const { name, event_type: type, description = '', result = null, timestamp } = body;
      const at = Math.round(timestamp * 1000);
      return { kind: 'event', event: { name, type, description: description.slice(0, 500), result, at } };
    },
  },
  {
    suffix: '/phone-home',
    operationId: 'reportPhoneHome',
    summary: 'cloud-init’s phone-home',
    limit: LIMITS.reportBytes,
    mediaType: 'application/x-www-form-urlencoded',
    schema: Type.Object({}, { additionalProperties: true }),
    read(_request, bytes) {
      const phoneHome = readPhoneHome(new URLSearchParams(bytes.toString('latin1')));
      if (phoneHome.instanceId === '' && phoneHome.hostname === '' && phoneHome.hostKeys.length === 0)
        throw badReport('it is not a phone-home: it names no machine');
      return { kind: 'phoneHome', phoneHome };
    },
  },
  {
    suffix: '/logs/:log',
    operationId: 'reportLog',
    summary: `The end of a log: ${LOG_NAMES.join(', ')}`,
    limit: LIMITS.logBytes,
    mediaType: 'text/plain',
    schema: Type.String(),
    read(request, bytes) {
      const { log: wanted } = request.params as Static<typeof Params>;
      const name = LOG_NAMES.find((known) => known === wanted);
      if (!name) throw notFound('unknown_log', 'no such log');
      if (bytes.length === 0) throw badReport('it is empty');
      return { kind: 'log', log: readLog(name, bytes, (request.query as { truncated?: string }).truncated === 'true') };
    },
  },
];

/** Machines' reports. What comes is whatever a root on that machine wants to say: it is held to its shape, kept, and shown as such. */
export const reportRoutes: FastifyPluginAsyncTypebox<{
  reports: ReportService;
  /** Told of each report that was refused. */
  onReport?: ((kind: string, outcome: string) => void) | undefined;
}> = async (app, { reports, onReport }) => {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));

  app.setErrorHandler((error, request, reply) => {
    const { kind, message } = classify(error);
    if (kind !== 'invalid' && kind !== 'too_large') return sendBootLine(error, request, reply);
    const route = request.routeOptions.url ?? '';
    onReport?.(route.split('/')[3] ?? '', 'refused');
    // The sender drops what is refused with a 4xx: it would be refused again.
    return reply
      .code(kind === 'invalid' ? 400 : 413)
      .type('text/plain; charset=utf-8')
      .send(`${message}\n`);
  });

  for (const { suffix, operationId, summary, limit, mediaType, schema, read } of POSTED)
    app.post<{ Params: Static<typeof Params> }>(
      `/r/:capability${suffix}`,
      {
        bodyLimit: limit,
        config: { requestBody: { required: true, content: { [mediaType]: { schema } } } },
        schema: machineSchema(
          operationId,
          summary,
          { status: 204, description: 'Kept; sent twice, kept once' },
          { 400: 'Not what it should be: its sender drops it', 413: 'Too large: its sender drops it' },
        ),
      },
      async (request, reply) => {
        const { name, id } = await reports.open(request.params.capability);
        request.instanceName = name;
        await reports.accept(id, read(request, Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)));
        return reply.code(204).send(null);
      },
    );
};

function readJson<T extends TSchema>(request: FastifyRequest, bytes: Buffer, schema: T, what: string): Static<T> {
  let body: unknown;
  try {
    body = parseJson(bytes, 'the report');
  } catch (error) {
    if (error instanceof BootbundleError) throw badReport(error.message);
    throw error;
  }
  if (!request.validateInput(body, schema)) throw badReport(`it does not have the fields of ${what}`);
  return body as Static<T>;
}

function badReport(why: string): BootbundleError {
  return invalid('bad_report', why);
}

import { promisify } from 'node:util';
import { constants, gzip } from 'node:zlib';
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import { notFound } from '../../domain/errors.ts';
import type { Answer, DeliveryService, Fetcher } from '../../service/deliveries.ts';
import type { ReportService } from '../../service/reports.ts';
import { sendBootLine } from '../errors.ts';
import { machineSchema } from '../schemas.ts';
import { type OnReport, reportRoutes } from './reports.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** The instance a capability stood for; for the log. */
    instanceName: string | null;
  }
}

/** From here on a document is worth compressing for a client that takes it. */
const GZIP_FROM_BYTES = 16 * 1024;
/** What the ledger keeps of a client's name. */
const USER_AGENT_CHARACTERS = 256;
const gzipAsync = promisify(gzip);

const SEED_DOCUMENTS = [
  ['meta-data', 'fetchMetaData'],
  ['vendor-data', 'fetchVendorData'],
  ['network-config', 'fetchNetworkConfig'],
] as const;

const REFUSALS = {
  403: 'The policy does not allow this address: an alarm',
  410: 'The window is shut: an alarm',
};

/** Any query: a machine may add what it likes to its URL. */
const UNLISTED = { hide: true, querystring: { type: 'object' } };

export interface BootServices {
  deliveries: DeliveryService;
  reports: ReportService;
  onReport?: OnReport;
}

/** The machines' scope: no token, plain text, and statuses chosen by what cloud-init does with them (README.md). */
export const bootScope: FastifyPluginAsync<BootServices> = async (app, { deliveries, reports, onReport }) => {
  app.decorateRequest('instanceName', null);
  app.setErrorHandler(sendBootLine);

  for (const [url, purpose, operationId, summary, refusals] of [
    ['/i/:capability/user-data', 'include', 'fetchInclude', 'The document, for the #include-once stub', REFUSALS],
    ['/s/:capability/user-data', 'seed', 'fetchSeedUserData', 'The document, for a NoCloud seed; empty when it is refused', {}],
  ] as const) {
    app.get<{ Params: { capability: string } }>(
      url,
      {
        exposeHeadRoute: false,
        schema: machineSchema(
          operationId,
          summary,
          { status: 200, description: 'MIME multipart; a row of the ledger' },
          refusals,
        ),
      },
      async (request, reply) => {
        const document = await deliveries.deliver(purpose, request.params.capability, fetcherOf(request));
        request.instanceName = document.instance;
        let finished = false;
        reply.raw.once('finish', () => {
          finished = true;
        });
        reply.raw.once('close', () => {
          if (!finished) document.aborted();
        });
        return sendDocument(request, reply, document);
      },
    );

    app.head<{ Params: { capability: string } }>(url, { schema: UNLISTED }, async (request, reply) => {
      const document = await deliveries.peek(purpose, request.params.capability, fetcherOf(request));
      request.instanceName = document.instance;
      return plain(reply).header('content-length', document.bytes.length).send();
    });
  }

  for (const [document, operationId] of SEED_DOCUMENTS)
    app.get<{ Params: { capability: string } }>(
      `/s/:capability/${document}`,
      {
        schema: machineSchema(operationId, `The NoCloud ${document}`, {
          status: 200,
          description: 'Empty where nothing is set',
        }),
      },
      async (request, reply) =>
        plain(reply).send(await deliveries.seed(request.params.capability, document, fetcherOf(request))),
    );

  await app.register(reportRoutes, { reports, ...(onReport && { onReport }) });

  // Whatever else begins like this is nobody's: the machines' answer, not the operators' page about it.
  for (const prefix of ['/i', '/s', '/r'])
    app.all(`${prefix}/*`, { schema: UNLISTED }, async () => {
      throw notFound('unknown_capability', 'no such document');
    });
};

async function sendDocument(request: FastifyRequest, reply: FastifyReply, { bytes }: Answer): Promise<FastifyReply> {
  plain(reply);
  if (bytes.length < GZIP_FROM_BYTES || !takesGzip(String(request.headers['accept-encoding'] ?? ''))) return reply.send(bytes);
  const compressed = await gzipAsync(bytes, { level: constants.Z_BEST_SPEED });
  return reply.header('content-encoding', 'gzip').send(compressed);
}

/** `gzip` without a weight of zero (RFC 9110, 12.5.3). */
function takesGzip(acceptEncoding: string): boolean {
  return /(?:^|[,\s])gzip\s*(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))(?:[,;]|$)/i.test(acceptEncoding);
}

function plain(reply: FastifyReply): FastifyReply {
  return reply
    .type('text/plain; charset=utf-8')
    .header('cache-control', 'no-store')
    .header('x-content-type-options', 'nosniff');
}

function fetcherOf(request: FastifyRequest): Fetcher {
  const userAgent = (request.headers['user-agent'] ?? '').slice(0, USER_AGENT_CHARACTERS);
  return { address: request.ip, userAgent };
}

import type { Socket } from 'node:net';
import { Ajv } from 'ajv';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest, LogController } from 'fastify';
import { notFound } from '../domain/errors.ts';
import { type ApiServices, apiSchemas, apiScope } from './api/index.ts';
import { bootScope } from './boot/index.ts';
import type { OnReport } from './boot/reports.ts';
import { settleAddress } from './client-address.ts';
import { formatJson, sendBootLine, sendProblem } from './errors.ts';
import { documentApi } from './openapi.ts';
import { opsScope } from './ops.ts';

export interface AppDeps extends ApiServices {
  /** Resolves when the service can do its work. */
  ready: () => Promise<void>;
  /** Told of every report and what became of it. */
  onReport?: OnReport;
  /** Which scopes this listener has: everything, or (with a boot listener) only the machines' or only the operators'. */
  scopes: 'all' | 'machines' | 'operators';
  /** The proxies whose X-Forwarded-For is believed, as networks; none: nobody's is. */
  trustedProxies?: readonly string[];
  /** pino's level, and where it writes to (standard output by default). */
  log: { level: string; stream?: { write(line: string): void } };
}

/** The machines' URL space; anything that begins like it is answered in the machines' way. */
const BOOT_URL = /^\/(i|s|r)(\/|$)|^\/healthz(\?|$)/;

/** The whole HTTP surface: every scope is listed here, by hand. */
export async function buildApp(deps: AppDeps): Promise<FastifyInstance> {
  const settle = settleAddress(deps.trustedProxies ?? []);
  const app = fastify({
    logger: deps.log,
    // Fastify's own request log prints URLs, and with them capabilities: logRequest says the route instead.
    logController: new LogController({ disableRequestLogging: true }),
    requestIdHeader: false,
    genReqId: requestId(),
    bodyLimit: 64 * 1024,
    // A client that sends its request too slowly, or lies still, is cut off; a body of some megabytes on a slow link is not.
    requestTimeout: 300_000,
    connectionTimeout: 120_000,
    clientErrorHandler: refuseNonsense,
    // What comes in by an open connection while the rest is served is served, too.
    return503OnClosing: false,
    routerOptions: { maxParamLength: 256 },
    frameworkErrors: (error, request, reply) => {
      // No hook runs for these.
      settle(request as FastifyRequest);
      reply.raw.once('finish', () => logRequest(request as FastifyRequest, reply as FastifyReply));
      dispatchError(error, request as FastifyRequest, reply as FastifyReply);
    },
  });
  app.addHook('onRequest', settle);
  useStrictValidation(app);
  app.setErrorHandler(dispatchError);
  app.setNotFoundHandler((request, reply) =>
    dispatchError(
      notFound('unknown_url', 'there is nothing at this URL for this method: the API is under /api/v1, its pages under /docs'),
      request,
      reply,
    ),
  );
  app.addHook('onResponse', logRequest);
  continueWhenRead(app);
  closeWhenIdle(app);

  if (deps.scopes !== 'machines') await documentApi(app);
  await app.register(opsScope, { ready: deps.ready, scopes: deps.scopes });
  if (deps.scopes !== 'operators') await app.register(bootScope, deps);
  if (deps.scopes !== 'machines') await app.register(apiScope, { ...deps, prefix: '/api/v1' });
  return app;
}

/** Errors that belong to no scope (no such URL, a bad %zz, an over-long parameter) are answered in the way of the URL's scope. */
function dispatchError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  return BOOT_URL.test(request.raw.url ?? '') ? sendBootLine(error, request, reply) : sendProblem(error, request, reply);
}

/**
 * Bodies are judged as they are: nothing is coerced, nothing dropped, an unknown field is an error. Query and path are text, so there
 * numbers and booleans are read from it. A route that lists no query parameters takes none.
 */
function useStrictValidation(app: FastifyInstance): void {
  const strict = new Ajv({ strict: false, allErrors: false });
  const coercing = new Ajv({ strict: false, allErrors: false, coerceTypes: 'array' });
  for (const ajv of [strict, coercing]) ajv.addFormat('date-time', true);
  for (const schema of apiSchemas) app.addSchema(schema);
  app.setValidatorCompiler(({ schema, httpPart }) => (!httpPart || httpPart === 'body' ? strict : coercing).compile(schema));
  // A response schema says what the OpenAPI document promises; a test holds answers against it. It must not drop fields here.
  app.setSerializerCompiler(() => formatJson);
  app.addHook('onRoute', (route) => {
    route.schema ??= {};
    route.schema.querystring ??= { type: 'object', properties: {}, additionalProperties: false };
  });
}

/** What is not HTTP is no request of any scope. Fastify's own answer logs the raw bytes, and with them a capability or a token. */
function refuseNonsense(this: FastifyInstance, error: NodeJS.ErrnoException, socket: Socket): void {
  this.log.debug({ code: error.code }, 'not an HTTP request');
  if (!socket.writable || socket.destroyed) return;
  const body = 'bad request\n';
  socket.end(
    `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
  );
}

/** One line per answer: the route's pattern, never its URL, so no capability gets into the log; the machine by its name. */
async function logRequest(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const params = request.params as { instance?: string; bundle?: string } | undefined;
  request.log.info(
    {
      method: request.method,
      route: request.is404 ? null : (request.routeOptions.url ?? null),
      status: reply.statusCode,
      ms: Math.round(reply.elapsedTime * 10) / 10,
      address: request.ip,
      instance: request.instanceName ?? params?.instance,
      bundle: params?.bundle,
    },
    'request',
  );
}

/**
 * Node sends `100 Continue` by itself before anybody looked at the request. Here it goes out when the body is begun to be read, so that
 * 401, 412 and 413 come before a single byte of it.
 */
function continueWhenRead(app: FastifyInstance): void {
  app.server.on('checkContinue', (request, response) => {
    request.once('resume', () => response.headersSent || response.writeContinue());
    app.server.emit('request', request, response);
  });
}

/**
 * A server that closes cuts what Node calls idle connections: also those of answers that were ended but are not sent yet, so that a
 * machine would get half a document (and cloud-init 22.4 would take it). And it waits for connections on which nothing was ever asked
 * (a balancer's, a browser's). Here all are cut, once no request is under way.
 */
function closeWhenIdle(app: FastifyInstance): void {
  const { server } = app;
  let underWay = 0;
  server.on('request', (_request, response) => {
    underWay++;
    response.once('close', () => underWay--);
  });
  server.closeIdleConnections = () => undefined;
  app.addHook('preClose', async () => {
    if (!server.listening) return;
    const timer = setInterval(() => underWay === 0 && server.closeAllConnections(), 20);
    server.once('close', () => clearInterval(timer));
  });
}

/** Ids that tell requests apart in the log across restarts. */
function requestId(): () => string {
  const start = Date.now().toString(36);
  let count = 0;
  return () => `${start}-${(++count).toString(36)}`;
}

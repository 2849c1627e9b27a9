import swaggerUi from '@fastify/swagger-ui';
import { Type } from '@fastify/type-provider-typebox';
import type { FastifyPluginAsync } from 'fastify';
import { unavailable } from '../domain/errors.ts';
import { problems } from './schemas.ts';
import { pagePolicy } from './security.ts';

const Status = Type.Object({ status: Type.Literal('ok') });

/** The metrics as they are now, in Prometheus's text format, with its media type. */
export type Expose = () => Promise<{ type: string; text: string }>;

export interface OpsServices {
  ready: () => Promise<void>;
  expose: Expose;
  scopes: 'all' | 'machines' | 'operators';
}

/** What monitoring and the curious call; no token. /healthz is the machines' listener's too. */
export const opsScope: FastifyPluginAsync<OpsServices> = async (app, { ready, expose, scopes }) => {
  app.get(
    '/healthz',
    {
      schema: {
        operationId: 'healthz',
        summary: 'The process answers',
        tags: ['ops'],
        security: [],
        // A probe may add what it likes to its URL.
        querystring: Type.Object({}),
        response: { 200: { description: 'It does', content: { 'text/plain': { schema: Type.String() } } } },
      },
    },
    async (_request, reply) => reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store').send('ok\n'),
  );
  if (scopes === 'machines') return;

  app.get(
    '/readyz',
    {
      schema: {
        operationId: 'readyz',
        summary: 'The database answers, so machines can be served',
        tags: ['ops'],
        security: [],
        response: { 200: Status, 503: problems()[503] },
      },
    },
    async () => {
      await ready().catch((cause) => {
        app.log.warn({ err: cause }, 'not ready');
        throw unavailable('not_ready', 'the database does not answer');
      });
      return { status: 'ok' };
    },
  );

  app.get(
    '/metrics',
    {
      schema: {
        operationId: 'metrics',
        summary: 'Metrics for Prometheus',
        tags: ['ops'],
        security: [],
        // A scraper may add what it likes to its URL.
        querystring: Type.Object({}),
        response: { 200: { description: 'Its text format', content: { 'text/plain': { schema: Type.String() } } } },
      },
    },
    async (_request, reply) => {
      const { type, text } = await expose();
      return reply.type(type).send(text);
    },
  );

  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: true, transformStaticCSP: pagePolicy });
};

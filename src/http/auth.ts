import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { type Actor, checkInScope, type Role, roleSuffices } from '../domain/actor.ts';
import { forbidden, unauthenticated } from '../domain/errors.ts';
import type { Authenticate } from '../service/tokens.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Who asks; set by the api scope's guard before anything else happens. */
    actor: Actor;
  }
  interface FastifyContextConfig {
    /** The least role that may call it; a route of the api scope cannot be without one. */
    role?: Role;
  }
}

/** What may be said in any query only by an admin: to break machines, and to see their secrets. */
const ADMIN_PARAMETERS = ['force', 'reveal'];

/**
 * Guards a scope: every call needs a token, a role that the route names, and a scope that its path is in. Decided before a body is read, and
 * before anything is looked up, so that what exists and what does not is refused alike. A route that names no role cannot be registered.
 */
export function guard(app: FastifyInstance, authenticate: Authenticate): void {
  app.decorateRequest('actor', null as unknown as Actor);
  app.addHook('onRoute', ({ config, method, url }) => {
    if (config?.role === undefined) throw new Error(`${method} ${url} names no role: config: { role: 'viewer' }`);
  });
  app.addHook('onRequest', async (request, reply) => {
    reply.header('cache-control', 'no-store');
    try {
      request.actor = await actorOf(request, authenticate);
      checkRole(request);
      const { bundle, instance } = request.params as { bundle?: string; instance?: string };
      if (bundle !== undefined) checkInScope(request.actor, 'bundle', bundle);
      if (instance !== undefined) checkInScope(request.actor, 'instance', instance);
    } catch (error) {
      closeUnread(request, reply);
      throw error;
    }
  });
}

async function actorOf(request: FastifyRequest, authenticate: Authenticate): Promise<Actor> {
  const token = tokenOf(request.headers.authorization);
  if (token === null)
    throw unauthenticated('no_token', 'send the API token: -K data/admin.curlrc, or an Authorization: Bearer header');
  return { ...(await authenticate(token)), address: request.ip, requestId: request.id };
}

/** @throws forbidden `role_needed` */
function checkRole({ actor, query, routeOptions }: FastifyRequest): void {
  const parameter = ADMIN_PARAMETERS.find((name) => ![undefined, 'false'].includes((query as Record<string, string>)[name]));
  const needed = parameter === undefined ? (routeOptions.config.role ?? 'admin') : 'admin';
  if (roleSuffices(actor.role, needed)) return;
  const what = parameter === undefined ? 'this call' : `?${parameter}=`;
  throw forbidden('role_needed', `${what} needs the role ${needed}; your token's is ${actor.role}`);
}

/** A client that was told not to send its body leaves the connection in an unknown state. */
export function closeUnread(request: FastifyRequest, reply: FastifyReply): void {
  if (request.headers.expect !== undefined) reply.header('connection', 'close');
}

/**
 * The token of an `Authorization` header: Bearer (RFC 6750), or Basic with the token as password and any user name (`curl -u :TOKEN`, .netrc).
 * Null when there is none or it cannot be read.
 */
export function tokenOf(header: string | undefined): string | null {
  const match = /^(Bearer|Basic) +([\x21-\x7e]+)$/i.exec(header ?? '');
  const [, scheme = '', value = ''] = match ?? [];
  if (!match) return null;
  if (scheme.toLowerCase() === 'bearer') return value;
  const pair = Buffer.from(value, 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  return colon < 0 ? null : pair.slice(colon + 1);
}

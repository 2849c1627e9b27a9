import { Socket } from 'node:net';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { unavailable } from '../../domain/errors.ts';

/** A peer that is gone without a word is noticed after some of these, milliseconds. */
const PROBE_MS = 30_000;

/**
 * For requests that stand for minutes: followers, waiters. At most `limit` of them at a time; the time that an ordinary connection may lie
 * still does not count; and they end when the server is to stop, which waits for all that is under way.
 * @returns a hook to call where one begins: the signal ends it, when its client goes away too
 * @throws unavailable `too_many_standing`, `shutting_down`, from that hook
 */
export function standingRequests(app: FastifyInstance, limit: number) {
  const open = new Set<AbortController>();
  let stopping = false;
  app.addHook('preClose', async () => {
    stopping = true;
    for (const controller of open) controller.abort();
  });

  return ({ raw: { socket } }: FastifyRequest, reply: FastifyReply): AbortSignal => {
    if (stopping) throw unavailable('shutting_down', 'the service is about to stop: ask again');
    if (open.size >= limit) throw unavailable('too_many_standing', `${limit} such requests stand already: ask again later`);
    const controller = new AbortController();
    open.add(controller);
    if (socket instanceof Socket) socket.setTimeout(0).setKeepAlive(true, PROBE_MS);
    reply.raw.once('close', () => {
      open.delete(controller);
      controller.abort();
      if (socket instanceof Socket) socket.setTimeout(app.server.timeout);
    });
    return controller.signal;
  };
}

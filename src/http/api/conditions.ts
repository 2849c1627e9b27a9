import type { FastifyReply, FastifyRequest, preParsingAsyncHookHandler } from 'fastify';
import { malformed, tooLarge } from '../../domain/errors.ts';
import { checkPreconditions, type Preconditions } from '../../domain/precondition.ts';
import { closeUnread } from '../auth.ts';

/** `If-Match` and `If-None-Match` of a request. Quotes may be left out; a weak tag never matches a write (RFC 9110, 13.1.1). */
export function preconditionsOf(request: FastifyRequest): Preconditions {
  return { ifMatch: entityTags(request.headers['if-match']), ifNoneMatch: entityTags(request.headers['if-none-match']) };
}

function entityTags(header: string | undefined): '*' | string[] | undefined {
  if (header === undefined) return undefined;
  if (header.trim() === '*') return '*';
  return header.split(',').map((tag) => tag.trim().replace(/^"(.*)"$/, '$1'));
}

/** Whether a reader has it already (`If-None-Match` on a GET): then answer 304. */
export function isFresh(request: FastifyRequest, etag: string): boolean {
  const tags = entityTags(request.headers['if-none-match']?.replaceAll('W/', ''));
  return tags === '*' || (tags?.includes(etag) ?? false);
}

export function sendEtag(reply: FastifyReply, etag: string): FastifyReply {
  return reply.header('etag', `"${etag}"`);
}

/**
 * Decides what can be decided before a body is asked for: size, a resumed upload, and the conditions, against the entity tag
 * as it is now (the store judges it once more, atomically). Only then is the body read, and a client that waits told to go on (app.ts).
 */
export function beforeBody(etagOf?: (request: FastifyRequest) => Promise<string | null>): preParsingAsyncHookHandler {
  return async (request, reply, payload) => {
    try {
      if (request.headers['content-range'] !== undefined)
        throw malformed('content_range', 'an upload cannot be resumed (curl -C): send the whole file');
      if (Number(request.headers['content-length'] ?? 0) > (request.routeOptions.bodyLimit ?? 0))
        throw tooLarge(
          'body_too_large',
          `the body has ${request.headers['content-length']} bytes; this URL takes at most ${request.routeOptions.bodyLimit}`,
        );
      const conditions = preconditionsOf(request);
      if (conditions.ifMatch !== undefined || conditions.ifNoneMatch !== undefined) {
        if (!etagOf) throw malformed('no_conditions', 'this URL has no entity tag: leave out If-Match and If-None-Match');
        checkPreconditions(await etagOf(request), conditions);
      }
    } catch (error) {
      closeUnread(request, reply);
      throw error;
    }
    return payload;
  };
}

import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Role } from '../../domain/actor.ts';
import { malformed, unsupported } from '../../domain/errors.ts';
import { bodyOf, mediaType } from '../document.ts';
import { beforeBody } from './conditions.ts';

/** What uploads of single files have in common. */

/** Answers uploads without a name: `curl -T FILE …/parts` (no slash) and `… | curl -T - …/parts/` put none on the wire. */
export function refuseNameless(app: FastifyInstance, collection: string, role: Role = 'editor'): void {
  const last = collection.split('/').at(-1);
  for (const url of [collection, `${collection}/`])
    app.put(
      url,
      { config: { role }, schema: { hide: true, querystring: { type: 'object' } }, preParsing: beforeBody() },
      async () => {
        throw malformed(
          'filename_missing',
          `no name came along: end the URL with / (curl -T FILE …/${last}/), or say the name (curl -T - …/${last}/FILE)`,
        );
      },
    );
}

/** The bytes of a body that is one file. @throws unsupported `bad_content_type` for a form, which nobody means to keep as it is */
export function fileOf(request: FastifyRequest): Buffer {
  if (mediaType(request) === 'multipart/form-data')
    throw unsupported('bad_content_type', 'a form is not the file itself: send it with curl -T FILE, or --data-binary @FILE');
  return bodyOf(request);
}

/** For calls whose query says all. @throws malformed `unwanted_body` */
export async function refuseBody(request: FastifyRequest): Promise<void> {
  if (bodyOf(request).length > 0) throw malformed('unwanted_body', 'this call takes no body: say it in the query');
}

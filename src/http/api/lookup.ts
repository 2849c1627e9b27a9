import { isIP } from 'node:net';
import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyRequest } from 'fastify';
import { namesFit } from '../../domain/actor.ts';
import { malformed, notFound } from '../../domain/errors.ts';
import type { Json } from '../../domain/json.ts';
import type { Clue, LookupService } from '../../service/lookup.ts';
import { bodyOf, isSaidDocument, mediaType, parseDocument } from '../document.ts';
import { Format, Name, Nullable, orText, problems } from '../schemas.ts';
import { sendColumns } from './text.ts';

const CLUE_BYTES = 16 * 1024;
const clue = (description: string) => Type.Optional(Type.String({ minLength: 1, maxLength: CLUE_BYTES, description }));
const LookupBody = Type.Object(
  {
    url: clue('What was found in Nova: a URL, a stub in any form, a capability'),
    address: clue('Of a machine that fetched'),
    uuid: clue('Of a Nova server'),
    instanceId: clue('cloud-init’s instance-id'),
  },
  { additionalProperties: false, minProperties: 1, maxProperties: 1, examples: [{ address: '192.0.2.77' }] },
);

/** Which machine is this? */
export const lookupRoutes: FastifyPluginAsyncTypebox<{ lookup: LookupService }> = async (app, { lookup }) => {
  app.post(
    '/lookup',
    {
      bodyLimit: CLUE_BYTES,
      preValidation: readClue,
      config: { role: 'editor' },
      schema: {
        operationId: 'lookup',
        summary: 'Which instance a URL, an address or an instance-id belongs to',
        description:
          'One of the fields; or, as plain text, the URL, stub, address or id by itself. No capability is ever answered.',
        tags: ['instances'],
        querystring: Type.Object({ format: Format }, { additionalProperties: false }),
        body: LookupBody,
        consumes: ['application/json', 'application/yaml', 'text/plain'],
        response: {
          200: orText(
            Type.Object({
              instance: Name('instance'),
              by: Type.Union([Type.Literal('url'), Type.Literal('address'), Type.Literal('instanceId')]),
              purpose: Nullable(
                Type.Union([Type.Literal('include'), Type.Literal('seed'), Type.Literal('report')], {
                  description: 'What the URL is for',
                }),
              ),
              works: Nullable(Type.Boolean({ description: 'Whether the URL opens anything now' })),
              reason: Type.String({ description: 'One sentence' }),
            }),
          ),
          ...problems(400, 404, 413, 415),
        },
      },
    },
    async (request, reply) => {
      const found = await lookup.lookup(clueOf(request.body));
      if (!namesFit(request.actor.scope.instances, found.instance))
        throw notFound('not_yours', 'it is of no instance that your token is for');
      if (request.query.format === 'text')
        return sendColumns(
          reply,
          ['INSTANCE', 'BY', 'PURPOSE', 'WORKS', 'REASON'],
          [[found.instance, found.by, found.purpose, found.works, found.reason]],
        );
      return reply.send(found);
    },
  );
};

/** A document, or a text pasted as it is. */
async function readClue(request: FastifyRequest): Promise<void> {
  const type = mediaType(request);
  const body = bodyOf(request);
  const text = body.toString('utf8').trim();
  request.body = isSaidDocument(type) || text.startsWith('{') ? parseDocument(type, body) : guess(text);
}

function guess(text: string): Json {
  if (text === '') throw malformed('no_body', 'send what was found: a URL, a stub, an address or an instance-id');
  if (isIP(text) !== 0) return { address: text };
  // A URL, or a stub; an instance-id is one word without a slash.
  const isId = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,254}$/.test(text) && !/^[A-Za-z0-9_-]{40}$/.test(text);
  return isId && !isPacked(text) ? { instanceId: text } : { url: text };
}

/** A stub in base64 begins with what `#include` or `ds=nocloud` becomes. */
function isPacked(text: string): boolean {
  return text.startsWith('I2luY2x1ZGU') || text.startsWith('ZHM9bm9jbG91Z');
}

function clueOf({ url, address, uuid, instanceId }: Static<typeof LookupBody>): Clue {
  if (url !== undefined) return { kind: 'url', text: url };
  if (address !== undefined) return { kind: 'address', text: address.trim() };
  return { kind: 'instanceId', text: (uuid ?? instanceId ?? '').trim() };
}

import { isUtf8 } from 'node:buffer';
import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { malformed, notFound } from '../../domain/errors.ts';
import type { Json, JsonObject } from '../../domain/json.ts';
import { LIMITS } from '../../domain/limits.ts';
import type { BundleService } from '../../service/bundles.ts';
import type { InstanceService } from '../../service/instances.ts';
import { isSaidDocument, mediaType, parseDocument } from '../document.ts';
import { formatJson } from '../errors.ts';
import { Findings, Format, FreeObject, Name, orText, PathName, PublishQuery, problems, WriteQuery } from '../schemas.ts';
import { BundleParams } from './bundle-views.ts';
import { beforeBody } from './conditions.ts';
import { writeOptions } from './consent.ts';
import { sendColumns, sendText } from './text.ts';
import { fileOf, refuseNameless } from './uploads.ts';

const InstanceParams = Type.Object({ instance: PathName('instance') });
const Key = PathName('var');
const FormatQuery = Type.Object({ format: Format }, { additionalProperties: false });

const owners = {
  bundle: { bundle: Name('bundle'), revision: Type.Integer({ description: 'The newest revision, which holds it' }) },
  instance: { instance: Name('instance') },
};
const writtenFields = {
  key: Type.String(),
  changed: Type.Boolean({ description: 'false: it was so already' }),
  findings: Findings,
};
const valueFields = {
  bytes: Type.Integer({ description: 'Length of the text, or of the value as JSON' }),
  endsWithNewline: Type.Boolean({ description: 'Of a text: `echo` and most editors add a line break' }),
};
const VALUE_BODY = {
  required: true,
  content: {
    'text/plain': { schema: Type.String() },
    'application/json': { schema: Type.Unknown() },
    'application/yaml': { schema: Type.Unknown() },
  },
};
const DESCRIPTION =
  'The body is a text as it is, a final line break too; with Content-Type application/json or application/yaml it is the value it states.';

/** Single vars, of a bundle (each change is a revision) and of an instance. */
export const varRoutes: FastifyPluginAsyncTypebox<{ bundles: BundleService; instances: InstanceService }> = async (
  app,
  { bundles, instances },
) => {
  const varsOf = {
    bundle: async (name: string) => (await bundles.get(name)).latest.vars,
    instance: async (name: string) => (await instances.get(name)).instance.vars,
  };
  for (const [kind, Params, Kind] of [
    ['bundle', BundleParams, 'Bundle'],
    ['instance', InstanceParams, 'Instance'],
  ] as const) {
    const tags = [`${kind}s`];
    const collection = `/${kind}s/:${kind}/vars`;
    const read = (request: FastifyRequest) => varsOf[kind]((request.params as Record<typeof kind, string>)[kind]);

    refuseNameless(app, collection);
    for (const url of [collection, `${collection}/`])
      app.get(
        url,
        {
          config: { role: 'viewer' },
          schema: {
            operationId: url.endsWith('/') ? `list${Kind}VarsSlash` : `list${Kind}Vars`,
            hide: url.endsWith('/'),
            summary: `The vars of ${kind === 'bundle' ? 'the newest revision' : 'an instance'}`,
            tags,
            params: Params,
            querystring: FormatQuery,
            response: { 200: orText(FreeObject('Name to value')), ...problems(400, 404) },
          },
        },
        async (request, reply) => {
          const vars = await read(request);
          return request.query.format === 'text' ? sendVars(reply, vars) : reply.send(vars);
        },
      );

    app.get(
      `${collection}/:key`,
      {
        config: { role: 'viewer' },
        schema: {
          operationId: `get${Kind}Var`,
          summary: 'One value, as JSON; with ?format=text a text as it is',
          tags,
          params: Type.Object({ ...Params.properties, key: Key }),
          querystring: FormatQuery,
          response: { 200: orText(Type.Unknown()), ...problems(400, 404) },
        },
      },
      async (request, reply) => {
        const vars = await read(request);
        const { key } = request.params as { key: string };
        const value = Object.hasOwn(vars, key) ? vars[key] : undefined;
        if (value === undefined) throw notFound('unknown_var', 'there is no such var');
        if (request.query.format === 'text') return sendText(reply, typeof value === 'string' ? value : formatJson(value));
        return reply.type('application/json; charset=utf-8').send(formatJson(value));
      },
    );
  }

  const BundleVar = Type.Object({ ...BundleParams.properties, key: Key });
  app.put(
    '/bundles/:bundle/vars/:key',
    {
      bodyLimit: LIMITS.varBytes,
      config: { role: 'editor', requestBody: VALUE_BODY },
      preParsing: beforeBody(),
      schema: {
        operationId: 'putBundleVar',
        summary: 'Set one of the defaults for templates, as a new revision',
        description: DESCRIPTION,
        tags: ['bundles'],
        params: BundleVar,
        querystring: PublishQuery,
        response: {
          200: Type.Object({ ...owners.bundle, ...writtenFields, ...valueFields }),
          ...problems(400, 404, 409, 413, 415, 422),
        },
      },
    },
    async (request, reply) => {
      const value = readValue(request);
      return reply.send({ ...(await writeBundleVar(request, request.params, value)), ...measure(value) });
    },
  );
  app.delete(
    '/bundles/:bundle/vars/:key',
    {
      config: { role: 'editor' },
      preParsing: beforeBody(),
      schema: {
        operationId: 'deleteBundleVar',
        summary: 'Remove one of the defaults for templates, as a new revision',
        tags: ['bundles'],
        params: BundleVar,
        querystring: PublishQuery,
        response: { 200: Type.Object({ ...owners.bundle, ...writtenFields }), ...problems(400, 404, 409, 422) },
      },
    },
    async (request, reply) => reply.send(await writeBundleVar(request, request.params, undefined)),
  );

  async function writeBundleVar(
    request: FastifyRequest,
    { bundle: name, key }: Static<typeof BundleVar>,
    value: Json | undefined,
  ) {
    const query: Static<typeof PublishQuery> = request.query as object;
    const { bundle, changed, findings } = await bundles.putVar(name, key, value, writeOptions(request, query));
    return { bundle: name, revision: bundle.latest.number, key, changed, findings };
  }

  const InstanceVar = Type.Object({ ...InstanceParams.properties, key: Key });
  app.put(
    '/instances/:instance/vars/:key',
    {
      bodyLimit: LIMITS.varBytes,
      config: { role: 'editor', requestBody: VALUE_BODY },
      preParsing: beforeBody(),
      schema: {
        operationId: 'putInstanceVar',
        summary: "Set one of an instance's values",
        description: DESCRIPTION,
        tags: ['instances'],
        params: InstanceVar,
        querystring: WriteQuery,
        response: {
          200: Type.Object({ ...owners.instance, ...writtenFields, ...valueFields }),
          ...problems(400, 404, 413, 415, 422),
        },
      },
    },
    async (request, reply) => {
      const value = readValue(request);
      return reply.send({ ...(await writeInstanceVar(request, request.params, value)), ...measure(value) });
    },
  );
  app.delete(
    '/instances/:instance/vars/:key',
    {
      config: { role: 'editor' },
      preParsing: beforeBody(),
      schema: {
        operationId: 'deleteInstanceVar',
        summary: "Remove one of an instance's values",
        tags: ['instances'],
        params: InstanceVar,
        querystring: WriteQuery,
        response: { 200: Type.Object({ ...owners.instance, ...writtenFields }), ...problems(400, 404, 422) },
      },
    },
    async (request, reply) => reply.send(await writeInstanceVar(request, request.params, undefined)),
  );

  async function writeInstanceVar(
    request: FastifyRequest,
    { instance, key }: Static<typeof InstanceVar>,
    value: Json | undefined,
  ) {
    const query: Static<typeof WriteQuery> = request.query as object;
    const { changed, findings } = await instances.putVar(instance, key, value, { ...query, by: request.actor });
    return { instance, key, changed, findings };
  }
};

/** @throws malformed `not_utf8`, `bad_value`, and as parseDocument; unsupported `bad_content_type` */
function readValue(request: FastifyRequest): Json {
  const body = fileOf(request);
  const type = mediaType(request);
  if (isSaidDocument(type)) return parseDocument(type, body);
  if (!isUtf8(body)) throw malformed('not_utf8', 'the value is not UTF-8: a var is text; keep bytes as a secret, or as base64');
  if (body.includes(0))
    throw malformed('bad_value', 'the value has a NUL byte: a var is text; keep bytes as a secret, or as base64');
  return body.toString('utf8');
}

function measure(value: Json): Static<ReturnType<typeof Type.Object<typeof valueFields>>> {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return { bytes: Buffer.byteLength(text), endsWithNewline: typeof value === 'string' && value.endsWith('\n') };
}

/** So much of a value is shown in a column. */
const SHOWN = 60;

function sendVars(reply: FastifyReply, vars: JsonObject): FastifyReply {
  const rows = Object.entries(vars).map(([key, value]) => {
    const text = JSON.stringify(value);
    return [key, text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text];
  });
  return sendColumns(reply, ['KEY', 'VALUE'], rows);
}

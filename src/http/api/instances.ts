import { type FastifyPluginAsyncTypebox, type Static, Type } from '@fastify/type-provider-typebox';
import { malformed } from '../../domain/errors.ts';
import { type InstanceSpec, instanceEtag } from '../../domain/instance.ts';
import type { Json, JsonObject } from '../../domain/json.ts';
import { LIMITS } from '../../domain/limits.ts';
import { type InstanceService, mergePatch, type SecretChanges } from '../../service/instances.ts';
import { DOCUMENT_TYPES, quoted, readDocument, readDocumentList, readInstance } from '../document.ts';
import {
  ConditionHeaders,
  DryRun,
  Format,
  FreeObject,
  file,
  Limit,
  Name,
  Nothing,
  Nullable,
  orText,
  PathName,
  problems,
  Time,
  WriteQuery,
} from '../schemas.ts';
import { beforeBody, preconditionsOf, sendEtag } from './conditions.ts';
import { nullableTime, StateView, sendWritten, viewItem, viewReport } from './instance-views.ts';
import { LabelQuery, parseLabel } from './labels.ts';
import { isoTime, sendColumns } from './text.ts';
import { ForceSeed } from './windows.ts';

const PolicyBody = Type.Object(
  {
    closeAfter: Type.Optional(Type.String({ description: 'A duration from the first delivery (`1h`), `success` or `never`' })),
    expiresAt: Type.Optional(Time),
    allowFrom: Type.Optional(Type.Array(Type.String(), { maxItems: 64, description: 'Networks, IPv4 and IPv6' })),
    afterClose: Type.Optional(
      Type.Union([Type.Literal('refuse'), Type.Array(Type.String({ maxLength: 130 }), { minItems: 1 })], {
        description: '`refuse`, or references of bundles without secrets to serve instead',
      }),
    ),
  },
  { additionalProperties: false, description: 'Who may fetch, and until when; what is not said is the default' },
);
/** What PUT takes. `name`, `status` and `changed` may be there, since a GET (or a write) answered with them, and mean nothing. */
const specFields = {
  bundles: Type.Array(Type.String({ maxLength: 130 }), {
    description: 'References in order: `web` follows the newest revision, `web@stable` a tag, `web@3` is pinned',
    examples: [['atomic', 'db@stable']],
  }),
  vars: Type.Optional(FreeObject('Values for templates and handlers; over the bundles’ defaults')),
  secrets: Type.Optional(
    Type.Record(Type.String(), Nullable(Type.String()), {
      additionalProperties: false,
      description: 'Values for templates, over the bundles’; never answered. What is not named stays, null removes',
    }),
  ),
  labels: Type.Optional(Type.Record(Type.String(), Type.String(), { examples: [{ site: 'fra1' }] })),
  metaData: Type.Optional(FreeObject('Added to the NoCloud meta-data; may set instance-id and local-hostname')),
  vendorData: Type.Optional(Nullable(Type.String({ maxLength: 524_288, description: 'The NoCloud vendor-data as it is' }))),
  networkConfig: Type.Optional(
    Type.Union([Type.String({ maxLength: 524_288 }), FreeObject('Written as YAML'), Type.Null()], {
      description: 'The NoCloud network-config: text as it is, or an object',
    }),
  ),
  policy: Type.Optional(PolicyBody),
  track: Type.Optional(Type.Boolean({ description: 'false: the document does not make the machine report' })),
};
const ignoredFields = { status: Type.Optional(Type.Unknown()), changed: Type.Optional(Type.Unknown()) };
const InstanceBody = Type.Object(
  { name: Type.Optional(Type.Unknown()), ...specFields, ...ignoredFields },
  { additionalProperties: false, examples: [{ bundles: ['atomic', 'db'], labels: { site: 'fra1' } }] },
);
const InstanceListBody = Type.Array(
  Type.Object({ name: Name('instance'), ...specFields, ...ignoredFields }, { additionalProperties: false }),
  {
    minItems: 1,
    examples: [
      [
        { name: 'node-1', bundles: ['web'] },
        { name: 'node-2', bundles: ['web@stable'] },
      ],
    ],
  },
);
const PatchBody = Type.Object(
  {},
  {
    additionalProperties: true,
    description: 'RFC 7396: what is there replaces, null removes, objects merge',
    examples: [{ labels: { site: 'ams1' }, networkConfig: null }],
  },
);
const StubForm = Type.Union(
  [Type.Literal('include-once'), Type.Literal('include'), Type.Literal('nocloud'), Type.Literal('base64')],
  { description: 'nocloud: a kernel or SMBIOS string; base64: include-once for APIs that want it so' },
);

const Params = Type.Object({ instance: PathName('instance') });
const written = { 200: Type.Ref('Instance#'), 201: Type.Ref('Instance#') };

/** Registering machines, and what they get. */
export const instanceRoutes: FastifyPluginAsyncTypebox<{ instances: InstanceService }> = async (app, { instances }) => {
  const tags = ['instances'];
  const etag = beforeBody((request) => instances.etag((request.params as Static<typeof Params>).instance));

  app.get(
    '/instances',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'listInstances',
        summary: 'List instances by name',
        tags,
        querystring: Type.Object(
          {
            limit: Limit,
            after: Type.Optional(Type.String({ description: 'The `next` of the page before' })),
            bundle: Type.Optional(Type.String({ description: 'Refers to this bundle, in whatever way' })),
            label: Type.Optional(LabelQuery),
            instanceId: Type.Optional(Type.String({ description: 'What cloud-init knows the machine by' })),
            address: Type.Optional(Type.String({ description: 'Fetched a document from this address' })),
            retired: Type.Optional(Type.Boolean({ description: 'Deleted ones instead' })),
            state: Type.Optional(StateView.properties.state),
            stale: Type.Optional(
              Type.Boolean({
                description:
                  'true: what it fetched last was of other revisions or secrets, or for another version of it, than it would get now',
              }),
            ),
            format: Format,
          },
          { additionalProperties: false },
        ),
        response: {
          200: orText(Type.Object({ items: Type.Array(Type.Ref('InstanceItem#')), next: Nullable(Type.String()) })),
          ...problems(400),
        },
      },
    },
    async (request, reply) => {
      const { limit = LIMITS.pageDefault, after = null, label, format, ...rest } = request.query;
      const filter = { ...rest, labels: label?.map(parseLabel), names: request.actor.scope.instances };
      const items = await instances.list({ after, limit }, filter);
      if (format === 'text')
        return sendColumns(
          reply,
          ['NAME', 'STATE', 'BUNDLES', 'LABELS', 'DELIVERIES', 'LAST', 'UPDATED'],
          items.map((item) => [
            item.name,
            instances.state(item).state,
            item.bundles,
            Object.entries(item.labels).map(([key, value]) => `${key}=${value}`),
            item.deliveryCount,
            nullableTime(item.lastDeliveryAt),
            isoTime(item.updatedAt),
          ]),
        );
      const views = items.map((item) => viewItem(item, instances.state(item)));
      return reply.send({ items: views, next: items.length === limit ? (items.at(-1)?.name ?? null) : null });
    },
  );

  app.put(
    '/instances',
    {
      config: { role: 'editor' },
      bodyLimit: LIMITS.instanceListBytes,
      preParsing: beforeBody(),
      preValidation: readDocumentList,
      schema: {
        operationId: 'putInstances',
        summary: 'Register or change several instances, all or none',
        description: 'A JSON or YAML list, several YAML documents, or NDJSON (application/x-ndjson).',
        tags,
        querystring: WriteQuery,
        body: InstanceListBody,
        consumes: [...DOCUMENT_TYPES, 'application/x-ndjson'],
        response: {
          200: Type.Object({
            changed: Type.Integer({ description: 'How many were registered or changed' }),
            items: Type.Array(Type.Ref('Instance#')),
          }),
          ...problems(400, 413, 415, 422),
        },
      },
    },
    async (request, reply) => {
      const list = request.body.map(({ name, ...body }) => ({ name, spec: toSpec(body), secrets: toSecrets(body) }));
      const reports = await instances.putAll(list, { ...request.query, by: request.actor });
      return reply.send({
        changed: reports.filter(({ changed }) => changed).length,
        items: reports.map((report) => ({ ...viewReport(report, request.actor), changed: report.changed })),
      });
    },
  );

  app.get(
    '/instances/:instance',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'getInstance',
        summary: 'An instance as it was stated, and what there is to say about it now',
        tags,
        params: Params,
        response: { 200: Type.Ref('Instance#'), ...problems(400, 404) },
      },
    },
    async (request, reply) => {
      const report = await instances.get(request.params.instance);
      return sendEtag(reply, instanceEtag(report.instance)).send(viewReport(report, request.actor));
    },
  );

  app.put(
    '/instances/:instance',
    {
      config: { role: 'editor' },
      bodyLimit: LIMITS.instanceBodyBytes,
      preParsing: etag,
      preValidation: readInstance,
      schema: {
        operationId: 'putInstance',
        summary: 'Register an instance, or state the whole of it anew',
        tags,
        params: Params,
        querystring: WriteQuery,
        headers: ConditionHeaders,
        body: InstanceBody,
        consumes: [...DOCUMENT_TYPES, 'multipart/form-data'],
        response: { ...written, ...problems(400, 412, 413, 415, 422) },
      },
    },
    async (request, reply) => {
      const secrets = toSecrets(request.body, request.formSecrets);
      const options = { ...request.query, by: request.actor, preconditions: preconditionsOf(request), secrets };
      return sendWritten(reply, await instances.put(request.params.instance, toSpec(request.body), options), request.query);
    },
  );

  app.patch(
    '/instances/:instance',
    {
      config: { role: 'editor' },
      bodyLimit: LIMITS.instanceBodyBytes,
      preParsing: etag,
      preValidation: readDocument,
      schema: {
        operationId: 'patchInstance',
        summary: 'Change some of an instance (RFC 7396)',
        tags,
        params: Params,
        querystring: WriteQuery,
        headers: ConditionHeaders,
        body: PatchBody,
        consumes: ['application/merge-patch+json', ...DOCUMENT_TYPES],
        response: { 200: Type.Ref('Instance#'), ...problems(400, 404, 412, 413, 415, 422) },
      },
    },
    async (request, reply) => {
      const options = { ...request.query, by: request.actor, preconditions: preconditionsOf(request) };
      const report = await instances.patch(
        request.params.instance,
        (spec) => {
          // There is nothing to merge secrets with, and a null has to get through.
          const { secrets, ...patch } = request.body as JsonObject;
          const merged = mergePatch(spec as unknown as Json, patch) as JsonObject;
          const patched = secrets === undefined ? merged : { ...merged, secrets };
          if (!request.validateInput(patched, InstanceBody)) {
            const validation = request.getValidationFunction(InstanceBody)?.errors ?? [];
            throw Object.assign(new Error('the patched instance does not fit'), { validation, validationContext: 'body' });
          }
          const body = patched as Static<typeof InstanceBody>;
          return { spec: toSpec(body), secrets: toSecrets(body) };
        },
        options,
      );
      return sendWritten(reply, report, request.query);
    },
  );

  app.delete(
    '/instances/:instance',
    {
      config: { role: 'editor' },
      schema: {
        operationId: 'deleteInstance',
        summary: 'Retire an instance: its stubs stop working',
        tags,
        params: Params,
        querystring: Type.Object({ dryRun: DryRun, force: ForceSeed }, { additionalProperties: false }),
        headers: ConditionHeaders,
        response: { 204: Nothing('Gone'), ...problems(400, 403, 404, 409, 412) },
      },
    },
    async (request, reply) => {
      const options = { ...request.query, by: request.actor, preconditions: preconditionsOf(request) };
      await instances.delete(request.params.instance, options);
      return reply.code(204).send(null);
    },
  );

  app.get(
    '/instances/:instance/stub',
    {
      config: { role: 'editor' },
      schema: {
        operationId: 'getStub',
        summary: 'The few bytes that go into Nova',
        description: 'What there is to warn of comes in Bootbundle-Finding headers, so that the body can go into a file.',
        tags,
        params: Params,
        querystring: Type.Object({ form: Type.Optional(StubForm) }, { additionalProperties: false }),
        response: {
          200: file('The stub', 'text/plain'),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const { text, findings } = await instances.stub(request.params.instance, request.query.form ?? 'include-once');
      for (const { code, message } of findings) reply.header('bootbundle-finding', `${code}: ${message}`);
      return reply.type('text/plain; charset=utf-8').send(text);
    },
  );
};

function toSpec(body: Omit<Static<typeof InstanceBody>, 'name'>): InstanceSpec {
  return {
    bundles: body.bundles,
    vars: (body.vars ?? {}) as JsonObject,
    labels: body.labels ?? {},
    metaData: (body.metaData ?? {}) as JsonObject,
    vendorData: body.vendorData ?? null,
    networkConfig: (body.networkConfig ?? null) as string | JsonObject | null,
    policy: body.policy ?? {},
    track: body.track ?? true,
  };
}

/** @throws malformed `duplicate_field` */
function toSecrets(
  { secrets = {} }: Pick<Static<typeof InstanceBody>, 'secrets'>,
  fields: ReadonlyMap<string, Uint8Array> | null = null,
): SecretChanges {
  const twice = Object.keys(secrets).find((name) => fields?.has(name));
  if (twice !== undefined)
    throw malformed('duplicate_field', `the secret ${quoted(twice)} is both in the instance and a field of the form`);
  const stated = Object.entries(secrets).map(([name, value]) => [name, value === null ? null : Buffer.from(value)] as const);
  return new Map<string, Uint8Array | null>([...stated, ...(fields ?? [])]);
}

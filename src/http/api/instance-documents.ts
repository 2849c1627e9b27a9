import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { malformed } from '../../domain/errors.ts';
import { formatExplanation } from '../../explain/explain.ts';
import type { InstanceService } from '../../service/instances.ts';
import { Finding, Format, file, Nothing, Nullable, orText, PathName, problems } from '../schemas.ts';
import { isFresh, sendEtag } from './conditions.ts';
import { printableLines, sendText } from './text.ts';

const Params = Type.Object({ instance: PathName('instance') });
const DOCUMENT = file('The document', 'text/plain');

const OriginName = Nullable(Type.String({ description: 'Where it comes from', examples: ['web@3/dbserver.yaml'] }));
const Remark = Type.Object({
  ...Finding.properties,
  logged: Type.Boolean({ description: 'cloud-init says so itself, in a log on the machine; else it happens without a word' }),
});
const Folder = Type.Union(
  (['boothooks', 'per-once', 'per-boot', 'per-instance', 'scripts'] as const).map((folder) => Type.Literal(folder)),
);
const ExplanationView = Type.Object(
  {
    client: Type.String({ description: 'The cloud-init it speaks of', examples: ['25.1'] }),
    size: Type.Object({ bytes: Type.Integer(), novaLimit: Type.Integer(), fitsNova: Type.Boolean() }),
    isMime: Type.Boolean(),
    failure: Nullable(Remark),
    parts: Type.Array(
      Type.Object({
        filename: Type.String({ description: 'As cloud-init names it' }),
        type: Type.String({ description: 'As cloud-init ends up treating it' }),
        saidType: Nullable(Type.String()),
        encoding: Nullable(Type.String({ description: 'Content-Transfer-Encoding as sent' })),
        size: Type.Integer({ description: 'Bytes, decoded' }),
        merge: Nullable(Type.String()),
        launchIndex: Nullable(Type.String()),
        origin: OriginName,
        takenBy: Type.Object({
          kind: Type.String({ description: 'cloud-init’s own handler, `handler` for one of the document’s, or `nobody`' }),
          filename: Type.Optional(Type.String({ description: 'Of the handler' })),
        }),
      }),
      { description: 'In order, archives and gzip unpacked' },
    ),
    handlers: Type.Array(
      Type.Object({
        filename: Type.String(),
        origin: OriginName,
        types: Nullable(Type.Array(Type.String())),
        version: Nullable(Type.Integer()),
        registered: Type.Boolean(),
        takes: Type.Array(Type.String(), { description: 'File names of the parts it is called with' }),
        replacedBy: Type.Array(Type.Object({ type: Type.String(), filename: Type.String() })),
      }),
    ),
    scripts: Type.Array(
      Type.Object({
        filename: Type.String(),
        folder: Folder,
        from: Type.String({ description: 'The part' }),
        origin: OriginName,
        size: Type.Integer(),
      }),
      { description: 'In the order in which a first boot runs them' },
    ),
    overwrites: Type.Array(Type.Object({ folder: Folder, filename: Type.String(), lost: Type.String(), kept: Type.String() })),
    config: Nullable(
      Type.Object({
        yaml: Type.String({ description: 'All cloud-configs, merged' }),
        keys: Type.Array(Type.Object({ key: Type.String(), origins: Type.Array(Type.String()) })),
      }),
    ),
    unhandled: Type.Array(Type.String(), { description: 'File names of parts that nobody takes' }),
    includes: Type.Array(Type.Object({ from: Type.String(), url: Type.String(), once: Type.Boolean() })),
    warnings: Type.Array(Remark),
    versions: Type.Array(Type.String(), { description: 'Where versions of cloud-init differ on this very document' }),
  },
  { $id: 'Explanation', description: 'What a first boot of cloud-init makes of a document' },
);

/** What the routes' answers refer to by name. */
export const explanationSchemas = [ExplanationView];

/** What a machine would get now, looked at by an operator. None of it is a delivery. */
export const instanceDocumentRoutes: FastifyPluginAsyncTypebox<{ instances: InstanceService }> = async (app, { instances }) => {
  const tags = ['instances'];

  app.get(
    '/instances/:instance/user-data',
    {
      config: { role: 'editor' },
      schema: {
        operationId: 'getUserData',
        summary: 'The exact bytes it would get now; not a delivery',
        tags,
        params: Params,
        querystring: Type.Object(
          {
            reveal: Type.Optional(
              Type.Boolean({ description: 'Needed when secrets are in it, and the role admin for it; goes into the audit' }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: DOCUMENT, 304: Nothing('Not modified'), ...problems(400, 403, 404, 422) },
      },
    },
    async (request, reply) => {
      const document = await instances.userData(request.params.instance, request.query.reveal ?? false, request.actor);
      sendEtag(reply, document.digest);
      if (isFresh(request, document.digest)) return reply.code(304).send(null);
      return sendText(reply, document.bytes);
    },
  );

  app.get(
    '/instances/:instance/preview',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'previewUserData',
        summary: 'The document as a person reads it, with ‹secret:name› in the secrets’ places; not a delivery',
        description: 'To a viewer the machine’s capability is <hidden>.',
        tags,
        params: Params,
        response: { 200: DOCUMENT, ...problems(400, 404, 422) },
      },
    },
    async (request, reply) => sendText(reply, (await instances.preview(request.params.instance, request.actor)).bytes),
  );

  app.get(
    '/instances/:instance/explain',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'explainUserData',
        summary: 'What cloud-init will make of the document; secrets are left out',
        tags,
        params: Params,
        querystring: Type.Object({ format: Format }, { additionalProperties: false }),
        response: { 200: orText(Type.Ref('Explanation#')), ...problems(400, 404, 422) },
      },
    },
    async (request, reply) => {
      const explanation = await instances.explain(request.params.instance, request.actor);
      if (request.query.format === 'text') return sendText(reply, printableLines(formatExplanation(explanation)));
      return reply.send(explanation);
    },
  );

  app.get(
    '/instances/:instance/diff',
    {
      config: { role: 'viewer' },
      schema: {
        operationId: 'diffInstance',
        summary: 'What changed between two of its documents, as a unified diff, part by part; secrets are left out',
        description: 'Empty when nothing did.',
        tags,
        params: Params,
        querystring: Type.Object(
          {
            from: Type.String({ description: 'A delivery (`delivery:ID`, as …/deliveries lists it), or `now`' }),
            to: Type.Optional(Type.String({ description: 'The same; `now`' })),
          },
          { additionalProperties: false },
        ),
        response: { 200: file('A diff', 'text/plain'), ...problems(400, 404, 409, 422) },
      },
    },
    async (request, reply) => {
      const { from, to = 'now' } = request.query;
      return sendText(reply, await instances.diff(request.params.instance, moment(from), moment(to)));
    },
  );
};

/** A delivery's id, or null for now. @throws malformed `bad_moment` */
function moment(text: string): number | null {
  if (text === 'now') return null;
  const [, id] = /^delivery:([0-9]{1,15})$/.exec(text) ?? [];
  if (id === undefined) throw malformed('bad_moment', 'from and to are now, or delivery:ID with an id that …/deliveries lists');
  return Number(id);
}

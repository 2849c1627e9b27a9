import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import type { ReportService } from '../../service/reports.ts';
import { Format, file, orText, PathName, problems, Time } from '../schemas.ts';
import { isoTime, printableLines, sendColumns, sendText } from './text.ts';

const LogView = Type.Object(
  {
    name: Type.String({ examples: ['cloud-init-output.log'] }),
    at: Time,
    bytes: Type.Integer({ description: 'Of what is kept' }),
    truncated: Type.Boolean({ description: 'Whether its beginning is missing' }),
  },
  { $id: 'Log', description: 'The end of a log that a machine sent' },
);

/** What the routes' answers refer to by name. */
export const logSchemas = [LogView];

/** The ends of machines' logs. A script may have printed a secret into one: they are not for everybody who may look. */
export const logRoutes: FastifyPluginAsyncTypebox<{ reports: ReportService }> = async (app, { reports }) => {
  const tags = ['ledger'];

  app.get(
    '/instances/:instance/logs',
    {
      schema: {
        operationId: 'listLogs',
        summary: 'The logs an instance sent, newest first',
        tags,
        params: Type.Object({ instance: PathName('instance') }),
        querystring: Type.Object({ format: Format }, { additionalProperties: false }),
        response: {
          200: orText(Type.Object({ items: Type.Array(Type.Ref('Log#')), next: Type.Null() })),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const logs = await reports.logs(request.params.instance);
      const items = logs.map(({ at, log: { name, text, truncated } }) => ({
        name,
        at: isoTime(at),
        bytes: Buffer.byteLength(text),
        truncated,
      }));
      if (request.query.format === 'text')
        return sendColumns(
          reply,
          ['NAME', 'AT', 'BYTES', 'TRUNCATED'],
          items.map(({ name, at, bytes, truncated }) => [name, at, bytes, truncated]),
        );
      return reply.send({ items, next: null });
    },
  );

  app.get(
    '/instances/:instance/logs/:log',
    {
      schema: {
        operationId: 'getLog',
        summary: 'The end of the newest log of a name, in the machine’s own words',
        tags,
        params: Type.Object({ instance: PathName('instance'), log: Type.String() }),
        response: { 200: file('As it was sent, but for control characters', 'text/plain'), ...problems(400, 404) },
      },
    },
    async (request, reply) => {
      const { log } = await reports.log(request.params.instance, request.params.log);
      return sendText(reply, printableLines(log.text.replaceAll('\r\n', '\n')));
    },
  );
};

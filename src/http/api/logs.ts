import { type FastifyPluginAsyncTypebox, Type } from '@fastify/type-provider-typebox';
import { LOG_NAMES } from '../../domain/report.ts';
import type { KeptLog, ReportService } from '../../service/reports.ts';
import { Format, file, orText, PathName, problems, Time } from '../schemas.ts';
import { isoTime, printableLines, sendColumns, sendText } from './text.ts';

const LogView = Type.Object(
  {
    id: Type.Integer(),
    name: Type.Union(LOG_NAMES.map((name) => Type.Literal(name))),
    at: Time,
    bytes: Type.Integer(),
    truncated: Type.Boolean({ description: 'The beginning is missing' }),
  },
  { $id: 'Log', description: 'The end of a log, as the machine sent it' },
);

/** What the routes' answers refer to by name. */
export const logSchemas = [LogView];

/** What machines sent of their logs. Scripts print what they like there, secrets too. */
export const logRoutes: FastifyPluginAsyncTypebox<{ reports: ReportService }> = async (app, { reports }) => {
  app.get(
    '/instances/:instance/logs',
    {
      config: { role: 'editor' },
      schema: {
        operationId: 'listLogs',
        summary: 'The ends of its logs that an instance has sent, newest first',
        tags: ['ledger'],
        params: Type.Object({ instance: PathName('instance') }),
        querystring: Type.Object({ format: Format }, { additionalProperties: false }),
        response: {
          200: orText(Type.Object({ items: Type.Array(Type.Ref('Log#')), next: Type.Null() })),
          ...problems(400, 404),
        },
      },
    },
    async (request, reply) => {
      const items = (await reports.logs(request.params.instance)).map(viewLog);
      if (request.query.format === 'text')
        return sendColumns(
          reply,
          ['ID', 'AT', 'BYTES', 'TRUNCATED', 'NAME'],
          items.map(({ id, at, bytes, truncated, name }) => [id, at, bytes, truncated, name]),
        );
      return reply.send({ items, next: null });
    },
  );

  app.get(
    '/instances/:instance/logs/:log',
    {
      config: { role: 'editor' },
      schema: {
        operationId: 'getLog',
        summary: 'The newest end of a log, as it was sent',
        tags: ['ledger'],
        params: Type.Object({ instance: PathName('instance'), log: Type.String({ description: LOG_NAMES.join(', ') }) }),
        querystring: Type.Object(
          {
            id: Type.Optional(
              Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER, description: 'An older one, by its id' }),
            ),
            format: Type.Optional(Type.Literal('text', { description: 'For a terminal: control characters become ?' })),
          },
          { additionalProperties: false },
        ),
        response: { 200: file('The text, to be saved', 'text/plain'), ...problems(400, 404) },
      },
    },
    async (request, reply) => {
      const { instance, log: name } = request.params;
      const { id = null, format } = request.query;
      const { log } = await reports.log(instance, name, id);
      if (format === 'text') return sendText(reply, printableLines(log.text));
      return sendText(reply.header('content-disposition', `attachment; filename="${log.name}"`), log.text);
    },
  );
};

function viewLog({ id, at, log: { name, text, truncated } }: KeptLog) {
  return { id, name, at: isoTime(at), bytes: Buffer.byteLength(text), truncated };
}

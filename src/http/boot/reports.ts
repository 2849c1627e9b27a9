import { type FastifyPluginAsyncTypebox, type Static, type TSchema, Type } from '@fastify/type-provider-typebox';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { BootbundleError, invalid, notFound } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import { fingerprintOf, LOG_NAMES, type PhoneHome, type ReportBody } from '../../domain/report.ts';
import type { ReportService } from '../../service/reports.ts';
import { bodyOf, parseJson } from '../document.ts';
import { classify, sendBootLine } from '../errors.ts';
import { machineSchema } from '../schemas.ts';

/**
 * What became of a report: `ignored`, since it is of a kind that tells nothing; `refused`, for its capability or its form; `limited`, since there were
 * too many; `failed`, by our own trouble.
 */
export type OnReport = (
  kind: ReportBody['kind'],
  outcome: 'stored' | 'repeated' | 'ignored' | 'refused' | 'limited' | 'failed',
) => void;

declare module 'fastify' {
  interface FastifyRequest {
    /** What became of a report that was taken. */
    reportOutcome: 'stored' | 'repeated' | 'ignored' | null;
  }
  interface FastifyContextConfig {
    /** What this URL takes. */
    report?: ReportBody['kind'];
  }
}

/** What the applier of the bundle `kube` posts (src/guest/README.md). A newer one may say more: it is passed over. */
const ManifestBody = Type.Object({
  id: Type.String({ minLength: 1, maxLength: 200 }),
  file: Type.String({ minLength: 1, maxLength: 300 }),
  part: Type.String({ maxLength: 300 }),
  sha256: Type.String({ maxLength: 64 }),
  status: Type.Union([Type.Literal('applied'), Type.Literal('failed'), Type.Literal('retrying')]),
  attempts: Type.Integer({ minimum: 0, maximum: 1_000_000_000 }),
  // None where there was no client to try with.
  client: Type.Optional(Type.String({ maxLength: 100 })),
  clientVersion: Type.Optional(Type.String({ maxLength: 100 })),
  output: Type.String({ maxLength: 16_384 }),
  at: Type.Integer({ minimum: 0, maximum: 8_640_000_000_000_000 }),
});

/** What cloud-init's webhook posts (reporting/events.py, as_dict). What else it says is passed over. */
const EventBody = Type.Object({
  name: Type.String({ minLength: 1 }),
  description: Type.String(),
  event_type: Type.String({ description: '`start`, `finish`; others are passed over' }),
  timestamp: Type.Number({ minimum: 0, maximum: 8_640_000_000_000, description: 'Seconds' }),
  result: Type.Optional(Type.String({ description: '`SUCCESS`, `WARN`, `FAIL`' })),
});

/** Characters that are kept of what a machine says. */
const KEPT = { name: 200, description: 1000, result: 20, host: 255, key: 10_000 };

const HOST_KEY = /^pub_key_([a-z0-9]{1,20})$/;
const HOST_KEYS = 8;

/** Machines' reports. What comes is whatever a root on that machine wants to say: it is held to its shape, kept, and shown as such. */
export const reportRoutes: FastifyPluginAsyncTypebox<{ reports: ReportService; onReport?: OnReport }> = async (
  app,
  { reports, onReport },
) => {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  app.decorateRequest('reportOutcome', null);
  app.setErrorHandler(sendRefusal);
  // Before the body is read: who made the URL up has nothing of it looked at.
  app.addHook<{ Params: { capability: string } }>('onRequest', async (request) => {
    if (!reports.knows(request.params.capability)) throw notFound('unknown_capability', 'no such machine');
  });
  app.addHook('onResponse', async (request, reply) => {
    const { report } = request.routeOptions.config;
    if (report) onReport?.(report, request.reportOutcome ?? REFUSALS[reply.statusCode] ?? 'refused');
  });

  async function keep(request: FastifyRequest, reply: FastifyReply, body: ReportBody | null): Promise<FastifyReply> {
    const { capability } = request.params as { capability: string };
    const kept = body && (await reports.report(capability, body));
    if (kept) request.instanceName = kept.instance;
    request.reportOutcome = kept?.outcome ?? 'ignored';
    return reply.code(204).send(null);
  }

  app.post(
    '/r/:capability/events',
    {
      bodyLimit: LIMITS.eventBytes,
      config: { report: 'event', requestBody: jsonBody(EventBody) },
      schema: reportSchema('reportEvent', 'One of cloud-init’s events, from its webhook'),
    },
    async (request, reply) => keep(request, reply, eventOf(readBody(request, EventBody, 'a cloud-init event'))),
  );

  app.post(
    '/r/:capability/phone-home',
    {
      bodyLimit: LIMITS.reportBytes,
      config: {
        report: 'phoneHome',
        requestBody: {
          required: true,
          content: {
            'application/x-www-form-urlencoded': { schema: { type: 'object', additionalProperties: { type: 'string' } } },
          },
        },
      },
      schema: reportSchema('reportPhoneHome', 'What cloud-init’s phone_home posts: names and public SSH host keys'),
    },
    async (request, reply) => keep(request, reply, { kind: 'phoneHome', phoneHome: phoneHomeOf(formOf(bodyOf(request))) }),
  );

  app.post<{ Params: { capability: string; name: string }; Querystring: { truncated?: string } }>(
    '/r/:capability/logs/:name',
    {
      bodyLimit: LIMITS.reportBytes,
      config: { report: 'log', requestBody: { required: true, content: { 'text/plain': { schema: { type: 'string' } } } } },
      schema: {
        ...reportSchema('reportLog', 'The end of a log'),
        params: Type.Object({
          capability: Type.String({ description: 'The unguessable part of the URL' }),
          name: Type.String({ description: LOG_NAMES.join(', ') }),
        }),
        querystring: Type.Object({ truncated: Type.Optional(Type.String({ description: 'true: its beginning is missing' })) }),
      },
    },
    async (request, reply) => {
      const name = LOG_NAMES.find((each) => each === request.params.name);
      if (!name) throw notFound('unknown_log', 'no such log');
      const body = bodyOf(request);
      if (body.length === 0) throw badReport('it is empty');
      const truncated = request.query.truncated === 'true';
      return keep(request, reply, { kind: 'log', log: { name, text: body.toString('utf8'), truncated } });
    },
  );

  app.post(
    '/r/:capability/manifests',
    {
      bodyLimit: LIMITS.reportBytes,
      config: { report: 'manifest', requestBody: jsonBody(ManifestBody) },
      schema: reportSchema('reportManifest', 'A manifest’s result, from the applier of the bundle kube'),
    },
    async (request, reply) => {
      const body = readBody(request, ManifestBody, 'a manifest result');
      const { id, file, part, sha256, status, attempts, output, at, client = '', clientVersion = '' } = body;
      const manifest = { id, file, part, sha256, status, attempts, client, clientVersion, output, at };
      return keep(request, reply, { kind: 'manifest', manifest });
    },
  );
};

const REFUSALS: Record<number, 'limited' | 'failed'> = { 429: 'limited', 500: 'failed', 503: 'failed', 507: 'failed' };

/** The sender drops what is refused with a 4xx, since it would be refused again; all but 429. */
function sendRefusal(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { kind, code, message } = classify(error);
  const status = code === 'too_many_reports' ? 429 : kind === 'invalid' ? 400 : kind === 'too_large' ? 413 : null;
  if (status === null) return sendBootLine(error, request, reply);
  if (status === 429) reply.header('retry-after', '5');
  reply.header('cache-control', 'no-store');
  return reply.code(status).type('text/plain; charset=utf-8').send(`${message}\n`);
}

function reportSchema(operationId: string, summary: string) {
  return machineSchema(
    operationId,
    summary,
    { status: 204, description: 'Kept; sent twice, kept once' },
    { 400: 'No such report: its sender drops it', 413: 'Too large: its sender drops it', 429: 'Too many: asked again' },
  );
}

function jsonBody(schema: TSchema) {
  return { required: true, content: { 'application/json': { schema } } };
}

/** @throws invalid `bad_report` */
function readBody<T extends TSchema>(request: FastifyRequest, schema: T, what: string): Static<T> {
  const body = readJson(bodyOf(request));
  if (!request.validateInput(body, schema)) throw badReport(`it does not have the fields of ${what}`);
  return body as Static<T>;
}

function readJson(body: Buffer): unknown {
  try {
    return parseJson(body, 'the report');
  } catch (error) {
    if (error instanceof BootbundleError) throw badReport(error.message);
    throw error;
  }
}

/** Null for what tells nothing of a boot's stages: on some clouds cloud-init posts diagnostics, too. */
function eventOf({ name, description, event_type: type, timestamp, result }: Static<typeof EventBody>): ReportBody | null {
  if (type !== 'start' && type !== 'finish') return null;
  const event = {
    name: cut(name, KEPT.name),
    type,
    description: cut(description, KEPT.description),
    result: result === undefined ? null : cut(result, KEPT.result),
    at: Math.round(timestamp * 1000),
  } as const;
  return { kind: 'event', event };
}

/** The fields of a form. @throws invalid `bad_report` for what is not UTF-8, and a field that comes twice */
function formOf(body: Buffer): Map<string, string> {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw badReport('it is not UTF-8');
  }
  const form = new Map<string, string>();
  for (const [name, value] of new URLSearchParams(text)) {
    if (form.has(name)) throw badReport('it has a field twice');
    form.set(name, value);
  }
  return form;
}

/** What is posted of a key that is not there is `N/A` (config/cc_phone_home.py). */
function phoneHomeOf(form: ReadonlyMap<string, string>): PhoneHome {
  const said = (name: string) => cut(form.get(name) ?? '', KEPT.host);
  const hostKeys: { kind: string; key: string; fingerprint: string | null }[] = [];
  for (const [name, value] of form) {
    const kind = HOST_KEY.exec(name)?.[1];
    const key = cut(value.trim(), KEPT.key);
    if (kind !== undefined && key !== '' && key !== 'N/A' && hostKeys.length < HOST_KEYS)
      hostKeys.push({ kind, key, fingerprint: fingerprintOf(key) });
  }
  const phoneHome = { instanceId: said('instance_id'), hostname: said('hostname'), fqdn: said('fqdn'), hostKeys };
  if (phoneHome.instanceId === '' && phoneHome.hostname === '' && hostKeys.length === 0)
    throw badReport('it has no field of a phone-home');
  return phoneHome;
}

function cut(text: string, characters: number): string {
  return text.slice(0, characters).toWellFormed();
}

function badReport(why: string): BootbundleError {
  return invalid('bad_report', why);
}

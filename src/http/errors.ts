import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { BootbundleError, type ErrorKind } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';

/** RFC 9457, with our `code`, the request id that stands in the log, and findings where an inspection found them. */
export interface Problem {
  type: 'about:blank';
  title: string;
  status: number;
  detail: string;
  code: string;
  requestId: string;
  findings?: readonly Finding[];
  lines?: readonly string[];
}

/** The operators' table. */
const STATUS: Record<ErrorKind, readonly [status: number, title: string]> = {
  malformed: [400, 'Bad Request'],
  unauthenticated: [401, 'Unauthorized'],
  forbidden: [403, 'Forbidden'],
  not_found: [404, 'Not Found'],
  conflict: [409, 'Conflict'],
  would_break: [409, 'Conflict'],
  gone: [410, 'Gone'],
  precondition_failed: [412, 'Precondition Failed'],
  too_large: [413, 'Content Too Large'],
  unsupported: [415, 'Unsupported Media Type'],
  invalid: [422, 'Unprocessable Content'],
  internal: [500, 'Internal Server Error'],
  unavailable: [503, 'Service Unavailable'],
  timed_out: [504, 'Gateway Timeout'],
  storage_full: [507, 'Insufficient Storage'],
};

/** What kind of error this is: ours as it is, the framework's by its status, anything else `internal` with its message kept back. */
export function classify(error: unknown): BootbundleError {
  if (error instanceof BootbundleError) return error;
  const { validation, code, statusCode = 500, message } = error as Partial<FastifyError>;
  if (validation) return new BootbundleError('malformed', 'bad_request', explainValidation(error as FastifyError));
  switch (code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new BootbundleError('too_large', 'body_too_large', 'the body is larger than this URL takes');
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new BootbundleError('unsupported', 'bad_content_type', 'the Content-Type header is not a media type');
    case 'FST_ERR_BAD_URL':
      return new BootbundleError(
        'malformed',
        'bad_url',
        'the URL has a % that is not followed by two hex digits of UTF-8 text',
      );
    case 'FST_ERR_MAX_PARAM_LENGTH':
      return new BootbundleError('malformed', 'bad_name', 'a part of the URL is longer than any name can be');
    case 'FST_ERR_CTP_INVALID_CONTENT_LENGTH':
    case 'ECONNRESET':
    case 'ABORT_ERR':
      return new BootbundleError('malformed', 'body_cut_short', 'the body ended before its Content-Length');
  }
  if (statusCode >= 400 && statusCode < 500) return new BootbundleError('malformed', 'bad_request', message ?? 'bad request');
  return new BootbundleError('internal', 'internal', 'this is our fault; the log has the details under the request id', {
    cause: error,
  });
}

function explainValidation({ validation, validationContext }: FastifyError): string {
  const [first] = validation ?? [];
  if (!first) return 'the request does not fit';
  const where = validationContext === 'querystring' ? 'query' : (validationContext ?? 'body');
  const path = first.instancePath.replaceAll('/', '.').replace(/^\./, '');
  const at = path ? `${where}: ${path}` : where;
  const extra = first.params.additionalProperty ?? first.params.unevaluatedProperty;
  if (extra !== undefined) return `${at}: unknown ${where === 'query' ? 'parameter' : 'field'} ${JSON.stringify(extra)}`;
  const allowed = first.params.allowedValues;
  return `${at} ${first.message}${Array.isArray(allowed) ? `: ${allowed.join(', ')}` : ''}`;
}

/**
 * JSON as a person at a terminal reads it, with a final newline. What could move its cursor or turn its writing round is escaped: machines
 * say what they like, and JSON.stringify escapes only what is below U+0020.
 */
export function formatJson(value: unknown): string {
  return `${escapeControls(JSON.stringify(value, null, 2))}\n`;
}

/** JSON in one line. */
export function formatJsonLine(value: unknown): string {
  return escapeControls(JSON.stringify(value));
}

function escapeControls(json: string): string {
  return json.replace(/(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, '0')}`).join(
      '',
    ),
  );
}

/** Answers an operator: problem+json. What is our fault goes to the log with its cause. */
export function sendProblem(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { kind, code, message, findings, lines } = classify(error);
  const [status, title] = STATUS[kind];
  if (status >= 500 && kind !== 'timed_out') request.log.error({ err: error }, code);
  if (kind === 'unauthenticated') reply.header('www-authenticate', 'Bearer realm="bootbundle", Basic realm="bootbundle"');
  if (kind === 'unavailable') reply.header('retry-after', '5');
  const problem: Problem = { type: 'about:blank', title, status, detail: message, code, requestId: request.id };
  if (findings) problem.findings = findings;
  if (lines) problem.lines = lines;
  return reply.code(status).type('application/problem+json').serializer(formatJson).send(problem);
}

/**
 * Answers a machine: one plain line, with the status chosen by what cloud-init does with it (boot/README.md). Our own trouble is 503,
 * which is asked again; never a 500, and never anything of the URL. What is refused says what an operator has to do.
 */
export function sendBootLine(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { kind, code, message } = classify(error);
  reply.type('text/plain; charset=utf-8').header('cache-control', 'no-store');
  switch (kind) {
    case 'not_found':
    case 'malformed':
    case 'unsupported':
    case 'too_large':
      return reply.code(404).send('not found\n');
    case 'gone':
      return reply.code(410).send(`${message}\n`);
    case 'forbidden':
      return reply.code(403).send(`${message}\n`);
    default:
      request.log.error({ err: error }, code);
      return reply.code(503).header('retry-after', '5').send('temporarily unavailable, ask again\n');
  }
}

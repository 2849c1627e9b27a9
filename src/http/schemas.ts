import { type TSchema, Type } from '@fastify/type-provider-typebox';
import { LIMITS } from '../domain/limits.ts';
import { NAME_PATTERN, PART_NAME_PATTERN } from '../domain/names.ts';

/** Shapes that several route files share; a body's own schema lives in the route file that uses it. */

export const Name = (what: string) => Type.String({ description: `${what} name`, pattern: NAME_PATTERN });
export const FileName = Type.String({ description: 'Part file name', pattern: PART_NAME_PATTERN });

/** Path parameters are described here and judged by the domain, whose error says what to do. */
export const PathName = (what: string) => Type.String({ description: `${what} name` });

export const Time = Type.String({ format: 'date-time', description: 'RFC 3339, UTC' });
export const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' });
/** Any JSON object. */
export const FreeObject = (description: string) => Type.Object({}, { additionalProperties: true, description });
export const Nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

export const Finding = Type.Object(
  {
    severity: Type.Union([Type.Literal('error'), Type.Literal('warning')]),
    code: Type.String({ examples: ['unhandled_part'] }),
    part: Type.Optional(Type.String({ examples: ['web@3/dbserver.yaml'] })),
    line: Type.Optional(Type.Integer({ minimum: 1 })),
    column: Type.Optional(Type.Integer({ minimum: 1 })),
    message: Type.String(),
  },
  { $id: 'Finding', description: 'One remark of an inspection; it never quotes content' },
);
export const Findings = Type.Array(Type.Ref('Finding#'));

export const Problem = Type.Object(
  {
    type: Type.Literal('about:blank'),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: 'Says what to do' }),
    code: Type.String({ description: 'A stable word for programs' }),
    requestId: Type.String({ description: 'Stands in the log, too' }),
    findings: Type.Optional(Type.Array(Type.Ref('Finding#'))),
    lines: Type.Optional(Type.Array(Type.String(), { description: 'What happened last, for a person' })),
  },
  {
    $id: 'Problem',
    description: 'RFC 9457 problem details',
    examples: [
      {
        type: 'about:blank',
        title: 'Unprocessable Content',
        status: 422,
        detail:
          'my-atomic-server: db@1/dbserver.yaml: neither cloud-init nor a part handler of this document takes text/x-kube-pod: add a part handler whose list_types names text/x-kube-pod',
        code: 'unhandled_part',
        requestId: 'req-1',
      },
    ],
  },
);

export const DryRun = Type.Optional(Type.Boolean({ description: 'Answer what would happen, change nothing' }));
/** The query of a write that takes nothing else. */
export const WriteQuery = Type.Object({ dryRun: DryRun }, { additionalProperties: false });
const consent = {
  accept: Type.Optional(
    Type.Array(Type.String(), { maxItems: 1000, description: 'Instances that may break: their names, with commas between' }),
  ),
  force: Type.Optional(Type.Boolean({ description: 'All may break; needs the role admin' })),
};
/** The query of a change of what machines share. */
export const ConsentQuery = Type.Object({ dryRun: DryRun, ...consent }, { additionalProperties: false });
/** Of one that makes a revision. */
export const publishFields = {
  dryRun: DryRun,
  message: Type.Optional(
    Type.String({ maxLength: LIMITS.messageLength, description: 'What there is to say of the new revision: one line' }),
  ),
  ...consent,
};
export const PublishQuery = Type.Object(publishFields, { additionalProperties: false });
export const Limit = Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, description: 'Items per page (100)' }));
export const Format = Type.Optional(
  Type.Union([Type.Literal('json'), Type.Literal('text')], { description: 'text: aligned columns for a person' }),
);

/** What a write may be conditional on. */
export const ConditionHeaders = Type.Object({
  'if-match': Type.Optional(Type.String({ description: 'Only when the entity tag is (one of) this' })),
  'if-none-match': Type.Optional(Type.String({ description: '`*`: only when it does not exist yet' })),
});

/** An answer without a body. */
export const Nothing = (description: string) => Type.Null({ description });
/** An answer that is a file: bytes, whatever its media type. */
export const file = (description: string, ...mediaTypes: string[]) => ({
  description,
  content: Object.fromEntries(
    mediaTypes.map((type) => [type, { schema: Type.Unsafe<Buffer | string>({ type: 'string', format: 'binary' }) }]),
  ),
});

/** An answer in JSON, with `?format=text` in columns for a person, and in what else `?format=` may ask for. */
export const orText = <T extends TSchema>(schema: T, ...mediaTypes: string[]) => ({
  description: 'As asked for',
  content: {
    'application/json': { schema },
    'text/plain': { schema: Type.String() },
    ...file('', ...mediaTypes).content,
  },
});

/** What the routes of the machines' scope have in common, for the OpenAPI document. A machine may add what it likes to its URL. */
export function machineSchema(
  operationId: string,
  summary: string,
  answer: { status: number; description: string },
  refusals: Record<number, string> = {},
) {
  const line = (description: string) => ({ description, content: { 'text/plain': { schema: Type.String() } } });
  return {
    operationId,
    summary,
    tags: ['machines'],
    security: [],
    params: Type.Object({ capability: Type.String({ description: 'The unguessable part of the URL' }) }),
    querystring: Type.Object({}),
    response: {
      [answer.status]: answer.status === 204 ? Nothing(answer.description) : line(answer.description),
      ...Object.fromEntries(Object.entries(refusals).map(([status, description]) => [status, line(description)])),
      404: line('Unknown, malformed, of another purpose, of a deleted instance: final'),
      503: line('Our own trouble: asked again after Retry-After seconds'),
    },
  };
}

/** The error answers of an operators' route, for the OpenAPI document. 401, 403 and 503 go without saying. */
export function problems(...statuses: number[]): Record<number, TSchema> {
  const all = [401, 403, 503, ...statuses];
  return Object.fromEntries(all.map((status) => [status, problemAnswer(status)]));
}

const PROBLEM_TITLES: Record<number, string> = {
  400: 'Malformed: syntax, a name, an unknown field or parameter',
  401: 'No token, or not a valid one',
  403: 'Known, and not allowed: the token’s role or scope is too small, or it has to be asked for otherwise',
  404: 'No such thing',
  409: 'Its state forbids the change, or machines that have still to boot would break (findings say which and why)',
  412: 'A condition (If-Match, If-None-Match) does not hold',
  413: 'Past a documented limit',
  415: 'A media type this URL does not take',
  422: 'Well formed, but it cannot work; findings say why',
  503: 'Our own trouble, ask again after Retry-After seconds',
  504: 'It did not happen in the time that was given',
};

function problemAnswer(status: number): TSchema {
  return {
    description: PROBLEM_TITLES[status] ?? 'Problem',
    content: { 'application/problem+json': { schema: Type.Ref('Problem#') } },
  } as unknown as TSchema;
}

import assert from 'node:assert/strict';
import { Ajv, type ValidateFunction } from 'ajv';
import type { LightMyRequestResponse } from 'fastify';

/** As much of an OpenAPI document as its claims are held against. */
interface OpenApi {
  paths: Record<string, Record<string, { responses: Record<string, { content?: Record<string, { schema: object }> }> }>>;
  components: { schemas: Record<string, object> };
}

/** Holds an answer against what the OpenAPI document says of its route, status and media type. Throws where it is not true. */
export type HoldContract = (method: string, url: string, answer: LightMyRequestResponse) => void;

/** Compiles the claims of an OpenAPI document; a field that no schema names is as wrong as one that is missing. */
export function contractOf(document: object): HoldContract {
  const { paths, components } = closeObjects(document) as OpenApi;
  const ajv = new Ajv({ strict: false });
  ajv.addFormat('date-time', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/).addFormat('binary', true);
  ajv.addSchema({ $id: 'openapi', components });
  const compiled = new Map<object, ValidateFunction>();
  const fits = (schema: object, value: unknown, what: string) => {
    const validate = compiled.get(schema) ?? ajv.compile(pointInto('openapi', schema) as object);
    compiled.set(schema, validate);
    assert.ok(validate(value), `${what}: ${JSON.stringify(validate.errors)}\n${JSON.stringify(value, null, 1)}`);
  };
  const templates = Object.keys(paths).map((path) => ({ path, pattern: new RegExp(`^${path.replace(/\{\w+\}/g, '[^/]+')}$`) }));

  return (method, url, answer) => {
    const { statusCode } = answer;
    const what = `${method} ${url} → ${statusCode}`;
    const [pathname = ''] = url.split('?');
    const path = templates.find(({ pattern }) => pattern.test(pathname))?.path ?? '';
    const operation = paths[path]?.[method === 'HEAD' ? 'get' : method.toLowerCase()];
    const mediaType = String(answer.headers['content-type'] ?? '').split(';', 1)[0] ?? '';
    const declared = operation?.responses[statusCode];
    // A person who asks for a text is told of some refusals in one.
    const told = mediaType === 'text/plain' && declared?.content?.['text/plain'] !== undefined;
    if (statusCode >= 400 && method !== 'HEAD' && !told) {
      assert.equal(mediaType, 'application/problem+json', what);
      const problem = answer.json();
      fits(components.schemas.Problem as object, problem, what);
      assert.equal(problem.status, statusCode, what);
      assert.match(problem.code, /^[a-z0-9_]+$/, what);
      assert.ok(problem.requestId && problem.detail && problem.title, what);
      assert.doesNotMatch(problem.detail, /[\p{Cc}]/u, `${what}: one line`);
      if (statusCode === 503) assert.equal(answer.headers['retry-after'], '5', what);
      if (statusCode === 401) assert.match(String(answer.headers['www-authenticate']), /Bearer .*Basic /, what);
    }
    // A URL that no operation has (a wrong one, or the spelling of a right one with a final slash).
    if (!operation) return assert.ok(statusCode >= 400 || pathname.endsWith('/'), `${what}: not in the OpenAPI document`);
    assert.ok(declared, `${what}: the OpenAPI document does not know this status: ${answer.body}`);
    if (!declared.content) return assert.equal(answer.body, '', what);
    const content = declared.content[mediaType] ?? declared.content['*/*'];
    assert.ok(content, `${what}: the OpenAPI document does not know ${mediaType}`);
    if (mediaType === 'application/json' && method !== 'HEAD') fits(content.schema, answer.json(), what);
  };
}

/** A copy in which an object has only the fields its schema names, unless it says otherwise. */
function closeObjects(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(closeObjects);
  if (node === null || typeof node !== 'object') return node;
  const copy = Object.fromEntries(Object.entries(node).map(([key, value]) => [key, closeObjects(value)]));
  if (copy.type === 'object' && copy.properties && copy.additionalProperties === undefined) copy.additionalProperties = false;
  return copy;
}

function pointInto(base: string, node: unknown): unknown {
  if (Array.isArray(node)) return node.map((item) => pointInto(base, item));
  if (node === null || typeof node !== 'object') return node;
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => [
      key,
      key === '$ref' && String(value).startsWith('#') ? `${base}${value}` : pointInto(base, value),
    ]),
  );
}

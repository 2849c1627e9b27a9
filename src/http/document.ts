import type { FastifyRequest } from 'fastify';
import { CORE_SCHEMA, load, loadAll, mergeTag, YAMLException } from 'js-yaml';
import { malformed, tooLarge, unsupported } from '../domain/errors.ts';
import { checkJson, type Json } from '../domain/json.ts';
import { parseMime } from '../inspect/mime.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Secrets of an instance that came as fields of its form, their bytes as sent; null where there is no form. */
    formSecrets: ReadonlyMap<string, Uint8Array> | null;
  }
}

/** What an operator's own documents are read with: YAML 1.2 (a superset of JSON) and merge keys, bounded against bombs. */
const YAML = { schema: CORE_SCHEMA.withTags(mergeTag), maxDepth: 100, maxAliases: 100 };
/** YAML takes far more memory and time than its text (24 MB: 7 s and 2 GB); JSON does not. */
const YAML_BYTES = 8 * 1024 * 1024;

const JSON_TYPES = new Set(['application/json', 'application/merge-patch+json']);
const YAML_TYPES = new Set(['application/yaml', 'application/x-yaml', 'text/yaml', 'text/x-yaml']);
const NDJSON_TYPES = new Set(['application/x-ndjson', 'application/ndjson', 'application/jsonl']);
/** What curl sends by itself (`-d`), or nothing (`-T`): the body decides. */
const UNSAID_TYPES = new Set(['', 'application/x-www-form-urlencoded', 'application/octet-stream', 'text/plain']);

/** Whether a body of this media type is a JSON or YAML document because it says so. */
export function isSaidDocument(type: string): boolean {
  return JSON_TYPES.has(type) || YAML_TYPES.has(type);
}

/** The media types a JSON or YAML body may have, for the OpenAPI document. */
export const DOCUMENT_TYPES = ['application/json', 'application/yaml'];

/** preValidation hook: turns the bytes of a JSON or YAML body into the value the route's schema judges. */
export async function readDocument(request: FastifyRequest): Promise<void> {
  request.body = parseDocument(mediaType(request), bodyOf(request));
}

/**
 * preValidation hook of an instance: a document, or a form that has it in a field (`-F instance=@x.yaml`), and secrets in others
 * (`-F secrets.tls=@tls.key`), whose bytes stay as they are.
 */
export async function readInstance(request: FastifyRequest): Promise<void> {
  if (mediaType(request) !== 'multipart/form-data') return readDocument(request);
  const form = parseMime(bodyOf(request), { contentType: request.headers['content-type'] ?? '', flat: true });
  if (!form.closed) throw malformed('bad_form', 'the form ends too early, or its boundary is another one');
  const secrets = new Map<string, Uint8Array>();
  const documents: Uint8Array[] = [];
  for (const field of form.children) {
    const name = field.parameter('content-disposition', 'name') ?? '';
    const [, secret] = /^secrets\.(.*)$/s.exec(name) ?? [];
    if (name === 'instance') documents.push(field.raw);
    else if (secret === undefined) throw malformed('unknown_field', `the form has an unknown field ${quoted(name)}`);
    else if (secrets.has(secret)) throw malformed('duplicate_field', `the form has ${quoted(name)} twice`);
    else secrets.set(secret, field.raw);
  }
  const [document, another] = documents;
  if (!document || another)
    throw malformed('bad_form', 'the form needs exactly one field called instance, as in -F instance=@x.yaml');
  request.formSecrets = secrets;
  request.body = parseYaml(document, 'the instance') ?? noBody();
}

/** A name of somebody's as an error message quotes it: one line of bounded length. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 120 ? `${name.slice(0, 120)}…` : name);
}

/** preValidation hook for a list: a JSON or YAML list, several YAML documents, or NDJSON. */
export async function readDocumentList(request: FastifyRequest): Promise<void> {
  request.body = parseList(mediaType(request), bodyOf(request));
}

/** Reads one JSON or YAML document. @throws malformed as parseJson and parseYaml; unsupported `bad_content_type` */
export function parseDocument(type: string, body: Uint8Array): Json {
  if (JSON_TYPES.has(type)) return parseJson(body, 'the body');
  if (!YAML_TYPES.has(type) && !UNSAID_TYPES.has(type)) throw unsupportedDocument();
  return parseYaml(body, 'the body') ?? noBody();
}

/** Reads a list of documents. @throws as parseDocument */
export function parseList(type: string, body: Uint8Array): Json {
  if (NDJSON_TYPES.has(type)) {
    const lines = decode(body, 'the body').split(/\r?\n/);
    return lines.flatMap((line, index) => (line.trim() === '' ? [] : [parseJson(Buffer.from(line), `line ${index + 1}`)]));
  }
  if (JSON_TYPES.has(type)) return parseJson(body, 'the body');
  if (!YAML_TYPES.has(type) && !UNSAID_TYPES.has(type)) throw unsupportedDocument();
  const documents = parseYamlStream(body, 'the body').filter((document) => document !== null);
  return documents.length === 1 && Array.isArray(documents[0]) ? documents[0] : documents;
}

/**
 * Reads one YAML document; null for an empty text.
 * @param what begins the sentence of an error
 * @throws malformed `bad_yaml` with line and column, never quoting the text; `not_utf8`, and as checkJson; too_large `yaml_too_large`
 */
export function parseYaml(body: Uint8Array, what: string): Json {
  const text = decodeYaml(body, what);
  // js-yaml wants a document where there is none; JSON needs no YAML reader, which is slow.
  if (!/^[ \t]*[^\s#]/m.test(text)) return null;
  if (text.trimStart().startsWith('{')) {
    try {
      return parseJson(body, what);
    } catch {
      // YAML's flow style begins so, too; and the YAML reader's error tells more.
    }
  }
  return checked(
    readYaml(() => load(text, YAML), what),
    what,
  );
}

function parseYamlStream(body: Uint8Array, what: string): Json[] {
  const text = decodeYaml(body, what);
  return checked(
    readYaml(() => loadAll(text, YAML), what),
    what,
  ) as Json[];
}

/** Reads JSON. @throws malformed `bad_json` with line and column where they are known, never quoting the text; `not_utf8`, and as checkJson */
export function parseJson(body: Uint8Array, what: string): Json {
  const text = decode(body, what);
  if (text.trim() === '') return noBody();
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    const [, line, column] = /\(line ([0-9]+) column ([0-9]+)\)$/.exec(error instanceof Error ? error.message : '') ?? [];
    throw malformed('bad_json', `${what} is not JSON${line === undefined ? '' : ` at line ${line}, column ${column}`}`);
  }
  return checked(value, what);
}

function readYaml(read: () => unknown, what: string): unknown {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    // Some reasons end in a name or a tag of the text.
    const reason = error.reason.split(/ ?["<!]|: /, 1)[0];
    const where = error.mark ? ` at line ${error.mark.line + 1}, column ${error.mark.column + 1}` : '';
    throw malformed('bad_yaml', `${what} is not YAML${where}: ${reason}`);
  }
}

function checked(value: unknown, what: string): Json {
  checkJson(value, what);
  return value;
}

function decodeYaml(body: Uint8Array, what: string): string {
  if (body.length > YAML_BYTES)
    throw tooLarge('yaml_too_large', `${what}: YAML is taken up to ${YAML_BYTES} bytes; send JSON, a tar or a form`);
  return decode(body, what);
}

function decode(body: Uint8Array, what: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(body);
  } catch {
    throw malformed('not_utf8', `${what} is not UTF-8`);
  }
}

/** A request's body as bytes; none is empty. */
export function bodyOf(request: FastifyRequest): Buffer {
  return Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
}

/** A media type in lower case, without its parameters; '' for none. */
export function mediaType(request: FastifyRequest): string {
  return (request.headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
}

function noBody(): never {
  throw malformed('empty_body', 'the request has no body; send JSON or YAML');
}

function unsupportedDocument() {
  return unsupported('bad_content_type', 'this URL takes JSON (application/json) or YAML (application/yaml)');
}

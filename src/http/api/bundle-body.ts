import { buffer } from 'node:stream/consumers';
import { extract, type Header, pack } from 'tar-stream';
import type { RevisionContent } from '../../domain/bundle.ts';
import { BootbundleError, invalid, malformed, tooLarge, unsupported } from '../../domain/errors.ts';
import { LIMITS } from '../../domain/limits.ts';
import { BUNDLE_OPTIONS_FILE, checkPartName } from '../../domain/names.ts';
import type { BundleUpload, PartUpload } from '../../domain/upload.ts';
import { type MimeEntity, parseMime } from '../../inspect/mime.ts';
import { matchPrefix } from '../../inspect/sniff.ts';
import { isSaidType } from '../../inspect/types.ts';
import { parseJson, parseYaml, quoted } from '../document.ts';
import {
  BundleDocument,
  type BundleOptions,
  checkBundleDocument,
  checkVars,
  formatBundleOptions,
  type PartOptions,
  parseBundleOptions,
  partOptions,
  stated,
} from './bundle-options.ts';

export { formatBundleOptions } from './bundle-options.ts';

const TAR_TYPES = new Set(['application/x-tar', 'application/tar']);
const YAML_TYPES = new Set(['application/yaml', 'application/x-yaml', 'text/yaml', 'text/x-yaml']);
/** What curl says by itself or does not say at all: the body then tells. */
const NOT_SAID = new Set(['', 'application/x-www-form-urlencoded']);

export const BINARY = { type: 'string', format: 'binary' };

/** What a whole bundle may be sent as; for the OpenAPI document, since the body arrives as bytes. */
export const WHOLE_BUNDLE = {
  'application/json': { schema: BundleDocument },
  'application/yaml': { schema: BundleDocument },
  'application/x-tar': {
    schema: { ...BINARY, description: 'Files, and options in bundle.yaml: git archive HEAD:bundles/web' },
  },
  'multipart/form-data': { schema: { type: 'object', additionalProperties: BINARY, description: 'One file field per part' } },
  'multipart/mixed': { schema: { ...BINARY, description: 'A MIME archive made by another tool; order: given' } },
};

/**
 * Reads the body of a PUT or POST of a bundle, whatever form it came in.
 * @param body at most LIMITS.bundleBodyBytes
 * @throws unsupported `bad_content_type`, `gzip_body`; malformed `bad_tar`, `bad_form`, `bad_mime`, `bad_json`, `bad_yaml`, `bad_field`,
 *   `unknown_field`, `bad_name`, `reserved_name`, …; invalid `empty_bundle`, `duplicate_part`, `unknown_part`, `tar_entry`,
 *   `gzip_part`, `bad_option`; too_large `part_too_large`, `too_many_parts`, `mime_limit`, `yaml_too_large`
 */
export async function readBundleUpload(contentType: string | undefined, body: Uint8Array): Promise<BundleUpload> {
  if (isGzip(body))
    throw unsupported('gzip_body', 'the body is compressed: send it as it is, `gunzip -c FILE | curl -T - …` (no -z for tar)');
  switch (bundleForm(contentType, body)) {
    case 'tar':
      return readTar(body);
    case 'form':
      return readForm(contentType ?? '', body);
    case 'mime':
      return readMime(contentType ?? '', body);
    case 'json':
      return readDocument(parseJson(body, 'the body'));
    case 'yaml':
      return readDocument(parseYaml(body, 'the body'));
    case null:
      throw unsupported(
        'bad_content_type',
        'a whole bundle is taken as application/x-tar, multipart/form-data, application/json, application/yaml or multipart/mixed: ' +
          'say which with -H "Content-Type: …"; a single file goes to /bundles/NAME/parts/FILE',
      );
  }
}

/** As what a body holds a bundle; null: it is something else, such as a single file. */
export function bundleForm(
  contentType: string | undefined,
  body: Uint8Array,
): 'tar' | 'form' | 'mime' | 'json' | 'yaml' | null {
  const type = (contentType ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
  if (TAR_TYPES.has(type)) return 'tar';
  if (type === 'multipart/form-data') return 'form';
  if (type.startsWith('multipart/')) return 'mime';
  if (type === 'application/json' || (NOT_SAID.has(type) && startsLikeJson(body))) return 'json';
  return YAML_TYPES.has(type) ? 'yaml' : null;
}

/**
 * A bundle as a tar: the parts in order, then `bundle.yaml` when there is something to say. Same content, same bytes;
 * readBundleUpload reads it back to the same revision.
 * @param bodies by SHA-256; holds every part's
 */
export async function packBundle(content: RevisionContent, bodies: ReadonlyMap<string, Uint8Array>): Promise<Uint8Array> {
  const archive = pack();
  const add = (name: string, body: Uint8Array | string): void => {
    archive.entry({ name, type: 'file', mode: 0o644, uid: 0, gid: 0, mtime: new Date(0) }, Buffer.from(body));
  };
  for (const { filename, sha256 } of content.parts) {
    const body = bodies.get(sha256);
    if (body === undefined) throw new Error(`the body of part ${filename} is missing`);
    add(filename, body);
  }
  const options = formatBundleOptions(content);
  if (options !== null) add(BUNDLE_OPTIONS_FILE, options);
  archive.finalize();
  return buffer(archive);
}

/** Gathers the parts of one upload and holds them to the limits. */
class Parts {
  readonly #parts = new Map<string, PartUpload>();

  add(filename: string, body: Uint8Array, options: PartOptions = {}): void {
    checkUploadName(filename);
    if (this.#parts.has(filename)) throw invalid('duplicate_part', `two parts are called ${quoted(filename)}`);
    if (this.#parts.size === LIMITS.partsPerBundle)
      throw tooLarge('too_many_parts', `a bundle holds at most ${LIMITS.partsPerBundle} parts`);
    checkPartSize(filename, body.length);
    this.#parts.set(filename, { filename, body, ...options });
  }

  /** The parts with the options of `bundle.yaml`; what a part itself said goes first. */
  finish(options: BundleOptions | null): BundleUpload {
    if (this.#parts.size === 0)
      throw invalid('empty_bundle', 'there are no parts in it: did the command that made it find its files?');
    if (options === null) return { parts: [...this.#parts.values()] };
    for (const name of options.parts.keys())
      if (!this.#parts.has(name))
        throw invalid('unknown_part', `${BUNDLE_OPTIONS_FILE} has options for ${quoted(name)}, which is not in the upload`);
    const inOrder = options.listed && options.order === 'given';
    const names = new Set([...(inOrder ? options.parts.keys() : []), ...this.#parts.keys()]);
    const parts = [...names].flatMap((name) => {
      const part = this.#parts.get(name);
      return part === undefined ? [] : [{ ...options.parts.get(name), ...part }];
    });
    return { ...stated(options), parts };
  }
}

// ---- tar

async function readTar(body: Uint8Array): Promise<BundleUpload> {
  const parts = new Parts();
  let options: BundleOptions | null = null;
  const archive = extract();
  archive.end(body);
  try {
    for await (const entry of archive) {
      const name = entry.header.name.replace(/^(?:\.\/+)+/, '');
      // The library says null, other than its types do, for a type it does not know (a sparse file), and for a size it
      // cannot read: then it would wait for the end of that entry for ever.
      const type: Header['type'] | null = entry.header.type;
      const size: number | null = entry.header.size;
      if (size === null) throw badTar();
      if (type === 'directory' && (name === '' || name === '.')) {
        entry.resume();
        continue;
      }
      if (type !== 'file' || name.includes('/')) throw tarEntry(name, type);
      checkPartSize(name, size);
      const content = await buffer(entry);
      if (name !== BUNDLE_OPTIONS_FILE) parts.add(name, content);
      else if (options === null) options = parseBundleOptions(content);
      else throw invalid('duplicate_part', `two files are called ${BUNDLE_OPTIONS_FILE}`);
    }
  } catch (error) {
    if (error instanceof BootbundleError) throw error;
    throw badTar();
  }
  // An archive ends in two blocks of zeros (POSIX pax, "ustar Interchange Format"); without them its end may be missing.
  if (body.length > 0 && (body.length < 1024 || body.subarray(-1024).some((byte) => byte !== 0)))
    throw malformed('bad_tar', 'the tar ends too early: did the command that made it fail?');
  return parts.finish(options);
}

function badTar(): BootbundleError {
  return malformed('bad_tar', 'this is not a tar, or only a piece of one');
}

function tarEntry(name: string, type: string | null): BootbundleError {
  if (type !== 'file' && type !== 'directory')
    return invalid('tar_entry', `${quoted(name)} in the tar is a ${type ?? 'special file'}: a bundle takes plain files only`);
  return invalid(
    'tar_entry',
    `${quoted(name)} in the tar is ${type === 'file' ? 'in a folder' : 'a folder'}: a bundle has none; ` +
      'pack the files themselves, `git archive HEAD:FOLDER` or `tar -C FOLDER -c .`',
  );
}

// ---- multipart/form-data (RFC 7578)

function readForm(contentType: string, body: Uint8Array): BundleUpload {
  const form = parseMime(body, { contentType, flat: true });
  if (form.parameter('content-type', 'boundary') === null) throw malformed('bad_form', 'the Content-Type has no boundary');
  if (!form.closed) throw malformed('bad_form', 'the form ends too early, or its boundary is another one');
  const parts = new Parts();
  const fields = new Map<string, Uint8Array>();
  for (const field of form.children) {
    const disposition = field.header('content-disposition') ?? '';
    const name = field.parameter('content-disposition', 'name');
    if (!/^form-data[ \t]*;/i.test(disposition) || name === null)
      throw malformed('bad_form', 'a piece of the form has no name');
    const filename = field.parameter('content-disposition', 'filename');
    const key = filename === BUNDLE_OPTIONS_FILE ? filename : name;
    if (FORM_FIELDS.has(key)) {
      if (fields.has(key)) throw malformed('duplicate_field', `the form has ${quoted(key)} twice`);
      fields.set(key, field.raw);
    } else if (filename === null) {
      throw malformed(
        'unknown_field',
        `the form has an unknown text field ${quoted(name)}; a file is sent with @, as in -F part=@a.sh`,
      );
    } else {
      parts.add(filename, field.raw, formOptions(filename, field));
    }
  }
  return parts.finish(formFields(fields));
}

const FORM_FIELDS: ReadonlySet<string> = new Set(['order', 'vars', BUNDLE_OPTIONS_FILE]);

function formOptions(filename: string, field: MimeEntity): PartOptions {
  return partOptions(filename, {
    type: isSaidType(field.header('content-type') ?? undefined) ?? undefined,
    merge: unfold(field.header('merge-type')),
  });
}

/** `order` and `vars` may be said in a field of their own or in `bundle.yaml`, not in both. */
function formFields(fields: ReadonlyMap<string, Uint8Array>): BundleOptions | null {
  if (fields.size === 0) return null;
  const file = fields.get(BUNDLE_OPTIONS_FILE);
  const options: BundleOptions = file === undefined ? { parts: new Map(), listed: false } : parseBundleOptions(file);
  const order = fields.get('order');
  const vars = fields.get('vars');
  if ((order && options.order !== undefined) || (vars && options.vars !== undefined))
    throw malformed('duplicate_field', `order or vars is both a field of the form and in ${BUNDLE_OPTIONS_FILE}`);
  if (order !== undefined) {
    const text = Buffer.from(order).toString('latin1').trim();
    if (text !== 'name' && text !== 'given') throw malformed('bad_field', 'order must be name or given');
    options.order = text;
  }
  if (vars !== undefined) options.vars = checkVars(parseYaml(vars, 'vars') ?? {});
  return options;
}

// ---- a MIME archive made by another tool

function readMime(contentType: string, body: Uint8Array): BundleUpload {
  const fromHttp = parseMime(body, { contentType });
  const root = fromHttp.children.length > 0 ? fromHttp : parseMime(body);
  if (!root.isMultipart || root.children.length === 0)
    throw malformed('bad_mime', 'the body is not a MIME multipart, or its boundary is another one');
  const parts = new Parts();
  let position = 0;
  for (const entity of root.walk()) {
    if (entity.isMultipart && entity.children.length > 0) continue;
    if (entity.isMultipart || entity.children.length > 0)
      throw malformed(
        'bad_mime',
        `the archive has a ${quoted(entity.contentType)} in it without parts of its own, or a whole message`,
      );
    position += 1;
    // cloud-init's PART_FN_TPL; handlers/__init__.py
    const filename = entity.filename || `part-${String(position).padStart(3, '0')}`;
    const content = entity.body();
    checkUploadName(filename);
    if (isGzip(content))
      throw invalid(
        'gzip_part',
        `${quoted(filename)} is compressed: cloud-init would lose its type and options; put it in as it is`,
      );
    parts.add(filename, content, mimeOptions(filename, entity));
  }
  return { ...parts.finish(null), order: 'given' };
}

function mimeOptions(filename: string, entity: MimeEntity): PartOptions {
  // Exact spelling, as cloud-init's cloud_config.py looks them up.
  const merge = ['Merge-Type', 'X-Merge-Type']
    .map((name) => entity.headers.find((header) => header.name === name)?.value)
    .find((value) => value !== undefined && value.trim() !== '');
  return partOptions(filename, {
    type: isSniffed(entity) ? undefined : entity.contentType,
    merge: unfold(merge ?? null),
  });
}

/** cloud-init looks into these before it believes them (user_data.py, TYPE_NEEDED). */
function isSniffed(entity: MimeEntity): boolean {
  if (entity.contentType === 'text/x-shellscript')
    return matchPrefix(Buffer.from(entity.body().subarray(0, 256)).toString('latin1')) !== null;
  return entity.contentType === 'text/plain' || entity.contentType === 'text/x-not-multipart';
}

// ---- JSON, YAML

function readDocument(value: unknown): BundleUpload {
  const document = checkBundleDocument(value);
  const parts = new Parts();
  for (const { filename, content, contentBase64, typeSaid, type, merge, template } of document.parts) {
    const options = partOptions(filename, { type: typeSaid === false ? undefined : type, merge, template });
    parts.add(filename, contentOf(filename, content, contentBase64), options);
  }
  return { ...parts.finish(null), ...stated(document) };
}

function contentOf(filename: string, content: string | undefined, contentBase64: string | undefined): Uint8Array {
  if (content !== undefined && contentBase64 === undefined) return Buffer.from(content);
  if (content !== undefined || contentBase64 === undefined)
    throw malformed('bad_field', `part ${quoted(filename)} needs either content or contentBase64`);
  const digits = contentBase64.replace(/\s+/g, '');
  const length = digits.length - (digits.endsWith('==') ? 2 : digits.endsWith('=') ? 1 : 0);
  if (length % 4 === 1 || /[^A-Za-z0-9+/]/.test(digits.slice(0, length)))
    throw malformed('bad_base64', `contentBase64 of part ${quoted(filename)} is not base64 in the standard alphabet`);
  return Buffer.from(digits, 'base64');
}

// ---- shared

/** checkPartName, with the name in the message: an archive holds many. */
function checkUploadName(filename: string): void {
  try {
    checkPartName(filename);
  } catch (error) {
    if (error instanceof BootbundleError) throw malformed(error.code, `${quoted(filename)}: ${error.message}`);
    throw error;
  }
}

function checkPartSize(filename: string, size: number): void {
  if (size > LIMITS.partBytes)
    throw tooLarge('part_too_large', `${quoted(filename)} has ${size} bytes; a part has at most ${LIMITS.partBytes}`);
}

function unfold(header: string | null): string | undefined {
  return header === null ? undefined : header.replace(/(?:\r\n|\r|\n)[ \t]*/g, ' ').trim();
}

function isGzip(bytes: Uint8Array): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b;
}

function startsLikeJson(bytes: Uint8Array): boolean {
  return bytes.find((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d) === 0x7b;
}

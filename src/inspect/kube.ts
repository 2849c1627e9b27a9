import { BootbundleError } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import type { Path } from './json-schema.ts';
import { definedKinds } from './kube-kinds.ts';
import { inspectObject, type Judge } from './kube-object.ts';
import { loadKubeTypes } from './kube-types.ts';
import { type DocumentPlaces, findPlaces, type Place } from './places.ts';
import { inOrder, type Remark, showKey, toFindings } from './remark.ts';
import { KUBE_TYPES } from './types.ts';
import { isMapping, readYaml } from './yaml.ts';

/** Which kinds a typed part may hold; `text/x-kube-manifest` may hold any. */
const KINDS: ReadonlyMap<string, readonly string[]> = new Map([
  ['text/x-kube-pod', ['Pod']],
  ['text/x-kube-service', ['Service']],
  ['text/x-kube-replica', ['ReplicationController', 'ReplicaSet']],
]);

/** Before kind and metadata there were v1beta1 and v1beta2, where `id` names the object and a kubecfg command its kind. */
const OLD_VERSION = /^v1beta[12]$/;

/** With so many remarks no more is looked at. */
const MAX_REMARKS = 1000;

/**
 * Judges a Kubernetes part: YAML or JSON, one document or many, each an object of a kind that belongs into a part of this type; in
 * today's shape (`apiVersion`, `kind`) or in v1beta1's (`id`). Objects of Kubernetes' own kinds are held against the API's types and rules, as a
 * server of today takes them; what a machine's cluster has besides is not known, so that another kind is a warning.
 * @param pause awaited between documents, so that a long manifest does not keep others waiting
 * @returns findings with line and column (1-based), 50 at most; none for a type that is not Kubernetes
 */
export async function inspectManifest(
  filename: string,
  type: string,
  body: Uint8Array,
  pause?: () => Promise<void>,
): Promise<Finding[]> {
  if (!KUBE_TYPES.has(type)) return [];
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  const error = (code: string, message: string, place: Partial<Place> = {}): Finding[] => [
    { severity: 'error', code, part: filename, ...place, message },
  ];
  let documents: unknown[];
  try {
    documents = readManifest(text);
  } catch (cause) {
    if (!(cause instanceof BootbundleError)) throw cause;
    const [{ line, column } = {}] = cause.findings ?? [];
    return error('bad_yaml', cause.message, line !== undefined && column !== undefined ? { line, column } : {});
  }
  if (documents.every((document) => document === null))
    return error('not_a_manifest', 'it holds no Kubernetes object, only comments');

  const places = findManifestPlaces(text);
  const remarks: Remark[] = [];
  const types = await loadKubeTypes();
  const defined = definedKinds(documents.flatMap((document) => [document, ...itemsOf(document)]));
  for (const [index, document] of documents.entries()) {
    if (document === null) continue;
    const judge: Judge = {
      types,
      defined,
      report: (remark) => remarks.push({ ...remark, path: [index, ...remark.path] }),
      full: () => remarks.length >= MAX_REMARKS,
      plain: (path) => places.plain([index, ...path]),
    };
    if (judge.full()) break;
    inspectDocument(judge, type, documents.length > 1 ? `document ${index + 1}` : 'it', document);
    await pause?.();
  }
  return inOrder([...toFindings(filename, remarks, places), ...repeatedKeys(filename, places)]);
}

function inspectDocument(judge: Judge, type: string, name: string, document: unknown): void {
  const refuse = (code: string, message: string, path: Path = []) => judge.report({ severity: 'error', code, path, message });
  if (!isMapping(document)) {
    refuse('not_a_manifest', `${name} is not a Kubernetes object: a mapping with apiVersion and kind is wanted`);
    return;
  }
  const kinds = KINDS.get(type);
  const { apiVersion, kind, id } = document;
  const old =
    (apiVersion === undefined || (typeof apiVersion === 'string' && OLD_VERSION.test(apiVersion))) && id !== undefined;
  if (typeof apiVersion !== 'string' && !old)
    refuse('manifest_without_version', `${name} has no apiVersion (a v1beta1 object has an id instead)`, ['apiVersion']);
  if (typeof kind !== 'string') {
    // The type of the part says the kind of an old object; any other must say its own.
    if (!old || !kinds || kind !== undefined) refuse('manifest_without_kind', `${name} has no kind`, ['kind']);
  } else if (kinds && !kinds.includes(kind)) {
    refuse(
      'wrong_kind',
      `${name} is not a ${kinds.join(' or ')}, which ${type} is for: begin the file with #kube-manifest, or put it into a file of its own`,
      ['kind'],
    );
  }
  if (old || typeof apiVersion !== 'string' || typeof kind !== 'string') return;
  if (isList(judge, apiVersion, kind)) inspectList(judge, apiVersion, kind, document);
  else inspectObject(judge, apiVersion, kind, document, []);
}

/** `List` of any kinds, or such as `PodList`. kubectl takes each item by itself, and the list's own fields for nothing. */
function isList(judge: Judge, apiVersion: string, kind: string): boolean {
  return (apiVersion === 'v1' && kind === 'List') || judge.types.typeOf(apiVersion, itemKind(kind)) !== null;
}

function itemKind(listKind: string): string {
  return listKind.endsWith('List') ? listKind.slice(0, -'List'.length) : '';
}

function inspectList(judge: Judge, listVersion: string, listKind: string, list: Record<string, unknown>): void {
  for (const [index, item] of itemsOf(list).entries()) {
    if (judge.full()) return;
    const path = ['items', index];
    const refuse = (code: string, message: string) => judge.report({ severity: 'error', code, path, message });
    if (!isMapping(item)) {
      refuse('not_a_manifest', `item ${index + 1} is not a Kubernetes object: a mapping with apiVersion and kind is wanted`);
      continue;
    }
    // The items of a list of one kind need not say it.
    const { apiVersion = listKind === 'List' ? undefined : listVersion, kind = itemKind(listKind) || undefined } = item;
    if (typeof apiVersion !== 'string') refuse('manifest_without_version', `item ${index + 1} has no apiVersion`);
    if (typeof kind !== 'string') refuse('manifest_without_kind', `item ${index + 1} has no kind`);
    if (typeof apiVersion === 'string' && typeof kind === 'string') inspectObject(judge, apiVersion, kind, item, path);
  }
}

/** The items of a list; of anything else none. */
function itemsOf(document: unknown): unknown[] {
  const items = isMapping(document) && String(document.kind).endsWith('List') ? document.items : undefined;
  return Array.isArray(items) ? items : [];
}

/** How many repeated keys are told of. */
const MAX_REPEATED = 10;

/** kubectl lets the last one win without a word. */
function repeatedKeys(part: string, places: DocumentPlaces): Finding[] {
  return places.repeated(MAX_REPEATED).map(({ key, place }) => ({
    severity: 'warning',
    code: 'duplicate_key',
    part,
    ...(place ?? {}),
    message: `${showKey(key)} stands here a second time, and what the earlier one says is lost: make one of the two`,
  }));
}

/** JSON may be indented with tabs, which YAML does not allow. @throws malformed `bad_yaml` */
function readManifest(text: string): unknown[] {
  if (/^\s*(#[^\n]*\n\s*)*\{/.test(text)) {
    try {
      return [JSON.parse(text.replace(/^(\s*#[^\n]*\n)+/, ''))];
    } catch {
      // YAML's flow style begins so, too.
    }
  }
  return readYaml(text, { multi: true });
}

/** How far before a value its tag is looked for. */
const MAX_TAG = 100;

/** The places of all documents in one: a path's first step is the number of its document. */
function findManifestPlaces(text: string): DocumentPlaces {
  const documents = findPlaces(text);
  let lines: string[] | undefined;
  const at = ([index]: Path) => documents[index as number];
  return {
    start: null,
    of: (path, what) => at(path)?.of(path.slice(1), what) ?? null,
    plain: (path) => {
      const plain = at(path)?.plain(path.slice(1)) ?? null;
      const place = plain === null ? null : at(path)?.of(path.slice(1));
      if (!place) return plain;
      lines ??= text.split(/\r\n|\n|\r/);
      const before = lines[place.line - 1]?.slice(Math.max(0, place.column - MAX_TAG), place.column - 1) ?? '';
      // A tag says what it is: `!!str 5`.
      return /!\S*\s+(?:&\S+\s+)?$/.test(before) ? null : plain;
    },
    repeated: (most) => {
      const found: ReturnType<DocumentPlaces['repeated']> = [];
      for (const document of documents) if (found.length < most) found.push(...document.repeated(most - found.length));
      return found;
    },
  };
}

import { EVENT_ID, getScalarValue, parseEvents } from 'js-yaml';
import { BootbundleError } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
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

/**
 * Judges a Kubernetes part: YAML or JSON, one document or many, each an object of a kind that belongs into a part of this type; in
 * today's shape (`apiVersion`, `kind`) or in v1beta1's (`id`).
 * @returns error findings with line and column (1-based); none for a type that is not Kubernetes
 */
export function inspectManifest(filename: string, type: string, body: Uint8Array): Finding[] {
  if (!KUBE_TYPES.has(type)) return [];
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  const findings: Finding[] = [];
  const report = (code: string, message: string, place: Place = {}) =>
    findings.push({ severity: 'error', code, part: filename, ...place, message });

  let documents: unknown[];
  try {
    documents = readManifest(text);
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
    const [{ line, column } = {}] = error.findings ?? [];
    report('bad_yaml', error.message, line !== undefined && column !== undefined ? { line, column } : {});
    return findings;
  }

  const places = findPlaces(text);
  const kinds = KINDS.get(type);
  let objects = 0;
  for (const [index, document] of documents.entries()) {
    if (document === null) continue;
    objects++;
    const place = places[index];
    const name = documents.length > 1 ? `document ${index + 1}` : 'it';
    if (!isMapping(document)) {
      report(
        'not_a_manifest',
        `${name} is not a Kubernetes object: a mapping with apiVersion and kind is wanted`,
        place?.start,
      );
      continue;
    }
    const { apiVersion, kind, id } = document;
    const old =
      (apiVersion === undefined || (typeof apiVersion === 'string' && OLD_VERSION.test(apiVersion))) && id !== undefined;
    if (typeof apiVersion !== 'string' && !old)
      report(
        'manifest_without_version',
        `${name} has no apiVersion (a v1beta1 object has an id instead)`,
        place?.keys.get('apiVersion') ?? place?.start,
      );
    if (typeof kind !== 'string') {
      // The type of the part says the kind of an old object; any other must say its own.
      if (!old || !kinds || kind !== undefined)
        report('manifest_without_kind', `${name} has no kind`, place?.keys.get('kind') ?? place?.start);
    } else if (kinds && !kinds.includes(kind)) {
      report(
        'wrong_kind',
        `${name} is not a ${kinds.join(' or ')}, which ${type} is for: begin the file with #kube-manifest, or put it into a file of its own`,
        place?.keys.get('kind') ?? place?.start,
      );
    }
  }
  if (objects === 0) report('not_a_manifest', 'it holds no Kubernetes object, only comments');
  return findings;
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

/** 1-based. */
interface Place {
  line?: number;
  column?: number;
}

/** Where each document and the values of its top-level keys stand; empty when the text is more than js-yaml's parser takes. */
function findPlaces(text: string): { start: Place; keys: Map<string, Place> }[] {
  const places: { start: Place; keys: Map<string, Place> }[] = [];
  const lines = lineStarts(text);
  let depth = 0;
  let key: string | null = null;
  try {
    for (const event of parseEvents(text, {})) {
      const offset =
        'valueStart' in event
          ? event.valueStart
          : 'start' in event
            ? event.start
            : 'anchorStart' in event
              ? event.anchorStart
              : -1;
      const document = places.at(-1);
      if (event.type === EVENT_ID.DOCUMENT) places.push({ start: {}, keys: new Map() });
      else if (document && depth === 1 && event.type !== EVENT_ID.POP) document.start = placeOf(lines, offset);
      else if (document && depth === 2 && event.type !== EVENT_ID.POP) {
        if (key === null) key = event.type === EVENT_ID.SCALAR ? getScalarValue(text, event) : '';
        else {
          document.keys.set(key, placeOf(lines, offset));
          key = null;
        }
      }
      if (event.type === EVENT_ID.POP) depth--;
      else if (event.type === EVENT_ID.DOCUMENT || event.type === EVENT_ID.MAPPING || event.type === EVENT_ID.SEQUENCE) depth++;
      if (depth < 2) key = null;
    }
  } catch {
    return [];
  }
  return places;
}

function lineStarts(text: string): number[] {
  const starts = [0];
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1);
  return starts;
}

function placeOf(lines: readonly number[], offset: number): Place {
  if (offset < 0) return {};
  let low = 0;
  let high = lines.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((lines[middle] as number) <= offset) low = middle;
    else high = middle - 1;
  }
  return { line: low + 1, column: offset - (lines[low] as number) + 1 };
}

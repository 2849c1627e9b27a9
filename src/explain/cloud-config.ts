import { dump, YAML11_SCHEMA } from 'js-yaml';
import { BootbundleError } from '../domain/errors.ts';
import { mixedKeys } from '../inspect/cloud-config-keys.ts';
import { trimStart } from '../inspect/sniff.ts';
import { isMapping, readYaml } from '../inspect/yaml.ts';
import type { ClientVersion, MergedConfig } from './explanation.ts';
import { applyPatch } from './json-patch.ts';
import { MergeError, mergerFor } from './merge.ts';
import { strip } from './python.ts';
import type { Remarks } from './remarks.ts';

/** What a merged config may come to once every alias is written out, as readYaml's bound for one document. */
const MAX_EXPANDED = 32 * 1024 * 1024;
/** Up to here aliases are written out for people. */
const MAX_WRITTEN_OUT = 1024 * 1024;
const MAX_DEPTH = 200;

/** What PyYAML's reader refuses (yaml/reader.py, NON_PRINTABLE), the surrogates of undecodable bytes among them. */
const NON_PRINTABLE = /[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/u;
const PYTHON_2_TEXT = /(?:^|[\s[{,])!(?:!|<tag:yaml\.org,2002:)python\/unicode[\s>]/;
const JSONP = '#cloud-config-jsonp';
const UNREADABLE =
  'cloud-init cannot read the merged cloud-config back, so none of it holds: a name of a part has a line break or a control character';

/** A cloud-config in the making (handlers/cloud_config.py). */
export interface ConfigMerger {
  /** Merges one part; `jsonp`: a JSON Patch. `label` is its origin or its name. */
  add(part: { filename: string; label: string; text: string; jsonp: boolean; merge: string | null }): void;
  /** Writes the file; null when nothing was gathered. */
  finish(): MergedConfig | null;
}

export function configMerger(client: ClientVersion, yaml: YamlReader, remarks: Remarks): ConfigMerger {
  let config: unknown = {};
  const names: string[] = [];
  /** Parts that were dropped, as 25.1 notes them in the file. */
  const dropped: string[] = [];
  let origins = new Map<string, string[]>();
  let started = false;

  const patch = (text: string, label: string): void => {
    const start = trimStart(text);
    const { patched, touched } = applyPatch(config, start.startsWith(JSONP) ? start.slice(JSONP.length) : start);
    weigh(patched);
    config = patched;
    if (touched.includes(null)) origins = new Map();
    for (const key of touched.includes(null) ? keysOf(patched) : touched) if (key !== null) credit(origins, key, label);
  };

  const merge = (part: { filename: string; label: string; text: string; merge: string | null }): void => {
    const loaded = yaml.mapping(part.text, part.filename);
    if (loaded === null) throw new MergeError('it is empty or no mapping', true);
    const { rest, merge } = mergerFor(loaded, part.merge);
    const merged = merge(config, rest);
    weigh(merged);
    for (const key of keysOf(merged)) {
      const [before, after] = [valueAt(config, key), valueAt(merged, key)];
      if (before === after && isMapping(config) && Object.hasOwn(config, key)) continue;
      if (after === valueAt(rest, key)) origins.delete(key);
      credit(origins, key, part.label);
    }
    config = merged;
  };

  return {
    add(part) {
      started = true;
      // As cloud-init: as long as no part went well, or a patch left nothing, it begins anew.
      if (names.length === 0 || config === null) {
        config = {};
        origins = new Map();
      }
      try {
        if (part.jsonp) patch(part.text, part.label);
        else merge(part);
        names.push(strip(part.filename.replace(/[\n\r\t]/g, ' ')));
      } catch (error) {
        if (!(error instanceof MergeError)) throw error;
        if (error.isValueError && client !== '22.4') dropped.push(strip(part.filename));
        const what = part.jsonp ? 'the JSON patch is not applied' : 'the cloud-config is dropped';
        remarks.log('error', 'merge_failed', part.filename, `${what}: ${error.message}`);
      }
    },
    finish() {
      if (!started) return null;
      if (config === null) return { yaml: '{}\n', keys: [] };
      if (!isMapping(config) || !isReadable([...names, ...dropped], config)) {
        remarks.log('error', 'config_unreadable', undefined, UNREADABLE);
        return { yaml: '{}\n', keys: [] };
      }
      if (client !== '22.4')
        for (const { message } of mixedKeys(config)) remarks.log('error', 'odd_key', undefined, `once merged, ${message}`);
      const keys = Object.keys(config).map((key) => ({ key, origins: origins.get(key) ?? [] }));
      return { yaml: formatYaml(config), keys };
    },
  };
}

/** Reads YAML as `util.load_yaml`: what cannot be read, or is of another kind, is a warning in the log. */
export interface YamlReader {
  /** Null for an empty text, too. Each time a value of its own, since a JSON Patch changes what is shared wherever it stands. */
  mapping(text: string, filename: string): Record<string, unknown> | null;
  /** The same, for a first look: the next `mapping` of that text need not read it again. */
  peek(text: string, filename: string): Record<string, unknown> | null;
  /** An archive. */
  list(text: string, filename: string): unknown[];
}

interface Reading {
  value: unknown;
  trouble: { message: string; line?: number; column?: number } | null;
}

/** One for a document. */
export function yamlReader(client: ClientVersion, remarks: Remarks): YamlReader {
  const known = new Map<string, Reading>();
  const complain = (filename: string, message: string, place = {}) =>
    remarks.log('error', 'bad_yaml', filename, message, place);
  const load = (text: string, filename: string): unknown => {
    const reading = known.get(text) ?? read(text, client);
    known.delete(text);
    if (reading.trouble) {
      const { message, ...place } = reading.trouble;
      complain(filename, message, place);
    }
    return reading.value;
  };
  const mapping = (text: string, filename: string) => {
    const value = load(text, filename);
    if (value === null || isMapping(value)) return value;
    complain(filename, 'the YAML is no mapping of keys to values');
    return null;
  };
  return {
    mapping,
    peek(text, filename) {
      const reading = known.get(text) ?? read(text, client);
      known.set(text, reading);
      const value = mapping(text, filename);
      known.set(text, reading);
      return value;
    },
    list(text, filename) {
      const value = load(text, filename);
      if (value instanceof Set) return [...value];
      if (value === null || Array.isArray(value)) return value ?? [];
      complain(filename, 'the archive is no list');
      return [];
    },
  };
}

/** Bombs, which readYaml refuses, count as unreadable. */
function read(text: string, client: ClientVersion): Reading {
  const fail = (message: string, place = {}): Reading => ({ value: null, trouble: { message, ...place } });
  if (NON_PRINTABLE.test(text)) return fail('not YAML: it holds a character that YAML forbids');
  // 25.1 reads with PyYAML's own safe loader (util.py, load_yaml); 22.4 knows this tag as well (safeyaml.py).
  if (client !== '22.4' && PYTHON_2_TEXT.test(text)) return fail('not YAML: its tag !!python/unicode is not known any more');
  try {
    return { value: readYaml(withLineBreaks(text))[0] ?? null, trouble: null };
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
    const { line, column } = error.findings?.[0] ?? {};
    return fail(error.message, line === undefined || column === undefined ? {} : { line, column });
  }
}

/** To PyYAML, YAML 1.1, these are line breaks as well (in quotes it keeps U+2028 and U+2029, where this folds them). */
function withLineBreaks(text: string): string {
  return text.replace(/[\x85\u2028\u2029]/g, '\n');
}

function credit(origins: Map<string, string[]>, key: string, label: string): void {
  const known = origins.get(key) ?? [];
  if (!known.includes(label)) known.push(label);
  origins.set(key, known);
}

function keysOf(value: unknown): string[] {
  return isMapping(value) ? Object.keys(value) : [];
}

function valueAt(value: unknown, key: string): unknown {
  return isMapping(value) && Object.hasOwn(value, key) ? value[key] : undefined;
}

const weights = new WeakMap<object, { weight: number; height: number }>();

/** Measures what a value comes to, each collection once, however often it is referred to. @throws MergeError past the bounds */
function weigh(value: unknown, depth = 0): { weight: number; height: number } {
  if (typeof value === 'string') return { weight: 1 + value.length, height: 0 };
  if (value instanceof Uint8Array) return { weight: 1 + value.length, height: 0 };
  if (!Array.isArray(value) && !isMapping(value)) return { weight: 1, height: 0 };
  const known = weights.get(value);
  if (known) return known;
  const extent = { weight: 1, height: 1 };
  for (const [key, item] of Object.entries(value)) {
    const inner = weigh(item, depth + 1);
    extent.weight += key.length + inner.weight;
    extent.height = Math.max(extent.height, inner.height + 1);
    if (extent.weight > MAX_EXPANDED || extent.height > MAX_DEPTH || depth > MAX_DEPTH)
      throw new MergeError('what it comes to is too large or too deep to be followed here');
  }
  weights.set(value, extent);
  return extent;
}

/** YAML that reads back as the same: js-yaml quotes for its own YAML 1.1, which PyYAML's differs from in corners. */
function formatYaml(config: Record<string, unknown>): string {
  return dump(config, { schema: YAML11_SCHEMA, noRefs: weigh(config).weight <= MAX_WRITTEN_OUT, lineWidth: -1 });
}

/** Whether cloud-config.txt can be read back: the names of its parts stand in comments at its head. */
function isReadable(names: readonly string[], config: Record<string, unknown>): boolean {
  if (!names.some((name) => NON_PRINTABLE.test(name) || /[\n\r\x85\u2028\u2029]/.test(name))) return true;
  const text = `#cloud-config\n\n${names.map((name) => `# ${name}\n`).join('')}\n---\n${formatYaml(config)}`;
  if (NON_PRINTABLE.test(text)) return false;
  try {
    return isMapping(readYaml(withLineBreaks(text))[0]);
  } catch {
    return false;
  }
}

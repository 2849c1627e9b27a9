import {
  boolYaml11Tag,
  defineMappingTag,
  defineScalarTag,
  floatYaml11Tag,
  intYaml11Tag,
  loadAll,
  mapTag,
  NOT_RESOLVED,
  nullYaml11Tag,
  parseEvents,
  timestampTag,
  YAML11_SCHEMA,
  YAMLException,
} from 'js-yaml';
import { type BootbundleError, malformed } from '../domain/errors.ts';

/** Collections within collections, through aliases too: whoever walks a document by recursion is safe. */
const MAX_DEPTH = 100;
const MAX_ALIASES = 10_000;
const MAX_MERGE_KEYS = 10_000;
/** Characters that may set one value off from the next, in a text that is judged in about 0.3 s; each comes to two of the parser's events at most. */
const MAX_INDICATORS = 120_000;
/** With more of them than this even parsing takes too long. */
const MAX_COUNTED = 5 * MAX_INDICATORS;
/** What a document may come to once every alias is written out: nodes plus characters of its strings. */
const MAX_EXPANDED = 32 * 1024 * 1024;
/** Characters read again, in all, to make up for js-yaml's strictness about indentation inside brackets. */
const MAX_REREAD = 16 * 1024 * 1024;
const MOVE = ' '.repeat(1024);

// PyYAML's own resolvers and constructors (yaml/resolver.py, yaml/constructor.py, 6.0), where js-yaml's YAML 1.1 differs.
// A plain scalar that PyYAML takes for a type and then cannot construct is an error there, so it is one here.

const BOOLEANS = new Map([
  ['yes', true],
  ['no', false],
  ['true', true],
  ['false', false],
  ['on', true],
  ['off', false],
]);
const BOOLEAN = /^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$/;
const INTEGER =
  /^(?:[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$/;
const FLOAT =
  /^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/;

const bool = defineScalarTag<boolean>(boolYaml11Tag.tagName, {
  ...boolYaml11Tag,
  resolve: (source, isExplicit) =>
    isExplicit || BOOLEAN.test(source) ? (BOOLEANS.get(source.toLowerCase()) ?? NOT_RESOLVED) : NOT_RESOLVED,
});

const int = defineScalarTag<number>(intYaml11Tag.tagName, {
  ...intYaml11Tag,
  resolve: (source, isExplicit) => {
    if (!isExplicit && !INTEGER.test(source)) return NOT_RESOLVED;
    const { sign, digits } = signed(source);
    const value = digits.includes(':') ? sexagesimal(digits) : Number(/^0[0-9]/.test(digits) ? `0o${digits.slice(1)}` : digits);
    return digits !== '' && Number.isFinite(value) ? sign * value || 0 : unconstructable('an integer', isExplicit);
  },
});

const float = defineScalarTag<number>(floatYaml11Tag.tagName, {
  ...floatYaml11Tag,
  resolve: (source, isExplicit) => {
    if (!isExplicit && !FLOAT.test(source)) return NOT_RESOLVED;
    const { sign, digits } = signed(source.toLowerCase());
    if (digits === '.inf') return sign * Number.POSITIVE_INFINITY;
    if (digits === '.nan') return Number.NaN;
    const value = digits.includes(':') ? sexagesimal(digits) : Number(digits);
    return digits !== '' && !Number.isNaN(value) ? sign * value : unconstructable('a number', isExplicit);
  },
});

const nothing = defineScalarTag<null>(nullYaml11Tag.tagName, {
  ...nullYaml11Tag,
  resolve: (source, isExplicit) => (isExplicit ? null : nullYaml11Tag.resolve(source, isExplicit, nullYaml11Tag.tagName)),
});

const TIMESTAMP_SHAPE =
  /^[0-9]{4}-(?:[0-9]{2}-[0-9]{2}|[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?)$/;
const timestamp = defineScalarTag<Date>(timestampTag.tagName, {
  ...timestampTag,
  resolve: (source, isExplicit, tagName) => {
    const value = timestampTag.resolve(source, isExplicit, tagName);
    const beforeTime = value instanceof Date && value.getUTCFullYear() < 1;
    return beforeTime || (value === NOT_RESOLVED && TIMESTAMP_SHAPE.test(source))
      ? unconstructable('a date', isExplicit)
      : value;
  },
});

/** PyYAML resolves a plain `=` to `tag:yaml.org,2002:value`, which its safe loader cannot construct. */
const value = defineScalarTag<never>('tag:yaml.org,2002:value', {
  implicit: true,
  implicitFirstChars: ['='],
  resolve: (source, isExplicit) => (source === '=' ? unconstructable('the value key', isExplicit) : NOT_RESOLVED),
  identify: () => false,
});

/** What Python 2 dumped; cloud-init takes it (safeyaml.py). */
const unicode = defineScalarTag<string>('tag:yaml.org,2002:python/unicode', {
  resolve: (source) => source,
  identify: () => false,
});

/** What PyYAML makes of an unquoted key that is no text: Python sorts numbers and booleans together, and null with nothing else. */
export type OddKey = 'number' | 'boolean' | 'null';

const oddKeys = new WeakMap<object, Map<string, OddKey>>();
const NO_KEYS: ReadonlyMap<string, OddKey> = new Map();

/** As js-yaml's own, whose keys are all strings, but remembering which of them PyYAML leaves as they are. */
const map = defineMappingTag<Record<string, unknown>>(mapTag.tagName, {
  ...mapTag,
  addPair: (mapping, key, member) => {
    if (typeof key !== 'string' && (key === null || typeof key !== 'object')) {
      const odd = oddKeys.get(mapping) ?? new Map<string, OddKey>();
      odd.set(String(key), key === null ? 'null' : typeof key === 'boolean' ? 'boolean' : 'number');
      oddKeys.set(mapping, odd);
    }
    return mapTag.addPair(mapping, key, member);
  },
  // For merge keys, which bring them into another mapping as they are.
  keys: (mapping) => {
    const odd = oddKeys.get(mapping);
    return odd === undefined ? Object.keys(mapping) : Object.keys(mapping).map((key) => asRead(key, odd.get(key)));
  },
});

function asRead(key: string, odd: OddKey | undefined): unknown {
  if (odd === undefined) return key;
  return odd === 'null' ? null : odd === 'boolean' ? key === 'true' : Number(key);
}

const PYYAML_SCHEMA = YAML11_SCHEMA.withTags(bool, int, float, nothing, timestamp, value, unicode, map);

/**
 * Reads YAML as cloud-init's PyYAML (`safe_load`) reads it: YAML 1.1, so `0644` is 420, `yes` is true and `y` a string;
 * merge keys; the last of duplicate keys wins. Dates are `Date`, `!!binary` is `Uint8Array`, `!!set` is `Set`; keys that
 * are not strings become strings, and integers past 2^53 lose digits (there is no such thing in JSON).
 * Bounded in depth, aliases, merged keys and in what the aliases come to, so no document can blow up later.
 *
 * @returns the documents: with `multi` all of them (as `safe_load_all`), else exactly one, which is null for an empty text
 * @throws malformed `bad_yaml`, with line and column (1-based) in its one finding; content is never quoted
 */
export function readYaml(text: string, options: { multi?: boolean } = {}): unknown[] {
  const documents = load(text.startsWith('\ufeff') ? text.slice(1) : text);
  boundExpansion(documents);
  if (options.multi === true) return documents;
  if (documents.length > 1) throw badYaml('one document is wanted, and there are more');
  return documents.length === 0 ? [null] : documents;
}

/**
 * Whether a text holds so many values that reading and judging it would keep others waiting: about 100,000 keys with a value each. Long texts in it
 * (files, base64) count for one value each, whatever is in them.
 */
export function holdsTooMuch(text: string): boolean {
  let indicators = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    // LF, CR, comma, colon and opening brackets: no value stands behind another without one of them.
    if (code === 10 || code === 13 || code === 44 || code === 58 || code === 91 || code === 123) indicators++;
  }
  if (indicators <= MAX_INDICATORS) return false;
  if (indicators > MAX_COUNTED) return true;
  try {
    return parseEvents(text, {}).length > 2 * MAX_INDICATORS;
  } catch (error) {
    if (error instanceof YAMLException) return false;
    throw error;
  }
}

/** Which keys of a mapping that `readYaml` made are no texts to PyYAML, by the texts that they are here. */
export function oddKeysOf(mapping: object): ReadonlyMap<string, OddKey> {
  return oddKeys.get(mapping) ?? NO_KEYS;
}

/** Makes known of a mapping that was made from others which of its keys are no texts. */
export function carryOddKeys(mapping: object, ...from: readonly object[]): void {
  const odd = from.flatMap((each) => [...oddKeysOf(each)]).filter(([key]) => Object.hasOwn(mapping, key));
  if (odd.length > 0) oddKeys.set(mapping, new Map(odd));
}

/** What `readYaml` calls the key that stands unquoted in a text: `true` for `on`, `420` for `0644`. */
export function nameOfKey(plain: string): string {
  try {
    return String(PYYAML_SCHEMA.resolveImplicitScalarTag(plain).value);
  } catch (error) {
    if (error instanceof YAMLException) return plain;
    throw error;
  }
}

/** Whether a YAML value is a mapping. */
export function isMapping(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype;
}

/**
 * js-yaml is strict as YAML 1.2 where PyYAML is not, so a text is mended at the place it finds fault with, and read again: inside
 * brackets and quotes PyYAML does not care for indentation (`runcmd: [` … `]` at the line's start is common), takes a `-` for a
 * text there (`[tar, xf, -]`), and needs no space between a closing quote or bracket and a comment.
 */
function load(text: string): unknown[] {
  let source = text;
  let mended = { line: -1, by: 0 };
  for (let work = 0; ; work += source.length) {
    try {
      return loadAll(source, {
        schema: PYYAML_SCHEMA,
        json: true,
        maxDepth: MAX_DEPTH,
        maxAliases: MAX_ALIASES,
        maxTotalMergeKeys: MAX_MERGE_KEYS,
      });
    } catch (error) {
      if (!(error instanceof YAMLException)) throw badYaml('it cannot be read');
      const { mark, reason } = error;
      // Such as {{ x }}, a mapping in a mapping's key; js-yaml does not know where.
      if (reason.endsWith('complex keys')) throw badYaml('a key is a list, a mapping or a date: quote it');
      if (mark === undefined) throw badYaml(reasonOf(error));
      const { line, column, position } = mark;
      const by = line === mended.line ? mended.by : 0;
      const [start, rest] = [source.slice(0, position), source.slice(position)];
      if (work > MAX_REREAD) throw badYaml(reasonOf(error), { line, column: Math.max(0, column - by) });
      if (reason === 'deficient indentation' && by < MOVE.length) {
        source = source.slice(0, position - column) + MOVE + source.slice(position - column);
        mended = { line, by: by + MOVE.length };
      } else if (/^missed comma/.test(reason) && /^-[,\]}]/.test(rest)) {
        source = `${start}"-"${rest.slice(1)}`;
        mended = { line, by: by + 2 };
      } else if (rest.startsWith('#') && /["'\]}]$/.test(start)) {
        source = `${start} ${rest}`;
      } else throw badYaml(reasonOf(error), { line, column: Math.max(0, column - by) });
    }
  }
}

function signed(source: string): { sign: 1 | -1; digits: string } {
  const plain = source.replaceAll('_', '');
  const sign = plain.startsWith('-') ? -1 : 1;
  return { sign, digits: /^[-+]/.test(plain) ? plain.slice(1) : plain };
}

function sexagesimal(digits: string): number {
  return digits.split(':').reduce((sum, part) => sum * 60 + Number(part), 0);
}

function unconstructable(what: string, isExplicit: boolean): typeof NOT_RESOLVED {
  if (isExplicit) return NOT_RESOLVED;
  throw new YAMLException(`a plain scalar looks like ${what} and is none: quote it`);
}

/** js-yaml's reasons are fixed words, but some end in a name or a tag of the document: those are cut off. */
function reasonOf(error: YAMLException): string {
  return error.reason.replace(/(?: ?!<| "|: (?!quote it$)).*$/s, '');
}

function badYaml(reason: string, mark?: { line: number; column: number }): BootbundleError {
  if (mark === undefined) return malformed('bad_yaml', `not YAML: ${reason}`);
  const [line, column] = [mark.line + 1, mark.column + 1];
  const message = `not YAML: line ${line}, column ${column}: ${reason}`;
  return malformed('bad_yaml', message, [{ severity: 'error', code: 'bad_yaml', line, column, message }]);
}

interface Extent {
  weight: number;
  height: number;
}

/** Measures each collection once, however often aliases point at it. */
function boundExpansion(documents: unknown[]): void {
  const known = new Map<object, Extent>();
  const open = new Set<object>();

  const measure = (node: unknown): Extent => {
    if (typeof node === 'string') return { weight: 1 + node.length, height: 0 };
    if (node === null || typeof node !== 'object' || node instanceof Date) return { weight: 1, height: 0 };
    if (node instanceof Uint8Array) return { weight: 1 + node.length, height: 0 };
    const before = known.get(node);
    if (before) return before;
    if (open.has(node)) throw badYaml('an alias points at what contains it');
    open.add(node);
    const extent = { weight: 1, height: 1 };
    const add = (child: unknown): void => {
      const { weight, height } = measure(child);
      extent.weight += weight;
      extent.height = Math.max(extent.height, height + 1);
      if (extent.weight > MAX_EXPANDED) throw badYaml('its aliases come to too much');
      if (extent.height > MAX_DEPTH || open.size > MAX_DEPTH) throw badYaml(`nested deeper than ${MAX_DEPTH}`);
    };
    if (Array.isArray(node) || node instanceof Set) {
      for (const child of node) add(child);
    } else {
      for (const [key, child] of Object.entries(node)) {
        extent.weight += key.length;
        add(child);
      }
    }
    open.delete(node);
    known.set(node, extent);
    return extent;
  };

  let total = 0;
  for (const document of documents) total += measure(document).weight;
  if (total > MAX_EXPANDED) throw badYaml('its aliases come to too much');
}

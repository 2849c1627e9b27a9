import { isUtf8 } from 'node:buffer';
import { type BootbundleError, invalid } from '../domain/errors.ts';
import type { Json, JsonObject } from '../domain/json.ts';

/** All secrets, by name. */
export type Secrets = ReadonlyMap<string, Uint8Array>;
/** What an expression comes to: JSON, one secret's bytes, or all secrets. Lists and maps hold JSON only. */
export type Value = Json | Uint8Array | Secrets;

/** Items one list may have, and what each counts for among the characters made. */
export const MAX_ITEMS = 100_000;
const ITEM = 32;
/** A step stands for about 50 ns of a usual machine. */
const STEPS_PER_MS = 20_000;
/** All texts made on the way, thrown away or not, in multiples of what the template may render to. */
const MAKING = 10;

/**
 * What a rendering may still do. Its time is counted in steps, not measured: the same input always comes to the same end, on a
 * busy machine too, and no clock is needed. Whatever can take long says beforehand how long.
 */
export interface Work {
  /** The place in the source that is worked on: what an error points to. */
  at: number;
  /** What one text may come to, characters. */
  readonly textLimit: number;
  /** Counts steps. @throws invalid `template_limit` */
  spend(steps: number): void;
  /** Counts the characters of a text before or after it is made. @throws invalid `template_limit` */
  make(length: number): void;
  /** Counts a list that is made. @throws invalid `template_limit` */
  list(items: number): void;
  fault(code: string, message: string): BootbundleError;
}

/** Begins to count. */
export function openWork(source: string, limits: { milliseconds: number; bytes: number }): Work {
  let steps = limits.milliseconds * STEPS_PER_MS;
  let room = limits.bytes * MAKING;
  const work: Work = {
    at: 0,
    textLimit: limits.bytes,
    spend(count) {
      steps -= count;
      if (steps < 0) throw work.fault('template_limit', 'takes too long: go over less, or in fewer loops');
    },
    make(length) {
      room -= length;
      if (length > limits.bytes || room < 0)
        throw work.fault('template_limit', 'makes too much text: print in the loop, or capture it, rather than append');
    },
    list(items) {
      room -= items * ITEM;
      if (items > MAX_ITEMS || room < 0) throw work.fault('template_limit', 'makes too long lists, or too many');
      work.spend(items);
    },
    fault: (code, message) => templateError(source, work.at, code, message),
  };
  return work;
}

/** An error at a place of the source. */
export function templateError(source: string, at: number, code: string, message: string): BootbundleError {
  let line = 1;
  let start = 0;
  for (let end = source.indexOf('\n'); end !== -1 && end < at; end = source.indexOf('\n', start)) {
    line++;
    start = end + 1;
  }
  const column = at - start + 1;
  return invalid(code, `line ${line}, column ${column}: ${message}`, [{ severity: 'error', code, line, column, message }]);
}

/** A name of the template's source as a message may hold it. */
export function shown(name: string): string {
  const short = name.length > 60 ? `${name.slice(0, 60).toWellFormed()}…` : name;
  return `\`${short.replaceAll(/[^\p{L}\p{M}\p{N}\p{P}\p{S} ]/gu, '?')}\``;
}

/** What may have been meant: one of the known names that is a slip away, or is how `name` begins. */
export function suggest(name: string, known: Iterable<string>): string {
  for (const each of known) if (isSlip(name, each)) return `: did you mean ${shown(each)}?`;
  return '';
}

/** Whether one is the other but for case and dashes, one letter too many, too few or wrong, or two neighbours swapped. */
function isSlip(one: string, other: string): boolean {
  if (one.length < 3 || one.length > 60 || Math.abs(one.length - other.length) > 3) return false;
  const [a, b] = [one, other].map((text) => text.toLowerCase().replaceAll(/[_-]/g, '')) as [string, string];
  let start = 0;
  while (start < a.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const [restA, restB] = [a.slice(start, a.length - end), b.slice(start, b.length - end)];
  if (restA.length <= 1 && restB.length <= 1) return true;
  return restA.length === 2 && restB.length === 2 && restA[0] === restB[1] && restA[1] === restB[0];
}

export function isSecret(value: Value): value is Uint8Array {
  return value instanceof Uint8Array;
}

export function isSecrets(value: Value): value is Secrets {
  return value instanceof Map;
}

export function isMap(value: Value): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isSecret(value) && !isSecrets(value);
}

/** As Liquid has it: 0 and an empty text are true. */
export function isTrue(value: Value): boolean {
  return value !== false && value !== null;
}

/**
 * A value as it is printed: texts as they are, numbers and booleans as JSON has them.
 * @throws invalid `template_prints_null`, `template_prints_collection`, `secret_not_text`
 */
export function textOf(value: Value, work: Work): string {
  if (typeof value === 'string') return value;
  if (value === null) throw work.fault('template_prints_null', 'is null: set it, or use default or compact');
  if (typeof value !== 'object') return String(value);
  if (isSecret(value)) {
    work.spend(value.length / 16);
    const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
    if (!isUtf8(bytes)) throw work.fault('secret_not_text', 'the secret is not UTF-8 text: use base64');
    return bytes.toString('utf8');
  }
  if (isSecrets(value)) throw allSecrets(work);
  throw work.fault(
    'template_prints_collection',
    `a ${Array.isArray(value) ? 'list' : 'map'} is not a text: use json or yaml${Array.isArray(value) ? ', or join' : ''}`,
  );
}

/** Nobody has a use for all of them, and whoever prints them did not mean to. */
export function allSecrets(work: Work): BootbundleError {
  return work.fault('template_prints_collection', 'all secrets at once are not to be had: name one, as in secrets.token');
}

/** A number, or a text that is one. @throws invalid `template_failed` */
export function numberOf(value: Value, work: Work): number {
  const number = typeof value === 'number' ? value : numberIn(isSecret(value) ? textOf(value, work) : value);
  if (!Number.isFinite(number)) throw work.fault('template_failed', 'a number is wanted here');
  return number;
}

function numberIn(value: Value): number {
  return typeof value === 'string' && /^\s{0,9}[-+]?\d{1,300}(?:\.\d{1,300})?\s{0,9}$/.test(value) ? Number(value) : Number.NaN;
}

/** A whole number. @throws invalid `template_failed` */
export function wholeOf(value: Value, work: Work): number {
  const number = numberOf(value, work);
  if (!Number.isSafeInteger(number)) throw work.fault('template_failed', 'a whole number is wanted here');
  return number;
}

/** The value of a key, as a path or a filter asks for it: own members only, and `size`, `first` and `last`. */
export function memberOf(value: Value, key: Value, work: Work): Value | undefined {
  const name = typeof key === 'number' ? String(key) : isSecret(key) ? textOf(key, work) : key;
  if (typeof name !== 'string') return undefined;
  if (isSecrets(value)) return value.get(name);
  if (Array.isArray(value)) return itemOf(value, name);
  if (typeof value === 'string' || isSecret(value)) return name === 'size' ? pointsIn(textOf(value, work), work) : undefined;
  if (!isMap(value)) return undefined;
  if (Object.hasOwn(value, name)) return value[name];
  return name === 'size' ? Object.keys(value).length : undefined;
}

function itemOf(list: Json[], name: string): Json | undefined {
  if (name === 'size') return list.length;
  if (name === 'first') return list[0];
  if (name === 'last') return list.at(-1);
  return /^-?\d{1,9}$/.test(name) ? list.at(Number(name)) : undefined;
}

/** How many characters a text has, where a pair of surrogates is one. */
export function pointsIn(text: string, work: Work): number {
  work.spend(text.length / 8);
  let count = 0;
  for (let at = 0; at < text.length; count++) at = skipPoints(text, at, 1);
  return count;
}

/** The place in a text that is so many characters further on. */
export function skipPoints(text: string, from: number, count: number): number {
  let at = from;
  for (let left = count; left > 0 && at < text.length; left--) at += (text.codePointAt(at) as number) > 0xffff ? 2 : 1;
  return at;
}

/** Whether two values are the same; a secret is its text, and lists and maps are their content. */
export function isSame(a: Value, b: Value, work: Work): boolean {
  if (isSecret(a) || isSecret(b)) return isSame(isSecret(a) ? textOf(a, work) : a, isSecret(b) ? textOf(b, work) : b, work);
  work.spend(1);
  if (typeof a === 'string' && typeof b === 'string') {
    if (a.length !== b.length) return false;
    work.spend(a.length / 64);
    return a === b;
  }
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((item, index) => isSame(item, b[index] as Json, work));
  if (!isMap(a) || !isMap(b)) return false;
  const names = Object.keys(a);
  return (
    names.length === Object.keys(b).length &&
    names.every((name) => Object.hasOwn(b, name) && isSame(a[name] as Json, b[name] as Json, work))
  );
}

/** Which comes first, of two numbers or two texts (by code unit, no locale); null where they cannot be compared. */
export function compareValues(a: Value, b: Value, work: Work): number | null {
  if (isSecret(a) || isSecret(b))
    return compareValues(isSecret(a) ? textOf(a, work) : a, isSecret(b) ? textOf(b, work) : b, work);
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  if (typeof a !== 'string' || typeof b !== 'string') return null;
  work.spend(2 + Math.min(a.length, b.length) / 16);
  return a < b ? -1 : a > b ? 1 : 0;
}

/** How a notation writes what it has; one line, whatever the value. */
interface Notation {
  comma: string;
  colon: string;
  number(value: number): string;
  text(value: string): string;
  key(value: string): string;
}

/** Compact JSON. */
export const JSON_NOTATION: Notation = { comma: ',', colon: ':', number: String, text: JSON.stringify, key: JSON.stringify };

/**
 * YAML in flow style, so that it may stand after a key at any indentation, and such that YAML 1.1 (PyYAML) and 1.2 read the
 * same: whatever either of them takes for something other than a text is quoted (yaml/resolver.py; `y` is a boolean for some).
 */
export const YAML_NOTATION: Notation = {
  comma: ', ',
  colon: ': ',
  // PyYAML knows a number with an exponent by its point.
  number: (value) => String(value).replace(/^(-?\d+)e/, '$1.0e'),
  text: (value) => (isPlain(value) ? value : quoteYaml(value)),
  key: (value) => {
    const text = isPlain(value) ? value : quoteYaml(value);
    // A key that is not announced has 1,024 characters at most (yaml/scanner.py, stale_possible_simple_keys).
    return text.length > 1000 ? `? ${text}` : text;
  },
};

function isPlain(text: string): boolean {
  return /^[A-Za-z/][A-Za-z0-9_./-]*$/.test(text) && !/^(?:y|n|yes|no|on|off|true|false|null)$/i.test(text);
}

const YAML_ESCAPES: Record<string, string> = { '"': '\\"', '\\': '\\\\', '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** What not every reader takes as it is gets escaped: controls, line breaks, a byte order mark, what is past 16 bits. */
function quoteYaml(text: string): string {
  const escaped = text.replaceAll(/["\\]|[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]/gu, (char) => {
    const code = (char.codePointAt(0) as number).toString(16);
    const long =
      code.length <= 2
        ? `x${code.padStart(2, '0')}`
        : code.length <= 4
          ? `u${code.padStart(4, '0')}`
          : `U${code.padStart(8, '0')}`;
    return YAML_ESCAPES[char] ?? `\\${long}`;
  });
  return `"${escaped}"`;
}

/** Writes a value in a notation. @throws invalid `template_limit`, and as textOf for secrets */
export function writeValue(value: Value, notation: Notation, work: Work): string {
  const chunks: string[] = [];
  let pieces: string[] = [];
  let size = 0;
  const put = (piece: string) => {
    size += piece.length;
    if (size > work.textLimit) work.make(size);
    work.spend(2);
    if (pieces.push(piece) < 1024) return;
    chunks.push(pieces.join(''));
    pieces = [];
  };
  const write = (each: Value): void => {
    if (typeof each === 'string') {
      work.spend(each.length / 4);
      put(notation.text(each));
    } else if (typeof each === 'number') put(notation.number(each));
    else if (Array.isArray(each)) {
      put('[');
      each.forEach((item, index) => {
        if (index > 0) put(notation.comma);
        write(item);
      });
      put(']');
    } else if (isMap(each)) {
      put('{');
      Object.entries(each).forEach(([key, member], index) => {
        if (index > 0) put(notation.comma);
        work.spend(key.length / 4);
        put(notation.key(key) + notation.colon);
        write(member);
      });
      put('}');
    } else put(each === null ? 'null' : typeof each === 'boolean' ? String(each) : notation.text(textOf(each, work)));
  };
  write(value);
  work.make(size);
  return chunks.join('') + pieces.join('');
}

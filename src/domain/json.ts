import { malformed } from './errors.ts';

/** A JSON value as an operator's document holds it. */
export type Json = string | number | boolean | null | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** JSON with sorted keys and no white space: equal values give equal text, so its hash is a digest of the value. */
export function canonicalJson(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const members = Object.keys(value)
      .sort()
      .map((key) => `${JSON.stringify(key)}:${canonicalJson(value[key] as Json)}`);
    return `{${members.join(',')}}`;
  }
  return JSON.stringify(value);
}

/** Values laid over defaults: maps merge, anything else replaces. */
export function mergeJson(defaults: JsonObject, values: JsonObject): JsonObject {
  const merged = new Map(Object.entries(defaults));
  for (const [key, value] of Object.entries(values)) {
    const before = merged.get(key);
    merged.set(key, isObject(before) && isObject(value) ? mergeJson(before, value) : value);
  }
  return Object.fromEntries(merged);
}

function isObject(value: Json | undefined): value is JsonObject {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** What a document may come to with its aliases written out, so that nobody who walks it later is surprised. */
const MAX_VALUES = 200_000;
const MAX_DEPTH = 64;

/**
 * Judges what a parser made of an operator's document: nothing but what JSON has, bounded in size and depth, whole characters, and no
 * `__proto__`, since a careless copy of it would change a prototype. `what` begins the sentence of the error.
 * @throws malformed `bad_value`, `unknown_field`
 */
export function checkJson(root: unknown, what: string): asserts root is Json {
  let values = 0;
  const bad = (why: string) => malformed('bad_value', `${what} ${why}`);
  const checkText = (text: string) => {
    if (!text.isWellFormed()) throw bad('has half of a surrogate pair in a text');
  };
  const walk = (value: unknown, depth: number): void => {
    if (++values > MAX_VALUES) throw bad(`has more than ${MAX_VALUES} values, aliases written out`);
    if (depth > MAX_DEPTH) throw bad(`is nested deeper than ${MAX_DEPTH}`);
    if (typeof value === 'string') checkText(value);
    else if (typeof value === 'number' && !Number.isFinite(value)) throw bad('has a number that is not finite');
    else if (Array.isArray(value)) for (const item of value) walk(item, depth + 1);
    else if (value !== null && typeof value === 'object') {
      const prototype = Object.getPrototypeOf(value);
      if (prototype !== Object.prototype && prototype !== null) throw bad('has a value that JSON does not have');
      for (const [key, member] of Object.entries(value)) {
        checkText(key);
        if (key === '__proto__')
          throw malformed('unknown_field', `${what} has a field "__proto__", which nothing here is called`);
        walk(member, depth + 1);
      }
    } else if (value !== null && !['boolean', 'number'].includes(typeof value))
      throw bad('has a value that JSON does not have');
  };
  walk(root, 0);
}

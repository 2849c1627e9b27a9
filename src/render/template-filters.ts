import type { Json } from '../domain/json.ts';
import {
  compareValues,
  isMap,
  isSame,
  isSecret,
  isSecrets,
  isTrue,
  JSON_NOTATION,
  MAX_ITEMS,
  memberOf,
  numberOf,
  pointsIn,
  skipPoints,
  textOf,
  type Value,
  type Work,
  wholeOf,
  writeValue,
  YAML_NOTATION,
} from './template-values.ts';

/** What comes after a `|`. */
export interface Filter {
  /** How many arguments it takes, at least and at most. */
  takes: readonly [number, number];
  /** Arguments it takes by name. */
  named?: readonly string[];
  apply(input: Value, args: readonly Value[], work: Work): Value;
}

type TextFilter = (text: string, args: readonly string[], work: Work) => Value;

/** A filter of a text, and texts as its arguments. */
function text(least: number, most: number, apply: TextFilter): Filter {
  return {
    takes: [least, most],
    apply: (input, args, work) => {
      const subject = textOf(input, work);
      const texts = args.map((arg) => textOf(arg, work));
      work.spend(texts.reduce((sum, each) => sum + each.length, subject.length) / 8);
      return made(apply(subject, texts, work), work);
    },
  };
}

function made(value: Value, work: Work): Value {
  if (typeof value === 'string') {
    work.spend(value.length / 8);
    work.make(value.length);
  }
  return value;
}

/** A filter of a number, and numbers as its arguments. */
function number(least: number, most: number, apply: (number: number, args: readonly number[], work: Work) => number): Filter {
  return {
    takes: [least, most],
    apply: (input, args, work) => {
      const of = args.map((arg) => numberOf(arg, work));
      const result = apply(numberOf(input, work), of, work);
      if (!Number.isFinite(result)) throw work.fault('template_failed', 'the number is too large');
      return result;
    },
  };
}

/** A filter of a list. */
function list(least: number, most: number, apply: (list: Json[], args: readonly Value[], work: Work) => Value): Filter {
  return {
    takes: [least, most],
    apply: (input, args, work) => {
      const items = listOf(input, work);
      work.spend(items.length);
      const result = apply(items, args, work);
      if (Array.isArray(result)) work.list(result.length);
      return result;
    },
  };
}

function listOf(value: Value, work: Work): Json[] {
  if (!Array.isArray(value)) throw work.fault('template_failed', 'a list is wanted here');
  return value;
}

/** Pays for looking for a text in another: in the worst case V8 compares each place with all of it. */
function seek(subject: string, wanted: string, work: Work): void {
  if (wanted === '') throw work.fault('template_failed', 'the text to look for is empty');
  if (wanted.length <= subject.length) work.spend((subject.length * wanted.length) / 256);
}

/** Whether a text holds a text, a list a value, or a map a key. */
export function contains(value: Value, wanted: Value, work: Work): boolean {
  if (Array.isArray(value)) return value.some((item) => isSame(item, wanted, work));
  if (value === null || wanted === null) return false;
  if (isSecrets(value) || isMap(value)) {
    const key = textOf(wanted, work);
    return isSecrets(value) ? value.has(key) : Object.hasOwn(value, key);
  }
  if (typeof value !== 'string' && !isSecret(value))
    throw work.fault('template_failed', '`contains` looks into a text, a list or a map, and this is none');
  const [subject, part] = [textOf(value, work), textOf(wanted, work)];
  if (part !== '') seek(subject, part, work);
  return subject.includes(part);
}

const replace: TextFilter = (subject, [wanted = '', by = ''], work) => {
  seek(subject, wanted, work);
  let count = 0;
  for (let at = subject.indexOf(wanted); at !== -1; at = subject.indexOf(wanted, at + wanted.length)) count++;
  const size = subject.length + count * (by.length - wanted.length);
  work.spend(count + size / 8);
  if (size > work.textLimit) work.make(size);
  return subject.replaceAll(wanted, () => by);
};

const replaceAt =
  (find: 'indexOf' | 'lastIndexOf'): TextFilter =>
  (subject, [wanted = '', by = ''], work) => {
    seek(subject, wanted, work);
    const at = subject[find](wanted);
    return at === -1 ? subject : subject.slice(0, at) + by + subject.slice(at + wanted.length);
  };

const split: TextFilter = (subject, [separator = ''], work) => {
  const items: string[] = [];
  const add = (item: string) => {
    items.push(item);
    if (items.length > MAX_ITEMS) work.list(items.length);
  };
  let at = 0;
  if (separator === '')
    while (at < subject.length) {
      const end = skipPoints(subject, at, 1);
      add(subject.slice(at, end));
      at = end;
    }
  else {
    seek(subject, separator, work);
    for (let end = subject.indexOf(separator); end !== -1; end = subject.indexOf(separator, at)) {
      add(subject.slice(at, end));
      at = end + separator.length;
    }
    add(subject.slice(at));
  }
  while (items.at(-1) === '') items.pop();
  work.list(items.length);
  return items;
};

const ESCAPES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' };

/** Percent-decoding of what anyone may have encoded. */
const urlDecode: TextFilter = (subject, _args, work) => {
  try {
    return decodeURIComponent(subject.replaceAll('+', ' '));
  } catch {
    throw work.fault('template_failed', 'the text is not percent-encoded UTF-8');
  }
};

/** One word of a POSIX shell, whatever is in it: in single quotes everything is itself but the quote. */
const shell: TextFilter = (subject, _args, work) => {
  if (subject.includes('\0')) throw work.fault('template_failed', 'the text has a NUL, which no shell can hold');
  return `'${subject.replaceAll("'", "'\\''")}'`;
};

/** Every line but the first; a blank one stays blank. The first has its indentation where the template stands. */
const indent: Filter = {
  takes: [1, 1],
  apply: (input, [by = 0], work) => {
    const subject = textOf(input, work);
    const count = wholeOf(by, work);
    if (count < 0 || count > 100) throw work.fault('template_failed', 'indent takes 0 to 100');
    work.spend(subject.length / 4);
    const inner = /\n(?!\r?(?:\n|$))/g;
    const breaks = subject.match(inner)?.length ?? 0;
    const size = subject.length + breaks * count;
    work.spend(breaks + size / 8);
    work.make(size);
    return subject.replaceAll(inner, `\n${' '.repeat(count)}`);
  },
};

const truncate: Filter = {
  takes: [0, 2],
  apply: (input, [length = 50, end = '...'], work) => {
    const [subject, ending] = [textOf(input, work), textOf(end, work)];
    const most = wholeOf(length, work);
    if (pointsIn(subject, work) <= most) return subject;
    const kept = subject.slice(0, skipPoints(subject, 0, most - pointsIn(ending, work)));
    return made(kept + ending, work);
  },
};

const slice: Filter = {
  takes: [1, 2],
  apply: (input, [from = 0, length = 1], work) => {
    const [begin, count] = [wholeOf(from, work), wholeOf(length, work)];
    const isList = Array.isArray(input);
    const subject = isList ? input : textOf(input, work);
    const size = typeof subject === 'string' ? pointsIn(subject, work) : subject.length;
    const start = begin < 0 ? size + begin : begin;
    if (start < 0 || count < 0) return isList ? [] : '';
    if (typeof subject === 'string') {
      const at = skipPoints(subject, 0, start);
      return made(subject.slice(at, skipPoints(subject, at, count)), work);
    }
    const items = subject.slice(start, start + count);
    work.list(items.length);
    return items;
  },
};

const size: Filter = {
  takes: [0, 0],
  apply: (input, _args, work) => {
    if (Array.isArray(input)) return input.length;
    return isMap(input) ? Object.keys(input).length : pointsIn(textOf(input, work), work);
  },
};

/** Bytes of a secret as they are, of anything else its text in UTF-8. */
const base64: Filter = {
  takes: [0, 0],
  apply: (input, _args, work) => {
    const bytes = isSecret(input) ? Buffer.from(input) : Buffer.from(textOf(input, work));
    work.spend(bytes.length / 4);
    return made(bytes.toString('base64'), work);
  },
};

/**
 * Another value for what is missing, null or empty. Liquid's replaces `false` too, unless told `allow_false: true`; here false
 * stays, since nobody means a setting that says no to come out as yes.
 */
const fallback: Filter = {
  takes: [1, 1],
  named: ['allow_false'],
  apply: (input, [otherwise = null]) => (isEmpty(input) ? otherwise : input),
};

/** Nothing, or without content. */
export function isEmpty(value: Value): boolean {
  if (value === null || value === '') return true;
  if (Array.isArray(value) || isSecret(value)) return value.length === 0;
  return isMap(value) && Object.keys(value).length === 0;
}

/** More keys in a row than a value has levels (domain/json.ts). */
const MAX_DEPTH = 100;

/** Of an item the value of a key, or of keys with dots between; null where it has none. */
function pick(item: Json, key: Value, work: Work): Json {
  const path = textOf(key, work);
  work.spend(8 + path.length / 8);
  const whole = isMap(item) && Object.hasOwn(item, path) ? item[path] : undefined;
  if (whole !== undefined) return whole;
  let value: Json = item;
  for (const name of path.split('.', MAX_DEPTH)) value = (memberOf(value, name, work) ?? null) as Json;
  return value;
}

/** Whether an item's key has the wanted value, or, without one, is true. */
const matches = (item: Json, [key = null, ...wanted]: readonly Value[], work: Work): boolean => {
  const value = pick(item, key, work);
  return wanted.length === 0 ? isTrue(value) : isSame(value, wanted[0] as Value, work);
};

function sort(items: Json[], [key]: readonly Value[], work: Work): Json[] {
  const keyed = items.map((item) => ({ item, by: key === undefined ? item : pick(item, key, work) }));
  // What has no key comes last.
  keyed.sort((a, b) => {
    work.spend(2);
    if (a.by === null || b.by === null) return Number(a.by === null) - Number(b.by === null);
    const order = compareValues(a.by, b.by, work);
    if (order === null) throw work.fault('template_failed', 'only numbers, or only texts, can be sorted: name a key');
    return order;
  });
  return keyed.map(({ item }) => item);
}

function uniq(items: Json[], _args: readonly Value[], work: Work): Json[] {
  const scalars = new Set<Json>();
  const collections = new Set<Json>();
  return items.filter((item) => {
    const isCollection = typeof item === 'object' && item !== null;
    const seen = isCollection ? collections : scalars;
    const content = isCollection ? writeValue(item, JSON_NOTATION, work) : item;
    work.spend(typeof content === 'string' ? 2 + content.length / 16 : 2);
    if (seen.has(content)) return false;
    seen.add(content);
    return true;
  });
}

function join(items: Json[], [separator = ' ']: readonly Value[], work: Work): string {
  const between = textOf(separator, work);
  const texts = items.map((item) => textOf(item, work));
  const length = texts.reduce((sum, each) => sum + each.length + between.length, 0);
  work.spend(length / 8);
  work.make(length);
  return texts.join(between);
}

function shiftPoint(value: number, places: number): number {
  const [digits, power = '0'] = String(value).split('e');
  return Number(`${digits}e${Number(power) + places}`);
}

/** To so many decimal places, half away from zero. */
function round(value: number, [places = 0]: readonly number[]): number {
  const shifted = shiftPoint(Math.abs(value), places);
  if (!(shifted <= Number.MAX_SAFE_INTEGER)) return value;
  return Math.sign(value) * shiftPoint(Math.round(shifted), -places);
}

function nonZero(value: number, work: Work): number {
  if (value === 0) throw work.fault('template_failed', 'there is no dividing by zero');
  return value;
}

/** Every filter there is. They give the same for the same: none knows a clock, a locale or chance. */
export const FILTERS: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ['default', fallback],
  ['json', { takes: [0, 0], apply: (input, _args, work) => writeValue(input, JSON_NOTATION, work) }],
  ['yaml', { takes: [0, 0], apply: (input, _args, work) => writeValue(input, YAML_NOTATION, work) }],
  ['shell', text(0, 0, shell)],
  ['base64', base64],
  ['indent', indent],

  ['append', text(1, 1, (subject, [more]) => subject + more)],
  ['prepend', text(1, 1, (subject, [more]) => more + subject)],
  ['upcase', text(0, 0, (subject) => subject.toUpperCase())],
  ['downcase', text(0, 0, (subject) => subject.toLowerCase())],
  ['capitalize', text(0, 0, (subject) => capitalize(subject))],
  ['strip', text(0, 0, (subject) => subject.trim())],
  ['lstrip', text(0, 0, (subject) => subject.trimStart())],
  ['rstrip', text(0, 0, (subject) => subject.trimEnd())],
  ['strip_newlines', text(0, 0, (subject) => subject.replaceAll(/\r?\n/g, ''))],
  ['replace', text(2, 2, replace)],
  ['replace_first', text(2, 2, replaceAt('indexOf'))],
  ['replace_last', text(2, 2, replaceAt('lastIndexOf'))],
  ['remove', text(1, 1, replace)],
  ['remove_first', text(1, 1, replaceAt('indexOf'))],
  ['remove_last', text(1, 1, replaceAt('lastIndexOf'))],
  ['split', text(1, 1, split)],
  ['escape', text(0, 0, (subject) => subject.replaceAll(/[&<>"']/g, (char) => ESCAPES[char] as string))],
  ['url_encode', text(0, 0, (subject) => encodeURIComponent(subject).replaceAll('%20', '+'))],
  ['url_decode', text(0, 0, urlDecode)],
  ['truncate', truncate],
  ['slice', slice],
  ['size', size],

  ['plus', number(1, 1, (value, [other = 0]) => value + other)],
  ['minus', number(1, 1, (value, [other = 0]) => value - other)],
  ['times', number(1, 1, (value, [other = 0]) => value * other)],
  ['divided_by', number(1, 1, (value, [other = 0], work) => value / nonZero(other, work))],
  ['modulo', number(1, 1, (value, [other = 0], work) => ((value % nonZero(other, work)) + other) % other)],
  ['abs', number(0, 0, Math.abs)],
  ['ceil', number(0, 0, Math.ceil)],
  ['floor', number(0, 0, Math.floor)],
  ['round', number(0, 1, round)],
  ['at_least', number(1, 1, (value, [other = 0]) => Math.max(value, other))],
  ['at_most', number(1, 1, (value, [other = 0]) => Math.min(value, other))],

  ['join', list(0, 1, join)],
  ['first', list(0, 0, (items) => items[0] ?? null)],
  ['last', list(0, 0, (items) => items.at(-1) ?? null)],
  ['reverse', list(0, 0, (items) => items.toReversed())],
  ['sort', list(0, 1, sort)],
  ['uniq', list(0, 0, uniq)],
  ['compact', list(0, 0, (items) => items.filter((item) => item !== null))],
  ['concat', list(1, 1, (items, [more = null], work) => items.concat(listOf(more, work)))],
  ['map', list(1, 1, (items, [key = null], work) => items.map((item) => pick(item, key, work)))],
  ['where', list(1, 2, (items, args, work) => items.filter((item) => matches(item, args, work)))],
  ['reject', list(1, 2, (items, args, work) => items.filter((item) => !matches(item, args, work)))],
  ['find', list(1, 2, (items, args, work) => items.find((item) => matches(item, args, work)) ?? null)],
  ['has', list(1, 2, (items, args, work) => items.some((item) => matches(item, args, work)))],
  ['sum', list(0, 1, (items, [key], work) => sum(items, key, work))],
]);

function capitalize(subject: string): string {
  const end = skipPoints(subject, 0, 1);
  return subject.slice(0, end).toUpperCase() + subject.slice(end).toLowerCase();
}

function sum(items: Json[], key: Value | undefined, work: Work): number {
  const total = items.reduce<number>((so, item) => so + numberOf(key === undefined ? item : pick(item, key, work), work), 0);
  if (!Number.isFinite(total)) throw work.fault('template_failed', 'the number is too large');
  return total;
}

/** What other template languages call them. */
export const OTHER_NAMES: ReadonlyMap<string, string> = new Map([
  ['tojson', 'json'],
  ['to_json', 'json'],
  ['jsonify', 'json'],
  ['toyaml', 'yaml'],
  ['to_yaml', 'yaml'],
  ['quote', 'shell or yaml'],
  ['squote', 'shell or yaml'],
  ['base64_encode', 'base64'],
  ['b64encode', 'base64'],
  ['b64enc', 'base64'],
  ['nindent', 'indent'],
  ['upper', 'upcase'],
  ['lower', 'downcase'],
  ['trim', 'strip'],
  ['length', 'size'],
  ['count', 'size'],
  ['sort_natural', 'sort'],
  ['raw', 'nothing: values are printed as they are'],
]);

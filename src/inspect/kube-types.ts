import type { Path } from './json-schema.ts';
import { readGoScalar } from './kube-scalar.ts';
import { alternatives, type Remark, showPath } from './remark.ts';
import { closestKey } from './spelling.ts';
import { isMapping } from './yaml.ts';

/** How many values of an enumeration a message lists. */
const MAX_LISTED = 12;

interface Field {
  /** See kube-table.ts. */
  form: string;
  required: boolean;
}

/** The types of Kubernetes' own API, those of versions that are gone too. */
export interface KubeTypes {
  /** The type of a kind, or null. */
  typeOf(apiVersion: string, kind: string): string | null;
  kindsOf(apiVersion: string): readonly string[];
  kinds(): ReadonlySet<string>;
  /** The apiVersions that have a kind. */
  versionsOf(kind: string): readonly string[];
  /** Of the core the group is ``. */
  groups(): ReadonlySet<string>;
  /** The fields of a type; a type without any takes what comes. */
  fieldsOf(type: string): ReadonlyMap<string, Field>;
}

let loaded: Promise<KubeTypes> | undefined;

/** The table of types: it is read when first asked for, and each type when it is first met. */
export function loadKubeTypes(): Promise<KubeTypes> {
  loaded ??= import('./kube-table.ts').then(({ KINDS, TYPES }) => readTable(KINDS, TYPES));
  return loaded;
}

function readTable(kindLines: string, typeLines: string): KubeTypes {
  const kinds = new Map<string, Map<string, string>>();
  for (const line of kindLines.trim().split('\n')) {
    const [apiVersion = '', ...words] = line.split(' ');
    kinds.set(apiVersion, new Map(words.map((word) => word.split('=') as [string, string])));
  }
  const lines = new Map(
    typeLines
      .trim()
      .split('\n')
      .map((line) => [line.split(' ', 1)[0] ?? '', line]),
  );
  const types = new Map<string, ReadonlyMap<string, Field>>();
  return {
    typeOf: (apiVersion, kind) => kinds.get(apiVersion)?.get(kind) ?? null,
    kindsOf: (apiVersion) => [...(kinds.get(apiVersion)?.keys() ?? [])],
    versionsOf: (kind) => [...kinds].filter(([, names]) => names.has(kind)).map(([apiVersion]) => apiVersion),
    kinds: () => new Set([...kinds.values()].flatMap((names) => [...names.keys()])),
    groups: () => new Set([...kinds.keys()].map(groupOf)),
    fieldsOf: (type) => {
      const fields = types.get(type) ?? readFields(lines.get(type) ?? '');
      types.set(type, fields);
      return fields;
    },
  };
}

function readFields(line: string): ReadonlyMap<string, Field> {
  const [, ...words] = line.split(' ');
  return new Map(
    words.map((word) => {
      const [, name = '', mark, form = ''] = /^([^:!]+)(!?):(.*)$/.exec(word) ?? [];
      return [name, { form, required: mark === '!' }];
    }),
  );
}

/** `apps/v1` → `apps`, `v1` → ``. */
export function groupOf(apiVersion: string): string {
  return apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
}

/** What the walk over one document needs besides it. */
export interface Walk {
  types: KubeTypes;
  report(remark: Remark): void;
  /** Whether there is room for more remarks. */
  full(): boolean;
  /** The unquoted text at a path, or null (`DocumentPlaces.plain`). */
  plain(path: Path): string | null;
  /** Called with each mapping of a type, after its fields were looked at. */
  visit(type: string, value: Record<string, unknown>, path: Path): void;
  /** What was looked at, and as what: aliases make one value stand in many places. */
  seen: Map<object, Set<string>>;
}

/**
 * Holds a value against a type as the API server reads it (strict decoding, as kubectl asks for by default): unknown fields, wrong types,
 * missing fields, values that are none of an enumeration. A null is as good as nothing, and an empty string as good as a default.
 * @param form a type, or another form of kube-table.ts
 */
export function checkType(walk: Walk, form: string, value: unknown, path: Path): void {
  checkForm(walk, form, value, [...path]);
}

type Steps = (string | number)[];

function checkForm(walk: Walk, form: string, value: unknown, path: Steps): void {
  if (form === '*' || value === null || value === undefined || walk.full()) return;
  if (form.startsWith('[')) checkList(walk, form, value, path);
  else if (form.startsWith('{')) checkMap(walk, form, value, path);
  else if (form.startsWith('=') || form.length === 1) checkScalar(walk, form, value, path);
  else checkObject(walk, form, value, path);
}

function checkList(walk: Walk, form: string, value: unknown, path: Steps): void {
  if (!Array.isArray(value)) {
    const hint = isMapping(value) ? ': begin each item with a -' : '';
    report(walk, 'wrong_type', path, `${showPath(path)} must be a list${hint}`);
  } else if (isFirst(walk, form, value)) each(walk, form.slice(1, -1), value.entries(), path);
}

function checkMap(walk: Walk, form: string, value: unknown, path: Steps): void {
  // A !!set is a mapping of nulls.
  if (value instanceof Set) return;
  if (!isMapping(value)) report(walk, 'wrong_type', path, `${showPath(path)} must be a mapping, KEY: VALUE`);
  else if (isFirst(walk, form, value)) each(walk, form.slice(1, -1), Object.entries(value), path);
}

function each(walk: Walk, form: string, members: Iterable<[string | number, unknown]>, path: Steps): void {
  for (const [step, member] of members) {
    path.push(step);
    checkForm(walk, form, member, path);
    path.pop();
  }
}

function checkObject(walk: Walk, type: string, value: unknown, path: Steps): void {
  if (!isMapping(value)) {
    report(walk, 'wrong_type', path, `${showPath(path)} must be a mapping of fields, FIELD: VALUE`);
    return;
  }
  const fields = walk.types.fieldsOf(type);
  if (fields.size === 0 || !isFirst(walk, type, value)) return;
  const meant = new Set<string>();
  for (const [key, member] of Object.entries(value)) {
    if (walk.full()) return;
    path.push(key);
    const field = fields.get(key);
    if (field) checkForm(walk, field.form, member, path);
    else {
      const free = [...fields.keys()].filter((name) => !Object.hasOwn(value, name));
      const close = closestKey(key, free) ?? closestKey(key, fields.keys());
      if (close !== null) meant.add(close);
      report(walk, 'unknown_field', path, unknownField(path, close), 'key');
    }
    path.pop();
  }
  for (const [name, field] of fields) if (!meant.has(name)) checkPresence(walk, name, field, value[name], path);
  walk.visit(type, value, path);
}

/** What must be there must not be empty, either. */
function checkPresence(walk: Walk, name: string, field: Field, value: unknown, path: Steps): void {
  const absent = value === null || value === undefined;
  const empty = value === '' || (Array.isArray(value) && value.length === 0);
  if (!(absent || empty) || !isDemanded(walk.types, name, field)) return;
  if (absent) report(walk, 'missing_field', path, `${showPath(path) || 'it'} has no ${name}, and cannot do without`);
  else report(walk, 'missing_field', [...path, name], `${showPath([...path, name])} is empty, and must not be`);
}

function unknownField(path: Path, close: string | null): string {
  const what = `${showPath(path)} is no field there is`;
  return close === null ? `${what}: is it misspelt, or does it belong elsewhere?` : `${what}: did you mean ${close}?`;
}

/** A spec or a template that may be left out by its type may still not be: what it would be then lacks its own required fields. */
function isDemanded(types: KubeTypes, name: string, { form, required }: Field): boolean {
  if (required) return true;
  if (name !== 'spec' && name !== 'template') return false;
  return [...types.fieldsOf(form)].some(([inner, field]) => isDemanded(types, inner, field));
}

function isFirst(walk: Walk, form: string, value: object): boolean {
  const forms = walk.seen.get(value) ?? new Set();
  if (forms.has(form)) return false;
  walk.seen.set(value, forms.add(form));
  return true;
}

const QUANTITY = /^[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[numkMGTPE]|[KMGTPE]i|[eE][-+]?[0-9]+)?$/;
/** Go's encoding/base64, which passes over line breaks. */
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

const WANTED: Record<string, string> = {
  s: 'a string',
  B: 'a string of base64',
  b: 'true or false',
  i: 'an integer',
  n: 'a number',
  p: 'an integer or a string',
  q: 'a quantity, such as 2, 500m or 128Mi',
};

function checkScalar(walk: Walk, form: string, value: unknown, path: Steps): void {
  const read = readScalar(walk, form, value, path);
  if (read === null) return;
  if (!fits(form, read)) {
    report(walk, 'wrong_type', path, `${showPath(path)} must be ${WANTED[form] ?? 'a string'}${typeHint(form, read)}`);
  } else if (form === 'q' && typeof read === 'string' && !QUANTITY.test(read)) {
    report(
      walk,
      'bad_quantity',
      path,
      `${showPath(path)} is no quantity: write a number and n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei`,
    );
  } else if (form === 'B' && !BASE64.test(String(read).replaceAll(/[\r\n]/g, ''))) {
    const hint = path.at(-2) === 'data' ? ', or move it to stringData' : '';
    report(walk, 'not_base64', path, `${showPath(path)} must be base64: encode it${hint}`);
  } else if (form.startsWith('=') && read !== '') checkChoice(walk, form, String(read), path);
}

function checkChoice(walk: Walk, form: string, value: string, path: Steps): void {
  const choices = form
    .slice(1)
    .split('|')
    .filter((choice) => choice !== '');
  if (choices.includes(value)) return;
  const close = closestKey(value, choices);
  const hint =
    close !== null ? `: did you mean ${close}?` : choices.length > MAX_LISTED ? '' : `: write ${alternatives(choices)}`;
  report(walk, 'unsupported_value', path, `${showPath(path)} has a value that there is not${hint}`);
}

function fits(form: string, value: unknown): boolean {
  switch (form) {
    case 'b':
      return typeof value === 'boolean';
    case 'i':
      return Number.isInteger(value);
    case 'n':
      return Number.isFinite(value);
    case 'p':
      return typeof value === 'string' || Number.isInteger(value);
    case 'q':
      return typeof value === 'string' || Number.isFinite(value);
    default:
      return typeof value === 'string';
  }
}

function typeHint(form: string, value: unknown): string {
  if (typeof value === 'object') return '';
  if (typeof value !== 'string') return form === 's' || form === 'B' || form.startsWith('=') ? ': put it in quotes' : '';
  const unquoted = readGoScalar(value);
  return typeof unquoted !== 'string' && fits(form, unquoted) ? ': take the quotes away' : '';
}

/** A scalar as kubectl reads it. The text is asked for only where that may be another thing than PyYAML reads, and it matters. */
function readScalar(walk: Walk, form: string, value: unknown, path: Steps): unknown {
  // To kubectl a date is a string, and so is what !!binary holds.
  if (value instanceof Date || value instanceof Uint8Array) return goScalar(walk, '', path);
  const asIs =
    typeof value === 'string' ? typeof readGoScalar(value) === 'string' : typeof value === 'object' || fits(form, value);
  return asIs ? value : goScalar(walk, value, path);
}

function goScalar(walk: Walk, value: unknown, path: Steps): unknown {
  const plain = walk.plain(path);
  return plain === null ? value : readGoScalar(plain);
}

function report(walk: Walk, code: string, path: Steps, message: string, what?: 'key'): void {
  walk.report({ severity: 'error', code, path: [...path], message, ...(what ? { what } : {}) });
}

import { invalid } from '../domain/errors.ts';
import { closestKey } from './spelling.ts';
import { isMapping, oddKeysOf } from './yaml.ts';

/** Keys and indexes from the root. */
export type Path = readonly (string | number)[];

/** Kinds of values; `other` is what JSON does not have, such as a date. */
export type Kind = 'string' | 'array' | 'object' | 'boolean' | 'integer' | 'number' | 'null' | 'other';

/** One thing the schema refuses. It names keys and what is wanted, never a value of the document. */
export type Problem = { path: Path } & (
  | { why: 'unknown_key'; key: string; known: readonly string[] }
  /** One of the keys is enough. */
  | { why: 'missing_key'; keys: readonly string[] }
  /** A value of another kind, or none of those allowed; of several alternatives each is enough. */
  | { why: 'value'; found: Kind; kinds: readonly string[]; allowed: readonly unknown[]; patterns: readonly string[] }
  /** Items, keys or characters: too few or too many. */
  | { why: 'size'; found: number; least: number; most: number }
  | { why: 'range'; least: number; most: number }
  /** The keys must not stand together. */
  | { why: 'excluded'; keys: readonly string[] }
);
type ValueProblem = Problem & { why: 'value' };

/** A key or value that the schema marks as `deprecated`, or as `changed`, which cloud-init treats alike. */
export interface Deprecation {
  path: Path;
  /** A version of cloud-init. */
  since: string | null;
  /** The schema's own words. */
  advice: string | null;
}

/** What a schema says of a document. */
export interface Verdict {
  problems: Problem[];
  deprecations: Deprecation[];
  /** Keys that are no texts where the schema has patterns for them: Python's `re.search` raises, and with it cloud-init's validator. */
  unmatchable: Path[];
  /** The document is too large to be judged in full. */
  cut: boolean;
}

/** A schema that was looked through and can judge. */
export interface Validator {
  /** @param skipTop whether unknown keys at the very top are somebody else's to tell of: thousands would leave no room for other problems */
  check(document: unknown, skipTop?: boolean): Verdict;
  /** The keys it knows at the top of a document. */
  keys: ReadonlySet<string>;
}

interface Schema {
  readonly [keyword: string]: unknown;
}

/** Of one check, each a schema against a value: a fraction of a second, and far more than a real document needs. */
const MAX_STEPS = 200_000;
/** Of each sort. */
const MAX_PROBLEMS = 2_000;
/** Schemas within schemas: cloud-init's are about 20 deep. */
const MAX_DEPTH = 200;
/** Longer texts are not held against a pattern: some of cloud-init's need quadratic time. */
const MAX_MATCHED = 256;

/**
 * Reads a JSON schema as cloud-init reads its own (config/schema.py): what stands beside a `$ref` counts, bytes are strings, and what an
 * alternative marks as deprecated counts only where that alternative fits. Drafts 4 to 7 as far as cloud-init's schemas go; `format` and
 * `uniqueItems` are not looked at, since cloud-init takes what they refuse, nor is a value refused that fits two alternatives.
 *
 * It interprets: ready at once (compiled code needs a third of a second, in which nobody is served), no code is made from a file that was
 * fetched, and it can tell which alternative was meant.
 * @throws invalid `bad_schema`
 */
export function readSchema(root: unknown): Validator {
  const schema = asSchema(root);
  const context: Context = { root: schema, refs: new Map(), patterns: new Map() };
  const seen = new Set<Schema>();
  lookThrough(context, schema, seen, 0);
  const chains = new Map<Schema, number>();
  for (const each of seen) chainOf(context, each, chains, 0);
  const keys = new Set<string>();
  collectKeys(context, schema, keys, new Set());
  return {
    keys,
    check: (document, skipTop = false) => {
      const verdict = emptyVerdict();
      judge({ ...context, skipTop, steps: 0, depth: 0, verdict }, schema, document, null);
      return verdict;
    },
  };
}

interface Context {
  root: Schema;
  refs: Map<string, Schema>;
  patterns: Map<string, RegExp>;
}

/** Refuses what is no schema, and finds every `$ref` and pattern once. */
function lookThrough(context: Context, schema: Schema, seen: Set<Schema>, depth: number): void {
  if (seen.has(schema)) return;
  seen.add(schema);
  if (seen.size > 100_000) throw badSchema('it is too large');
  if (depth > MAX_DEPTH) throw badSchema('it is nested too deep');
  const look = (each: unknown) => lookThrough(context, asSchema(each), seen, depth + 1);

  for (const keyword of ['additionalProperties', 'items', 'not'] as const) {
    const value = schema[keyword];
    if (Array.isArray(value)) value.forEach(look);
    else if (value !== undefined && typeof value !== 'boolean') look(value);
  }
  for (const keyword of ['allOf', 'anyOf', 'oneOf'] as const) listOf(schema[keyword], keyword).forEach(look);
  for (const keyword of ['properties', 'patternProperties'] as const) {
    const members = schema[keyword];
    if (members === undefined) continue;
    if (!isMapping(members)) throw badSchema(`${keyword} is not an object`);
    Object.values(members).forEach(look);
    if (keyword === 'patternProperties') for (const pattern of Object.keys(members)) keepPattern(context, pattern);
  }
  if (schema.pattern !== undefined) keepPattern(context, schema.pattern);
  listOf(schema.enum, 'enum');
  for (const keyword of ['type', 'required'] as const)
    for (const word of typeof schema[keyword] === 'string' ? [schema[keyword]] : listOf(schema[keyword], keyword))
      if (typeof word !== 'string') throw badSchema(`${keyword} is not made of strings`);

  const { $ref: ref } = schema;
  if (ref === undefined) return;
  if (typeof ref !== 'string' || !ref.startsWith('#')) throw badSchema('it refers to another file');
  let target: unknown = context.root;
  for (const step of ref.slice(1).split('/').slice(1)) {
    const key = step.replaceAll('~1', '/').replaceAll('~0', '~');
    target = isMapping(target) && Object.hasOwn(target, key) ? target[key] : undefined;
  }
  if (target === undefined) throw badSchema('it refers to a part that is not in it');
  context.refs.set(ref, asSchema(target));
  look(target);
}

/** How many schemas in a row judge one and the same value. Of those that never come to an end (a `$ref` to itself) it refuses the first. */
function chainOf(context: Context, schema: Schema, known: Map<Schema, number>, depth: number): number {
  const before = known.get(schema);
  if (before === Number.POSITIVE_INFINITY) throw badSchema('it refers to itself without end');
  if (before !== undefined) return before;
  known.set(schema, Number.POSITIVE_INFINITY);
  const next = ['allOf', 'anyOf', 'oneOf'].flatMap((keyword) => listOf(schema[keyword], keyword)) as Schema[];
  const ref = context.refs.get(String(schema.$ref));
  if (ref) next.push(ref);
  if (isMapping(schema.not)) next.push(schema.not);
  if (depth > MAX_DEPTH) throw badSchema('it is nested too deep');
  const longest = next.reduce((most, each) => Math.max(most, chainOf(context, each, known, depth + 1)), 0);
  if (longest >= MAX_DEPTH) throw badSchema('it is nested too deep');
  known.set(schema, longest + 1);
  return longest + 1;
}

function collectKeys(context: Context, schema: Schema, keys: Set<string>, seen: Set<Schema>): void {
  if (seen.has(schema)) return;
  seen.add(schema);
  for (const key of Object.keys(membersOf(schema.properties))) keys.add(key);
  const parts = ['allOf', 'anyOf', 'oneOf'].flatMap((keyword) => listOf(schema[keyword], keyword)) as Schema[];
  const ref = context.refs.get(String(schema.$ref));
  for (const part of ref ? [ref, ...parts] : parts) collectKeys(context, part, keys, seen);
}

/** A path, from its end to the root. */
type Trail = { step: string | number; parent: Trail | null; length: number } | null;

interface Check extends Context {
  skipTop: boolean;
  steps: number;
  depth: number;
  verdict: Verdict;
}

function judge(check: Check, schema: Schema, value: unknown, trail: Trail): void {
  if (++check.steps > MAX_STEPS || check.depth > MAX_DEPTH) {
    check.verdict.cut = true;
    return;
  }
  check.depth++;
  const ref = schema.$ref === undefined ? undefined : check.refs.get(String(schema.$ref));
  if (ref) judge(check, ref, value, trail);
  judgeAnnotations(check, schema, trail);
  judgeValue(check, schema, value, trail);
  if (isMapping(value)) judgeMembers(check, schema, value, trail);
  else if (Array.isArray(value)) judgeItems(check, schema, value, trail);
  for (const part of listOf(schema.allOf, 'allOf')) judge(check, part as Schema, value, trail);
  for (const keyword of ['anyOf', 'oneOf'] as const)
    if (schema[keyword] !== undefined) judgeAlternatives(check, schema[keyword] as Schema[], value, trail);
  if (schema.not !== undefined && judgeApart(check, schema.not as Schema, value, trail).problems.length === 0)
    report(check, {
      path: pathOf(trail),
      why: 'excluded',
      keys: listOf((schema.not as Schema).required, 'required') as string[],
    });
  check.depth--;
}

function judgeAnnotations(check: Check, schema: Schema, trail: Trail): void {
  if (schema.deprecated !== true && schema.changed !== true) return;
  const text = (...names: string[]) => names.map((name) => schema[name]).find((each) => typeof each === 'string') ?? null;
  if (check.verdict.deprecations.length >= MAX_PROBLEMS) {
    check.verdict.cut = true;
    return;
  }
  const path = pathOf(trail);
  const since = text('deprecated_version', 'changed_version') as string | null;
  const advice = text('deprecated_description', 'changed_description', 'description') as string | null;
  check.verdict.deprecations.push({ path, since, advice });
}

function judgeValue(check: Check, schema: Schema, value: unknown, trail: Trail): void {
  const found = kindOf(value);
  const refuse = (wanted: Partial<ValueProblem>) =>
    report(check, { path: pathOf(trail), why: 'value', found, kinds: [], allowed: [], patterns: [], ...wanted });
  const kinds = schema.type === undefined ? null : ([schema.type].flat() as string[]);
  const allowed = schema.enum as unknown[] | undefined;
  // What is of the wrong kind is told so once, with the values that may stand there.
  if (kinds && !kinds.includes(found) && !(found === 'integer' && kinds.includes('number')))
    refuse(allowed ? { allowed } : { kinds });
  else if (allowed && !allowed.includes(value)) refuse({ allowed });
  else if (typeof value === 'string') {
    const { pattern } = schema;
    if (typeof pattern === 'string' && value.length <= MAX_MATCHED && !matches(check, pattern, value))
      refuse({ patterns: [pattern] });
    judgeSize(check, value.length, schema.minLength, schema.maxLength, trail);
  } else if (typeof value === 'number') {
    const [least, most] = [
      numberOf(schema.minimum, Number.NEGATIVE_INFINITY),
      numberOf(schema.maximum, Number.POSITIVE_INFINITY),
    ];
    if (value < least || value > most) report(check, { path: pathOf(trail), why: 'range', least, most });
  }
}

function judgeSize(check: Check, found: number, min: unknown, max: unknown, trail: Trail): void {
  const [least, most] = [numberOf(min, 0), numberOf(max, Number.POSITIVE_INFINITY)];
  if (found < least || found > most) report(check, { path: pathOf(trail), why: 'size', found, least, most });
}

function judgeMembers(check: Check, schema: Schema, value: Record<string, unknown>, trail: Trail): void {
  const properties = membersOf(schema.properties);
  const patterns = Object.entries(membersOf(schema.patternProperties));
  const others = schema.additionalProperties;
  const known = Object.keys(properties);
  if (schema.minProperties !== undefined || schema.maxProperties !== undefined)
    judgeSize(check, Object.keys(value).length, schema.minProperties, schema.maxProperties, trail);
  for (const key of listOf(schema.required, 'required') as string[])
    if (!Object.hasOwn(value, key)) report(check, { path: pathOf(trail), why: 'missing_key', keys: [key] });
  // A mapping may be huge, and each of dozens of schemas for the top of a cloud-config knows a few keys.
  if (patterns.length === 0 && others === undefined) {
    for (const key of known)
      if (Object.hasOwn(value, key) && Object.hasOwn(properties, key))
        judge(check, properties[key] as Schema, value[key], extend(trail, key));
    return;
  }
  if (patterns.length > 0) {
    const [odd] = oddKeysOf(value).keys();
    const { unmatchable } = check.verdict;
    if (odd !== undefined && unmatchable.length < MAX_PROBLEMS) unmatchable.push([...pathOf(trail), odd]);
  }
  for (const key of Object.keys(value)) {
    const own = extend(trail, key);
    const fitting = patterns.filter(([pattern]) => key.length <= MAX_MATCHED && matches(check, pattern, key));
    if (Object.hasOwn(properties, key)) judge(check, properties[key] as Schema, value[key], own);
    for (const [, each] of fitting) judge(check, each as Schema, value[key], own);
    if (fitting.length > 0 || Object.hasOwn(properties, key)) continue;
    if (others === false) {
      if (trail !== null || !check.skipTop) report(check, { path: pathOf(trail), why: 'unknown_key', key, known });
    } else if (isMapping(others)) judge(check, others, value[key], own);
  }
}

function judgeItems(check: Check, schema: Schema, value: readonly unknown[], trail: Trail): void {
  judgeSize(check, value.length, schema.minItems, schema.maxItems, trail);
  const { items } = schema;
  if (items === undefined) return;
  for (const [index, item] of value.entries()) {
    const own = Array.isArray(items) ? items[index] : items;
    if (own !== undefined) judge(check, own as Schema, item, extend(trail, index));
  }
}

function judgeApart(check: Check, schema: Schema, value: unknown, trail: Trail): Verdict {
  const { verdict } = check;
  const apart = emptyVerdict();
  check.verdict = apart;
  judge(check, schema, value, trail);
  check.verdict = verdict;
  verdict.cut ||= apart.cut;
  for (const path of apart.unmatchable) if (verdict.unmatchable.length < MAX_PROBLEMS) verdict.unmatchable.push(path);
  return apart;
}

function emptyVerdict(): Verdict {
  return { problems: [], deprecations: [], unmatchable: [], cut: false };
}

/** The first alternative that fits is the one; where none does, what is wrong with the one that was meant. */
function judgeAlternatives(check: Check, schemas: readonly Schema[], value: unknown, trail: Trail): void {
  const tries: Problem[][] = [];
  for (const schema of schemas) {
    const { problems, deprecations } = judgeApart(check, schema, value, trail);
    if (problems.length === 0) {
      for (const each of deprecations) check.verdict.deprecations.push(each);
      return;
    }
    tries.push(problems);
  }
  for (const problem of findMeant(tries, trail?.length ?? 0)) report(check, problem);
}

/** Of alternatives that all have problems with a value at this depth: the problems of the one that comes closest. */
function findMeant(tries: readonly Problem[][], depth: number): Problem[] {
  const isHere = ({ path }: Problem) => path.length === depth;
  const refusals = tries.map((problems) =>
    problems.filter((each): each is ValueProblem => isHere(each) && each.why === 'value'),
  );
  // Each refuses the value itself: say all that may stand there.
  if (refusals.every((each) => each.length > 0)) {
    const all = refusals.flat();
    const unique = <T>(values: T[]) => [...new Set(values)];
    return [
      {
        ...(all[0] as ValueProblem),
        kinds: unique(all.flatMap(({ kinds }) => kinds)),
        allowed: unique(all.flatMap(({ allowed }) => allowed)),
        patterns: unique(all.flatMap(({ patterns }) => patterns)),
      },
    ];
  }
  const fitting = tries.filter((_, index) => refusals[index]?.length === 0);
  // `type` tells alternatives apart: {type: webhook} is no log.
  const isType = ({ why, path }: Problem) => why === 'value' && path.length === depth + 1 && path.at(-1) === 'type';
  const meant = fitting.filter((problems) => !problems.some(isType));
  const types = fitting.flatMap((problems) => problems.filter(isType)) as ValueProblem[];
  if (meant.length === 0 && types[0]) return [{ ...types[0], allowed: types.flatMap(({ allowed }) => allowed) }];
  // Each wants one key more: any of them will do.
  const [lacks, ...others] = meant.map(([first, ...more]) =>
    first?.why === 'missing_key' && more.length === 0 ? first : null,
  );
  if (lacks && others.length > 0 && others.every((each) => each !== null))
    return [{ ...lacks, keys: [lacks, ...others].flatMap(({ keys }) => keys) }];
  // What is wrong deeper down speaks for an alternative, then few faults do.
  const deeper = meant.filter((problems) => !problems.some(isHere));
  return (deeper.length > 0 ? deeper : meant).reduce((best, each) => (faultsOf(each) < faultsOf(best) ? each : best));
}

/** A misspelt key that must be there is one fault, not two. */
function faultsOf(problems: readonly Problem[]): number {
  return problems.length - misspeltKeys(problems).length;
}

/** The keys that are missing because an unknown one was meant to be them. */
export function misspeltKeys(problems: readonly Problem[]): Problem[] {
  const missing = Map.groupBy(
    problems.filter((each) => each.why === 'missing_key'),
    ({ path }) => JSON.stringify(path),
  );
  if (missing.size === 0) return [];
  return problems.flatMap((problem) => {
    if (problem.why !== 'unknown_key') return [];
    const lacks = missing.get(JSON.stringify(problem.path)) ?? [];
    const meant = lacks.length === 0 ? null : closestKey(problem.key, problem.known);
    return lacks.filter(({ keys }) => meant !== null && keys.includes(meant));
  });
}

function report(check: Check, problem: Problem): void {
  if (check.verdict.problems.length < MAX_PROBLEMS) check.verdict.problems.push(problem);
  else check.verdict.cut = true;
}

/** The kind of a value that `readYaml` made. */
export function kindOf(value: unknown): Kind {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (isMapping(value)) return 'object';
  if (typeof value === 'boolean') return 'boolean';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value === 'string' || value instanceof Uint8Array ? 'string' : 'other';
}

function extend(parent: Trail, step: string | number): Trail {
  return { step, parent, length: (parent?.length ?? 0) + 1 };
}

function pathOf(trail: Trail): Path {
  const path: (string | number)[] = [];
  for (let at = trail; at; at = at.parent) path.unshift(at.step);
  return path;
}

/** Python's `$` stands before a final line break, too. */
function matches(context: Context, pattern: string, text: string): boolean {
  const regexp = context.patterns.get(pattern);
  return regexp === undefined || regexp.test(text) || (text.endsWith('\n') && regexp.test(text.slice(0, -1)));
}

function keepPattern(context: Context, pattern: unknown): void {
  if (typeof pattern !== 'string') throw badSchema('a pattern is not a string');
  try {
    context.patterns.set(pattern, new RegExp(pattern));
  } catch {
    throw badSchema('a pattern is not a regular expression');
  }
}

function asSchema(value: unknown): Schema {
  if (!isMapping(value)) throw badSchema('a schema in it is not an object');
  return value;
}

function listOf(value: unknown, keyword: string): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw badSchema(`${keyword} is not a list`);
  return value;
}

function membersOf(value: unknown): Record<string, unknown> {
  return isMapping(value) ? value : {};
}

function numberOf(value: unknown, fallback: number): number {
  return typeof value === 'number' ? value : fallback;
}

function badSchema(why: string) {
  return invalid('bad_schema', `not a JSON schema: ${why}`);
}

import { invalid } from '../domain/errors.ts';
import { type Deprecation, misspeltKeys, type Path, type Problem, readSchema, type Validator } from './json-schema.ts';
import { alternatives, type Remark, showKey, showPath } from './remark.ts';
import { closestKey } from './spelling.ts';

/** cloud-init's own schemas, ready to judge. */
export interface SchemaSet {
  /** Which schema judges, for people: `cloud-init 25.1.4 (installed)`. */
  source: string;
  cloudConfig: Validator;
  networkV1: Validator | null;
  networkV2: Validator | null;
}

/** The schema that a setting names cannot be used. */
export interface UnusableSchema {
  source: null;
  /** Whose fault it is and what it is, for people: one clause, without a path of this machine. */
  unusable: string;
}

/** What judges: a set; none because the one that a setting names cannot; or null, none while there is no schema. */
export type Schemas = SchemaSet | UnusableSchema | null;

/** Schemas as JSON texts. */
export interface SchemaTexts {
  cloudConfig: string;
  networkV1: string | null;
  networkV2: string | null;
}

/**
 * Makes a set of cloud-init's schemas (config/schemas/*.json). `source` is for people.
 * @throws invalid `bad_schema` for what is not JSON, not a schema, or a schema of something else
 */
export function compileSchemas(source: string, texts: SchemaTexts): SchemaSet {
  const cloudConfig = compile(texts.cloudConfig);
  if (!['runcmd', 'users', 'write_files'].every((key) => cloudConfig.keys.has(key)))
    throw invalid('bad_schema', 'not a schema of cloud-config: it knows no runcmd, users and write_files');
  const network = (text: string | null, key: string) => {
    const validator = text === null ? null : compile(text);
    if (validator && !validator.keys.has(key))
      throw invalid('bad_schema', `not a schema of network-config: it knows no ${key}`);
    return validator;
  };
  return {
    source,
    cloudConfig,
    networkV1: network(texts.networkV1, 'config'),
    networkV2: network(texts.networkV2, 'ethernets'),
  };
}

function compile(text: string): Validator {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw invalid('bad_schema', 'not JSON');
  }
  return readSchema(json);
}

/** What of a document a schema's verdict is told for. */
export interface Reading {
  document: unknown;
  /** What was written at a path, where it stands unquoted; null if that is not known. */
  plain(path: Path): string | null;
  /** Whether cloud-init takes as it was meant what its schema refuses. */
  taken(problem: Problem): boolean;
  /** Whether unknown keys at the very top are somebody else's to tell of. */
  skipTop: boolean;
  /** Whether other versions and programs know more keys, so that an unknown one is no error, however close it is to a known one. */
  lenient: boolean;
}

/** What is lost when cloud-init's init stage ends early; runcmd, packages and scripts come in later stages. */
export const LOST_WITH_STAGE = 'no user, SSH key or file is set up';

/** What there is to say of a document by a schema. */
export function judgeBySchema(validator: Validator, reading: Reading): Remark[] {
  const { problems, deprecations, unmatchable, cut } = validator.check(reading.document, reading.skipTop);
  // That a misspelt key is unknown says enough.
  const misspelt = new Set(misspeltKeys(problems));
  const remarks = problems.flatMap((problem) => (misspelt.has(problem) ? [] : tellProblem(problem, reading)));
  remarks.push(...deprecations.map(tellDeprecation), ...unmatchable.map(tellUnmatchable));
  if (cut)
    remarks.push({
      severity: 'warning',
      code: 'not_fully_judged',
      path: [],
      message: 'it is too large to be held against the schema in full',
    });
  return remarks;
}

function tellProblem(problem: Problem, reading: Reading): Remark {
  const { path } = problem;
  const name = path.length === 0 ? 'it' : showPath(path);
  if (problem.why === 'unknown_key') return tellUnknownKey(problem, reading);
  if (problem.why !== 'missing_key' && reading.taken(problem))
    return {
      severity: 'warning',
      code: 'loose_value',
      path,
      message: `${name} works, but cloud-init warns of it at boot: its schema wants ${wantedBy(problem)}`,
    };
  const error = (code: string, message: string): Remark => ({ severity: 'error', code, path, message });
  switch (problem.why) {
    case 'missing_key':
      return error('missing_key', `${name} needs ${alternatives(problem.keys.map((key) => `a key ${key}`))}`);
    case 'excluded':
      return error('bad_value', `${name} must have only one of ${alternatives(problem.keys.map(showKey))}`);
    case 'value':
      return error('bad_value', `${name} must be ${wantedBy(problem)}${hintFor(problem, reading)}`);
    default:
      return error('bad_value', `${name} must be ${wantedBy(problem)}`);
  }
}

function tellUnknownKey(problem: Problem & { why: 'unknown_key' }, { lenient, taken }: Reading): Remark {
  const { path, key, known } = problem;
  const meant = closestKey(key, known);
  const at: Pick<Remark, 'code' | 'path' | 'what'> = { code: 'unknown_key', path: [...path, key], what: 'key' };
  const message = `${showPath(at.path)} is no key that cloud-init knows`;
  if (taken(problem))
    return {
      ...at,
      severity: 'warning',
      message: `${showPath(at.path)} works, but cloud-init warns of it at boot: its schema wants ${meant}`,
    };
  if (meant !== null) return { ...at, severity: lenient ? 'warning' : 'error', message: `${message}: did you mean ${meant}?` };
  // Its entries become the arguments of a function: an unknown one ends three stages (reporting/__init__.py, update_configuration).
  const fatal = path[0] === 'reporting';
  const choice = known.length <= 12 ? `: it takes ${alternatives(known)}` : ', so that version would ignore it';
  return { ...at, severity: fatal ? 'error' : 'warning', message: message + choice };
}

const KINDS: Record<string, string> = {
  string: 'a text',
  array: 'a list',
  object: 'a mapping',
  boolean: 'true or false',
  integer: 'a whole number',
  number: 'a number',
  null: 'null',
};

/** So many values are told by their names. */
const MAX_NAMES = 12;

function wantedBy(problem: Problem): string {
  switch (problem.why) {
    case 'value': {
      const { kinds, allowed, patterns } = problem;
      const names = allowed.map((each) => String(each));
      const words = [
        ...kinds.map((kind) => KINDS[kind] ?? kind),
        ...(names.length <= MAX_NAMES ? names : [`one of the ${names.length} names its schema lists, such as ${names[0]}`]),
        ...patterns.map((pattern) => `a text like ${pattern}`),
      ];
      return alternatives(words);
    }
    case 'size': {
      const { found, least, most } = problem;
      if (found < least) return least === 1 ? 'something in it, or no such key' : `at least ${least} long`;
      return `at most ${most} long`;
    }
    case 'range':
      return [
        ...(Number.isFinite(problem.least) ? [`at least ${problem.least}`] : []),
        ...(Number.isFinite(problem.most) ? [`at most ${problem.most}`] : []),
      ].join(' and ');
    default:
      return 'something else';
  }
}

/** Why a value is not what it looks like: unquoted texts that YAML 1.1 makes something else of. */
function hintFor({ path, found, kinds, allowed, patterns }: Problem & { why: 'value' }, reading: Reading): string {
  if (found === 'null') return ': it is empty';
  const wantsText = kinds.includes('string') || patterns.length > 0 || allowed.some((each) => typeof each === 'string');
  if (!wantsText || found === 'array' || found === 'object') return `, not ${KINDS[found] ?? 'a date'}`;
  const plain = reading.plain(path);
  if (found === 'boolean') return ': unquoted, YAML reads yes, no, on and off as true and false, so quote it';
  if (found === 'other') return ': unquoted, YAML reads it as a date, so quote it';
  if (found === 'string') return '';
  if (plain !== null && !isAsWritten(plain))
    return ': YAML reads it as another number (one that begins with 0 is octal, 12:30 is base 60), so quote it';
  return ': unquoted, YAML reads it as a number, so quote it';
}

/** Whether Python's `str()` of an unquoted number or date gives back what was written. */
export function isAsWritten(plain: string): boolean {
  return /^(?:-?[1-9][0-9]{0,14}|0|-?(?:0|[1-9][0-9]{0,8})\.(?:[0-9]{0,5}[1-9]|0)|[0-9]{4}-[0-9]{2}-[0-9]{2})$/.test(plain);
}

/** cmd/main.py, main_init: the validator is called outside any `try`, before the modules of that stage. Seen on 22.4 and 25.1. */
function tellUnmatchable(path: Path): Remark {
  return {
    severity: 'error',
    code: 'odd_key',
    path,
    what: 'key',
    message: `${showPath(path.slice(0, -1))} has a key that YAML reads as a number, true, false or null; cloud-init's validator ends in a TypeError there, and ${LOST_WITH_STAGE}: quote the key`,
  };
}

function tellDeprecation({ path, since, advice }: Deprecation): Remark {
  const version = since === null ? '' : ` since cloud-init ${since}`;
  // The schemas' texts are reStructuredText.
  const words =
    advice === null
      ? ''
      : `: ${advice
          .replaceAll(/\*\*|``/g, '')
          .trim()
          .slice(0, 300)}`;
  return {
    severity: 'warning',
    code: 'deprecated_key',
    path,
    what: 'key',
    message: `${showPath(path)} is deprecated${version}${words}`,
  };
}

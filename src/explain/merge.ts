import { carryOddKeys, isMapping } from '../inspect/yaml.ts';

/** A merger as a rule names it; `settings` as in Python: a list's or set's members, a mapping's keys, or a text that is searched. */
interface Rule {
  name: string;
  settings: Settings;
}
type Settings = { has(setting: string): boolean };

/** Merges a later value into an earlier one. Neither is changed; where nothing comes of it, the earlier one itself is returned. */
export type Merge = (value: unknown, later: unknown) => unknown;

/** Where Python raises: the part is dropped. */
export class MergeError extends Error {
  /** A ValueError to Python: such parts 25.1 names in the merged file. */
  readonly isValueError: boolean;

  constructor(message: string, isValueError = false) {
    super(message);
    this.isValueError = isValueError;
  }
}

/** What cloud-init takes when nothing is said (handlers/cloud_config.py). */
const DEFAULT_RULE = 'dict(replace)+list()+str()';
const MERGERS = ['m_dict', 'm_list', 'm_str'];

/**
 * Takes the rule out of a cloud-config and merges the rest as cloud-init does (handlers/cloud_config.py, `_extract_mergers`): the
 * rules in the body come before those of the header, and the first merger of a kind counts.
 * @returns the rest of the config and what merges it
 * @throws MergeError where the part is dropped
 */
export function mergerFor(
  config: Record<string, unknown>,
  header: string | null,
): { rest: Record<string, unknown>; merge: Merge } {
  const rest = { ...config };
  carryOddKeys(rest, config);
  let stated = take(rest, 'merge_how');
  if (stated === null) stated = take(rest, 'merge_type');
  const rules = [...rulesInBody(stated), ...rulesOf(header ?? '')];
  return { rest, merge: construct(rules.length > 0 ? rules : rulesOf(DEFAULT_RULE)) };
}

function take(config: Record<string, unknown>, key: string): unknown {
  const value = Object.hasOwn(config, key) ? config[key] : null;
  delete config[key];
  return value ?? null;
}

/** mergers/__init__.py, `string_extract_mergers`. */
function rulesOf(text: string): Rule[] {
  const rules: Rule[] = [];
  for (const piece of text.split('+')) {
    const name = piece.toLowerCase().trim().replaceAll('-', '_');
    if (name === '') continue;
    const match = /^([a-z_][a-z0-9_]*)\(([^\n]*)\)$/.exec(name);
    if (!match) throw new MergeError('a merger is not NAME(SETTING,…)', true);
    const settings = (match[2] ?? '').split(',').flatMap((setting) => (setting.trim() === '' ? [] : [setting.trim()]));
    rules.push({ name: match[1] ?? '', settings: new Set(settings) });
  }
  return rules;
}

/** mergers/__init__.py, `dict_extract_mergers`. */
function rulesInBody(stated: unknown): Rule[] {
  if (stated === null) return [];
  if (typeof stated === 'string') return rulesOf(stated);
  return iterate(stated).flatMap((item) => {
    if (isMapping(item)) {
      if (typeof item.name !== 'string' || !Object.hasOwn(item, 'settings'))
        throw new MergeError('a merger has no name or settings');
      const name = item.name.replaceAll('-', '_').trim();
      return name === '' ? [] : [{ name, settings: settingsOf(item.settings) }];
    }
    // A text is taken letter by letter: its first one is the name.
    if (!(typeof item === 'string' || Array.isArray(item)) || item.length === 0)
      throw new MergeError('a merger is a mapping or a list');
    const [name] = typeof item === 'string' ? [...item] : item;
    const settings = typeof item === 'string' ? [...item].slice(1).join('') : item.slice(1);
    if (name === null || name === '' || name === false || name === 0) return [];
    if (typeof name !== 'string') throw new MergeError('a merger’s name is not text');
    return [{ name, settings: settingsOf(settings) }];
  });
}

/** What `in` finds in a value of YAML. */
function settingsOf(value: unknown): Settings {
  if (typeof value === 'string') return { has: (setting) => value.includes(setting) };
  if (Array.isArray(value) || value instanceof Set) return new Set(value);
  if (isMapping(value)) return { has: (setting) => Object.hasOwn(value, setting) };
  throw new MergeError('a merger’s settings are not a list');
}

/** mergers/__init__.py, `construct`: a merge looks for the first merger that knows the earlier value's type. */
function construct(rules: readonly Rule[]): Merge {
  for (const { name } of rules)
    if (!MERGERS.includes(name.startsWith('m_') ? name : `m_${name}`)) throw new MergeError('there is no such merger');
  const first = (kind: string) => rules.find(({ name }) => name === kind || name === `m_${kind}`)?.settings;
  const merge: Merge = (value, later) => {
    if (isMapping(value)) return onDict?.(value, later) ?? value;
    if (Array.isArray(value)) return onList === undefined ? value : onList(value, later);
    if (typeof value === 'string') return onStr === undefined ? value : onStr(value, later);
    return value;
  };
  const [dict, list, str] = [first('dict'), first('list'), first('str')];
  const onDict = dict && dictMerger(dict, merge);
  const onList = list && listMerger(list, merge);
  const onStr = str && strMerger(str);
  return merge;
}

/** mergers/m_dict.py */
function dictMerger(settings: Settings, merge: Merge) {
  const replace = settings.has('replace');
  const lists = settings.has('recurse_array') || settings.has('recurse_list');
  const strings = settings.has('recurse_str');
  const deletes = settings.has('allow_delete');
  const merged = (before: unknown, later: unknown): unknown => {
    if (replace) return later;
    const recurses = Array.isArray(later) ? lists : typeof later === 'string' ? strings : isMapping(later);
    return recurses ? merge(before, later) : before;
  };

  return (value: Record<string, unknown>, later: unknown): Record<string, unknown> => {
    if (!isMapping(later)) return value;
    const entries = new Map(Object.entries(value));
    let changed = false;
    for (const [key, item] of Object.entries(later)) {
      const before = entries.get(key);
      if (!entries.has(key)) entries.set(key, item);
      else if (item === null && deletes) entries.delete(key);
      else {
        const result = merged(before, item);
        if (result === before) continue;
        entries.set(key, result);
      }
      changed = true;
    }
    if (!changed) return value;
    const result = Object.fromEntries(entries);
    carryOddKeys(result, value, later);
    return result;
  };
}

/** mergers/m_list.py */
function listMerger(settings: Settings, merge: Merge) {
  const method = ['append', 'prepend', 'replace', 'no_replace'].find((each) => settings.has(each)) ?? 'replace';
  const lists = settings.has('recurse_array') || settings.has('recurse_list');
  const strings = settings.has('recurse_str');
  const dicts = settings.has('recurse_dict');

  return (value: unknown[], later: unknown): unknown => {
    if (method === 'replace' && !Array.isArray(later)) return later;
    if (method === 'append' || method === 'prepend') {
      const added = iterate(later);
      if (added.length === 0) return value;
      return method === 'append' ? [...value, ...added] : [...added, ...value];
    }
    const count = Math.min(value.length, lengthOf(later));
    // A mapping has no items by number.
    if (count > 0 && !Array.isArray(later) && typeof later !== 'string') throw new MergeError('a list meets a mapping');
    if (method === 'no_replace' || !Array.isArray(later)) return value;
    return value.map((before, index) => {
      if (index >= count) return before;
      const item = later[index];
      const recurses = Array.isArray(item) ? lists : typeof item === 'string' ? strings : isMapping(item) && dicts;
      return recurses ? merge(before, item) : item;
    });
  };
}

/** mergers/m_str.py */
function strMerger(settings: Settings) {
  const append = settings.has('append');
  return (value: string, later: unknown): unknown => {
    if (!append) return later;
    if (typeof later !== 'string') throw new MergeError('a text is appended to by something else');
    return value + later;
  };
}

/** What Python's `for` and `list.extend` go over. */
function iterate(value: unknown): unknown[] {
  if (Array.isArray(value)) return value;
  if (typeof value === 'string' || value instanceof Set) return [...value];
  if (value instanceof Uint8Array) return [...value];
  if (isMapping(value)) return Object.keys(value);
  throw new MergeError('there is nothing to go over');
}

/** As Python's `len`. */
function lengthOf(value: unknown): number {
  if (typeof value === 'string') return [...value].length;
  return iterate(value).length;
}

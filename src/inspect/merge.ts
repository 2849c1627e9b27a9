import { invalid } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import { isMapping, readYaml } from './yaml.ts';

/** Short names. `replace` is what cloud-init does when nothing is said (handlers/cloud_config.py). */
const NAMED = new Map([
  ['append', 'list(append)+dict(no_replace,recurse_list)+str()'],
  ['replace', 'dict(replace)+list()+str()'],
]);

/** The mergers there are and what they heed (mergers/m_*.py); cloud-init passes over other settings without a word. */
const SETTINGS: ReadonlyMap<string, readonly string[]> = new Map([
  ['list', ['append', 'prepend', 'replace', 'no_replace', 'recurse_str', 'recurse_dict', 'recurse_array', 'recurse_list']],
  ['dict', ['replace', 'no_replace', 'recurse_str', 'recurse_dict', 'recurse_array', 'recurse_list', 'allow_delete']],
  ['str', ['append', 'replace']],
]);

const MAX_LENGTH = 500;
const ALLOWED = [
  `${[...NAMED.keys()].join(' or ')}`,
  `MERGER(SETTING,…)+… of ${[...SETTINGS].map(([name, settings]) => `${name}(${settings.join(',')})`).join(' ')}`,
].join(', or ');

/**
 * Checks a merge rule as cloud-init reads `Merge-Type` (mergers/__init__.py, string_extract_mergers: case, spaces and `-` for `_`
 * do not matter). A `+` that a query string turned into a space counts as `+`.
 * @returns the rule in one spelling: letters, `_`, `()`, `,` and `+` only, so safe as a header
 * @throws invalid `bad_merge`
 */
export function checkMerge(value: string): string {
  const bad = () => invalid('bad_merge', `a merge rule is ${ALLOWED}`);
  if (value.length > MAX_LENGTH || !/^[A-Za-z_(),+ -]+$/.test(value)) throw bad();
  const text = value.trim().toLowerCase().replaceAll('-', '_');
  const named = NAMED.get(text);
  if (named !== undefined) return named;
  // A space outside of brackets is a plus, or stands beside one.
  const mergers = text
    .replace(/\) *[+ ] *(?=[a-z_+])/g, ')+')
    .split('+')
    .flatMap((part) => (part.trim() === '' ? [] : [part.trim()]));
  if (mergers.length === 0) throw bad();
  return mergers
    .map((merger) => {
      const [, name = '', list = ''] = /^(?:m_)?([a-z_]+)\(([^()]*)\)$/.exec(merger) ?? [];
      const settings = list.split(',').flatMap((setting) => (setting.trim() === '' ? [] : [setting.trim()]));
      const known = SETTINGS.get(name);
      if (!known || settings.some((setting) => !known.includes(setting))) throw bad();
      return `${name}(${settings.join(',')})`;
    })
    .join('+');
}

/**
 * What a checked rule will do that nobody wants: a cloud-config is a mapping, and without a `dict` merger cloud-init has nothing
 * that takes it, so the whole part is dropped without a word (mergers/__init__.py, UnknownMerger).
 */
export function mergeFindings(part: string, merge: string): Finding[] {
  if (/(?:^|\+)dict\(/.test(merge)) return [];
  return [
    {
      severity: 'warning',
      code: 'merge_without_dict',
      part,
      message: 'without a dict() merger cloud-init drops the whole part: add +dict(no_replace,recurse_list)',
    },
  ];
}

/**
 * Whether a cloud-config states a merge rule itself, at its top level (mergers/__init__.py, dict_extract_mergers); it beats the
 * header. False too for what is not YAML, or states an empty rule.
 */
export function statesMergeRule(cloudConfig: string): boolean {
  if (!/merge_(?:how|type)/.test(cloudConfig)) return false;
  try {
    const [config] = readYaml(cloudConfig);
    if (!isMapping(config)) return false;
    const rule = config.merge_how ?? config.merge_type;
    return Array.isArray(rule) || typeof rule === 'string' ? rule.length > 0 : rule !== undefined && rule !== null;
  } catch {
    return false;
  }
}

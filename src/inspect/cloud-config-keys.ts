import type { Path } from './json-schema.ts';
import { type Remark, showPath } from './remark.ts';
import { LOST_WITH_STAGE } from './schema.ts';
import { isMapping, type OddKey, oddKeysOf } from './yaml.ts';

/** So many mappings are told of. */
const MAX_TOLD = 50;

const READ_AS: Record<OddKey, string> = {
  number: 'a number',
  boolean: 'true or false (as it does yes, no, on and off)',
  null: 'null',
};

/**
 * Finds mappings whose keys Python cannot sort: texts beside numbers, booleans or null. cloud-init 25.1 writes the merged cloud-config as JSON with
 * sorted keys (stages.py, consume_data; atomic_helper.py, json_dumps), at any depth; that TypeError ends the init stage before its modules run
 * (cmd/main.py, main_init). 22.4 writes no such file. At the very top the system's own keys, texts, join in.
 */
export function mixedKeys(config: Record<string, unknown>): Remark[] {
  const remarks: Remark[] = [];
  const seen = new Set<object>();
  const walk = (node: object, path: Path): void => {
    if (remarks.length >= MAX_TOLD || seen.has(node)) return;
    seen.add(node);
    const key = isMapping(node) ? findMixed(node, path.length === 0) : null;
    if (key !== null) remarks.push(tell(path, key, oddKeysOf(node).get(key) as OddKey));
    if (Array.isArray(node)) {
      for (const [index, item] of node.entries()) if (isCollection(item)) walk(item, [...path, index]);
    } else if (isMapping(node))
      for (const name of Object.keys(node)) if (isCollection(node[name])) walk(node[name], [...path, name]);
  };
  walk(config, []);
  return remarks;
}

function isCollection(value: unknown): value is object {
  return value !== null && typeof value === 'object';
}

/** The first key that is no text, where others are of another kind. */
function findMixed(mapping: Record<string, unknown>, amongTexts: boolean): string | null {
  const odd = oddKeysOf(mapping);
  const [first, ...more] = [...odd.keys()].filter((key) => Object.hasOwn(mapping, key));
  if (first === undefined) return null;
  const texts = amongTexts || Object.keys(mapping).length > more.length + 1;
  return texts || (more.length > 0 && [first, ...more].some((key) => odd.get(key) === 'null')) ? first : null;
}

function tell(path: Path, key: string, read: OddKey): Remark {
  const where = path.length === 0 ? 'the cloud-config' : showPath(path);
  return {
    severity: 'error',
    code: 'odd_key',
    path: [...path, key],
    what: 'key',
    message: `${where} has a key that YAML reads as ${READ_AS[read]} beside keys of another kind; cloud-init 25.1 cannot sort them and ends in a TypeError, and ${LOST_WITH_STAGE}: quote the key`,
  };
}

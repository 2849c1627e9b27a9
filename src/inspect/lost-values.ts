import { isDeepStrictEqual } from 'node:util';
import type { Finding } from '../domain/finding.ts';
import { holdsTooMuch, isMapping, readYaml } from './yaml.ts';

/** A cloud-config as an operator gave it, in the order in which the bundles are. */
export interface ConfigSource {
  origin: string;
  text: string;
  /** It states its own merge rule, so what it overrides or loses is its author's wish. */
  statesRule: boolean;
}

/** So many losses are told. */
const MAX_LOSSES = 50;
/** So many values are remembered, to hold those of later cloud-configs against. */
const MAX_REMEMBERED = 100_000;

/**
 * Finds values that do not come out of the merge as people expect (lists join, maps recurse, the later single value wins), where no rule of
 * cloud-init's can do better (mergers/m_dict.py, m_list.py):
 * - In the given order, once one cloud-config states a rule of its own, the first of two different single values wins.
 * - Else a list given for what an earlier cloud-config has as a map takes in the map's keys as items.
 * Cloud-configs that are too large to be judged are passed over.
 * @param pause awaited between cloud-configs, so that others get their turn
 */
export async function findLostValues(
  configs: readonly ConfigSource[],
  order: 'given' | 'reverse',
  pause: () => Promise<void>,
): Promise<Finding[]> {
  if (configs.length < 2) return [];
  const findings: Finding[] = [];
  const firsts = new Map<string, { value: unknown; origin: string }>();
  for (const { origin, text, statesRule } of configs) {
    await pause();
    for (const [path, value] of nodes(parse(text))) {
      if (findings.length === MAX_LOSSES) {
        findings.push({
          severity: 'warning',
          code: 'more_findings',
          part: origin,
          message: 'and more are lost: put these right first',
        });
        return findings;
      }
      const first = firsts.get(path);
      if (!first) {
        if (firsts.size < MAX_REMEMBERED) firsts.set(path, { value, origin });
      } else if (order === 'given') {
        if (!statesRule && isSingle(value) && !isDeepStrictEqual(first.value, value))
          findings.push({
            severity: 'warning',
            code: 'value_lost',
            part: origin,
            message: `its ${path} is passed over for the one of ${first.origin}: a cloud-config here states its own merge rule, so all are merged in their given order, where the first single value wins`,
          });
      } else if (Array.isArray(value) && isMapping(first.value)) {
        findings.push({
          severity: 'warning',
          code: 'merge_clash',
          part: origin,
          message: `its ${path} is a list, the one of ${first.origin} a map: cloud-init joins the map's keys into the list; write both as lists`,
        });
      }
    }
  }
  return findings;
}

function parse(text: string): unknown {
  if (holdsTooMuch(text)) return undefined;
  try {
    return readYaml(text)[0];
  } catch {
    return undefined;
  }
}

function isSingle(value: unknown): boolean {
  return !Array.isArray(value) && !isMapping(value);
}

/** Every value below the top, with its path; what is in a list has none. */
function* nodes(value: unknown, path: readonly string[] = []): Generator<[string, unknown]> {
  if (path.length > 0) yield [path.join('.'), value];
  if (isMapping(value)) for (const [key, member] of Object.entries(value)) yield* nodes(member, [...path, key]);
}

import { scheduler } from 'node:timers/promises';
import { BootbundleError, wouldBreak } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import type { Instance } from '../domain/instance.ts';
import { LIMITS } from '../domain/limits.ts';
import type { Store } from '../domain/store.ts';
import type { DocumentService, Replacement } from './documents.ts';

/** How many names an error or a finding lists. */
const NAMED = 5;

/**
 * Looks at what a change would do to the machines that follow it: those whose references to `bundle` hold `reference` (`web`, or
 * `web@stable`), and would get what `compile` makes from now on; it is made only when there are any. Machines with the same
 * bundles get the same parts, so one of each kind is rendered.
 * @returns a warning for machines that have booted already, which would break only when they are rebuilt
 * @throws would_break naming machines that have still to boot and would newly be refused, with the findings
 */
export async function checkFollowers(
  { store, documents }: { store: Store; documents: DocumentService },
  { bundle, reference }: { bundle: string; reference: string },
  compile: () => Promise<Replacement>,
): Promise<Finding[]> {
  const groups = await groupFollowers(store, reference, bundle);
  if (groups.length === 0) return [];
  const replacement = await compile();
  const warnings: Finding[] = [];
  for (const { sample, waiting, booted } of groups) {
    await scheduler.yield();
    const before = await errorsOf(documents, sample);
    const fresh = (await errorsOf(documents, sample, replacement)).filter(
      (error) => !before.some((other) => other.code === error.code && fileOf(other) === fileOf(error)),
    );
    const [first] = fresh;
    if (!first) continue;
    const why = [first.part, first.message].filter((word) => word !== undefined).join(': ');
    if (waiting.length > 0)
      throw wouldBreak(
        'would_break',
        `${list(waiting)} ${waiting.length === 1 ? 'has' : 'have'} still to boot and would break: ${why}`,
        fresh,
      );
    warnings.push({
      severity: 'warning',
      code: 'would_break',
      message: `${list(booted)} booted already and would break when rebuilt: ${why}`,
    });
  }
  return warnings;
}

/** Machines with the same bundles in the same order: one to look at, and the names of all. */
interface Group {
  sample: Instance;
  /** Not fetched yet, so it gets what is published now. */
  waiting: string[];
  booted: string[];
}

async function groupFollowers(store: Store, reference: string, bundle: string): Promise<Group[]> {
  const groups = new Map<string, Group>();
  for (let after: string | null = null; ; ) {
    const page: Instance[] = await store.listInstances({ after, limit: LIMITS.pageMax }, { bundle });
    for (const instance of page) {
      if (!instance.bundles.includes(reference)) continue;
      const key = instance.bundles.join(' ');
      const group = groups.get(key) ?? { sample: instance, waiting: [], booted: [] };
      groups.set(key, group);
      (instance.deliveryCount === 0 ? group.waiting : group.booted).push(instance.name);
    }
    after = page.at(-1)?.name ?? null;
    if (page.length < LIMITS.pageMax) return [...groups.values()];
  }
}

async function errorsOf(documents: DocumentService, instance: Instance, replacement?: Replacement): Promise<Finding[]> {
  try {
    const { findings } = await documents.inspect(instance, replacement);
    return findings.filter(({ severity }) => severity === 'error');
  } catch (error) {
    if (!(error instanceof BootbundleError) || error.kind !== 'invalid') throw error;
    return [{ severity: 'error', code: error.code, message: error.message }];
  }
}

/** `web@3/a.sh` and `web@4/a.sh` are the same part. */
function fileOf({ part = '' }: Finding): string {
  return part.replace(/@\d+\//, '/');
}

function list(names: readonly string[]): string {
  const more = names.length - NAMED;
  return `${names.slice(0, NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

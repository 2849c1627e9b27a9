import type { Finding } from '../domain/finding.ts';
import type { Json } from '../domain/json.ts';
import { isMapping } from './yaml.ts';

/** What the part handler of the bundle kube heeds of `vars.kube`, and what it takes (src/guest/bootbundle-apply, settings). */
const RULES: Record<string, { fits: (value: unknown) => boolean; wanted: string }> = {
  mode: { fits: (value) => value === 'spool' || value === 'direct', wanted: 'spool or direct' },
  patience: { fits: (value) => within(value, 30 * 24 * 3600), wanted: 'a time such as 90 or "30m", 30 days at the most' },
  directWait: { fits: (value) => within(value, 300), wanted: 'a time such as 60 or "2m", 5 minutes at the most' },
  enable: { fits: (value) => (Array.isArray(value) ? value.every(isUnit) : isUnit(value)), wanted: 'a list of systemd units' },
};

/** Finds in `vars.kube` what the machine would pass over, with a word in its log and in the timeline only. Warnings. */
export function inspectKubeVars(kube: Json | undefined): Finding[] {
  const warning = (message: string): Finding => ({ severity: 'warning', code: 'kube_vars', message });
  if (kube === undefined || kube === null) return [];
  if (!isMapping(kube)) return [warning('vars.kube is not a map: the machine leaves it out')];
  return Object.entries(kube).flatMap(([key, value]) => {
    const rule = Object.hasOwn(RULES, key) ? RULES[key] : undefined;
    if (!rule) return [warning(`vars.kube.${key} means nothing: there are ${Object.keys(RULES).join(', ')}`)];
    return value === null || rule.fits(value)
      ? []
      : [warning(`vars.kube.${key} must be ${rule.wanted}: the machine uses its default`)];
  });
}

const UNIT_SECONDS: Record<string, number> = { '': 1, s: 1, m: 60, h: 3600, d: 86_400 };

function within(value: unknown, most: number): boolean {
  if (typeof value !== 'string' && typeof value !== 'number') return false;
  const [, digits = '', unit = ''] = /^([0-9]{1,9})(?:\.[0-9]+)? ?([smhd]?)$/.exec(String(value).trim()) ?? [];
  const seconds = Number(digits) * (UNIT_SECONDS[unit] ?? 0);
  return seconds > 0 && seconds <= most;
}

function isUnit(value: unknown): boolean {
  return typeof value === 'string' && /^[A-Za-z0-9_][A-Za-z0-9_.@:\\-]{0,254}$/.test(value);
}

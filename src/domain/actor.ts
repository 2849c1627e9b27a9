import { forbidden, invalid } from './errors.ts';
import { parseReference } from './names.ts';

/** What a token may do; each role may what those before it may. `viewer`: read, but no secret and no URL of a machine's. */
export const ROLES = ['viewer', 'editor', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** Name patterns in which `*` stands for anything, nothing included; null: every name. */
export type NamePatterns = readonly string[] | null;

/** Which bundles and instances a token is for. */
export interface TokenScope {
  bundles: NamePatterns;
  instances: NamePatterns;
}

/** The scope of a token without one. */
export const EVERYTHING: TokenScope = Object.freeze({ bundles: null, instances: null });

/** Who does something, as the audit keeps it. */
export interface Actor {
  /** The token's name; `admin` for the admin token, `bootbundle` for ourselves. */
  name: string;
  role: Role;
  scope: TokenScope;
  /** The token's public id; null for the admin token and ourselves. */
  tokenId: string | null;
  /** From where, and in which request; empty outside of HTTP. */
  address: string;
  requestId: string;
}

/** Who holds the admin token. */
export const ADMIN_NAME = 'admin';

const NOWHERE = { scope: EVERYTHING, tokenId: null, address: '', requestId: '' };
/** What the service does by itself. */
export const OURSELVES: Actor = Object.freeze({ name: 'bootbundle', role: 'admin', ...NOWHERE });
/** Who runs a command on the host, where the admin token is. */
export const HOST_ADMIN: Actor = Object.freeze({ name: ADMIN_NAME, role: 'admin', ...NOWHERE });

/** Whether `role` may what `needed` may. */
export function roleSuffices(role: Role, needed: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(needed);
}

const PATTERN = /^[a-z0-9.*-]{1,63}$/;
const PATTERNS_PER_SCOPE = 100;

/** Checks a scope as an operator stated it. @throws invalid `bad_scope` */
export function checkScope(scope: TokenScope): TokenScope {
  for (const [kind, patterns] of Object.entries(scope) as [keyof TokenScope, NamePatterns][]) {
    if (patterns !== null && (patterns.length > PATTERNS_PER_SCOPE || !patterns.every((pattern) => PATTERN.test(pattern))))
      throw invalid(
        'bad_scope',
        `${kind}: a scope has at most ${PATTERNS_PER_SCOPE} name patterns of 1 to 63 of a-z 0-9 . - and * for anything, such as web-*`,
      );
  }
  return scope;
}

/** Whether a name is one of those that patterns are for. */
export function namesFit(patterns: NamePatterns, name: string): boolean {
  return patterns === null || patterns.some((pattern) => fits(pattern, name));
}

/** Linear but for the last star: what an earlier one took can stay as short as it was. */
function fits(pattern: string, name: string): boolean {
  let at = 0;
  let star = -1;
  let resume = 0;
  for (let seen = 0; seen < name.length; ) {
    if (pattern[at] === '*') {
      star = at++;
      resume = seen;
    } else if (at < pattern.length && pattern[at] === name[seen]) {
      at++;
      seen++;
    } else if (star >= 0) {
      at = star + 1;
      seen = ++resume;
    } else return false;
  }
  return /^\**$/.test(pattern.slice(at));
}

/** Whether everything of `inner` is in `outer`. A pattern is in another when that one takes it as a text, its stars too. */
export function scopeCovers(outer: TokenScope, inner: TokenScope): boolean {
  return (['bundles', 'instances'] as const).every((kind) => {
    const [around, within] = [outer[kind], inner[kind]];
    return around === null || (within?.every((pattern) => namesFit(around, pattern)) ?? false);
  });
}

/** Refuses what is not in a token's scope, in the same words whether it exists or not. @throws forbidden `out_of_scope` */
export function checkInScope({ scope }: Pick<Actor, 'scope'>, kind: 'bundle' | 'instance', name: string): void {
  if (namesFit(scope[`${kind}s`], name)) return;
  throw forbidden('out_of_scope', `your token is not for this ${kind}: GET /api/v1/tokens/self tells what it is for`);
}

/** Refuses references to bundles that are not in a token's scope: a machine's document holds what is in them. @throws forbidden `out_of_scope` */
export function checkReferencesInScope({ scope }: Pick<Actor, 'scope'>, references: readonly string[]): void {
  if (scope.bundles === null) return;
  const outside = references.find((text) => !namesFit(scope.bundles, parseReference(text).bundle));
  if (outside !== undefined)
    throw forbidden('out_of_scope', `your token is not for the bundle of ${outside}, so it cannot have a machine get it`);
}

/** What a token may do; each role may what those before it may. `viewer`: read, but no secret and no URL of a machine's. */
export const ROLES = ['viewer', 'editor', 'admin'] as const;
export type Role = (typeof ROLES)[number];

/** Which bundles and instances a token is for: name patterns in which `*` stands for anything; null: all. */
export interface TokenScope {
  bundles: readonly string[] | null;
  instances: readonly string[] | null;
}

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

/** Whether `role` may what `needed` may. */
export function roleSuffices(role: Role, needed: Role): boolean {
  return ROLES.indexOf(role) >= ROLES.indexOf(needed);
}

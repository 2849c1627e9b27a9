import type { Role, TokenScope } from './actor.ts';

/** An API token as it may be shown: `bb_<id>_<secret>` itself is told once, when it is made. */
export interface Token {
  /** Public: 8 of a-z 0-9. */
  id: string;
  /** What the audit knows its bearer by. */
  name: string;
  role: Role;
  scope: TokenScope;
  createdAt: number;
  createdBy: string;
  expiresAt: number | null;
  revokedAt: number | null;
  /** To the minute. */
  lastUsedAt: number | null;
}

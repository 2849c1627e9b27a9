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

/** A token as the database holds it. */
export interface StoredToken extends Token {
  /** Of the secret alone, hex. */
  sha256: string;
}

/** A token to be kept. */
export type NewToken = Pick<StoredToken, 'id' | 'name' | 'role' | 'scope' | 'sha256' | 'expiresAt'>;

/** Where a list of tokens goes on: they go by name, and of one name by id. */
export type TokenCursor = Pick<Token, 'name' | 'id'>;

export const TOKEN_ID_LENGTH = 8;
export const TOKEN_SECRET_BYTES = 32;

/** Whether a text could be a token's id. */
export function isTokenId(text: string): boolean {
  return /^[a-z0-9]{8}$/.test(text);
}

/** 256 bits in base64url are 43 characters. */
const FORM = /^bb_([a-z0-9]{8})_([A-Za-z0-9_-]{43})$/;

/** The pieces of an API token; null for any other text. */
export function parseToken(text: string): { id: string; secret: string } | null {
  const [, id, secret] = FORM.exec(text) ?? [];
  return id === undefined || secret === undefined ? null : { id, secret };
}

export function formatToken(id: string, secret: string): string {
  return `bb_${id}_${secret}`;
}

/** How often a use is noted at most, milliseconds. */
export const USE_NOTED_MS = 60_000;

/** Whether it opens anything at a moment. */
export function tokenState({ revokedAt, expiresAt }: Pick<Token, 'revokedAt' | 'expiresAt'>, now: number) {
  if (revokedAt !== null) return 'revoked';
  return expiresAt !== null && expiresAt <= now ? 'expired' : 'living';
}

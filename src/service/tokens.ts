import { createHmac, randomBytes, randomInt, timingSafeEqual } from 'node:crypto';
import {
  type Actor,
  ADMIN_NAME,
  checkScope,
  EVERYTHING,
  OURSELVES,
  type Role,
  roleSuffices,
  scopeCovers,
  type TokenScope,
} from '../domain/actor.ts';
import { sha256 } from '../domain/bundle.ts';
import { forbidden, invalid, notFound, unauthenticated } from '../domain/errors.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName } from '../domain/names.ts';
import type { Page, Store } from '../domain/store.ts';
import {
  formatToken,
  isTokenId,
  parseToken,
  TOKEN_ID_LENGTH,
  TOKEN_SECRET_BYTES,
  type Token,
  type TokenCursor,
  tokenState,
  USE_NOTED_MS,
} from '../domain/token.ts';

/** Who asks, as far as his token tells. */
export type Bearer = Pick<Actor, 'name' | 'role' | 'scope' | 'tokenId'>;

/**
 * Tells who a token belongs to. What it may do is looked up each time, so a revocation holds at once, on every replica.
 * @throws unauthenticated `bad_token`, `token_revoked`, `token_expired`; unavailable when the database is away (not for the admin token)
 */
export type Authenticate = (token: string) => Promise<Bearer>;

/** What an operator wants a token to be. */
export interface TokenWish {
  name: string;
  role: Role;
  scope: TokenScope;
  /** Epoch milliseconds, or for how many of them it is good; null: for ever. */
  expiry: { at: number } | { in: number } | null;
}

/** A token with its whole text, which nothing can tell again. */
export interface FreshToken {
  token: Token;
  text: string;
}

/** Tokens that let somebody do no more than `by` may himself; of others he is told nothing. */
export interface TokenService {
  /**
   * @throws malformed `bad_name`; invalid `bad_scope`, `bad_expiry`, `reserved_name`, `too_many_tokens`; conflict `token_exists`;
   *   forbidden `beyond_token` when it could do more than `by`
   */
  create(wish: TokenWish, by: Actor): Promise<FreshToken>;
  /** The token that `by` asks with; null for the admin token. */
  self(by: Actor): Promise<Token | null>;
  /** @throws not_found `unknown_token` */
  get(id: string, by: Actor): Promise<Token>;
  /** By name, then id; revoked and expired ones too. */
  list(page: Page<TokenCursor>, by: Actor): Promise<Token[]>;
  /** It opens nothing from now on. @throws not_found `unknown_token` */
  revoke(id: string, by: Actor): Promise<void>;
  /**
   * Makes one with the same name, role, scope and length of life. The old one goes on for `overlap` milliseconds.
   * @throws not_found `unknown_token`; conflict `token_revoked`, `token_expired`
   */
  rotate(id: string, overlap: number, by: Actor): Promise<FreshToken>;
}

/** Names that the audit has a meaning of its own for. */
const RESERVED = [ADMIN_NAME, OURSELVES.name];
/** So many are read at a time when not all of them may be told of. */
const PAGE = 1000;

export function createTokenService({ store, clock }: { store: Store; clock: () => number }): TokenService {
  async function known(id: string, by: Actor): Promise<Token> {
    const found = isTokenId(id) ? await store.findToken(id) : null;
    if (!found || !isWithin(found, by)) throw notFound('unknown_token', 'there is no such token');
    const { sha256: _, ...token } = found;
    return token;
  }

  return {
    async create({ name, role, scope, expiry }, by) {
      checkName('token', name);
      if (RESERVED.includes(name))
        throw invalid('reserved_name', `the audit knows somebody else as ${name}: take another name`);
      checkScope(scope);
      const at = clock();
      const expiresAt = expiry && ('at' in expiry ? expiry.at : at + expiry.in);
      if (expiresAt !== null && expiresAt <= at) throw invalid('bad_expiry', 'the token would have expired already');
      if (!isWithin({ role, scope }, by))
        throw forbidden('beyond_token', 'the token could do more than yours: give it your role and scope, or less');
      const { id, secret } = fresh();
      const wanted = { id, name, role, scope, sha256: sha256(secret), expiresAt };
      const token = await store.createToken(wanted, { at, by, limit: LIMITS.livingTokens });
      return { token, text: formatToken(id, secret) };
    },

    self: async (by) => (by.tokenId === null ? null : known(by.tokenId, by)),

    get: known,

    async list({ after, limit }, by) {
      const tokens: Token[] = [];
      for (let from = after; ; ) {
        const page = await store.listTokens({ after: from, limit: PAGE });
        tokens.push(...page.filter((token) => isWithin(token, by)));
        from = page.at(-1) ?? null;
        if (page.length < PAGE || tokens.length >= limit) return tokens.slice(0, limit);
      }
    },

    async revoke(id, by) {
      await known(id, by);
      await store.revokeToken(id, { at: clock(), by });
    },

    async rotate(id, overlap, by) {
      await known(id, by);
      const at = clock();
      const { id: nextId, secret } = fresh();
      const change = { at, by, until: at + overlap, limit: LIMITS.livingTokens };
      const { next } = await store.rotateToken(id, { id: nextId, sha256: sha256(secret) }, change);
      return { token: next, text: formatToken(nextId, secret) };
    },
  };
}

function isWithin({ role, scope }: Pick<Token, 'role' | 'scope'>, by: Actor): boolean {
  return roleSuffices(by.role, role) && scopeCovers(by.scope, scope);
}

const ID_LETTERS = 'abcdefghijklmnopqrstuvwxyz0123456789';

function fresh(): { id: string; secret: string } {
  const id = Array.from({ length: TOKEN_ID_LENGTH }, () => ID_LETTERS[randomInt(ID_LETTERS.length)]).join('');
  return { id, secret: randomBytes(TOKEN_SECRET_BYTES).toString('base64url') };
}

/** Digests of equal length are compared, in constant time, never the tokens themselves. */
export function createAuthenticator(deps: {
  /** Opens everything for as long as the process runs with it, whatever the database says. */
  adminToken: string;
  store: Pick<Store, 'findToken' | 'touchToken'>;
  clock: () => number;
  /** Told of trouble nobody waits for. */
  onTrouble: (error: unknown, what: string) => void;
}): Authenticate {
  const { store, clock, onTrouble } = deps;
  const digest = (text: string) => createHmac('sha256', 'bootbundle/token').update(text).digest();
  const admin = digest(deps.adminToken);
  const noting = new Set<string>();

  function noteUse({ id, lastUsedAt }: Token, at: number): void {
    if (noting.has(id) || (lastUsedAt !== null && at - lastUsedAt < USE_NOTED_MS)) return;
    noting.add(id);
    store
      .touchToken(id, at)
      .catch((error) => onTrouble(error, 'the use of a token could not be noted'))
      .finally(() => noting.delete(id));
  }

  return async (text) => {
    if (timingSafeEqual(digest(text), admin)) return { name: ADMIN_NAME, role: 'admin', scope: EVERYTHING, tokenId: null };
    const pieces = parseToken(text);
    const token = pieces && (await store.findToken(pieces.id));
    if (!token || !timingSafeEqual(Buffer.from(sha256(pieces.secret), 'hex'), Buffer.from(token.sha256, 'hex')))
      throw unauthenticated('bad_token', 'this token is not known here');
    const at = clock();
    const state = tokenState(token, at);
    if (state !== 'living')
      throw unauthenticated(`token_${state}`, `this token ${state === 'revoked' ? 'was revoked' : 'has expired'}`);
    noteUse(token, at);
    return { name: token.name, role: token.role, scope: token.scope, tokenId: token.id };
  };
}

import { type Kysely, type Selectable, sql, type Transaction } from 'kysely';
import type { Actor, NamePatterns, Role, TokenScope } from '../domain/actor.ts';
import type { AuditDetail } from '../domain/audit.ts';
import { conflict, invalid, notFound } from '../domain/errors.ts';
import type { Store } from '../domain/store.ts';
import { type NewToken, type Token, tokenState, USE_NOTED_MS } from '../domain/token.ts';
import { noteAudit } from './audit.ts';
import { type Database, plain, type Schema } from './database.ts';

type TokenStore = Pick<Store, 'createToken' | 'rotateToken' | 'revokeToken' | 'findToken' | 'listTokens' | 'touchToken'>;

/** API tokens, their secrets as hashes only. */
export function tokenStore(database: Database): TokenStore {
  return {
    createToken: (token, { at, by, limit, detail }) =>
      database.write(async (db) => {
        const namesake = await selectLiving(db, at).where('name', '=', token.name).select('id').executeTakeFirst();
        if (namesake)
          throw conflict(
            'token_exists',
            `a living token is called ${token.name}, and the audit knows who by the name: rotate or revoke that one, or take another name`,
          );
        const kept = await insert(db, token, { at, by, limit });
        const note = { action: 'create', before: null, after: token.id, detail: { ...describe(kept), ...detail } };
        await noteAudit(db, at, by, { ...note, kind: 'token', name: token.name });
        return kept;
      }),

    rotateToken: (id, next, { at, by, until, limit, detail }) =>
      database.write(async (db) => {
        const old = await selectToken(db, id);
        if (!old) throw unknownToken();
        const state = tokenState(old, at);
        if (state !== 'living') throw conflict(`token_${state}`, `the token is ${state}: create a new one`);
        const expiresAt = Math.min(old.expiresAt ?? until, until);
        await db.updateTable('token').set({ expires_at: expiresAt }).where('id', '=', id).execute();
        // As long a life as the old one was given.
        const lifetime = old.expiresAt === null ? null : old.expiresAt - old.createdAt;
        const { name, role, scope } = old;
        const fresh = { ...next, name, role, scope, expiresAt: lifetime === null ? null : at + lifetime };
        const kept = await insert(db, fresh, { at, by, limit });
        const told = { ...describe(kept), oldExpiresAt: new Date(expiresAt).toISOString(), ...detail };
        await noteAudit(db, at, by, { action: 'rotate', kind: 'token', name, before: id, after: next.id, detail: told });
        return { old: { ...old, expiresAt }, next: kept };
      }),

    revokeToken: (id, { at, by, detail = {} }) =>
      database.write(async (db) => {
        const token = await selectToken(db, id);
        if (!token) throw unknownToken();
        if (token.revokedAt !== null) return;
        await db.updateTable('token').set({ revoked_at: at }).where('id', '=', id).execute();
        await noteAudit(db, at, by, { action: 'revoke', kind: 'token', name: token.name, before: id, after: null, detail });
      }),

    findToken: (id) =>
      database.read(async (db) => {
        const row = await db.selectFrom('token').selectAll().where('id', '=', id).executeTakeFirst();
        return row ? { ...toToken(row), sha256: row.sha256 } : null;
      }),

    listTokens: ({ after, limit }) =>
      database.read(async (db) => {
        let query = db.selectFrom('token').selectAll().orderBy('name').orderBy('id').limit(limit);
        if (after !== null) query = query.where(sql<boolean>`(name, id) > (${plain(after.name)}, ${plain(after.id)})`);
        return (await query.execute()).map(toToken);
      }),

    touchToken: (id, at) =>
      database.write(async (db) => {
        await db
          .updateTable('token')
          .set({ last_used_at: at })
          .where('id', '=', id)
          .where((eb) => eb.or([eb('last_used_at', 'is', null), eb('last_used_at', '<=', at - USE_NOTED_MS)]))
          .execute();
      }),
  };
}

async function insert(
  db: Transaction<Schema>,
  token: NewToken,
  { at, by, limit }: { at: number; by: Actor; limit: number },
): Promise<Token> {
  const { living } = await selectLiving(db, at)
    .select((eb) => eb.fn.countAll<number>().as('living'))
    .executeTakeFirstOrThrow();
  if (living >= limit)
    throw invalid('too_many_tokens', `there are ${living} living tokens, the most there may be: revoke some`);
  const { id, name, role, scope, sha256, expiresAt } = token;
  const row = await db
    .insertInto('token')
    .values({
      ...{ id, name, role, sha256 },
      ...{ bundles: JSON.stringify(scope.bundles), instances: JSON.stringify(scope.instances) },
      ...{ created_at: at, created_by: plain(by.name), expires_at: expiresAt, revoked_at: null, last_used_at: null },
    })
    .returningAll()
    .executeTakeFirstOrThrow();
  return toToken(row);
}

function selectLiving(db: Kysely<Schema>, at: number) {
  return db
    .selectFrom('token')
    .where('revoked_at', 'is', null)
    .where((eb) => eb.or([eb('expires_at', 'is', null), eb('expires_at', '>', at)]));
}

async function selectToken(db: Kysely<Schema>, id: string): Promise<Token | null> {
  const row = await db.selectFrom('token').selectAll().where('id', '=', id).executeTakeFirst();
  return row ? toToken(row) : null;
}

/** What the audit says of a token. */
function describe({ role, scope, expiresAt }: Token): AuditDetail {
  return {
    role,
    ...(scope.bundles === null ? {} : { bundles: scope.bundles }),
    ...(scope.instances === null ? {} : { instances: scope.instances }),
    ...(expiresAt === null ? {} : { expiresAt: new Date(expiresAt).toISOString() }),
  };
}

function toToken(row: Selectable<Schema['token']>): Token {
  const patterns = (text: string) => JSON.parse(text) as NamePatterns;
  const scope: TokenScope = { bundles: patterns(row.bundles), instances: patterns(row.instances) };
  return {
    ...{ id: row.id, name: row.name, role: row.role as Role, scope },
    ...{ createdAt: row.created_at, createdBy: row.created_by },
    ...{ expiresAt: row.expires_at, revokedAt: row.revoked_at, lastUsedAt: row.last_used_at },
  };
}

const unknownToken = () => notFound('unknown_token', 'there is no such token');

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { EVERYTHING, HOST_ADMIN } from '../../src/domain/actor.ts';
import { unavailable } from '../../src/domain/errors.ts';
import type { Store } from '../../src/domain/store.ts';
import { USE_NOTED_MS } from '../../src/domain/token.ts';
import { createAuthenticator, createTokenService } from '../../src/service/tokens.ts';
import { openStore } from '../../src/store/open.ts';

const ADMIN = 'an-admin-token-of-the-host';
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** An authenticator on a store of its own, with one token; what is asked of the store is counted. */
async function bench(t: TestContext, overrides: Partial<Store> = {}) {
  const store = await openStore({ file: ':memory:' });
  t.after(() => store.close());
  const calls = { findToken: 0, touchToken: 0 };
  const troubles: string[] = [];
  let now = 1000;
  const clock = () => now;
  const watched: Store = {
    ...store,
    findToken: (id) => {
      calls.findToken++;
      return store.findToken(id);
    },
    touchToken: (id, at) => {
      calls.touchToken++;
      return store.touchToken(id, at);
    },
    ...overrides,
  };
  const tokens = createTokenService({ store, clock });
  const wish = { name: 'ci', role: 'editor' as const, scope: EVERYTHING, expiry: null };
  const { text, token } = await tokens.create(wish, HOST_ADMIN);
  const authenticate = createAuthenticator({
    ...{ adminToken: ADMIN, store: watched, clock },
    onTrouble: (error, what) => troubles.push(`${what}: ${(error as Error).message}`),
  });
  const tick = (milliseconds: number) => {
    now += milliseconds;
  };
  return { authenticate, tokens, store, calls, troubles, text, id: token.id, tick };
}

test('a token is looked up by one query; what is no token, and the admin token, by none', async (t) => {
  const { authenticate, calls, text } = await bench(t);
  assert.deepEqual(await authenticate(ADMIN), { name: 'admin', role: 'admin', scope: EVERYTHING, tokenId: null });
  for (const wrong of [
    '',
    'bb_',
    ADMIN.slice(1),
    `${ADMIN} `,
    `${text}x`,
    text.slice(0, -1),
    'a'.repeat(16_000),
    `bb_${'a'.repeat(8)}_ü`,
  ])
    await assert.rejects(authenticate(wrong), { kind: 'unauthenticated', code: 'bad_token' }, wrong.slice(0, 80));
  assert.equal(calls.findToken, 0);
  assert.equal((await authenticate(text)).name, 'ci');
  assert.equal(calls.findToken, 1);
});

test('a secret that differs in one character is another one', async (t) => {
  const { authenticate, text } = await bench(t);
  for (const at of [12, 30, text.length - 2]) {
    const other = text[at] === 'A' ? 'B' : 'A';
    const wrong = text.slice(0, at) + other + text.slice(at + 1);
    await assert.rejects(authenticate(wrong), { code: 'bad_token' }, `character ${at}`);
  }
});

test('a revocation by another replica holds at once', async (t) => {
  const { authenticate, store, text, id } = await bench(t);
  await authenticate(text);
  await store.revokeToken(id, { at: 2000, by: HOST_ADMIN });
  await assert.rejects(authenticate(text), { kind: 'unauthenticated', code: 'token_revoked' });
});

test('uses that come together are noted once, and then once a minute', async (t) => {
  const { authenticate, calls, text, tick, store, id } = await bench(t);
  await Promise.all(Array.from({ length: 20 }, () => authenticate(text)));
  await settle();
  assert.equal(calls.touchToken, 1);
  tick(USE_NOTED_MS - 1);
  await authenticate(text);
  assert.equal(calls.touchToken, 1);
  tick(1);
  await authenticate(text);
  await settle();
  assert.deepEqual([calls.touchToken, (await store.findToken(id))?.lastUsedAt], [2, 1000 + USE_NOTED_MS]);
});

test('a use that cannot be noted fails nothing, and is told', async (t) => {
  const away = async () => {
    throw unavailable('database_unavailable', 'away');
  };
  const { authenticate, troubles, text } = await bench(t, { touchToken: away });
  for (const round of [1, 2]) {
    assert.equal((await authenticate(text)).role, 'editor');
    await settle();
    assert.equal(troubles.length, round);
  }
  assert.match(troubles[0] ?? '', /could not be noted: away/);
});

test('with the database away the admin token opens, and others are our trouble', async (t) => {
  const away = async () => {
    throw unavailable('database_unavailable', 'away');
  };
  const { authenticate, text } = await bench(t, { findToken: away });
  assert.equal((await authenticate(ADMIN)).name, 'admin');
  await assert.rejects(authenticate(text), { kind: 'unavailable' });
});

test('what is kept of a token does not open anything', async (t) => {
  const { store, text, id, authenticate } = await bench(t);
  const kept = await store.findToken(id);
  assert.ok(!JSON.stringify(kept).includes(text.slice(12)));
  await assert.rejects(authenticate(`bb_${id}_${kept?.sha256.slice(0, 43)}`), { code: 'bad_token' });
});

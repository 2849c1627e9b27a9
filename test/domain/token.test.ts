import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatToken, parseToken, tokenState } from '../../src/domain/token.ts';

const SECRET = `${'aZ09_-'.repeat(7)}x`;

test('a token is bb_, an id of 8 and a secret of 43, and no other text is one', () => {
  assert.deepEqual(parseToken(formatToken('k3v9x0aa', SECRET)), { id: 'k3v9x0aa', secret: SECRET });
  for (const text of [
    '',
    'bb_',
    `bb_k3v9x0aa_${SECRET}=`,
    `bb_k3v9x0aa_${SECRET.slice(1)}`,
    `bb_k3v9x0a_${SECRET}`,
    `bb_K3V9X0AA_${SECRET}`,
    `BB_k3v9x0aa_${SECRET}`,
    ` bb_k3v9x0aa_${SECRET}`,
    `bb_k3v9x0aa_${SECRET}\n`,
    `bb_k3v9x0aa__${SECRET}`,
    `bb_admin_${SECRET}`,
  ])
    assert.equal(parseToken(text), null, text);
});

test('it lives until the moment it expires, unless it was revoked', () => {
  for (const [revokedAt, expiresAt, now, state] of [
    [null, null, 1e15, 'living'],
    [null, 100, 99, 'living'],
    [null, 100, 100, 'expired'],
    [50, null, 10, 'revoked'],
    [50, 100, 200, 'revoked'],
  ] as const)
    assert.equal(tokenState({ revokedAt, expiresAt }, now), state);
});

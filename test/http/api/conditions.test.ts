import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FastifyRequest } from 'fastify';
import { isFresh, preconditionsOf } from '../../../src/http/api/conditions.ts';

const request = (headers: Record<string, string>) => ({ headers }) as unknown as FastifyRequest;

test('entity tags of a write: quotes may be left out, a weak one stays weak and so never matches', () => {
  for (const [header, want] of [
    ['"a"', ['a']],
    ['a', ['a']],
    [' "a" , "b",c', ['a', 'b', 'c']],
    ['W/"a"', ['W/"a"']],
    ['*', '*'],
    [' * ', '*'],
    ['', ['']],
  ] as const)
    assert.deepEqual(preconditionsOf(request({ 'if-match': header })), { ifMatch: want, ifNoneMatch: undefined }, header);
  assert.deepEqual(preconditionsOf(request({ 'if-none-match': '*' })), { ifMatch: undefined, ifNoneMatch: '*' });
  assert.deepEqual(preconditionsOf(request({})), { ifMatch: undefined, ifNoneMatch: undefined });
});

test('a reader is up to date by strong or weak comparison, or by *', () => {
  for (const header of ['"a"', 'a', 'W/"a"', '"x", W/"a"', '*'])
    assert.ok(isFresh(request({ 'if-none-match': header }), 'a'), header);
  for (const header of ['"b"', '', 'W/"b"', '"A"']) assert.ok(!isFresh(request({ 'if-none-match': header }), 'a'), header);
  assert.ok(!isFresh(request({}), 'a'));
});

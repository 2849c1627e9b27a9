import assert from 'node:assert/strict';
import { test } from 'node:test';
import fastify from 'fastify';
import { isoTime, printableLines, sendColumns } from '../../../src/http/api/text.ts';

async function columns(heading: string[], rows: unknown[][]): Promise<string> {
  const app = fastify();
  app.get('/', (_request, reply) => sendColumns(reply, heading, rows));
  const { body, headers } = await app.inject('/');
  assert.equal(headers['content-type'], 'text/plain; charset=utf-8');
  return body;
}

test('columns are as wide as what is in them', async () => {
  const rows = [
    ['web', 12, ['a', 'b'], true],
    ['a-longer-name', null, [], undefined],
    ['', 0, ['x'], false],
  ];
  assert.equal(
    await columns(['NAME', 'N', 'LIST', 'YES'], rows),
    [
      'NAME           N   LIST  YES',
      'web            12  a,b   true',
      'a-longer-name  -   -     -',
      '-              0   x     false',
      '',
    ].join('\n'),
  );
  assert.equal(await columns(['NAME'], []), 'NAME\n');
});

test('no cell breaks out of its line or its terminal', async () => {
  assert.equal(await columns(['A', 'B'], [['x\n\u001b[31my', 'a\u0085\u007f\tb']]), 'A         B\nx??[31my  a???b\n');
});

test('a text of several lines keeps them and its tabs, and nothing else that moves a cursor', () => {
  assert.equal(printableLines('a\r\n\tb\u001b[31m\u202e\u2028\n'), 'a?\n\tb?[31m??\n');
});

test('times are RFC 3339 in UTC', () => {
  assert.equal(isoTime(Date.UTC(2026, 10, 22, 12, 0, 0, 7)), '2026-11-22T12:00:00.007Z');
});

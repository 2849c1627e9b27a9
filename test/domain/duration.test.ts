import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, parseDuration } from '../../src/domain/duration.ts';

test('a duration is a whole number of seconds, minutes, hours or days, up to ten years', () => {
  const read: [string, number | null][] = [
    ['1s', 1000],
    ['90s', 90_000],
    ['10m', 600_000],
    ['1h', 3_600_000],
    ['7d', 604_800_000],
    ['3650d', 315_360_000_000],
    ['87600h', 315_360_000_000],
  ];
  for (const [text, ms] of read) assert.equal(parseDuration(text), ms, text);
  const none = [
    '',
    '1',
    'h',
    '0s',
    '01h',
    '-1h',
    '+1h',
    '1.5h',
    '1e3s',
    '1H',
    ' 1h',
    '1h ',
    '1h\n',
    '1h30m',
    '1w',
    '1ms',
    '٣h',
  ];
  for (const text of [...none, '3651d', '999999999d', `${'9'.repeat(400)}s`]) assert.equal(parseDuration(text), null, text);
});

test('it is written in the largest unit that is exact, and reads back as it was', () => {
  for (const [ms, text] of [
    [90_000, '90s'],
    [120_000, '2m'],
    [5_400_000, '90m'],
    [86_400_000, '1d'],
    [90_000_000, '25h'],
    [1, '1s'],
  ] as const) {
    assert.equal(formatDuration(ms), text);
    if (ms >= 1000) assert.equal(parseDuration(text), ms);
  }
});

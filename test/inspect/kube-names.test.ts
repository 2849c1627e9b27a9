import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  isDataKey,
  isDnsLabel,
  isDnsSubdomain,
  isLabelKey,
  isLabelValue,
  isPathSegment,
  isPortName,
} from '../../src/inspect/kube-names.ts';

const long = 'a'.repeat(64);

const FORMS: [form: (name: string) => boolean, right: string[], wrong: string[]][] = [
  [isDnsLabel, ['a', '1', 'a-b', 'a--b', 'a'.repeat(63)], ['', 'A', 'a_b', 'a.b', '-a', 'a-', long, 'a\n', 'ä']],
  [isDnsSubdomain, ['a', 'a.b-c.1', long, `${long}.a`], ['', '.', 'a.', '.a', 'a..b', 'A.b', 'a_b', 'a'.repeat(254), 'a\n']],
  [isPathSegment, ['a', 'system:node', 'A b', '...'], ['', '.', '..', 'a/b', 'a%b']],
  [
    isLabelKey,
    ['a', 'A.b_c-d', 'example.org/a', 'a'.repeat(63)],
    ['', 'a/', '/a', 'a/b/c', 'Example.org/a', 'a b', '-a', 'a.', long],
  ],
  [isLabelValue, ['', 'a', 'A.b_c-d', '1.10', 'a'.repeat(63)], ['a b', '-a', 'a-', 'a/b', long, 'ä']],
  [isPortName, ['http', 'h', 'http-2', '2http', 'a'.repeat(15)], ['', '80', 'HTTP', 'a_b', 'a--b', '-a', 'a-', 'a'.repeat(16)]],
  [
    isDataKey,
    ['a', 'A_b-c.d', '.env', '...a'.slice(2), 'a'.repeat(253)],
    ['', '.', '..', '..a', 'a b', 'a/b', 'a'.repeat(254)],
  ],
];

for (const [form, right, wrong] of FORMS)
  test(form.name, () => {
    assert.deepEqual(
      right.filter((name) => !form(name)),
      [],
    );
    assert.deepEqual(wrong.filter(form), []);
  });

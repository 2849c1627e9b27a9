import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BootbundleError } from '../../src/domain/errors.ts';
import { checkMerge, mergeFindings, statesMergeRule } from '../../src/inspect/merge.ts';

const APPEND = 'list(append)+dict(no_replace,recurse_list)+str()';

test('a rule is taken as cloud-init reads it, and comes back in one spelling', () => {
  for (const [value, rule] of [
    [APPEND, APPEND],
    ['append', APPEND],
    ['Append', APPEND],
    ['replace', 'dict(replace)+list()+str()'],
    ['list()+dict()+str()', 'list()+dict()+str()'],
    ['list(append)+str()', 'list(append)+str()'],
    ['LIST(Append)+Dict(No-Replace, Recurse_List)', 'list(append)+dict(no_replace,recurse_list)'],
    ['m_list(append)+m_dict()', 'list(append)+dict()'],
    [' list( append , ) + dict ()', null],
    [' list( append , ) + dict()', 'list(append)+dict()'],
    ['list(prepend)+dict(no_replace,recurse_list)+str(append)+', 'list(prepend)+dict(no_replace,recurse_list)+str(append)'],
    ['dict(allow_delete,recurse_str,recurse_dict,recurse_array)', 'dict(allow_delete,recurse_str,recurse_dict,recurse_array)'],
  ] as const) {
    if (rule === null) assert.throws(() => checkMerge(value), isBadMerge);
    else assert.equal(checkMerge(value), rule, value);
  }
});

test('a plus that arrived as a space is a plus', () => {
  assert.equal(checkMerge('list(append) str()'), 'list(append)+str()');
  assert.equal(checkMerge('list(append) dict(no_replace,recurse_list) str()'), APPEND);
  assert.equal(checkMerge('list(append)   dict(no_replace, recurse_list)'), 'list(append)+dict(no_replace,recurse_list)');
});

test('anything else is bad_merge, which lists what is allowed', () => {
  for (const value of [
    '',
    ' ',
    '+',
    'list',
    'list(',
    'list)',
    'list(append',
    'list(append))',
    'list((append))',
    'set(append)',
    'list(appendd)',
    'str(prepend)',
    'deep',
    'append+replace',
    'list(append)\r\nX: y',
    'list(append)\n',
    'list(append)\t',
    'list("append")',
    "list('append')",
    'list(append);str()',
    'líst(append)',
    'list(append)\0',
    `list(${'append,'.repeat(1000)})`,
  ])
    assert.throws(() => checkMerge(value), isBadMerge, JSON.stringify(value));
  assert.throws(() => checkMerge('x'), /append.*list\(append,prepend.*dict\(.*allow_delete.*str\(append/);
});

test('whatever is given, what comes back is safe as a header and reads the same again', () => {
  const pieces = fc.array(
    fc.constantFrom('list', 'dict', 'str', '(', ')', 'append', 'no_replace', ',', '+', ' ', '-', 'm_', '\r\n', '"'),
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: 'binary' }),
        pieces.map((piece) => piece.join('')),
      ),
      (value) => {
        try {
          const rule = checkMerge(value);
          assert.match(rule, /^[a-z_(),+]+$/);
          assert.equal(checkMerge(rule), rule);
        } catch (error) {
          assert.ok(isBadMerge(error), String(error));
        }
      },
    ),
    { numRuns: 2_000 },
  );
});

test('a rule without dict() is warned of: cloud-init drops the part (tried on 22.4 and 25.1)', () => {
  assert.deepEqual(
    mergeFindings('a.cfg', 'list(append)+str()').map(({ severity, code, part }) => [severity, code, part]),
    [['warning', 'merge_without_dict', 'a.cfg']],
  );
  for (const rule of [APPEND, 'dict()', checkMerge('replace')]) assert.deepEqual(mergeFindings('a.cfg', rule), []);
});

test('a cloud-config states a merge rule at its top level only', () => {
  for (const [text, states] of [
    ['#cloud-config\nmerge_how: list(append)+dict()\n', true],
    ['#cloud-config\nmerge_type: list(append)+dict()\n', true],
    ['#cloud-config\nmerge_how:\n - name: list\n   settings: [append]\n', true],
    ['{"merge_how": [["list", "append"]]}', true],
    ['#cloud-config\nmerge_how:\nmerge_type: dict()\n', true],
    ['#cloud-config\nmerge_how: ""\n', false],
    ['#cloud-config\nmerge_how: []\n', false],
    ['#cloud-config\nmerge_how:\n', false],
    ['#cloud-config\nusers:\n - merge_how: list()\n', false],
    ['#cloud-config\n# merge_how: list()\nhostname: x\n', false],
    ['#cloud-config\nruncmd: [echo merge_how]\n', false],
    ['#cloud-config\nmerge_how: [\n', false],
    ['- merge_how: x\n', false],
    ['', false],
  ] as const)
    assert.equal(statesMergeRule(text), states, text);
});

function isBadMerge(error: unknown): boolean {
  return error instanceof BootbundleError && error.kind === 'invalid' && error.code === 'bad_merge';
}

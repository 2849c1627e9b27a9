import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Json } from '../../src/domain/json.ts';
import { inspectKubeVars } from '../../src/inspect/kube-vars.ts';

const RIGHT: Json[] = [
  {},
  { mode: 'direct', patience: '30m', directWait: 60, enable: ['k3s', 'kubelet.service', 'a@b.timer'] },
  { patience: 90 },
  { patience: '1.5 h' },
  { patience: '30d' },
  { mode: null, enable: [] },
  { enable: 'k3s' },
];

const WRONG: [Json, RegExp][] = [
  [[], /vars\.kube is not a map/],
  ['spool', /vars\.kube is not a map/],
  [{ mode: 'poll' }, /vars\.kube\.mode must be spool or direct/],
  [{ patience: 'long' }, /patience must be a time/],
  [{ patience: 0 }, /patience/],
  [{ patience: '31d' }, /30 days/],
  [{ patience: true }, /patience/],
  [{ directWait: 301 }, /5 minutes/],
  [{ enable: { k3s: true } }, /enable must be a list/],
  [{ enable: ['../x'] }, /enable/],
  [{ patiense: '30m' }, /vars\.kube\.patiense means nothing: there are mode, patience, directWait, enable/],
  [{ constructor: 1 }, /constructor means nothing/],
];

test('what the machine heeds is passed in silence', () => {
  for (const kube of RIGHT) assert.deepEqual(inspectKubeVars(kube), [], JSON.stringify(kube));
  assert.deepEqual(inspectKubeVars(undefined), []);
});

test('what the machine would pass over is a warning that says what is wanted', () => {
  for (const [kube, message] of WRONG) {
    const [finding, ...more] = inspectKubeVars(kube);
    assert.deepEqual([finding?.severity, finding?.code, more], ['warning', 'kube_vars', []], JSON.stringify(kube));
    assert.match(finding?.message ?? '', message);
  }
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { inspectManifest } from '../../src/inspect/kube.ts';

const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n';
const SERVICE = 'apiVersion: v1\nkind: Service\nmetadata: {name: a}\n';

function look(type: string, text: string) {
  return inspectManifest('x.yaml', `text/x-kube-${type}`, Buffer.from(text)).map(
    ({ code, line, column }) => `${code}${line === undefined ? '' : ` ${line}:${column}`}`,
  );
}

const RIGHT: [what: string, type: string, text: string][] = [
  ['a Pod', 'pod', POD],
  ['below a header line', 'pod', `#kube-pod\n${POD}`],
  ['with CRLF', 'pod', POD.replaceAll('\n', '\r\n')],
  ['v1beta1 with its kind', 'pod', 'id: db\nkind: Pod\napiVersion: v1beta1\n'],
  ['v1beta1 whose kind the part says', 'pod', '#kube-pod\nid: db\ndesiredState: {}\n'],
  ['v1beta2', 'service', 'id: db\nkind: Service\napiVersion: v1beta2\n'],
  ['several Pods', 'pod', `${POD}---\n${POD}`],
  ['an empty document between', 'pod', `---\n# nothing\n---\n${POD}---\n`],
  ['a controller', 'replica', 'apiVersion: v1\nkind: ReplicationController\n'],
  ['a set', 'replica', 'apiVersion: apps/v1\nkind: ReplicaSet\n'],
  ['any kinds', 'manifest', `${POD}---\n${SERVICE}---\napiVersion: example.org/v1\nkind: Thing\n`],
  ['a List', 'manifest', `apiVersion: v1\nkind: List\nitems:\n- ${POD.replaceAll('\n', '\n  ')}`],
  ['anchors', 'manifest', 'apiVersion: v1\nkind: ConfigMap\ndata: {a: &x one, b: *x}\n'],
  ['JSON with tabs', 'pod', '{\n\t"apiVersion": "v1",\n\t"kind": "Pod"\n}\n'],
  ['JSON below a header line', 'pod', '#kube-pod\n{"apiVersion": "v1", "kind": "Pod"}\n'],
];

for (const [what, type, text] of RIGHT) test(`right: ${what}`, () => assert.deepEqual(look(type, text), []));

const WRONG: [what: string, type: string, text: string, findings: string[]][] = [
  ['another kind, by the place of its value', 'pod', `#kube-pod\n${SERVICE}`, ['wrong_kind 3:7']],
  ['one of several', 'pod', `${POD}---\n${SERVICE}`, ['wrong_kind 6:7']],
  ['a kind of v1beta1', 'service', 'id: db\nkind: Pod\napiVersion: v1beta1\n', ['wrong_kind 2:7']],
  ['no kind', 'manifest', 'apiVersion: v1\nmetadata: {name: a}\n', ['manifest_without_kind 1:1']],
  ['no version', 'pod', '# x\nkind: Pod\n', ['manifest_without_version 2:1']],
  ['v1beta1 without a kind, where the part does not say it', 'manifest', 'id: db\n', ['manifest_without_kind 1:1']],
  ['a kind that is no text', 'pod', 'apiVersion: v1\nkind: [Pod]\n', ['manifest_without_kind 2:7']],
  ['a list', 'pod', '- a\n- b\n', ['not_a_manifest 1:1']],
  ['a text', 'pod', '#kube-pod\nhello\n', ['not_a_manifest 2:1']],
  ['comments only', 'pod', '#kube-pod\n# todo\n', ['not_a_manifest']],
  ['not YAML', 'pod', `${POD}spec: [1, 2\n`, ['bad_yaml 5:1']],
  ['not YAML in a later document', 'manifest', `${POD}---\na: b: c\n`, ['bad_yaml 5:5']],
];

for (const [what, type, text, findings] of WRONG)
  test(`wrong: ${what}`, () => {
    assert.deepEqual(look(type, text), findings);
  });

test('other types are not looked at', () => {
  assert.deepEqual(inspectManifest('x', 'text/x-shellscript', Buffer.from('#!/bin/sh\n')), []);
});

test('whatever the text, it is an answer, errors only, and no content in it', () => {
  const text = fc.oneof(
    fc.string(),
    fc
      .array(fc.constantFrom('kind: hunter2', 'apiVersion: v1', '---', '- hunter2', '{', 'id: x', '\t'))
      .map((lines) => lines.join('\n')),
  );
  fc.assert(
    fc.property(text, fc.constantFrom('pod', 'service', 'replica', 'manifest'), (body, type) => {
      for (const finding of inspectManifest('x', `text/x-kube-${type}`, Buffer.from(body))) {
        assert.equal(finding.severity, 'error');
        assert.doesNotMatch(finding.message, /hunter2/);
      }
    }),
    { numRuns: 300 },
  );
});

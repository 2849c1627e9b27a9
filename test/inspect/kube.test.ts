import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { inspectManifest } from '../../src/inspect/kube.ts';
import { RIGHT as RIGHT_MANIFESTS, WRONG as WRONG_MANIFESTS } from './manifests.ts';

const SPEC = 'spec: {containers: [{name: b, image: c}]}\n';
const POD = `apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n${SPEC}`;
const SERVICE = 'apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n';

async function inspect(type: string, text: string, pause?: () => Promise<void>) {
  return inspectManifest('x.yaml', `text/x-kube-${type}`, Buffer.from(text), pause);
}

async function look(type: string, text: string) {
  return (await inspect(type, text)).map(
    ({ severity, code, line, column }) =>
      `${severity === 'warning' ? '?' : ''}${code}${line === undefined ? '' : ` ${line}:${column}`}`,
  );
}

for (const { what, text, findings } of RIGHT_MANIFESTS)
  test(`taken: ${what}`, async () => {
    assert.ok(findings.every((finding) => finding.startsWith('?')));
    assert.deepEqual(await look('manifest', text), findings);
  });

for (const { what, text, findings } of WRONG_MANIFESTS)
  test(`found: ${what}`, async () => assert.deepEqual(await look('manifest', text), findings));

const RIGHT: [what: string, type: string, text: string][] = [
  ['a Pod', 'pod', POD],
  ['below a header line', 'pod', `#kube-pod\n${POD}`],
  ['v1beta1 with its kind', 'pod', 'id: db\nkind: Pod\napiVersion: v1beta1\n'],
  ['v1beta1 whose kind the part says', 'pod', '#kube-pod\nid: db\ndesiredState: {}\n'],
  ['v1beta2', 'service', 'id: db\nkind: Service\napiVersion: v1beta2\n'],
  ['several Pods', 'pod', `${POD}---\n${POD}`],
  ['an empty document between', 'pod', `---\n# nothing\n---\n${POD}---\n`],
  [
    'a controller',
    'replica',
    `apiVersion: v1\nkind: ReplicationController\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {a: b}}, ${SPEC.trim()}}}\n`,
  ],
  ['any kinds', 'manifest', `${POD}---\n${SERVICE}`],
  [
    'JSON with tabs',
    'pod',
    `{\n\t"apiVersion": "v1",\n\t"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "b", "image": "c"}]}\n}\n`,
  ],
  [
    'JSON below a header line',
    'service',
    '#kube-service\n{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}\n',
  ],
];

for (const [what, type, text] of RIGHT) test(`right: ${what}`, async () => assert.deepEqual(await look(type, text), []));

const WRONG: [what: string, type: string, text: string, findings: string[]][] = [
  ['another kind, by the place of its value', 'pod', `#kube-pod\n${SERVICE}`, ['wrong_kind 3:7']],
  ['one of several', 'pod', `${POD}---\n${SERVICE}`, ['wrong_kind 7:7']],
  ['a list of Pods', 'pod', `apiVersion: v1\nkind: List\nitems:\n- ${POD.replaceAll('\n', '\n  ')}`, ['wrong_kind 2:7']],
  ['a kind of v1beta1', 'service', 'id: db\nkind: Pod\napiVersion: v1beta1\n', ['wrong_kind 2:7']],
  ['no kind', 'manifest', 'apiVersion: v1\nmetadata: {name: a}\n', ['manifest_without_kind 1:1']],
  ['no version', 'pod', '# x\nkind: Pod\n', ['manifest_without_version 2:1']],
  ['v1beta1 without a kind, where the part does not say it', 'manifest', 'id: db\n', ['manifest_without_kind 1:1']],
  ['a kind that is no text', 'pod', 'apiVersion: v1\nkind: [Pod]\n', ['manifest_without_kind 2:7']],
  ['a list', 'pod', '- a\n- b\n', ['not_a_manifest 1:1']],
  ['a text', 'pod', '#kube-pod\nhello\n', ['not_a_manifest 2:1']],
  ['comments only', 'pod', '#kube-pod\n# todo\n', ['not_a_manifest']],
  ['not YAML', 'pod', `${POD}status: [1, 2\n`, ['bad_yaml 6:1']],
  ['not YAML in a later document', 'manifest', `${POD}---\na: b: c\n`, ['bad_yaml 6:5']],
  [
    'items without a version or a kind',
    'manifest',
    'apiVersion: v1\nkind: List\nitems:\n- {kind: Pod}\n- {apiVersion: v1}\n',
    ['manifest_without_version 4:3', 'manifest_without_kind 5:3'],
  ],
];

for (const [what, type, text, findings] of WRONG)
  test(`wrong: ${what}`, async () => {
    assert.deepEqual(await look(type, text), findings);
  });

const MESSAGES: [text: string, message: RegExp][] = [
  [POD.replace('containers', 'containrs'), /^spec\.containrs is no field there is: did you mean containers\?$/],
  ['apiVersion: v1\nkind: Deployment\nmetadata: {name: a}\n', /: Deployment is in apps\/v1$/],
  [
    'apiVersion: batch/v1\nkind: Deployment\nmetadata: {name: a}\n',
    /^Kubernetes has no such kind in this version: Deployment is in apps\/v1$/,
  ],
  ['apiVersion: app/v1\nkind: Deployment\nmetadata: {name: a}\n', /: Deployment is in apps\/v1$/],
  ['apiVersion: v1\nkind: Sevice\nmetadata: {name: a}\n', /: did you mean Service in v1\?$/],
  ['apiVersion: apps/v1\nkind: deployment\nmetadata: {name: a}\n', /: did you mean Deployment in apps\/v1\?$/],
  ['apiVersion: networking.k8.io/v1\nkind: Ingress\nmetadata: {name: a}\n', /: did you mean networking\.k8s\.io\/v1\?$/],
  [
    'apiVersion: autoscaling/v3\nkind: HorizontalPodAutoscaler\nmetadata: {name: a}\n',
    /: HorizontalPodAutoscaler is in autoscaling\/v2$/,
  ],
  ['apiVersion: example.org/v1\nkind: Service\nmetadata: {name: a}\n', /its definition \(CRD\) must be there/],
  ['apiVersion: v1\nkind: Gizmo\nmetadata: {name: a}\n', /write the apiVersion of its definition$/],
  [
    SERVICE.replace('v1', 'extensions/v1beta1').replace('Service', 'Deployment'),
    /^Kubernetes 1\.16 and newer have no Deployment in extensions\/v1beta1: use apps\/v1$/,
  ],
  ['apiVersion: policy/v1beta1\nkind: PodSecurityPolicy\nmetadata: {name: a}\n', /nothing took its place$/],
];

for (const [text, message] of MESSAGES)
  test(`says ${message.source}`, async () => {
    const messages = (await inspect('manifest', text)).map((finding) => finding.message);
    assert.ok(
      messages.some((each) => message.test(each)),
      messages.join('\n'),
    );
  });

test('other types are not looked at', async () => {
  assert.deepEqual(await inspectManifest('x', 'text/x-shellscript', Buffer.from('#!/bin/sh\n')), []);
});

test('whatever the text, it is an answer, and no content in it', async () => {
  const text = fc.oneof(
    fc.string(),
    fc
      .array(
        fc.constantFrom(
          'kind: hunter2',
          'kind: Pod',
          'apiVersion: v1',
          '---',
          '- hunter2',
          '{',
          'id: x',
          '\t',
          'spec: {hunter2 x: 1}',
        ),
      )
      .map((lines) => lines.join('\n')),
  );
  await fc.assert(
    fc.asyncProperty(text, fc.constantFrom('pod', 'service', 'replica', 'manifest'), async (body, type) => {
      for (const { message } of await inspect(type, body)) assert.doesNotMatch(message, /hunter2/);
    }),
    { numRuns: 300 },
  );
});

test('a value of any shape at any place of a manifest is an answer, and never told', async () => {
  const value = fc.oneof(
    fc.constant('hunter2'),
    fc.anything({ withNullPrototype: false, maxDepth: 2 }).map((any) => JSON.stringify(any) ?? 'null'),
  );
  const base = RIGHT_MANIFESTS[0]?.text ?? '';
  const lines = base.split('\n');
  await fc.assert(
    fc.asyncProperty(fc.nat(lines.length - 2), value, async (index, any) => {
      const changed = lines
        .with(
          index,
          (lines[index] ?? '').replace(/: .*$/, () => `: ${any}`),
        )
        .join('\n');
      for (const { message } of await inspect('manifest', changed)) assert.doesNotMatch(message, /hunter2/);
    }),
    { numRuns: 300 },
  );
});

const HOSTILE: [what: string, text: string, findings: number][] = [
  ['10,000 documents', `${POD}---\n`.repeat(10_000), 0],
  ['10,000 wrong documents', `${POD.replace('image', 'imge')}---\n`.repeat(10_000), 50],
  [
    'a list of 20,000 wrong objects',
    `apiVersion: v1\nkind: List\nitems:\n${`- ${POD.replace('name: b', 'name: 5').replaceAll('\n', '\n  ').trim()}\n`.repeat(20_000)}`,
    50,
  ],
  [
    '3 MB',
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n${Array.from({ length: 60_000 }, (_, at) => `  k${at}: "${'x'.repeat(40)}"\n`).join('')}`,
    0,
  ],
  ['100,000 unknown fields', `${POD}${Array.from({ length: 100_000 }, (_, at) => `containrs${at}: 1\n`).join('')}`, 50],
  [
    '100,000 words in one line that may be booleans',
    `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {${Array.from({ length: 100_000 }, (_, at) => `k${at}: !!str y`).join(', ')}}\n`,
    0,
  ],
  [
    '1 MB on one line',
    `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "${'a-'.repeat(500_000)}", "labels": {"a": "${'a.'.repeat(100_000)}"}}}`,
    2,
  ],
  ['a long quantity', POD.replace('image: c', `image: c, resources: {limits: {cpu: "${'1'.repeat(1_000_000)}x"}}`), 1],
  [
    'an alias bomb',
    `apiVersion: v1\nkind: Pod\nx0: &x0 [a]\n${Array.from({ length: 40 }, (_, at) => `x${at + 1}: &x${at + 1} [*x${at}, *x${at}]\n`).join('')}`,
    1,
  ],
];

for (const [what, text, count] of HOSTILE)
  test(`hostile: ${what}`, async () => {
    const start = performance.now();
    const findings = await inspect('manifest', text);
    assert.ok(performance.now() - start < 5000);
    assert.equal(findings.length, count);
    if (count === 50) assert.equal(findings.at(-1)?.code, 'more_findings');
    for (const { message } of findings) assert.ok(message.length < 500);
  });

test('others get their turn between documents', async () => {
  let turns = 0;
  await inspect('manifest', `${POD}---\n`.repeat(5), async () => {
    turns++;
  });
  assert.equal(turns, 5);
});

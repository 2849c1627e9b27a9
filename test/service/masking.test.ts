import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Finding } from '../../src/domain/finding.ts';
import { compileSchemas } from '../../src/inspect/schema.ts';
import { FILTERS } from '../../src/render/template-filters.ts';
import { buildTestApp, type TestApp } from '../app.ts';

const VALUE = 'hunter2';
/** The value as it is, and wherever it may begin in base64. */
const FORMS = [
  VALUE,
  ...[0, 1, 2].map((shift) =>
    Buffer.from(' '.repeat(shift) + VALUE)
      .toString('base64')
      .slice(shift === 0 ? 0 : shift + 1, 8),
  ),
];

const MAPS = { type: 'object', additionalProperties: { type: 'object', properties: { source: {} }, required: ['source'] } };
/** A schema that has something to say of keys that are an operator's own. */
const SCHEMAS = compileSchemas('the schema of this test', {
  cloudConfig: JSON.stringify({
    type: 'object',
    properties: {
      runcmd: {},
      write_files: {},
      merge_how: {},
      reporting: {},
      users: { type: 'array', items: { type: 'object', properties: { name: {} }, additionalProperties: false } },
      apt: { type: 'object', properties: { sources: MAPS } },
      snap: { type: 'object', properties: { commands: { type: 'object', additionalProperties: { type: 'string' } } } },
      old: { type: 'object', additionalProperties: { deprecated: true, deprecated_description: 'Say it the new way.' } },
    },
  }),
  networkV1: null,
  networkV2: null,
});

const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\n';
const MAP = (what: string) => `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n${what}\n`;
const CONTAINER = 'name: x, image: x';
const HANDLER = (types: string) =>
  `#part-handler\ndef list_types():\n    return [${types}]\ndef handle_part(*args):\n    pass\n`;
const GIVEN = 'merge_how: [{name: list, settings: [append]}, {name: dict, settings: [no_replace, recurse_list]}]\n';

/** A part or two in which § stands for the value, and the finding they are for. Those of `QUOTED` would tell the value if it were no secret. */
type Row = readonly [code: string, parts: Record<string, string>];
const config = (text: string) => ({ 'a.yaml': `#cloud-config\n${text}\n` });
const manifest = (text: string) => ({ 'p.yaml': text });
const QUOTED: Row[] = [
  ['unknown_key', config('§: 1')],
  ['unknown_key', config('users:\n  - name: x\n    §: 1')],
  ['unknown_key', config('reporting: { §: {type: webhook, endpoint: "http://x", foo: 1} }')],
  ['duplicate_key', config('§: 1\n§: 2')],
  ['bad_value', config('apt: {sources: { §: 1 } }')],
  ['bad_value', config('snap: {commands: { §: [1] } }')],
  ['missing_key', config('apt: {sources: { §: {} } }')],
  ['deprecated_key', config('old: { §: 1 }')],
  ['unknown_key', { 'a.yaml': '#cloud-config-archive\n- type: text/cloud-config\n  content: "§: 1"\n' }],
  ['unknown_field', manifest(`${POD}spec: {containers: [{${CONTAINER}}], §: 1}\n`)],
  ['unknown_field', { 'x.pod': `${POD}§: 1\nspec: {containers: [{${CONTAINER}}]}\n` }],
  ['bad_label', manifest(MAP('data: {}').replace('{name: x}', '{name: x, labels: { §: "/ " } }'))],
  ['wrong_type', manifest(MAP('data: { §: 1}'))],
  ['not_base64', manifest(MAP('binaryData: { §: "%"}'))],
  ['duplicate_key', manifest(MAP('data: { §: a, § : b}'))],
  ['bad_quantity', manifest(`${POD}spec: {containers: [{${CONTAINER}, resources: {limits: { §: x} } }]}\n`)],
  [
    'request_over_limit',
    manifest(`${POD}spec: {containers: [{${CONTAINER}, resources: {limits: { §: 1}, requests: { §: 2} } }]}\n`),
  ],
  [
    'value_lost',
    { 'a.yaml': `#cloud-config\n${GIVEN}reporting: { §: 1 }\n`, 'b.yaml': '#cloud-config\nreporting: { §: 2 }\n' },
  ],
  [
    'merge_clash',
    { 'a.yaml': '#cloud-config\nreporting: { §: {a: 1} }\n', 'b.yaml': '#cloud-config\nreporting: { §: [a] }\n' },
  ],
  ['handler_replaced', { 'a.py': HANDLER('"text/x-§"'), 'b.py': HANDLER('"text/x-§"') }],
];
/** Their sentences are careful by themselves. */
const CAREFUL: Row[] = [
  ['bad_yaml', config('packages: *§')],
  ['bad_yaml', config('packages: !§ x')],
  ['bad_yaml', config('packages: !§!x x')],
  ['bad_yaml', config('packages: [§: [')],
  ['bad_yaml', manifest(`${POD}spec: *§\n`)],
  ['not_a_mapping', config('§')],
  ['bad_command', config('runcmd:\n  - echo §: x')],
  ['bad_permissions', config('write_files: [{path: /a, content: x, permissions: §}]')],
  ['bad_type', { 'a.yaml': '#cloud-config-archive\n- {type: §, content: x}\n' }],
  ['bad_json', { 'a.jsonp': '#cloud-config-jsonp\n[§]\n' }],
  ['bad_operation', { 'a.jsonp': '#cloud-config-jsonp\n[{"op": "§", "path": "/a"}]\n' }],
  ['unknown_kind', manifest('apiVersion: v1\nkind: §\nmetadata: {name: x}\n')],
  ['unknown_kind', manifest('apiVersion: §/v1\nkind: Deployment\nmetadata: {name: x}\n')],
  ['shell_syntax', { 'a.sh': '#!/bin/sh\nif §; fi\n' }],
  ['shell_syntax', { 'a.sh': '#!/bin/sh\nfor § in a; ) done\n' }],
  ['bad_shebang', { 'a.sh': '#!§\n' }],
  ['python_syntax', { 'a.sh': '#!/usr/bin/python3\ndef §\n' }],
  ['handler_syntax', { 'a.py': `${HANDLER('"a/b"')}def §(:\n` }],
  ['handler_types_unknown', { 'a.py': HANDLER('§') }],
  ['jinja_filter', { 'a.yaml': '## template: jinja\n#cloud-config\na: {{ "{{ x | §" }} }}\n' }],
  ['jinja_syntax', { 'a.yaml': '## template: jinja\n#cloud-config\na: {{ "{% §" }} %}\n' }],
  ['include_scheme', { 'a.txt': '#include\nftp://§\n' }],
  ['include_url', { 'a.txt': '#include\nhttp://§ §:x/\n' }],
  ['self_include', { 'a.txt': '#include\nhttp://192.0.2.10:8080/i/§\n' }],
];

/** § as what a template prints. */
function fill(text: string, name: string): string {
  return text.replaceAll(/\{\{ "([^"]*)§" \}\}/g, `{{ "$1" }}{{ ${name} }}`).replaceAll('§', `{{ ${name} }}`);
}

interface Fleet {
  app: TestApp;
  /** As `app.api`, into `answers`. */
  call: TestApp['api'];
  answers: string[];
}

async function fleet(t: TestContext): Promise<Fleet> {
  const app = await buildTestApp(t, { schemas: async () => SCHEMAS });
  const answers: string[] = [];
  const call: TestApp['api'] = async (...args) => {
    const answer = await app.api(...args);
    answers.push(answer.body, JSON.stringify(answer.headers));
    return answer;
  };
  return { app, call, answers };
}

/** Two machines refer to a new bundle, one of them booted; it gets the parts, whatever they break. @returns what is found of the other */
async function spoil({ app, call }: Fleet, bundle: string, parts: Record<string, string>, name: 'secrets.k' | 'vars.k') {
  const given = { bundles: [bundle], ...(name === 'vars.k' ? { vars: { k: VALUE } } : { secrets: { k: VALUE } }) };
  await call('PUT', `/bundles/${bundle}/parts/z.sh`, '#!/bin/sh\n');
  for (const state of ['booted', 'waiting']) await call('PUT', `/instances/${bundle}-${state}`, given);
  const path = new URL((await app.api('GET', `/instances/${bundle}-booted`)).json().status.stub.url).pathname;
  await app.boot(path);
  for (const [file, text] of Object.entries(parts))
    for (const query of ['', '&force=true']) {
      const put = await call('PUT', `/bundles/${bundle}/parts/${file}?template=true${query}`, fill(text, name));
      assert.ok([200, 201, 409].includes(put.statusCode), put.body);
    }
  const { findings } = (await call('GET', `/instances/${bundle}-waiting`)).json().status;
  return { given, path, findings: findings as Finding[] };
}

function assertUntold(texts: readonly string[]) {
  for (const text of texts) for (const form of FORMS) assert.ok(!text.includes(form), `${form} in ${text.slice(0, 2000)}`);
}

test('no finding tells a secret', async (t) => {
  const [open, masked] = [await fleet(t), await fleet(t)];
  const { app, call, answers } = masked;
  const rows = [...QUOTED.map((row) => [true, ...row] as const), ...CAREFUL.map((row) => [false, ...row] as const)];
  for (const [index, [quotes, code, parts]] of rows.entries())
    await t.test(`${code}: ${JSON.stringify(Object.values(parts)[0]).slice(0, 90)}`, async () => {
      const bundle = `b${index}`;
      const { findings: told } = await spoil(open, bundle, parts, 'vars.k');
      const said = told.filter((finding) => finding.code === code);
      assert.ok(said.length > 0, JSON.stringify(told));
      const isQuoted = said.some(({ message }) => message.includes(VALUE));
      assert.equal(isQuoted, quotes, JSON.stringify(said));

      const { given, path, findings } = await spoil(masked, bundle, parts, 'secrets.k');
      assert.deepEqual(
        findings.map((finding) => finding.code),
        told.map((finding) => finding.code),
      );
      const vm = `/instances/${bundle}-waiting`;
      await call('PUT', `${vm}?dryRun=true`, { ...given, labels: { a: 'b' } });
      await call('PUT', vm, { ...given, labels: { a: 'b' } });
      await call('PUT', `/instances/${bundle}-new`, given);
      await call('PUT', '/instances', [{ name: `${bundle}-other`, ...given }]);
      await call('PATCH', vm, { labels: { c: 'd' } });
      await call('PUT', `${vm}/vars/x`, '1');
      await call('PUT', `${vm}/secrets/k`, `${VALUE}-2`);
      await call('DELETE', `${vm}/secrets/k`);
      for (const query of ['', '?force=true']) {
        await call('PUT', `/bundles/${bundle}/secrets/k${query}`, VALUE);
        await call('PUT', `/bundles/${bundle}/tags/stable${query}`, { revision: 2 });
      }
      const sent = (await app.boot(path)).rawPayload;
      const booted = `/instances/${bundle}-booted`;
      const [{ id }] = (await call('GET', `${booted}/deliveries`)).json().items;
      const diffs = [`/diff?from=delivery:${id - 1}`, `/diff?from=delivery:${id}`];
      for (const document of ['', '/preview', '/explain', '/explain?format=text', '/timeline', ...diffs])
        assert.equal((await call('GET', booted + document)).statusCode, 200, document);
      await call('GET', `${booted}/user-data`);
      assertUntold(answers.splice(0));
      assert.ok(
        FORMS.some((form) => sent.includes(form)),
        'the value is in what the machine gets',
      );
    });
  assertUntold([app.log()]);
});

test('a template that fails on a secret does not tell it, whichever filter it goes through', async (t) => {
  const lines = [...FILTERS].flatMap(
    ([
      filter,
      {
        takes: [least],
      },
    ]) => {
      const args = Array.from({ length: Math.max(least, 1) }, () => 'secrets.k').join(', ');
      return [
        `{{ secrets.k | ${filter} }}`,
        `{{ secrets.k | ${filter}: ${args} }}`,
        `{{ vars.list | ${filter}: ${args} }}`,
        `{{ vars.map | ${filter}: ${args} | plus: 1 | json }}`,
      ];
    },
  );
  lines.push('{{ vars[secrets.k] }}', '{{ secrets[secrets.k] }}', '{{ vars.map[secrets.k].x }}', '{{ secrets.k.x }}');
  lines.push('{% for x in secrets.k %}{% endfor %}', '{% assign y = secrets.k %}{{ vars[y] }}', '{{ (1..secrets.k) }}');
  const app = await buildTestApp(t);
  let failed = 0;
  for (const line of lines) {
    const written = await app.api('PUT', '/bundles/web/parts/a.sh?template=true', `#!/bin/sh\n${line}\n`);
    const spec = { bundles: ['web'], vars: { list: ['hunter1', 1], map: { hunter1: 1 } }, secrets: { k: VALUE } };
    if (written.statusCode > 201) continue;
    const answer = await app.api('PUT', '/instances/vm?dryRun=true', spec);
    if (answer.statusCode === 422) failed++;
    assertUntold([answer.body]);
  }
  assertUntold([app.log()]);
  assert.ok(failed > 50, `${failed} of ${lines.length} failed`);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countFindings, formatLint, lint } from '../../src/service/lint.ts';

const file = (filename: string, text: string, options: object = {}) => ({ filename, body: Buffer.from(text), ...options });

test('each file is told apart, and what an upload would be refused for is a finding', async () => {
  const report = await lint(
    [
      file('a.sh', '#!/bin/sh\ntrue\n'),
      file('b.yaml', '#cloud-config\nrunmcd: [ls]\n'),
      file('c.bin', 'what?'),
      file('d.sh', ''),
    ],
    null,
  );
  assert.deepEqual(
    report.parts.map(({ filename, type, findings }) => [filename, type, findings.map(({ code }) => code)]),
    [
      ['a.sh', 'text/x-shellscript', []],
      ['b.yaml', 'text/cloud-config', ['unknown_key', 'schema_missing']],
      ['c.bin', null, ['unrecognised_part']],
      ['d.sh', null, ['empty_part']],
    ],
  );
  assert.equal(report.schema, null);
});

test('a MIME multipart is inspected part by part', async () => {
  const archive = `Content-Type: multipart/mixed; boundary="b"
MIME-Version: 1.0

--b
Content-Type: text/cloud-config
Content-Disposition: attachment; filename="a b.cfg"

#cloud-config
users: [
--b
Content-Type: text/x-shellscript
Content-Transfer-Encoding: base64

IyEvYmluL3NoCmlmIHRydWUKCg==
--b--
`;
  const { parts } = await lint([file('user-data', archive)], null);
  assert.deepEqual(
    parts.map(({ filename, type, findings }) => [filename, type, findings[0]?.code]),
    [
      ['user-data/a b.cfg', 'text/cloud-config', 'bad_yaml'],
      ['user-data/part-002', 'text/x-shellscript', 'shell_syntax'],
    ],
  );
});

test('of a template only the source is judged', async () => {
  const { parts } = await lint(
    [
      file('a.yaml', '#cloud-config\nusers: {{ vars.users | json }}\n', { template: true }),
      file('b.yaml', '#cloud-config\nhostname: {{ vars.name\n', { template: true }),
      file('c.yaml', 'apiVersion: v1\nkind: {{ vars.kind }}\n', { template: true }),
      file('d.sh', '#!/bin/sh\necho {{ vars.name }}\n'),
    ],
    null,
  );
  assert.deepEqual(
    parts.map(({ type, findings }) => [type, findings.map(({ code, line }) => [code, line])]),
    [
      ['text/cloud-config', []],
      ['text/cloud-config', [['bad_template', 2]]],
      ['text/x-kube-manifest', []],
      ['text/x-shellscript', [['looks_like_template', 2]]],
    ],
  );
});

test('as text it reads as a compiler’s', async () => {
  const report = await lint([file('b.yaml', '#cloud-config\nusers: [\n')], null);
  const text = formatLint(report);
  assert.match(text, /^b\.yaml:\d+:\d+: error: .+ \[bad_yaml\]\n1 file: 1 error, 0 warnings\n$/);
  assert.deepEqual(countFindings(report), { errors: 1, warnings: 0 });
});

test('others get their turn between parts, and within a cloud-config', async () => {
  let pauses = 0;
  const pause = async () => {
    pauses++;
  };
  await lint([file('a.sh', '#!/bin/sh\n'), file('b.sh', '#!/bin/sh\n')], null, pause);
  assert.equal(pauses, 2);
  await lint([file('c.yaml', '#cloud-config\nhostname: x\n')], null, pause);
  assert.ok(pauses >= 5, `${pauses}`);
});

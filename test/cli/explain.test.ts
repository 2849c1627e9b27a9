import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { multipart, part } from '../explain/cases.ts';

const CLI = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));

function folder(t: TestContext, files: Record<string, string | Buffer>) {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-explain-'));
  t.after(() => rmSync(path, { recursive: true }));
  for (const [name, body] of Object.entries(files)) writeFileSync(join(path, name), body);
  return (args: string[], input: string | Buffer = '') => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, 'explain', ...args], {
      cwd: path,
      input,
      encoding: 'utf8',
    });
    return { status, stdout, stderr };
  };
}

const SCRIPT = '#!/bin/sh\ntrue\n';
const GOOD = multipart(
  part('text/x-shellscript', 'a.sh', SCRIPT),
  part('text/cloud-config', 'b.yaml', '#cloud-config\nhostname: b\n'),
);
const LOST = multipart(part('text/x-nobody', 'n', 'x'));

test('a MIME file made elsewhere, as text; exit code 1 when something is lost', (t) => {
  const explain = folder(t, { good: GOOD, lost: LOST });
  const { status, stdout, stderr } = explain(['good']);
  assert.deepEqual([status, stderr], [0, '']);
  assert.match(stdout, /^a MIME document: \d+ bytes .*\n\nparts, in order\n {2}a\.sh {2}/);
  assert.match(stdout, /\nmerged cloud-config\n {2}hostname: b\n$/);
  const both = explain(['good', 'lost']);
  assert.equal(both.status, 1);
  assert.match(both.stdout, /^== good\n.*\n== lost\n.*error: n: [^\n]*\[unhandled_part\]\n$/s);
});

test('as JSON, from standard input, as another client takes it', (t) => {
  const { status, stdout } = folder(t, {})(['--format=json', '--client=22.4', '-'], SCRIPT);
  assert.equal(status, 0);
  const [{ file, explanation }] = JSON.parse(stdout);
  assert.deepEqual([file, explanation.client, explanation.isMime], ['stdin', '22.4', false]);
  assert.deepEqual(explanation.scripts, [
    { filename: 'part-001', folder: 'scripts', from: 'part-001', origin: null, size: 15 },
  ]);
});

test('what a name holds does not reach the terminal', (t) => {
  const { stdout } = folder(t, {})(['-'], multipart(part('text/x-nobody', 'a\u001b[31m\u202eb', 'x')));
  assert.match(stdout, /a\?\[31m\?b/);
});

test('what cannot be read, and a flag that is none, are told in one line', (t) => {
  const explain = folder(t, { 'a.sh': SCRIPT });
  for (const [args, says] of [
    [['nothing.sh'], /^bootbundle: nothing\.sh: cannot be read \(ENOENT\)\n$/],
    [[], /^bootbundle: explain needs a FILE; see bootbundle explain --help\n$/],
    [['--wrong', 'x'], /^bootbundle: .*--wrong.*; see bootbundle explain --help\n$/s],
    [['--client=1', 'a.sh'], /^bootbundle: --client is 22\.4, 25\.1, 26\.2\n$/],
    [['--format=xml', 'a.sh'], /^bootbundle: --format is text or json\n$/],
  ] as const) {
    const { status, stdout, stderr } = explain([...args]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, says);
  }
});

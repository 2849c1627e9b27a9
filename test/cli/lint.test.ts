import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));

function folder(t: TestContext, files: Record<string, string>) {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-lint-'));
  t.after(() => rmSync(path, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return (args: string[], input = '') => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, 'lint', `--data-dir=${path}`, ...args], {
      cwd: path,
      input,
      encoding: 'utf8',
    });
    return { status, stdout, stderr };
  };
}

test('the exit code tells whether there are errors, and the output reads as a compiler’s', (t) => {
  const lint = folder(t, { 'a.sh': '#!/bin/sh\ntrue\n', 'b.yaml': '#cloud-config\nusers: [\n' });
  assert.deepEqual(lint(['a.sh']), { status: 0, stdout: '1 file: 0 errors, 0 warnings\n', stderr: '' });
  const { status, stdout } = lint(['a.sh', 'b.yaml']);
  assert.equal(status, 1);
  assert.match(stdout, /^b\.yaml:\d+:\d+: error: .+ \[bad_yaml\]\n2 files: 1 error, 0 warnings\n$/);
});

test('as JSON, from standard input, of a said type, as a template', (t) => {
  const lint = folder(t, {});
  const { status, stdout } = lint(['--json', '--type=text/cloud-config', '--template', '-'], 'hostname: {{ vars.x }}\n');
  assert.equal(status, 0);
  assert.deepEqual(JSON.parse(stdout), {
    parts: [{ filename: 'stdin', type: 'text/cloud-config', findings: [] }],
    schema: null,
    errors: 0,
    warnings: 0,
  });
});

test('what cannot be read, and a flag that is none, are told in one line', (t) => {
  const lint = folder(t, {});
  for (const [args, says] of [
    [['nothing.sh'], /^bootbundle: nothing\.sh: cannot be read \(ENOENT\)\n$/],
    [[], /^bootbundle: lint needs a FILE; see bootbundle lint --help\n$/],
    [['--wrong', 'x'], /^bootbundle: .*--wrong.*; see bootbundle lint --help\n$/s],
  ] as const) {
    const { status, stderr } = lint([...args]);
    assert.equal(status, 1);
    assert.match(stderr, says);
  }
});

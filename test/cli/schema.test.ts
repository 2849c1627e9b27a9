import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));
const SCHEMA = JSON.stringify({
  properties: { runcmd: { type: 'array' }, users: {}, write_files: {} },
  additionalProperties: false,
});

function command(t: TestContext) {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-schema-cli-'));
  t.after(() => rmSync(path, { recursive: true }));
  writeFileSync(join(path, 'one.json'), SCHEMA);
  const run = (args: string[], env: Record<string, string> = {}) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, 'schema', ...args], {
      cwd: path,
      encoding: 'utf8',
      env: { PATH: process.env.PATH ?? '', ...env },
    });
    return { status, stdout, stderr };
  };
  return { path, run };
}

test('an update says what it installed and where; the flag goes before the environment, and that before the default', (t) => {
  const { path, run } = command(t);
  for (const [args, env, folder] of [
    [['--data-dir=flag'], { BOOTBUNDLE_DATA_DIR: 'variable' }, 'flag'],
    [[], { BOOTBUNDLE_DATA_DIR: 'variable' }, 'variable'],
    [[], {}, 'data'],
  ] as const) {
    const { status, stdout, stderr } = run(['update', '--from', 'one.json', ...args], env);
    assert.deepEqual([status, stderr], [0, '']);
    assert.match(
      stdout,
      new RegExp(
        `^installed (?:\\./)?${folder}/schemas/cloud-init\\.json: .*cloud-config \\(a file, copied \\d{4}-\\d\\d-\\d\\d\\)\\n$`,
      ),
    );
    assert.ok(existsSync(join(path, folder, 'schemas', 'cloud-init.json')));
  }
});

test('what goes wrong is told in one line, and nothing is left', (t) => {
  const { path, run } = command(t);
  for (const [args, says] of [
    [[], /^bootbundle: schema has one command: bootbundle schema update; see bootbundle schema --help\n$/],
    [['upgrade'], /^bootbundle: schema has one command/],
    [['update', 'one.json'], /^bootbundle: schema has one command/],
    [['update', '--form=x'], /^bootbundle: [^\n]*--form[^\n]*; see bootbundle schema --help\n$/],
    [['update', '--from=two.json'], /^bootbundle: two\.json: cannot be read \(ENOENT\)\n$/],
    [['update', '--from=http://127.0.0.1:1/'], /^bootbundle: http:\/\/127\.0\.0\.1:1\/[^\n]+cannot be fetched [^\n]+\n$/],
  ] as const) {
    const { status, stdout, stderr } = run([...args]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, says);
  }
  assert.ok(!existsSync(join(path, 'data')));
});

test('help needs nothing', (t) => {
  const { run } = command(t);
  assert.match(run(['--help']).stdout, /^bootbundle schema update /);
});

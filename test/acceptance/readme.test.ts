import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const README = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
const BLOCKS = [...README.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1] ?? '');
const missing = ['bash', 'curl', 'git'].filter((tool) => spawnSync(tool, ['--version']).error);

test('the walk-through works as pasted', { skip: missing.length > 0 && `needs ${missing.join(', ')}` }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'bootbundle-readme-'));
  const server = spawn(
    process.execPath,
    [fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url)), 'serve', '--port=0'],
    {
      cwd: directory,
      env: { PATH: process.env.PATH },
      stdio: ['ignore', 'ignore', 'pipe'],
    },
  );
  t.after(async () => {
    server.kill();
    await once(server, 'exit');
    rmSync(directory, { recursive: true });
  });
  const port = await new Promise<string>((resolve) => {
    let told = '';
    server.stderr.setEncoding('utf8').on('data', (text) => {
      told += text;
      const match = /http:\/\/127\.0\.0\.1:(\d+)\/api/.exec(told);
      if (match?.[1]) resolve(match[1]);
    });
  });

  const script = BLOCKS.map((block) => `${block}printf '\\036'\n`)
    .join('')
    .replaceAll('127.0.0.1:8080', `127.0.0.1:${port}`);
  const run = spawnSync('bash', ['-euo', 'pipefail', '-c', script], {
    cwd: directory,
    encoding: 'utf8',
    env: { PATH: process.env.PATH, HOME: directory },
  });
  assert.equal(run.status, 0, run.stderr + run.stdout);
  const printed = run.stdout.split('\x1e');
  const said = (command: string) => printed[BLOCKS.findIndex((block) => block.includes(command))] ?? '';

  assert.match(said('bundles/atomic/parts/'), /"type": "text\/x-shellscript"[\s\S]*"type": "text\/x-kube-pod"/);
  assert.match(said('git -C demo archive'), /"changed": false/);
  assert.match(said('"bundles": ["kube", "atomic", "db"]'), /"changed": true/);
  assert.match(said('cat userdata'), /^#include-once\nhttp:\/\/127\.0\.0\.1:\d+\/i\/[\w-]{40}\/user-data\n$/);
  assert.match(said('form=nocloud'), /^ds=nocloud;s=http:\/\/127\.0\.0\.1:\d+\/s\/[\w-]{40}\/\n$/);
  assert.match(
    said('03-disable-selinux/,'),
    /filename="03-disable-selinux\.sh"[\s\S]*filename="04-dbserver\.yaml"[\s\S]*image: mysql\n/,
  );
  assert.match(said('image: mysql:5.6'), /image: mysql:5\.6\n[\s\S]*db@2/);
  assert.match(said('my-k3s-server/timeline'), /^\S+ {2}registered by admin\n$/);
  assert.match(
    said('bundles/web/diff'),
    /\n--- web@2\/base\.yaml\n\+\+\+ web@3\/base\.yaml\n[\s\S]*\n\+ {2}servers: \[\{\{ vars\.ntp \}\}\]\n/,
  );
  assert.match(said('secrets/token/generate'), /content: "‹secret:token›"\n$/);

  assert.match(said('instances?format=text'), /my-atomic-server .*delivered/);
  assert.match(said('my-atomic-server/close'), /window_shut|is not given its document any more[\s\S]*"open": true/);
  assert.match(said('"$BB/tokens"'), /ci-web +editor[\s\S]*ci-web/);
  assert.match(said('/metrics'), /bootbundle_instances\{state="registered"\} 4/);

  assert.equal(ANSWERS.length, 5);
  for (const { block, answer } of ANSWERS) {
    const got = printed[BLOCKS.indexOf(block)] ?? '';
    if (answer.startsWith('{')) assert.deepEqual(problem(got.slice(got.lastIndexOf('\n{\n') + 1)), problem(answer), block);
    else assert.equal(plain(got), plain(answer), block);
  }
});

/** What README prints as the answer to a block: problems, and what cloud-init makes of a document. */
const ANSWERS = [...README.matchAll(/^```sh\n((?:(?!^```).)*?)^```\n\n```text\n((?:\{|a MIME document).*?)^```$/gms)].map(
  ([, block = '', answer = '']) => ({ block, answer }),
);

/** Without its id, and without the word on the schema: where a cloud-init is installed, there is one. */
function problem(text: string): object {
  const { requestId: _, findings, ...rest } = JSON.parse(text) as { requestId: string; findings: { code: string }[] };
  return { ...rest, findings: findings.filter(({ code }) => code !== 'schema_missing') };
}

/** Sizes, the port, capabilities and the widths of columns are of one run. */
function plain(text: string): string {
  return text
    .replace(/127\.0\.0\.1:\d+\/r\/(?:…|[\w-]{40})/g, 'REPORT')
    .replace(/\b\d{3,5}\b(?=\)|,| {2}| bytes)/g, 'SIZE')
    .replace(/ {2,}/g, '  ');
}

test('every block of the README is either run here or marked as text', () => {
  const kinds = [...README.matchAll(/^ *```(\w*)$/gm)].map((match) => match[1]).filter((kind) => kind !== '');
  assert.ok(BLOCKS.length >= 8);
  for (const kind of kinds) assert.ok(['sh', 'text', 'yaml'].includes(kind ?? ''), kind);
});

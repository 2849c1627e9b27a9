import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readConfig } from '../../src/config.ts';
import { start } from '../../src/main.ts';

const CLI = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));
const NEW = 'n'.repeat(32);

test('a database gets another key: secrets are sealed anew, stubs go on, and a key it does not know is refused', async (t) => {
  const data = mkdtempSync(join(tmpdir(), 'bootbundle-reseal-'));
  t.after(() => rmSync(data, { recursive: true }));
  const serve = (key?: string) =>
    start(
      readConfig(
        key === undefined ? {} : { BOOTBUNDLE_KEY: key },
        new Map([
          ['port', '0'],
          ['data-dir', data],
          ['log-level', 'silent'],
        ]),
      ),
    );
  const reseal = (key: string) =>
    spawnSync(process.execPath, [CLI, 'reseal', `--data-dir=${data}`], { env: { BOOTBUNDLE_KEY: key }, encoding: 'utf8' });

  let running = await serve();
  const headers = { authorization: `Bearer ${readFileSync(join(data, 'admin-token'), 'utf8').trim()}` };
  const put = async (path: string, body: string) => {
    const answer = await fetch(`${running.url}/api/v1${path}`, { method: 'PUT', headers, body });
    assert.ok(answer.ok, await answer.clone().text());
    return answer.text();
  };
  await put('/bundles/web/parts/a.sh?template=true', '#!/bin/sh\necho {{ secrets.token | shell }}\n');
  await put('/bundles/web/secrets/token', 'sesame');
  const { url } = JSON.parse(await put('/instances/vm', '{"bundles": ["web"]}')).status.stub;
  await running.stop();

  const old = readFileSync(join(data, 'server.key'), 'utf8').trim();
  assert.equal(reseal(`${NEW},${old}`).stdout, '1 secrets sealed under the newest key, 0 were already\n');
  assert.equal(reseal(`${NEW},${old}`).stdout, '0 secrets sealed under the newest key, 1 were already\n');
  running = await serve(`${NEW},${old}`);
  const document = await fetch(new URL(new URL(url).pathname, running.url)).then((answer) => answer.text());
  await running.stop();
  assert.match(document, /echo 'sesame'\n/);

  const { status, stderr } = reseal('x'.repeat(32));
  assert.equal(status, 1);
  assert.match(stderr, /^bootbundle: BOOTBUNDLE_KEY: this database was made under another key/);
});

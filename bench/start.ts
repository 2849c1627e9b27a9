// Prints what a start costs (process start to the first 200 of /readyz, an empty database each time) and how big a stub is.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../src/cli/bootbundle.js', import.meta.url));
const ROUNDS = 7;

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  return typeof address === 'object' && address ? address.port : 0;
}

async function round(): Promise<{ ready: number; stub: number }> {
  const data = mkdtempSync(join(tmpdir(), 'bootbundle-start-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const begun = performance.now();
  const server = spawn(process.execPath, [CLI, 'serve', `--port=${port}`, `--data-dir=${data}`, '--log-level=silent'], {
    stdio: 'ignore',
  });
  while (
    !(await fetch(`${url}/readyz`).then(
      ({ ok }) => ok,
      () => false,
    ))
  )
    await sleep(2);
  const ready = performance.now() - begun;

  const authorization = `Bearer ${readFileSync(join(data, 'admin-token'), 'utf8').trim()}`;
  await fetch(`${url}/api/v1/instances/my-atomic-server`, {
    method: 'PUT',
    headers: { authorization },
    body: '{"bundles": []}',
  });
  const stub = await fetch(`${url}/api/v1/instances/my-atomic-server/stub`, { headers: { authorization } }).then((answer) =>
    answer.text(),
  );
  server.kill();
  await once(server, 'exit');
  rmSync(data, { recursive: true });
  return { ready, stub: stub.length };
}

const rounds: { ready: number; stub: number }[] = [];
for (let index = 0; index < ROUNDS; index++) rounds.push(await round());
const times = rounds.map(({ ready }) => Math.round(ready)).sort((a, b) => a - b);
process.stdout.write(`Node ${process.versions.node}, ${cpus().length} × ${cpus()[0]?.model.trim()}
start to /readyz: median ${times[ROUNDS >> 1]} ms (${times[0]} to ${times.at(-1)}, ${ROUNDS} rounds); the goal is under 1000 ms
stub: ${rounds[0]?.stub} bytes with a URL on 127.0.0.1; the goal is under 200 bytes
`);

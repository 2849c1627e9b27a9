// Publishes to a bundle that 10,000 instances follow, each with its own rendering, while machines fetch: prints what a publish takes, and what a fetch
// takes without one and meanwhile.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const CLI = fileURLToPath(new URL('../src/cli/bootbundle.js', import.meta.url));
const INSTANCES = Number(process.env.INSTANCES ?? 10_000);
/** Between two fetches, milliseconds. */
const EVERY = 10;

const CONFIG = `#cloud-config
hostname: {{ instance.name }}
users:
  - default
  - name: {{ vars.user | default: "ops" }}
    groups: sudo
    shell: /bin/bash
write_files:
  - path: /etc/role
    content: {{ vars.role | yaml }}
  - path: /etc/token
    permissions: "0600"
    content: {{ secrets.token | yaml }}
packages: [curl, jq]
runcmd:
  - [echo, {{ vars.rack | json }}]
`;
const MANIFEST = `#kube-manifest
apiVersion: v1
kind: ConfigMap
metadata:
  name: node-facts
data:
  name: {{ instance.name | yaml }}
  rack: {{ vars.rack | yaml }}
`;

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  return typeof address === 'object' && address ? address.port : 0;
}

const data = mkdtempSync(join(tmpdir(), 'bootbundle-publish-'));
const port = await freePort();
const server = spawn(process.execPath, [CLI, 'serve', `--port=${port}`, `--data-dir=${data}`, '--log-level=silent'], {
  stdio: 'ignore',
});
const root = `http://127.0.0.1:${port}`;
while (!(await fetch(`${root}/readyz`).catch(() => null))?.ok) await sleep(5);
const authorization = `Bearer ${readFileSync(join(data, 'admin-token'), 'utf8').trim()}`;

async function api(method: string, path: string, body?: string) {
  const answer = await fetch(`${root}/api/v1${path}`, { method, headers: { authorization }, ...(body ? { body } : {}) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text.slice(0, 2000)}`);
  return JSON.parse(text);
}

await api('PUT', '/bundles/web/parts/10-base.yaml?template=true', CONFIG);
await api('PUT', '/bundles/web/parts/20-facts.yaml?template=true', MANIFEST);
await api('PUT', '/bundles/web/parts/30-hello.sh', '#!/bin/sh\necho hello\n');
await api('PUT', '/bundles/web/secrets/token', 'a-token-of-the-whole-bundle');
const list = Array.from({ length: INSTANCES }, (_, n) => ({
  name: `node-${n}`,
  bundles: ['kube', 'web'],
  vars: { role: `role: ${n % 7}`, rack: `r${n}` },
}));
const registering = performance.now();
const urls = (await api('PUT', '/instances', JSON.stringify(list))).items.map(
  (item: { status: { stub: { url: string } } }) => item.status.stub.url,
);
const registered = performance.now() - registering;

/** Fetches one document every EVERY ms, whether or not the one before has come, until told to stop: what each took, in milliseconds. */
function machines(): { stop: () => Promise<number[]> } {
  const times: number[] = [];
  const under: Promise<void>[] = [];
  let at = 0;
  const timer = setInterval(() => {
    const began = performance.now();
    under.push(
      fetch(urls[(at++ * 7919) % urls.length])
        .then((answer) => answer.arrayBuffer())
        .then(() => {
          times.push(performance.now() - began);
        }),
    );
  }, EVERY);
  return {
    async stop() {
      clearInterval(timer);
      await Promise.all(under);
      return times.sort((a, b) => a - b);
    },
  };
}

const percentile = (times: readonly number[], share: number) =>
  times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0;
const told = (times: readonly number[]) =>
  `p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms, worst ${percentile(times, 1).toFixed(1)} ms (${times.length} fetches)`;

let fetching = machines();
await sleep(3000);
const idle = await fetching.stop();

fetching = machines();
const publishing = performance.now();
const published = await api('PUT', '/bundles/web/parts/10-base.yaml', `${CONFIG}timezone: UTC\n`);
const took = performance.now() - publishing;
const busy = await fetching.stop();

server.kill();
await once(server, 'exit');
rmSync(data, { recursive: true });
process.stdout.write(`Node ${process.versions.node}, ${cpus().length} × ${cpus()[0]?.model.trim()}; judged by: ${published.schema ?? 'no schema'}
${INSTANCES} instances registered in one list, each rendered and inspected: ${(registered / 1000).toFixed(1)} s
a part published to all of them, each rendered and inspected: ${(took / 1000).toFixed(1)} s; the goal is under 10 s
fetches without it: ${told(idle)}
fetches meanwhile:  ${told(busy)}
`);

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const COMMAND = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));
const TOKEN = 'test-token-of-the-cloud-init-tests';

/** The product, running as an operator starts it, with an empty data directory of its own; spoken to over HTTP only. */
export interface Server {
  url: string;
  port: number;
  /** An admin's. */
  token: string;
  /** Below `/api/v1`; a body that is neither text nor bytes goes as JSON. @throws when the answer is not 2xx, with its text */
  call(method: string, path: string, body?: Uint8Array | string | object, headers?: Record<string, string>): Promise<string>;
  /** Like `curl -T`: one part, as it is. `options` is a query such as `?merge=append`. */
  upload(bundle: string, filename: string, body: Uint8Array | string, options?: string): Promise<void>;
  /** Registers a machine with these bundles. @returns its stub */
  register(instance: string, bundles: string[], more?: object): Promise<string>;
  close(): Promise<void>;
}

export async function startServer(): Promise<Server> {
  const data = await mkdtemp(join(tmpdir(), 'bootbundle-data-'));
  const port = await freePort();
  const child = spawn(process.execPath, [COMMAND, 'serve'], {
    env: {
      PATH: process.env.PATH,
      BOOTBUNDLE_PORT: String(port),
      BOOTBUNDLE_DATA_DIR: data,
      BOOTBUNDLE_ADMIN_TOKEN: TOKEN,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      log = (log + text).slice(-4000);
    });
  }
  const url = `http://127.0.0.1:${port}`;
  const close = async () => {
    await stop(child);
    await rm(data, { recursive: true, force: true });
  };
  if (!(await ready(child, url))) {
    await close();
    throw new Error(`the server did not become ready: ${log}`);
  }

  const call: Server['call'] = async (method, path, body, headers = {}) => {
    const raw = typeof body === 'string' || body instanceof Uint8Array || body === undefined;
    const response = await fetch(`${url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${TOKEN}`, ...(raw ? {} : { 'content-type': 'application/json' }), ...headers },
      ...(body === undefined ? {} : { body: raw ? Buffer.from(body as Uint8Array) : JSON.stringify(body) }),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text;
  };
  return {
    url,
    port,
    token: TOKEN,
    call,
    async upload(bundle, filename, body, options = '') {
      await call('PUT', `/bundles/${bundle}/parts/${filename}${options}`, body);
    },
    async register(instance, bundles, more = {}) {
      await call('PUT', `/instances/${instance}`, { bundles, ...more });
      return call('GET', `/instances/${instance}/stub`);
    },
    close,
  };
}

async function ready(child: ChildProcess, url: string): Promise<boolean> {
  for (let waited = 0; waited < 10_000 && child.exitCode === null; waited += 50) {
    const response = await fetch(`${url}/readyz`).catch(() => null);
    await response?.arrayBuffer();
    if (response?.ok) return true;
    await sleep(50);
  }
  return false;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGTERM');
  await exited;
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

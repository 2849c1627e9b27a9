import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const COMMAND = fileURLToPath(new URL('../../src/cli/bootbundle.js', import.meta.url));

/** A process of `bootbundle serve`, as an operator starts it. */
export interface Server {
  child: ChildProcess;
  /** Where operators reach it. */
  url: string;
  port: number;
  /** Its data directory. */
  data: string;
  token: string;
  /** What it wrote so far. */
  stderr(): string;
  stdout(): string;
  /** Ends it. @returns its exit code */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

/** A directory that is gone after the tests of this file. */
export function temporaryDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-acceptance-'));
  after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** Runs `bootbundle serve` to its end: for starts that must fail. A start that does not fail is ended after 10 s. */
export async function runServe(env: Record<string, string>, args: string[] = [], node = process.execPath) {
  const child = spawn(node, [COMMAND, 'serve', ...args], { env, stdio: ['ignore', 'pipe', 'pipe'], timeout: 10_000 });
  const [stdout, stderr, [code]] = await Promise.all([textOf(child.stdout), textOf(child.stderr), once(child, 'exit')]);
  return { code: code as number | null, stdout, stderr };
}

/** Starts a server on a free port and waits until it says its URL. */
export async function startServer(env: Record<string, string> = {}): Promise<Server> {
  const data = env.BOOTBUNDLE_DATA_DIR ?? temporaryDirectory();
  const child = spawn(process.execPath, [COMMAND, 'serve'], {
    env: { BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const written = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const)
    child[stream].setEncoding('utf8').on('data', (text) => {
      written[stream] += text;
    });
  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      await once(child, 'exit');
    }
    return child.exitCode;
  };
  after(() => stop('SIGKILL'));
  for (let waited = 0; ; waited += 10) {
    const [, url, port] = /serves (https?:\/\/127\.0\.0\.1:(\d+))\//.exec(written.stderr) ?? [];
    if (url !== undefined) {
      return {
        child,
        url,
        port: Number(port),
        data,
        token: readFileSync(join(data, 'admin-token'), 'utf8').trim(),
        stderr: () => written.stderr,
        stdout: () => written.stdout,
        stop,
      };
    }
    if (child.exitCode !== null || waited > 15_000) throw new Error(`no start: ${written.stderr}${written.stdout}`);
    await sleep(10);
  }
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  let text = '';
  for await (const chunk of stream) text += chunk;
  return text;
}

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { kubePartHandler } from '../../src/guest/handler.ts';

const DRIVE = fileURLToPath(new URL('drive.py', import.meta.url));
export const APPLIER = fileURLToPath(new URL('../../src/guest/bootbundle-apply', import.meta.url));
export const PYTHON = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';

export interface Call {
  ctype: string;
  filename: string | null;
  text?: string;
  base64?: string;
}
export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A machine's root folder, and what runs in it. `bin` is first on the PATH. Everything is gone when the test ends. */
export class Machine {
  readonly root: string;
  readonly bin: string;
  readonly children = new Set<ChildProcess>();
  env: Record<string, string> = {};

  constructor(t: TestContext, { systemd = true } = {}) {
    this.root = mkdtempSync(join(tmpdir(), 'bootbundle-guest-'));
    this.bin = join(this.root, 'bin');
    mkdirSync(this.bin);
    if (systemd) {
      mkdirSync(join(this.root, 'run/systemd/system'), { recursive: true });
      this.program('systemctl', `echo "$*" >> '${this.root}/systemctl.calls'`);
    }
    t.after(async () => {
      for (const child of this.children) child.kill('SIGKILL');
      // Whoever holds the applier's lock says so in it: a poller in the background is a child of nobody.
      await this.stopPoller();
      rmSync(this.root, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    });
  }

  path(...names: string[]): string {
    return join(this.root, ...names);
  }
  at(...names: string[]): string {
    return join(this.root, 'var/lib/bootbundle', ...names);
  }
  read(...names: string[]): string {
    return readFileSync(this.at(...names), 'utf8');
  }
  /** File names in a folder of manifests, hidden ones too. */
  list(folder: string): string[] {
    return existsSync(this.at(folder)) ? readdirSync(this.at(folder)).sort() : [];
  }
  folders(): Record<string, string[]> {
    return {
      pending: this.list('manifests/pending'),
      applied: this.list('manifests/applied'),
      failed: this.list('manifests/failed'),
    };
  }
  log(): string {
    return existsSync(this.path('var/log/bootbundle.log')) ? readFileSync(this.path('var/log/bootbundle.log'), 'utf8') : '';
  }
  systemctl(): string[] {
    const file = this.path('systemctl.calls');
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
  }

  /** A shell script on this machine's PATH. */
  program(name: string, script: string): void {
    writeFileSync(join(this.bin, name), `#!/bin/sh\n${script}\n`);
    chmodSync(join(this.bin, name), 0o755);
  }
  config(config: object): void {
    this.write('var/lib/bootbundle/config.json', JSON.stringify(config));
  }
  /** Drops files into pending/, as the handler or a person would. */
  drop(files: Record<string, string>): void {
    for (const [name, text] of Object.entries(files)) this.write(`var/lib/bootbundle/manifests/pending/${name}`, text);
  }
  write(path: string, text: string): void {
    mkdirSync(dirname(this.path(path)), { recursive: true });
    writeFileSync(this.path(path), text);
  }

  environment(): Record<string, string> {
    const path = [this.bin, '/usr/bin', '/bin'].join(':');
    return { PATH: path, BOOTBUNDLE_ROOT: this.root, HOME: this.root, LC_ALL: 'C', ...this.env };
  }

  start(command: string, words: string[], input?: string): { child: ChildProcess; ended: Promise<Ended> } {
    const child = spawn(command, words, { env: this.environment(), stdio: ['pipe', 'pipe', 'pipe'] });
    this.children.add(child);
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.stdin.on('error', () => {});
    child.stdin.end(input ?? '');
    const ended = once(child, 'close').then(([code, signal]) => {
      this.children.delete(child);
      return { code, signal, stdout, stderr };
    });
    return { child, ended };
  }

  /** Calls the delivered handler as cloud-init does. @throws when it raises */
  async handle(calls: Call[], python = PYTHON): Promise<{ types: string[]; seconds: number; stderr: string }> {
    writeFileSync(this.path('part-handler-000.py'), kubePartHandler());
    const words = ['-W', 'error', DRIVE, this.path('part-handler-000.py')];
    const ended = await this.start(python, words, JSON.stringify(calls)).ended;
    if (ended.code !== 0) throw new Error(`the handler raised: ${ended.stderr}`);
    return { ...JSON.parse(ended.stdout), stderr: ended.stderr };
  }

  apply(...words: string[]): { child: ChildProcess; ended: Promise<Ended> } {
    return this.start(PYTHON, ['-W', 'error', APPLIER, ...words]);
  }

  /** Ends the poller in the background, if there is one. */
  async stopPoller(): Promise<void> {
    if (!existsSync(this.at('lock'))) return;
    const pid = Number(this.read('lock'));
    const runs = () =>
      pid > 0 && existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(this.root);
    for (let i = 0; runs() && i < 50; i++) {
      process.kill(pid, 'SIGKILL');
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

export interface Report {
  file: string;
  part: string;
  sha256: string;
  status: 'applied' | 'failed' | 'retrying';
  attempts: number;
  output: string;
  at: number;
  id: string;
  client?: string;
  clientVersion?: string;
}

/** Keeps what is posted, and answers in the place of the service; or, with its report URL, hands it on to the service and answers as that does. */
export async function startReports(t: TestContext, service?: string): Promise<Reports> {
  const reports = new Reports();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk) => chunks.push(chunk));
    request.on('end', async () => {
      const body = Buffer.concat(chunks);
      reports.requests.push(`${request.method} ${request.url} ${request.headers['content-type']}`);
      const handedOn =
        service &&
        (await fetch(`${service}/manifests`, { method: 'POST', body, headers: { 'content-type': 'application/json' } }));
      const status = handedOn ? handedOn.status : reports.answer();
      if (status < 300) {
        reports.sizes.push(body.length);
        reports.all.push(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body)));
      }
      response.writeHead(status, status >= 300 && status < 400 ? { location: '/elsewhere' } : {}).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  reports.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/r/CAPABILITY`;
  return reports;
}

export class Reports {
  url = '';
  readonly requests: string[] = [];
  readonly all: Report[] = [];
  readonly sizes: number[] = [];
  answer: () => number = () => 200;
  /** `file status`, without those that are tried again. */
  results(): string[] {
    return this.all.filter(({ status }) => status !== 'retrying').map(({ file, status }) => `${file} ${status}`);
  }
}

/** Resolves once `test` holds. */
export async function until(test: () => boolean, milliseconds = 10_000): Promise<void> {
  const end = Date.now() + milliseconds;
  while (!test()) {
    if (Date.now() > end) throw new Error('this did not come true in time');
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Pythons of several ages, oldest first: the system's and pyenv's. */
export function pythons(): { version: string; python: string }[] {
  const folder = join(process.env.PYENV_ROOT || join(process.env.HOME ?? '/', '.pyenv'), 'versions');
  const found = existsSync(folder) ? readdirSync(folder) : [];
  return found
    .map((version) => ({ version, python: join(folder, version, 'bin/python') }))
    .filter(({ python }) => existsSync(python))
    .sort((a, b) => a.version.localeCompare(b.version, 'en', { numeric: true }));
}

/** Runs a program to its end. */
export function run(file: string, words: string[], env = process.env): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(file, words, { env, maxBuffer: 1 << 26 }, (error, stdout, stderr) =>
      resolve({ code: error ? Number(error.code ?? -1) : 0, signal: error?.signal ?? null, stdout, stderr }),
    );
  });
}

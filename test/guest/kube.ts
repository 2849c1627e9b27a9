import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Ended, run } from './machine.ts';

const RIG = process.env.KUBE_RIG || fileURLToPath(new URL('../../../shared/rigs/kube', import.meta.url));
const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'bootbundle-tests');

/** A real API server that can be stopped, started and killed; its address and token stay the same. */
export interface Kube {
  /** A path: a client that speaks to this machine's PATH would find it as `kubectl`. */
  kubectl: string;
  /** The text of a kubeconfig for an administrator. */
  kubeconfig: string;
  start(): Promise<void>;
  /** Drops the data too. */
  stop(): Promise<void>;
  /** Ends the API server at once, then starts it again on the same data. */
  killApi(): Promise<() => void>;
  /** An object as the API has it, or null. */
  get(kind: string, name: string, namespace?: string): Promise<KubeObject | null>;
  remove(): Promise<void>;
}
export interface KubeObject {
  metadata: { uid: string; generation?: number; labels?: Record<string, string> };
  spec: Record<string, unknown>;
  data?: Record<string, string>;
}

/**
 * For the `skip` of a test: false, or why there is no API server or client here.
 * @throws when there is none although REQUIRE_KUBE_RIG=1 says that there must be
 */
export function skipWithoutKube(): false | string {
  let reason = '';
  if (!existsSync(join(RIG, 'kube-up.sh'))) reason = `no rig at ${RIG} (KUBE_RIG)`;
  else if (process.platform !== 'linux' || process.arch !== 'x64') reason = 'the rig is for Linux on x64';
  if (reason && process.env.REQUIRE_KUBE_RIG === '1') throw new Error(reason);
  return reason || false;
}

/** @throws when the rig does not start, or no client is to be had */
export async function startKube(): Promise<Kube> {
  const kubectl = await findKubectl();
  const state = mkdtempSync(join(tmpdir(), 'bootbundle-kube-'));
  let env: Record<string, string | undefined> = { ...process.env, KUBE_TOKEN: 'administrator' };
  let respawned: ChildProcess | undefined;
  const up = async (): Promise<void> => {
    // The first start on a machine unpacks into a cache that other tests start from, too. -o: what is started does not hold the lock.
    mkdirSync(CACHE, { recursive: true });
    must(await run('flock', ['-o', join(CACHE, 'kube-up.lock'), join(RIG, 'kube-up.sh'), state], env));
  };
  const pidOf = (name: string) => Number(readFileSync(join(state, `${name}.pid`), 'utf8'));
  await up();
  const kubeconfig = readFileSync(join(state, 'kubeconfig'), 'utf8');
  writeFileSync(join(state, 'admin'), kubeconfig);
  // The next start takes the same port.
  env = { ...env, KUBE_PORT: /127\.0\.0\.1:(\d+)/.exec(kubeconfig)?.[1] };
  const kube: Kube = {
    kubectl,
    kubeconfig,
    start: up,
    async stop() {
      must(await run(join(RIG, 'kube-down.sh'), [state]));
      if (respawned && respawned.exitCode === null && respawned.signalCode === null) await once(respawned, 'exit');
      respawned = undefined;
    },
    async killApi() {
      const pid = pidOf('apiserver');
      const [program = '', ...words] = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
      process.kill(pid, 'SIGKILL');
      return () => {
        respawned = spawn(program, words, { cwd: state, stdio: 'ignore', detached: true });
        writeFileSync(join(state, 'apiserver.pid'), String(respawned.pid));
      };
    },
    async get(kind, name, namespace = 'default') {
      const words = [
        'get',
        kind,
        name,
        '-n',
        namespace,
        '-o',
        'json',
        '--ignore-not-found',
        `--cache-dir=${join(state, 'cache')}`,
      ];
      const { stdout } = must(await run(kubectl, words, { ...process.env, KUBECONFIG: join(state, 'admin') }));
      return stdout.trim() === '' ? null : JSON.parse(stdout);
    },
    async remove() {
      await kube.stop();
      rmSync(state, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    },
  };
  return kube;
}

function must(ended: Ended): Ended {
  if (ended.code !== 0) throw new Error(ended.stderr.trim() || `ended with ${ended.code}`);
  return ended;
}

/** This machine's (or $KUBECTL), else Debian's, unpacked and kept: 1.20 or newer. */
async function findKubectl(): Promise<string> {
  for (const path of [process.env.KUBECTL, '/usr/local/bin/kubectl', '/usr/bin/kubectl'])
    if (path && (await usable(path))) return path;
  const cached = join(CACHE, 'kubernetes-client/usr/bin/kubectl');
  if (!existsSync(cached)) {
    mkdirSync(CACHE, { recursive: true });
    const work = mkdtempSync(join(CACHE, 'unpacking-'));
    try {
      const fetch = 'cd "$0" && apt-get download -q -o APT::Sandbox::User=root kubernetes-client && dpkg -x *.deb root';
      must(await run('/bin/sh', ['-c', fetch, work]));
      // Another test file that runs beside this one may have been quicker.
      if (readdirSync(work).includes('root') && !existsSync(cached))
        renameSync(join(work, 'root'), join(CACHE, 'kubernetes-client'));
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  if (await usable(cached)) return cached;
  throw new Error('no kubectl of 1.20 or newer: neither on this machine nor in the package kubernetes-client');
}

async function usable(path: string): Promise<boolean> {
  const { code, stdout } = await run(path, ['version', '--client', '-o', 'json']);
  if (code !== 0) return false;
  const { major, minor } = (JSON.parse(stdout) as { clientVersion: { major: string; minor: string } }).clientVersion;
  return major === '1' && Number.parseInt(minor, 10) >= 20;
}

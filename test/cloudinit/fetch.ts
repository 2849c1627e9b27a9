import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Where a real cloud-init lies, or why there is none here. */
export type CloudInit = { found: true; modules: string; python: string } | { found: false; reason: string };

/** Outside the repository, so that a clean clone need not fetch it again. */
const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'bootbundle-tests');
const MODULES = 'usr/lib/python3/dist-packages';
/** The compiled modules among the packages are made for the system's Python, not for one that hides it on the PATH. */
const PYTHON = existsSync('/usr/bin/python3') ? '/usr/bin/python3' : 'python3';

/**
 * Debian's cloud-init and what it imports, unpacked, not installed: needs apt-get with package lists, no root. What was
 * unpacked once is used for ever, offline too (remove the folder to have a newer one).
 */
export async function findCloudInit(): Promise<CloudInit> {
  try {
    const folder = (await cached()) ?? (await unpack());
    return { found: true, modules: join(folder, MODULES), python: PYTHON };
  } catch (error) {
    return { found: false, reason: `no cloud-init: ${error instanceof Error ? error.message : String(error)}` };
  }
}

/**
 * For the `skip` of a test: false, or why not.
 * @throws when it is missing although REQUIRE_CLOUD_INIT=1 says that it must not be
 */
export function skipWithout(cloudInit: CloudInit): false | string {
  if (cloudInit.found) return false;
  if (process.env.REQUIRE_CLOUD_INIT === '1') throw new Error(cloudInit.reason);
  return cloudInit.reason;
}

async function cached(): Promise<string | undefined> {
  const names = await readdir(CACHE).catch(() => []);
  const newest = names
    .filter((name) => name.startsWith('cloud-init-'))
    .sort(byVersion)
    .at(-1);
  return newest && join(CACHE, newest);
}

const byVersion = new Intl.Collator('en', { numeric: true }).compare;

async function unpack(): Promise<string> {
  const version = await candidate();
  const depends = await command('apt-cache', [
    'depends',
    '--recurse',
    '--no-recommends',
    '--no-suggests',
    '--no-conflicts',
    '--no-breaks',
    '--no-replaces',
    '--no-enhances',
    'cloud-init',
  ]);
  const modules = depends.split('\n').filter((name) => /^python3-[a-z0-9.-]+$/.test(name) && name !== 'python3-minimal');

  await mkdir(CACHE, { recursive: true });
  const work = await mkdtemp(join(CACHE, 'unpacking-'));
  try {
    await command('apt-get', ['download', '-q', '-o', 'APT::Sandbox::User=root', 'cloud-init', ...modules], work);
    for (const name of await readdir(work)) {
      if (name.endsWith('.deb')) await command('dpkg', ['-x', name, 'root'], work);
    }
    // A whole folder appears at once; where another process was quicker, its folder is as good.
    const folder = join(CACHE, `cloud-init-${version}`);
    await rename(join(work, 'root'), folder).catch((error) => {
      if (!existsSync(folder)) throw error;
    });
    return folder;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The version that `apt-get download` would fetch. */
async function candidate(): Promise<string> {
  const policy = await command('apt-cache', ['policy', 'cloud-init']);
  const version = /^ *Candidate: (\S+)$/m.exec(policy)?.[1];
  if (!version || version === '(none)') throw new Error('apt knows no package cloud-init: run `apt-get update`');
  return version.replaceAll(/[^A-Za-z0-9.+~-]/g, '_');
}

async function command(file: string, args: string[], cwd = '/'): Promise<string> {
  try {
    const { stdout } = await run(file, args, {
      cwd,
      env: { ...process.env, LC_ALL: 'C' },
      maxBuffer: 1 << 26,
      timeout: 120_000,
    });
    return stdout;
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    if (code === 'ENOENT') throw new Error(`${file} is not here`);
    throw new Error(`${file} ${args[0]} failed: ${stderr?.trim().split('\n').at(-1) ?? String(error)}`);
  }
}

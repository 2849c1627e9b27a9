import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** The rig in ../shared: the four boot stages of a real cloud-init in a throw-away Debian root. */
const RIG = process.env.CLOUD_INIT_RIG || fileURLToPath(new URL('../../../shared/rigs/cloud-init/level1.sh', import.meta.url));

/** For the `skip` of a test: false, or why there is no rig here. @throws when there is none although REQUIRE_CLOUD_INIT_RIG=1 */
export function skipWithoutRig(): false | string {
  const tool = (name: string) => ['/usr/sbin', '/sbin', '/usr/bin'].some((folder) => existsSync(join(folder, name)));
  let reason = '';
  if (!existsSync(RIG)) reason = `no rig at ${RIG} (CLOUD_INIT_RIG)`;
  else if (process.getuid?.() !== 0) reason = 'the rig needs root';
  else if (!tool('debootstrap') || !tool('ip')) reason = 'the rig needs the packages debootstrap and iproute2';
  if (reason && process.env.REQUIRE_CLOUD_INIT_RIG === '1') throw new Error(reason);
  return reason || false;
}

/** Boots with this file as user-data; what came of it is in `out`. `env` are the rig's options. The first boot of a suite makes its root. */
export async function bootRig(userData: string, out: string, env: Record<string, string>): Promise<void> {
  await promisify(execFile)(RIG, [userData, out], { env: { ...process.env, ...env }, timeout: 600_000, maxBuffer: 1 << 24 });
}

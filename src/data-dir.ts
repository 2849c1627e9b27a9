import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { ConfigError, isRootKey } from './config.ts';

/** What the first start makes in the data directory, for its owner's eyes only (0600). */
export interface DataDir {
  path: string;
  /** The root key. `mayMake`: made when it is not there; else its loss is an error. */
  key(mayMake: boolean): Uint8Array;
  /** The admin token, made when it is not there, with an `admin.curlrc` for `curl -K`. `made`: just now. */
  adminToken(): { token: string; made: boolean };
}

/** Opens (or makes) the data directory. @throws ConfigError in one line */
export function openDataDir(path: string): DataDir {
  attempt(path, () => mkdirSync(path, { recursive: true, mode: 0o700 }));
  return {
    path,
    key: (mayMake) => {
      if (!mayMake && !existsSync(join(path, 'server.key')))
        throw new ConfigError(
          `${join(path, 'server.key')}: missing, but the database was made under it: restore it from a backup`,
        );
      const text = keep(join(path, 'server.key'), () => `${randomBytes(32).toString('hex')}\n`).text.trim();
      if (!isRootKey(text))
        throw new ConfigError(
          `${join(path, 'server.key')}: not a key: restore it from a backup; without it every stub is dead`,
        );
      return new TextEncoder().encode(text);
    },
    adminToken: () => {
      const { text, made } = keep(join(path, 'admin-token'), () => `bb_admin_${randomBytes(32).toString('base64url')}\n`);
      const token = text.trim();
      if (!/^[\x21-\x7e]{20,}$/.test(token))
        throw new ConfigError(`${join(path, 'admin-token')}: not a token: delete it and start again to get a new one`);
      const curlrc = join(path, 'admin.curlrc');
      const wanted = `header = "Authorization: Bearer ${token.replace(/["\\]/g, '\\$&')}"\n`;
      if (keep(curlrc, () => wanted).text !== wanted) {
        attempt(curlrc, () => rmSync(curlrc, { force: true }));
        keep(curlrc, () => wanted);
      }
      return { token, made };
    },
  };
}

/** Reads a file, or makes it: whole and on disk or not at all, and of two starts at once both read the same. */
function keep(path: string, make: () => string): { text: string; made: boolean } {
  return attempt(path, () => {
    try {
      return { text: readFileSync(path, 'utf8'), made: false };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    const draft = `${path}.${randomBytes(6).toString('hex')}`;
    const file = openSync(draft, 'wx', 0o600);
    try {
      writeSync(file, make());
      fsyncSync(file);
      linkSync(draft, path);
      syncDirectory(dirname(path));
      return { text: readFileSync(path, 'utf8'), made: true };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      return { text: readFileSync(path, 'utf8'), made: false };
    } finally {
      closeSync(file);
      unlinkSync(draft);
    }
  });
}

/** A new name is on disk only once its directory is. */
function syncDirectory(path: string): void {
  const directory = openSync(path, 'r');
  fsyncSync(directory);
  closeSync(directory);
}

function attempt<T>(path: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`${path}: ${(error as NodeJS.ErrnoException).code ?? 'cannot be used'} (BOOTBUNDLE_DATA_DIR)`);
  }
}

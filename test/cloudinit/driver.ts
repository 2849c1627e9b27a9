import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { CloudInit } from './fetch.ts';

/** Bytes that cloud-init handed out; `text`: as a str (encoded here as UTF-8). A handler gets none at its begin and end. */
interface Bytes {
  text: boolean;
  payload: Buffer;
}

/** A part as the walk over the whole user-data came upon it. */
export interface SeenPart extends Bytes {
  source: 'userdata' | 'vendordata' | 'vendordata2';
  type: string;
  filename: string;
  headers: Record<string, string>;
}

/** A call of `handle_part` of a part handler that came with the document. */
export interface HandlerCall extends Bytes {
  /** cloud-init's own name for the module: `part-handler-000`. */
  handler: string;
  /** `__begin__`, `__end__` or a content type. */
  type: string;
  filename: string | null;
  /** How many arguments it got: 4, 5 or 6 for versions 1, 2 and 3. */
  arguments: number;
}

export interface WrittenFile extends Bytes {
  filename: string;
  executable: boolean;
}

/** What a real cloud-init made of one document. */
export interface Consumed {
  version: string;
  /** What ended the stage, or null. */
  failure: string | null;
  metaData: Record<string, unknown> | null;
  /** In order. */
  parts: SeenPart[];
  handlers: { handler: string; types: string[] }[];
  calls: HandlerCall[];
  /** In the order in which they would run; the same for the next four. */
  scripts: WrittenFile[];
  perBoot: WrittenFile[];
  perInstance: WrittenFile[];
  perOnce: WrittenFile[];
  boothooks: WrittenFile[];
  /** Boothooks as they were called, with what the file held then. */
  hooks: (Bytes & { filename: string })[];
  /** The merged cloud-config, and the file it was written to. */
  config: Record<string, unknown>;
  configText: string;
  requests: { method: string; url: string; headers: Record<string, string>; status: number | null }[];
  /** Every log line from WARNING up. */
  warnings: string[];
  /** What part handlers printed. */
  output: string;
}

/** A long-lived cloud-init: its modules are imported once, each document is consumed on its own. */
export interface Driver {
  version: string;
  /** As user-data of a NoCloud seed folder. */
  consume(userData: Uint8Array | string, options?: { launchIndex?: number }): Promise<Consumed>;
  /** As NoCloud told to fetch everything below a URL: `ds=nocloud;s=URL`. */
  consumeSeed(url: string): Promise<Consumed>;
  close(): Promise<void>;
}

const SCRIPT = fileURLToPath(new URL('drive.py', import.meta.url));

/** Starts drive.py. @throws when it cannot start, with what Python said */
export async function startCloudInit(cloudInit: CloudInit): Promise<Driver> {
  if (!cloudInit.found) throw new Error(cloudInit.reason);
  const child = spawn(cloudInit.python, [SCRIPT], {
    // Nothing of this machine's Python settings or proxies leads it astray.
    env: { PATH: '/usr/bin:/bin', PYTHONPATH: cloudInit.modules, PYTHONUTF8: '1', LC_ALL: 'C.UTF-8' },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    complaint += text;
  });
  child.stdin.on('error', () => {}); // the exit below tells it
  const exited = new Promise<void>((resolve) => {
    child.on('error', (error) => {
      complaint += error.message;
      resolve();
    });
    child.on('close', () => resolve());
  });

  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<Record<string, unknown>> => {
    const line = await lines.next();
    if (!line.done) return JSON.parse(line.value, revive) as Record<string, unknown>;
    await exited;
    throw new Error(
      `cloud-init's driver ended (of no use? remove ${cloudInit.modules.replace(/\/usr\/.*/, '')}): ${complaint}`,
    );
  };

  let turn: Promise<unknown> = Promise.resolve();
  const ask = (request: object): Promise<Consumed> => {
    const answer = turn.then(async () => {
      child.stdin.write(`${JSON.stringify(request)}\n`);
      const consumed = await next();
      if ('driverError' in consumed) throw new Error(`cloud-init's driver failed: ${String(consumed.driverError)}`);
      return consumed as unknown as Consumed;
    });
    turn = answer.catch(() => {});
    return answer;
  };

  const { ready } = await next();
  return {
    version: String(ready),
    consume: (userData, options) => ask({ userData: Buffer.from(userData as Uint8Array).toString('base64'), ...options }),
    consumeSeed: (seed) => ask({ seed }),
    async close() {
      child.stdin.end();
      await exited;
    },
  };
}

/** Payloads come as base64; everything else is as it is. */
function revive(key: string, value: unknown): unknown {
  return key === 'payload' ? Buffer.from(typeof value === 'string' ? value : '', 'base64') : value;
}

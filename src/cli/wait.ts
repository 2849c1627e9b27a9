import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { ConfigError, SETTINGS } from '../config.ts';
import { GOALS } from '../domain/boot.ts';
import { formatDuration, parseDuration } from '../domain/duration.ts';
import type { Command } from './main.ts';

const REACHED = 0;
const MISSED = 1;
const OTHER = 2;
const TIMED_OUT = 3;

/** One call waits so long: a proxy in between cuts what lies still for longer, and so does fetch. Milliseconds. */
const CALL_MS = 50_000;
/** How soon it asks again after a call that could not be answered, milliseconds. */
const AGAIN_MS = 1000;

export const wait: Command = {
  name: 'wait',
  summary: 'wait until machines are ready; exit code 1 when one failed',

  async run(args, env) {
    try {
      const options = readArguments(args);
      if (options === null) {
        process.stdout.write(HELP);
        return REACHED;
      }
      const token = readToken(options, env);
      return await untilThere(options.base ?? env.BOOTBUNDLE_URL ?? DEFAULT_URL, options, token);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      process.stderr.write(`bootbundle: ${error.message}\n`);
      return OTHER;
    }
  },
};

const DEFAULT_URL = 'http://127.0.0.1:8080';

const HELP = `bootbundle wait INSTANCE [--for GOAL] [--timeout TIME] [--url URL]
bootbundle wait --label KEY=VALUE [--label …] [--for GOAL] [--timeout TIME] [--url URL]

Waits until an instance, or all with these labels, are ready. Then it says so, or what happened last.
  --for        delivered, booting or ready [ready]
  --timeout    90s, 10m, 2h [10m]
  --url        where the service is, or BOOTBUNDLE_URL [${DEFAULT_URL}]
  -K, --config FILE   a curlrc with the token, as for curl; else BOOTBUNDLE_TOKEN, or admin-token in the data directory
  --data-dir   that directory, as for serve
Exit code: 0 there, 1 failed or silent, 2 a wrong command or no answer, 3 not in that time.
`;

interface Options {
  path: string;
  goal: string;
  timeoutMs: number;
  base: string | undefined;
  curlrc: string | undefined;
  dataDir: string | undefined;
}

/** Null: help was asked for. @throws ConfigError */
function readArguments(args: readonly string[]): Options | null {
  const { values, positionals } = parse(args);
  if (values.help) return null;
  const labels = values.label ?? [];
  const [instance] = positionals;
  if (positionals.length + Math.min(labels.length, 1) !== 1) throw usage('wait needs one INSTANCE, or --label KEY=VALUE');
  const goal = values.for ?? 'ready';
  if (!(GOALS as readonly string[]).includes(goal)) throw usage(`--for: must be ${GOALS.join(', ')}`);
  const timeoutMs = parseDuration(values.timeout ?? '10m');
  if (timeoutMs === null) throw usage('--timeout: must be a duration such as 90s, 10m or 2h');
  const path =
    instance === undefined
      ? `/api/v1/wait?${labels.map((label) => `label=${encodeURIComponent(label)}&`).join('')}`
      : `/api/v1/instances/${encodeURIComponent(instance)}/wait?`;
  return { path, goal, timeoutMs, base: values.url, curlrc: values.config, dataDir: values['data-dir'] };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        label: { type: 'string', multiple: true },
        for: { type: 'string' },
        timeout: { type: 'string' },
        url: { type: 'string' },
        config: { type: 'string', short: 'K' },
        'data-dir': { type: 'string' },
      },
    });
  } catch (error) {
    throw usage((error as Error).message.split('\n')[0] ?? '');
  }
}

function usage(what: string): ConfigError {
  return new ConfigError(`${what}; see bootbundle wait --help`);
}

/** @throws ConfigError when there is none */
function readToken({ curlrc, dataDir }: Options, env: NodeJS.ProcessEnv): string {
  if (curlrc !== undefined) {
    const [, token] = /^\s*(?:-H|(?:--)?header)?\s*[=:]?\s*"?Authorization:\s*Bearer\s+([^\s"]+)/im.exec(read(curlrc)) ?? [];
    if (token === undefined) throw new ConfigError(`${curlrc}: has no header = "Authorization: Bearer …"`);
    return token;
  }
  if (env.BOOTBUNDLE_TOKEN) return checked(env.BOOTBUNDLE_TOKEN.trim(), 'BOOTBUNDLE_TOKEN');
  const setting = SETTINGS.find((each) => each.name === 'DATA_DIR');
  const file = join(dataDir || env.BOOTBUNDLE_DATA_DIR || setting?.default || '', 'admin-token');
  return checked(read(file, '; set BOOTBUNDLE_TOKEN, or say --data-dir or -K').trim(), file);
}

function read(file: string, hint = ''): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`${file}: cannot be read (${(error as NodeJS.ErrnoException).code})${hint}`);
  }
}

function checked(token: string, where: string): string {
  if (!/^[\x21-\x7e]+$/.test(token)) throw new ConfigError(`${where}: not a token`);
  return token;
}

/** Call by call, also over a restart of the service. @returns the exit code */
async function untilThere(base: string, { path, goal, timeoutMs }: Options, token: string): Promise<number> {
  if (!URL.canParse(base) || !/^https?:/.test(base)) throw usage('--url: must be an http or https URL');
  const until = performance.now() + timeoutMs;
  let told = false;
  for (;;) {
    const left = Math.max(until - performance.now(), 0);
    const seconds = Math.max(Math.ceil(Math.min(left, CALL_MS) / 1000), 1);
    const url = `${base.replace(/\/+$/, '')}${path}for=${goal}&format=text&timeout=${seconds}s`;
    const answer = await ask(url, token, seconds * 1000 + AGAIN_MS * 10);
    const over = performance.now() >= until;
    switch (answer.status) {
      case 200:
        process.stdout.write(answer.text);
        return REACHED;
      case 409:
        process.stderr.write(answer.text);
        return MISSED;
      case 504:
        if (!over) continue;
        process.stderr.write(answer.text);
        return TIMED_OUT;
      // Nobody there, or nobody who can answer now.
      case null:
      case 502:
      case 503:
        if (over) throw new ConfigError(`${base}: no answer in ${formatDuration(timeoutMs)} (${answer.text})`);
        if (!told) process.stderr.write(`bootbundle: ${base}: no answer (${answer.text}); asking again\n`);
        told = true;
        await sleep(Math.min(AGAIN_MS, until - performance.now()));
        continue;
      default:
        throw new ConfigError(`${base}: ${answer.status}: ${answer.text}`);
    }
  }
}

/** The answer's text; of a problem its detail. */
async function ask(url: string, token: string, milliseconds: number): Promise<{ status: number | null; text: string }> {
  try {
    const headers = { authorization: `Bearer ${token}` };
    const answer = await fetch(url, { headers, redirect: 'error', signal: AbortSignal.timeout(milliseconds) });
    const body = await answer.text();
    const problem = answer.headers.get('content-type')?.startsWith('application/problem+json');
    return { status: answer.status, text: problem ? String(JSON.parse(body).detail) : body };
  } catch (error) {
    const { cause, message } = error as Error & { cause?: { code?: string } };
    return { status: null, text: cause?.code ?? message };
  }
}

import { ConfigError, flagOf, readConfig, SETTINGS } from '../config.ts';
import type { Command } from './main.ts';

/** How long requests under way get to end after SIGTERM, before the process ends all the same. */
const DRAIN_MS = 10_000;

export const serve: Command = {
  name: 'serve',
  summary: 'serve machines and operators',

  async run(args, env) {
    if (args.includes('--help') || args.includes('-h')) {
      process.stdout.write(help());
      return 0;
    }
    const config = readConfig(env, readFlags('serve', args));
    // The database holds scripts and what is secret in them: for its owner's eyes only, whatever the directory is.
    process.umask(0o077);
    const { start } = await import('../main.ts');
    const running = await start(config);
    const stopped = untilStopped(running.stop);
    // The log goes to standard output; what a person at a terminal wants to know goes beside it.
    process.stderr.write(
      `bootbundle serves ${running.url}/api/v1 (docs: ${running.url}/docs); machines fetch from ${running.publicUrl}\n`,
    );
    if (running.selfSigned) process.stderr.write(`the certificate is self-signed: curl needs --cacert ${running.selfSigned}\n`);
    if (running.adminTokenFile)
      process.stderr.write(
        `made an admin token: ${running.adminTokenFile} (for curl: -K ${running.adminTokenFile.replace(/admin-token$/, 'admin.curlrc')})\n`,
      );
    return stopped;
  },
};

function help(): string {
  const lines = SETTINGS.map((setting) => {
    const flag = 'secret' in setting ? '(environment only)' : `--${flagOf(setting.name)}`;
    const fallback = 'default' in setting ? ` [${setting.default}]` : '';
    return `  BOOTBUNDLE_${setting.name.padEnd(17)} ${flag.padEnd(22)} ${setting.help}${fallback}\n`;
  });
  return `bootbundle serve [--FLAG VALUE …]\n\n${lines.join('')}\nA variable that is a secret may be given as a file, too: …_FILE.\n`;
}

/** Reads `--name=value` and `--name value`; `command` is for errors. @throws ConfigError */
export function readFlags(command: string, args: readonly string[]): Map<string, string> {
  const flags = new Map<string, string>();
  for (let at = 0; at < args.length; at++) {
    const [, name = '', inline] = /^--([a-z-]+)(?:=(.*))?$/s.exec(args[at] ?? '') ?? [];
    if (name === '')
      throw new ConfigError(`${command} takes flags only, not ${JSON.stringify(args[at])}; see bootbundle ${command} --help`);
    const value = inline ?? args[++at];
    if (value === undefined) throw new ConfigError(`--${name}: needs a value`);
    flags.set(name, value);
  }
  return flags;
}

/** Resolves with the exit code once a signal came and what was under way has ended. */
function untilStopped(stop: () => Promise<void>): Promise<number> {
  return new Promise((resolve) => {
    const end = () => {
      setTimeout(() => process.exit(1), DRAIN_MS).unref();
      stop().then(
        () => resolve(0),
        () => resolve(1),
      );
    };
    process.once('SIGTERM', end);
    process.once('SIGINT', end);
  });
}

import { ConfigError } from '../config.ts';
import { BootbundleError } from '../domain/errors.ts';
import { explain } from './explain.ts';
import { lint } from './lint.ts';
import { openapi } from './openapi.ts';
import { reseal } from './reseal.ts';
import { schema } from './schema.ts';
import { serve } from './serve.ts';
import { token } from './token.ts';
import { wait } from './wait.ts';

/** A command: its arguments and the environment → exit code. */
export interface Command {
  name: string;
  summary: string;
  run(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number>;
}

const COMMANDS: readonly Command[] = [serve, lint, explain, wait, schema, token, reseal, openapi];

/** Runs the command line. What an operator can put right is said in one line; anything else shows where it came from. */
export async function main(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const [name = '--help', ...rest] = args;
  if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(
      `bootbundle COMMAND [--FLAG …]\n\n${COMMANDS.map((each) => `  ${each.name.padEnd(10)}${each.summary}\n`).join('')}\n`,
    );
    return 0;
  }
  const command = COMMANDS.find((each) => each.name === name);
  if (!command) {
    process.stderr.write(`bootbundle: no command ${JSON.stringify(name)}; see bootbundle --help\n`);
    return 2;
  }
  try {
    return await command.run(rest, env);
  } catch (error) {
    if (!(error instanceof ConfigError || error instanceof BootbundleError)) throw error;
    process.stderr.write(`bootbundle: ${error.message}\n`);
    return 1;
  }
}

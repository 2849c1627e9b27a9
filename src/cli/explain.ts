import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { ConfigError } from '../config.ts';
import { BootbundleError } from '../domain/errors.ts';
import type { ClientVersion, Explanation } from '../explain/explanation.ts';
import { readInput } from './lint.ts';
import type { Command } from './main.ts';

const CLIENTS: readonly ClientVersion[] = ['22.4', '25.1', '26.2'];

export const explain: Command = {
  name: 'explain',
  summary: 'tell what cloud-init makes of user-data; exit code 1 when it loses something',

  async run(args) {
    const { values, positionals: files } = readArguments(args);
    if (values.help) {
      process.stdout.write(HELP);
      return 0;
    }
    if (files.length === 0) throw new ConfigError('explain needs a FILE; see bootbundle explain --help');
    const client = CLIENTS.find((each) => each === values.client);
    if (!client) throw new ConfigError(`--client is ${CLIENTS.join(', ')}`);
    if (values.format !== 'text' && values.format !== 'json') throw new ConfigError('--format is text or json');

    const { explain, formatExplanation } = await import('../explain/explain.ts');
    const explained: { file: string; explanation: Explanation }[] = [];
    for (const file of files) {
      const document = readInput(file);
      const explanation = await explain(document, { client }).catch((error) => {
        throw error instanceof BootbundleError ? new ConfigError(`${file}: ${error.message}`) : error;
      });
      explained.push({ file: file === '-' ? 'stdin' : basename(file), explanation });
    }
    if (values.format === 'json') process.stdout.write(`${JSON.stringify(explained, null, 2)}\n`);
    else {
      const title = (file: string) => (explained.length > 1 ? `== ${file}\n` : '');
      process.stdout.write(
        explained.map(({ file, explanation }) => title(file) + printable(formatExplanation(explanation))).join('\n'),
      );
    }
    return explained.some(({ explanation }) => losesSomething(explanation)) ? 1 : 0;
  },
};

const HELP = `bootbundle explain [--format=text|json] [--client=VERSION] FILE…

Tells what a first boot of cloud-init makes of each FILE as user-data: a MIME multipart made with whatever tool, a cloud-config,
a script …; - is standard input. Nothing is run and nothing is fetched.
  --format   text (the default), or json: a list of {file, explanation}
  --client   the cloud-init it speaks of: ${CLIENTS.join(', ')} (default 25.1)
Exit code: 0 when all is taken (there may be warnings), 1 when something is lost or a file cannot be read.
`;

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        format: { type: 'string', default: 'text' },
        client: { type: 'string', default: '25.1' },
      },
    });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}; see bootbundle explain --help`);
  }
}

function losesSomething({ failure, warnings }: Explanation): boolean {
  return failure !== null || warnings.some(({ severity }) => severity === 'error');
}

/** A document's names and values may hold what steers a terminal. */
function printable(text: string): string {
  return text.replace(/(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}

import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { ConfigError, readConfig } from '../config.ts';
import type { Command } from './main.ts';

export const lint: Command = {
  name: 'lint',
  summary: 'inspect files as an upload would be; exit code 1 when one has an error',

  async run(args, env) {
    const { values, positionals: files } = readArguments(args);
    if (values.help) {
      process.stdout.write(HELP);
      return 0;
    }
    if (files.length === 0) throw new ConfigError('lint needs a FILE; see bootbundle lint --help');
    const flags = new Map<string, string>();
    for (const name of ['data-dir', 'cloud-init-schema'] as const) if (values[name]) flags.set(name, values[name]);
    const config = readConfig(env, flags);

    const { countFindings, formatLint, lint } = await import('../service/lint.ts');
    const { createSchemaFinder } = await import('../schema-files.ts');
    const onTrouble = (error: unknown, what: string) => {
      process.stderr.write(`bootbundle: ${what}: ${error instanceof Error ? error.message : error}\n`);
    };
    const schemas = await createSchemaFinder({ dataDir: config.dataDir, file: config.cloudInitSchema, onTrouble });
    const { type, template } = values;
    const options = { ...(type === undefined ? {} : { type }), ...(template ? { template } : {}) };
    const uploads = files.map((file) => ({
      filename: file === '-' ? 'stdin' : basename(file),
      body: readInput(file),
      ...options,
    }));
    const report = await lint(uploads, await schemas());
    const counts = countFindings(report);
    process.stdout.write(values.json ? `${JSON.stringify({ ...report, ...counts }, null, 2)}\n` : formatLint(report));
    return counts.errors > 0 ? 1 : 0;
  },
};

const HELP = `bootbundle lint [--json] [--type TYPE] [--template] FILE…

Inspects files as an upload would be; - is standard input. A MIME multipart is inspected part by part.
  --json        the findings as JSON
  --type TYPE   what the files are, where their first line does not say it
  --template    the files are templates
  --data-dir, --cloud-init-schema   where the schema is found, as for serve
Exit code: 0 without errors (there may be warnings), 1 with errors or when a file cannot be read.
`;

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        json: { type: 'boolean' },
        template: { type: 'boolean' },
        type: { type: 'string' },
        'data-dir': { type: 'string' },
        'cloud-init-schema': { type: 'string' },
      },
    });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}; see bootbundle lint --help`);
  }
}

/** Reads a file, or (`-`) standard input. @throws ConfigError in one line */
export function readInput(file: string): Buffer {
  try {
    return readFileSync(file === '-' ? 0 : file);
  } catch (error) {
    throw new ConfigError(`${file}: cannot be read (${(error as NodeJS.ErrnoException).code})`);
  }
}

import { parseArgs } from 'node:util';
import { ConfigError, SETTINGS } from '../config.ts';
import type { Command } from './main.ts';

export const schema: Command = {
  name: 'schema',
  summary: "schema update: fetch cloud-init's own schema, which judges cloud-configs",

  async run(args, env) {
    const { values, positionals } = readArguments(args);
    if (values.help) {
      process.stdout.write(HELP);
      return 0;
    }
    if (positionals.length !== 1 || positionals[0] !== 'update')
      throw new ConfigError('schema has one command: bootbundle schema update; see bootbundle schema --help');
    const { UPSTREAM, updateSchema } = await import('../schema-files.ts');
    const setting = SETTINGS.find((each) => each.name === 'DATA_DIR');
    const dataDir = values['data-dir'] || env.BOOTBUNDLE_DATA_DIR || setting?.default || '';
    const today = new Date().toISOString().slice(0, 10);
    const { file, source, network } = await updateSchema(dataDir, values.from || UPSTREAM, today);
    const what = network ? 'cloud-config and network-config' : 'cloud-config';
    process.stdout.write(`installed ${file}: cloud-init's schema of ${what} (${source})\n`);
    return 0;
  },
};

const HELP = `bootbundle schema update [--from FILE|FOLDER|URL] [--data-dir DIR]

Puts cloud-init's own schemas into the data directory; a service that runs takes them up at once. Without --from: upstream's.
  --from       a schema-cloud-config-v1.json, or a folder with it and with those of network-config (a URL of a folder ends with /)
  --data-dir   the data directory, as for serve
`;

function readArguments(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: { help: { type: 'boolean', short: 'h' }, from: { type: 'string' }, 'data-dir': { type: 'string' } },
    });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message.split('\n')[0]}; see bootbundle schema --help`);
  }
}

import { readConfig } from '../config.ts';
import type { Command } from './main.ts';
import { readFlags } from './serve.ts';

export const reseal: Command = {
  name: 'reseal',
  summary: 'seal every secret under the newest key of BOOTBUNDLE_KEY=NEW,OLD; stubs stay as they are',

  async run(args, env) {
    if (args.includes('--help') || args.includes('-h')) {
      process.stdout.write(HELP);
      return 0;
    }
    const config = readConfig(env, readFlags('reseal', args));
    process.umask(0o077);
    const { reseal: run } = await import('../main.ts');
    const { resealed, already, unreadable } = await run(config);
    process.stdout.write(`${resealed} secrets sealed under the newest key, ${already} were already\n`);
    if (unreadable > 0)
      process.stdout.write(
        `${unreadable} old values open with no key of the list, so deliveries that held them cannot be replayed\n`,
      );
    return 0;
  },
};

const HELP = `bootbundle reseal [--data-dir DIR]

Seals every secret under the newest key. May run while the service does. To change the key:
  1. BOOTBUNDLE_KEY=NEW,OLD for every server (OLD is what server.key holds, if it was not set before), then restart
  2. bootbundle reseal, with the same BOOTBUNDLE_KEY
  3. keep OLD in the list for as long as stubs made under it are to work
`;

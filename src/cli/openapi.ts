import type { Command } from './main.ts';

export const openapi: Command = {
  name: 'openapi',
  summary: 'print the OpenAPI document',

  async run() {
    const { describeApi } = await import('../main.ts');
    process.stdout.write(`${JSON.stringify(await describeApi(), null, 2)}\n`);
    return 0;
  },
};

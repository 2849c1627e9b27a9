import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Emulation, emulate } from '../../src/explain/explain.ts';
import { readYaml } from '../../src/inspect/yaml.ts';
import { type TestDocument, wholesome } from './documents.ts';
import { kindOf, kinds, LINES } from './explain-told.ts';
import { bootRig, skipWithoutRig } from './rig.ts';

const EACH = 5;
const CODES = LINES.map(([, code]) => code);

/** `explain` against whole first boots, four stages: what ran, what was merged, who was called, what was warned of. */
describe('explain and whole boots of a real cloud-init', { skip: skipWithoutRig(), concurrency: 2 }, () => {
  for (const [suite, client, seed] of [
    ['bookworm', '22.4', 1],
    ['trixie', '25.1', 2],
  ] as const)
    it(`${suite}: agree on ${EACH} documents`, { concurrency: 2 }, async (t) => {
      let number = 0;
      for (const document of fc.sample(wholesome, { seed, numRuns: 1000 })) {
        const emulation = await emulate(document.bytes, { client });
        if (!doesMuch(emulation)) continue;
        await t.test(`document ${++number}`, () => boot(suite, document, emulation));
        if (number === EACH) break;
      }
      assert.equal(number, EACH);
    });

  for (const [suite, client] of [
    ['bookworm', '22.4'],
    ['trixie', '25.1'],
  ] as const)
    it(`${suite}: agree on keys that Python cannot sort`, async () => {
      const bytes = Buffer.from('#cloud-config\nx:\n  on: 1\n  b: 2\n');
      const emulation = await emulate(bytes, { client });
      assert.equal(emulation.explanation.warnings.length, client === '22.4' ? 0 : 1);
      await boot(suite, { bytes }, emulation);
    });

  async function boot(suite: string, { bytes }: Pick<TestDocument, 'bytes'>, emulation: Emulation): Promise<void> {
    const work = await mkdtemp(join(tmpdir(), 'bootbundle-explain-'));
    try {
      await writeFile(join(work, 'user-data'), bytes);
      const out = join(work, 'out');
      await bootRig(join(work, 'user-data'), out, { SUITE: suite, RIG_DS: 'nocloud' });
      const read = (name: string) => readFile(join(out, name), 'utf8');
      const { explanation } = emulation;

      const executed = JSON.parse(await read('executed.json')) as { command: string }[];
      const ran = executed.flatMap(
        ({ command }) => /\/(boothooks|per-[a-z]+|scripts)\/([^/]+)$/.exec(command)?.slice(1).join('/') ?? [],
      );
      assert.deepEqual(
        ran,
        explanation.scripts.map(({ folder, filename }) => `${folder}/${filename}`),
      );
      const config = await read('instance/cloud-config.txt').catch(() => '');
      assert.deepEqual(readYaml(config)[0] ?? {}, readYaml(explanation.config?.yaml ?? '{}')[0]);
      const called = (JSON.parse(await read('parts.json')) as { what: string }[]).flatMap(({ what }) => {
        const [, handler = '', call = ''] = /^Calling handler (.*) \((.*), \d\) with frequency/.exec(what) ?? [];
        return call === '' || call.startsWith('__') ? [] : `${/part-handler-\d+/.exec(handler)?.[0] ?? 'cloud-init'}: ${call}`;
      });
      assert.deepEqual(called, callsOf(emulation));
      const warned = (await read('warnings.txt')).split('\n').map(kindOf);
      assert.deepEqual(
        kinds(warned.filter(([code]) => CODES.includes(code))),
        kinds(explanation.warnings.filter(({ logged }) => logged).map(({ code, part }) => [code, part])),
      );
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
});

/** Worth a boot, and harmless in it: a package to install would be looked for on the network. */
function doesMuch({ explanation }: Emulation): boolean {
  const { failure, scripts, config, handlers, warnings, includes } = explanation;
  const keys = (config?.keys ?? []).map(({ key }) => key);
  const called =
    handlers.some(({ takes }) => takes.length > 0) && !warnings.some(({ code }) => code === 'handler_never_called');
  const effects = [scripts.length > 0, keys.length > 1, called].filter(Boolean);
  return (
    failure === null &&
    includes.length === 0 &&
    effects.length > 1 &&
    !keys.some((key) => key === 'packages' || key === 'runcmd')
  );
}

function callsOf({ explanation, handled }: Emulation): string[] {
  const registered = explanation.handlers.filter((handler) => handler.registered).map(({ filename }) => filename);
  return handled.parts.flatMap(({ filename, type, takenBy }) => {
    if (takenBy.kind === 'nobody' || takenBy.kind === 'part-handler') return [];
    const handler =
      takenBy.kind === 'handler'
        ? handled.calls.find((call) => call.filename === filename && call.type === type)?.module
        : 'cloud-init';
    assert.ok(takenBy.kind !== 'handler' || registered.includes(takenBy.filename));
    return `${handler}: ${type}, ${filename}`;
  });
}

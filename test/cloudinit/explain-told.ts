import type { Emulation } from '../../src/explain/explain.ts';
import { runOrder } from '../../src/explain/explain.ts';
import type { Decoded } from '../../src/explain/message.ts';
import { readYaml } from '../../src/inspect/yaml.ts';
import type { Consumed } from './driver.ts';

/** What both sides tell, in the same words. */
export type Told = Record<string, unknown>;

const show = (payload: { toString(encoding: 'latin1'): string }) => payload.toString('latin1');
const bytesOf = (payload: Decoded): Buffer => {
  if (payload.kind === 'text') return Buffer.concat(Array.from(payload.text, byteOf));
  return payload.kind === 'bytes' ? Buffer.from(payload.bytes) : Buffer.alloc(0);
};
/** A lone surrogate stands for a byte that was not UTF-8. */
const byteOf = (char: string) => (char.isWellFormed() ? Buffer.from(char) : Buffer.from([char.charCodeAt(0) - 0xdc00]));

export function tellExplained({ explanation, handled }: Emulation): Told {
  const { scripts } = handled;
  const files = (folder: string) =>
    runOrder(scripts.filter((script) => script.folder === folder)).map(
      ({ filename, content }) => `${filename}: ${show(content)}`,
    );
  const registered = explanation.handlers.filter((handler) => handler.registered);
  const hooks = scripts.filter(({ folder }) => folder === 'boothooks');
  const onDisk = new Map(hooks.map(({ filename, content }) => [filename, `${filename}: ${show(content)}`]));
  return {
    failure: explanation.failure !== null,
    parts: handled.parts
      .map(
        ({ filename, type, payload }) =>
          `${filename} ${type} ${payload.kind === 'text' ? 'str' : ''} ${show(bytesOf(payload))}`,
      )
      .filter((part) => !isNothing(part)),
    handlers: registered.map(({ types }, index) => `${moduleName(index)}: ${[...new Set(types)].sort().join(' ')}`),
    calls: handled.calls.map(
      ({ module, type, filename, payload }) => `${module} ${type} ${filename} ${show(bytesOf(payload))}`,
    ),
    scripts: files('scripts'),
    perBoot: files('per-boot'),
    perInstance: files('per-instance'),
    perOnce: files('per-once'),
    boothooks: [...onDisk.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, told]) => told),
    hooks: files('boothooks'),
    config: handled.unrendered.length > 0 ? 'not rendered' : readYaml(explanation.config?.yaml ?? '{}')[0],
    warnings: kinds(
      explanation.warnings
        // After the parts: the driver ends before that.
        .filter(({ logged, code }) => logged && code !== 'odd_key')
        .map(({ code, part }) => [code === 'config_unreadable' ? 'bad_yaml' : code, part]),
    ),
  };
}

export function tellSeen(seen: Consumed, { handled }: Emulation): Told {
  const files = (written: { filename: string; payload: Buffer }[]) =>
    written.map(({ filename, payload }) => `${filename}: ${show(payload)}`);
  return {
    failure: seen.failure !== null,
    parts: seen.parts
      .map(({ filename, type, text, payload }) => `${filename} ${type} ${text ? 'str' : ''} ${show(payload)}`)
      .filter((part) => !isNothing(part)),
    handlers: seen.handlers.map(({ handler, types }) => `${handler}: ${types.join(' ')}`),
    calls: seen.calls
      .filter(({ type }) => !type.startsWith('__'))
      .map(({ handler, type, filename, payload }) => `${handler} ${type} ${filename} ${show(payload)}`),
    scripts: files(seen.scripts),
    perBoot: files(seen.perBoot),
    perInstance: files(seen.perInstance),
    perOnce: files(seen.perOnce),
    boothooks: files(seen.boothooks),
    hooks: files(seen.hooks),
    config: handled.unrendered.length > 0 ? 'not rendered' : seen.config,
    warnings: kinds(seen.warnings.map(kindOf)),
  };
}

/** What an empty include brings. */
const isNothing = (part: string) => /^part-\d+ text\/x-not-multipart str $/.test(part);
const moduleName = (index: number) => `part-handler-${String(index).padStart(3, '0')}`;

/** cloud-init's log lines and our codes; those with a group name the part. */
export const LINES: readonly [RegExp, string][] = [
  [/: Failed loading yaml blob/, 'bad_yaml'],
  [/: Failed at merging in cloud config part from ([^:]*)/, 'merge_failed'],
  [/: Unhandled non-multipart/, 'unhandled_document'],
  [/: Unhandled unknown content-type/, 'unhandled_part'],
  [/: Failed calling handler/, 'handler_failed'],
  [/: Failed at registering python file/, 'handler_not_registered'],
  [/ has an unknown frequency/, 'handler_frequency'],
  [/: Consuming user data failed/, 'odd_key'],
  [/: Ignoring jinja template for (.*)\. Could not find/s, 'jinja_ignored'],
];
const WITH_PART = ['merge_failed', 'jinja_ignored'];

export function kindOf(line: string): [code: string, part: string | undefined] {
  for (const [pattern, code] of LINES) {
    const match = pattern.exec(line);
    if (match) return [code, match[1]];
  }
  return [line, undefined];
}

/** Each kind once, in the order of its first. */
export function kinds(remarks: readonly (readonly [code: string, part: string | undefined])[]): string[] {
  return [...new Set(remarks.map(([code, part]) => (WITH_PART.includes(code) ? `${code} ${part?.split(':')[0]}` : code)))];
}

import { LIMITS } from '../domain/limits.ts';
import { yamlReader } from './cloud-config.ts';
import type {
  ExplainedPart,
  ExplainedScript,
  ExplainOptions,
  Explanation,
  Remark,
  ScriptFolder,
  Taker,
} from './explanation.ts';
import { type Handled, handle, type WalkedPart, type WrittenScript } from './handle.ts';
import { type Decoded, exactHeaderOf, headerOf, type Message } from './message.ts';
import { collectRemarks, type Remarks } from './remarks.ts';
import { type StageFailure, unpack, type Wrapper } from './unpack.ts';
import { versionDifferences } from './versions.ts';

export type { ClientVersion, ExplainOptions, Explanation } from './explanation.ts';
export { formatExplanation } from './text.ts';

/** When a first boot runs what: boothooks while the document is read, the others in the final stage (cloud.cfg). */
const RUN_ORDER: readonly ScriptFolder[] = ['boothooks', 'per-once', 'per-boot', 'per-instance', 'scripts'];
const NOTHING: Handled = {
  parts: [],
  handlers: [],
  calls: [],
  scripts: [],
  overwrites: [],
  config: null,
  failure: null,
  unrendered: [],
};

/** An explanation, and the payloads it is made from: what a test compares with the real client. */
export interface Emulation {
  explanation: Explanation;
  handled: Handled;
}

/**
 * Tells what a first boot of cloud-init makes of a document: what `datasource.get_userdata` and `consume_data` do to it, without
 * running anything, fetching an include or rendering Jinja.
 * @throws too_large `mime_limit`, `gzip_bomb`
 */
export async function explain(document: Uint8Array, options: ExplainOptions = {}): Promise<Explanation> {
  return (await emulate(document, options)).explanation;
}

/** As `explain`. */
export async function emulate(document: Uint8Array, options: ExplainOptions = {}): Promise<Emulation> {
  const { origins, client = '25.1', launchIndex = null } = options;
  const origin = ({ source }: Message) => (source.filename === null ? null : (origins?.get(source.filename) ?? null));
  const remarks = collectRemarks();
  const yaml = yamlReader(client, remarks);
  const unpacked = unpack(document, client, yaml, remarks);
  const handled = unpacked.failure ? NOTHING : await handle(unpacked.messages, { client, yaml, origin, launchIndex }, remarks);
  const failure = unpacked.failure ?? handled.failure;
  for (const { from, url } of unpacked.includes)
    remarks.note(
      'warning',
      'include_not_followed',
      from,
      `what the machine fetches is not looked at here (${describeUrl(url)})`,
    );
  if (launchIndex === null) noteLaunchIndexes(handled.parts, remarks.note);

  const explanation: Explanation = {
    client,
    size: {
      bytes: document.length,
      novaLimit: LIMITS.novaUserDataBytes,
      fitsNova: document.length <= LIMITS.novaUserDataBytes,
    },
    isMime: unpacked.isMime,
    failure: failure === null ? null : toRemark(failure),
    parts: listParts(handled.parts, unpacked.wrappers, origin),
    handlers: handled.handlers,
    scripts: runOrder(handled.scripts).map(({ filename, folder, from, origin, content }) => {
      return { filename, folder, from, origin, size: content.length } satisfies ExplainedScript;
    }),
    overwrites: handled.overwrites,
    config: handled.config,
    unhandled: handled.parts.filter(isUnhandled).map(({ filename }) => filename),
    includes: unpacked.includes,
    warnings: remarks.all(),
    versions: [],
  };
  explanation.versions = versionDifferences(explanation, handled.parts);
  return { explanation, handled };
}

/** Scripts in the order in which they run; of several of one name only the last is there, boothooks aside. */
export function runOrder(scripts: readonly WrittenScript[]): WrittenScript[] {
  return RUN_ORDER.flatMap((folder) => {
    const own = scripts.filter((script) => script.folder === folder);
    if (folder === 'boothooks') return own;
    const files = new Map(own.map((script) => [script.filename, script]));
    return [...files.values()].sort((a, b) => (a.filename < b.filename ? -1 : 1));
  });
}

function listParts(
  parts: readonly WalkedPart[],
  wrappers: readonly Wrapper[],
  origin: (message: Message) => string | null,
): ExplainedPart[] {
  const list = parts.map((part) => describe(part.message, { ...part, size: sizeOf(part.payload) }, origin));
  // From behind, so that the positions still hold.
  for (const wrapper of wrappers.toReversed()) {
    const { message, position, kind } = wrapper;
    list.splice(position, 0, describe(message, { ...wrapper, takenBy: { kind } }, origin));
  }
  return list;
}

function describe(
  message: Message,
  { filename, type, size, takenBy }: { filename: string; type: string; size: number; takenBy: Taker },
  origin: (message: Message) => string | null,
): ExplainedPart {
  const { source } = message;
  return {
    filename,
    type,
    saidType: source.type,
    encoding: source.encoding,
    size,
    merge: exactHeaderOf(message, 'Merge-Type') || exactHeaderOf(message, 'X-Merge-Type') || null,
    launchIndex: headerOf(message, 'Launch-Index'),
    origin: origin(message),
    takenBy,
  };
}

function sizeOf(payload: Decoded): number {
  if (payload.kind === 'text') return Buffer.byteLength(payload.text);
  return payload.kind === 'bytes' ? payload.bytes.length : 0;
}

function isUnhandled({ takenBy, payload }: WalkedPart): boolean {
  return takenBy.kind === 'nobody' && sizeOf(payload) > 0;
}

function noteLaunchIndexes(parts: readonly WalkedPart[], note: Remarks['note']): void {
  for (const { filename, message } of parts)
    if (headerOf(message, 'Launch-Index') !== null)
      note(
        'warning',
        'launch_index',
        filename,
        'the part is for one launch index; OpenStack tells none, so every machine takes it',
      );
}

function toRemark({ code, part, message }: StageFailure): Remark {
  return { severity: 'error', code, ...(part === undefined ? {} : { part }), message, logged: true };
}

/** Only where to: a URL can be a secret. */
function describeUrl(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : 'no URL';
}

import { trimStart } from '../inspect/sniff.ts';
import { type ConfigMerger, configMerger, type YamlReader } from './cloud-config.ts';
import type { ClientVersion, ExplainedHandler, MergedConfig, Overwrite, ScriptFolder, Taker } from './explanation.ts';
import {
  type Decoded,
  decodePayload,
  encodingOf,
  exactHeaderOf,
  filenameOf,
  headerOf,
  isContainer,
  type Message,
  typeOf,
  walk,
} from './message.ts';
import { type HandlerSource, readHandler } from './part-handler.ts';
import { encodeStrict, strip, toInteger } from './python.ts';
import type { Remarks } from './remarks.ts';
import { partName, StageFailure, sniff } from './unpack.ts';

/** A part as the walk over the whole document comes upon it (handlers/__init__.py, `walk`). */
export interface WalkedPart {
  filename: string;
  type: string;
  payload: Decoded;
  message: Message;
  takenBy: Taker;
}

/** A script as written; for boothooks, as run. */
export interface WrittenScript {
  folder: ScriptFolder;
  filename: string;
  content: Buffer;
  from: string;
  origin: string | null;
}

/** A call of a part handler's `handle_part`, begin and end aside. */
export interface HandlerCall {
  /** As cloud-init names the module, `part-handler-000`. */
  module: string;
  type: string;
  filename: string;
  payload: Decoded;
}

export interface Handled {
  parts: WalkedPart[];
  handlers: ExplainedHandler[];
  calls: HandlerCall[];
  /** In the order in which they are written. */
  scripts: WrittenScript[];
  overwrites: Overwrite[];
  config: MergedConfig | null;
  failure: StageFailure | null;
  /** Parts that only the machine can render. */
  unrendered: string[];
}

const SCRIPT_FOLDERS: ReadonlyMap<string, ScriptFolder> = new Map([
  ['text/x-shellscript', 'scripts'],
  ['text/x-shellscript-per-boot', 'per-boot'],
  ['text/x-shellscript-per-instance', 'per-instance'],
  ['text/x-shellscript-per-once', 'per-once'],
  ['text/cloud-boothook', 'boothooks'],
]);
const CONFIG_TYPES = ['text/cloud-config', 'text/cloud-config-jsonp'];
const BOOTHOOK = '#cloud-boothook';
const NAME_MAX = 255;

/** What Python decodes, and fails to where there is nothing. */
const ENCODED = /^(?:base64|quoted-printable|(?:x-)?uu(?:encode|e)|x-uue)$/;

const MESSAGES = {
  nothingEncoded: 'an entry of an archive has an encoding and no content: cloud-init gives up this part and all that follow',
  undecodable: 'the part handler is not UTF-8 text: cloud-init gives up this part and all that follow',
  broken: 'Python cannot import the part handler, so it is not registered',
  noListTypes: 'the part handler has no list_types, so it is not registered',
  shadowed: 'what Python runs in place of the part handler has no list_types, so it is not registered',
  noHandlePart: 'the part handler has no handle_part',
  badFrequency: 'the part handler states a frequency that cloud-init does not know, so it is not called',
  neverCalled: 'cloud-init registers the part handler but never calls it: state no frequency',
  unknownTypes: 'which types this part handler takes cannot be read from its source: return a literal list from list_types',
  handlerOfHandlers: 'cloud-init never gives a text/part-handler to a part handler',
  notWritten: 'part handlers take over every type of cloud-config, so cloud-init writes none of it',
  noText: 'the script is not UTF-8 text, so it is not written',
  noName: 'nothing of its name that can be a file name is left, so the script is not written',
  noTemplate: 'its very first line is not "## template: jinja", so it is dropped',
  notRendered: 'only the machine can render this Jinja template: what comes of it is not looked at',
  noJinja: 'cloud-init renders Jinja only in cloud-configs and shell scripts (from 25.1 in boothooks, too), so this is dropped',
  unknownDocument:
    'cloud-init does not know what the document is, and drops it: begin it with a first line such as #cloud-config',
} as const;

/** What the walk depends on. */
export interface HandleOptions {
  client: ClientVersion;
  yaml: YamlReader;
  origin: (message: Message) => string | null;
  launchIndex: number | null;
}

/** Hands the parts to cloud-init's own handlers and to the document's (stages.py, `_do_handlers`). */
export async function handle(messages: readonly Message[], options: HandleOptions, remarks: Remarks): Promise<Handled> {
  const walker = new Walker(options, remarks);
  for (const message of messages.flatMap((each) => select(each, options.launchIndex))) {
    for (const part of walk(message)) {
      if (isContainer(part)) continue;
      try {
        await walker.take(part);
      } catch (error) {
        if (!(error instanceof StageFailure)) throw error;
        return walker.finish(error);
      }
    }
  }
  return walker.finish(null);
}

/** filters/launch_index.py: messages for another machine are dropped, where the datasource tells a machine's index. */
function select(message: Message, wanted: number | null): Message[] {
  if (wanted === null) return [message];
  const index = headerOf(message, 'Launch-Index');
  if (index !== null && toInteger(index) !== String(wanted)) return [];
  if (message.payload.kind !== 'messages') return [message];
  const messages = message.payload.messages.flatMap((child) => select(child, wanted));
  return [{ ...message, payload: { kind: 'messages', messages } }];
}

/** A part handler of the document, once Python has imported it. */
interface Module {
  source: HandlerSource;
  name: string;
  entry: ExplainedHandler;
}

class Walker {
  readonly parts: WalkedPart[] = [];
  readonly #handlers: ExplainedHandler[] = [];
  readonly #calls: HandlerCall[] = [];
  readonly #scripts: WrittenScript[] = [];
  /** Which part a file on the machine's disk comes from. */
  readonly #files = new Map<string, string>();
  readonly #overwrites: Overwrite[] = [];
  readonly #unrendered: string[] = [];
  readonly #options: HandleOptions;
  readonly #remarks: Remarks;
  readonly #config: ConfigMerger;
  /** Types that handlers of the document have taken over. */
  readonly #registered = new Map<string, Module>();
  /** A module of the name that the next handler will get: Python does not import it again. */
  #stuck: Module | null = null;
  #count = 0;

  constructor(options: HandleOptions, remarks: Remarks) {
    this.#options = options;
    this.#remarks = remarks;
    this.#config = configMerger(options.client, options.yaml, remarks);
  }

  /** handlers/__init__.py, `walker_callback` @throws StageFailure */
  async take(message: Message): Promise<void> {
    const type = typeOf(message);
    const filename = filenameOf(message) || partName(this.parts.length);
    if (message.payload.kind === 'value' && ENCODED.test(encodingOf(message, this.#options.client)))
      throw new StageFailure('archive_entry', filename, MESSAGES.nothingEncoded);
    const payload = decodePayload(message, this.#options.client);
    const part: WalkedPart = { filename, type, payload, message, takenBy: { kind: 'nobody' } };
    this.parts.push(part);
    const text = payload.kind === 'text' ? payload.text : null;
    const module = this.#registered.get(type);
    const folder = SCRIPT_FOLDERS.get(type);
    if (type === 'text/part-handler') {
      part.takenBy = { kind: 'part-handler' };
      await this.#register(part);
    } else if (module) {
      part.takenBy = { kind: 'handler', filename: module.entry.filename };
      this.#call(module, part);
    } else if (CONFIG_TYPES.includes(type)) {
      part.takenBy = { kind: 'cloud-config' };
      this.#addConfig(part, text, type === 'text/cloud-config-jsonp');
    } else if (folder) {
      part.takenBy = { kind: folder === 'boothooks' ? 'boothook' : 'script' };
      this.#write(part, folder, text);
    } else if (type === 'text/jinja2') {
      part.takenBy = { kind: 'jinja' };
      this.#render(part, text);
    } else this.#leave(part);
  }

  finish(failure: StageFailure | null): Handled {
    // cloud-init writes the config when its handler is told of the end: not when both its types were taken over.
    const written = CONFIG_TYPES.some((type) => !this.#registered.has(type));
    const config = written ? this.#config.finish() : null;
    if (!written && this.parts.some(({ takenBy }) => takenBy.kind === 'cloud-config'))
      this.#remarks.note('error', 'config_not_written', undefined, MESSAGES.notWritten);
    return {
      parts: this.parts,
      handlers: this.#handlers,
      calls: this.#calls,
      scripts: this.#scripts,
      overwrites: this.#overwrites,
      config,
      failure,
      unrendered: this.#unrendered,
    };
  }

  /** handlers/__init__.py, `walker_handle_handler` @throws StageFailure */
  async #register(part: WalkedPart): Promise<void> {
    const { filename, payload } = part;
    if (payload.kind !== 'text' || encodeStrict(payload.text) === null)
      throw new StageFailure('handler_undecodable', filename, MESSAGES.undecodable);
    const source = await readHandler(payload.text);
    const { types, version } = source;
    const origin = this.#options.origin(part.message);
    const entry: ExplainedHandler = { filename, origin, types, version, registered: false, takes: [], replacedBy: [] };
    this.#handlers.push(entry);
    if (this.#stuck) {
      const message = `Python runs ${this.#stuck.entry.filename} in its place, which it imported under the same name`;
      this.#remarks.note('error', 'handler_shadowed', filename, message);
    }
    const module = this.#stuck ?? { source, name: `part-handler-${String(this.#count).padStart(3, '0')}`, entry };
    if (!this.#isImported(module, filename)) return;
    if (!module.source.hasListTypes) {
      const message = this.#stuck ? MESSAGES.shadowed : MESSAGES.noListTypes;
      this.#stuck = module;
      this.#remarks.log('error', 'handler_not_registered', filename, message);
      return;
    }
    this.#stuck = null;
    this.#count++;
    entry.registered = true;
    this.#takeOver(module);
  }

  /** Imports and begins: `fixup_handler` and `call_begin`. */
  #isImported({ source }: Module, filename: string): boolean {
    if (source.broken) {
      this.#remarks.log('error', 'handler_not_registered', filename, MESSAGES.broken);
      return false;
    }
    if (source.frequency === 'unknown') this.#remarks.log('warning', 'handler_frequency', filename, MESSAGES.badFrequency);
    if (source.frequency === 'called' && !source.hasHandlePart) this.#fail(filename, MESSAGES.noHandlePart);
    return true;
  }

  /** helpers.py, `ContentHandlers.register`: the later handler of a type replaces the earlier. */
  #takeOver(module: Module): void {
    const { filename, types } = module.entry;
    if (types === null) this.#remarks.note('warning', 'handler_types_unknown', filename, MESSAGES.unknownTypes);
    if (module.source.frequency !== 'called')
      this.#remarks.note('warning', 'handler_never_called', filename, MESSAGES.neverCalled);
    for (const type of new Set(types ?? [])) {
      const before = this.#registered.get(type);
      if (before) {
        before.entry.replacedBy.push({ type, filename });
        const message = `takes ${type} over from ${before.entry.filename}: cloud-init keeps only the later of two handlers for a type`;
        this.#remarks.note('warning', 'handler_replaced', filename, message);
      }
      this.#registered.set(type, module);
    }
    if (types?.includes('text/part-handler'))
      this.#remarks.note('warning', 'handler_of_handlers', filename, MESSAGES.handlerOfHandlers);
  }

  #call(module: Module, part: WalkedPart): void {
    const { filename, type, payload } = part;
    const { entry, source, name } = module;
    entry.takes.push(filename);
    if (source.frequency !== 'called') return;
    if (source.hasHandlePart) this.#calls.push({ module: name, type, filename, payload });
    else this.#fail(filename, MESSAGES.noHandlePart);
  }

  #addConfig(part: WalkedPart, text: string | null, jsonp: boolean): void {
    const { filename, message } = part;
    if (text === null) {
      this.#config.add({ filename, label: filename, text: '', jsonp, merge: null });
      return;
    }
    const merge = exactHeaderOf(message, 'Merge-Type') || exactHeaderOf(message, 'X-Merge-Type') || null;
    this.#config.add({ filename, label: this.#options.origin(message) ?? filename, text, jsonp, merge });
  }

  /** handlers/shell_script.py, shell_script_by_frequency.py and boot_hook.py */
  #write(part: WalkedPart, folder: ScriptFolder, text: string | null): void {
    const name = folder === 'scripts' || folder === 'boothooks' ? part.filename : part.filename.replace(/^.*\//s, '');
    const filename = cleanName(name);
    const unixText = dosToUnix(text ?? '');
    const stripped = unixText.startsWith(BOOTHOOK) ? unixText.slice(BOOTHOOK.length) : unixText;
    const content = text === null ? null : encodeStrict(folder === 'boothooks' ? trimStart(stripped) : unixText);
    const nameless = ['', '.', '..'].includes(filename) || filename.length > NAME_MAX;
    if (content === null || nameless) {
      this.#fail(part.filename, nameless ? MESSAGES.noName : MESSAGES.noText);
      return;
    }
    const { filename: kept } = part;
    const lost = this.#files.get(`${folder}/${filename}`);
    if (lost !== undefined) {
      this.#overwrites.push({ folder, filename, lost, kept });
      const message = `${kept} is written to the same file, so this script never runs: give them different names`;
      if (folder !== 'boothooks') this.#remarks.note('warning', 'overwritten', lost, message);
    }
    this.#files.set(`${folder}/${filename}`, kept);
    this.#scripts.push({ folder, filename, content, from: kept, origin: this.#options.origin(part.message) });
  }

  /** handlers/jinja_template.py; a template without any syntax of Jinja renders to itself. */
  #render(part: WalkedPart, text: string | null): void {
    const { filename } = part;
    const source = text ?? '';
    const end = source.indexOf('\n');
    const rest = end < 0 ? '' : source.slice(end + 1);
    const kind = /^##\s*template:(.*)/is.exec(end < 0 ? source : source.slice(0, end))?.[1];
    if (kind === undefined || strip(kind.toLowerCase()) !== 'jinja') {
      this.#fail(filename, MESSAGES.noTemplate);
      return;
    }
    const isPlain = !/\{[{%#]/.test(rest);
    if (!isPlain) {
      this.#unrendered.push(filename);
      this.#remarks.note('warning', 'jinja_not_rendered', filename, MESSAGES.notRendered);
    }
    const rendered = renderPlain(rest);
    if (rendered === '') return;
    const type = sniff(rendered);
    if (type === 'text/x-shellscript') this.#write(part, 'scripts', rendered);
    else if (type === 'text/cloud-boothook' && this.#options.client !== '22.4') this.#write(part, 'boothooks', rendered);
    else if (type === null || !CONFIG_TYPES.includes(type))
      this.#remarks.log('error', 'jinja_ignored', filename, MESSAGES.noJinja);
    // The type handed on is text/jinja2, so that a JSON Patch is read as a cloud-config.
    else if (isPlain) this.#addConfig(part, rendered, false);
  }

  #leave(part: WalkedPart): void {
    const { filename, type, payload } = part;
    if (payload.kind === 'none') return;
    if ((payload.kind === 'text' ? payload.text : payload.bytes).length === 0) return;
    if (type === 'text/x-not-multipart') {
      this.#remarks.log('error', 'unhandled_document', filename, MESSAGES.unknownDocument);
      return;
    }
    const unsure = this.#handlers.some((handler) => handler.registered && handler.types === null);
    const message = unsure
      ? `nobody takes ${type}, unless the part handler does whose types cannot be read`
      : `neither cloud-init nor a part handler before it takes ${type}: add one whose list_types names it`;
    this.#remarks.log(unsure ? 'warning' : 'error', 'unhandled_part', filename, message);
  }

  #fail(filename: string, message: string): void {
    this.#remarks.log('error', 'handler_failed', filename, message);
  }
}

/** util.py, `clean_filename` */
function cleanName(filename: string): string {
  return filename.replaceAll('/', '_').replace(/[^A-Za-z0-9_.()-]/g, '');
}

/** util.py, `dos2unix`: the first line break decides. */
function dosToUnix(text: string): string {
  const first = text.indexOf('\n');
  return first > 0 && text[first - 1] === '\r' ? text.replaceAll('\r\n', '\n') : text;
}

/** What Jinja makes of a text without syntax: its line breaks become LF, and cloud-init gives the last one back (templater.py). */
function renderPlain(text: string): string {
  const plain = text.replace(/\r\n|\r/g, '\n');
  return (plain.endsWith('\n') ? plain.slice(0, -1) : plain) + (text.endsWith('\n') ? '\n' : '');
}

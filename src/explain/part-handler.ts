import { handlerTypes } from '../inspect/part-handler.ts';
import { readPython } from '../inspect/python.ts';

/** What can be told of a part handler without running it. */
export interface HandlerSource {
  /** Null when they cannot be read. */
  types: string[] | null;
  version: number | null;
  /** `once`: cloud-init registers it and never calls it (handlers/__init__.py, run_part). */
  frequency: 'once' | 'called' | 'unknown';
  /** Python cannot import it. */
  broken: boolean;
  hasListTypes: boolean;
  hasHandlePart: boolean;
}

const FREQUENCIES = new Map<string, 'once' | 'called'>([
  ['once', 'once'],
  ['PER_ONCE', 'once'],
  ['once-per-instance', 'called'],
  ['always', 'called'],
  ['PER_INSTANCE', 'called'],
  ['PER_ALWAYS', 'called'],
]);
/** Longer sources are not read: parsing hostile Python costs about 10 s per MB. */
const MAX_SOURCE = 128 * 1024;
/** Where a name must be known; a `key: value` of YAML is an annotation to Python. */
const EVALUATED = new Set(['ExpressionStatement', 'TypeDef']);
/** Names can come into a module in ways that a look at it does not show. */
const HIDDEN = /import\s*\*|\bglobals\b|\bexec\b|\bsetattr\b/;

/** Reads a part handler's source. */
export async function readHandler(source: string): Promise<HandlerSource> {
  const version = assigned(source, 'handler_version');
  const stated = assigned(source, 'frequency') ?? '';
  const frequency = FREQUENCIES.get(stated.replace(/^["']|["']$/g, '').replace(/^.*\./, ''));
  const defines = (name: string) => new RegExp(`\\b${name}\\b`).test(source) || HIDDEN.test(source);
  const [hasListTypes, hasHandlePart] = [defines('list_types'), defines('handle_part')];
  return {
    types: await handlerTypes(source),
    version: version === undefined ? 1 : /^["']?\d{1,9}["']?$/.test(version) ? Number(version.replace(/["']/g, '')) : null,
    // Of an expression nothing is known, so it is not complained of.
    frequency: frequency ?? (/^["']/.test(stated) ? 'unknown' : 'called'),
    broken: await isBroken(source, hasListTypes || hasHandlePart),
    hasListTypes,
    hasHandlePart,
  };
}

/** What a name is bound to at the left margin, as written; undefined when it is not. */
function assigned(source: string, name: string): string | undefined {
  return [...source.matchAll(new RegExp(`^${name}[ \\t]*=[ \\t]*([^\\n\\r#]*)`, 'gm'))].at(-1)?.[1]?.trim();
}

/**
 * Whether Python fails to import it: it does not parse; or it has nothing of a handler and begins with names that nobody knows, as
 * base64 does that was not decoded, or a config of the wrong type.
 */
async function isBroken(source: string, isHandler: boolean): Promise<boolean> {
  if (source.includes('\0')) return true;
  if (source.length > MAX_SOURCE) return false;
  const { fault, python2 } = readPython(source);
  if (fault || python2) return true;
  if (isHandler) return false;
  const { parser } = await import('@lezer/python');
  let broken = false;
  let evaluated = 0;
  parser.parse(source).iterate({
    enter: ({ type }) => {
      if (EVALUATED.has(type.name)) evaluated++;
      broken ||= evaluated > 0 && type.name === 'VariableName';
      return !broken;
    },
    leave: ({ type }) => {
      if (EVALUATED.has(type.name)) evaluated--;
    },
  });
  return broken;
}

import { carryOddKeys, isMapping } from '../inspect/yaml.ts';
import { MergeError } from './merge.ts';

/** Where Python raises: none of the patch is applied. */
export class PatchError extends MergeError {}

const MAX_OPERATIONS = 10_000;
/** Nodes that a patch may copy, and how deep what it leaves may be. */
const MAX_COPIED = 1_000_000;
const MAX_DEPTH = 200;

/** The last step of a JSON Pointer: where it ends, and the key, index or `-` there (null for the whole document). */
type Place = [container: unknown, key: string | number | null];

/**
 * Applies a JSON Patch (RFC 6902) as cloud-init's python-jsonpatch 1.32 does: what an anchor of YAML shares stays shared.
 * Two things differ: a key that an object has twice counts with its last value (there, with a list of both), and NaN is no number.
 * @returns the patched copy, and the top-level keys that the patch names (null: the whole document)
 * @throws PatchError
 */
export function applyPatch(document: unknown, text: string): { patched: unknown; touched: (string | null)[] } {
  const operations = readPatch(text);
  const budget = { left: MAX_COPIED };
  let patched = copy(document, budget);
  const touched: (string | null)[] = [];
  for (const operation of operations) {
    patched = apply(patched, operation, budget);
    for (const parts of [operation.path, operation.op === 'move' ? operation.from : null])
      if (parts && operation.op !== 'test') touched.push(parts[0] ?? null);
  }
  return { patched, touched };
}

interface Operation {
  op: string;
  path: string[];
  from: string[] | null;
  /** Absent when it is not said. */
  value?: unknown;
}

/** All operations are checked before the first is applied. */
function readPatch(text: string): Operation[] {
  let patch: unknown;
  try {
    patch = JSON.parse(text);
  } catch {
    throw new PatchError('it is not JSON', true);
  }
  if (patch === '' || (isMapping(patch) && Object.keys(patch).length === 0)) return [];
  if (!Array.isArray(patch)) throw new PatchError('it is not a list of operations');
  if (patch.length > MAX_OPERATIONS) throw new PatchError(`it has more than ${MAX_OPERATIONS} operations`);
  return patch.map((entry: unknown) => {
    if (!isMapping(entry)) throw new PatchError('an operation is not a mapping');
    const { op, path, from } = entry;
    if (typeof op !== 'string' || !['add', 'remove', 'replace', 'move', 'copy', 'test'].includes(op))
      throw new PatchError('an operation has no known op');
    if (typeof path !== 'string') throw new PatchError('an operation has no path');
    return {
      op,
      path: pointer(path),
      // A bad one is found when it is used.
      from: typeof from === 'string' && (op === 'move' || op === 'copy') ? lazily(from) : null,
      ...(Object.hasOwn(entry, 'value') ? { value: entry.value } : {}),
    };
  });
}

function lazily(from: string): string[] | null {
  try {
    return pointer(from);
  } catch {
    return null;
  }
}

function pointer(text: string): string[] {
  const [start, ...parts] = text.split('/');
  if (start !== '' || /~(?![01])/.test(text)) throw new PatchError('a path is no JSON Pointer');
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function apply(document: unknown, operation: Operation, budget: { left: number }): unknown {
  const { op, path, from } = operation;
  switch (op) {
    case 'add':
      return add(document, path, operand(operation));
    case 'remove':
      return remove(document, path);
    case 'replace':
      return replace(document, path, operand(operation));
    case 'test': {
      const [container, key] = toLast(document, path);
      if (!isEqual(key === null ? container : get(container, key), operand(operation))) throw new PatchError('a test fails');
      return document;
    }
    default:
      return relocate(document, op === 'copy', path, from, budget);
  }
}

function relocate(
  document: unknown,
  copies: boolean,
  path: string[],
  from: string[] | null,
  budget: { left: number },
): unknown {
  if (from === null) throw new PatchError('an operation has no from');
  const [container, key] = toLast(document, from);
  if (key === null) throw new PatchError('the whole document cannot be moved');
  const value = get(container, key);
  if (copies) return add(document, path, copy(value, budget));
  if (path.length === from.length && path.every((part, index) => part === from[index])) return document;
  if (isMapping(container) && from.every((part, index) => part === path[index])) throw new PatchError('it moves into itself');
  return add(remove(document, from), path, value);
}

function operand(operation: Operation): unknown {
  if (!('value' in operation)) throw new PatchError('an operation has no value');
  return operation.value;
}

function add(document: unknown, path: string[], value: unknown): unknown {
  const [container, key] = toLast(document, path);
  if (Array.isArray(container)) {
    if (key === '-') container.push(value);
    else if (typeof key !== 'number' || key > container.length) throw new PatchError('outside of the list');
    else container.splice(key, 0, value);
    return document;
  }
  if (!isMapping(container)) throw new PatchError('nothing can be added there');
  if (key === null) return value;
  set(container, String(key), value);
  return document;
}

function remove(document: unknown, path: string[]): unknown {
  const [container, key] = toLast(document, path);
  if (Array.isArray(container) && typeof key === 'number' && key < container.length) container.splice(key, 1);
  else if (isMapping(container) && typeof key === 'string' && Object.hasOwn(container, key)) delete container[key];
  else throw new PatchError('what is to be removed is not there');
  return document;
}

function replace(document: unknown, path: string[], value: unknown): unknown {
  const [container, key] = toLast(document, path);
  if (key === null) return value;
  if (Array.isArray(container) && typeof key === 'number' && key < container.length) container[key] = value;
  else if (isMapping(container) && key !== '-' && Object.hasOwn(container, key)) set(container, String(key), value);
  else throw new PatchError('what is to be replaced is not there');
  return document;
}

/** jsonpointer.py, `to_last`. */
function toLast(document: unknown, path: string[]): Place {
  const last = path.at(-1);
  if (last === undefined) return [document, null];
  let container = document;
  for (const part of path.slice(0, -1)) container = get(container, keyOf(container, part));
  return [container, keyOf(container, last)];
}

/** jsonpointer.py, `get_part`: `01` passes for an index, since only the 0 is looked at. */
function keyOf(container: unknown, part: string): string | number {
  if (isMapping(container)) return part;
  if (!Array.isArray(container) && typeof container !== 'string') throw new PatchError('a path leads through a value');
  if (part === '-') return part;
  if (!/^(?:0(?:_?[0-9])*|[1-9][0-9]*)$/.test(part)) throw new PatchError('a path has no index for a list');
  return Number(part.replaceAll('_', ''));
}

function get(container: unknown, key: string | number): unknown {
  if (isMapping(container) && Object.hasOwn(container, key)) return container[key];
  const items = typeof container === 'string' ? [...container] : container;
  if (Array.isArray(items) && typeof key === 'number' && key < items.length) return items[key];
  throw new PatchError('a path leads nowhere');
}

function set(container: Record<string, unknown>, key: string, value: unknown): void {
  Object.defineProperty(container, key, { value, enumerable: true, configurable: true, writable: true });
}

/** As `copy.deepcopy`: what is shared inside stays shared inside. */
function copy(value: unknown, budget: { left: number }, copies = new Map<object, unknown>(), depth = 0): unknown {
  if (!Array.isArray(value) && !isMapping(value)) return value;
  const before = copies.get(value);
  if (before !== undefined) return before;
  if (depth > MAX_DEPTH) throw new PatchError(`it nests deeper than ${MAX_DEPTH}`);
  budget.left -= 1 + (Array.isArray(value) ? value.length : Object.keys(value).length);
  if (budget.left < 0) throw new PatchError('it copies too much');
  if (Array.isArray(value)) {
    const list: unknown[] = [];
    copies.set(value, list);
    for (const item of value) list.push(copy(item, budget, copies, depth + 1));
    return list;
  }
  const mapping: Record<string, unknown> = {};
  copies.set(value, mapping);
  for (const [key, item] of Object.entries(value)) set(mapping, key, copy(item, budget, copies, depth + 1));
  carryOddKeys(mapping, value);
  return mapping;
}

/** As Python's `==`: true is 1, false is 0. The second is a tree of JSON, so the time is bounded by its size. */
function isEqual(value: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted))
    return Array.isArray(value) && value.length === wanted.length && wanted.every((item, index) => isEqual(value[index], item));
  if (isMapping(wanted)) {
    const keys = Object.keys(wanted);
    return (
      isMapping(value) &&
      Object.keys(value).length === keys.length &&
      keys.every((key) => Object.hasOwn(value, key) && isEqual(value[key], wanted[key]))
    );
  }
  const plain = (each: unknown) => (typeof each === 'boolean' ? Number(each) : each);
  return plain(value) === plain(wanted);
}

import { EVENT_ID, type Event, getScalarValue, parseEvents, SCALAR_STYLE, YAMLException } from 'js-yaml';
import { nameOfKey } from './yaml.ts';

/** How many nodes of one document are remembered; what stands behind them has its nearest remembered ancestor's place. */
const MAX_NODES = 200_000;
/** Characters read again, in all, to make up for js-yaml's strictness. */
const MAX_REREAD = 16 * 1024 * 1024;

/** 1-based, a column counts UTF-16 units. */
export interface Place {
  line: number;
  column: number;
}

/** Where things stand in one document. */
export interface DocumentPlaces {
  /** Where its content begins; null for an empty one. */
  start: Place | null;
  /**
   * The place of the value (or of its key) at a path of keys and indexes, as `readYaml` names them: through aliases and merge keys, and for a
   * repeated key the last. What has no place of its own (a path that is not there, an empty value) has its nearest ancestor's.
   */
  of(path: readonly (string | number)[], what?: 'key' | 'value'): Place | null;
  /** The text of the unquoted value at a path: what somebody wrote, where YAML makes a number of it. Null for anything else. */
  plain(path: readonly (string | number)[]): string | null;
  /** The keys that stand more than once in one mapping, each at its last place, which is the one that counts; `most` of them at most. */
  repeated(most: number): { key: string; place: Place | null }[];
}

/** Where things stand in a YAML or JSON text, one entry per document as `readYaml` counts them; [] where js-yaml's parser does not take the text. */
export function findPlaces(text: string): DocumentPlaces[] {
  const source = text.startsWith('\ufeff') ? text.slice(1) : text;
  const events = parse(source);
  const lines = lineStarts(source);
  const documents: DocumentPlaces[] = [];
  for (const [index, event] of events.entries()) {
    if (event.type !== EVENT_ID.DOCUMENT) continue;
    // Most texts are never asked about: the tree is built for the first question.
    let built: Tree | undefined;
    const tree = () => {
      built ??= readTree(source, events, index + 1);
      return built;
    };
    documents.push({
      start: placeOf(lines, offsetOf(source, events[index + 1])),
      of: (path, what = 'value') => {
        const { root } = tree();
        return placeOf(lines, root ? find(root, path, what) : -1);
      },
      plain: (path) => {
        const node = path.reduce<Node | null>((at, step) => (at && childOf(at, step, new Set())) ?? null, tree().root);
        const { offset, plainEnd } = node?.target ?? node ?? {};
        return offset === undefined || plainEnd === undefined || plainEnd < 0 ? null : source.slice(offset, plainEnd);
      },
      repeated: (most) =>
        tree()
          .repeated.slice(0, most)
          .map(({ key, offset }) => ({ key, place: placeOf(lines, offset) })),
    });
  }
  return documents;
}

/**
 * js-yaml is stricter than PyYAML; `readYaml` puts in what it misses. Here only places matter, so that characters are blanked or replaced one
 * for one, and every offset stays right.
 */
function parse(text: string): Event[] {
  let source = text;
  for (let work = 0; work <= MAX_REREAD; work += source.length) {
    try {
      return parseEvents(source, {});
    } catch (error) {
      const mended = error instanceof YAMLException && error.mark ? mend(source, error.reason, error.mark) : source;
      if (mended === source) break;
      source = mended;
    }
  }
  return [];
}

function mend(source: string, reason: string, { position, column }: { position: number; column: number }): string {
  const blank = (from: number, to: number) => source.slice(0, from) + ' '.repeat(to - from) + source.slice(to);
  // A line inside brackets or quotes that begins too far left joins the one before, whose comment would swallow it.
  if (reason === 'deficient indentation') {
    const start = position - column;
    const before = source.lastIndexOf('\n', start - 2) + 1;
    const end = source.slice(before, start).search(/(?:(?<=^|[\s"'\]},[{])#[^\r\n]*)?[\r\n]+$/);
    return end < 0 ? source : blank(before + end, start);
  }
  // Inside brackets PyYAML takes a - for a text.
  if (/^missed comma/.test(reason) && /^-[,\]}]/.test(source.slice(position, position + 2)))
    return `${source.slice(0, position)}x${source.slice(position + 1)}`;
  // It needs no space between a closing quote or bracket and a comment.
  if (source[position] === '#' && /["'\]}]/.test(source[position - 1] ?? '')) {
    const end = source.indexOf('\n', position);
    return blank(position, end < 0 ? source.length : end);
  }
  // JSON may be indented with tabs; in its texts there are none.
  return /^(?:\s|#[^\n]*\n)*[{[]/.test(source) ? source.replaceAll('\t', ' ') : source;
}

/** A value in the tree. Offsets are -1 where nothing is written. */
interface Node {
  offset: number;
  /** Of its key, or -1 in a sequence. */
  key: number;
  /** By key, or by index; null for a scalar. */
  children: Map<string | number, Node> | null;
  /** What an alias points at. */
  target: Node | null;
  /** Where an unquoted scalar ends, or -1. */
  plainEnd: number;
}

interface Tree {
  root: Node | null;
  repeated: { key: string; offset: number }[];
}

/** A collection that is being read: for a mapping `next` is the key whose value comes next. */
interface Open {
  node: Node;
  mapping: boolean;
  next: { name: string | null; offset: number } | null;
}

function readTree(source: string, events: readonly Event[], from: number): Tree {
  const anchors = new Map<string, Node>();
  const open: Open[] = [];
  const tree: Tree = { root: null, repeated: [] };
  let room = MAX_NODES;
  for (let at = from; at < events.length && room > 0; at++) {
    const event = events[at] as Event;
    if (event.type === EVENT_ID.POP) {
      if (open.length === 0) break;
      open.pop();
      continue;
    }
    if (event.type === EVENT_ID.DOCUMENT) break;
    room--;
    const collection = event.type === EVENT_ID.MAPPING || event.type === EVENT_ID.SEQUENCE;
    const node: Node = {
      offset: offsetOf(source, event),
      key: -1,
      children: collection ? new Map() : null,
      target: null,
      plainEnd: event.type === EVENT_ID.SCALAR && event.style === SCALAR_STYLE.PLAIN ? event.valueEnd : -1,
    };
    const anchor = event.anchorStart < 0 ? null : source.slice(event.anchorStart, event.anchorEnd);
    if (anchor !== null) {
      if (event.type === EVENT_ID.ALIAS) node.target = anchors.get(anchor) ?? null;
      else anchors.set(anchor, node);
    }
    const parent = open.at(-1);
    if (!parent) tree.root = node;
    else if (parent.mapping && parent.next === null)
      parent.next = {
        name: event.type === EVENT_ID.SCALAR ? nameOf(source, event) : null,
        offset: node.offset,
      };
    else addTo(tree, parent, node);
    if (collection) open.push({ node, mapping: event.type === EVENT_ID.MAPPING, next: null });
  }
  return tree;
}

/** Of a key: as `readYaml` names it. */
function nameOf(source: string, event: Event & { type: typeof EVENT_ID.SCALAR }): string {
  const text = getScalarValue(source, event);
  return event.style === SCALAR_STYLE.PLAIN && event.tagStart < 0 ? nameOfKey(text) : text;
}

function addTo(tree: Tree, parent: Open, node: Node): void {
  const siblings = parent.node.children as Map<string | number, Node>;
  if (!parent.mapping) {
    siblings.set(siblings.size, node);
    return;
  }
  node.key = parent.next?.offset ?? -1;
  // A key that is no scalar can be in nobody's path.
  const name = parent.next?.name ?? null;
  if (name !== null) {
    if (siblings.has(name) && name !== '<<') tree.repeated.push({ key: name, offset: node.key });
    siblings.set(name, node);
  }
  parent.next = null;
}

/** The offset of what is at the path, or of the nearest ancestor that has one. */
function find(root: Node, path: readonly (string | number)[], what: 'key' | 'value'): number {
  let node = root;
  let nearest = root.offset;
  for (const [depth, step] of path.entries()) {
    const child = childOf(node, step, new Set());
    if (!child) return nearest;
    const last = depth === path.length - 1;
    const own = last && what === 'key' ? [child.key, child.offset] : [child.offset, child.key];
    nearest = own.find((offset) => offset >= 0) ?? nearest;
    node = child;
  }
  return nearest;
}

/** A child's own key, or else one that a merge key (`<<`) brings in, the first of several winning. */
function childOf(node: Node, step: string | number, seen: Set<Node>): Node | undefined {
  const { children } = node.target ?? node;
  if (!children || seen.has(node.target ?? node)) return undefined;
  seen.add(node.target ?? node);
  const own = children.get(step);
  if (own) return own;
  const merged = children.get('<<');
  if (!merged) return undefined;
  const sources = merged.target ?? merged;
  for (const each of sources.children?.has(0) ? sources.children.values() : [sources]) {
    const found = childOf(each, step, seen);
    if (found) return found;
  }
  return undefined;
}

/** Where what an event tells of begins in the text, its quotes included; -1: it is not written. */
function offsetOf(source: string, event: Event | undefined): number {
  switch (event?.type) {
    case EVENT_ID.MAPPING:
    case EVENT_ID.SEQUENCE:
      return event.start;
    case EVENT_ID.ALIAS:
      return event.anchorStart - 1;
    case EVENT_ID.SCALAR: {
      const { valueStart, valueEnd, style } = event;
      if (valueStart < 0) return -1;
      if (style === SCALAR_STYLE.SINGLE_QUOTED || style === SCALAR_STYLE.DOUBLE_QUOTED) return valueStart - 1;
      if (style === SCALAR_STYLE.PLAIN) return valueStart;
      // A block scalar: its first line.
      let at = valueStart;
      while (at < valueEnd && source[at] === ' ') at++;
      return at;
    }
    default:
      return -1;
  }
}

function lineStarts(source: string): number[] {
  const starts = [0];
  for (const { index, 0: lineBreak } of source.matchAll(/\r\n|\n|\r/g)) starts.push(index + lineBreak.length);
  return starts;
}

function placeOf(lines: readonly number[], offset: number): Place | null {
  if (offset < 0) return null;
  let low = 0;
  let high = lines.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((lines[middle] as number) <= offset) low = middle;
    else high = middle - 1;
  }
  return { line: low + 1, column: offset - (lines[low] as number) + 1 };
}

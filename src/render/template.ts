import type { Json, JsonObject } from '../domain/json.ts';
import { contains, FILTERS, isEmpty } from './template-filters.ts';
import {
  type Expression,
  type Filtered,
  type For,
  type Node,
  type Operator,
  type Path,
  readTemplate,
  unknownName,
} from './template-syntax.ts';
import {
  allSecrets,
  compareValues,
  isMap,
  isSame,
  isSecrets,
  isTrue,
  memberOf,
  openWork,
  type Secrets,
  shown,
  suggest,
  templateError,
  textOf,
  type Value,
  type Work,
  wholeOf,
} from './template-values.ts';

/** What a template may speak of. */
export interface TemplateContext {
  instance: { name: string; id: string };
  vars: JsonObject;
  labels: Record<string, string>;
  /** Values by name; in a preview placeholders stand in their places. */
  secrets: Secrets;
}

/** A template that was read once, to be rendered for many machines. Immutable. */
export interface Template {
  /** Whether it mentions `secrets` at all: what it renders to may then hold one. */
  usesSecrets: boolean;
  source: string;
  nodes: readonly Node[];
}

/**
 * Reads a template: Liquid, with the tags of template-syntax.ts and the filters of template-filters.ts. Bounded in time and depth,
 * whatever the source.
 * @throws invalid `bad_template`, or `unknown_variable` for a name that no machine can have; one finding, with line and column
 */
export function parseTemplate(source: string): Template {
  return { source, ...readTemplate(source) };
}

/** What a rendering goes along with. */
interface Rendering {
  source: string;
  work: Work;
  /** Innermost last; the first is what the context gives, the second what is assigned. */
  scopes: Map<string, Value>[];
  sink: Sink;
  /** Bytes that one text may have. */
  limit: number;
}

/** Where what is printed goes. */
interface Sink {
  pieces: string[];
  bytes: number;
}

/**
 * Renders a template for one machine: same input, same text. An error names what the source names, and never holds a value.
 * @param limits `milliseconds` of a usual machine's work, counted and not measured; `bytes` of what it renders to, which no text on
 * the way may exceed either
 * @throws invalid `unknown_variable`, `template_limit`, `template_failed`, `template_prints_null`, `template_prints_collection`,
 * `secret_not_text`; one finding, with line and column
 */
export function renderTemplate(
  template: Template,
  context: TemplateContext,
  limits: { milliseconds: number; bytes: number },
): string {
  const { source, nodes } = template;
  const { name, id } = context.instance;
  const given = new Map<string, Value>([
    ['instance', { name, id }],
    ['vars', context.vars],
    ['labels', context.labels],
    ['secrets', context.secrets],
  ]);
  const sink: Sink = { pieces: [], bytes: 0 };
  const rendering = { source, work: openWork(source, limits), scopes: [given, new Map()], sink, limit: limits.bytes };
  renderNodes(rendering, nodes);
  return sink.pieces.join('');
}

type Jump = 'break' | 'continue' | undefined;

function renderNodes(rendering: Rendering, nodes: readonly Node[]): Jump {
  for (const node of nodes) {
    const jump = renderNode(rendering, node);
    if (jump) return jump;
  }
}

function renderNode(rendering: Rendering, node: Node): Jump {
  const { work, scopes } = rendering;
  work.spend(4);
  if (node.kind === 'text') return print(rendering, node.text, node.bytes);
  work.at = node.at;
  switch (node.kind) {
    case 'print': {
      const text = textOf(evaluate(rendering, node.value), work);
      work.spend(text.length / 16);
      return print(rendering, text, Buffer.byteLength(text));
    }
    case 'assign':
      scopes[1]?.set(node.name, evaluate(rendering, node.value));
      return;
    case 'capture':
      return capture(rendering, node.name, node.body);
    case 'if': {
      const hit = node.branches.find(({ test, wanted }) => isTrue(evaluate(rendering, test)) === wanted);
      return renderNodes(rendering, hit ? hit.body : node.otherwise);
    }
    case 'case': {
      const value = evaluate(rendering, node.value);
      const isIt = (each: Expression) => isEqual(value, operandOf(rendering, each, true), work);
      const hit = node.whens.find(({ values }) => values.some(isIt));
      return renderNodes(rendering, hit ? hit.body : node.otherwise);
    }
    case 'for':
      return renderFor(rendering, node);
    default:
      return node.kind;
  }
}

function print({ sink, work, limit }: Rendering, text: string, bytes: number): undefined {
  if (text === '') return;
  sink.bytes += bytes;
  if (sink.bytes > limit) throw work.fault('template_limit', `renders to more than ${limit} bytes`);
  sink.pieces.push(text);
}

function capture(rendering: Rendering, name: string, body: readonly Node[]): Jump {
  const sink: Sink = { pieces: [], bytes: 0 };
  const jump = renderNodes({ ...rendering, sink }, body);
  const text = sink.pieces.join('');
  rendering.work.spend(text.length / 8);
  rendering.work.make(text.length);
  rendering.scopes[1]?.set(name, text);
  return jump;
}

function renderFor(rendering: Rendering, node: For): Jump {
  const { work, scopes } = rendering;
  const all = itemsOf(rendering, node.over, node.at);
  const bound = (setting: Expression | null) => (setting ? wholeOf(workOut(rendering, setting, false), work) : null);
  const [offset, limit] = [bound(node.offset) ?? 0, bound(node.limit) ?? all.length];
  if (offset < 0 || limit < 0) throw work.fault('template_failed', 'limit and offset are not negative');
  const items = all.slice(offset, offset + limit);
  work.list(items.length);
  if (node.reversed) items.reverse();
  if (items.length === 0) return renderNodes(rendering, node.otherwise);
  const scope = new Map<string, Value>();
  scopes.push(scope);
  for (const [index, item] of items.entries()) {
    work.spend(8);
    scope.set(node.name, item);
    scope.set('forloop', loopOf(index, items.length));
    if (renderNodes(rendering, node.body) === 'break') break;
  }
  scopes.pop();
}

function loopOf(index0: number, length: number): JsonObject {
  const rindex0 = length - index0 - 1;
  return { index: index0 + 1, index0, rindex: rindex0 + 1, rindex0, first: index0 === 0, last: rindex0 === 0, length };
}

/** What `for` goes over: a list, a map's pairs, or nothing where it is null, which turns a bundle's default off. */
function itemsOf(rendering: Rendering, over: Expression, at: number): Json[] {
  const { work } = rendering;
  const value = workOut(rendering, over, false);
  work.at = at;
  if (value === null) return [];
  if (Array.isArray(value)) return value;
  if (isSecrets(value)) throw allSecrets(work);
  if (!isMap(value)) throw work.fault('template_failed', '`for` goes over a list or a map, and this is neither');
  const pairs = Object.entries(value);
  work.list(pairs.length);
  return pairs;
}

function evaluate(rendering: Rendering, { at, lenient, value, filters }: Filtered): Value {
  const { work } = rendering;
  work.at = at;
  let result = workOut(rendering, value, lenient);
  for (const { at: place, name, args } of filters) {
    const values = args.map((arg) => workOut(rendering, arg, false));
    work.at = place;
    work.spend(4);
    result = FILTERS.get(name)?.apply(result, values, work) ?? null;
  }
  work.at = at;
  return result;
}

/** Stand for what is asked by them. */
const EMPTY = Symbol('empty');
const BLANK = Symbol('blank');
type Operand = Value | typeof EMPTY | typeof BLANK;

function workOut(rendering: Rendering, expression: Expression, lenient: boolean): Value {
  return operandOf(rendering, expression, lenient) as Value;
}

function operandOf(rendering: Rendering, expression: Expression, lenient: boolean): Operand {
  rendering.work.spend(1);
  switch (expression.kind) {
    case 'value':
      return expression.value;
    case 'empty':
      return EMPTY;
    case 'blank':
      return BLANK;
    case 'path':
      return follow(rendering, expression, lenient);
    case 'range':
      return spread(rendering, expression);
    default:
      return operate(rendering, expression, lenient);
  }
}

/** The numbers from one to another. */
function spread(rendering: Rendering, { at, from, to }: Extract<Expression, { kind: 'range' }>): number[] {
  const { work } = rendering;
  const [first, last] = [from, to].map((end) => {
    const value = workOut(rendering, end, false);
    work.at = at;
    return wholeOf(value, work);
  }) as [number, number];
  const count = Math.max(0, last - first + 1);
  work.list(count);
  return Array.from({ length: count }, (_, index) => first + index);
}

function operate(rendering: Rendering, { at, postfix }: Extract<Expression, { kind: 'operation' }>, lenient: boolean): Value {
  const { work } = rendering;
  const stack: Operand[] = [];
  for (const part of postfix) {
    if (typeof part !== 'string') {
      stack.push(operandOf(rendering, part, lenient));
      continue;
    }
    work.at = at;
    work.spend(1);
    const right = stack.pop() as Operand;
    stack.push(part === 'not' ? !isTrue(right as Value) : apply(part, stack.pop() as Operand, right, work));
  }
  return stack[0] as Value;
}

function apply(operator: Exclude<Operator, 'not'>, left: Operand, right: Operand, work: Work): boolean {
  if (operator === '==') return isEqual(left, right, work);
  if (operator === '!=') return !isEqual(left, right, work);
  // What else is compared is never `empty` or `blank`: the reader saw to that.
  const [a, b] = [left, right] as [Value, Value];
  if (operator === 'and') return isTrue(a) && isTrue(b);
  if (operator === 'or') return isTrue(a) || isTrue(b);
  if (operator === 'contains') return contains(a, b, work);
  // An optional value that is not there is neither more nor less.
  if (a === null || b === null) return false;
  const order = compareValues(a, b, work);
  if (order === null)
    throw work.fault(
      'template_failed',
      `\`${operator}\` compares two numbers or two texts: use plus: 0 to make a number of a text`,
    );
  return operator === '<' ? order < 0 : operator === '<=' ? order <= 0 : operator === '>' ? order > 0 : order >= 0;
}

function isEqual(left: Operand, right: Operand, work: Work): boolean {
  if (typeof left === 'symbol') return typeof right !== 'symbol' && isEqual(right, left, work);
  if (right === EMPTY) return left !== null && isEmpty(left);
  if (right !== BLANK) return isSame(left, right as Value, work);
  if (left === false || isEmpty(left)) return true;
  if (typeof left !== 'string') return false;
  work.spend(left.length / 16);
  return left.trim() === '';
}

/** What a path leads to. @throws invalid `unknown_variable` unless lenient, which makes null of what is not there */
function follow(rendering: Rendering, path: Path, lenient: boolean): Value {
  const { source, work, scopes } = rendering;
  let value: Value | undefined;
  if (typeof path.root !== 'string') value = workOut(rendering, path.root, false);
  else {
    const { root } = path;
    value = scopes.findLast((scope) => scope.has(root))?.get(root);
    if (value === undefined && !lenient) throw unknownName(source, path.at, root);
  }
  for (const { key, end } of path.keys) {
    const name = workOut(rendering, key, false);
    work.at = path.at;
    work.spend(1);
    const next: Value | undefined = value === undefined || value === null ? undefined : memberOf(value, name, work);
    if (next === undefined) {
      if (lenient) return null;
      throw unknownMember(source, path, end, value, key);
    }
    value = next;
  }
  return value ?? null;
}

/** Only a key that the source itself spells out is compared with what there is: another may come of a secret. */
function unknownMember(source: string, path: Path, end: number, owner: Value | undefined, key: Expression) {
  const names = owner === undefined ? [] : isSecrets(owner) ? [...owner.keys()] : isMap(owner) ? Object.keys(owner) : [];
  const meant = key.kind === 'value' && typeof key.value === 'string' ? suggest(key.value, names.slice(0, 1000)) : '';
  const advice = meant || ': set it, or use default';
  return templateError(source, path.at, 'unknown_variable', `there is no ${shown(source.slice(path.at, end))}${advice}`);
}

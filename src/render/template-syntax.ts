import { type PropertyAccessToken, type Token, TokenizationError, Tokenizer, type TopLevelToken, TypeGuards } from 'liquidjs';
import type { Json } from '../domain/json.ts';
import { FILTERS, OTHER_NAMES } from './template-filters.ts';
import { shown, suggest, templateError } from './template-values.ts';

export type Operator = '==' | '!=' | '>' | '<' | '>=' | '<=' | 'contains' | 'and' | 'or' | 'not';

export type Expression =
  | { kind: 'value'; value: Json }
  /** What is compared with `empty` or `blank` is asked whether it is that. */
  | { kind: 'empty' | 'blank' }
  | Path
  | { kind: 'range'; at: number; from: Expression; to: Expression }
  /** In reverse Polish notation, so that a long one needs no stack to be worked out. */
  | { kind: 'operation'; at: number; postfix: readonly (Operator | Expression)[] };

export interface Path {
  kind: 'path';
  at: number;
  /** A name, or the value that the keys are asked of. */
  root: string | Expression;
  /** With the place in the source where each ends. */
  keys: readonly { key: Expression; end: number }[];
}

export interface Filtered {
  at: number;
  /** Whether what does not exist is null here, rather than an error. */
  lenient: boolean;
  value: Expression;
  filters: readonly { at: number; name: string; args: readonly Expression[] }[];
}

export type Node =
  | { kind: 'text'; text: string; bytes: number }
  | { kind: 'print'; at: number; value: Filtered }
  | { kind: 'assign'; at: number; name: string; value: Filtered }
  | { kind: 'capture'; at: number; name: string; body: readonly Node[] }
  | { kind: 'if'; at: number; branches: readonly Branch[]; otherwise: readonly Node[] }
  | { kind: 'case'; at: number; value: Filtered; whens: readonly When[]; otherwise: readonly Node[] }
  | For
  | { kind: 'break' | 'continue'; at: number };

export interface Branch {
  test: Filtered;
  /** What the test must come to. */
  wanted: boolean;
  body: readonly Node[];
}

export interface When {
  values: readonly Expression[];
  body: readonly Node[];
}

export interface For {
  kind: 'for';
  at: number;
  name: string;
  over: Expression;
  offset: Expression | null;
  limit: Expression | null;
  reversed: boolean;
  body: readonly Node[];
  otherwise: readonly Node[];
}

/** What a template knows beside what it assigns. */
export const ROOTS = ['instance', 'vars', 'labels', 'secrets'];
const INSTANCE_KEYS = ['name', 'id'];
const TAGS = ['assign', 'break', 'capture', 'case', 'comment', 'continue', 'echo', 'for', 'if', 'liquid', 'raw', 'unless', '#'];
/** Tags that only go on with or end what another began. */
const INNER = /^(?:else|elsif|when|end.*)$/;

/** Tags, and the texts between them. */
const MAX_PIECES = 40_000;
/** Tags, values and filters. */
const MAX_PARTS = 100_000;
const MAX_TAG_LENGTH = 65_536;
const MAX_DEPTH = 100;
const MAX_BRACKETS = 50;

type TagToken = ReturnType<Tokenizer['readTagToken']>;
type IdentifierToken = ReturnType<Tokenizer['readIdentifier']>;

/** The state of one reading. */
interface Reader {
  source: string;
  /** What the names at the beginnings of paths are, to be judged once every assignment is known. */
  uses: { name: string; key: string | null; at: number; inLoop: boolean }[];
  assigned: Set<string>;
  /** Tags, values and filters so far. */
  parts: number;
}

/** Where in the blocks the reading is. */
interface Block {
  tokens: TopLevelToken[];
  /** The tags that are open, outermost first. */
  open: readonly TagToken[];
  /** Inside a tag `liquid`, where each line is a tag. */
  inLiquid: boolean;
  /** In what `for` repeats; its `else` is not. */
  inLoop: boolean;
}

/**
 * LiquidJS' tokenizer, bounded: by itself it makes objects for a million tags, and a text of 4 MiB one character at a time.
 */
class BoundedTokenizer extends Tokenizer {
  private pieces = 0;

  override readTopLevelToken(options: Parameters<Tokenizer['readTopLevelToken']>[0]): TopLevelToken {
    if (++this.pieces > MAX_PIECES)
      throw templateError(this.input, this.p, 'bad_template', `a template has ${MAX_PIECES / 2} tags at most`);
    return super.readTopLevelToken(options);
  }

  override readToDelimiter(delimiter: string, respectQuoted = false): number {
    const begin = this.p;
    const end = Math.min(this.N, begin + MAX_TAG_LENGTH);
    while (this.p < end) {
      const quote = this.input[this.p] as string;
      this.p = respectQuoted && /["']/.test(quote) ? skipQuoted(this.input, this.p, end) : this.p + 1;
      if (this.p <= end && this.rmatch(delimiter)) return this.p;
    }
    return -1;
  }

  // What is missing after `|`, `:` or a comma it would do without.

  override readFilter(): ReturnType<Tokenizer['readFilter']> {
    this.skipBlank();
    const begin = this.p;
    const filter = super.readFilter();
    if (filter === null && this.p !== begin) throw this.error('expected filter name', begin);
    return filter;
  }

  override readFilterArg(): ReturnType<Tokenizer['readFilterArg']> {
    return super.readFilterArg() ?? super.readValueOrThrow();
  }
}

/** The place after a quoted text, where a backslash makes the next character part of it. */
function skipQuoted(source: string, begin: number, end: number): number {
  let at = begin + 1;
  while (at < end && source[at] !== source[begin]) at += source[at] === '\\' ? 2 : 1;
  return at + 1;
}

/**
 * Reads a template's source. LiquidJS finds the tokens and reads the expressions; what it passes over in silence (`{{ a b }}`, a
 * quote or bracket left open, what follows an `else`) is an error here. What comes of it is worked out by template.ts, not by
 * LiquidJS, which looks at its limits between tags only: a range past 2^53 fills the memory, and one filter may take seconds.
 * @throws invalid `bad_template`, `unknown_variable`
 */
export function readTemplate(source: string): { nodes: readonly Node[]; usesSecrets: boolean } {
  const reader: Reader = { source, uses: [], assigned: new Set(), parts: 0 };
  try {
    const tokens = new BoundedTokenizer(source).readTopLevelTokens();
    const { nodes } = readBlock(reader, { tokens: tokens.reverse(), open: [], inLiquid: false, inLoop: false }, []);
    checkNames(reader);
    return { nodes, usesSecrets: reader.uses.some(({ name }) => name === 'secrets') };
  } catch (error) {
    if (!(error instanceof TokenizationError)) throw error;
    throw bad(reader, error.token.begin, sentenceOf(error.message));
  }
}

function bad({ source }: Reader, at: number, message: string) {
  return templateError(source, at, 'bad_template', message);
}

/** LiquidJS quotes the source in what it says: only what kind of trouble it is gets through. */
function sentenceOf(message: string): string {
  if (/^tag .*not closed/s.test(message)) return `this tag is not closed within ${MAX_TAG_LENGTH} characters: end it with %}`;
  if (/^output .*not closed/s.test(message))
    return `this is not closed within ${MAX_TAG_LENGTH} characters: end it with }}, or put what is no template into raw`;
  if (/^raw .*not closed/s.test(message)) return '`raw` has no `endraw`';
  if (/^illegal .*tag syntax/s.test(message)) return 'a tag begins with its name';
  if (/^\[ not closed/.test(message)) return 'a bracket is not closed';
  if (/^expected filter name/.test(message)) return 'a filter is wanted after |';
  if (/^expected ":"/.test(message)) return 'what follows a filter is : and its arguments, or |';
  if (/^invalid range syntax/.test(message)) return 'a range is written (1..5), and there are no other parentheses';
  return 'this cannot be read as a value';
}

/** Names that nothing can ever give a value to are wrong for every machine. */
function checkNames({ source, uses, assigned }: Reader): void {
  for (const { name, key, at, inLoop } of uses) {
    if (assigned.has(name) || (name === 'forloop' && inLoop)) continue;
    if (!ROOTS.includes(name)) throw unknownName(source, at, name);
    if (name === 'instance' && key !== null && !INSTANCE_KEYS.includes(key))
      throw templateError(
        source,
        at,
        'unknown_variable',
        `there is no ${shown(`instance.${key}`)}: an instance has name and id`,
      );
  }
}

/** There is nothing of that name. */
export function unknownName(source: string, at: number, name: string) {
  const known = 'a template knows instance.name, instance.id, vars, labels, secrets and what it assigns before';
  return templateError(source, at, 'unknown_variable', `there is no ${shown(name)}: ${known}`);
}

/** Reads up to a tag of one of these names, which belongs to the innermost open tag. */
function readBody(reader: Reader, block: Block, ends: readonly string[]): { nodes: Node[]; end: TagToken } {
  const { nodes, end } = readBlock(reader, block, ends);
  if (end) return { nodes, end };
  const opener = block.open.at(-1);
  throw bad(reader, opener?.begin ?? 0, `\`${opener?.name}\` has no \`${ends.at(-1)}\``);
}

/** Reads up to a tag of one of these names, or to the end, where it is null. */
function readBlock(reader: Reader, block: Block, ends: readonly string[]): { nodes: Node[]; end: TagToken | null } {
  if (block.open.length > MAX_DEPTH)
    throw bad(reader, block.open.at(-1)?.begin ?? 0, `tags are nested deeper than ${MAX_DEPTH}`);
  const nodes: Node[] = [];
  for (let token = block.tokens.pop(); token; token = block.tokens.pop()) {
    if (isTag(token)) {
      prepare(reader, token);
      if (ends.includes(token.name)) return { nodes, end: token };
      nodes.push(...readTag(reader, block, token));
    } else if (TypeGuards.isHTMLToken(token)) {
      const text = token.getContent();
      if (text !== '') nodes.push({ kind: 'text', text, bytes: Buffer.byteLength(text) });
    } else if (TypeGuards.isOutputToken(token)) {
      checkBrackets(reader, token);
      const tokenizer = new BoundedTokenizer(reader.source, undefined, undefined, token.contentRange);
      nodes.push({ kind: 'print', at: token.begin, value: readFiltered(reader, block, tokenizer, false) });
    }
  }
  return { nodes, end: null };
}

function count(reader: Reader, at: number): void {
  if (++reader.parts > MAX_PARTS) throw bad(reader, at, `a template has ${MAX_PARTS} tags, values and filters at most`);
}

/** What a tag holds is read with the same care as the rest. */
function prepare(reader: Reader, tag: TagToken): void {
  count(reader, tag.begin);
  if (tag.name === '#' || tag.name === 'comment') return;
  checkBrackets(reader, tag);
  tag.tokenizer = new BoundedTokenizer(reader.source, undefined, undefined, [tag.tokenizer.p, tag.tokenizer.N]);
}

/** Also what stands in a `liquid` tag, which LiquidJS has a class of its own for. */
function isTag(token: Token): token is TagToken {
  return TypeGuards.isTagToken(token);
}

/** Whoever reads brackets in brackets does so by recursion. */
function checkBrackets(reader: Reader, token: Token): void {
  let depth = 0;
  for (let at = token.begin; at < token.end; at++) {
    const char = reader.source[at];
    if (char === '[' || char === '(') depth++;
    else if ((char === ']' || char === ')') && depth > 0) depth--;
    if (depth > MAX_BRACKETS) throw bad(reader, at, `brackets are nested deeper than ${MAX_BRACKETS}`);
  }
}

function readTag(reader: Reader, block: Block, tag: TagToken): Node[] {
  const { name, begin: at } = tag;
  if (name === '#') return [];
  if (name === 'comment') return skipComment(reader, block, tag);
  if (INNER.test(name)) throw stray(reader, block, tag);
  switch (name) {
    case 'raw':
      if (block.inLiquid) throw bad(reader, at, '`raw` cannot stand in `liquid`');
      return readBody(reader, within(block, tag), ['endraw']).nodes;
    case 'echo':
      return [{ kind: 'print', at, value: readFiltered(reader, block, tag.tokenizer, false) }];
    case 'assign':
      return [readAssign(reader, block, tag)];
    case 'capture':
      return [readCapture(reader, block, tag)];
    case 'if':
    case 'unless':
      return [readIf(reader, block, tag)];
    case 'case':
      return [readCase(reader, block, tag)];
    case 'for':
      return [readFor(reader, block, tag)];
    case 'break':
    case 'continue':
      finish(reader, tag.tokenizer);
      if (!block.inLoop) throw bad(reader, at, `\`${name}\` stands only in \`for\``);
      return [{ kind: name, at }];
    case 'liquid': {
      const tokens = tag.tokenizer.readLiquidTagTokens() as unknown as TopLevelToken[];
      return readBlock(reader, { ...within(block, tag), tokens: tokens.reverse(), inLiquid: true }, []).nodes;
    }
    default: {
      const meant = suggest(name, TAGS) || `: there are ${TAGS.join(', ')}`;
      throw bad(reader, at, `there is no tag ${shown(name)}${meant}`);
    }
  }
}

function within(block: Block, tag: TagToken): Block {
  return { ...block, open: [...block.open, tag] };
}

function stray(reader: Reader, block: Block, tag: TagToken) {
  const opener = block.open.at(-1);
  const name = shown(tag.name);
  if (!opener || opener.name === 'liquid') return bad(reader, tag.begin, `${name} belongs to nothing here`);
  return bad(reader, tag.begin, `${name} does not belong to the \`${opener.name}\` it stands in`);
}

function skipComment(reader: Reader, block: Block, tag: TagToken): Node[] {
  for (let token = block.tokens.pop(); token; token = block.tokens.pop())
    if (isTag(token) && token.name === 'endcomment') return [];
  throw bad(reader, tag.begin, '`comment` has no `endcomment`');
}

/** Nothing may be left in a tag that has all it wants. */
function finish(reader: Reader, tokenizer: Tokenizer): void {
  tokenizer.skipBlank();
  if (!tokenizer.end()) throw bad(reader, tokenizer.p, 'this does not belong here');
}

function readName(reader: Reader, tokenizer: Tokenizer): string {
  const name = tokenizer.readIdentifier();
  if (name.size() === 0) throw bad(reader, name.begin, 'a name is wanted here');
  reader.assigned.add(name.content);
  return name.content;
}

function readAssign(reader: Reader, block: Block, tag: TagToken): Node {
  const { tokenizer } = tag;
  const name = readName(reader, tokenizer);
  tokenizer.skipBlank();
  if (tokenizer.read() !== '=') throw bad(reader, tag.begin, 'it is written assign NAME = VALUE');
  return { kind: 'assign', at: tag.begin, name, value: readFiltered(reader, block, tokenizer, false) };
}

function readCapture(reader: Reader, block: Block, tag: TagToken): Node {
  const name = readName(reader, tag.tokenizer);
  finish(reader, tag.tokenizer);
  const { nodes, end } = readBody(reader, within(block, tag), ['endcapture']);
  finish(reader, end.tokenizer);
  return { kind: 'capture', at: tag.begin, name, body: nodes };
}

function readIf(reader: Reader, block: Block, tag: TagToken): Node {
  const inner = within(block, tag);
  const last = `end${tag.name}`;
  const branches: Branch[] = [];
  let head = tag;
  do {
    const test = readFiltered(reader, block, head.tokenizer, true);
    const { nodes, end } = readBody(reader, inner, ['elsif', 'else', last]);
    branches.push({ test, wanted: head.name !== 'unless', body: nodes });
    head = end;
  } while (head.name === 'elsif');
  const otherwise = readElse(reader, inner, head, last);
  return { kind: 'if', at: tag.begin, branches, otherwise };
}

/** What follows an `else`, and the end; `tag` is either. */
function readElse(reader: Reader, inner: Block, tag: TagToken, last: string): Node[] {
  finish(reader, tag.tokenizer);
  if (tag.name === last) return [];
  const { nodes, end } = readBody(reader, inner, [last]);
  finish(reader, end.tokenizer);
  return nodes;
}

function readCase(reader: Reader, block: Block, tag: TagToken): Node {
  const inner = within(block, tag);
  const value = readFiltered(reader, block, tag.tokenizer, true);
  let { nodes, end } = readBody(reader, inner, ['when', 'else', 'endcase']);
  if (nodes.some((node) => node.kind !== 'text' || node.text.trim() !== ''))
    throw bad(reader, tag.begin, 'nothing may stand between `case` and its first `when`');
  const whens: When[] = [];
  while (end.name === 'when') {
    const values = readAlternatives(reader, block, end.tokenizer);
    ({ nodes, end } = readBody(reader, inner, ['when', 'else', 'endcase']));
    whens.push({ values, body: nodes });
  }
  const otherwise = readElse(reader, inner, end, 'endcase');
  return { kind: 'case', at: tag.begin, value, whens, otherwise };
}

/** `"a", "b"` or `"a" or "b"`. */
function readAlternatives(reader: Reader, block: Block, tokenizer: Tokenizer): Expression[] {
  const values: Expression[] = [];
  for (;;) {
    values.push(readOperand(reader, block, tokenizer.readValueOrThrow(), true));
    tokenizer.skipBlank();
    if (tokenizer.end()) return values;
    const at = tokenizer.p;
    if (tokenizer.peek() === ',') tokenizer.advance();
    else if (tokenizer.readIdentifier().content !== 'or') throw bad(reader, at, 'values are separated by a comma or `or`');
  }
}

function readFor(reader: Reader, block: Block, tag: TagToken): Node {
  const { tokenizer, begin: at } = tag;
  const inner = within(block, tag);
  const name = readName(reader, tokenizer);
  const collection = tokenizer.readIdentifier().content === 'in' ? tokenizer.readValue() : undefined;
  if (!collection) throw bad(reader, at, 'it is written for NAME in LIST');
  const over = readOperand(reader, block, collection);
  const settings = new Map<string, Expression | null>();
  for (const { name: setting, value, begin } of tokenizer.readHashes(':')) {
    if (
      !['offset', 'limit', 'reversed'].includes(setting.content) ||
      (value !== undefined) === (setting.content === 'reversed')
    )
      throw bad(reader, begin, 'after the list come limit:NUMBER, offset:NUMBER or reversed');
    settings.set(setting.content, value ? readOperand(reader, block, value) : null);
  }
  finish(reader, tokenizer);
  const { nodes: body, end } = readBody(reader, { ...inner, inLoop: true }, ['else', 'endfor']);
  const otherwise = readElse(reader, inner, end, 'endfor');
  const [offset = null, limit = null] = [settings.get('offset'), settings.get('limit')];
  return { kind: 'for', at, name, over, offset, limit, reversed: settings.has('reversed'), body, otherwise };
}

/** A value with its filters, up to the end of the tag. */
function readFiltered(reader: Reader, block: Block, tokenizer: Tokenizer, isTest: boolean): Filtered {
  const { begin, initial, filters } = tokenizer.readFilteredValue();
  finish(reader, tokenizer);
  const calls = filters.map(({ name, args, begin: at }) => readFilter(reader, block, name, args, at));
  const lenient = isTest || calls[0]?.name === 'default';
  return { at: begin, lenient, value: readExpression(reader, block, initial.postfix), filters: calls };
}

type FilterArgument = NonNullable<ReturnType<Tokenizer['readFilterArg']>>;

function readFilter(
  reader: Reader,
  block: Block,
  name: string,
  args: readonly FilterArgument[],
  at: number,
): Filtered['filters'][number] {
  count(reader, at);
  const filter = FILTERS.get(name);
  if (!filter) throw bad(reader, at, `there is no filter ${shown(name)}${meantBy(name)}`);
  const values: Expression[] = [];
  for (const arg of args) {
    if (!Array.isArray(arg)) values.push(readOperand(reader, block, arg));
    else if (!filter.named?.includes(arg[0] as string))
      throw bad(reader, at, `\`${name}\` takes no argument by the name of ${shown(arg[0] as string)}`);
  }
  const [least, most] = filter.takes;
  if (values.length < least || values.length > most) {
    const wanted = most === 0 ? 'no' : least === most ? most : `${least} to ${most}`;
    throw bad(reader, at, `\`${name}\` takes ${wanted} ${most < 2 ? 'argument' : 'arguments'}`);
  }
  return { at, name, args: values };
}

function meantBy(name: string): string {
  const other = OTHER_NAMES.get(name.toLowerCase());
  if (other !== undefined) return `: here it is ${other}`;
  return suggest(name, FILTERS.keys()) || `: there are ${[...FILTERS.keys()].join(', ')}`;
}

function readExpression(reader: Reader, block: Block, postfix: readonly Token[]): Expression {
  checkOrder(reader, postfix);
  const [only] = postfix;
  if (only && postfix.length === 1) return readOperand(reader, block, only);
  const parts = postfix.map((token) =>
    TypeGuards.isOperatorToken(token) ? (token.operator as Operator) : readOperand(reader, block, token, true),
  );
  checkEmpties(reader, postfix, parts);
  return { kind: 'operation', at: postfix[0]?.begin ?? 0, postfix: parts };
}

/** LiquidJS takes values and operators in any order. */
function checkOrder(reader: Reader, postfix: readonly Token[]): void {
  let before: string | null = 'and';
  for (const token of postfix.toSorted((a, b) => a.begin - b.begin)) {
    const operator = TypeGuards.isOperatorToken(token) ? token.operator : null;
    if (operator === 'not' ? !['and', 'or', 'not'].includes(before ?? '') : (operator === null) === (before === null))
      throw bad(
        reader,
        token.begin,
        operator === null ? 'an operator or | is missing before this' : 'a value is missing before this',
      );
    before = operator;
  }
  if (before !== null) throw bad(reader, postfix.at(-1)?.begin ?? 0, 'a value is missing after this');
}

/** `empty` and `blank` are questions, not values. */
function checkEmpties(reader: Reader, postfix: readonly Token[], parts: readonly (Operator | Expression)[]): void {
  const stack: boolean[] = [];
  parts.forEach((part, index) => {
    if (typeof part !== 'string') {
      stack.push(part.kind === 'empty' || part.kind === 'blank');
      return;
    }
    const operands = stack.splice(part === 'not' ? -1 : -2);
    if (operands.includes(true) && part !== '==' && part !== '!=')
      throw bad(reader, postfix[index]?.begin ?? 0, '`empty` and `blank` stand only beside == and !=');
    stack.push(false);
  });
}

function readOperand(reader: Reader, block: Block, token: Token, mayBeEmpty = false): Expression {
  const { source } = reader;
  const { begin, end } = token;
  count(reader, begin);
  if (TypeGuards.isLiteralToken(token)) {
    const { literal } = token;
    if (literal !== 'empty' && literal !== 'blank')
      return { kind: 'value', value: literal.startsWith('n') ? null : literal === 'true' };
    if (!mayBeEmpty) throw bad(reader, begin, '`empty` and `blank` stand only beside == and !=');
    return { kind: literal };
  }
  if (TypeGuards.isNumberToken(token)) {
    if (!Number.isSafeInteger(Math.trunc(token.content))) throw bad(reader, begin, 'the number is too large: quote it');
    return { kind: 'value', value: token.content };
  }
  if (TypeGuards.isQuotedToken(token)) {
    if (skipQuoted(source, begin, end) !== end || end - begin < 2) throw bad(reader, begin, 'a quote is not closed');
    if (!token.content.isWellFormed()) throw bad(reader, begin, 'half of a surrogate pair is no character');
    return { kind: 'value', value: token.content };
  }
  if (TypeGuards.isRangeToken(token))
    return { kind: 'range', at: begin, from: readOperand(reader, block, token.lhs), to: readOperand(reader, block, token.rhs) };
  if (TypeGuards.isPropertyAccessToken(token)) return readPath(reader, block, token);
  throw bad(reader, begin, 'this cannot be read as a value');
}

function readPath(reader: Reader, block: Block, token: PropertyAccessToken): Path {
  const { source } = reader;
  const { begin: at, end, variable, props } = token;
  if (source[end - 1] === '.') throw bad(reader, end - 1, 'a key is missing after the dot');
  const keysOf = (tokens: readonly Token[]) => tokens.map((prop) => readKey(reader, block, prop));
  if (variable) return { kind: 'path', at, root: readOperand(reader, block, variable), keys: keysOf(props) };
  const [first, ...rest] = props;
  // Every path says by name what it is about: nobody gets at the secrets without naming them.
  if (!isWord(first)) throw bad(reader, at, 'begin with a name');
  const keys = keysOf(rest);
  const next = keys[0]?.key;
  const key = next?.kind === 'value' && typeof next.value === 'string' ? next.value : null;
  reader.uses.push({ name: first.content, key, at, inLoop: block.inLoop });
  return { kind: 'path', at, root: first.content, keys };
}

function readKey(reader: Reader, block: Block, prop: Token): Path['keys'][number] {
  count(reader, prop.begin);
  if (isWord(prop)) return { key: { kind: 'value', value: prop.content }, end: prop.end };
  if (prop.size() === 0) throw bad(reader, prop.begin, 'a key is missing in the brackets');
  const closing = /[ \t\r\n]*\]/y;
  closing.lastIndex = prop.end;
  if (!closing.test(reader.source)) throw bad(reader, prop.end, 'a bracket is not closed');
  return { key: readOperand(reader, block, prop), end: closing.lastIndex };
}

function isWord(token: Token | undefined): token is IdentifierToken {
  return TypeGuards.isWordToken(token) && token.size() > 0;
}

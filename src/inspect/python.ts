// Python read as far as it can be told for certain that no Python takes it. @lezer/python's tree is of no use for that: it has error nodes
// for one in twenty of the files that Python takes (a bare `yield`, `1.`, a form feed, `with a as b.c`).

export interface PythonToken {
  kind: 'name' | 'number' | 'string' | 'operator';
  text: string;
  offset: number;
  /** How many brackets are open around it. */
  depth: number;
}

/** A logical line: what Python reads as one, over brackets and backslashes. */
export interface PythonLine {
  tokens: PythonToken[];
  /** Not inside a function or a class. */
  module: boolean;
}

export interface PythonFault {
  offset: number;
  /** What is wrong and what to do, without the file's words. */
  problem: string;
}

export interface PythonSource {
  lines: PythonLine[];
  /** What no Python takes, the first of it. */
  fault: PythonFault | null;
  /** What only Python 2 takes. */
  python2: PythonFault | null;
}

/** Longer sources, in characters, are not read: hostile ones of this length take 0.2 s. */
export const MAX_SOURCE = 128 * 1024;

/** Reads a source as Python 2.7 to 3.14 would. What is too long to read has no lines and no faults. */
export function readPython(source: string): PythonSource {
  if (source.length > MAX_SOURCE) return { lines: [], fault: null, python2: null };
  const { rows, faults } = tokenize(source);
  const complete = faults.every(({ python2 }) => python2);
  const found: Fault[] = [...faults, ...checkLayout(rows, complete), ...rows.flatMap(checkRow)];
  const first = (python2: boolean) => {
    const faults = found.filter((fault) => (fault.python2 ?? false) === python2).sort((a, b) => a.offset - b.offset);
    return faults[0] ? { offset: faults[0].offset, problem: faults[0].problem } : null;
  };
  return { lines: rows.map(({ tokens, module }) => ({ tokens, module })), fault: first(false), python2: first(true) };
}

interface Fault extends PythonFault {
  python2?: boolean;
}

interface Row extends PythonLine {
  /** How far it is indented, with tabs to every eighth column, and with tabs as wide as a space. */
  indent: number;
  narrow: number;
}

const NUMBER =
  /(?:0[xX](?:_?[\da-fA-F])+|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|(?:\d(?:_?\d)*)?\.\d(?:_?\d)*(?:[eE][-+]?\d(?:_?\d)*)?|\d(?:_?\d)*\.?(?:[eE][-+]?\d(?:_?\d)*)?)[jJlL]?/;
const STRING = /(?:[bBfFtT][rR]|[rR][bBfFtT]|[uU][rR]|[rRbBuUfFtT])?(?:"""|'''|"|')/;
const NAME = /[\p{ID_Start}_]\p{ID_Continue}*/u;
const OPERATOR = /\*\*=|\/\/=|>>=|<<=|\.\.\.|[!<>=:+\-*/%@&|^]=|<>|->|\*\*|\/\/|>>|<<|[-+*/%@&|^~<>()[\]{},:.;=`]/;
const TOKEN = new RegExp(
  [
    String.raw`(?<blank>[ \t\f]+|\\(?:\r\n|\r|\n)|#[^\r\n]*)`,
    String.raw`(?<end>\r\n|\r|\n)`,
    `(?<string>${STRING.source})`,
    `(?<number>${NUMBER.source})`,
    `(?<name>${NAME.source})`,
    `(?<operator>${OPERATOR.source})`,
  ].join('|'),
  'uy',
);
const CLOSERS: ReadonlyMap<string, string> = new Map([
  [')', '('],
  [']', '['],
  ['}', '{'],
]);

/** Splits a source into logical lines. Where a string or a bracket is at fault, what follows cannot be told. */
function tokenize(source: string): { rows: Row[]; faults: Fault[] } {
  const rows: Row[] = [];
  const faults: Fault[] = [];
  const open: { bracket: string; offset: number }[] = [];
  const strings = { steps: 4 * source.length };
  let tokens: PythonToken[] = [];
  let margin = { indent: 0, narrow: 0 };
  let at = 0;
  const endRow = () => {
    if (tokens.length > 0) rows.push({ tokens, module: true, ...margin });
    tokens = [];
  };
  const stop = (offset: number, problem: string) => {
    faults.push({ offset, problem });
    return { rows, faults };
  };

  for (let start = true; at < source.length; ) {
    if (start) {
      const blank = /[ \t\f]*/y;
      blank.lastIndex = at;
      margin = measure(blank.exec(source)?.[0] ?? '');
      start = false;
    }
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(source);
    if (!match) {
      if (source[at] === '\\')
        return stop(at, 'a backslash continues a line only as its last character: remove what follows it');
      return stop(at, 'a character that Python does not know outside strings: type it anew (a curly quote, a $?)');
    }
    const [text] = match;
    const { blank, end, string, number, name } = match.groups as Record<string, string | undefined>;
    const offset = at;
    at += text.length;
    if (blank !== undefined) continue;
    if (end !== undefined) {
      if (open.length > 0) continue;
      endRow();
      start = true;
      continue;
    }
    const kind = string !== undefined ? 'string' : number !== undefined ? 'number' : name !== undefined ? 'name' : 'operator';
    if (kind === 'string') {
      at = endOfString(source, at, text, strings);
      if (at < 0) return stop(offset, 'the string that begins here is not closed: end it with the quote it begins with');
      if (/^ur/i.test(text))
        faults.push({ offset, python2: true, problem: 'Python 3 has no strings with ur before the quote' });
    }
    if (kind === 'number' && (/[lL]$/.test(text) || (/^0[\d_]+$/.test(text) && /[1-9]/.test(text))))
      faults.push({ offset, python2: true, problem: 'Python 3 writes octal numbers as 0o17, and long ones without an L' });
    if (text === '`' || text === '<>')
      faults.push({ offset, python2: true, problem: 'Python 3 has neither backquotes (write repr) nor <> (write !=)' });

    const opens = CLOSERS.get(text);
    if (opens !== undefined && open.pop()?.bracket !== opens)
      return stop(offset, 'the closing bracket does not fit the one that is open, or none is');
    tokens.push({ kind, text: source.slice(offset, at), offset, depth: open.length });
    if (text === '(' || text === '[' || text === '{') open.push({ bracket: text, offset });
  }
  const unclosed = open.at(-1);
  if (unclosed) return stop(unclosed.offset, 'the bracket that opens here is never closed');
  endRow();
  return { rows, faults };
}

/** As Python's tokenizer measures an indentation: a form feed begins anew. */
function measure(blank: string): { indent: number; narrow: number } {
  let [indent, narrow] = [0, 0];
  for (const char of blank) {
    if (char === '\f') [indent, narrow] = [0, 0];
    else [indent, narrow] = [char === '\t' ? indent - (indent % 8) + 8 : indent + 1, narrow + 1];
  }
  return { indent, narrow };
}

/** A string that is being read. */
interface Opening {
  quote: string;
  raw: boolean;
  /** How many strings it is in. */
  nesting: number;
  /** What reading all of a source's replacement fields may cost. */
  left: { steps: number };
}

/** How deep strings in strings are followed: Python 3.12 says 150, nobody writes 5. */
const MAX_NESTING = 20;

/** Where a string ends whose opening (prefix and quote) ends at `at`; -1 when it does not. */
function endOfString(source: string, at: number, opening: string, left: Opening['left'], nesting = 0): number {
  const quote = opening.replace(/^[a-zA-Z]+/, '');
  const prefix = opening.slice(0, opening.length - quote.length).toLowerCase();
  if (/[ft]/.test(prefix)) {
    // Since Python 3.12 a replacement field may hold the string's own quote (PEP 701); before, the first one ended it.
    const end = endOfFormat(source, at, { quote, raw: prefix.includes('r'), nesting, left });
    if (end >= 0) return end;
  }
  for (; at < source.length; at++) {
    if (source[at] === '\\') at += source.startsWith('\r\n', at + 1) ? 2 : 1;
    else if (source.startsWith(quote, at)) return at + quote.length;
    else if (quote.length === 1 && isLineBreak(source, at)) return -1;
  }
  return -1;
}

function endOfFormat(source: string, at: number, string: Opening): number {
  const { quote, raw, nesting, left } = string;
  if (nesting > MAX_NESTING) return -1;
  while (at >= 0 && at < source.length && left.steps-- > 0) {
    if (source.startsWith(quote, at)) return at + quote.length;
    if (source[at] === '\\') {
      const named = raw ? null : matchAt(/\\N\{[^{}\r\n]{1,100}\}/y, source, at);
      at += named?.length ?? (source.startsWith('\r\n', at + 1) ? 3 : /[{}]/.test(source[at + 1] ?? '') ? 1 : 2);
    } else if (source.startsWith('{{', at)) at += 2;
    else if (source[at] === '{') at = endOfField(source, at + 1, string);
    else if (quote.length === 1 && isLineBreak(source, at)) return -1;
    else at++;
  }
  return -1;
}

/** Where a replacement field ends whose brace ends at `at`. */
function endOfField(source: string, at: number, string: Opening): number {
  const { nesting, left } = string;
  for (let depth = 0; at >= 0 && at < source.length && left.steps-- > 0; ) {
    const char = source[at] as string;
    if (char === '"' || char === "'") {
      const quote = source.startsWith(char.repeat(3), at) ? char.repeat(3) : char;
      const prefix = /[a-zA-Z]{0,2}$/.exec(source.slice(Math.max(0, at - 2), at))?.[0] ?? '';
      at = endOfString(source, at + quote.length, prefix + quote, left, nesting + 1);
      continue;
    }
    if (char === ':' && depth === 0) return endOfSpecification(source, at + 1, string);
    if (char === '}' && depth === 0) return at + 1;
    if ('([{'.includes(char)) depth++;
    if (')]}'.includes(char)) depth--;
    at += char === '#' ? (matchAt(/#[^\r\n]*/y, source, at)?.length ?? 1) : 1;
  }
  return -1;
}

/** Where a replacement field ends whose colon ends at `at`. */
function endOfSpecification(source: string, at: number, string: Opening): number {
  const { quote, left } = string;
  while (at >= 0 && at < source.length && left.steps-- > 0) {
    if (source[at] === '}') return at + 1;
    if (source.startsWith(quote, at) || (quote.length === 1 && isLineBreak(source, at))) return -1;
    if (source[at] === '{') at = endOfField(source, at + 1, { ...string, nesting: string.nesting + 1 });
    else at++;
  }
  return -1;
}

function isLineBreak(source: string, at: number): boolean {
  return source[at] === '\n' || source[at] === '\r';
}

function matchAt(sticky: RegExp, source: string, at: number): string | undefined {
  sticky.lastIndex = at;
  return sticky.exec(source)?.[0];
}

const KEYWORDS = new Set(
  `and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not
   or pass raise return try while with yield`.split(/\s+/),
);
/** They begin a statement or are no Python. (`nonlocal` is a name in Python 2.) */
const STATEMENTS = new Set(
  'assert break class continue def del elif except finally global pass raise return try while'.split(' '),
);
const COMPOUND = new Set('class def elif else except finally for if try while with'.split(' '));
/** What needs something on both sides. */
const BINARY = new Set('/ // % | ^ & << >> == != < > <= >= = += -= *= /= //= %= @= &= |= ^= >>= <<= **='.split(' '));

/** The indentation as Python judges it; marks what is inside a function or a class. Not complete: more rows follow, which could not be read. */
function checkLayout(rows: readonly Row[], complete: boolean): Fault[] {
  const faults: Fault[] = [];
  const levels = [{ indent: 0, narrow: 0, module: true }];
  let opener: Row | null = null;
  for (const row of rows) {
    const offset = row.tokens[0]?.offset ?? 0;
    let top = levels.at(-1) as (typeof levels)[0];
    if (opener && row.indent <= top.indent) {
      faults.push({ offset, problem: 'indent this line: the line before it ends in a colon' });
      return faults;
    }
    if (!opener && row.indent > top.indent) {
      faults.push({ offset, problem: 'this line is indented, but the line before it opens no block' });
      return faults;
    }
    if (opener) {
      if (row.narrow <= top.narrow) faults.push({ offset, python2: true, problem: MIXED });
      const inner = /^(?:def|class)$/.test(keyword(opener.tokens) ?? '');
      levels.push({ indent: row.indent, narrow: row.narrow, module: top.module && !inner });
    }
    while (row.indent < top.indent) {
      levels.pop();
      top = levels.at(-1) as (typeof levels)[0];
    }
    top = levels.at(-1) as (typeof levels)[0];
    if (row.indent !== top.indent) {
      faults.push({ offset, problem: 'indent this line as far as one of the blocks around it' });
      return faults;
    }
    if (row.narrow !== top.narrow) faults.push({ offset, python2: true, problem: MIXED });
    row.module = top.module;
    opener = row.tokens.at(-1)?.text === ':' ? row : null;
  }
  if (opener && complete)
    faults.push({ offset: opener.tokens.at(-1)?.offset ?? 0, problem: 'an indented block is missing after this colon' });
  return faults;
}

const MIXED = 'Python 3 takes no mixture of tabs and spaces: indent with spaces';

/** `def` of `async def`. */
function keyword(tokens: readonly PythonToken[]): string | undefined {
  return tokens[0]?.text === 'async' ? tokens[1]?.text : tokens[0]?.text;
}

/** What can be told of a line by its tokens alone; the first is enough. */
function checkRow({ tokens }: Row): Fault[] {
  const fault = checkHead(tokens) ?? checkNeighbours(tokens);
  return fault ? [fault] : [];
}

function checkHead(tokens: readonly PythonToken[]): Fault | null {
  const [first, second] = tokens as [PythonToken, ...PythonToken[]];
  const last = tokens.at(-1) as PythonToken;
  const outside = tokens.filter(({ depth }) => depth === 0);
  const colon = outside.findIndex(({ text }) => text === ':');
  const head = colon < 0 ? outside : outside.slice(0, colon);
  const has = (text: string) => head.some((token) => token.text === text);
  const word = keyword(tokens) ?? '';
  const after = first.text === 'async' ? tokens[2] : second;

  if (first.text === 'else' && second?.text === 'if') return { offset: first.offset, problem: 'write elif for "else if"' };
  if (COMPOUND.has(word)) {
    const colons = outside.filter(({ text }) => text === ':').length - outside.filter(({ text }) => text === 'lambda').length;
    if (colons < 1) return { offset: last.offset + last.text.length, problem: `a colon is missing after ${word}` };
  } else if (last.text === ':' && first.text !== 'match' && first.text !== 'case')
    return { offset: last.offset, problem: 'this colon ends a line that begins no block' };
  if (/^(?:else|try|finally)$/.test(word) && after?.text !== ':')
    return { offset: after?.offset ?? first.offset, problem: `a colon must follow ${word}` };
  if (/^(?:def|class)$/.test(word) && after?.kind !== 'name')
    return { offset: after?.offset ?? first.offset, problem: `a name must follow ${word}` };
  if (/^(?:if|elif|while)$/.test(word) && has('=') && !has('lambda'))
    return { offset: head.find(({ text }) => text === '=')?.offset ?? 0, problem: 'write == to compare' };
  if (word === 'from' && !tokens.some(({ text }) => text === 'import'))
    return { offset: first.offset, problem: 'from … needs an import' };
  if (last.kind === 'operator' && (BINARY.has(last.text) || /^[-+.]$/.test(last.text)) && !/^(?:from|print)$/.test(word))
    return { offset: last.offset, problem: 'the line ends where something must follow' };

  if (word === 'except' && has(',') && !has('as'))
    return { offset: first.offset, python2: true, problem: 'Python 3 writes "except Error as name:"' };
  if (word === 'raise' && has(',')) return { offset: first.offset, python2: true, problem: 'Python 3 writes raise Error(…)' };
  if (first.text === 'print' && second?.text === '>>') return { offset: first.offset, python2: true, problem: PRINT };
  return null;
}

const PRINT = 'print and exec are functions in Python 3: put brackets around what follows';

function checkNeighbours(tokens: readonly PythonToken[]): Fault | null {
  for (const [index, token] of tokens.entries()) {
    const before = tokens[index - 1];
    if (!before) continue;
    const begins = (at: number) => at === 0 || (tokens[at - 1]?.depth === 0 && [':', ';'].includes(tokens[at - 1]?.text ?? ''));
    if (token.kind === 'name' && STATEMENTS.has(token.text) && !begins(index) && before.text !== 'async')
      return { offset: token.offset, problem: 'a statement begins in the middle of a line' };
    if (BINARY.has(before.text) && BINARY.has(token.text) && before.kind === 'operator' && token.kind === 'operator')
      return { offset: token.offset, problem: 'two operators stand side by side' };
    if (!endsOperand(before) || !beginsOperand(token) || (before.kind === 'string' && token.kind === 'string')) continue;
    // `from ...package import x`
    if (before.text === '...' && tokens[0]?.text === 'from') continue;
    if (before.kind === 'name' && begins(index - 1)) {
      if (before.text === 'print' || before.text === 'exec') return { offset: before.offset, python2: true, problem: PRINT };
      if (/^(?:match|case|type)$/.test(before.text)) continue;
    }
    return {
      offset: token.offset,
      problem: 'two things stand side by side: an operator, a comma, a quote or a line break is missing',
    };
  }
  return null;
}

function endsOperand({ kind, text }: PythonToken): boolean {
  return kind === 'operator' ? /^(?:[)\]}]|\.\.\.)$/.test(text) : kind !== 'name' || !KEYWORDS.has(text);
}

function beginsOperand({ kind, text }: PythonToken): boolean {
  return kind === 'operator' ? text === '{' : kind !== 'name' || !KEYWORDS.has(text) || text === 'lambda';
}

import type { Finding } from '../domain/finding.ts';
import { placeAt } from './offset.ts';
import { notJudged } from './remark.ts';
import { matchPrefix, trimStart } from './sniff.ts';
import { closestKey } from './spelling.ts';

/** Longer templates are not read: hostile ones of this length take 0.2 s. */
const MAX_SOURCE = 128 * 1024;

/**
 * Judges a part that cloud-init renders with Jinja2 on the machine: whether it renders at all (templater.py), and whether cloud-init takes what comes
 * out (handlers/jinja_template.py: only cloud-configs and plain scripts). Variables are not judged: they are known on the machine only.
 * That the part's first line is right is seen to in sniff.ts.
 */
export function inspectJinja(filename: string, _type: string, body: Uint8Array): Finding[] {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  if (text.length > MAX_SOURCE)
    return [notJudged(filename, `the template is not judged: it has more than ${MAX_SOURCE} characters`)];
  const start = text.indexOf('\n') + 1 || text.length;
  const report = ({ severity, code, offset, message }: Remark): Finding => ({
    severity,
    code,
    part: filename,
    ...placeAt(text, offset),
    message,
  });
  const { pieces, fault } = readTemplate(text, start);
  if (fault) return [report({ severity: 'error', code: 'jinja_syntax', ...fault })];
  return [checkResult(text, start, pieces), checkTags(pieces), ...checkWords(pieces)].flatMap((remark) =>
    remark ? [report(remark)] : [],
  );
}

interface Remark {
  severity: Finding['severity'];
  code: string;
  offset: number;
  message: string;
}

interface Fault {
  offset: number;
  message: string;
}

interface Token {
  kind: 'name' | 'number' | 'string' | 'operator';
  text: string;
  offset: number;
  /** Nothing stands between it and the token before it. */
  glued: boolean;
}

/** `{% … %}`, `{{ … }}` or `{# … #}` (and a whole `raw` block is one of these too: nothing in it counts). */
interface Piece {
  kind: 'block' | 'variable' | 'comment' | 'raw';
  offset: number;
  /** Where it ends; of a block or comment with the line break after it, which cloud-init has cut off (trim_blocks). */
  end: number;
  tokens: Token[];
}

/** Tokens of Jinja's lexer (jinja2/lexer.py): a string may hold line breaks; what is in no alternative is no Jinja. */
const TOKEN =
  /(?<blank>\s+)|(?<string>'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*")|(?<number>0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0[xX](?:_?[\da-fA-F])+|\d(?:_?\d)*(?:\.\d(?:_?\d)*)?(?:[eE][-+]?\d(?:_?\d)*)?)|(?<name>[\p{ID_Start}_]\p{ID_Continue}*)|(?<operator>\/\/|\*\*|[=!<>]=|[-+/*%~[\](){}<>=.:|,;])/uy;
const RAW = /\{%[-+]?\s*raw\s*-?%\}/y;
const ENDRAW = /\{%[-+]?\s*endraw\s*[-+]?%\}\n?/g;
/** More than anybody's expression has in each other. */
const MAX_DEPTH = 1000;

/** Splits a template at its braces, as Jinja does; what is wrong there ends it. */
function readTemplate(text: string, start: number): { pieces: Piece[]; fault: Fault | null } {
  const pieces: Piece[] = [];
  const stop = (offset: number, message: string) => ({ pieces, fault: { offset, message } });
  const opening = /\{[{%#]/g;
  opening.lastIndex = start;
  for (let match = opening.exec(text); match; match = opening.exec(text)) {
    const offset = match.index;
    if (match[0] === '{#') {
      const end = text.indexOf('#}', offset + 2);
      if (end < 0)
        return stop(
          offset,
          "the comment that begins here is not closed: end it with #}, or put it into {% raw %} … {% endraw %} if it is a shell's",
        );
      pieces.push({ kind: 'comment', offset, end: pastLineBreak(text, end + 2), tokens: [] });
    } else if (match[0] === '{%' && matchAt(RAW, text, offset) !== null) {
      ENDRAW.lastIndex = offset;
      const end = ENDRAW.exec(text);
      // Jinja forgives one that nothing follows.
      if (!end && RAW.lastIndex === text.length) break;
      if (!end) return stop(offset, 'the raw block that begins here is not closed: end it with {% endraw %}');
      pieces.push({ kind: 'raw', offset, end: ENDRAW.lastIndex, tokens: [] });
    } else {
      const kind = match[0] === '{%' ? 'block' : 'variable';
      const read = readExpression(text, offset + 2, kind);
      if ('message' in read) return stop(read.offset, read.message);
      const { tokens, end } = read;
      pieces.push({ kind, offset, end: kind === 'block' ? pastLineBreak(text, end) : end, tokens });
    }
    opening.lastIndex = pieces.at(-1)?.end ?? text.length;
  }
  return { pieces, fault: null };
}

/** The inside of `{{ … }}` or `{% … %}`. An end that stands in brackets is none: `{{ {'a': {}} }}`. */
function readExpression(text: string, start: number, kind: 'block' | 'variable'): { tokens: Token[]; end: number } | Fault {
  const close = kind === 'block' ? /[-+]?%\}/y : /-?\}\}/y;
  const what = kind === 'block' ? '{% … %}' : '{{ … }}';
  const tokens: Token[] = [];
  const open: string[] = [];
  const sign = matchAt(kind === 'block' ? /[-+]/y : /-/y, text, start) ?? '';
  for (let at = start + sign.length, glued = false; ; ) {
    if (at >= text.length) return { offset: start - 2, message: `what begins here is not closed: ${what}` };
    const end = open.length === 0 ? matchAt(close, text, at) : null;
    if (end !== null) return { tokens, end: at + end.length };
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (!match) return { offset: at, message: `this character has no meaning in ${what}: is it not closed, or a quote?` };
    const [word] = match;
    const { blank, string, number, name } = match.groups as Record<string, string | undefined>;
    const offset = at;
    at += word.length;
    if (blank !== undefined) {
      glued = false;
      continue;
    }
    if ('([{'.includes(word)) open.push(word);
    if (')]}'.includes(word) && open.pop() !== { ')': '(', ']': '[', '}': '{' }[word])
      return { offset, message: 'the closing bracket does not fit the one that is open, or none is' };
    if (open.length > MAX_DEPTH) return { offset, message: 'the brackets are too deep in each other' };
    const tokenKind =
      string !== undefined ? 'string' : number !== undefined ? 'number' : name !== undefined ? 'name' : 'operator';
    tokens.push({ kind: tokenKind, text: word, offset, glued });
    glued = true;
  }
}

function pastLineBreak(text: string, at: number): number {
  return matchAt(/\r?\n/y, text, at) === null ? at : text.indexOf('\n', at) + 1;
}

function matchAt(sticky: RegExp, text: string, at: number): string | null {
  sticky.lastIndex = at;
  return sticky.exec(text)?.[0] ?? null;
}

/** What comes out begins as the template does, unless an expression or a condition has a say in that. */
function checkResult(text: string, start: number, pieces: readonly Piece[]): Remark | null {
  let at = start;
  let skipped = '';
  let stripped = false;
  for (const piece of pieces) {
    const before = text.slice(at, piece.offset);
    if (before.trim() !== '' || !isSilent(piece)) break;
    skipped += before;
    stripped ||= /^\{.-|-.\}\s*$/.test(text.slice(piece.offset, piece.end));
    at = piece.end;
  }
  const next = pieces.find(({ offset }) => offset >= at);
  const literal = text.slice(at, next?.offset ?? text.length);
  const begins = trimStart(literal);
  const error = (code: string, message: string): Remark => ({
    severity: 'error',
    code,
    offset: at + literal.length - begins.length,
    message,
  });
  // Too little is literal: an expression goes on with the first line.
  if (next && begins.length < LONGEST_MARK && !begins.includes('\n')) return null;
  const type = matchPrefix(begins);
  // A jsonp is merged as YAML then (handlers/cloud_config.py goes by the part's type), and lost.
  if (type !== 'text/cloud-config' && type !== 'text/x-shellscript')
    return error(
      'jinja_content',
      'cloud-init renders only what begins with #cloud-config or #! after the line of the template',
    );
  if (type === 'text/x-shellscript' && !stripped && /^\s/.test(skipped + literal))
    return error(
      'jinja_shebang',
      'the script would begin with white space, so it cannot be run: put #! right after the first line',
    );
  return null;
}

const LONGEST_MARK = '#cloud-config-archive'.length;

/** Writes nothing, whatever the variables are. */
function isSilent({ kind, tokens }: Piece): boolean {
  const isAssignment = tokens[0]?.text === 'set' && tokens.some(({ text }) => text === '=');
  return kind === 'comment' || (kind === 'block' && (isAssignment || tokens[0]?.text === 'do'));
}

/** Which tags close a tag, and which may stand in between (jinja2/parser.py); `do` is cloud-init's one extension (templater.py). */
const CLOSED: ReadonlyMap<string, string> = new Map([
  ['if', 'endif'],
  ['for', 'endfor'],
  ['block', 'endblock'],
  ['macro', 'endmacro'],
  ['call', 'endcall'],
  ['filter', 'endfilter'],
  ['with', 'endwith'],
  ['autoescape', 'endautoescape'],
  ['set', 'endset'],
]);
const LOADING = new Set(['include', 'import', 'from', 'extends']);
const TAGS = new Set([...CLOSED.keys(), ...CLOSED.values(), ...LOADING, 'elif', 'else', 'do', 'print', 'raw', 'endraw']);

/** The first tag that does not fit the others, or else the first that loads a file. */
function checkTags(pieces: readonly Piece[]): Remark | null {
  const open: { tag: string; offset: number; last: boolean }[] = [];
  let loading: Remark | null = null;
  const error = (offset: number, message: string): Remark => ({ severity: 'error', code: 'jinja_syntax', offset, message });
  for (const { kind, offset, tokens } of pieces) {
    if (kind !== 'block') continue;
    const tag = tokens[0]?.kind === 'name' ? tokens[0].text : null;
    const top = open.at(-1);
    if (tag === null) return error(offset, 'a tag begins with its name: if, for, set …');
    if (!TAGS.has(tag))
      return error(offset, 'Jinja has no such tag in cloud-init: put it into {% raw %} … {% endraw %} if it is text');
    if (LOADING.has(tag)) {
      // Within a condition it may never come to that.
      const severity = open.length > 0 ? 'warning' : 'error';
      loading ??= {
        severity,
        code: 'jinja_loader',
        offset,
        message: 'the machine has no files for this, and cloud-init drops the part: write it in here',
      };
    }
    if (tag === 'elif' || tag === 'else') {
      if ((top?.tag !== 'if' && (top?.tag !== 'for' || tag === 'elif')) || top.last)
        return error(offset, `${tag} stands where no if is open for it`);
      if (tag === 'else') top.last = true;
    } else if (tag.startsWith('end')) {
      if (!top || CLOSED.get(top.tag) !== tag) return error(offset, `${tag} closes nothing that is open here`);
      open.pop();
    } else if (tag !== 'set' ? CLOSED.has(tag) : !tokens.some(({ text }) => text === '='))
      open.push({ tag, offset, last: false });
  }
  const unclosed = open.at(-1);
  if (!unclosed) return loading;
  return error(unclosed.offset, `the ${unclosed.tag} that begins here is not closed: end it with ${CLOSED.get(unclosed.tag)}`);
}

/** Jinja's own filters and tests (jinja2/filters.py and tests.py of 3.1); cloud-init adds none. */
const FILTERS = new Set(
  `abs attr batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format groupby indent int items
   join last length list lower map max min pprint random reject rejectattr replace reverse round safe select selectattr slice sort string
   striptags sum title tojson trim truncate unique upper urlencode urlize wordcount wordwrap xmlattr`.split(/\s+/),
);
/** Words between operands. */
const WORDS = new Set(['and', 'else', 'if', 'in', 'is', 'not', 'or']);

function checkWords(pieces: readonly Piece[]): Remark[] {
  const remarks: Remark[] = [];
  for (const { kind, offset, tokens } of pieces) {
    if (kind !== 'block' && kind !== 'variable') continue;
    const tag = kind === 'block' ? tokens[0]?.text : null;
    const isExpression = tag === null || tag === 'if' || tag === 'elif' || tag === 'do';
    const expression = tag === null ? tokens : tokens.slice(1);
    if (isExpression && expression.length === 0)
      return [{ severity: 'error', code: 'jinja_syntax', offset, message: 'an expression is missing between the braces' }];
    const fault = isExpression ? checkExpression(expression) : null;
    if (fault) return [{ severity: 'error', code: 'jinja_syntax', ...fault }];
    if (remarks.length < MAX_REMARKS) remarks.push(...checkFilters(tokens), ...checkHyphens(tokens));
  }
  return remarks.slice(0, MAX_REMARKS);
}

const MAX_REMARKS = 20;

/** Two operands side by side, and `=` where `==` was meant. */
function checkExpression(tokens: readonly Token[]): Fault | null {
  let depth = 0;
  for (const [index, token] of tokens.entries()) {
    const before = tokens[index - 1];
    if (token.kind === 'operator') {
      if ('([{'.includes(token.text)) depth++;
      if (')]}'.includes(token.text)) depth--;
      if (token.text === '=' && depth === 0) return { offset: token.offset, message: 'write == to compare, or {% set … %}' };
      continue;
    }
    if (WORDS.has(token.text) || !before || (before.kind === 'string' && token.kind === 'string')) continue;
    const ends =
      before.kind === 'operator' ? /^[)\]}]$/.test(before.text) : !(before.kind === 'name' && WORDS.has(before.text));
    // A test takes one argument without brackets: `x is divisibleby 3`.
    const isTest = ['is', 'not'].includes(tokens[index - 2]?.text ?? '');
    if (ends && !isTest)
      return { offset: token.offset, message: 'two things stand side by side: an operator or a quote is missing' };
  }
  return null;
}

/** A filter that Jinja has not, such as Ansible's. */
function checkFilters(tokens: readonly Token[]): Remark[] {
  const unknown = tokens.filter(({ kind, text }, index) => {
    const isFilter = tokens[index - 1]?.text === '|' || (index === 1 && tokens[0]?.text === 'filter');
    return isFilter && kind === 'name' && !FILTERS.has(text);
  });
  return unknown.slice(0, MAX_REMARKS).map(({ text, offset }) => {
    const meant = closestKey(text, FILTERS);
    const message = `Jinja has no such filter in cloud-init, which then drops the part${meant === null ? '' : `: did you mean ${meant}?`}`;
    return { severity: 'warning', code: 'jinja_filter', offset, message };
  });
}

/** `v1.local-hostname` is a subtraction, at which cloud-init drops the part (templater.py, UndefinedJinjaVariable). */
function checkHyphens(tokens: readonly Token[]): Remark[] {
  return tokens.flatMap((token, index) => {
    const [dot, key, minus, after] = [tokens[index - 3], tokens[index - 2], tokens[index - 1], tokens[index + 1]];
    if (dot?.text !== '.' || key?.kind !== 'name' || minus?.text !== '-' || token.kind !== 'name') return [];
    if (!minus.glued || !token.glued || after?.text === '(' || after?.text === '.') return [];
    const message = 'Jinja reads this - as minus: cloud-init knows such keys with _ in its place too';
    return [{ severity: 'warning' as const, code: 'jinja_hyphen', offset: minus.offset, message }];
  });
}

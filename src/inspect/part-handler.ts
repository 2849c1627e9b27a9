import type { parser } from '@lezer/python';
import type { Finding } from '../domain/finding.ts';
import { placeAt } from './offset.ts';
import { MAX_SOURCE, type PythonLine, type PythonToken, readPython } from './python.ts';
import { notJudged } from './remark.ts';

type SyntaxNode = ReturnType<(typeof parser)['parse']>['topNode'];

/**
 * The MIME types a part handler takes: what its `list_types` returns, where that is a literal list, tuple or set of strings, or a
 * name bound once to one (in the function or in the module). The source is parsed, never run; the parser loads at the first call.
 * Parsing hostile Python costs about 10 s per MB, so that of a long source they are not read.
 * @returns null when they cannot be read so
 */
export async function handlerTypes(source: string): Promise<string[] | null> {
  if (source.length > MAX_SOURCE || !source.includes('list_types')) return null;
  const { parser } = await import('@lezer/python');
  const module = parser.parse(source).topNode;

  const text = (node: SyntaxNode | null): string => (node ? source.slice(node.from, node.to) : '');
  const define = module
    .getChildren('FunctionDefinition')
    .findLast((node) => text(node.getChild('VariableName')) === 'list_types');
  const body = define?.getChild('Body');
  if (!body || text(define?.firstChild ?? null) !== 'def') return null;
  // More than one way out, or one that may not be taken: what is returned depends on more than the source.
  const returns = descendants(body, 'ReturnStatement');
  const answer = returns[0];
  if (!answer || returns.length > 1 || answer.parent?.from !== body.from || answer.parent.name !== 'Body') return null;

  const uses = Map.groupBy(descendants(module, 'VariableName'), text);
  /** The one value a name is ever bound to, or null. */
  const bound = (name: string): SyntaxNode | null => {
    const bindings: SyntaxNode[] = [];
    for (const use of uses.get(name) ?? []) {
      const { parent } = use;
      if (parent?.name === 'AssignStatement' && use.nextSibling) {
        if (parent.parent?.name !== 'Script' && parent.parent?.from !== body.from) return null;
        bindings.push(parent);
      } else if (!READING.has(parent?.name ?? '') || use.prevSibling?.name === 'for') return null;
    }
    const [binding] = bindings;
    return binding && bindings.length === 1 && binding.getChildren('AssignOp').length === 1 ? binding.lastChild : null;
  };

  const strings = (node: SyntaxNode | null): string[] | null => {
    const expression = unwrap(node);
    if (!expression) return null;
    if (!['ArrayExpression', 'TupleExpression', 'SetExpression'].includes(expression.name)) return null;
    return collect(elements(expression), (element) => stringOf(element, text, bound));
  };

  const items = elements(answer).filter((node) => node.name !== 'return');
  if (items.length > 1 || source.slice(answer.from, answer.to).trimEnd().endsWith(',')) {
    return collect(items, (element) => stringOf(element, text, bound));
  }
  const only = unwrap(items[0] ?? null);
  return strings(only?.name === 'VariableName' ? bound(text(only)) : only);
}

/** Where a name only stands to be read; anywhere else (a call's target, `+=`, `del`, `for`, a parameter …) it may change. */
const READING = new Set([
  'ArgList',
  'ArrayExpression',
  'AssignStatement',
  'BinaryExpression',
  'ConditionalExpression',
  'ForStatement',
  'ParenthesizedExpression',
  'ReturnStatement',
  'SetExpression',
  'TupleExpression',
  'UnaryExpression',
]);

function descendants(root: SyntaxNode, name: string): SyntaxNode[] {
  const found: SyntaxNode[] = [];
  root.cursor().iterate((node) => {
    if (node.name === name) found.push(node.node);
  });
  return found;
}

/** Inside any number of brackets. */
function unwrap(node: SyntaxNode | null): SyntaxNode | null {
  let inner = node;
  while (inner?.name === 'ParenthesizedExpression') inner = elements(inner)[0] ?? null;
  return inner;
}

/** What stands between brackets and commas. */
function elements(node: SyntaxNode): SyntaxNode[] {
  const found: SyntaxNode[] = [];
  for (let child = node.firstChild; child; child = child.nextSibling) {
    if (!['(', ')', '[', ']', '{', '}', ',', 'Comment'].includes(child.name)) found.push(child);
  }
  return found;
}

function stringOf(
  node: SyntaxNode,
  text: (node: SyntaxNode) => string,
  bound: (name: string) => SyntaxNode | null,
): string | null {
  const literal = node.name === 'VariableName' ? bound(text(node)) : unwrap(node);
  if (literal?.name === 'ContinuedString')
    return collect(elements(literal), (part) => plainString(part, text))?.join('') ?? null;
  return literal ? plainString(literal, text) : null;
}

/** A string literal without escapes (no MIME type needs one); not bytes and not an f-string. */
function plainString(node: SyntaxNode, text: (node: SyntaxNode) => string): string | null {
  if (node.name !== 'String') return null;
  const match = /^[rRuU]?("""|'''|"|')([^\\]*)\1$/.exec(text(node));
  return match?.[2] ?? null;
}

function collect<T>(nodes: readonly SyntaxNode[], read: (node: SyntaxNode) => T | null): T[] | null {
  const found: T[] = [];
  for (const node of nodes) {
    const value = read(node);
    if (value === null) return null;
    found.push(value);
  }
  return found;
}

/**
 * Judges a part handler: whether Python can import it, and whether cloud-init can call what it defines. On the machine each of these is one warning
 * in a log (handlers/__init__.py, walker_handle_handler and run_part). What only Python 2 takes is a warning: images of 2014 have it.
 */
export function inspectPartHandler(filename: string, _type: string, body: Uint8Array): Finding[] {
  const source = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  if (source.length > MAX_SOURCE)
    return [notJudged(filename, `the part handler is not judged: it has more than ${MAX_SOURCE} characters`)];
  const { lines, fault, python2 } = readPython(source);
  const report = (severity: Finding['severity'], code: string, offset: number, message: string): Finding => ({
    severity,
    code,
    part: filename,
    ...placeAt(source, offset),
    message,
  });
  const findings: Finding[] = [];
  if (python2)
    findings.push(
      report('warning', 'handler_python2', python2.offset, `cloud-init of today cannot import this: ${python2.problem}`),
    );
  if (fault)
    return [...findings, report('error', 'handler_syntax', fault.offset, `Python cannot import this: ${fault.problem}`)];
  if (lines.length === 0) return findings;
  const remarks = [...checkNames(lines), ...checkVersion(lines), ...checkFrequency(lines), ...checkWrites(lines)];
  return [...findings, ...remarks.map(({ severity, code, offset, message }) => report(severity, code, offset, message))];
}

interface Remark {
  severity: Finding['severity'];
  code: string;
  offset: number;
  message: string;
}

/** With one of these a module has names that a look at it does not show. */
const HIDDEN = new Set(['globals', 'locals', 'vars', 'exec', 'execfile', 'setattr', '__getattr__', '__dict__', 'modules']);

/** cloud-init asks the module for both by name; `list_types` when it registers it, `handle_part` for each part. */
function checkNames(lines: readonly PythonLine[]): Remark[] {
  const hidden = lines.some(
    ({ tokens }) =>
      tokens.some(({ kind, text }) => kind === 'name' && HIDDEN.has(text)) ||
      (/^(?:from|import)$/.test(tokens[0]?.text ?? '') && tokens.at(-1)?.text === '*'),
  );
  if (hidden) return [];
  const missing = ['list_types', 'handle_part'].filter(
    (name) => !lines.some(({ module, tokens }) => (module && binds(tokens, name)) || isGlobal(tokens, name)),
  );
  if (missing.length === 0) return [];
  const message = `a part handler needs a function ${missing.join(' and a function ')} that is not inside another function or class`;
  return [{ severity: 'error', code: 'handler_incomplete', offset: 0, message }];
}

/** Whether a line may give a name a value, rather in doubt than not: a function's or a class's own name, an import's, or a target's. */
function binds(tokens: readonly PythonToken[], name: string): boolean {
  const head = tokens[0]?.text === 'async' ? 1 : 0;
  if (/^(?:def|class)$/.test(tokens[head]?.text ?? '')) return tokens[head + 1]?.text === name;
  return tokens.some(({ kind, text, depth }, index) => {
    if (kind !== 'name' || text !== name || tokens[index - 1]?.text === '.') return false;
    const next = tokens[index + 1]?.text;
    if (next === undefined || [':=', ',', ':', ')', 'in'].includes(next)) return true;
    return (next === '=' && depth === 0) || ['import', 'as'].includes(tokens[index - 1]?.text ?? '');
  });
}

function isGlobal(tokens: readonly PythonToken[], name: string): boolean {
  return tokens[0]?.text === 'global' && tokens.some(({ text }) => text === name);
}

/** handlers/__init__.py, run_part: what `handle_part` is given in each version. */
const ARGUMENTS: ReadonlyMap<number, string> = new Map([
  [1, 'data, ctype, filename, payload'],
  [2, 'data, ctype, filename, payload, frequency'],
  [3, 'data, ctype, filename, payload, frequency, headers'],
]);

function checkVersion(lines: readonly PythonLine[]): Remark[] {
  const stated = onlyValue(lines, 'handler_version');
  if (stated === 'unclear') return [];
  const version = stated === null ? 1 : versionOf(stated);
  const given = version === null ? undefined : ARGUMENTS.get(version);
  if (given === undefined) {
    if (version === null || stated === null) return [];
    const message = 'cloud-init knows the versions 1, 2 and 3, and calls no handler of another one: say one of them';
    return [{ severity: 'error', code: 'handler_version', offset: stated.offset, message }];
  }
  const types = checkArguments(lines, 'list_types', 0, 'cloud-init calls list_types without arguments');
  const message = `cloud-init calls handle_part with ${given} (handler_version ${version}): take these`;
  return [...types, ...checkArguments(lines, 'handle_part', given.split(',').length, message)];
}

/** As `int(…)` reads a literal; 1 where it cannot (run_part), null where it cannot be told. */
function versionOf({ kind, text }: PythonToken): number | null {
  if (kind === 'number') return /^\d{1,9}$/.test(text) ? Number(text) : null;
  if (kind === 'name') return text === 'None' ? 1 : null;
  const literal = /^(["'])\s*(\d{1,9})\s*\1$/.exec(text)?.[2];
  return literal === undefined ? null : Number(literal);
}

function checkFrequency(lines: readonly PythonLine[]): Remark[] {
  const stated = onlyValue(lines, 'frequency');
  if (stated === null || stated === 'unclear') return [];
  const word = stated.kind === 'string' ? /^[uUrR]?(["'])(.*)\1$/s.exec(stated.text)?.[2] : stated.text;
  const called =
    stated.kind === 'string' ? /^(?:always|once-per-instance)$/.test(word ?? '') : !/^(?:PER_ONCE|None)$/.test(word ?? '');
  if (called) return [];
  const message = 'cloud-init calls only handlers whose frequency is PER_INSTANCE (as without it) or PER_ALWAYS';
  return [{ severity: 'error', code: 'handler_frequency', offset: stated.offset, message }];
}

/** What the module binds a name to: the one token on the right, null when it does not bind it, `unclear` for anything else. */
function onlyValue(lines: readonly PythonLine[], name: string): PythonToken | 'unclear' | null {
  const binding = lines.filter(({ module, tokens }) => (module && binds(tokens, name)) || isGlobal(tokens, name));
  const [line] = binding;
  if (!line) return null;
  const [target, equals, value, more] = line.tokens;
  const plain =
    binding.length === 1 && target?.text === name && equals?.text === '=' && value && !more && value.kind !== 'operator';
  return plain ? value : 'unclear';
}

/** A TypeError at each call, where the function's parameters can be told from the source. */
function checkArguments(lines: readonly PythonLine[], name: string, count: number, message: string): Remark[] {
  const bindings = lines.filter(({ module, tokens }) => module && binds(tokens, name));
  const [line] = bindings;
  const index = line ? lines.indexOf(line) : -1;
  const decorated = lines[index - 1]?.tokens[0]?.text === '@';
  if (!line || bindings.length > 1 || decorated || line.tokens[0]?.text !== 'def' || line.tokens[2]?.text !== '(') return [];
  const { required, most, keywords } = countParameters(line.tokens);
  if (required <= count && count <= most && !keywords) return [];
  return [{ severity: 'error', code: 'handler_arguments', offset: line.tokens[0].offset, message }];
}

/** How many arguments a `def` line's function needs and takes, and whether it needs one by its name. */
function countParameters(tokens: readonly PythonToken[]): { required: number; most: number; keywords: boolean } {
  const counted = { required: 0, most: 0, keywords: false };
  let byName = false;
  let parameter: PythonToken[] = [];
  const count = () => {
    const [first, second] = parameter;
    const optional = parameter.some(({ depth, text }) => depth === 1 && text === '=');
    if (first?.text === '*') {
      byName = true;
      if (second) counted.most = Number.POSITIVE_INFINITY;
    } else if (first && first.text !== '**' && first.text !== '/') {
      if (byName) counted.keywords ||= !optional;
      else {
        counted.most++;
        if (!optional) counted.required++;
      }
    }
    parameter = [];
  };
  for (const token of tokens.slice(3)) {
    if (token.depth === 0) break;
    if (token.depth === 1 && token.text === ',') count();
    else parameter.push(token);
  }
  count();
  return counted;
}

/**
 * The mistake of the handlers of 2014: a payload of type text/* is a `str` on Python 3, and a file opened for bytes refuses it. Told only of what is
 * written as those did: `with open(…, 'wb') as f:` and `f.write(payload)`, and nothing in the source that looks at the payload's kind.
 */
function checkWrites(lines: readonly PythonLine[]): Remark[] {
  const handle = lines.find(({ module, tokens }) => module && tokens[0]?.text === 'def' && tokens[1]?.text === 'handle_part');
  const payload = handle?.tokens.filter(({ depth, kind }) => depth === 1 && kind === 'name')[3]?.text;
  if (payload === undefined || !/^\w+$/.test(payload)) return [];
  const all = lines.flatMap(({ tokens }) => tokens);
  if (all.some(({ text }) => /^(?:isinstance|encode|bytes|type|except|TypeError)$/.test(text))) return [];
  const rebound = ({ tokens }: PythonLine) =>
    tokens.some(({ text }, index) => text === payload && (tokens[index + 1]?.text === '=' || tokens[index - 1]?.text === 'as'));
  if (lines.some(rebound)) return [];
  const opened = new Set(lines.map(({ tokens }) => binaryFile(tokens)));
  for (const { tokens } of lines) {
    const [file, dot, write, , argument] = tokens.map(({ text }) => text);
    if (tokens.length !== 6 || dot !== '.' || write !== 'write' || argument !== payload || !opened.has(file ?? null)) continue;
    const message = 'on Python 3 the payload of a text part is a str, which a file opened for bytes refuses: open it with "w"';
    return [{ severity: 'warning', code: 'handler_writes_text', offset: tokens[0]?.offset ?? 0, message }];
  }
  return [];
}

/** The name of `with open(…, 'wb') as name:`. */
function binaryFile(tokens: readonly PythonToken[]): string | null {
  if (tokens[0]?.text !== 'with' || tokens[1]?.text !== 'open' || tokens.at(-3)?.text !== 'as') return null;
  const binary = tokens.some(({ kind, text }) => kind === 'string' && /^["'](?:wb|ab|w\+b|wb\+)["']$/.test(text));
  return binary ? (tokens.at(-2)?.text ?? null) : null;
}

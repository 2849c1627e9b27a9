import type { parser } from '@lezer/python';

type SyntaxNode = ReturnType<(typeof parser)['parse']>['topNode'];

/** Longer sources are not read: parsing hostile Python costs about 10 s per MB. */
const MAX_SOURCE = 128 * 1024;

/**
 * The MIME types a part handler takes: what its `list_types` returns, where that is a literal list, tuple or set of strings, or a
 * name bound once to one (in the function or in the module). The source is parsed, never run; the parser loads at the first call.
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

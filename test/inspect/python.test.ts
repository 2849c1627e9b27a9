import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readPython } from '../../src/inspect/python.ts';

const at = (source: string, offset: number | undefined) =>
  offset === undefined ? null : source.slice(0, offset).split('\n').length;

test('what some Python 3 takes is no fault', () => {
  for (const source of [
    '',
    '\n\n# only a comment',
    'x = 1.\ny = .5e-3j + 0xFF_FF + 1_000 + 00 + 0o17 + 09.5 + 1if x else 2\n',
    'def g():\n    x = yield\n    yield\n    return (yield)\n',
    '\f\ndef f(a, /, b, *, c=1, **k): pass\n',
    'with a as self.b, c as d[0]:\n    pass\n',
    'with (\n    open("a") as a,\n    open("b") as b,\n):\n    pass\n',
    'for *a, b in c: print(*a, sep="")\n',
    'match = 1\nmatch x:\n    case {"a": [1, *rest], **more} if more:\n        pass\n    case P(x=1) | None:\n        pass\n    case _: pass\n',
    'type X[T] = list[T]\ntype = 1\nprint(type(type))\n',
    'from . import a\nfrom ...b import (\n    c,\n    d as e,\n)\nfrom x import *\n',
    's = f"{a["b"]} {x!r:>{width}} {{}} {d[\'k\']:%H:%M} {\n  1}"\n',
    "s = f'{x:\">10}' rf'\\{x}' f'\\N{DASH}{x}' t'{y}'\n",
    's = """a "quoted" \\""" b"""\nt = \'it\\\'s\' "and" r\'\\\'\'\nb = b\'\' rb"\\x"\n',
    'if a:\n\tif b:\n\t\tpass\n# comment at the margin\n\tc()\nelse: pass\n',
    'x = [\n  1,\n# odd\n      2]; y = (\n1)\n',
    'a = b if c else d; assert a, "m"; del a[0], b\n',
    'x = a \\\n    + b\n',
    'lambda: (yield)\nf = lambda x=1, *a: x\nif (lambda: 1)(): pass\nif x: y = 1\n',
    'async def f():\n    async with a as b: await c\n    return [x async for x in y if await z]\n',
    '@property\ndef f(self) -> "int": ...\nclass A(B, metaclass=C): x: int = 3\nx[..., 1:2, ::3]\n',
    'try:\n    pass\nexcept* (A, B) as e:\n    pass\nexcept: x, y = 1, 2\nfinally:\n    pass\n',
    'print(-1, ~x, not y, a is not b, a not in b, *c, **d)\nif (n := 3) == 3: pass\nx = a @ b\nx @= c\n',
    'größe = "é ✓"\nprint(größe)\n',
    'a = 1\r\nif a:\r\n    b = """x\r\ny"""\r\n',
    'global_ = 1\ndef f():\n    global global_; nonlocal_ = 2\n    raise E(1) from None\n',
  ]) {
    const { fault, python2 } = readPython(source);
    assert.deepEqual({ fault, python2 }, { fault: null, python2: null }, source);
  }
});

test('what no Python takes is a fault at its line', () => {
  for (const [source, line] of [
    ['x = (1,\ny = 2\n', 1],
    ['x = 1)\n', 1],
    ['x = [1)\n', 1],
    ['a = 1\nb = "open\nc = 2\n', 2],
    ['a = """open\nc = 2\n', 1],
    ["print(f'{a')\nx = f'{b\n", 2],
    ['def f()\n    pass\n', 1],
    ['if x = 1:\n    pass\n', 1],
    ['if x:\npass\n', 2],
    ['x = 1\n  y = 2\n', 2],
    ['if x:\n    a\n  b\n', 3],
    ['def f():\n', 1],
    ['if a:\n    b\nelse if c:\n    d\n', 3],
    ['x = = 1\n', 1],
    ['x = a b\n', 1],
    ['foo(a b)\n', 1],
    ['[1 2]\n', 1],
    ['x = 1 return x\n', 1],
    ['a && b\n', 1],
    ['x = “curly”\n', 1],
    ['x = $HOME\n', 1],
    ['x = a \\ \n    + b\n', 1],
    ['x =\n', 1],
    ['x++\n', 1],
    ['else x:\n    pass\n', 1],
    ['def (a): pass\n', 1],
    ['foo:\n    pass\n', 1],
    ['x = 1\0\n', 1],
  ] as const) {
    const { fault } = readPython(source);
    assert.equal(at(source, fault?.offset), line, JSON.stringify(source));
  }
});

test('what Python 2 alone takes is told apart', () => {
  for (const source of [
    'print "a"\n',
    'if a: print "a", b\n',
    'print >>sys.stderr, "a"\n',
    'exec "x = 1" in ns\n',
    'try:\n    a\nexcept OSError, e:\n    pass\n',
    'raise ValueError, "a"\n',
    'x = `a`\n',
    'if a <> b: pass\n',
    'os.chmod(a, 0755)\n',
    'x = 10L\n',
    'x = ur"a"\n',
    'if a:\n    if b:\n\tc\n',
  ]) {
    const { fault, python2 } = readPython(source);
    assert.deepEqual({ fault, python2: python2 !== null }, { fault: null, python2: true }, source);
  }
});

test('lines know whether they are in a function or a class', () => {
  const { lines } = readPython('a = 1\nif a:\n    b = 2\n    def f():\n        c = 3\n    d = 4\nclass K:\n    e = 5\nf = 6\n');
  const outside = lines.filter(({ module, tokens }) => module && tokens[1]?.text === '=').map(({ tokens }) => tokens[0]?.text);
  assert.deepEqual(outside, ['a', 'b', 'd', 'f']);
});

test('no source makes it fail, and hostile ones are read in bounded time', () => {
  const pieces = [
    'def f',
    '(',
    ')',
    ':',
    '\n',
    '    ',
    '\t',
    '"',
    "'''",
    'f"{',
    '}',
    '\\',
    '\0',
    'x',
    '=',
    '`',
    '0',
    '.',
    '#',
    '\r',
  ];
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ unit: 'binary' }),
        fc.array(fc.constantFrom(...pieces)).map((all) => all.join('')),
      ),
      (source) => {
        const { fault } = readPython(source);
        assert.ok(fault === null || (fault.offset >= 0 && fault.offset <= source.length));
      },
    ),
    { numRuns: 2_000 },
  );
  const size = 128 * 1024;
  for (const piece of [
    '(',
    'f"{',
    "f'''{x:{",
    '"',
    '\\',
    'if x:\n ',
    '\\N{',
    'f"\\N{',
    'a ',
    '"""',
    '1_',
    '0',
    ' ',
    '\t',
    '\f',
    'f"{\'',
    'a\n b\n',
  ]) {
    const start = performance.now();
    readPython(piece.repeat(size / piece.length));
    assert.ok(performance.now() - start < 1_000, `${JSON.stringify(piece)} took ${performance.now() - start} ms`);
  }
});

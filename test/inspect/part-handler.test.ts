import assert from 'node:assert/strict';
import { after, before, describe, it, test } from 'node:test';
import fc from 'fast-check';
import { kubePartHandler } from '../../src/guest/handler.ts';
import { handlerTypes, inspectPartHandler } from '../../src/inspect/part-handler.ts';
import { type Driver, startCloudInit } from '../cloudinit/driver.ts';
import { findCloudInit, skipWithout } from '../cloudinit/fetch.ts';

const HANDLE = '\ndef handle_part(data, ctype, filename, payload):\n    return\n';

test('literal answers are read', async () => {
  for (const [answer, types] of [
    ['["text/x-a"]', ['text/x-a']],
    ["['text/x-a', 'text/x-b',]", ['text/x-a', 'text/x-b']],
    ['("text/x-a", "text/x-b")', ['text/x-a', 'text/x-b']],
    ['"text/x-a", "text/x-b"', ['text/x-a', 'text/x-b']],
    ['"text/x-a",', ['text/x-a']],
    ['("text/x-a",)', ['text/x-a']],
    ['(["text/x-a"])', ['text/x-a']],
    ['{"text/x-a"}', ['text/x-a']],
    ['[  # pods\n        "text/x-a",  # one\n        # two\n        r\'text/x-b\',\n    ]', ['text/x-a', 'text/x-b']],
    ['["text/" "x-a", ("text/x-b")]', ['text/x-a', 'text/x-b']],
    ['["""text/x-a""", u\'text/x-b\']', ['text/x-a', 'text/x-b']],
    ['[]', []],
  ] as const)
    assert.deepEqual(await handlerTypes(`#part-handler\ndef list_types():\n    return ${answer}\n${HANDLE}`), types, answer);
});

test('names bound once to a literal are followed', async () => {
  for (const source of [
    'TYPES = ["text/x-a"]\ndef list_types():\n    return TYPES\ndef handle_part(d, ctype, f, p):\n    if ctype not in TYPES: return\n    for t in TYPES: print(t)\n',
    'TYPES: list = ("text/x-a",)\ndef list_types():\n    return (TYPES)\n',
    'POD = "text/x-a"\ndef list_types():\n    return [POD]\n',
    'POD = "text/x-a"\nTYPES = [POD]\ndef list_types() -> list:\n    """Doc."""\n    # why\n    return TYPES\n',
    'def list_types():\n    types = ["text/x-a"]\n    return types\n',
    '#!/usr/bin/python3\r\ndef list_types():\r\n\treturn ["text/x-a"]\r\n',
    'def list_types():\n    return ["text/x-old"]\ndef list_types():\n    return ["text/x-a"]\n',
  ])
    assert.deepEqual(await handlerTypes(source), ['text/x-a'], source);
});

test('the handler of 2014 is read', async () => {
  const source = `#part-handler

import os
import subprocess

def list_types():
    # return a list of mime-types that are handled by this module
    return(["text/x-kube-pod", "text/x-kube-service", "text/x-kube-replica"])

def handle_part(data, ctype, filename, payload):
    if ctype == "__begin__":
        return
    with open('/etc/kubernetes/%s' % filename, 'wb') as fd:
        fd.write(payload)
`;
  assert.deepEqual(await handlerTypes(source), ['text/x-kube-pod', 'text/x-kube-service', 'text/x-kube-replica']);
});

test('what cannot be known from the source is null', async () => {
  for (const source of [
    '',
    'x = 1\n',
    '# list_types\n',
    'def list_types():\n    return list(HANDLERS)\n',
    'def list_types():\n    return [t for t in X]\n',
    'def list_types():\n    return ["text/" + x]\n',
    'def list_types():\n    return [f"text/{x}"]\n',
    'def list_types():\n    return [b"text/x-a"]\n',
    'def list_types():\n    return ["text\\x2fx-a"]\n',
    'def list_types():\n    return ["text/x-a", *MORE]\n',
    'def list_types():\n    return "text/x-a"\n',
    'def list_types():\n    return ("text/x-a")\n',
    'def list_types():\n    return\n',
    'def list_types():\n    pass\n',
    'def list_types():\n    return UNKNOWN\n',
    'def list_types():\n    if x:\n        return ["text/x-a"]\n    return ["text/x-b"]\n',
    'def list_types():\n    if x:\n        return ["text/x-a"]\n',
    'async def list_types():\n    return ["text/x-a"]\n',
    '@cached\ndef list_types():\n    return ["text/x-a"]\n',
    'class H:\n    def list_types(self):\n        return ["text/x-a"]\n',
    'list_types = lambda: ["text/x-a"]\n',
    'from kube import list_types\n',
    'T = ["text/x-a"]\nT += ["text/x-b"]\ndef list_types():\n    return T\n',
    'T = ["text/x-a"]\nT.append("text/x-b")\ndef list_types():\n    return T\n',
    'T = ["text/x-a"]\nT = []\ndef list_types():\n    return T\n',
    'T = ["text/x-a"]\nif x:\n    T = []\ndef list_types():\n    return T\n',
    'T = ["text/x-a"]\nfor T in y: pass\ndef list_types():\n    return T\n',
    'T = U = ["text/x-a"]\ndef list_types():\n    return T\n',
    'from x import T\ndef list_types():\n    return T\n',
    'T = T\ndef list_types():\n    return T\n',
    'def list_types():\n    return ["text/x-a"\n',
    `def list_types():\n    return ["text/x-a"]\n${'#'.repeat(200_000)}`,
  ])
    assert.equal(await handlerTypes(source), null, source.slice(0, 200));
});

test('no source makes it fail', async () => {
  const pythonish = fc.array(
    fc.constantFrom(
      'def list_types():\n',
      '    return ',
      '[',
      ']',
      '(',
      ')',
      '"a"',
      "'",
      'T',
      ' = ',
      ',',
      '\n',
      '    ',
      '@',
      ':',
      '#',
      '{',
      '}',
      '*',
      '\0',
      '\\',
    ),
    { maxLength: 30 },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(
        fc.string({ unit: 'binary' }),
        pythonish.map((pieces) => `def list_types():\n${pieces.join('')}`),
      ),
      async (source) => {
        const types = await handlerTypes(source);
        assert.ok(types === null || types.every((type) => typeof type === 'string'));
      },
    ),
    { numRuns: 1_000 },
  );
});

test('deep nesting is read in bounded time', async () => {
  const start = performance.now();
  for (const open of ['(', '[', '{', 'if :::\n', '"\\('])
    await handlerTypes(`def list_types():\n    return ${open.repeat(30_000 / open.length)}`);
  assert.ok(performance.now() - start < 5_000);
});

const TYPES = 'def list_types():\n    return ["text/x-a"]\n';
const told = (source: string) =>
  inspectPartHandler('h.py', 'text/part-handler', Buffer.from(source)).map(
    ({ severity, code, line }) => `${severity} ${code} ${line}`,
  );

/** Handlers that a real cloud-init registers and calls without a complaint. */
const WORKING = [
  `${TYPES}def handle_part(data, ctype, filename, payload):\n    pass\n`,
  `${TYPES}def handle_part(data, ctype, filename, payload, *more, **named):\n    pass\n`,
  `${TYPES}def handle_part(*args):\n    pass\n`,
  `${TYPES}def handle_part(a, b, c, d, /, e=1, *, f=2):\n    pass\n`,
  `handler_version = 2\n${TYPES}def handle_part(data, ctype, filename, payload, frequency):\n    pass\n`,
  `handler_version = "3"\n${TYPES}def handle_part(data, ctype, filename, payload, frequency, headers={"a": [1, 2]}):\n    pass\n`,
  `handler_version = None\n${TYPES}def handle_part(data, ctype, filename, payload):\n    pass\n`,
  `handler_version = 1 + 1\n${TYPES}def handle_part(data, ctype, filename, payload, frequency):\n    pass\n`,
  `handler_version = 1\nhandler_version = 2\n${TYPES}def handle_part(data, ctype, filename, payload, frequency):\n    pass\n`,
  `from cloudinit.settings import PER_ALWAYS\nfrequency = PER_ALWAYS\n${TYPES}def handle_part(data, ctype, filename, payload):\n    pass\n`,
  `frequency = u"always"\n${TYPES}def handle_part(data, ctype, filename, payload):\n    pass\n`,
  `try:\n    import nothing\nexcept ImportError:\n    ${TYPES.replaceAll('\n', '\n    ')}\n    handle_part = lambda d, c, f, p: None\n`,
  `class H:\n    def list_types(self):\n        return ["text/x-a"]\n    def handle_part(self, d, c, f, p):\n        pass\nlist_types, handle_part = H().list_types, H().handle_part\n`,
  `class H:\n    def run(self, d, c, f, p):\n        pass\n${TYPES}handle_part = H().run\n`,
  `import functools\n@functools.lru_cache\n${TYPES}def handle_part(d, c, f, p): pass\n`,
  `def setup():\n    global handle_part\n    def handle_part(d, c, f, p): pass\nsetup()\n${TYPES}`,
  `exec("def handle_part(d, c, f, p): pass")\n${TYPES}`,
  `${TYPES}def handle_part(data, ctype, filename, payload):\n    with open("/dev/null", "w") as f:\n        f.write(payload or "")\n`,
  `${TYPES}def handle_part(data, ctype, filename, payload):\n    with open("/dev/null", "wb") as f:\n        f.write((payload or "").encode())\n`,
  `${TYPES}def handle_part(data, ctype, filename, payload: str = "") -> None:\n\tif payload:\n\t\tpass\r\n`,
];

/** Handlers that it cannot use, with what is told of them. */
const BROKEN: readonly (readonly [string, string])[] = [
  [`${TYPES}def handle_part(data, ctype, filename, payload)\n    pass\n`, 'error handler_syntax 3'],
  [`${TYPES}def handle_part(data, ctype, filename, payload):\npass\n`, 'error handler_syntax 4'],
  [`${TYPES}def handle_part(data, ctype, filename, payload):\n    print("a\n`, 'error handler_syntax 4'],
  [`${TYPES}def handle_part(data, ctype, filename, payload):\n    print "a"\n`, 'warning handler_python2 4'],
  [
    `${TYPES}def handle_part(d, c, f, p):\n    try:\n        a\n    except OSError, e:\n        pass\n`,
    'warning handler_python2 6',
  ],
  [`${TYPES}`, 'error handler_incomplete 1'],
  ['def handle_part(data, ctype, filename, payload):\n    pass\n', 'error handler_incomplete 1'],
  ['import os\n', 'error handler_incomplete 1'],
  [`${TYPES}class H:\n    def handle_part(self, d, c, f, p):\n        pass\n`, 'error handler_incomplete 1'],
  [`${TYPES}def handle_part(data, ctype, filename):\n    pass\n`, 'error handler_arguments 3'],
  [`${TYPES}def handle_part(data, ctype, filename, payload, frequency):\n    pass\n`, 'error handler_arguments 3'],
  [`${TYPES}def handle_part(data, ctype, filename, payload, *, frequency):\n    pass\n`, 'error handler_arguments 3'],
  [`handler_version = 2\n${TYPES}def handle_part(data, ctype, filename, payload):\n    pass\n`, 'error handler_arguments 4'],
  [
    `handler_version = 3\n${TYPES}def handle_part(data, ctype, filename, payload, frequency):\n    pass\n`,
    'error handler_arguments 4',
  ],
  ['def list_types(x):\n    return ["text/x-a"]\ndef handle_part(d, c, f, p):\n    pass\n', 'error handler_arguments 1'],
  [`handler_version = 4\n${TYPES}def handle_part(*args):\n    pass\n`, 'error handler_version 1'],
  [`handler_version = "0"\n${TYPES}def handle_part(*args):\n    pass\n`, 'error handler_version 1'],
  [`frequency = "once"\n${TYPES}def handle_part(d, c, f, p):\n    pass\n`, 'error handler_frequency 1'],
  [
    `from cloudinit.settings import PER_ONCE\nfrequency = PER_ONCE\n${TYPES}def handle_part(d, c, f, p):\n    pass\n`,
    'error handler_frequency 2',
  ],
  [`frequency = "daily"\n${TYPES}def handle_part(d, c, f, p):\n    pass\n`, 'error handler_frequency 1'],
  [
    `${TYPES}def handle_part(data, ctype, filename, payload):\n    if payload:\n        with open("/dev/null", "wb") as f:\n            f.write(payload)\n`,
    'warning handler_writes_text 6',
  ],
];

test('handlers that work are silent, our own too', () => {
  for (const source of [...WORKING, kubePartHandler(), `#part-handler\n${WORKING[0]}`])
    assert.deepEqual(told(source), [], source);
});

test('handlers that cannot work are told of, at their line', () => {
  for (const [source, finding] of BROKEN) assert.deepEqual(told(source), [finding], source);
});

test('the handler of 2014 is taken, with a warning for what fails on Python 3', () => {
  const source = `#part-handler
import os
def list_types():
    return(["text/x-kube-pod"])
def handle_part(data,ctype,filename,payload):
    if ctype == "__begin__":
        return
    if not os.path.isdir('/etc/kubernetes/manifests'):
        os.makedirs('/etc/kubernetes/manifests', 0755)
    with open('/etc/kubernetes/manifests/%s' % filename, 'wb') as fd:
        fd.write(payload)
`;
  assert.deepEqual(told(source), ['warning handler_python2 9', 'warning handler_writes_text 11']);
});

test('a handler is judged in bounded time, whatever it is', () => {
  const size = 128 * 1024;
  for (const piece of [
    '(',
    'f"{',
    'list_types\n',
    'def handle_part(',
    'if x:\n ',
    'with open(a, "wb") as f:\n f.write(p)\n',
    'a,',
    'x=1\n',
  ]) {
    const start = performance.now();
    told(`${TYPES}def handle_part(d, c, f, p): pass\n${piece.repeat(size / piece.length - 10)}`);
    assert.ok(performance.now() - start < 1_000, `${JSON.stringify(piece)} took ${performance.now() - start} ms`);
  }
  assert.deepEqual(told(`(${' '.repeat(4 * 1024 * 1024)}`), ['warning not_judged undefined']);
});

const cloudInit = await findCloudInit();

describe('handlers, held to the real cloud-init', { skip: skipWithout(cloudInit) }, () => {
  let driver: Driver;
  before(async () => {
    driver = await startCloudInit(cloudInit);
  });
  after(() => driver.close());

  /** Whether it calls the handler for its begin, one part and its end, and warns of nothing. */
  const works = async (source: string) => {
    const handler = `Content-Type: text/part-handler\nContent-Transfer-Encoding: base64\n\n${Buffer.from(source).toString('base64')}`;
    const document = `Content-Type: multipart/mixed; boundary="BB"\nMIME-Version: 1.0\n\n--BB\n${handler}\n--BB\nContent-Type: text/x-a\n\nx\n--BB--\n`;
    const seen = await driver.consume(document);
    return seen.warnings.length === 0 && seen.failure === null && seen.calls.length === 3;
  };

  it('those that work do', async () => {
    for (const source of WORKING) assert.equal(await works(source), true, source);
  });

  it('those that cannot work do not', async () => {
    for (const [source] of BROKEN) assert.equal(await works(source), false, source);
  });
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { handlerTypes } from '../../src/inspect/part-handler.ts';

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

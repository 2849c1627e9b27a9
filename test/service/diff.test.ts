import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { JsonObject } from '../../src/domain/json.ts';
import { diffParts, type Side } from '../../src/service/diff.ts';

function side(label: string, parts: Record<string, string | Buffer>, vars: JsonObject = {}, options: JsonObject = {}): Side {
  return {
    label,
    vars,
    parts: new Map(Object.entries(parts).map(([name, body]) => [name, { body: Buffer.from(body as string), options }])),
  };
}

test('what changed is told part by part, as diff -u tells it', () => {
  const before = side('web@1', { 'a.sh': '#!/bin/sh\necho one\n', 'b.sh': 'same\n', 'old.sh': 'gone\n' });
  const after = side('web@2', { 'a.sh': '#!/bin/sh\necho two\n', 'b.sh': 'same\n', 'new.sh': 'come' });
  assert.equal(
    diffParts(before, after),
    `--- web@1/a.sh
+++ web@2/a.sh
@@ -1,2 +1,2 @@
 #!/bin/sh
-echo one
+echo two
--- web@1/old.sh
+++ /dev/null
@@ -1,1 +0,0 @@
-gone
--- /dev/null
+++ web@2/new.sh
@@ -0,0 +1,1 @@
+come
\\ No newline at end of file
`,
  );
});

test('equal sides differ in nothing', () => {
  assert.equal(diffParts(side('web@1', { a: 'x' }, { b: 1 }), side('web@2', { a: 'x' }, { b: 1 })), '');
});

test('options and vars are told, too', () => {
  const text = diffParts(
    side('web@1', { a: 'x\n' }, { size: 1 }, { type: 'text/cloud-config' }),
    side('web@2', { a: 'x\n' }, { size: 2 }, { type: 'text/cloud-config', template: true }),
  );
  assert.match(
    text,
    /^--- web@1\/a {2}\(options\)\n\+\+\+ web@2\/a {2}\(options\)\n@@ .*\n\+template: true\n type: text\/cloud-config\n/,
  );
  assert.match(text, /--- web@1 vars\n\+\+\+ web@2 vars\n@@ .*\n-size: 1\n\+size: 2\n$/);
});

test('a binary is only said to differ', () => {
  assert.match(
    diffParts(side('a', { x: Buffer.from([0, 1]) }), side('b', { x: Buffer.from([0, 1, 2]) })),
    /-binary, 2 bytes\n\+another binary, 3 bytes\n$/,
  );
});

test('two large texts that have nothing in common are told in bounded time', () => {
  const lines = (word: string) => Array.from({ length: 40_000 }, (_, index) => `${word} ${(index * 7919) % 40_009}`).join('\n');
  const began = performance.now();
  const text = diffParts(side('a', { x: lines('one') }), side('b', { x: lines('two') }));
  assert.ok(performance.now() - began < 2000);
  assert.match(text, /^--- a\/x\n\+\+\+ b\/x\n-one 0\n/);
});

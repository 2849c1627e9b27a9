import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { FastifyRequest } from 'fastify';
import { BootbundleError } from '../../src/domain/errors.ts';
import { readDocument, readDocumentList } from '../../src/http/document.ts';

async function read(reader: typeof readDocument, type: string | undefined, text: string | Buffer): Promise<unknown> {
  const request = { headers: { 'content-type': type }, body: Buffer.from(text) } as unknown as FastifyRequest;
  await reader(request);
  return request.body;
}

test('one document: the type says JSON or YAML, else the body does', async () => {
  for (const [type, text, want] of [
    ['application/json', '{"a": 1}', { a: 1 }],
    ['application/json; charset=utf-8', '{"a": "0644"}', { a: '0644' }],
    ['APPLICATION/JSON', '[1]', [1]],
    ['application/yaml', 'a: 1\n', { a: 1 }],
    ['text/yaml', 'a: yes\nb: 0644\nc: 2001-01-01\n', { a: 'yes', b: 644, c: '2001-01-01' }],
    ['application/yaml', 'a: &x {b: 1}\nc: {<<: *x, d: 2}\n', { a: { b: 1 }, c: { b: 1, d: 2 } }],
    [undefined, '{"a": "\\t"}', { a: '\t' }],
    [undefined, '{a: 1}', { a: 1 }],
    ['application/x-www-form-urlencoded', 'a: 1', { a: 1 }],
    ['application/octet-stream', '\n {"a": 1}', { a: 1 }],
    ['application/merge-patch+json', '{}', {}],
  ] as const)
    assert.deepEqual(await read(readDocument, type, text), want, `${type} ${text}`);
});

test('a list: JSON, YAML, several YAML documents, NDJSON', async () => {
  const want = [{ a: 1 }, { a: 2 }];
  for (const [type, text] of [
    ['application/json', '[{"a": 1}, {"a": 2}]'],
    ['application/yaml', '- a: 1\n- a: 2\n'],
    ['application/yaml', 'a: 1\n---\na: 2\n'],
    ['application/yaml', '---\na: 1\n---\n---\na: 2\n...\n'],
    ['application/x-ndjson', '{"a": 1}\r\n\n{"a": 2}'],
    ['application/jsonl', '{"a": 1}\n{"a": 2}\n'],
    [undefined, '[{"a": 1}, {"a": 2}]'],
    [undefined, 'a: 1\n---\na: 2\n'],
  ] as const)
    assert.deepEqual(await read(readDocumentList, type, text), want, `${type} ${text}`);
});

test('where it is broken is said by line and column, never by what stands there', async () => {
  for (const [reader, type, text, where] of [
    [readDocument, 'application/json', '{"a": 1,\n "hunter2" 2}', /line 2, column 12$/],
    [readDocumentList, 'application/x-ndjson', '{"a":1}\n{"b": hunter2}', /^line 2 is not JSON/],
    [readDocument, 'application/yaml', 'a: 1\nb: *hunter2\n', /line 2, column \d+: unidentified alias$/],
    [readDocument, 'application/yaml', 'a: !hunter2 x\n', /unknown scalar tag$/],
    [readDocument, 'application/yaml', 'a: !hunter2 {}\n', /unknown mapping tag$/],
    [readDocument, 'application/yaml', '!x!hunter2 a\n', /undeclared tag handle$/],
    [readDocument, 'application/yaml', 'a: "hunter2', /line 1/],
    [readDocument, 'application/yaml', 'hunter2: 1\nhunter2: 2\n', /line 2, column \d+: duplicated mapping key$/],
    [readDocumentList, 'application/x-ndjson', '{"a":1}\n\n{"hunter2"', /line 3/],
    [readDocumentList, 'application/yaml', 'a: 1\n---\n- hunter2: [\n', /line \d/],
  ] as const)
    await assert.rejects(read(reader, type, text), (error) => {
      assert.ok(error instanceof BootbundleError && error.kind === 'malformed', String(error));
      assert.match(error.message, where, text);
      assert.doesNotMatch(error.message, /hunter2/);
      return true;
    });
});

test('any bytes are read, or refused in one line', async () => {
  const type = fc.constantFrom('application/json', 'application/yaml', undefined, 'application/x-ndjson', 'text/html', '');
  const text = fc.oneof(
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    fc.string({ unit: fc.constantFrom(...'{}[]:,-&*!|>?"\'#%@` \n\tab01.~<=_'), maxLength: 40 }),
    fc.json(),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(readDocument, readDocumentList), type, text, async (reader, type, text) => {
      try {
        JSON.stringify(await read(reader, type, text));
      } catch (error) {
        assert.ok(error instanceof BootbundleError && ['malformed', 'unsupported'].includes(error.kind), String(error));
        assert.doesNotMatch(error.message, /\p{Cc}/u);
      }
    }),
    { numRuns: 1000 },
  );
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspectInclude } from '../../src/inspect/include.ts';

const told = (text: string) =>
  inspectInclude('a.include', 'text/x-include-url', Buffer.from(text)).map(
    ({ severity, code, line, column }) => `${severity} ${code} ${line}:${column}`,
  );

test('what cloud-init fetches is silent', () => {
  for (const text of [
    '#include\nhttp://h/x\n',
    '#include-once\nhttps://h/x?a=b&c=%20#d\n\n# why\nHTTP://h:8080\n',
    '#include http://h/x',
    '#includehttp://h/x\n#INCLUDE-ONCE https://h/y\n',
    'http://h/x\r\n  https://h/y  \r\n',
    '#include\nhttp://[::1]:80/x\nhttp://[fe80::1%25eth0]/x\nhttp://10.0.0.1/\nhttp://h_x/é\nhttp://xn--e1afmkfd/\nhttp://größe/\n',
    '#include\nhttp:h/x\n',
  ])
    assert.deepEqual(told(text), [], text);
});

// What 22.4 does with each was measured: url_helper.py, read_file_or_url and _cleanurl, and requests 2.28.
test('what it can never fetch is an error, what is doubtful a warning, both at their place', () => {
  for (const [line, finding] of [
    ['ftp://h/x', 'error include_scheme'],
    ['s3://bucket/key', 'error include_scheme'],
    ['host:8080/x', 'error include_scheme'],
    ['file:/etc/x', 'error include_scheme'],
    ['//h/x', 'error include_scheme'],
    ['www.example.com/x', 'warning include_scheme'],
    ['https//h/x', 'warning include_scheme'],
    ['file:///etc/x', 'warning include_file'],
    ['/etc/x', 'warning include_file'],
    ['http://', 'error include_url'],
    ['http:/h/x', 'error include_url'],
    ['http://h:99999/x', 'error include_url'],
    ['http://h:port/x', 'error include_url'],
    ['http://a http://b', 'error include_url'],
    ['<http://h/x>', 'error include_url'],
    ['"http://h/x"', 'error include_url'],
    ['- http://h/x', 'error include_url'],
    ['runcmd: [a]', 'error include_scheme'],
    ['some words', 'error include_url'],
    ['http://h/x # why', 'warning include_spaces'],
    ['http://user:hunter2@h/x', 'warning include_credentials'],
  ] as const) {
    assert.deepEqual(told(`#include\n  ${line}\n`), [`${finding} 2:3`], line);
    assert.deepEqual(told(`#include-once ${line}\n`), [`${finding} 1:15`], line);
  }
});

test('an include without a URL is told', () => {
  for (const text of ['#include\n', '#include-once\n# http://h/x\n\n'])
    assert.deepEqual(told(text), ['warning include_empty 1:1'], text);
});

test('no message holds a URL, and many lines are judged in bounded time', () => {
  const findings = inspectInclude(
    'a',
    'text/x-include-url',
    Buffer.from('#include\nhttp://user:hunter2@h:99999/hunter2\nhunter2 x\n'),
  );
  assert.equal(findings.length, 2);
  assert.ok(!JSON.stringify(findings).includes('hunter2'));

  const start = performance.now();
  assert.equal(told('#include\n'.concat('ftp://h/x\n'.repeat(400_000))).length, 20);
  told(`#include\nhttp://${'a '.repeat(2_000_000)}`);
  told(`#include\n${'a'.repeat(4_000_000)}:`);
  told('http://h/x\n'.repeat(300_000));
  assert.ok(performance.now() - start < 3_000);
});

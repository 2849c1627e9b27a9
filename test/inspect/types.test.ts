import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CLOUD_INIT_TYPES, isSaidType, KUBE_TYPES, parseType } from '../../src/inspect/types.ts';

test('what clients send by themselves is not said', () => {
  for (const type of [
    undefined,
    '',
    'nonsense',
    'application/octet-stream',
    'application/x-www-form-urlencoded',
    'application/json',
    'application/vnd.api+json',
    'application/x-yaml',
    'application/yaml',
    'text/yaml',
    'text/x-yaml',
    'text/plain; charset=utf-8',
    'TEXT/PLAIN',
    'text/x-not-multipart',
    'text/html',
    'text/xml',
    'application/xml',
    'image/svg+xml',
    'image/png',
    'application/pdf',
    'text/x-sh',
    'application/x-sh',
    'application/x-shellscript',
    'text/x-python',
    'text/x-systemd-unit',
    'application/gzip',
    'application/x-gzip',
    'application/x-tar',
    'multipart/mixed; boundary=x',
    'multipart/form-data; boundary=x',
    'message/rfc822',
  ])
    assert.equal(isSaidType(type), null, type);
});

test("cloud-init's types, ours and custom ones are said, in lower case and without parameters", () => {
  for (const type of [...CLOUD_INIT_TYPES, ...KUBE_TYPES]) assert.equal(isSaidType(type), type);
  assert.equal(isSaidType('Text/X-Shellscript-Per-Boot; charset="utf-8"'), 'text/x-shellscript-per-boot');
  assert.equal(isSaidType(' text/x-our-own '), 'text/x-our-own');
  assert.equal(isSaidType('application/vnd.acme.thing'), 'application/vnd.acme.thing');
});

test('no type can break out of a header', () => {
  for (const type of [
    'text/x-a\r\nX: y',
    'text/"x"',
    'text/x y',
    'text/é',
    'text/x;a=b',
    'text',
    '/x',
    'text/',
    'a/b/c',
    'text/x\0',
  ])
    assert.equal(parseType(type), null, JSON.stringify(type));
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.webUrl()), (text) => {
      const type = parseType(text);
      assert.ok(type === null || /^[\x21-\x7e]+$/.test(type));
    }),
  );
});

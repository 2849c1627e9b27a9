import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { inspectCloudConfig } from '../../src/inspect/cloud-config.ts';

const CONFIG = 'text/cloud-config';
const ARCHIVE = 'text/cloud-config-archive';
const PATCH = 'text/cloud-config-jsonp';

/** What is said of a text: severity, code, line and column. */
function findings(type: string, text: string | Uint8Array) {
  return inspectCloudConfig('c.cfg', type, Buffer.from(text as Uint8Array)).map(({ severity, code, part, line, column }) => {
    assert.equal(part, 'c.cfg');
    return [severity, code, line, column];
  });
}

const config = (text: string) => findings(CONFIG, `#cloud-config\n${text}`);

test('a cloud-config that is not YAML is an error, with its line and column where they are known', () => {
  for (const [text, line, column] of [
    ['users: [', 2, 9],
    ['a: 1\nb: c: d\n', 3, 5],
    ['a: "unclosed\n', 3, 1],
    ['\ta: 1\n', 2, 3],
    ['a:\n- b\n c: d\n', 4, 3],
    ['packages:\n  - a\n - b\n', 4, 2],
    ['a: {{ v1.local_hostname }}\n', undefined, undefined],
    ['a: 1\n---\nb: 2\n', undefined, undefined],
    ['a: *nobody\n', 2, 5],
    ['a: !vault x\n', 2, 4],
    ['a: @x\n', 2, 4],
    ['a: 2020-13-45\n', undefined, undefined],
  ] as const)
    assert.deepEqual(config(text), [['error', 'bad_yaml', line, column]], text);
});

test('a cloud-config that is no mapping is an error', () => {
  for (const text of ['- a\n- b\n', 'hello\n', '7\n', '[]\n', '!!set {a, b}\n', '2020-01-01\n', 'runcmd\n'])
    assert.deepEqual(config(text), [['error', 'not_a_mapping', undefined, undefined]], text);
});

test('an empty cloud-config or archive does nothing, and that is a warning', () => {
  for (const text of ['', '\n', '# a: 1\n', '---\n', '---\n...\n', 'null\n', '~\n'])
    assert.deepEqual(config(text), [['warning', 'empty_config', undefined, undefined]], text);
  for (const text of ['', '# - a\n', 'null\n'])
    assert.deepEqual(findings(ARCHIVE, `#cloud-config-archive\n${text}`), [['warning', 'empty_config', undefined, undefined]]);
});

test('what cloud-init takes is taken, however odd', () => {
  for (const text of [
    '{}\n',
    'a: 1\r\nb: |\r\n  x\r\n',
    'a: 1\rb: 2\r',
    '---\na: 1\n...\n',
    '%YAML 1.1\n---\na: 1\n',
    ' a: 1\n b: 2\n',
    'a: 1\na: 2\n',
    'a: &x {k: v}\nb: *x\nc: {<<: *x, d: e}\n<<: *x\n',
    'a: &x 1\nb: [*x]\n',
    'a: 2020-01-01\nb: 2020-01-01 10:00:00\nc: 12:30\n',
    'a: 0644\nb: 089\nc: 1_000\nd: .inf\ne: .nan\nf: 1e400\n',
    '1: a\nyes: b\nnull: c\n1.5: d\n',
    'a: "{{ v1.x }}"\nb: |\n  {% if x %}\n  {{ y }}\nc: x {{ y }}\n',
    '{\n"users": ["default"],\n"a": {"b":null}\n}\n',
    '{"users":\n[{"name":"x"}]}\n',
    'a: "\t"\nb: |\n  \tx\n# \ty\n',
    '{"a": "\\t\\u00e9\\/"}\n',
    'runcmd: [\nls,\n[sh, -c, "x: y"]\n]\n',
    'runcmd:\n- [tar, xf, -]\n- [cat, -, x]\n',
    'a: "b"#c\nd: [e]#f\n- "g"#h\n'.replace('- ', 'i: '),
    'runcmd:\n- echo a:b c#d\n- echo "x: y"\n',
    'a: $6$rounds=4096$x\nb: 52:54:00:12:34:56\nc: fe80::1\nd: http://x:80/\ne: C:\\x\n',
    'a: !!binary aGk=\nb: !!python/unicode "x"\nc: !!set {x, y}\nd: !!omap [x: y]\n',
    'a: é ✓ 😀\nb: "\\U0001F600"\n',
    'bootcmd: &b\n- x\nnobody-knows-this: *b\n',
    'merge_how:\n- {name: list, settings: [append]}\n',
    'write_files:\n- path: /x\n  content: |\n    #!/bin/sh\n     x\n    y\n',
  ])
    assert.deepEqual(config(text), [], text);
  assert.deepEqual(findings(CONFIG, 'a: 1\n'), [], 'a type that was said needs no first line');
  assert.deepEqual(findings(CONFIG, '#Cloud-Configuration of ours\na: 1\n'), []);
});

test('an archive is a list, a JSON patch a list in JSON', () => {
  for (const [type, text, wanted] of [
    [ARCHIVE, '#cloud-config-archive\n- "#!/bin/sh"\n- {type: text/cloud-config, content: "a: 1"}\n', []],
    [ARCHIVE, '#cloud-config-archive\r\n- a\r\n', []],
    [ARCHIVE, '#cloud-config-archive\n[]\n', []],
    [ARCHIVE, '#cloud-config-archive\na: 1\n', ['error', 'not_a_list']],
    [ARCHIVE, '#cloud-config-archive\nhello\n', ['error', 'not_a_list']],
    [PATCH, '#cloud-config-jsonp\n[{"op": "add", "path": "/runcmd", "value": ["x"]}]\n', []],
    [PATCH, '\n  #cloud-config-jsonp [\n\t{"op":"test","path":"","value":{}}]', []],
    [PATCH, '[]', []],
    [PATCH, '#cloud-config-jsonp\n{"op": "add"}\n', ['error', 'not_a_list']],
    [PATCH, '#cloud-config-jsonp\n- op: add\n', ['error', 'bad_json']],
    [PATCH, '#cloud-config-jsonp\n', ['error', 'bad_json']],
    // cloud-init takes away the mark as it is spelt here only (handlers/cloud_config.py, _merge_patch).
    [PATCH, '#Cloud-Config-JSONP\n[]\n', ['error', 'bad_json']],
  ] as const)
    assert.deepEqual(
      findings(type, text).map(([severity, code]) => [severity, code]),
      wanted.length === 0 ? [] : [wanted],
      text,
    );
  assert.deepEqual(findings(ARCHIVE, '#cloud-config-archive\n- a\n- [\n'), [['error', 'bad_yaml', 4, 1]]);
});

test('a template’s source, and everything that is no cloud-config, is not looked at', () => {
  for (const type of ['text/jinja2', 'text/x-shellscript', 'text/x-kube-pod', 'text/part-handler', 'text/plain', 'a/b'])
    for (const text of ['## template: jinja\n#cloud-config\na: {{ x }}\n{% if %}\n', '#cloud-config\n[', '', '\0'])
      assert.deepEqual(findings(type, text), [], type);
});

test('no finding quotes what is in the file, and any bytes come to findings', () => {
  const secret = 'hunter2';
  for (const text of [`${secret}: [`, `a: ${secret}: b`, `a: *${secret}`, `a: !${secret} x`, `- ${secret}`, `${secret}`])
    for (const type of [CONFIG, ARCHIVE, PATCH]) {
      const found = inspectCloudConfig('c', type, Buffer.from(text));
      assert.ok(!JSON.stringify(found).includes(secret), `${type} ${text}`);
    }
  const text = fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.string({ unit: 'binary' }).map(Buffer.from));
  fc.assert(
    fc.property(text, fc.constantFrom(CONFIG, ARCHIVE, PATCH), (bytes, type) => {
      assert.ok(findings(type, bytes).length <= 1);
    }),
  );
});

import assert from 'node:assert/strict';
import { after, before, describe, it, test } from 'node:test';
import { inspectJinja } from '../../src/inspect/jinja.ts';
import { type Driver, startCloudInit } from '../cloudinit/driver.ts';
import { findCloudInit, skipWithout } from '../cloudinit/fetch.ts';

const HEAD = '## template: jinja\n';
const CONFIG = `${HEAD}#cloud-config\n`;
const told = (text: string) =>
  inspectJinja('a.cfg', 'text/jinja2', Buffer.from(text)).map(
    ({ severity, code, line, column }) => `${severity} ${code} ${line}:${column}`,
  );

/** A real cloud-init renders these and takes what comes out. */
const RENDERED = [
  `${CONFIG}hostname: {{ v1.local_hostname }}\nlocale: {{ ds.meta_data.x | default("C") | lower }}\n`,
  `${CONFIG}{% raw %}{{ {% {# {% endraw %}\n{%- raw -%}a: "x{{"{%- endraw -%}\n`,
  `${CONFIG}{% if v1.distro == "debian" and not x -%}\na: 1\n{%- elif y is not defined or y is divisibleby 3 %}\nb: 2\n{% else %}\nc: 3\n{%+ endif %}\n`,
  `${CONFIG}{% for a, b in [(1, 2)] if a recursive %}\nk{{ loop.index }}: {{ b }}\n{% else %}\nnone: 1\n{% endfor %}\n`,
  `${CONFIG}{% macro m(x, y=1) %}{{ x ~ y }}{% endmacro %}\na: {{ m("%}" "}}", y='\\'') | tojson }}\n`,
  `${CONFIG}{% set a, b = 1, 2 %}{% set c %}text{% endset %}{% set n = namespace(x=1) %}{% set n.x = 2 %}{% do [].append(1) %}\nk: {{ a + b }}\n`,
  `${CONFIG}a: {{ {"k": {"l": [1]}}["k"]["l"][0] }}\nb: {{ "x" if a else "y" }}\nc: {{ 1 if a }}\n`,
  `${CONFIG}{# a comment with {{ and {% #}{#- another -#}\na: "}} %} #}"\n`,
  `${CONFIG}{% with q = 1 %}a: {{ q }}{% endwith %}\n{% filter upper | trim %}b: 1{% endfilter %}\n{% block t %}c: 2{% endblock t %}\n{% print(1) %}: x\n`,
  `${CONFIG}{% macro m() %}{{ caller(1) }}: 1{% endmacro %}{% call(u) m() %}{{ u }}{% endcall %}\n`,
  `${CONFIG}{%if a%}x{%endif%}y: \${{ 1 }}\nz: {{ -1 }} {{ not a }} {{ a not in [1] }} {{ "abc"[1:2] }} {{ 2 ** 3 // 2 }}\n`,
  `${HEAD}{# why #}\n{% set a = 1 %}\n#cloud-config\na: {{ a }}\n`,
  `${HEAD}#!/bin/sh\necho {{ v1.instance_id }}\n`,
  `${HEAD}{%- set a = 1 -%}\n\n#!/bin/sh\n`,
  `${HEAD}{% if v1.distro == "x" %}#!/bin/sh{% else %}#cloud-config{% endif %}\n`,
  `${HEAD}#cloud-config\r\na: {{ 1 }}\r\n`,
  `${CONFIG}a: {{ x }}`,
];

/** It drops these, with a warning in its log. */
const DROPPED: readonly (readonly [string, string])[] = [
  [`${CONFIG}a: {{ b\nc: d\n`, 'error jinja_syntax 3:4'],
  [`${CONFIG}{% if a\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}{% if a %}\nb: 1\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}{% for a in b %}{% if c %}{% endfor %}\n`, 'error jinja_syntax 3:27'],
  [`${CONFIG}a: 1\n{% endif %}\n`, 'error jinja_syntax 4:1'],
  [`${CONFIG}{% else %}\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}{% if a %}{% else %}{% elif b %}{% endif %}`, 'error jinja_syntax 3:21'],
  [`${CONFIG}{% sudo %}\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}{% break %}\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}{%  %}\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}{# open\na: 1\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}{% raw %}\na: 1\n`, 'error jinja_syntax 3:1'],
  [`${CONFIG}a: {{ }}\n`, 'error jinja_syntax 3:4'],
  [`${CONFIG}a: {{ b c }}\n`, 'error jinja_syntax 3:9'],
  [`${CONFIG}a: {{ "b }}\n`, 'error jinja_syntax 3:7'],
  [`${CONFIG}a: {{ b && c }}\n`, 'error jinja_syntax 3:9'],
  [`${CONFIG}a: {{ (b }}\n`, 'error jinja_syntax 3:10'],
  [`${CONFIG}{% if a = b %}{% endif %}\n`, 'error jinja_syntax 3:9'],
  [`${HEAD}#!/bin/bash\necho \${#array[@]}\n`, 'error jinja_syntax 3:7'],
  [`${CONFIG}{% include "x" %}\n`, 'error jinja_loader 3:1'],
  [`${CONFIG}{% import "x" as y %}\n`, 'error jinja_loader 3:1'],
  [`${CONFIG}{% if true %}{% include "x" %}{% endif %}\n`, 'warning jinja_loader 3:14'],
  [`${CONFIG}a: {{ b | to_json }}\n`, 'warning jinja_filter 3:11'],
  [`${CONFIG}a: {{ v1.local-hostname }}\n`, 'warning jinja_hyphen 3:15'],
  [`${HEAD}#include\nhttp://127.0.0.1:1/\n`, 'error jinja_content 2:1'],
  [`${HEAD}#part-handler\n`, 'error jinja_content 2:1'],
  [`${HEAD}#cloud-boothook\n#!/bin/sh\n`, 'error jinja_content 2:1'],
  [`${HEAD}#cloud-config-archive\n[]\n`, 'error jinja_content 2:1'],
  [`${HEAD}runcmd: [a]\n`, 'error jinja_content 2:1'],
  [`${HEAD}{# only #}\n\n  echo a\n`, 'error jinja_content 4:3'],
];

test('what cloud-init renders is silent', () => {
  for (const text of RENDERED) assert.deepEqual(told(text), [], text);
});

test('what it drops is told of, at its place', () => {
  for (const [text, finding] of DROPPED) assert.deepEqual(told(text), [finding], text);
});

test('a script that would begin with white space cannot be run', () => {
  assert.deepEqual(told(`${HEAD}\n#!/bin/sh\n`), ['error jinja_shebang 3:1']);
  assert.deepEqual(told(`${HEAD}{% set a = 1 %}\n\n#!/bin/sh\n`), ['error jinja_shebang 4:1']);
});

test('a message holds none of the template', () => {
  for (const text of [
    '{{ hunter2 hunter2 }}',
    '{% hunter2 %}',
    '{{ a|hunter2 }}',
    '{{ a.hunter2-hunter2 }}',
    '{% include "hunter2" %}',
    '{{ "hunter2',
  ]) {
    const findings = inspectJinja('a', 'text/jinja2', Buffer.from(`${CONFIG}${text}\n`));
    assert.equal(findings.length, 1, text);
    assert.ok(!JSON.stringify(findings).includes('hunter2'), text);
  }
});

test('hostile templates are judged in bounded time', () => {
  const size = 128 * 1024 - 40;
  for (const piece of [
    '{{',
    '{%',
    '{#',
    '{##}',
    '{{a}}',
    '{% if a %}',
    '{{ (',
    '{{ a|b }}',
    '{{ a|selectat }}',
    "{{ '",
    '{% raw %}',
    '{{ a.b-c }}',
    '{%set a=1%}\n',
    '{',
    ' ',
    '\n',
  ]) {
    for (const head of [HEAD, CONFIG]) {
      const start = performance.now();
      told(head + piece.repeat(size / piece.length));
      assert.ok(performance.now() - start < 1_000, `${JSON.stringify(piece)} took ${performance.now() - start} ms`);
    }
  }
});

test('a template that is too long to be judged is a warning', () => {
  const [found, ...more] = inspectJinja('a', 'text/jinja2', Buffer.from(CONFIG + '{{'.repeat(2 * 1024 * 1024)));
  assert.deepEqual([found?.severity, found?.code, found?.part, more.length], ['warning', 'not_judged', 'a', 0]);
  assert.match(found?.message ?? '', /^the template is not judged: it has more than 131072 characters, so /);
});

const cloudInit = await findCloudInit();

describe('templates, held to the real cloud-init', { skip: skipWithout(cloudInit) }, () => {
  let driver: Driver;
  before(async () => {
    driver = await startCloudInit(cloudInit);
  });
  after(() => driver.close());

  const consume = (text: string) => {
    const part = `Content-Type: text/jinja2\nContent-Transfer-Encoding: base64\n\n${Buffer.from(text).toString('base64')}`;
    return driver.consume(`Content-Type: multipart/mixed; boundary="BB"\nMIME-Version: 1.0\n\n--BB\n${part}\n--BB--\n`);
  };
  const drops = async (text: string) => {
    const seen = await consume(text);
    // Whether what comes out is good YAML, or a variable is not there, is another matter.
    return seen.warnings.filter((line) => /Failed calling handler|Ignoring jinja template/.test(line)).join('\n');
  };

  it('those that are silent are rendered', async () => {
    for (const text of RENDERED) assert.equal(await drops(text), '', text);
  });

  it('those that are told of are dropped', async () => {
    for (const [text] of DROPPED) assert.notEqual(await drops(text), '', text);
  });

  it('a jsonp is merged as YAML, and so lost', async () => {
    const patch = '[{"op": "add", "path": "/a", "value": 1}]\n';
    for (const text of [`${HEAD}#cloud-config-jsonp ${patch}`, `${HEAD}#cloud-config-jsonp\n${patch}`]) {
      assert.deepEqual(told(text), ['error jinja_content 2:1']);
      assert.deepEqual((await consume(text)).config, {});
    }
  });
});

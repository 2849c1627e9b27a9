import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Liquid } from 'liquidjs';
import { BootbundleError } from '../../src/domain/errors.ts';
import type { JsonObject } from '../../src/domain/json.ts';
import { LIMITS } from '../../src/domain/limits.ts';
import { parseTemplate, renderTemplate, type TemplateContext } from '../../src/render/template.ts';

const SECRET = 'hunter2-correct-horse';
const TRIAL: Parameters<typeof renderTemplate>[2] = { milliseconds: LIMITS.templateTrialMs, bytes: LIMITS.templateBytes };
const VARS: JsonObject = {
  name: 'web',
  port: 8080,
  ratio: 2.5,
  on: true,
  off: false,
  nothing: null,
  blank: ' \n',
  none: '',
  list: [1, 2, 3],
  empty: [],
  words: ['b', 'a', 'c'],
  users: [
    { name: 'ann', uid: 2, admin: true },
    { name: 'bob', uid: 1 },
  ],
  map: { k: 'v', 'a.b': 'dots', size: 'own' },
  'app.io/x': 'slash',
};
const context = (vars: JsonObject = VARS): TemplateContext => ({
  instance: { name: 'web-1', id: 'i-0a' },
  vars,
  labels: { 'rack.id': 'r7', zone: 'b' },
  secrets: new Map([
    ['token', Buffer.from(SECRET)],
    ['tls.key', Buffer.from('line 1\nline 2\n')],
    ['bin', Buffer.from([0xff, 0x00])],
  ]),
});
const render = (source: string, limits = TRIAL, vars = VARS) => renderTemplate(parseTemplate(source), context(vars), limits);

/** What it is refused with. */
function refusal(work: () => unknown, about = ''): BootbundleError {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof BootbundleError, `${error instanceof Error ? error.stack : error}`);
    return error;
  }
  assert.fail(`${about} was taken`);
}

test('a template prints what it names, and goes the ways of Liquid', () => {
  for (const [source, expected] of [
    ['', ''],
    ['{{ instance.name }}/{{ instance.id }} {{vars.name}}', 'web-1/i-0a web'],
    ['{{ vars.port }} {{ vars.ratio }} {{ vars.on }} {{ vars.off }} {{ -1.50 }} {{ "q" }}', '8080 2.5 true false -1.5 q'],
    ['{{ vars["app.io/x"] }} {{ labels["rack.id"] }} {{ labels.zone }} {{ vars.map["a.b"] }}', 'slash r7 b dots'],
    ['{{ vars.list[0] }} {{ vars.list[-1] }} {{ vars.words.first }} {{ vars.users.last.name }}', '1 3 b bob'],
    ['{{ vars.list.size }} {{ vars.name.size }} {{ vars.map.size }} {{ labels.size }} {{ vars.list.1 }}', '3 3 own 2 2'],
    ['{% assign k = "name" %}{{ vars[k] }} {{ vars.words[vars.list[0]] }}', 'web a'],
    ['{{ secrets.token }} {{ secrets["tls.key"] | json }} {{ secrets.bin | base64 }}', `${SECRET} "line 1\\nline 2\\n" /wA=`],
    ['{% if vars.nope %}a{% elsif vars.nope.deeper == 1 %}b{% else %}c{% endif %}', 'c'],
    ['{% unless vars.nope %}a{% else %}b{% endunless %}{% unless true %}a{% elsif vars.on %}b{% endunless %}', 'ab'],
    ['{{ vars.nope | default: "d" }} {{ vars.no.such.thing | default: vars.port }} {{ vars.none | default: "e" }}', 'd 8080 e'],
    ['{{ vars.nothing | default: 1 }} {{ vars.empty | default: 2 }} {{ secrets.nope | default: "s" }}', '1 2 s'],
    ['{{ vars.off | default: true }} {{ vars.off | default: true, allow_false: true }} {{ 0 | default: 1 }}', 'false false 0'],
    ['{% if vars.port > 80 and vars.name == "web" or vars.off %}y{% endif %}', 'y'],
    ['{% if vars.nope > 1 or vars.nope < 1 or vars.nope == "" or vars.nope contains "a" %}y{% else %}n{% endif %}', 'n'],
    [
      '{% if not vars.off and not vars.nope %}y{% endif %} {{ vars.name != "x" }} {{ "b" > "a" }} {{ 2 <= 2 }} {{ 2 >= 3 }}',
      'y true true true false',
    ],
    [
      '{{ vars.words contains "a" }} {{ vars.name contains "eb" }} {{ vars.map contains "k" }} {{ labels contains "q" }}',
      'true true true false',
    ],
    [
      '{{ vars.none == empty }} {{ vars.empty == empty }} {{ vars.nothing == blank }} {{ vars.blank == blank }} {{ blank == vars.name }}',
      'true true true true false',
    ],
    [
      '{{ vars.list == vars.list }} {{ vars.users[0] == vars.users[1] }} {{ vars.nothing == nil }} {{ 1 == "1" }}',
      'true false true false',
    ],
    ['{% if secrets.token == "x" or secrets.nope %}y{% else %}n{% endif %} {{ secrets.token contains "horse" }}', 'n true'],
    [
      '{% for u in vars.users %}{{ forloop.index }}{{ forloop.rindex0 }}{{ u.name }}{% unless forloop.last %},{% endunless %}{% endfor %}',
      '11ann,20bob',
    ],
    ['{% for p in vars.map %}{{ p[0] }}={{ p[1] }};{% endfor %}', 'k=v;a.b=dots;size=own;'],
    ['{% for i in (1..3) reversed %}{{ i }}{% endfor %}{% for i in vars.list limit:1 offset:1 %}{{ i }}{% endfor %}', '3212'],
    ['{% for i in vars.empty %}x{% else %}none{% endfor %}{% for i in vars.nothing %}x{% else %}null{% endfor %}', 'nonenull'],
    [
      '{% for i in (3..1) %}x{% endfor %}{% for i in (vars.list[0]..vars.list.size) %}{{ i }}{% endfor %}{{ (1..3) | join: "-" }}',
      '1231-2-3',
    ],
    ['{% for i in (1..9) %}{% if i == 2 %}{% continue %}{% elsif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}.', '13.'],
    [
      '{% for i in (1..2) %}{% for j in (1..3) %}{% if j == 2 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}',
      '11 21 ',
    ],
    ['{% assign x = 1 %}{% for x in (2..3) %}{{ x }}{% assign x = 9 %}{% endfor %}{{ x }}', '239'],
    ['{% case vars.port %}{% when 80, 8080 %}a{% when 8080 or 9 %}b{% else %}c{% endcase %}', 'a'],
    [
      '{% case vars.nope %}\n{% when "a" %}a{% when blank %}b{% endcase %}{% case vars.name %}{% when "x" %}x{% else %}y{% endcase %}',
      'by',
    ],
    ['{% capture c %}<{{ vars.name }}>{% endcapture %}{{ c | upcase }}{{ c }}', '<WEB><web>'],
    ['{% assign vars = "shadow" %}{{ vars }}', 'shadow'],
    ['{% liquid\n  # a comment\n  assign x = 2\n  for i in (1..x)\n    echo i\n  endfor\n%}', '12'],
    ['{% # a comment, with "quotes %}{% comment %} {{ nope }} {% nope %} {% endcomment %}.', '.'],
    ['{% raw %}{{ vars.name }} {%- if -%} {% endraw %}', '{{ vars.name }} {%- if -%} '],
    ['a {{- " b " -}} c  {%- if true -%}  d  {%- endif -%}  e', 'a b cde'],
    ['{{ "a\\n\\u00e9" }}{{ \'it"s\' }}{{ "}}" }}', 'a\né it"s}}'.replace(' ', '')],
    ['{ {x} } %} }} {', '{ {x} } %} }} {'],
  ] as const)
    assert.equal(render(source), expected, source);
});

test('what cannot be is refused, with its place and a sentence', () => {
  for (const [source, code, line, column, message] of [
    ['a\n\r\n  {{ vars.db.host }}', 'unknown_variable', 3, 6, /there is no `vars\.db`: set it, or use default$/],
    ['{{ vars.users[0].nme }}', 'unknown_variable', 1, 4, /`vars\.users\[0\]\.nme`: did you mean `name`\?/],
    ['{{ vars["no such"] }}', 'unknown_variable', 1, 4, /`vars\["no such"\]`/],
    ['{{ vars.nothing.x }}', 'unknown_variable', 1, 4, /`vars\.nothing\.x`/],
    ['{{ vars.name.first }}{{ x', 'bad_template', 1, 22, /not closed/],
    ['{{ vars.name.first }}', 'unknown_variable', 1, 4, /`vars\.name\.first`/],
    ['{{ vars.list[9] }}', 'unknown_variable', 1, 4, /`vars\.list\[9\]`/],
    ['{{ secrets.tokn }}', 'unknown_variable', 1, 4, /did you mean `token`/],
    ['{{ labels.a }}', 'unknown_variable', 1, 4, /labels\.a/],
    ['{{ "x" | append: vars.nope }}', 'unknown_variable', 1, 18, /vars\.nope/],
    ['{{ vars.nope | upcase | default: "x" }}', 'unknown_variable', 1, 4, /vars\.nope/],
    ['{% for x in vars.nope %}{% endfor %}', 'unknown_variable', 1, 13, /vars\.nope/],
    ['{% assign x = vars.nope %}', 'unknown_variable', 1, 15, /vars\.nope/],
    [
      '{% if false %}{% assign x = 1 %}{% endif %}{{ x }}',
      'unknown_variable',
      1,
      47,
      /no `x`: a template knows instance\.name, instance\.id, vars, labels, secrets/,
    ],
    // Known to be wrong before any machine is looked at.
    ['{% if hostname %}{% endif %}', 'unknown_variable', 1, 7, /`hostname`/],
    ['{{ forloop.index }}', 'unknown_variable', 1, 4, /forloop/],
    ['{{ instance.ip }}', 'unknown_variable', 1, 4, /`instance\.ip`: an instance has name and id/],
    ['{{ vars.list }}', 'template_prints_collection', 1, 4, /a list .* use json or yaml/],
    ['{{ vars.map }}', 'template_prints_collection', 1, 4, /a map .* use json or yaml/],
    ['{{ vars.map | upcase }}', 'template_prints_collection', 1, 15, /use json or yaml/],
    ['{{ vars.users | join }}', 'template_prints_collection', 1, 17, /use json or yaml/],
    ['{% for f in (1..1) %}{{ forloop }}{% endfor %}', 'template_prints_collection', 1, 25, /map/],
    ['{{ secrets }}', 'template_prints_collection', 1, 4, /name one/],
    ['{{ secrets | json }}', 'template_prints_collection', 1, 14, /name one/],
    ['{% for s in secrets %}{% endfor %}', 'template_prints_collection', 1, 1, /name one/],
    ['{{ secrets | map: "x" }}', 'template_failed', 1, 14, /a list is wanted/],
    ['{{ secrets.bin }}', 'secret_not_text', 1, 4, /use base64/],
    ['{{ vars.nothing }}', 'template_prints_null', 1, 4, /is null/],
    ['{{ vars.empty | first }}', 'template_prints_null', 1, 4, /is null/],
    ['{% for c in vars.name %}{% endfor %}', 'template_failed', 1, 1, /a list or a map/],
    ['{{ vars.port > "80" }}', 'template_failed', 1, 4, /two numbers or two texts/],
    ['{{ vars.port contains "80" }}', 'template_failed', 1, 4, /a text, a list or a map/],
    ['{% for i in (1..2) limit: vars.name %}{% endfor %}', 'template_failed', 1, 27, /number/],
    ['{% for i in (1..1.5) %}{% endfor %}', 'template_failed', 1, 13, /whole number/],
    ['x\n{{ vars.name | jsn }}', 'bad_template', 2, 16, /no filter `jsn`: did you mean `json`\?/],
    ['{{ vars.name | toYaml }}', 'bad_template', 1, 16, /here it is yaml/],
    ['{{ vars.name | date: "%s" }}', 'bad_template', 1, 16, /no filter `date`: there are default, json, yaml/],
    ['{{ vars.list | sample }}', 'bad_template', 1, 16, /`sample`/],
    ['{{ vars.name | constructor }}', 'bad_template', 1, 16, /`constructor`/],
    ['{{ vars.name | replace: "a" }}', 'bad_template', 1, 16, /`replace` takes 2 arguments/],
    ['{{ vars.name | upcase: 1 }}', 'bad_template', 1, 16, /`upcase` takes no argument/],
    ['{{ vars.name | append: x: 1 }}', 'bad_template', 1, 16, /by the name of `x`/],
    ['{{ vars.name | }}', 'bad_template', 1, 14, /a filter is wanted/],
    ['{{ vars.name | append: }}', 'bad_template', 1, 23, /cannot be read/],
    ['{{ vars.name | append: "x", }}', 'bad_template', 1, 28, /cannot be read/],
    ['{{ vars.name | append: , "x" }}', 'bad_template', 1, 24, /cannot be read/],
    ['{{ vars.name || upcase }}', 'bad_template', 1, 15, /filter is wanted/],
    ['{{ vars.name upcase }}', 'bad_template', 1, 14, /missing before this/],
    ['{{ vars.port == }}', 'bad_template', 1, 14, /missing after this/],
    ['{{ == vars.port }}', 'bad_template', 1, 4, /missing before this/],
    ['{{ 1 2 == }}', 'bad_template', 1, 6, /missing/],
    ['{{ }}', 'bad_template', 1, 4, /cannot be read/],
    ['{% if %}{% endif %}', 'bad_template', 1, 6, /cannot be read/],
    ['{{ vars.name. }}', 'bad_template', 1, 13, /after the dot/],
    ['{{ vars[] }}', 'bad_template', 1, 9, /in the brackets/],
    ['{{ vars["a" b] }}', 'bad_template', 1, 12, /bracket is not closed/],
    ['{{ vars["a" }}', 'bad_template', 1, 12, /bracket is not closed/],
    ['{{ ["vars"].name }}', 'bad_template', 1, 4, /begin with a name/],
    ['{{ [vars.name] }}', 'bad_template', 1, 4, /begin with a name/],
    ['{% assign x = "abc %}', 'bad_template', 1, 15, /quote/],
    ['{% assign x = "abc\\" %}', 'bad_template', 1, 15, /quote/],
    ['{{ "abc }}', 'bad_template', 1, 1, /not closed/],
    ['{{ "\\ud800" }}', 'bad_template', 1, 4, /surrogate/],
    ['{{ 99999999999999999999 }}', 'bad_template', 1, 4, /too large/],
    ['{{ (1..2 }}', 'bad_template', 1, 10, /range/],
    ['{{ (vars.port) }}', 'bad_template', 1, 14, /range/],
    ['{% if empty %}{% endif %}', 'bad_template', 1, 7, /`empty`/],
    ['{{ vars.name < blank }}', 'bad_template', 1, 14, /`blank`/],
    ['a\n {% if vars.on %}\n', 'bad_template', 2, 2, /`if` has no `endif`/],
    ['{% for i in (1..2) %}{% endif %}{% endfor %}', 'bad_template', 1, 22, /`endif` does not belong to the `for`/],
    ['{% endif %}', 'bad_template', 1, 1, /belongs to nothing/],
    ['{% if true %}{% else %}{% else %}{% endif %}', 'bad_template', 1, 24, /`else` does not belong/],
    ['{% case 1 %}{% else %}a{% when 1 %}b{% endcase %}', 'bad_template', 1, 24, /`when` does not belong/],
    ['{% case 1 %}lost{% when 1 %}b{% endcase %}', 'bad_template', 1, 1, /between `case` and/],
    ['{% case 1 %}{% when 1 and 2 %}{% endcase %}', 'bad_template', 1, 23, /comma/],
    ['{% if true %}{% else if vars.on %}{% endif %}', 'bad_template', 1, 22, /does not belong here/],
    ['{% if true %}{% endif vars %}', 'bad_template', 1, 23, /does not belong here/],
    ['{% for x of vars.list %}{% endfor %}', 'bad_template', 1, 1, /for NAME in LIST/],
    ['{% for x in vars.list lmit:1 %}{% endfor %}', 'bad_template', 1, 23, /limit:NUMBER/],
    ['{% assign x 1 %}', 'bad_template', 1, 1, /assign NAME = VALUE/],
    ['{% assign = 1 %}', 'bad_template', 1, 11, /a name is wanted/],
    ['{% capture %}{% endcapture %}', 'bad_template', 1, 11, /a name is wanted/],
    ['{% for x in vars.empty %}{% else %}{% break %}{% endfor %}', 'bad_template', 1, 36, /only in `for`/],
    ['{% for x in vars.empty %}{% else %}{{ forloop.index }}{% endfor %}', 'unknown_variable', 1, 39, /forloop/],
    ['{% break %}', 'bad_template', 1, 1, /only in `for`/],
    ['{% comment %}', 'bad_template', 1, 1, /endcomment/],
    ['{% raw %}', 'bad_template', 1, 1, /endraw/],
    ['{% liquid\nraw\nendraw %}', 'bad_template', 2, 1, /`raw` cannot/],
    ['{% liquid\nif true\n%}{% endif %}', 'bad_template', 2, 1, /`if` has no `endif`/],
    ['{% iff vars.on %}', 'bad_template', 1, 1, /no tag `iff`: did you mean `if`|there are assign/],
    ['{% foreach x in vars.list %}', 'bad_template', 1, 1, /no tag `foreach`: there are assign, break/],
    ['{% include "/etc/passwd" %}', 'bad_template', 1, 1, /no tag `include`/],
    ['{% render "a" %}', 'bad_template', 1, 1, /no tag `render`/],
    ['{% layout "a" %}', 'bad_template', 1, 1, /no tag `layout`/],
    ['{% increment x %}', 'bad_template', 1, 1, /no tag `increment`/],
    ['{% %}', 'bad_template', 1, 4, /begins with its name/],
    ['x {% if true', 'bad_template', 1, 3, /not closed/],
    [`{{ ${'['.repeat(9000)} }}`, 'bad_template', 1, 54, /nested deeper/],
    [`{{ ${'vars['.repeat(9000)}1${']'.repeat(9000)} }}`, 'bad_template', 1, 258, /nested deeper/],
    [`{% if true %}{% elsif ${'vars['.repeat(9000)} %}{% endif %}`, 'bad_template', 1, 277, /nested deeper/],
    ['{% if true %}'.repeat(10_000), 'bad_template', 1, 1301, /nested deeper than 100/],
    [`{% liquid ${'liquid '.repeat(9000)} %}`, 'bad_template', 1, 704, /nested deeper/],
    ['{{ 1 }}'.repeat(100_000), 'bad_template', 1, 280_001, /20000 tags at most/],
    [`{{ "${'a'.repeat(1_000_000)}" }}`, 'bad_template', 1, 1, /within 65536 characters/],
  ] as const) {
    const error = refusal(() => render(source), source.slice(0, 60));
    const [finding, ...more] = error.findings ?? [];
    const about = source.slice(0, 60);
    assert.deepEqual([error.kind, error.code, finding?.code, more.length], ['invalid', code, code, 0], about);
    assert.deepEqual([finding?.line, finding?.column], [line, column], `${about}: ${error.message}`);
    assert.match(finding?.message ?? '', message, about);
    assert.equal(error.message, `line ${line}, column ${column}: ${finding?.message}`);
    assert.ok(error.message.length < 800 && !/[\n\r]/.test(error.message), about);
  }
});

test('no one reaches what is not their own by a name of JavaScript', () => {
  for (const name of ['constructor', '__proto__', 'toString', 'hasOwnProperty', 'valueOf', 'length', 'get', 'then', 'toLiquid'])
    for (const owner of [
      'vars',
      'vars.map',
      'vars.list',
      'vars.name',
      'vars.port',
      'labels',
      'secrets',
      'secrets.token',
      'instance',
    ])
      for (const path of [`${owner}.${name}`, `${owner}["${name}"]`, `${owner}.${name}.${name}`])
        assert.equal(refusal(() => render(`{{ ${path} }}`)).code, 'unknown_variable', path);
  for (const name of ['this', 'self', 'globalThis', 'process', '__proto__', 'constructor', 'scopes', 'environments'])
    assert.equal(refusal(() => render(`{{ ${name} }}`)).code, 'unknown_variable', name);
  const own = { constructor: 'a', toString: 'b', hasOwnProperty: 'c', valueOf: 1, toJSON: 'd' };
  assert.equal(render('{{ vars.constructor }}{{ vars.toString }}{{ vars.toJSON }}', TRIAL, own), 'abd');
  assert.equal(
    render('{{ vars | json }}', TRIAL, own),
    '{"constructor":"a","toString":"b","hasOwnProperty":"c","valueOf":1,"toJSON":"d"}',
  );
  assert.equal(render('{% assign __proto__ = vars.map %}{% assign constructor = 1 %}{{ __proto__.k }}{{ constructor }}'), 'v1');
});

test('a template that may print a secret says so, and none gets at one without naming it', () => {
  for (const [source, uses] of [
    ['{{ vars.name }}', false],
    ['{{ secrets.a }}', true],
    ['{% if secrets.a %}{% endif %}', true],
    ['{{ vars.name | append: secrets.a }}', true],
    ['{{ vars[secrets.a] }}', true],
    ['{% assign s = secrets %}{{ s.a }}', true],
    ['{% for i in (1..secrets.a) %}{% endfor %}', true],
    ['{% for i in vars.list limit: secrets.a %}{% endfor %}', true],
    ['{% case 1 %}{% when secrets.a %}{% endcase %}', true],
    ['{% liquid\necho secrets.a %}', true],
    ['{% capture x %}{{ secrets["a"] }}{% endcapture %}', true],
    ['{% comment %}{{ secrets.a }}{% endcomment %}{% raw %}{{ secrets.a }}{% endraw %}{{ vars.secrets }}', false],
  ] as const)
    assert.equal(parseTemplate(source).usesSecrets, uses, source);
});

test('no error holds a value', () => {
  const vars = { ...VARS, hidden: SECRET, deep: [{ [SECRET.slice(0, 3)]: SECRET }] };
  for (const value of ['secrets.token', 'vars.hidden', 'vars.deep[0].hun'])
    for (const wrong of [
      `{{ vars[${value}] }}`,
      `{{ ${value}.x }}`,
      `{% assign x = ${value} | append: "" %}{{ vars[x] }}`,
      `{{ ${value} | plus: 1 }}`,
      `{{ 1 | round: ${value} }}`,
      `{{ ${value} | join }}`,
      `{{ ${value} | indent: ${value} }}`,
      `{% for x in ${value} %}{% endfor %}`,
      `{% for i in (1..${value}) %}{% endfor %}`,
      `{{ ${value} > 1 }}`,
      `{{ "%zz" | append: ${value} | url_decode }}`,
      `{{ "\\u0000" | append: ${value} | shell }}`,
      `{{ vars.list | map: ${value} | join }}`,
      `{{ vars.users | sort: ${value} | json | plus: 1 }}`,
    ]) {
      const { message, findings, cause, stack } = refusal(() => renderTemplate(parseTemplate(wrong), context(vars), TRIAL));
      assert.ok(!JSON.stringify([message, findings, stack]).includes(SECRET) && cause === undefined, wrong);
    }
});

const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc
    .array(
      fc.constantFrom('a', ' ', '\n', '\r\n', '\t', '{', '}', '%', '{ {', '"', "'", '|', '-', '\ufeff', '\u00a0', 'é', '🙂'),
      { maxLength: 20 },
    )
    .map((parts) => parts.join('')),
);

test('what is outside the tags comes out as it went in', () => {
  const plain = anyText.filter((text) => !/\{[{%]/.test(text) && !text.endsWith('{'));
  fc.assert(
    fc.property(plain, plain, (before, after) => {
      assert.equal(render(before), before);
      assert.equal(
        render(`${before}{{ vars.name }}${after}{% if true %}${before}{% endif %}`),
        `${before}web${after}${before}`,
      );
    }),
  );
  fc.assert(
    fc.property(anyText, (text) => {
      assert.equal(render(`{% raw %}${text}{% endraw %}`), text);
    }),
  );
});

test('whatever the source is, it is rendered or refused', () => {
  const piece = fc.constantFrom(
    ...[
      '{{',
      '}}',
      '{%',
      '%}',
      '{%-',
      '-%}',
      ' ',
      '\n',
      '"',
      "'",
      '\\',
      '[',
      ']',
      '(',
      ')',
      '..',
      '.',
      '|',
      ':',
      ',',
      '=',
      '==',
      '<',
      'not',
      'and',
      'or',
      'contains',
    ],
    ...[
      'if',
      'endif',
      'else',
      'elsif',
      'for',
      'in',
      'endfor',
      'case',
      'when',
      'endcase',
      'unless',
      'endunless',
      'assign',
      'capture',
      'endcapture',
      'raw',
      'endraw',
      'comment',
      'endcomment',
      'liquid',
      'echo',
      'break',
      '#',
    ],
    ...[
      'vars',
      'vars.list',
      'vars.name',
      'x',
      '1',
      '-2.5',
      '"a"',
      'true',
      'nil',
      'empty',
      'secrets',
      'secrets.token',
      'default',
      'json',
      'upcase',
      'join',
      'sort',
      'limit',
      'reversed',
    ],
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), fc.boolean(), (parts, spaced) => {
      const source = parts.join(spaced ? ' ' : '');
      try {
        assert.equal(render(source), render(source));
      } catch (error) {
        assert.ok(
          error instanceof BootbundleError && error.kind === 'invalid',
          `${source}: ${error instanceof Error ? error.stack : error}`,
        );
      }
    }),
    { numRuns: 2000 },
  );
});

test('what is common to both renders as LiquidJS has it', () => {
  const peer = new Liquid({ strictFilters: true, ownPropertyOnly: true });
  const one = fc.constantFrom;
  const number = one('vars.port', 'vars.ratio', '1', '-7', '0.5', 'vars.list[1]', 'vars.users.first.uid', 'vars.list.size');
  const text = one(
    'vars.name',
    '"a,b,,c,"',
    '"  x y "',
    'vars.words[0]',
    'vars.users[1].name',
    '""',
    '"É ß <&>"',
    'vars.map.k',
  );
  const list = one('vars.list', 'vars.words', 'vars.users', 'vars.empty', '(1..4)');
  const numeric = fc
    .tuple(one('plus', 'minus', 'times', 'divided_by', 'modulo', 'at_least', 'at_most', 'round'), number)
    .map(([name, by]) => `${name}: ${by}`);
  const textual = fc.oneof(
    one(
      'upcase',
      'downcase',
      'capitalize',
      'strip',
      'lstrip',
      'rstrip',
      'escape',
      'url_encode',
      'strip_newlines',
      'json',
      'slice: 1, 2',
      'slice: -2',
      'truncate: 4',
      'truncate: 2, "!"',
      'default: "d"',
    ),
    fc
      .tuple(one('append', 'prepend', 'remove', 'remove_first', 'remove_last', 'split'), one('"a"', '","', 'vars.name', '" "'))
      .map(([name, by]) => (name === 'split' ? `split: ${by} | join: "+"` : `${name}: ${by}`)),
    fc
      .tuple(one('replace', 'replace_first', 'replace_last'), one('"a"', '","'), text)
      .map(([name, what, by]) => `${name}: ${what}, ${by}`),
  );
  const listed = one(
    'reverse',
    'uniq',
    'compact',
    'concat: vars.words',
    'map: "name" | compact',
    'where: "admin"',
    'where: "name", "bob"',
    'reject: "admin"',
    'sort',
    'sort: "uid"',
    'slice: 0, 2',
  );
  const chain = (filters: fc.Arbitrary<string>) =>
    fc.array(filters, { maxLength: 3 }).map((each) => each.map((it) => ` | ${it}`).join(''));
  const output = fc
    .oneof(
      fc.tuple(number, chain(numeric)),
      fc.tuple(text, chain(textual)),
      fc
        .tuple(list, chain(listed), one(' | json', ' | size', ' | first | default: "none" | json', ' | join: "/"'))
        .map(([of, filters, last]) => [of, filters + last] as const),
    )
    .map(([of, filters]) => `{{ ${of}${filters} }}`);
  const comparison = fc
    .oneof(
      fc.tuple(number, one('==', '!=', '<', '>', '<=', '>='), number),
      fc.tuple(text, one('==', '!=', '<', '>', 'contains'), text),
      fc.tuple(list, one('=='), one('empty', 'blank', 'vars.list')),
      fc.tuple(one('vars.off', 'vars.nope', 'vars.nothing'), one('=='), one('nil', 'blank', 'false')),
    )
    .map((parts) => parts.join(' '));
  const condition = fc
    .array(comparison, { minLength: 1, maxLength: 3 })
    .chain((each) => one(' and ', ' or ').map((joint) => each.join(joint)));
  const { block } = fc.letrec<{ block: string }>((tie) => ({
    block: fc
      .array(
        fc.oneof(
          { maxDepth: 3 },
          { weight: 4, arbitrary: output },
          { weight: 2, arbitrary: one('text\n', '  - ', '# é\r\n') },
          {
            weight: 1,
            arbitrary: fc
              .tuple(condition, tie('block'), tie('block'))
              .map(([when, yes, no]) => `{%- if ${when} %}${yes}{% else -%}${no}{% endif %}`),
          },
          {
            weight: 1,
            arbitrary: fc
              .tuple(one('unless'), condition, tie('block'))
              .map(([tag, when, yes]) => `{% ${tag} ${when} %}${yes}{% end${tag} %}`),
          },
          {
            weight: 1,
            arbitrary: fc
              .tuple(list, one('', ' reversed', ' limit:2', ' offset:1 limit:1'), tie('block'))
              .map(([of, how, body]) => `{% for x in ${of}${how} %}{{ forloop.index }}${body}{{ x | json }}{% endfor %}`),
          },
          {
            weight: 1,
            arbitrary: fc
              .tuple(number, tie('block'), tie('block'))
              .map(([of, yes, no]) => `{% case ${of} %}{% when 1, 8080 %}${yes}{% else %}${no}{% endcase %}`),
          },
          {
            weight: 1,
            arbitrary: fc
              .tuple(text, tie('block'))
              .map(([of, body]) => `{% assign y = ${of} %}{% capture z %}${body}{% endcapture %}{{ y }}{{ z | upcase }}`),
          },
        ),
        { maxLength: 4 },
      )
      .map((each) => each.join('')),
  }));
  let [same, stricter] = [0, 0];
  fc.assert(
    fc.property(block, (source) => {
      let ours: string;
      try {
        ours = render(source);
      } catch (error) {
        assert.ok(error instanceof BootbundleError && /^template_(?:failed|prints)/.test(error.code), `${source}: ${error}`);
        stricter++;
        return;
      }
      assert.equal(ours, peer.parseAndRenderSync(source, { ...context(), vars: VARS }), source);
      same++;
    }),
    { numRuns: 1500 },
  );
  assert.ok(same > stricter, `${same} alike, ${stricter} refused`);
});

test('the same comes to the same end, however long it takes', () => {
  const template = parseTemplate('{% for i in (1..1000) %}{{ i | times: 2 | json }},{% endfor %}');
  const enough = { milliseconds: 5, bytes: 10_000 };
  const results = Array.from({ length: 20 }, () => renderTemplate(template, context(), enough));
  assert.equal(new Set(results).size, 1);
  const short = { ...enough, milliseconds: 1 };
  const ends = Array.from({ length: 20 }, () => refusal(() => renderTemplate(template, context(), short)).message);
  assert.deepEqual([...new Set(ends)].length, 1);
  assert.match(ends[0] ?? '', /takes too long/);
});

test('no more comes out than may', () => {
  const limit = (bytes: number) => ({ milliseconds: 50, bytes });
  assert.equal(render('éé{{ "éé" }}', limit(8)), 'éééé');
  for (const source of [
    'éé{{ "éé" }}',
    '{% for i in (1..4) %}é{% endfor %}',
    '{% capture x %}12345678{% endcapture %}',
    '12345678',
  ])
    assert.equal(refusal(() => render(source, limit(7))).code, 'template_limit', source);
});

const loop = (count: number, body: string) => `{% for i in (1..${count}) %}${body}{% endfor %}`;
const grow = (start: string, times: number) => `{% assign s = ${start} %}${'{% assign s = s | append: s %}'.repeat(times)}`;
const BOMBS: Record<string, string> = {
  'a text that doubles': grow('"x"', 0) + loop(1000, '{% assign s = s | append: s %}'),
  'a capture that doubles': grow('"x"', 0) + loop(1000, '{% capture s %}{{ s }}{{ s }}{% endcapture %}'),
  'a list that doubles': `{% assign l = vars.list %}${loop(1000, '{% assign l = l | concat: l %}')}`,
  'a long text, often': grow('"0123456789"', 16) + loop(100_000, '{{ s }}'),
  'a huge range': '{% for i in (1..1000000000) %}{% endfor %}',
  'a huge range as a value': '{{ (1..1000000000) | join }}',
  'a range past the precision of numbers': '{% assign n = 4503599627370496 | times: 2 %}{% for i in (n..n) %}x{% endfor %}',
  'a range of text': '{% for i in ("1".."9999999999") %}x{% endfor %}',
  'nested loops': loop(10_000, loop(10_000, loop(10_000, 'x'))),
  'nested loops of nothing': loop(100_000, loop(100_000, '')),
  'loops that stop': loop(100_000, '{% for x in vars.many reversed %}{% break %}{% endfor %}'),
  'loops of no item': loop(100_000, '{% for x in vars.many limit: 0 %}{% endfor %}'),
  'numbers that grow': `{% assign n = 9 %}${loop(10_000, '{% assign n = n | times: n %}')}`,
  'a number of a billion places': loop(100_000, '{% assign x = 1.5 | round: 1000000000 %}'),
  'replace, by the text itself': `${grow('"0123456789"', 12)}{{ s | replace: "0", s }}`,
  'replace, a million times': loop(10_000, '{% assign x = vars.big | replace: "a", "bb" %}'),
  'remove, a million times': loop(10_000, '{% assign x = vars.big | remove: "a" %}'),
  'a text in characters': loop(10_000, '{% assign x = vars.big | split: "" %}'),
  'many texts in characters': `{% assign t = vars.big | slice: 0, 60000 %}${loop(10_000, '{% assign x = t | split: "" %}')}`,
  'join with a long text': `{% assign l = (1..1000) %}${loop(1000, '{% assign x = l | join: vars.big %}')}`,
  'json of a long list': `{% assign l = (1..100000) %}${loop(1000, '{% assign x = l | json %}')}`,
  'json of the same, over and over': `{% assign l = vars.rows %}${'{% assign l = l | concat: l %}'.repeat(6)}{{ l | json }}`,
  'json of json': loop(10_000, '{% assign x = vars.big | json | json | json %}'),
  'yaml of what must be escaped': `${grow('"\\u0007"', 17)}${loop(10_000, '{% assign x = s | yaml %}')}`,
  'sort of a long list': `{% assign l = (1..100000) %}${loop(1000, '{% assign x = l | reverse | sort %}')}`,
  'sort of long texts': `{% assign t = vars.big | append: "b" %}{% assign l = vars.big | append: "c," | append: t | split: "," %}${'{% assign l = l | concat: l %}'.repeat(13)}{{ l | sort | size }}`,
  'uniq of a long list': `{% assign l = (1..100000) %}${loop(1000, '{% assign x = l | uniq %}')}`,
  'where of a long list': loop(1000, '{% assign x = vars.many | where: "a.b.c.d", "b" %}'),
  'map by a long path': `${grow('"."', 16)}{% assign x = vars.many | map: s %}`,
  'lists compared': `{% assign a = (1..100000) %}{% assign b = (1..100000) %}${loop(1000, '{% if a == b %}{% endif %}')}`,
  'long texts compared': `{% assign a = vars.big | upcase %}{% assign b = vars.big | upcase %}${loop(100_000, '{% if a == b %}{% endif %}')}`,
  'long texts compared in one case': `{% assign a = vars.big | upcase %}{% assign b = vars.big | upcase %}${loop(1000, `{% case a %}{% when ${'"x", b, '.repeat(1000)}"x" %}{% endcase %}`)}`,
  'the worst text to look for': `{% assign h = vars.big | slice: 0, 100000 %}{% assign p = h | append: "b" | append: h %}${loop(1000, '{% if vars.big contains p %}{% endif %}')}`,
  'indent of a million lines': `${grow('"\\nx"', 18)}${loop(1000, '{% assign x = s | indent: 100 %}')}`,
  'escape of escape': loop(1000, '{% assign x = vars.big | replace: "a", "&" | escape | escape | escape %}'),
  'shell of shell': loop(1000, `{% assign x = vars.big | replace: "a", "'" | shell | shell | shell %}`),
  'base64 of base64': `{{ vars.big ${'| base64 '.repeat(5000)}}}`,
  'letters that grow': `${grow('"ﬃ"', 18)}${loop(1000, '{% assign x = s | upcase %}')}`,
  'blanks to strip': `${grow('" "', 19)}{% assign s = s | prepend: "x" | append: "x" %}${loop(100_000, '{% assign x = s | strip %}')}`,
  'blanks to judge': `${grow('" "', 19)}${loop(100_000, '{% if s == blank %}{% endif %}')}`,
  'sizes of a long text': loop(100_000, '{% if vars.big.size == 1 %}{% endif %}'),
  'many filters': loop(1000, `{{ 1 ${'| plus: 1 '.repeat(6000)}}}`),
  'many operators': loop(1000, `{% if 1 == 1${' and 1 == 1'.repeat(5000)} %}{% endif %}`),
  'many texts that are kept':
    grow('"Ж"', 17) + Array.from({ length: 3000 }, (_, i) => `{% assign v${i} = s | append: "${i}" | upcase %}`).join(''),
  'many pieces': loop(100_000, `${'{% capture c %}'.repeat(20)}x{{ i }}${'{% endcapture %}'.repeat(20)}`),
  'a secret, over and over': loop(
    100_000,
    '{% if secrets.token == "x" or secrets.bin == nil %}{% endif %}'.replace('secrets.bin', 'secrets["tls.key"]'),
  ),
};

const ROWS = Array.from({ length: 1000 }, (_, i) => ({ name: `n${i}`, text: 'x'.repeat(300) }));

test('every bomb ends soon, and small', () => {
  const vars = {
    list: [1],
    big: 'a'.repeat(1_000_000),
    many: Array.from({ length: 50_000 }, (_, i) => i),
    rows: ROWS,
  };
  const before = process.memoryUsage().rss;
  for (const [name, source] of Object.entries(BOMBS)) {
    // The time of this process: other work on the machine does not count.
    const start = process.cpuUsage();
    const { code } = refusal(() => render(source, TRIAL, vars));
    const { user, system } = process.cpuUsage(start);
    assert.ok(['template_limit', 'template_failed'].includes(code), `${name}: ${code}`);
    assert.ok(user + system < 500_000, `${name} took ${(user + system) / 1000} ms`);
  }
  const grown = (process.memoryUsage().rss - before) / 1024 / 1024;
  assert.ok(grown < 250, `${grown} MiB more`);
});

test('with all the time of a fetch, memory ends it', () => {
  const fetching = { ...TRIAL, milliseconds: LIMITS.templateFetchMs };
  const many = (body: (i: number) => string) => Array.from({ length: 300 }, (_, i) => body(i)).join('');
  const before = process.memoryUsage().rss;
  for (const [source, message] of [
    ['{% assign x = (1..100001) %}', /too long lists/],
    ['{% assign x = vars.big | split: "" %}', /too long lists/],
    [`{% assign l = (1..60000) %}{% assign l = l | concat: l %}`, /too long lists/],
    [`{% assign t = vars.big | slice: 0, 90000 %}${many((i) => `{% assign v${i} = t | split: "" %}`)}`, /too many/],
    [many((i) => `{% assign v${i} = vars.big | append: "${i}" | upcase %}`), /too much text/],
    [many((i) => `{% capture v${i} %}{{ vars.big }}${i}{% endcapture %}`), /too much text/],
    [many((i) => `{% assign v${i} = vars.rows | json %}`), /too much text/],
    ['{% assign x = vars.big | replace: "a", vars.rows[0].text | size %}', /too much text/],
    ['{% assign x = (1..50000) | join: vars.rows[0].text | size %}', /too much text/],
    ['{{ vars.big }}{{ vars.big }}{{ vars.big }}{{ vars.big }}{{ vars.big }}', /renders to more than 4194304 bytes/],
  ] as const)
    assert.match(refusal(() => render(source, fetching, { big: 'a'.repeat(1_000_000), rows: ROWS })).message, message);
  const grown = (process.memoryUsage().rss - before) / 1024 / 1024;
  assert.ok(grown < 250, `${grown} MiB more`);
});

test('a source of 4 MiB is read, or refused, in no time', () => {
  for (const source of [
    `{{ 1 ${'| abs '.repeat(10_000)}}}`.repeat(70),
    `{{ vars${'.a'.repeat(30_000)} }}`.repeat(70),
    `{% if 1${' or 1'.repeat(10_000)} %}{% endif %}`.repeat(70),
    `{% liquid${'\n#'.repeat(30_000)} %}`.repeat(70),
    `{{ "${'a'.repeat(65_000)}" }}`.repeat(64),
    '{{1}}'.repeat(800_000),
    'key: value\n'.repeat(380_000),
    '\n'.repeat(LIMITS.partBytes),
    '{ % '.repeat(1_000_000),
    `{% raw %}${'{{ x }}'.repeat(590_000)}{% endraw %}`,
    `{% comment %}${'\n # '.repeat(1_000_000)}{% endcomment %}`,
    `{% # ${'\n'.repeat(60_000)}x %}`,
    '{{ vars.name }}{% if vars.on %}x{% endif %}\n'.repeat(6_000),
  ]) {
    const start = process.cpuUsage();
    try {
      parseTemplate(source);
    } catch (error) {
      assert.match(String(error), /at most$/, source.slice(0, 20));
    }
    const { user, system } = process.cpuUsage(start);
    assert.ok(user + system < 1_000_000, `${source.slice(0, 20)} took ${(user + system) / 1000} ms`);
  }
});

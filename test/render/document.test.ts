import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseMime } from '../../src/inspect/mime.ts';
import {
  CONFIG_TYPE,
  type CompiledPart,
  compilePart,
  GIVEN_RULE,
  keepsGivenOrder,
  type PartRole,
  REVERSE_RULE,
  renderDocument,
  type Target,
} from '../../src/render/document.ts';

const TARGET: Target = {
  name: 'node-1',
  id: '0123456789abcdef',
  vars: {},
  reportUrl: 'http://192.0.2.10:8080/r/x',
  track: false,
};
const RULES = {
  takenTypes: new Set(['text/cloud-config', 'text/jinja2', 'text/part-handler', 'text/x-include-url', 'text/x-shellscript']),
  includeRoots: ['http://192.0.2.10:8080/i/', 'http://192.0.2.10:8080/s/'],
};

const part = (filename: string, type: string, role: PartRole = { kind: 'other' }, merge: string | null = null): CompiledPart =>
  compilePart({ filename, type, merge, role, origin: `web@1/${filename}` }, Buffer.from(`content of ${filename}\n`));
const script = (filename: string) => part(filename, 'text/x-shellscript');
const pod = (filename: string) => part(filename, 'text/x-kube-pod');
const config = (filename: string, merge: string | null = null) =>
  part(filename, 'text/cloud-config', { kind: 'config', statesRule: false }, merge);
const ownRule = (filename: string) => part(filename, 'text/cloud-config', { kind: 'config', statesRule: true });
const handler = (filename: string, handles: readonly string[] | null) =>
  part(filename, 'text/part-handler', { kind: 'handler', handles });
const include = (filename: string, ...urls: string[]) => part(filename, 'text/x-include-url', { kind: 'include', urls });

const render = (parts: readonly CompiledPart[], target = TARGET) => renderDocument(parts, target, RULES);
const sent = (parts: readonly CompiledPart[]) =>
  parseMime(render(parts).bytes).children.map((entity) => ({
    name: entity.filename ?? '',
    merge: entity.header('merge-type'),
    body: Buffer.from(entity.body()).toString(),
  }));
const names = (parts: readonly CompiledPart[]) => sent(parts).map(({ name }) => name);
const rules = (parts: readonly CompiledPart[]) => sent(parts).map(({ name, merge }) => [name, merge]);
const findings = (parts: readonly CompiledPart[]) =>
  render(parts).findings.map(({ severity, code, part }) => [severity, code, part]);

test('handlers come first, in their order; everything else stays in its own', () => {
  const parts = [script('a.sh'), pod('b.pod'), handler('z.py', ['text/x-kube-pod']), script('c.sh'), handler('y.py', [])];
  assert.deepEqual(names(parts), ['01-z.py', '02-y.py', '03-a.sh', '04-b.pod', '05-c.sh']);
});

test('what was sent is told in the order in which it was sent', () => {
  const { bytes, parts } = render([config('a.yaml'), handler('h.py', [CONFIG_TYPE]), config('b.yaml')]);
  assert.deepEqual(parts, [
    { filename: '01-h.py', type: 'text/part-handler', origin: 'web@1/h.py' },
    { filename: '02-bootbundle-config.json', type: CONFIG_TYPE, origin: 'bootbundle' },
    { filename: '03-b.yaml', type: 'text/cloud-config', origin: 'web@1/b.yaml' },
    { filename: '04-a.yaml', type: 'text/cloud-config', origin: 'web@1/a.yaml' },
  ]);
  assert.deepEqual(
    parseMime(bytes).children.map((entity) => [entity.filename, entity.contentType]),
    parts.map(({ filename, type }) => [filename, type]),
  );
});

test('the config part comes right after the last handler, exactly if one of them lists its type', () => {
  assert.deepEqual(names([script('a.sh'), handler('h.py', ['text/x-kube-pod']), handler('i.py', null)]), [
    '01-h.py',
    '02-i.py',
    '03-a.sh',
  ]);
  assert.deepEqual(names([script('a.sh'), handler('h.py', ['text/x-kube-pod', CONFIG_TYPE]), handler('i.py', null)]), [
    '01-h.py',
    '02-i.py',
    '03-bootbundle-config.json',
    '04-a.sh',
  ]);
  const twice = [handler('h.py', [CONFIG_TYPE]), handler('i.py', [CONFIG_TYPE])];
  assert.deepEqual(names(twice), ['01-h.py', '02-i.py', '03-bootbundle-config.json']);
});

test('the config part tells the machine and its vars.kube, and no other variable', () => {
  const bodyFor = (vars: Target['vars']) => {
    const { bytes } = render([handler('h.py', [CONFIG_TYPE])], { ...TARGET, vars });
    return JSON.parse(Buffer.from(parseMime(bytes).children[1]?.body() ?? []).toString());
  };
  const instance = { name: 'node-1', id: '0123456789abcdef' };
  const report = TARGET.reportUrl;
  assert.deepEqual(bodyFor({}), { instance, kube: {}, report });
  assert.deepEqual(bodyFor({ kube: { master: 'é"\n' }, password: 'x' }), { instance, kube: { master: 'é"\n' }, report });
  assert.deepEqual(bodyFor({ kube: false }), { instance, kube: false, report });
});

test('numbers have two digits up to 99 parts and three from 100', () => {
  const scripts = (count: number) => Array.from({ length: count }, () => script('a.sh'));
  assert.deepEqual([names(scripts(99)).at(0), names(scripts(99)).at(-1)], ['01-a.sh', '99-a.sh']);
  assert.deepEqual([names(scripts(100)).at(0), names(scripts(100)).at(-1)], ['001-a.sh', '100-a.sh']);
  // The config part counts.
  assert.equal(names([handler('h.py', [CONFIG_TYPE]), ...scripts(98)]).at(-1), '100-a.sh');
});

test('equal names of two bundles are sent under two names', () => {
  assert.deepEqual(names([script('run.sh'), script('run.sh')]), ['01-run.sh', '02-run.sh']);
});

test('cloud-configs go in reverse, each after the first with the reverse rule, in the places of cloud-configs', () => {
  assert.deepEqual(rules([config('a.yaml'), script('x.sh'), config('b.yaml'), script('y.sh'), config('c.yaml')]), [
    ['01-c.yaml', null],
    ['02-x.sh', null],
    ['03-b.yaml', REVERSE_RULE],
    ['04-y.sh', null],
    ['05-a.yaml', REVERSE_RULE],
  ]);
});

test('a single cloud-config has no rule, wherever it stands', () => {
  assert.deepEqual(rules([script('x.sh'), config('a.yaml'), script('y.sh')]), [
    ['01-x.sh', null],
    ['02-a.yaml', null],
    ['03-y.sh', null],
  ]);
});

test('a jinja cloud-config takes its place among the others', () => {
  const jinja = part('b.yaml', 'text/jinja2', { kind: 'config', statesRule: false });
  assert.deepEqual(rules([config('a.yaml'), jinja]), [
    ['01-b.yaml', null],
    ['02-a.yaml', REVERSE_RULE],
  ]);
  assert.deepEqual(rules([part('x', 'text/jinja2'), config('a.yaml'), config('b.yaml')]), [
    ['01-x', null],
    ['02-b.yaml', null],
    ['03-a.yaml', REVERSE_RULE],
  ]);
});

test('once one states a rule in its option, all go as given; the others after the first with the given rule', () => {
  const own = 'dict(replace)+list()+str()';
  assert.deepEqual(rules([config('a.yaml'), config('b.yaml', own), config('c.yaml')]), [
    ['01-a.yaml', null],
    ['02-b.yaml', own],
    ['03-c.yaml', GIVEN_RULE],
  ]);
  assert.deepEqual(rules([config('a.yaml', own), config('b.yaml')]), [
    ['01-a.yaml', own],
    ['02-b.yaml', GIVEN_RULE],
  ]);
});

test('once one states a rule in its body, all go as given, and it gets no header', () => {
  assert.deepEqual(rules([config('a.yaml'), ownRule('b.yaml'), config('c.yaml')]), [
    ['01-a.yaml', null],
    ['02-b.yaml', null],
    ['03-c.yaml', GIVEN_RULE],
  ]);
});

test('whether the given order is kept is told to others, too', () => {
  assert.equal(keepsGivenOrder([config('a'), script('b')]), false);
  assert.equal(keepsGivenOrder([config('a'), ownRule('b')]), true);
  assert.equal(keepsGivenOrder([config('a', GIVEN_RULE)]), true);
  assert.equal(keepsGivenOrder([part('a', 'text/x-any', { kind: 'other' }, GIVEN_RULE)]), false);
});

test('the option of a part that is no cloud-config is sent and turns nothing around', () => {
  const other = part('x', 'text/x-shellscript', { kind: 'other' }, 'list()');
  assert.deepEqual(rules([config('a.yaml'), other, config('b.yaml')]), [
    ['01-b.yaml', null],
    ['02-x', 'list()'],
    ['03-a.yaml', REVERSE_RULE],
  ]);
});

test('a part that nobody takes is an error that says what to add', () => {
  const [finding] = render([pod('db.pod'), script('a.sh')]).findings;
  assert.deepEqual([finding?.severity, finding?.code, finding?.part], ['error', 'unhandled_part', 'web@1/db.pod']);
  assert.match(finding?.message ?? '', /add the bundle kube/);
  const [other] = render([part('x', 'text/x-mine')]).findings;
  assert.match(other?.message ?? '', /add a part handler whose list_types names text\/x-mine/);
  assert.deepEqual(findings([handler('h.py', ['text/x-kube-service']), pod('db.pod')]), [
    ['error', 'unhandled_part', 'web@1/db.pod'],
  ]);
});

test('a handler takes its types, also from parts that stand before it', () => {
  assert.deepEqual(findings([pod('db.pod'), handler('h.py', ['text/x-kube-pod'])]), []);
});

test('types are compared as cloud-init compares them: a handler that says them in capitals takes nothing', () => {
  assert.deepEqual(findings([handler('h.py', ['text/X-Kube-Pod']), pod('db.pod')]), [
    ['error', 'unhandled_part', 'web@1/db.pod'],
  ]);
});

test('beside a handler whose types cannot be read an unhandled part is only a warning', () => {
  assert.deepEqual(findings([handler('h.py', null), pod('db.pod'), script('a.sh')]), [
    ['warning', 'handler_types_unknown', 'web@1/h.py'],
    ['warning', 'unhandled_part', 'web@1/db.pod'],
  ]);
});

test('the later of two handlers for a type takes it over: a warning; a type named twice in one is none', () => {
  const parts = [handler('a.py', ['text/x-a', 'text/x-b', 'text/x-a']), handler('b.py', ['text/x-b'])];
  assert.deepEqual(findings(parts), [['warning', 'handler_replaced', 'web@1/b.py']]);
  assert.match(render(parts).findings[0]?.message ?? '', /text\/x-b over from web@1\/a\.py/);
});

test('an include of our own URL space is an error, however it is spelt', () => {
  const own = [
    'http://192.0.2.10:8080/i/abc/user-data',
    'http://192.0.2.10:8080/s/abc/user-data',
    'HTTP://192.0.2.10:8080/i/abc/user-data',
    'http://me@192.0.2.10:8080/i/abc/user-data',
    'http://192.0.2.10:8080/x/../i/abc/user-data',
    'http://192.0.2.10:8080/i/abc/user-data?x#y',
  ];
  for (const url of own)
    assert.deepEqual(
      findings([include('a.include', 'http://example.com/', url)]),
      [['error', 'self_include', 'web@1/a.include']],
      url,
    );
});

test('an include of anything else is not', () => {
  const others = [
    'http://example.com/i/abc',
    'http://192.0.2.10:8081/i/x',
    'https://192.0.2.10:8080/i/x',
    'http://192.0.2.10:8080/docs',
    'no url',
  ];
  assert.deepEqual(findings([include('a.include', ...others)]), []);
});

test('no finding quotes what is in a part', () => {
  const hostile = [
    pod('a.pod'),
    handler('h.py', null),
    handler('i.py', ['text/x-a']),
    handler('j.py', ['text/x-a']),
    include('k', `${RULES.includeRoots[0]}SECRET`),
  ];
  for (const { message } of render(hostile).findings) assert.doesNotMatch(message, /content of|SECRET/);
});

const anyPart = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(script('a.sh'), script('b.sh'), script('10.sh'), script('9.sh')) },
  { weight: 3, arbitrary: fc.constantFrom(config('a.yaml'), config('b.yaml'), config('c.yaml')) },
  fc.constantFrom(pod('a.pod'), include('a.include', 'http://example.com/')),
  fc.constantFrom(handler('h.py', ['text/x-kube-pod']), handler('i.py', null)),
  fc.constantFrom(ownRule('own.yaml'), config('merge.yaml', GIVEN_RULE)),
);
const anyParts = fc.oneof(fc.array(anyPart, { maxLength: 12 }), fc.array(anyPart, { minLength: 95, maxLength: 105 }));
const plain = (name: string) => name.replace(/^[0-9]+-/, '');

test('nothing is lost, doubled or changed on the way', () => {
  fc.assert(
    fc.property(anyParts, (parts) => {
      assert.deepEqual(
        sent(parts)
          .map(({ name, body }) => `${plain(name)}: ${body}`)
          .sort(),
        parts.map(({ filename, body }) => `${filename}: ${body.bytes}`).sort(),
      );
    }),
  );
});

test('scripts, handlers and parts for handlers keep their relative order', () => {
  fc.assert(
    fc.property(anyParts, (parts) => {
      for (const pattern of [/\.sh$/, /\.py$/, /\.pod$|\.include$/])
        assert.deepEqual(
          names(parts)
            .map(plain)
            .filter((name) => pattern.test(name)),
          parts.map(({ filename }) => filename).filter((name) => pattern.test(name)),
        );
    }),
  );
});

test('numbers are dense from 1, equally wide, and sort as the document runs', () => {
  fc.assert(
    fc.property(anyParts, (parts) => {
      const all = names(parts);
      assert.deepEqual(
        all.map((name) => Number.parseInt(name, 10)),
        all.map((_, index) => index + 1),
      );
      assert.ok(new Set(all.map((name) => name.indexOf('-'))).size <= 1);
      assert.deepEqual([...all].sort(), all);
    }),
  );
});

test('cloud-configs run all backwards or all forwards, and only the first may go without a rule', () => {
  fc.assert(
    fc.property(anyParts, (parts) => {
      const given = parts.filter(({ role }) => role.kind === 'config').map(({ filename }) => filename);
      const configs = sent(parts).filter(({ name }) => name.endsWith('.yaml'));
      const kept = keepsGivenOrder(parts);
      assert.deepEqual(
        configs.map(({ name }) => plain(name)),
        kept ? given : given.reverse(),
      );
      for (const { name, merge } of configs.slice(1))
        assert.equal(merge, plain(name) === 'own.yaml' ? null : kept ? GIVEN_RULE : REVERSE_RULE);
    }),
  );
});

const tracked = (parts: readonly CompiledPart[]) => renderDocument(parts, { ...TARGET, track: true }, RULES);

test('what makes the machine report comes last, of the lowest priority, and changes nothing of the others but the boundary', () => {
  fc.assert(
    fc.property(
      anyParts.filter((parts) => parts.length !== 99),
      (parts) => {
        const { bytes, parts: told, findings } = tracked(parts);
        const plain = render(parts);
        const children = (document: Uint8Array) =>
          parseMime(document).children.map((entity) => `${entity.header('merge-type')} ${entity.raw}`);
        assert.deepEqual(children(bytes).slice(0, -2), children(plain.bytes));
        assert.deepEqual(told.slice(0, -2), plain.parts);
        assert.deepEqual(findings, plain.findings);
        assert.deepEqual(
          told.slice(-2).map(({ filename, type, origin }) => [filename.replace(/^\d+-(?=bootbundle-track)/, ''), type, origin]),
          [
            ['bootbundle-track.yaml', 'text/cloud-config', 'bootbundle'],
            ['00-bootbundle-report.sh', 'text/x-shellscript', 'bootbundle'],
          ],
        );
      },
    ),
  );
});

test('it is expected to say what the document makes it say', () => {
  const kube = handler('h.py', ['text/x-kube-pod', CONFIG_TYPE]);
  assert.deepEqual(render([script('a.sh')]).expects, { events: false, phoneHome: false, manifests: [] });
  assert.deepEqual(tracked([script('a.sh')]).expects, { events: true, phoneHome: true, manifests: [] });
  const manifests = (parts: readonly CompiledPart[]) => render(parts).expects.manifests;
  assert.deepEqual(manifests([kube, pod('a.pod'), script('b.sh'), pod('c.pod')]), ['03-a.pod', '05-c.pod']);
  // A handler that is not told where to report to reports nothing; nor does one whose types another takes over.
  assert.deepEqual(manifests([handler('h.py', ['text/x-kube-pod']), pod('a.pod')]), []);
  assert.deepEqual(manifests([kube, handler('z.py', ['text/x-kube-pod']), pod('a.pod')]), []);
  // As the handler cuts it (test/guest/handler.test.ts).
  const [long = ''] = manifests([kube, pod(`${'x'.repeat(95)}.yaml`)]);
  assert.match(long, /^03-x{88}-[0-9a-f]{8}$/);
});

test('same input, same bytes; what went in is not touched', () => {
  fc.assert(
    fc.property(anyParts, (parts) => {
      const before = structuredClone(parts);
      const { bytes } = render(parts);
      assert.deepEqual(render(parts).bytes, bytes);
      assert.deepEqual(structuredClone(parts), before);
    }),
  );
});

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { sha256 } from '../../src/domain/bundle.ts';
import { BootbundleError } from '../../src/domain/errors.ts';
import { type Finding, refuseErrors } from '../../src/domain/finding.ts';
import { LIMITS } from '../../src/domain/limits.ts';
import { DEFAULT_POLICY } from '../../src/domain/policy.ts';
import type { Store } from '../../src/domain/store.ts';
import type { PartUpload } from '../../src/domain/upload.ts';
import { parseMime } from '../../src/inspect/mime.ts';
import { GIVEN_RULE, REVERSE_RULE } from '../../src/render/document.ts';
import { createBundleService } from '../../src/service/bundles.ts';
import { createDocumentService, type DocumentService } from '../../src/service/documents.ts';
import { createGate } from '../../src/service/gate.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { createSlices } from '../../src/service/slices.ts';
import { openStore } from '../../src/store/open.ts';
import { ANN } from '../actor.ts';

const URL_SPACE = 'http://192.0.2.10:8080';
const KEYS = createKeyRing([Buffer.alloc(32, 1)]);
const MACHINE = {
  id: '0123456789abcdef',
  name: 'node-1',
  generations: { include: 0, seed: 0, report: 0 },
  vars: {},
  labels: {},
  track: false,
};
const HANDLER = (types: string) =>
  `#part-handler\ndef list_types():\n    return ${types}\ndef handle_part(d, c, f, p):\n    pass\n`;
const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers: [{name: x, image: x}]\n';

interface Bench {
  store: Store;
  /** Writes a bundle whole. */
  put(bundle: string, parts: Record<string, string | Omit<PartUpload, 'filename'>>): Promise<number>;
  inspect(...bundles: string[]): ReturnType<DocumentService['inspect']>;
  render(...bundles: string[]): ReturnType<DocumentService['render']>;
}

/** The service on an in-memory database. `around` stands between it and the store. */
async function bench(t: TestContext, around: (store: Store) => Partial<Store> = () => ({})): Promise<Bench> {
  const store = await openStore({ file: ':memory:' });
  t.after(() => store.close());
  const schemas = async () => null;
  const documents = createDocumentService({ store: { ...store, ...around(store) }, keys: KEYS, publicUrl: URL_SPACE, schemas });
  const gate = createGate({
    store,
    documents,
    slices: createSlices(() => false),
    policyDefaults: DEFAULT_POLICY,
    clock: () => 0,
  });
  const bundles = createBundleService({ store, documents, gate, schemas, slices: createSlices(() => false), clock: () => 1 });
  const machine = (references: string[]) => ({ ...MACHINE, bundles: references });
  return {
    store,
    async put(bundle, parts) {
      const uploads = Object.entries(parts).map(([filename, part]) => ({
        filename,
        ...(typeof part === 'string' ? { body: Buffer.from(part) } : part),
      }));
      const written = await bundles.put(bundle, { parts: uploads }, { by: ANN });
      return written.bundle.latest.number;
    },
    async inspect(...references) {
      const instance = machine(references);
      return documents.inspect(instance, await documents.scene([instance]));
    },
    render: (...references) => documents.render(machine(references)),
  };
}

const codes = (findings: Finding[]) => findings.map(({ severity, code, part }) => [severity, code, part]);
const refused = (kind: string, code: string, says: RegExp) => (error: unknown) => {
  assert.ok(error instanceof BootbundleError, String(error));
  assert.deepEqual([error.kind, error.code], [kind, code]);
  assert.match(error.message, says);
  return true;
};

test('a document is rendered from the bundles in their order, and says from which revisions', async (t) => {
  const { put, render, store } = await bench(t);
  await put('b', { 'one.sh': '#!/bin/sh\n' });
  await put('b', { 'one.sh': '#!/bin/sh\ntrue\n' });
  await put('a', { 'two.sh': '#!/bin/sh\n' });
  await store.putTag('b', 'stable', 1, { at: 1, by: ANN });
  const document = await render('b', 'a');
  assert.deepEqual(document.revisions, ['b@2', 'a@1']);
  assert.deepEqual(
    document.parts.map(({ filename, origin }) => [filename, origin]),
    [
      ['01-one.sh', 'b@2/one.sh'],
      ['02-two.sh', 'a@1/two.sh'],
    ],
  );
  assert.equal(document.digest, sha256(document.bytes));
  const [first] = parseMime(document.bytes).children;
  assert.equal(Buffer.from(first?.body() ?? []).toString(), '#!/bin/sh\ntrue\n');
  assert.deepEqual((await render('b@stable')).revisions, ['b@1']);
  assert.deepEqual((await render('b@1')).bytes, (await render('b@stable')).bytes);
});

test('what is cached gives the same bytes as what is not, and reads no body again', async (t) => {
  let bodies = 0;
  const { put, render, inspect, store } = await bench(t, (real) => ({
    findBody(hash) {
      bodies++;
      return real.findBody(hash);
    },
  }));
  await put('a', { 'a.sh': '#!/bin/sh\n# é\n', 'b.yaml': '#cloud-config\na: 1\n' });
  const first = await render('a');
  assert.equal(bodies, 2);
  assert.deepEqual(await render('a'), first);
  assert.deepEqual((await inspect('a')).document, first);
  assert.equal(bodies, 2);
  const fresh = createDocumentService({ store, keys: KEYS, publicUrl: URL_SPACE, schemas: async () => null });
  assert.deepEqual(await fresh.render({ ...MACHINE, bundles: ['a'] }), first);
});

test('many fetches at once of what is not cached yet compile it once', async (t) => {
  let bodies = 0;
  const { put, render } = await bench(t, (real) => ({
    findBody(hash) {
      bodies++;
      return real.findBody(hash);
    },
  }));
  await put('a', { 'a.sh': '#!/bin/sh\n' });
  const documents = await Promise.all(Array.from({ length: 20 }, () => render('a')));
  assert.equal(new Set(documents.map(({ digest }) => digest)).size, 1);
  assert.equal(bodies, 1);
});

test('a change of the bundle, and a moved tag, are seen by the next fetch', async (t) => {
  const { put, render, store } = await bench(t);
  await put('a', { 'a.sh': '#!/bin/sh\n' });
  const before = await render('a');
  await put('a', { 'a.sh': '#!/bin/sh\ntrue\n' });
  assert.notEqual((await render('a')).digest, before.digest);
  await store.putTag('a', 'stable', 1, { at: 1, by: ANN });
  assert.equal((await render('a@stable')).digest, before.digest);
  await store.putTag('a', 'stable', 2, { at: 1, by: ANN });
  assert.notEqual((await render('a@stable')).digest, before.digest);
});

test('no bundles make a document without parts and without findings', async (t) => {
  const { inspect } = await bench(t);
  const { document, findings } = await inspect();
  assert.deepEqual([document?.parts, document?.revisions, findings], [[], [], []]);
  assert.deepEqual(parseMime(document?.bytes ?? Buffer.alloc(0)).children, []);
});

test('a reference that means nothing is refused and named', async (t) => {
  const { put, render, inspect, store } = await bench(t);
  await put('a', { 'a.sh': '#!/bin/sh\n' });
  await put('gone', { 'a.sh': '#!/bin/sh\n' });
  await store.retireBundle('gone', { base: 1, at: 2, by: ANN });
  for (const reference of ['nix', 'a@stable', 'a@2', 'gone', 'gone@1']) {
    const says = new RegExp(`^${reference} does not exist`);
    await assert.rejects(render('a', reference), refused('invalid', 'unknown_bundle', says));
    const { document, findings } = await inspect('a', reference);
    assert.deepEqual([document, findings.map(({ severity, code }) => [severity, code])], [null, [['error', 'unknown_bundle']]]);
    assert.match(findings[0]?.message ?? '', says);
  }
  await assert.rejects(render('a', '../x'), refused('invalid', 'bad_reference', /NAME@TAG/));
});

test('a body or a revision that the database has lost is our trouble, until it is back', async (t) => {
  let lost = true;
  const { put, render, inspect } = await bench(t, (real) => ({
    findBody: async (hash) => (lost ? null : real.findBody(hash)),
  }));
  await put('a', { 'a.sh': '#!/bin/sh\n' });
  for (const look of [render, inspect]) await assert.rejects(look('a'), refused('unavailable', 'body_missing', /a@1\/a\.sh/));
  lost = false;
  assert.equal((await render('a')).parts.length, 1);

  const other = await bench(t, () => ({ findRevision: async () => null }));
  await other.put('a', { 'a.sh': '#!/bin/sh\n' });
  await assert.rejects(other.render('a'), refused('unavailable', 'revision_missing', /a@1/));
});

test('an error of the store comes through as it is', async (t) => {
  const away = new BootbundleError('unavailable', 'database_away', 'ask again');
  for (const method of ['resolveReferences', 'findRevision', 'findBody'] as const) {
    const { put, render } = await bench(t, () => ({ [method]: () => Promise.reject(away) }));
    await put('a', { 'a.sh': '#!/bin/sh\n' });
    await assert.rejects(render('a'), away);
  }
});

/** Parts of the greatest size, in base64. */
function big(count: number) {
  const body = Buffer.alloc(LIMITS.partBytes, 0xff);
  return Object.fromEntries(Array.from({ length: count }, (_, index) => [`p${index}`, { body, type: 'application/x-any' }]));
}

test('a document past what is served is refused before anything is put together, and before all of it is read', async (t) => {
  let bodies = 0;
  const { put, inspect, render } = await bench(t, (real) => ({
    findBody(hash) {
      bodies++;
      return real.findBody(hash);
    },
  }));
  // 11 MiB of bytes are nearly 15 MiB of base64: five are past 64 MiB.
  const bundles = Array.from({ length: 9 }, (_, index) => `b${index}`);
  const last = { body: Buffer.alloc(LIMITS.bundleBytes - 2 * LIMITS.partBytes, 0xff), type: 'application/x-any' };
  for (const bundle of bundles) await put(bundle, { ...big(2), last });
  const tooLarge = refused('invalid', 'document_too_large', /67108864.*16777216/);
  await assert.rejects(render(...bundles), tooLarge);
  assert.equal(bodies, 5 * 3);
  const { document, findings } = await inspect(...bundles);
  assert.deepEqual([document, codes(findings)], [null, [['error', 'document_too_large', undefined]]]);
  assert.ok((await render(...bundles.slice(0, 4))).bytes.length > LIMITS.documentBytes);
});

test('a document past the limit is an error finding, not an exception', async (t) => {
  const { put, inspect, render } = await bench(t);
  for (const bundle of ['big1', 'big2']) await put(bundle, big(2));
  await put('handler', { 'h.py': HANDLER('["application/x-any"]') });
  const { document, findings } = await inspect('big1', 'big2', 'handler');
  assert.ok(document && document.bytes.length > LIMITS.documentBytes);
  assert.deepEqual((await render('big1', 'big2', 'handler')).bytes, document.bytes, 'grown since, it is served all the same');
  assert.deepEqual(codes(findings), [['error', 'document_too_large', undefined]]);
  assert.throws(() => refuseErrors(findings, 'node-1'), refused('invalid', 'document_too_large', /^node-1: .*16777216/));
});

test('which types a handler takes is read from its source', async (t) => {
  const { put, inspect } = await bench(t);
  await put('db', { 'db.pod': POD });
  assert.deepEqual(codes((await inspect('db')).findings), [['error', 'unhandled_part', 'db@1/db.pod']]);
  await put('h', { 'h.py': HANDLER('["text/x-kube-pod"]') });
  assert.deepEqual(codes((await inspect('db', 'h')).findings), []);
  await put('h', { 'h.py': HANDLER('sorted(TYPES)') });
  assert.deepEqual(codes((await inspect('db', 'h')).findings), [
    ['warning', 'handler_types_unknown', 'h@2/h.py'],
    ['warning', 'unhandled_part', 'db@1/db.pod'],
  ]);
});

/** How the cloud-configs of `bundles` were sent: name and rule. */
async function mergeOf({ render }: Bench, ...bundles: string[]) {
  const { bytes } = await render(...bundles);
  return parseMime(bytes).children.map((part) => [part.filename, part.header('merge-type')]);
}

test('which parts are cloud-configs, and whether they state a rule, is read from type and content', async (t) => {
  const it = await bench(t);
  await it.put('a', { 'a.yaml': '#cloud-config\nhostname: a\n' });
  const seconds: [file: string, text: string, sent: [string, string | null][]][] = [
    [
      'b.yaml',
      '#cloud-config\nx: 1\n',
      [
        ['01-b.yaml', null],
        ['02-a.yaml', REVERSE_RULE],
      ],
    ],
    [
      'b.yaml',
      '## template: jinja\n#cloud-config\nx: {{ v1.name }}\n',
      [
        ['01-b.yaml', null],
        ['02-a.yaml', REVERSE_RULE],
      ],
    ],
    [
      'b.yaml',
      '## template: jinja\n#cloud-config\nmerge_how: dict()\n',
      [
        ['01-a.yaml', null],
        ['02-b.yaml', null],
      ],
    ],
    [
      'b.sh',
      '## template: jinja\n#!/bin/sh\n',
      [
        ['01-a.yaml', null],
        ['02-b.sh', null],
      ],
    ],
    [
      'b.yaml',
      '#cloud-config\nmerge_how: dict()\n',
      [
        ['01-a.yaml', null],
        ['02-b.yaml', null],
      ],
    ],
    [
      'b.yaml',
      '#cloud-config-archive\n- "#!/bin/sh"\n',
      [
        ['01-a.yaml', null],
        ['02-b.yaml', null],
      ],
    ],
    [
      'b.json',
      '#cloud-config-jsonp\n[]\n',
      [
        ['01-a.yaml', null],
        ['02-b.json', null],
      ],
    ],
    [
      'b.sh',
      '#!/bin/sh\n#cloud-config\n',
      [
        ['01-a.yaml', null],
        ['02-b.sh', null],
      ],
    ],
  ];
  for (const [file, text, sent] of seconds) {
    await it.put('b', { [file]: text });
    assert.deepEqual(await mergeOf(it, 'a', 'b'), sent, text);
  }
  await it.put('b', { 'b.yaml': { body: Buffer.from('#cloud-config\nx: 1\n'), merge: 'replace' } });
  await it.put('c', { 'c.yaml': '#cloud-config\n{}\n' });
  assert.deepEqual(await mergeOf(it, 'a', 'b', 'c'), [
    ['01-a.yaml', null],
    ['02-b.yaml', 'dict(replace)+list()+str()'],
    ['03-c.yaml', GIVEN_RULE],
  ]);
});

test('a value that a rule of another costs is a warning; without such a rule nothing is lost', async (t) => {
  const { put, inspect } = await bench(t);
  await put('a', { 'a.yaml': '#cloud-config\nhostname: one\nlocale: dé\n' });
  await put('b', { 'b.yaml': '#cloud-config\nhostname: two\nlocale: dé\n' });
  assert.deepEqual((await inspect('a', 'b')).findings, []);
  await put('c', { 'c.yaml': '#cloud-config\nmerge_how: dict(no_replace)+list(append)\n' });
  const { findings } = await inspect('a', 'b', 'c');
  assert.deepEqual(codes(findings), [['warning', 'value_lost', 'b@1/b.yaml']]);
  assert.match(findings[0]?.message ?? '', /^its hostname is passed over for the one of a@1\/a\.yaml/);
  refuseErrors(findings, 'node-1');
});

test('an include of our own URL space is refused, wherever in the file it stands', async (t) => {
  const { put, inspect } = await bench(t);
  const own = `${URL_SPACE}/i/abc/user-data`;
  const refusedTexts = [
    `#include\n${own}\n`,
    `#include ${own}\n`,
    `#include-once\nhttp://example.com/x\n  ${own}`,
    `#include\r\n# x\r\n${own}\r\n`,
    `#Include${own}\n#x\n`,
  ];
  for (const text of refusedTexts) {
    await put('a', { 'a.include': text });
    const { findings } = await inspect('a');
    assert.deepEqual(
      findings.map(({ severity, code }) => [severity, code]),
      [['error', 'self_include']],
      text,
    );
    assert.ok(!JSON.stringify(findings).includes(own));
  }
});

test('an include of others is not, nor is a comment', async (t) => {
  const { put, inspect } = await bench(t);
  for (const text of [
    '#include\nhttp://example.com/i/x\n',
    `#include\n# not ${URL_SPACE}/i/abc\nhttp://example.com/\n`,
    `#include\n#${URL_SPACE}/i/x\nhttp://a/`,
  ]) {
    await put('a', { 'a.include': text });
    assert.deepEqual((await inspect('a')).findings, [], text);
  }
});

test('several errors make one refusal, which says how many there are and holds them all', () => {
  const finding = (severity: Finding['severity'], code: string): Finding => ({
    severity,
    code,
    part: `${code}@1/x`,
    message: 'do this',
  });
  const findings = [finding('warning', 'w'), finding('error', 'e1'), finding('error', 'e2')];
  assert.throws(
    () => refuseErrors(findings, 'node-1'),
    (error) => {
      assert.ok(refused('invalid', 'e1', /^node-1: e1@1\/x: do this \(and 1 more, see findings\)$/)(error));
      assert.deepEqual((error as BootbundleError).findings, findings);
      return true;
    },
  );
  refuseErrors([finding('warning', 'w')], 'node-1');
  refuseErrors([], 'node-1');
});

test('vars.kube is looked at where the bundle kube is to heed it', async (t) => {
  const { put, store } = await bench(t);
  await put('kube', { 'h.py': HANDLER('["text/x-kube-pod"]') });
  await put('own', { 'h.py': HANDLER('["text/x-kube-pod"]') });
  const documents = createDocumentService({ store, keys: KEYS, publicUrl: URL_SPACE, schemas: async () => null });
  const look = async (bundle: string) => {
    const instance = { ...MACHINE, bundles: [bundle], vars: { kube: { master: 'x' } } };
    return codes((await documents.inspect(instance, await documents.scene([instance]))).findings);
  };
  assert.deepEqual(await look('kube'), [['warning', 'kube_vars', undefined]]);
  assert.deepEqual(await look('own'), []);
});

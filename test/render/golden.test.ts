import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buffer } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { pack } from 'tar-stream';
import { BUNDLE_OPTIONS_FILE } from '../../src/domain/names.ts';
import { parseMime } from '../../src/inspect/mime.ts';
import { ANN } from '../actor.ts';
import { buildTestApp, START } from '../app.ts';

/**
 * What goes on the wire, byte for byte, through the whole product: `test/golden/CASE/bundles/BUNDLE/FILE` and `instance.json` in,
 * `expected.mime` out. `npm run golden` writes the expected ones anew, for review as a diff.
 */
const GOLDEN = new URL('../golden', import.meta.url).pathname;
const WRITE = process.env.WRITE_GOLDEN === '1';
const ID = '0123456789abcdef';

/** The folder as `git archive` would send it. */
async function tarOf(folder: string): Promise<Buffer> {
  const archive = pack();
  for (const name of readdirSync(folder).sort()) archive.entry({ name }, readFileSync(join(folder, name)));
  archive.finalize();
  return buffer(archive);
}

function bundlesOf(folder: string): string[] {
  return existsSync(join(folder, 'bundles')) ? readdirSync(join(folder, 'bundles')).sort() : [];
}

/** Uploads the bundles, registers the instance and fetches its document from the URL in its stub. */
async function fetchDocument(t: TestContext, folder: string): Promise<Buffer> {
  const { store, api, boot } = await buildTestApp(t);
  for (const bundle of bundlesOf(folder)) {
    const tar = await tarOf(join(folder, 'bundles', bundle));
    const answer = await api('PUT', `/bundles/${bundle}`, tar, { 'content-type': 'application/x-tar' });
    assert.equal(answer.statusCode, 201, answer.body);
  }
  // A registration draws a random id, and a document may hold it.
  const blank = {
    bundles: [],
    vars: {},
    labels: {},
    metaData: {},
    vendorData: null,
    networkConfig: null,
    policy: {},
    track: false,
  };
  await store.putInstances([{ name: 'my-atomic-server', spec: blank, freshId: ID, expect: null }], { at: START, by: ANN });
  const spec = JSON.parse(readFileSync(join(folder, 'instance.json'), 'utf8'));
  const written = await api('PUT', '/instances/my-atomic-server', spec);
  assert.equal(written.statusCode, 200, written.body);
  assert.deepEqual(written.json().status.findings, []);
  const fetched = await boot(new URL(written.json().status.stub.url).pathname);
  assert.equal(fetched.statusCode, 200);
  return fetched.rawPayload;
}

for (const name of readdirSync(GOLDEN).sort()) {
  const folder = join(GOLDEN, name);
  const expected = join(folder, 'expected.mime');

  test(`${name}: the document is the golden one, byte for byte`, async (t) => {
    const document = await fetchDocument(t, folder);
    if (WRITE) writeFileSync(expected, document);
    assert.ok(existsSync(expected), 'no expected.mime: npm run golden writes it');
    // Compared as text first, because that shows where they differ.
    assert.equal(document.toString('latin1'), readFileSync(expected, 'latin1'));
  });

  test(`${name}: the golden document holds every file of its bundles, byte for byte, and nothing of ours but what is called so`, () => {
    const files = bundlesOf(folder).flatMap((bundle) =>
      readdirSync(join(folder, 'bundles', bundle))
        .filter((file) => file !== BUNDLE_OPTIONS_FILE)
        .map((file) => `${file}: ${readFileSync(join(folder, 'bundles', bundle, file), 'latin1')}`),
    );
    const parts = parseMime(readFileSync(expected))
      .children.map((part) => `${part.filename?.replace(/^[0-9]+-/, '')}: ${Buffer.from(part.body()).toString('latin1')}`)
      .filter((part) => !part.startsWith('bootbundle-'));
    assert.deepEqual(parts.sort(), files.sort());
  });
}

test('the golden inputs are as hard as they say: no tool has turned a line break', () => {
  const input = (file: string) => readFileSync(join(GOLDEN, 'hard-bytes/bundles/hard', file));
  assert.ok(input('crlf.sh').includes('\r\n'));
  assert.notEqual(input('no-final-newline.sh').at(-1), 0x0a);
  assert.ok(input('emoji.yaml').includes('😀'));
});

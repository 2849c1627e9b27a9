import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { OURSELVES } from '../../src/domain/actor.ts';
import { BUILT_IN_AUTHOR } from '../../src/domain/bundle.ts';
import { DEFAULT_POLICY } from '../../src/domain/policy.ts';
import { kubePartHandler } from '../../src/guest/handler.ts';
import { handlerTypes } from '../../src/inspect/part-handler.ts';
import { ensureBuiltIns } from '../../src/service/builtin.ts';
import { createBundleService } from '../../src/service/bundles.ts';
import { createDocumentService } from '../../src/service/documents.ts';
import { createGate } from '../../src/service/gate.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { createSlices } from '../../src/service/slices.ts';
import { openStore } from '../../src/store/open.ts';
import { ANN } from '../actor.ts';

async function bench(t: TestContext) {
  const store = await openStore({ file: ':memory:' });
  t.after(() => store.close());
  const schemas = async () => null;
  const keys = createKeyRing([Buffer.alloc(32)]);
  const documents = createDocumentService({ store, keys, publicUrl: 'http://192.0.2.10', schemas });
  const gate = createGate({
    store,
    documents,
    slices: createSlices(() => false),
    policyDefaults: DEFAULT_POLICY,
    clock: () => 0,
  });
  return {
    store,
    bundles: createBundleService({ store, documents, gate, schemas, slices: createSlices(() => false), clock: () => 2 }),
    ensure: () => ensureBuiltIns(store, () => 1),
  };
}

test('the first start puts the bundle kube there, and the next one changes nothing', async (t) => {
  const { bundles, ensure } = await bench(t);
  await ensure();
  const { latest } = await bundles.get('kube');
  assert.deepEqual(
    [latest.number, latest.author, latest.parts.map(({ type }) => type)],
    [1, BUILT_IN_AUTHOR, ['text/part-handler']],
  );
  await ensure();
  assert.equal((await bundles.get('kube')).latest.number, 1);
});

test('its part is what the guest room makes of it, and takes the kube types and our config', async (t) => {
  const { bundles, ensure } = await bench(t);
  await ensure();
  const { body } = await bundles.getPart('kube', 'kube-part-handler.py');
  assert.equal(Buffer.from(body).toString(), kubePartHandler());
  assert.deepEqual(await handlerTypes(kubePartHandler()), [
    'text/x-kube-pod',
    'text/x-kube-service',
    'text/x-kube-replica',
    'text/x-kube-manifest',
    'text/x-bootbundle-config',
  ]);
  // An operator who uploads it himself gets the same type.
  const { changed } = await bundles.putPart('kube', { filename: 'kube-part-handler.py', body }, { by: ANN });
  assert.equal(changed, false);
});

test('an upgrade adds a revision', async (t) => {
  const { store, bundles, ensure } = await bench(t);
  await ensure();
  const { latest } = await bundles.get('kube');
  const older = { ...latest, parts: [] };
  await store.putRevision({
    bundle: 'kube',
    base: 1,
    content: older,
    digest: 'an older product',
    bodies: new Map(),
    at: 1,
    by: OURSELVES,
    message: null,
  });
  await ensure();
  const now = (await bundles.get('kube')).latest;
  assert.deepEqual([now.number, now.digest], [3, latest.digest]);
});

test('what an operator changed or deleted stays his', async (t) => {
  const { bundles, ensure } = await bench(t);
  await ensure();
  await bundles.putPart('kube', { filename: 'mine.sh', body: Buffer.from('#!/bin/sh\n') }, { by: ANN });
  await ensure();
  assert.equal((await bundles.get('kube')).latest.number, 2);
  await bundles.delete('kube', { by: ANN });
  await ensure();
  await assert.rejects(bundles.get('kube'), { code: 'unknown_bundle' });
});

test('two replicas that start at once make one revision', async (t) => {
  const { bundles, ensure } = await bench(t);
  await Promise.all([ensure(), ensure(), ensure()]);
  assert.equal((await bundles.get('kube')).latest.number, 1);
});

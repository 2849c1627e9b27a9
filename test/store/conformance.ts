import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { sql } from 'kysely';
import { type Migration, migrations } from '../../migrations/index.ts';
import { type Part, type RevisionContent, revisionDigest, sha256 } from '../../src/domain/bundle.ts';
import { type NewDelivery, REPEAT_WINDOW_MS } from '../../src/domain/delivery.ts';
import { BootbundleError, type ErrorKind } from '../../src/domain/errors.ts';
import { cloudInitInstanceId, type Instance, type InstanceSpec } from '../../src/domain/instance.ts';
import { parseReference } from '../../src/domain/names.ts';
import type { ManifestResult } from '../../src/domain/report.ts';
import type { InstanceWrite, Page, Store } from '../../src/domain/store.ts';
import type { Database } from '../../src/store/database.ts';
import { migrate } from '../../src/store/migrate.ts';
import { createStore } from '../../src/store/open.ts';

/** An empty store, closed when the test is over. */
export type MakeStore = (t: TestContext) => Promise<Store>;

const START = Date.UTC(2026, 0, 1);
const ALL: Page<never> = { after: null, limit: 1000 };
/** Bytewise this is the order; a dictionary would sort otherwise. */
const BYTEWISE = ['a', 'a-b', 'a-c', 'a.b', 'a0', 'aa', 'ab', 'b'];

/** What every engine must do alike. One test per promise of the port. */
export function conformance(name: string, makeStore: MakeStore) {
  /** A test with a store of its own. */
  const contract = (promise: string, check: (store: Store) => Promise<void>) =>
    test(promise, async (t) => check(await makeStore(t)));

  describe(`${name}: bundles`, () => {
    contract('putRevision makes revision 1 of a new bundle, and findBundle gives it back whole', async (store) => {
      const { parts, bodies } = files({ '10-a.sh': '#!/bin/sh\n', '20-b.yaml': '#cloud-config\n' });
      const content: RevisionContent = { order: 'given', vars: { port: 80, deep: { list: [1, 'ü', null, true] } }, parts };
      const digest = revisionDigest(content);
      const revision = await store.putRevision({
        bundle: 'web',
        base: null,
        content,
        digest,
        bodies,
        at: START,
        author: 'ann',
      });
      const expected = { ...content, bundle: 'web', number: 1, digest, createdAt: START, author: 'ann' };
      assert.deepEqual(revision, expected);
      assert.deepEqual(await store.findBundle('web'), {
        name: 'web',
        createdAt: START,
        retiredAt: null,
        latest: expected,
        tags: {},
      });
      assert.deepEqual(await store.findRevision('web', 1), expected);
    });

    contract('text keeps NUL, quotes, emoji and a lone surrogate in vars', async (store) => {
      const vars = { text: `a\0b'"\\ ✓ 😀 \ud800`, 'k\0': 1 };
      await put(store, 'web', {}, { vars });
      assert.deepEqual((await store.findBundle('web'))?.latest.vars, vars);
    });

    contract('an author with a NUL is stored without it', async (store) => {
      await put(store, 'web', {}, { author: 'a\0b' });
      assert.equal((await store.findBundle('web'))?.latest.author, 'a\uFFFDb');
    });

    contract('numbers count on, and old revisions stay as they were', async (store) => {
      const first = await put(store, 'web', { a: '1' });
      const second = await put(store, 'web', { a: '2' }, { base: 1, at: START + 1 });
      assert.equal(second.number, 2);
      assert.deepEqual(await store.findRevision('web', 1), first);
      assert.deepEqual((await store.findBundle('web'))?.latest, second);
      assert.equal((await store.findBundle('web'))?.createdAt, START);
    });

    contract('putRevision refuses a base that is not the newest, and stores nothing', async (store) => {
      await put(store, 'web', { a: '1' });
      await put(store, 'web', { a: '2' }, { base: 1 });
      await refused(put(store, 'web', { a: 'lost' }, { base: 1 }), 'conflict', 'changed_meanwhile');
      await refused(put(store, 'web', { a: 'lost' }, { base: null }), 'conflict', 'changed_meanwhile');
      await refused(put(store, 'web', { a: 'lost' }, { base: 3 }), 'conflict', 'changed_meanwhile');
      await refused(put(store, 'new', { a: 'lost' }, { base: 1 }), 'conflict', 'changed_meanwhile');
      assert.equal((await store.findBundle('web'))?.latest.number, 2);
      assert.equal(await store.findBundle('new'), null);
      assert.equal(await store.findBody(sha256('lost')), null);
    });

    contract('of many putRevision from one base exactly one wins', async (store) => {
      await put(store, 'web', { a: '0' });
      for (const base of [null, 1]) {
        const bundle = base === null ? 'fresh' : 'web';
        const results = await Promise.allSettled(
          Array.from({ length: 8 }, (_, index) => put(store, bundle, { a: `${index}` }, { base })),
        );
        const losers = results.filter((result) => result.status === 'rejected');
        assert.equal(losers.length, 7);
        for (const { reason } of losers) assert.equal(codeOf(reason), 'changed_meanwhile');
        assert.equal((await store.findBundle(bundle))?.latest.number, (base ?? 0) + 1);
      }
    });

    contract('bodies are kept byte for byte, once, whoever names them', async (store) => {
      const bytes = Uint8Array.from({ length: 3_000_000 }, (_, index) => (index * 7 + (index >> 8)) & 255);
      const { parts, bodies } = files({ 'a.bin': bytes, 'b.bin': bytes });
      await put(store, 'web', {}, { parts, bodies });
      // Already stored, so it need not be given again.
      await put(store, 'db', {}, { parts, bodies: new Map() });
      const stored = await store.findBody(sha256(bytes));
      assert.ok(stored && Buffer.from(bytes).equals(stored));
      assert.equal(await store.findBody(sha256('other')), null);
    });

    contract('two bundles with the same new body at once both succeed', async (store) => {
      await Promise.all(['a', 'b', 'c', 'd'].map((bundle) => put(store, bundle, { 'x.sh': 'same' })));
      assert.equal((await store.listBundles(ALL, { retired: false })).length, 4);
    });

    contract('a part whose body is neither stored nor given stores nothing', async (store) => {
      const { parts } = files({ a: 'x' });
      await assert.rejects(put(store, 'web', {}, { parts, bodies: new Map() }));
      assert.equal(await store.findBundle('web'), null);
    });

    contract('listBundles gives summaries in bytewise order, page by page', async (store) => {
      for (const bundle of BYTEWISE.toReversed()) await put(store, bundle, { 'x.sh': bundle });
      const revision = await put(store, 'b', { 'x.sh': '2', 'y.sh': '3' }, { base: 1, at: START + 5 });
      const seen: string[] = [];
      for (let after: string | null = null; ; ) {
        const page = await store.listBundles({ after, limit: 3 }, { retired: false });
        seen.push(...page.map((bundle) => bundle.name));
        after = page.at(-1)?.name ?? null;
        if (after === null) break;
        assert.ok(page.length <= 3);
      }
      assert.deepEqual(seen, BYTEWISE);
      assert.deepEqual(await store.listBundles({ after: 'ab', limit: 9 }, { retired: false }), [
        { name: 'b', revision: 2, digest: revision.digest, parts: 2, author: 'ann', updatedAt: START + 5, retiredAt: null },
      ]);
    });

    contract('listRevisions goes from the newest, page by page', async (store) => {
      for (let number = 0; number < 5; number++) await put(store, 'web', { a: `${number}` }, { base: number || null });
      const first = await store.listRevisions('web', { after: null, limit: 3 });
      const second = await store.listRevisions('web', { after: first.at(-1)?.number ?? null, limit: 3 });
      assert.deepEqual(
        [...first, ...second].map(({ number }) => number),
        [5, 4, 3, 2, 1],
      );
      assert.deepEqual(await store.listRevisions('other', ALL), []);
    });

    contract('what is not there is null', async (store) => {
      await put(store, 'web');
      assert.equal(await store.findBundle('other'), null);
      assert.equal(await store.findRevision('web', 2), null);
      assert.equal(await store.findRevision('other', 1), null);
    });
  });

  describe(`${name}: retired bundles`, () => {
    contract('retireBundle leaves a tombstone without tags; revisions and bodies stay', async (store) => {
      const revision = await put(store, 'web', { a: 'x' });
      await store.putTag('web', 'stable', 1, START);
      await store.retireBundle('web', { base: 1, at: START + 9 });
      assert.deepEqual(await store.findBundle('web'), {
        name: 'web',
        createdAt: START,
        retiredAt: START + 9,
        latest: revision,
        tags: {},
      });
      assert.deepEqual(await store.findRevision('web', 1), revision);
      assert.ok(await store.findBody(sha256('x')));
      assert.deepEqual(await store.listBundles(ALL, { retired: false }), []);
      assert.deepEqual(
        (await store.listBundles(ALL, { retired: true })).map((bundle) => [bundle.name, bundle.retiredAt]),
        [['web', START + 9]],
      );
    });

    contract('a revived bundle goes on counting and keeps the day it was made', async (store) => {
      await put(store, 'web');
      await store.putTag('web', 'stable', 1, START);
      await store.retireBundle('web', { base: 1, at: START + 1 });
      await refused(put(store, 'web', {}, { base: 1 }), 'conflict', 'changed_meanwhile');
      const revision = await put(store, 'web', { a: '2' }, { base: null, at: START + 2 });
      assert.equal(revision.number, 2);
      const bundle = await store.findBundle('web');
      assert.deepEqual([bundle?.createdAt, bundle?.retiredAt, bundle?.tags], [START, null, {}]);
    });

    contract('retireBundle refuses a base that is not the newest', async (store) => {
      await put(store, 'web', { a: '1' });
      await put(store, 'web', { a: '2' }, { base: 1 });
      await refused(store.retireBundle('web', { base: 1, at: START }), 'conflict', 'changed_meanwhile');
      await refused(store.retireBundle('other', { base: 1, at: START }), 'conflict', 'changed_meanwhile');
      await store.retireBundle('web', { base: 2, at: START });
      await refused(store.retireBundle('web', { base: 2, at: START }), 'conflict', 'changed_meanwhile');
    });

    contract('retireBundle refuses, naming who, while a living instance refers to it in any way', async (store) => {
      await put(store, 'web');
      await store.putTag('web', 'stable', 1, START);
      for (const reference of ['web', 'web@stable', 'web@1']) {
        await store.putInstances([write('vm', { bundles: [reference] })], START);
        const error = await refused(store.retireBundle('web', { base: 1, at: START }), 'conflict', 'in_use');
        assert.match(error.message, /\bvm\b/);
      }
      await store.retireInstance('vm', { expect: undefined, at: START });
      await store.retireBundle('web', { base: 1, at: START });
    });

    contract('listBundleUses lists references by instance and says how many there are', async (store) => {
      await put(store, 'web');
      await put(store, 'db');
      await store.putTag('web', 'stable', 1, START);
      await store.putInstances(
        [
          write('c', { bundles: ['web'] }),
          write('a', { bundles: ['db', 'web@stable'] }),
          write('b', { bundles: ['web@1', 'db'] }),
          write('gone', { bundles: ['web'] }),
        ],
        START,
      );
      await store.retireInstance('gone', { expect: undefined, at: START });
      assert.deepEqual(await store.listBundleUses('web', 2), {
        uses: [
          { instance: 'a', reference: 'web@stable' },
          { instance: 'b', reference: 'web@1' },
        ],
        total: 3,
      });
      assert.deepEqual(await store.listBundleUses('other', 2), { uses: [], total: 0 });
    });
  });

  describe(`${name}: tags`, () => {
    contract('putTag sets, moves, and says whether anything changed', async (store) => {
      await put(store, 'web');
      await put(store, 'web', { a: '2' }, { base: 1 });
      assert.deepEqual(await store.putTag('web', 'stable', 1, START), { created: true, changed: true });
      assert.deepEqual(await store.putTag('web', 'stable', 1, START), { created: false, changed: false });
      assert.deepEqual(await store.putTag('web', 'stable', 2, START), { created: false, changed: true });
      await store.putTag('web', 'edge', 2, START);
      assert.deepEqual((await store.findBundle('web'))?.tags, { stable: 2, edge: 2 });
    });

    contract('putTag refuses an unknown or retired bundle and an unknown revision', async (store) => {
      await put(store, 'web');
      await put(store, 'old');
      await store.retireBundle('old', { base: 1, at: START });
      await refused(store.putTag('other', 'stable', 1, START), 'not_found', 'unknown_bundle');
      await refused(store.putTag('old', 'stable', 1, START), 'not_found', 'unknown_bundle');
      await refused(store.putTag('web', 'stable', 2, START), 'not_found', 'unknown_revision');
      await refused(store.putTag('web', 'stable', 0, START), 'not_found', 'unknown_revision');
    });

    contract('deleteTag deletes, and refuses what is not there or is followed', async (store) => {
      await put(store, 'web');
      await store.putTag('web', 'stable', 1, START);
      await store.putTag('web', 'edge', 1, START);
      await store.putInstances([write('vm', { bundles: ['web@stable'] })], START);
      await store.deleteTag('web', 'edge');
      assert.deepEqual((await store.findBundle('web'))?.tags, { stable: 1 });
      const error = await refused(store.deleteTag('web', 'stable'), 'conflict', 'in_use');
      assert.match(error.message, /\bvm\b/);
      await refused(store.deleteTag('web', 'edge'), 'not_found', 'unknown_tag');
      await refused(store.deleteTag('other', 'edge'), 'not_found', 'unknown_bundle');
    });

    contract('resolveReferences tells each reference in order, and null for what means nothing', async (store) => {
      await put(store, 'web');
      await put(store, 'web', { a: '2' }, { base: 1 });
      await put(store, 'web', { a: '3' }, { base: 2 });
      await put(store, 'db');
      await put(store, 'old');
      await store.putTag('web', 'stable', 2, START);
      await store.retireBundle('old', { base: 1, at: START });
      const asked = [
        'web',
        'web@stable',
        'web@1',
        'web@4',
        'web@edge',
        'db@stable',
        'db',
        'old',
        'old@1',
        'none',
        'web@stable',
      ];
      assert.deepEqual(await store.resolveReferences(asked.map(parseReference)), [
        3,
        2,
        1,
        null,
        null,
        null,
        1,
        null,
        null,
        null,
        2,
      ]);
      assert.deepEqual(await store.resolveReferences([]), []);
    });
  });

  describe(`${name}: instances`, () => {
    contract('putInstances registers, and the instance is found by name and by id', async (store) => {
      await put(store, 'web');
      const spec: InstanceSpec = {
        bundles: ['web', 'web@1'],
        vars: { z: 1, a: { text: 'nul \0 and ✓' } },
        labels: { rack: 'r1', 'nul\0': 'x\0y' },
        metaData: { 'instance-id': 'i-own', nested: [1] },
        vendorData: '#cloud-config\n\0',
        networkConfig: { version: 2, ethernets: {} },
      };
      const [written] = await store.putInstances([{ name: 'vm', spec, freshId: '00000000000000aa', expect: null }], START);
      const expected: Instance = {
        ...spec,
        id: '00000000000000aa',
        name: 'vm',
        version: 1,
        generations: { include: 0, seed: 0, report: 0 },
        createdAt: START,
        updatedAt: START,
        retiredAt: null,
        firstDeliveryAt: null,
        lastDeliveryAt: null,
        deliveryCount: 0,
        reportsDropped: 0,
      };
      assert.deepEqual(written, { instance: expected, created: true, changed: true });
      assert.deepEqual(await store.findInstance('vm'), expected);
      assert.deepEqual(await store.findInstanceById('00000000000000aa'), expected);
      assert.deepEqual(Object.keys((await store.findInstance('vm'))?.vars ?? {}), ['z', 'a'], 'keys keep their order');
      assert.equal(await store.findInstance('other'), null);
      assert.equal(await store.findInstanceById('00000000000000ab'), null);
    });

    contract('a changed spec keeps id, generations and birthday, and counts the version', async (store) => {
      const [first] = await store.putInstances([write('vm', { vars: { a: 1 } })], START);
      const [second] = await store.putInstances([write('vm', { vars: { a: 2 }, networkConfig: 'version: 2\n' })], START + 1);
      assert.deepEqual(second, {
        created: false,
        changed: true,
        instance: {
          ...first?.instance,
          vars: { a: 2 },
          networkConfig: 'version: 2\n',
          version: 2,
          updatedAt: START + 1,
        },
      });
      assert.deepEqual(await store.findInstance('vm'), second?.instance);
    });

    contract('an equal spec changes nothing, whatever the order of its keys', async (store) => {
      const [first] = await store.putInstances(
        [write('vm', { vars: { a: 1, b: { c: 2, d: 3 } }, labels: { x: '1', y: '2' } })],
        START,
      );
      const [again] = await store.putInstances(
        [write('vm', { vars: { b: { d: 3, c: 2 }, a: 1 }, labels: { y: '2', x: '1' } })],
        START + 1,
      );
      assert.deepEqual(again, { instance: first?.instance, created: false, changed: false });
      const [other] = await store.putInstances(
        [write('vm', { vars: { a: 1, b: { c: 2, d: '3' } }, labels: { x: '1', y: '2' } })],
        START,
      );
      assert.equal(other?.changed, true);
    });

    contract('the order of bundles is part of the spec', async (store) => {
      await put(store, 'web');
      await put(store, 'db');
      await store.putInstances([write('vm', { bundles: ['web', 'db'] })], START);
      const [written] = await store.putInstances([write('vm', { bundles: ['db', 'web'] })], START);
      assert.deepEqual([written?.changed, written?.instance.bundles], [true, ['db', 'web']]);
    });

    contract('expect holds a write against the version the caller saw', async (store) => {
      await refused(store.putInstances([{ ...write('vm'), expect: 1 }], START), 'precondition_failed', 'etag_mismatch');
      await store.putInstances([{ ...write('vm'), expect: null }], START);
      await refused(store.putInstances([{ ...write('vm'), expect: null }], START), 'precondition_failed', 'etag_mismatch');
      await refused(store.putInstances([{ ...write('vm'), expect: 2 }], START), 'precondition_failed', 'etag_mismatch');
      const [written] = await store.putInstances([{ ...write('vm', { vars: { a: 1 } }), expect: 1 }], START);
      assert.equal(written?.instance.version, 2);
      await store.retireInstance('vm', { expect: 2, at: START });
      await refused(store.putInstances([{ ...write('vm'), expect: 2 }], START), 'precondition_failed', 'etag_mismatch');
      const [revived] = await store.putInstances([{ ...write('vm'), expect: null }], START);
      assert.equal(revived?.created, true);
    });

    contract('of many changes to one version exactly one wins', async (store) => {
      await store.putInstances([write('vm')], START);
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, (_, index) =>
          store.putInstances([{ ...write('vm', { vars: { index } }), expect: 1 }], START),
        ),
      );
      const losers = results.filter((result) => result.status === 'rejected');
      assert.equal(losers.length, 7);
      for (const { reason } of losers) assert.equal(codeOf(reason), 'etag_mismatch');
      assert.equal((await store.findInstance('vm'))?.version, 2);
    });

    contract('a list is all or nothing, and answers in its own order', async (store) => {
      const written = await store.putInstances([write('b'), write('a'), write('c')], START);
      assert.deepEqual(
        written.map(({ instance }) => instance.name),
        ['b', 'a', 'c'],
      );
      const list = [write('d'), { ...write('a', { vars: { x: 1 } }), expect: 7 }, write('b', { vars: { x: 1 } })];
      await refused(store.putInstances(list, START), 'precondition_failed', 'etag_mismatch');
      assert.equal(await store.findInstance('d'), null);
      assert.equal((await store.findInstance('b'))?.version, 1);
      assert.deepEqual(await store.putInstances([], START), []);
    });

    contract('one name twice in a list is refused', async (store) => {
      await refused(store.putInstances([write('a'), write('b'), write('a')], START), 'invalid', 'duplicate_name');
      assert.equal(await store.findInstance('b'), null);
    });

    contract('a reference that means nothing is refused and named, with its instance', async (store) => {
      await put(store, 'web');
      await put(store, 'old');
      await store.putTag('web', 'stable', 1, START);
      await store.retireBundle('old', { base: 1, at: START });
      for (const [reference, code] of [
        ['none', 'unknown_bundle'],
        ['none@stable', 'unknown_bundle'],
        ['old', 'unknown_bundle'],
        ['old@1', 'unknown_bundle'],
        ['web@edge', 'unknown_tag'],
        ['web@2', 'unknown_revision'],
      ] as const) {
        const list = [write('good', { bundles: ['web@stable'] }), write('bad-vm', { bundles: ['web', reference] })];
        const error = await refused(store.putInstances(list, START), 'invalid', code);
        assert.ok(error.message.includes(reference) && error.message.includes('bad-vm'));
      }
      assert.equal(await store.findInstance('good'), null);
    });

    contract('two lists with the same names at once both come through, each whole', async (store) => {
      await put(store, 'web');
      const names = Array.from({ length: 60 }, (_, index) => `vm-${index}`);
      const list = (who: string, order: string[]) => order.map((vm) => write(vm, { bundles: ['web'], vars: { who } }));
      const [one, two] = await Promise.all([
        store.putInstances(list('one', names), START),
        store.putInstances(list('two', names.toReversed()), START),
      ]);
      assert.equal(one.filter(({ created }) => created).length + two.filter(({ created }) => created).length, 60);
      const instances = await store.listInstances(ALL, {});
      assert.equal(instances.length, 60);
      assert.equal(new Set(instances.map(({ vars }) => vars.who)).size, 1);
      assert.deepEqual(new Set(instances.map(({ version }) => version)), new Set([2]));
      assert.equal((await store.listBundleUses('web', 1)).total, 60);
    });

    contract('a bundle retired while instances that refer to it are registered leaves no dangling reference', async (store) => {
      for (let round = 1; round <= 5; round++) {
        const bundle = `web-${round}`;
        await put(store, bundle);
        const [retired, registered] = await Promise.allSettled([
          store.retireBundle(bundle, { base: 1, at: START }),
          store.putInstances([write(`vm-${round}`, { bundles: [bundle] })], START),
        ]);
        assert.notEqual(retired.status, registered.status);
        const alive = (await store.findBundle(bundle))?.retiredAt === null;
        assert.equal(alive, registered.status === 'fulfilled');
      }
    });

    contract('a list of 10,000 instances is registered, changed and found unchanged', async (store) => {
      await put(store, 'web');
      const list = (turn: number) =>
        Array.from({ length: 10_000 }, (_, index) =>
          write(`vm-${index}`, { bundles: ['web', 'web@1'], vars: { turn }, labels: { rack: `r${index % 40}`, role: 'db' } }),
        );
      assert.ok((await store.putInstances(list(1), START)).every(({ created }) => created));
      assert.ok((await store.putInstances(list(1), START)).every(({ changed }) => !changed));
      assert.ok((await store.putInstances(list(2), START)).every(({ created, changed }) => !created && changed));
      assert.equal((await store.listBundleUses('web', 1)).total, 20_000);
    });
  });

  describe(`${name}: lists of instances`, () => {
    contract('go in bytewise order, page by page', async (store) => {
      await store.putInstances(
        BYTEWISE.toReversed().map((vm) => write(vm)),
        START,
      );
      const seen: string[] = [];
      for (let after: string | null = null; ; ) {
        const page: Instance[] = await store.listInstances({ after, limit: 3 }, {});
        seen.push(...page.map((instance) => instance.name));
        after = page.at(-1)?.name ?? null;
        if (after === null) break;
      }
      assert.deepEqual(seen, BYTEWISE);
    });

    contract('filter by bundle, labels, instance-id and address, each alone and all at once', async (store) => {
      await put(store, 'web');
      await put(store, 'db');
      await store.putTag('web', 'stable', 1, START);
      const long = 'x'.repeat(5000);
      await store.putInstances(
        [
          write('a', { bundles: ['web'], labels: { rack: '1', role: 'front' } }),
          write('b', {
            bundles: ['web@stable', 'db'],
            labels: { rack: '1', role: 'back' },
            metaData: { 'instance-id': 'own' },
          }),
          write('c', { bundles: ['web@1'], labels: { rack: '2' } }),
          write('d', { bundles: ['db'], labels: { rack: '1', note: long, nul: 'a\0b' }, metaData: { 'instance-id': 'own' } }),
          write('e', { bundles: [], metaData: { 'instance-id': `${long}\0` } }),
        ],
        START,
      );
      const [a, b, d] = [await found(store, 'a'), await found(store, 'b'), await found(store, 'd')];
      await store.recordDeliveries([
        delivery(a, { address: '10.0.0.1' }),
        delivery(b, { address: '10.0.0.1' }),
        delivery(b, { address: '10.0.0.1', at: START + 1 }),
        delivery(d, { address: 'fd00::1' }),
      ]);
      const names = async (filter: Parameters<Store['listInstances']>[1], page: Page<string> = ALL) =>
        (await store.listInstances(page, filter)).map((instance) => instance.name).join('');

      assert.equal(await names({}), 'abcde');
      assert.equal(await names({ bundle: 'web' }), 'abc');
      assert.equal(await names({ bundle: 'none' }), '');
      assert.equal(await names({ labels: [{ key: 'rack', value: '1' }] }), 'abd');
      assert.equal(await names({ labels: [{ key: 'role', value: null }] }), 'ab');
      assert.equal(
        await names({
          labels: [
            { key: 'rack', value: '1' },
            { key: 'role', value: 'back' },
          ],
        }),
        'b',
      );
      assert.equal(await names({ labels: [{ key: 'note', value: long }] }), 'd');
      assert.equal(await names({ labels: [{ key: 'nul', value: 'a\0b' }] }), 'd');
      assert.equal(await names({ instanceId: 'own' }), 'bd');
      assert.equal(await names({ instanceId: `${long}\0` }), 'e');
      assert.equal(await names({ instanceId: cloudInitInstanceId(a) }), 'a');
      assert.equal(await names({ address: '10.0.0.1' }), 'ab');
      assert.equal(await names({ address: '10.0.0.1\0' }), '');
      assert.equal(
        await names({ bundle: 'db', labels: [{ key: 'rack', value: '1' }], instanceId: 'own', address: 'fd00::1' }),
        'd',
      );
      assert.equal(await names({ bundle: 'web' }, { after: 'a', limit: 1 }), 'b');
      assert.equal(await names({ bundle: undefined, labels: undefined, retired: undefined }), 'abcde');
    });

    contract('take NUL and half a character in every filter, and find nothing by it', async (store) => {
      await put(store, 'web');
      await store.putInstances([write('vm', { bundles: ['web'], labels: { rack: '1' } })], START);
      await store.recordDeliveries([delivery(await found(store, 'vm'), { address: '10.0.0.1' })]);
      for (const odd of ['\0', 'web\0', '\ud800'])
        for (const filter of [
          { bundle: odd },
          { labels: [{ key: odd, value: null }] },
          { labels: [{ key: 'rack', value: odd }] },
          { labels: [{ key: odd, value: odd }] },
          { instanceId: odd },
          { address: odd },
          { bundle: odd, retired: true },
        ])
          assert.deepEqual(await store.listInstances(ALL, filter), [], JSON.stringify(filter));
      await store.listInstances({ after: '\0', limit: 9 }, {});
      await store.listBundles({ after: '\0', limit: 9 }, { retired: false });
    });

    contract('tell labels apart that no text column could', async (store) => {
      const keys = ['a\0', 'a\uFFFD', 'a\ud800', 'a\ud801', 'x'.repeat(300), `${'x'.repeat(300)}y`];
      const labels = Object.fromEntries(keys.map((key) => [key, key]));
      await store.putInstances(
        [write('all', { labels }), ...keys.map((key, index) => write(`vm-${index}`, { labels: { [key]: key } }))],
        START,
      );
      for (const [index, key] of keys.entries()) {
        const listed = await store.listInstances(ALL, { labels: [{ key, value: key }] });
        assert.deepEqual(
          listed.map((instance) => instance.name),
          ['all', `vm-${index}`],
        );
      }
    });

    contract('follow a change of references, labels and instance-id', async (store) => {
      await put(store, 'web');
      await put(store, 'db');
      await store.putInstances(
        [write('vm', { bundles: ['web', 'db'], labels: { a: '1', b: '2' }, metaData: { 'instance-id': 'x' } })],
        START,
      );
      await store.putInstances([write('vm', { bundles: ['db'], labels: { b: '3' } })], START);
      const count = async (filter: Parameters<Store['listInstances']>[1]) => (await store.listInstances(ALL, filter)).length;
      assert.equal(await count({ bundle: 'web' }), 0);
      assert.equal(await count({ bundle: 'db' }), 1);
      assert.equal(await count({ labels: [{ key: 'a', value: null }] }), 0);
      assert.equal(await count({ labels: [{ key: 'b', value: '2' }] }), 0);
      assert.equal(await count({ labels: [{ key: 'b', value: '3' }] }), 1);
      assert.equal(await count({ instanceId: 'x' }), 0);
    });
  });

  describe(`${name}: retired instances`, () => {
    contract('retireInstance leaves a tombstone that opens nothing and holds no bundle', async (store) => {
      await put(store, 'web');
      const [written] = await store.putInstances([write('vm', { bundles: ['web'], labels: { a: '1' } })], START);
      await store.retireInstance('vm', { expect: 1, at: START + 5 });
      const tombstone = await store.findInstance('vm');
      assert.equal(tombstone?.retiredAt, START + 5);
      assert.deepEqual(tombstone?.bundles, ['web'], 'it stays readable');
      assert.equal(await store.findInstanceById(written?.instance.id ?? ''), null);
      assert.deepEqual(await store.listInstances(ALL, {}), []);
      assert.deepEqual(await store.listInstances(ALL, { bundle: 'web' }), []);
      assert.deepEqual(
        (await store.listInstances(ALL, { retired: true })).map(({ name }) => name),
        ['vm'],
      );
      assert.equal((await store.listBundleUses('web', 9)).total, 0);
    });

    contract('retireInstance refuses what is not there and a version that is not the one', async (store) => {
      await store.putInstances([write('vm')], START);
      await refused(store.retireInstance('vm', { expect: 2, at: START }), 'precondition_failed', 'etag_mismatch');
      await refused(store.retireInstance('other', { expect: undefined, at: START }), 'not_found', 'unknown_instance');
      await store.retireInstance('vm', { expect: undefined, at: START });
      await refused(store.retireInstance('vm', { expect: undefined, at: START }), 'not_found', 'unknown_instance');
    });

    contract('a revived instance has its id, every generation one higher, and its counts begun anew', async (store) => {
      const [first] = await store.putInstances([write('vm', { vars: { a: 1 } })], START);
      assert.ok(first);
      await store.recordDeliveries([delivery(first.instance), delivery(first.instance, { address: '10.0.0.6' })]);
      await store.retireInstance('vm', { expect: 1, at: START + 1 });
      const [revived] = await store.putInstances(
        [{ ...write('vm', { vars: { a: 1 } }), freshId: 'ffffffffffffffff' }],
        START + 2,
      );
      assert.deepEqual(revived, {
        created: true,
        changed: true,
        instance: { ...first.instance, generations: { include: 1, seed: 1, report: 1 }, version: 2, updatedAt: START + 2 },
      });
      assert.deepEqual(await store.findInstanceById(first.instance.id), revived.instance);
      assert.equal((await store.listDeliveries('vm', ALL)).length, 2, 'the ledger stays');
      // Right after the old machine's, from the same addresses: deliveries of their own all the same.
      await store.recordDeliveries([delivery(first.instance, { at: START + 3 })]);
      await store.recordDeliveries([delivery(first.instance, { at: START + 4, address: '10.0.0.6' })]);
      const instance = await store.findInstance('vm');
      assert.deepEqual(
        [instance?.firstDeliveryAt, instance?.lastDeliveryAt, instance?.deliveryCount],
        [START + 3, START + 4, 2],
      );
    });
  });

  describe(`${name}: ledger`, () => {
    contract('a delivery comes back as it was recorded', async (store) => {
      const vm = await registered(store, 'vm');
      const { instanceId, ...given } = delivery(vm, { digest: null, purpose: 'seed', userAgent: 'Cloud-Init/25.1', bytes: 12 });
      const [id] = await store.recordDeliveries([{ instanceId, ...given }]);
      assert.deepEqual(await store.listDeliveries('vm', ALL), [{ ...given, id, instance: 'vm', counted: true }]);
      assert.deepEqual(await store.listDeliveries('other', ALL), []);
    });

    contract('hostile addresses and user agents are stored without NUL', async (store) => {
      const vm = await registered(store, 'vm');
      await store.recordDeliveries([delivery(vm, { address: `1\0${'x'.repeat(9000)}`, userAgent: 'a\0\ud800b' })]);
      const [row] = await store.listDeliveries('vm', ALL);
      assert.equal(row?.userAgent, 'a\uFFFD\uFFFDb');
      assert.ok(row.address.startsWith('1\uFFFDx') && row.address.length <= 255);
    });

    contract('a repeat from the same address within the window is not counted', async (store) => {
      const vm = await registered(store, 'vm');
      const counted = async (change: Partial<NewDelivery>) => {
        await store.recordDeliveries([delivery(vm, change)]);
        return (await store.listDeliveries('vm', { after: null, limit: 1 }))[0]?.counted;
      };
      assert.equal(await counted({ at: START }), true);
      assert.equal(await counted({ at: START }), false);
      assert.equal(await counted({ at: START + REPEAT_WINDOW_MS - 1 }), false);
      assert.equal(await counted({ at: START + 1, address: '10.0.0.9' }), true, 'another address');
      assert.equal(await counted({ at: START + REPEAT_WINDOW_MS }), true, 'the window is over: repeats do not prolong it');
      assert.equal(await counted({ at: START + 3 * REPEAT_WINDOW_MS, outcome: 'failed' }), false);
      assert.equal(await counted({ at: START + 3 * REPEAT_WINDOW_MS, outcome: 'aborted' }), false);
      const instance = await store.findInstance('vm');
      assert.deepEqual(
        [instance?.firstDeliveryAt, instance?.lastDeliveryAt, instance?.deliveryCount],
        [START, START + REPEAT_WINDOW_MS, 3],
      );
      assert.deepEqual([instance?.version, instance?.updatedAt], [1, START], 'a delivery is no change of the spec');
    });

    contract('the same rule holds inside one batch', async (store) => {
      const [a, b] = [await registered(store, 'a'), await registered(store, 'b')];
      const ids = await store.recordDeliveries([
        delivery(a),
        delivery(b),
        delivery(a, { at: START + 1 }),
        delivery(b, { at: START + 2, address: '10.9.9.9' }),
        delivery(a, { at: START + REPEAT_WINDOW_MS }),
      ]);
      const rows = [...(await store.listDeliveries('a', ALL)), ...(await store.listDeliveries('b', ALL))];
      assert.deepEqual(
        ids.map((id) => rows.find((row) => row.id === id)?.counted),
        [true, true, false, true, true],
      );
      assert.deepEqual(
        ids.map((id) => rows.find((row) => row.id === id)?.at),
        [START, START, START + 1, START + 2, START + REPEAT_WINDOW_MS],
        'ids are in the order of the batch',
      );
      assert.equal((await store.findInstance('a'))?.deliveryCount, 2);
      assert.equal((await store.findInstance('b'))?.deliveryCount, 2);
    });

    contract('a batch is all or nothing', async (store) => {
      const vm = await registered(store, 'vm');
      const list = [delivery(vm), { ...delivery(vm), instanceId: 'eeeeeeeeeeeeeeee' }];
      await refused(store.recordDeliveries(list), 'not_found', 'unknown_instance');
      assert.deepEqual(await store.listDeliveries('vm', ALL), []);
      assert.equal((await store.findInstance('vm'))?.deliveryCount, 0);
      assert.deepEqual(await store.recordDeliveries([]), []);
    });

    contract('a batch larger than a statement is one batch', async (store) => {
      const written = await store.putInstances(
        Array.from({ length: 1500 }, (_, index) => write(`vm-${index}`)),
        START,
      );
      const ids = await store.recordDeliveries(written.map(({ instance }) => delivery(instance)));
      assert.equal(new Set(ids).size, 1500);
      const [row] = await store.listDeliveries('vm-1499', ALL);
      assert.equal(row?.id, ids[1499]);
      assert.equal((await store.findInstance('vm-1499'))?.deliveryCount, 1);
    });

    contract('of 50 concurrent tries of one machine one counts, and all are rows', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      const ids = await Promise.all(
        Array.from({ length: 50 }, (_, index) =>
          store.recordDeliveries([delivery(vm), delivery(other, { address: `10.1.0.${index}` })]),
        ),
      );
      assert.equal(new Set(ids.flat()).size, 100);
      const rows = await store.listDeliveries('vm', ALL);
      assert.equal(rows.length, 50);
      assert.equal(rows.filter(({ counted }) => counted).length, 1);
      assert.equal((await store.findInstance('vm'))?.deliveryCount, 1);
      assert.equal((await store.findInstance('other'))?.deliveryCount, 50);
    });

    contract('closeDelivery corrects the outcome and nothing else', async (store) => {
      const vm = await registered(store, 'vm');
      const [id] = await store.recordDeliveries([delivery(vm)]);
      const [before] = await store.listDeliveries('vm', ALL);
      await store.closeDelivery(id ?? 0, 'aborted');
      assert.deepEqual(await store.listDeliveries('vm', ALL), [{ ...before, outcome: 'aborted' }]);
      await store.closeDelivery(999_999, 'aborted');
    });

    contract('listDeliveries goes from the newest, page by page, of one instance', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      const ids = await store.recordDeliveries([delivery(vm), delivery(other), delivery(vm), delivery(vm)]);
      const first = await store.listDeliveries('vm', { after: null, limit: 2 });
      const second = await store.listDeliveries('vm', { after: first.at(-1)?.id ?? null, limit: 2 });
      assert.deepEqual(
        [...first, ...second].map(({ id }) => id),
        [ids[3], ids[2], ids[0]],
      );
    });
  });

  describe(`${name}: reports`, () => {
    const manifest = (id: string): ManifestResult => ({
      id,
      file: '03-db.yaml',
      part: '03-db.yaml',
      sha256: 'a'.repeat(64),
      status: 'failed',
      attempts: 2,
      client: 'kubectl',
      clientVersion: 'v1.30.1',
      output: 'a\0ü✓\ud800\n',
      at: START + 5,
    });
    const report = (instance: Instance, id: string, limit = 10) => ({
      instanceId: instance.id,
      at: START,
      manifest: manifest(id),
      limit,
    });

    contract('recordReport keeps a report whole, and one that is sent twice once', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      const long = 'x'.repeat(5000);
      for (const id of ['a', 'a\0', long]) {
        assert.equal(await store.recordReport(report(vm, id)), 'stored');
        assert.equal(await store.recordReport(report(vm, id)), 'repeated');
      }
      assert.equal(await store.recordReport(report(other, 'a')), 'stored');
      const kept = await store.listReports('vm', ALL);
      assert.deepEqual(
        kept.map(({ instance, at, manifest }) => ({ instance, at, manifest })),
        [long, 'a\0', 'a'].map((id) => ({ instance: 'vm', at: START, manifest: manifest(id) })),
      );
    });

    contract('of the same report sent many times at once one is kept', async (store) => {
      const vm = await registered(store, 'vm');
      const outcomes = await Promise.all(Array.from({ length: 6 }, () => store.recordReport(report(vm, 'a'))));
      assert.deepEqual(outcomes.sort(), ['repeated', 'repeated', 'repeated', 'repeated', 'repeated', 'stored']);
    });

    contract('past the limit the oldest are dropped, and the drops counted, for that instance only', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      for (const id of ['a', 'b', 'c', 'd']) assert.equal(await store.recordReport(report(vm, id, 2)), 'stored');
      assert.equal(await store.recordReport(report(other, 'a', 2)), 'stored');
      const ids = async (name: string) => (await store.listReports(name, ALL)).map(({ manifest }) => manifest.id);
      assert.deepEqual([await ids('vm'), await ids('other')], [['d', 'c'], ['a']]);
      const dropped = async (name: string) => (await store.findInstance(name))?.reportsDropped;
      assert.deepEqual([await dropped('vm'), await dropped('other')], [2, 0]);
    });

    contract('recordReport refuses an id nobody has', async (store) => {
      const vm = await registered(store, 'vm');
      await refused(store.recordReport(report({ ...vm, id: 'f'.repeat(16) }, 'a')), 'not_found', 'unknown_instance');
    });

    contract('listReports goes from the newest, page by page', async (store) => {
      const vm = await registered(store, 'vm');
      for (const id of ['a', 'b', 'c']) await store.recordReport(report(vm, id));
      const first = await store.listReports('vm', { after: null, limit: 2 });
      const second = await store.listReports('vm', { after: first.at(-1)?.id ?? null, limit: 2 });
      assert.deepEqual(
        [...first, ...second].map(({ manifest }) => manifest.id),
        ['c', 'b', 'a'],
      );
    });
  });

  describe(`${name}: the database itself`, () => {
    contract('claimKey binds an empty database and knows its ring afterwards', async (store) => {
      assert.equal(await store.claimKey(['one']), true);
      assert.equal(await store.claimKey(['two']), false);
      assert.equal(await store.claimKey(['one']), true);
      assert.equal(await store.claimKey(['two', 'one']), true, 'rotated: two is newer');
      assert.equal(await store.claimKey(['one']), false, 'it took two');
      assert.equal(await store.claimKey(['two']), true);
      assert.equal(await store.claimKey([]), false);
    });

    contract('two processes with different keys cannot both claim an empty database', async (store) => {
      const claims = await Promise.all(['one', 'two', 'three', 'four'].map((check) => store.claimKey([check])));
      assert.equal(claims.filter((claimed) => claimed).length, 1);
    });

    contract('ping resolves, and after close everything is unavailable', async (store) => {
      await store.ping();
      await store.close();
      await refused(store.ping(), 'unavailable', 'store_closed');
      await refused(store.claimKey(['one']), 'unavailable', 'store_closed');
      await store.close();
    });

    contract('close waits for the writes under way', async (store) => {
      const writes = Array.from({ length: 5 }, (_, index) => put(store, `web-${index}`));
      const closed = store.close();
      const results = await Promise.all(writes);
      assert.deepEqual(
        results.map(({ number }) => number),
        [1, 1, 1, 1, 1],
      );
      await closed;
    });
  });
}

/** What every engine must do alike with its schema. `makeDatabase` gives an empty one, closed when the test is over. */
export function migrationConformance(name: string, makeDatabase: (t: TestContext) => Promise<Database>) {
  const extra: Migration = {
    name: '9999-extra',
    async up(db) {
      await sql`create table extra (id integer)`.execute(db);
    },
  };
  const names = async (database: Database) =>
    (await database.read((db) => database.tables.execute(db))).rows.map((table) => table.name).sort();

  describe(`${name}: migrations`, () => {
    test('run once each, and only those that are new', async (t) => {
      const database = await makeDatabase(t);
      await migrate(database);
      const before = await names(database);
      assert.ok(before.includes('instance') && !before.includes('extra'));
      await migrate(database);
      await migrate(database, [...migrations, extra]);
      assert.deepEqual(await names(database), [...before, 'extra'].sort());
      await migrate(database, [...migrations, extra]);
    });

    test('a database of a newer schema is refused, and unchanged', async (t) => {
      const database = await makeDatabase(t);
      await migrate(database, [...migrations, extra]);
      const before = await names(database);
      await refused(migrate(database), 'conflict', 'newer_schema');
      await refused(migrate(database, [...migrations, { ...extra, name: '9998-other' }]), 'conflict', 'newer_schema');
      assert.deepEqual(await names(database), before);
    });

    test('one that fails leaves nothing behind, and can be tried again', async (t) => {
      const database = await makeDatabase(t);
      const failing: Migration = {
        ...extra,
        async up(db, engine) {
          await extra.up(db, engine);
          throw new Error('half way');
        },
      };
      await assert.rejects(migrate(database, [...migrations, failing]), /half way/);
      assert.deepEqual(await names(database), []);
      await migrate(database);
    });

    test('several that start at once all come up', async (t) => {
      const database = await makeDatabase(t);
      await Promise.all([1, 2, 3, 4].map(() => migrate(database)));
      assert.equal(await createStore(database).claimKey(['one']), true);
    });
  });
}

// ---- making things

function files(contents: Record<string, string | Uint8Array>): { parts: Part[]; bodies: Map<string, Uint8Array> } {
  const bodies = new Map<string, Uint8Array>();
  const parts = Object.entries(contents).map(([filename, content]): Part => {
    const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content;
    bodies.set(sha256(bytes), bytes);
    return {
      filename,
      type: 'text/x-shellscript',
      typeSaid: false,
      merge: null,
      template: false,
      size: bytes.length,
      sha256: sha256(bytes),
    };
  });
  return { parts, bodies };
}

function put(
  store: Store,
  bundle: string,
  contents: Record<string, string> = {},
  change: Partial<Omit<Parameters<Store['putRevision']>[0], 'content'> & RevisionContent> = {},
) {
  const made = files(contents);
  const {
    order = 'name',
    vars = {},
    parts = made.parts,
    bodies = made.bodies,
    base = null,
    at = START,
    author = 'ann',
  } = change;
  const content: RevisionContent = { order, vars, parts };
  return store.putRevision({ bundle, base, content, digest: revisionDigest(content), bodies, at, author });
}

export function write(name: string, spec: Partial<InstanceSpec> = {}): InstanceWrite {
  return {
    name,
    spec: { bundles: [], vars: {}, labels: {}, metaData: {}, vendorData: null, networkConfig: null, ...spec },
    freshId: sha256(name).slice(0, 16),
    expect: undefined,
  };
}

async function found(store: Store, name: string): Promise<Instance> {
  const instance = await store.findInstance(name);
  assert.ok(instance);
  return instance;
}

async function registered(store: Store, name: string): Promise<Instance> {
  await store.putInstances([write(name)], START);
  return found(store, name);
}

function delivery(instance: Instance, change: Partial<NewDelivery> = {}): NewDelivery {
  return {
    instanceId: instance.id,
    at: START,
    purpose: 'include',
    digest: sha256('document'),
    bytes: 8,
    address: '10.0.0.5',
    userAgent: 'Cloud-Init/22.4.2',
    revisions: ['web@1', 'db@3'],
    outcome: 'delivered',
    ...change,
  };
}

function codeOf(error: unknown): string {
  return error instanceof BootbundleError ? error.code : `not a BootbundleError: ${String(error)}`;
}

/** Asserts kind and code of a refusal. @returns the error */
export async function refused(promise: Promise<unknown>, kind: ErrorKind, code: string): Promise<BootbundleError> {
  const error = await promise.then(
    () => assert.fail(`expected ${code}, and it was done`),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof BootbundleError, `expected ${code}, got ${String(error)}`);
  assert.deepEqual([error.kind, error.code], [kind, code]);
  return error;
}

import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import { sql } from 'kysely';
import { type Migration, migrations } from '../../migrations/index.ts';
import { EVERYTHING, type NamePatterns } from '../../src/domain/actor.ts';
import type { AuditEntry, AuditFilter } from '../../src/domain/audit.ts';
import type { BootEvent } from '../../src/domain/boot.ts';
import { NO_BOOT } from '../../src/domain/boot.ts';
import { type Part, type RevisionContent, revisionDigest, sha256 } from '../../src/domain/bundle.ts';
import { type NewDelivery, REPEAT_WINDOW_MS } from '../../src/domain/delivery.ts';
import { BootbundleError, type ErrorKind } from '../../src/domain/errors.ts';
import { cloudInitInstanceId, type Instance, type InstanceSpec } from '../../src/domain/instance.ts';
import { LIMITS } from '../../src/domain/limits.ts';
import { parseReference } from '../../src/domain/names.ts';
import { DEFAULT_POLICY } from '../../src/domain/policy.ts';
import type { LogName, ManifestResult, NewReport, ReportBody } from '../../src/domain/report.ts';
import type { NewSecret, SealedSecret, SecretOwner } from '../../src/domain/secret.ts';
import {
  type InstanceWrite,
  type Page,
  type Sight,
  SPECS_KEPT,
  type Store,
  type StoredSecret,
} from '../../src/domain/store.ts';
import { type NewToken, USE_NOTED_MS } from '../../src/domain/token.ts';
import type { Database } from '../../src/store/database.ts';
import { migrate } from '../../src/store/migrate.ts';
import { createStore } from '../../src/store/open.ts';
import { ANN } from '../actor.ts';

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
        by: ANN,
        message: 'the first',
      });
      const circumstances = { createdAt: START, author: 'ann', message: 'the first', purgedAt: null };
      const expected = { ...content, bundle: 'web', number: 1, digest, ...circumstances };
      assert.deepEqual(revision, expected);
      assert.deepEqual(await store.findBundle('web'), {
        name: 'web',
        createdAt: START,
        retiredAt: null,
        latest: expected,
        tags: {},
        secretsVersion: 0,
      });
      assert.deepEqual(await store.findRevision('web', 1), expected);
    });

    contract('text keeps NUL, quotes, emoji and a lone surrogate in vars', async (store) => {
      const vars = { text: `a\0b'"\\ ✓ 😀 \ud800`, 'k\0': 1 };
      await put(store, 'web', {}, { vars });
      assert.deepEqual((await store.findBundle('web'))?.latest.vars, vars);
    });

    contract('an author and a message with a NUL are stored without it', async (store) => {
      await put(store, 'web', {}, { by: { ...ANN, name: 'a\0b' }, message: 'why\0 \ud800' });
      const latest = (await store.findBundle('web'))?.latest;
      assert.deepEqual([latest?.author, latest?.message], ['a\uFFFDb', 'why\uFFFD \uFFFD']);
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
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      await store.retireBundle('web', { base: 1, at: START + 9, by: ANN });
      assert.deepEqual(await store.findBundle('web'), {
        name: 'web',
        createdAt: START,
        retiredAt: START + 9,
        latest: revision,
        tags: {},
        secretsVersion: 0,
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
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      await store.retireBundle('web', { base: 1, at: START + 1, by: ANN });
      await refused(put(store, 'web', {}, { base: 1 }), 'conflict', 'changed_meanwhile');
      const revision = await put(store, 'web', { a: '2' }, { base: null, at: START + 2 });
      assert.equal(revision.number, 2);
      const bundle = await store.findBundle('web');
      assert.deepEqual([bundle?.createdAt, bundle?.retiredAt, bundle?.tags], [START, null, {}]);
    });

    contract('retireBundle refuses a base that is not the newest', async (store) => {
      await put(store, 'web', { a: '1' });
      await put(store, 'web', { a: '2' }, { base: 1 });
      await refused(store.retireBundle('web', { base: 1, at: START, by: ANN }), 'conflict', 'changed_meanwhile');
      await refused(store.retireBundle('other', { base: 1, at: START, by: ANN }), 'conflict', 'changed_meanwhile');
      await store.retireBundle('web', { base: 2, at: START, by: ANN });
      await refused(store.retireBundle('web', { base: 2, at: START, by: ANN }), 'conflict', 'changed_meanwhile');
    });

    contract('retireBundle refuses, naming who, while a living instance refers to it in any way', async (store) => {
      await put(store, 'web');
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      for (const reference of ['web', 'web@stable', 'web@1']) {
        await store.putInstances([write('vm', { bundles: [reference] })], { at: START, by: ANN });
        const error = await refused(store.retireBundle('web', { base: 1, at: START, by: ANN }), 'conflict', 'in_use');
        assert.match(error.message, /\bvm\b/);
      }
      await store.retireInstance('vm', { expect: undefined, at: START, by: ANN });
      await store.retireBundle('web', { base: 1, at: START, by: ANN });
    });

    contract('listBundleUses lists references by instance and says how many there are', async (store) => {
      await put(store, 'web');
      await put(store, 'db');
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      await store.putInstances(
        [
          write('c', { bundles: ['web'] }),
          write('a', { bundles: ['db', 'web@stable'] }),
          write('b', { bundles: ['web@1', 'db'] }),
          write('gone', { bundles: ['web'] }),
        ],
        { at: START, by: ANN },
      );
      await store.retireInstance('gone', { expect: undefined, at: START, by: ANN });
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
      assert.deepEqual(await store.putTag('web', 'stable', 1, { at: START, by: ANN }), { created: true, changed: true });
      assert.deepEqual(await store.putTag('web', 'stable', 1, { at: START, by: ANN }), { created: false, changed: false });
      assert.deepEqual(await store.putTag('web', 'stable', 2, { at: START, by: ANN }), { created: false, changed: true });
      await store.putTag('web', 'edge', 2, { at: START, by: ANN });
      assert.deepEqual((await store.findBundle('web'))?.tags, { stable: 2, edge: 2 });
    });

    contract('putTag refuses an unknown or retired bundle and an unknown revision', async (store) => {
      await put(store, 'web');
      await put(store, 'old');
      await store.retireBundle('old', { base: 1, at: START, by: ANN });
      await refused(store.putTag('other', 'stable', 1, { at: START, by: ANN }), 'not_found', 'unknown_bundle');
      await refused(store.putTag('old', 'stable', 1, { at: START, by: ANN }), 'not_found', 'unknown_bundle');
      await refused(store.putTag('web', 'stable', 2, { at: START, by: ANN }), 'not_found', 'unknown_revision');
      await refused(store.putTag('web', 'stable', 0, { at: START, by: ANN }), 'not_found', 'unknown_revision');
    });

    contract('deleteTag deletes, and refuses what is not there or is followed', async (store) => {
      await put(store, 'web');
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      await store.putTag('web', 'edge', 1, { at: START, by: ANN });
      await store.putInstances([write('vm', { bundles: ['web@stable'] })], { at: START, by: ANN });
      await store.deleteTag('web', 'edge', { at: START, by: ANN });
      assert.deepEqual((await store.findBundle('web'))?.tags, { stable: 1 });
      const error = await refused(store.deleteTag('web', 'stable', { at: START, by: ANN }), 'conflict', 'in_use');
      assert.match(error.message, /\bvm\b/);
      await refused(store.deleteTag('web', 'edge', { at: START, by: ANN }), 'not_found', 'unknown_tag');
      await refused(store.deleteTag('other', 'edge', { at: START, by: ANN }), 'not_found', 'unknown_bundle');
    });

    contract('resolveReferences tells each reference in order, and null for what means nothing', async (store) => {
      await put(store, 'web');
      await put(store, 'web', { a: '2' }, { base: 1 });
      await put(store, 'web', { a: '3' }, { base: 2 });
      await put(store, 'db');
      await put(store, 'old');
      await store.putTag('web', 'stable', 2, { at: START, by: ANN });
      await store.retireBundle('old', { base: 1, at: START, by: ANN });
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
      assert.deepEqual(
        (await store.resolveReferences(asked.map(parseReference))).map((meaning) => meaning?.revision ?? null),
        [3, 2, 1, null, null, null, 1, null, null, null, 2],
      );
      assert.deepEqual(await store.resolveReferences([]), []);
    });
  });

  describe(`${name}: purges`, () => {
    contract('purgeRevision drops vars and bodies nobody else has, and tells who has the others', async (store) => {
      const first = await put(store, 'web', { 'a.sh': 'leak', 'b.sh': 'shared', 'c.sh': 'shared' }, { vars: { key: 'leak' } });
      await put(store, 'web', { 'b.sh': 'shared' }, { base: 1 });
      await put(store, 'db', { 'x.sh': 'shared' });
      const expected = { ...first, vars: {}, purgedAt: START + 7 };
      const kept = [{ sha256: sha256('shared'), filename: 'b.sh', revisions: ['db@1', 'web@2'] }];
      assert.deepEqual(await store.purgeRevision('web', 1, { at: START + 7, by: ANN }), { revision: expected, kept });
      assert.deepEqual(await store.findRevision('web', 1), expected);
      assert.equal(await store.findBody(sha256('leak')), null);
      assert.ok(await store.findBody(sha256('shared')));
      assert.deepEqual(
        (await store.listRevisions('web', ALL)).map(({ number, purgedAt }) => [number, purgedAt]),
        [
          [2, null],
          [1, START + 7],
        ],
      );
      assert.deepEqual(
        await store.purgeRevision('web', 1, { at: START + 9, by: ANN }),
        { revision: expected, kept },
        'again: nothing changes',
      );
    });

    contract('a body goes with the last revision that has it', async (store) => {
      for (const base of [null, 1, 2]) await put(store, 'web', base === 2 ? {} : { 'a.sh': 'leak' }, { base });
      const { kept } = await store.purgeRevision('web', 2, { at: START, by: ANN });
      assert.deepEqual(kept, [{ sha256: sha256('leak'), filename: 'a.sh', revisions: ['web@1'] }]);
      assert.ok(await store.findBody(sha256('leak')));
      assert.deepEqual((await store.purgeRevision('web', 1, { at: START, by: ANN })).kept, []);
      assert.equal(await store.findBody(sha256('leak')), null);
    });

    contract('purgeRevision names at most 100 of the revisions that have a body', async (store) => {
      for (let number = 0; number <= 101; number++) await put(store, 'web', { 'a.sh': 'shared' }, { base: number || null });
      const { kept } = await store.purgeRevision('web', 1, { at: START, by: ANN });
      const revisions = kept[0]?.revisions ?? [];
      assert.deepEqual([revisions.length, revisions[0], revisions.at(-1)], [100, 'web@2', 'web@101']);
    });

    contract('purgeRevision refuses what a machine may ask for, naming why', async (store) => {
      for (const base of [null, 1, 2]) await put(store, 'web', { 'a.sh': `${base}` }, { base });
      await put(store, 'db');
      await store.putTag('web', 'stable', 2, { at: START, by: ANN });
      await store.putInstances([write('follows', { bundles: ['web', 'db@1'] })], { at: START, by: ANN });
      await store.putInstances([write('pins', { bundles: ['web@1'] })], { at: START, by: ANN });
      for (const [number, why] of [
        [3, /newest/],
        [2, /\bstable\b/],
        [1, /\bpins\b/],
      ] as const) {
        const error = await refused(store.purgeRevision('web', number, { at: START, by: ANN }), 'conflict', 'in_use');
        assert.match(error.message, why);
        assert.doesNotMatch(error.message, /follows/);
        assert.equal((await store.findRevision('web', number))?.purgedAt, null);
      }
      await store.retireInstance('pins', { expect: undefined, at: START, by: ANN });
      await store.deleteTag('web', 'stable', { at: START, by: ANN });
      for (const number of [1, 2])
        assert.equal((await store.purgeRevision('web', number, { at: START, by: ANN })).revision.purgedAt, START);
      assert.ok(await store.findBody(sha256('2')));
    });

    contract('purgeRevision refuses what is not there', async (store) => {
      await put(store, 'web');
      for (const [bundle, number] of [
        ['web', 0],
        ['web', 2],
        ['other', 1],
      ] as const)
        await refused(store.purgeRevision(bundle, number, { at: START, by: ANN }), 'not_found', 'unknown_revision');
    });

    contract("a retired bundle's newest revision can be purged, and the bundle revived", async (store) => {
      await put(store, 'web', { 'a.sh': 'leak' });
      await store.retireBundle('web', { base: 1, at: START, by: ANN });
      await store.purgeRevision('web', 1, { at: START + 1, by: ANN });
      assert.equal((await store.findBundle('web'))?.latest.purgedAt, START + 1);
      assert.equal((await put(store, 'web', { 'a.sh': 'clean' })).number, 2);
    });

    contract('a purged revision means nothing any more: it is not resolved, tagged or pinned', async (store) => {
      for (const base of [null, 1, 2]) await put(store, 'web', {}, { base });
      await store.purgeRevision('web', 2, { at: START, by: ANN });
      const asked = ['web@1', 'web@2', 'web@3', 'web'].map(parseReference);
      assert.deepEqual(
        (await store.resolveReferences(asked)).map((meaning) => meaning?.revision ?? null),
        [1, null, 3, 3],
      );
      await refused(store.putTag('web', 'stable', 2, { at: START, by: ANN }), 'conflict', 'purged');
      const error = await refused(
        store.putInstances([write('vm', { bundles: ['web@2'] })], { at: START, by: ANN }),
        'invalid',
        'purged',
      );
      assert.ok(error.message.includes('web@2') && error.message.includes('vm'));
    });

    contract('a body that was purged must be given again', async (store) => {
      const { parts, bodies } = files({ 'a.sh': 'leak' });
      await put(store, 'web', {}, { parts, bodies });
      await put(store, 'web', {}, { base: 1 });
      await store.purgeRevision('web', 1, { at: START, by: ANN });
      await assert.rejects(put(store, 'web', {}, { parts, bodies: new Map(), base: 2 }));
      await put(store, 'web', {}, { parts, bodies, base: 2 });
      assert.ok(await store.findBody(sha256('leak')));
    });

    contract('of a purge and a pin or a tag at once exactly one comes through', async (store) => {
      for (let round = 1; round <= 5; round++) {
        const bundle = `web-${round}`;
        await put(store, bundle);
        await put(store, bundle, {}, { base: 1 });
        const [purged, used] = await Promise.allSettled([
          store.purgeRevision(bundle, 1, { at: START, by: ANN }),
          round % 2
            ? store.putInstances([write(`vm-${round}`, { bundles: [`${bundle}@1`] })], { at: START, by: ANN })
            : store.putTag(bundle, 'stable', 1, { at: START, by: ANN }),
        ]);
        assert.notEqual(purged.status, used.status);
      }
    });

    contract('a purge and a revision with the same body at once leave the body to the revision', async (store) => {
      for (let round = 1; round <= 5; round++) {
        const contents = { 'a.sh': `leak ${round}` };
        await put(store, `web-${round}`, contents);
        await put(store, `web-${round}`, {}, { base: 1 });
        await Promise.all([
          store.purgeRevision(`web-${round}`, 1, { at: START, by: ANN }),
          put(store, `db-${round}`, contents),
        ]);
        assert.ok(await store.findBody(sha256(`leak ${round}`)));
      }
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
        policy: { closeAfter: '1h', allowFrom: ['192.0.2.0/24'] },
        track: false,
      };
      const [written] = await store.putInstances([{ name: 'vm', spec, freshId: '00000000000000aa', expect: null }], {
        by: ANN,
        at: START,
      });
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
        fetchedAt: { include: null, seed: null },
        reportsDropped: 0,
        closedAt: null,
        reopenedAt: null,
        openUntil: null,
        boot: NO_BOOT,
      };
      assert.deepEqual(written, { instance: expected, created: true, changed: true });
      assert.deepEqual(await store.findInstance('vm'), expected);
      assert.deepEqual(await store.findInstanceById('00000000000000aa'), expected);
      assert.deepEqual(Object.keys((await store.findInstance('vm'))?.vars ?? {}), ['z', 'a'], 'keys keep their order');
      assert.equal(await store.findInstance('other'), null);
      assert.equal(await store.findInstanceById('00000000000000ab'), null);
    });

    contract('a changed spec keeps id, generations and birthday, and counts the version', async (store) => {
      const [first] = await store.putInstances([write('vm', { vars: { a: 1 } })], { at: START, by: ANN });
      const [second] = await store.putInstances([write('vm', { vars: { a: 2 }, networkConfig: 'version: 2\n' })], {
        by: ANN,
        at: START + 1,
      });
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
        { at: START, by: ANN },
      );
      const [again] = await store.putInstances(
        [write('vm', { vars: { b: { d: 3, c: 2 }, a: 1 }, labels: { y: '2', x: '1' } })],
        { at: START + 1, by: ANN },
      );
      assert.deepEqual(again, { instance: first?.instance, created: false, changed: false });
      const [other] = await store.putInstances(
        [write('vm', { vars: { a: 1, b: { c: 2, d: '3' } }, labels: { x: '1', y: '2' } })],
        { at: START, by: ANN },
      );
      assert.equal(other?.changed, true);
    });

    contract('the order of bundles is part of the spec', async (store) => {
      await put(store, 'web');
      await put(store, 'db');
      await store.putInstances([write('vm', { bundles: ['web', 'db'] })], { at: START, by: ANN });
      const [written] = await store.putInstances([write('vm', { bundles: ['db', 'web'] })], { at: START, by: ANN });
      assert.deepEqual([written?.changed, written?.instance.bundles], [true, ['db', 'web']]);
    });

    contract('expect holds a write against the version the caller saw', async (store) => {
      await refused(
        store.putInstances([{ ...write('vm'), expect: 1 }], { at: START, by: ANN }),
        'precondition_failed',
        'etag_mismatch',
      );
      await store.putInstances([{ ...write('vm'), expect: null }], { at: START, by: ANN });
      await refused(
        store.putInstances([{ ...write('vm'), expect: null }], { at: START, by: ANN }),
        'precondition_failed',
        'etag_mismatch',
      );
      await refused(
        store.putInstances([{ ...write('vm'), expect: 2 }], { at: START, by: ANN }),
        'precondition_failed',
        'etag_mismatch',
      );
      const [written] = await store.putInstances([{ ...write('vm', { vars: { a: 1 } }), expect: 1 }], { at: START, by: ANN });
      assert.equal(written?.instance.version, 2);
      await store.retireInstance('vm', { expect: 2, at: START, by: ANN });
      await refused(
        store.putInstances([{ ...write('vm'), expect: 2 }], { at: START, by: ANN }),
        'precondition_failed',
        'etag_mismatch',
      );
      const [revived] = await store.putInstances([{ ...write('vm'), expect: null }], { at: START, by: ANN });
      assert.equal(revived?.created, true);
    });

    contract('of many changes to one version exactly one wins', async (store) => {
      await store.putInstances([write('vm')], { at: START, by: ANN });
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, (_, index) =>
          store.putInstances([{ ...write('vm', { vars: { index } }), expect: 1 }], { at: START, by: ANN }),
        ),
      );
      const losers = results.filter((result) => result.status === 'rejected');
      assert.equal(losers.length, 7);
      for (const { reason } of losers) assert.equal(codeOf(reason), 'etag_mismatch');
      assert.equal((await store.findInstance('vm'))?.version, 2);
    });

    contract('a list is all or nothing, and answers in its own order', async (store) => {
      const written = await store.putInstances([write('b'), write('a'), write('c')], { at: START, by: ANN });
      assert.deepEqual(
        written.map(({ instance }) => instance.name),
        ['b', 'a', 'c'],
      );
      const list = [write('d'), { ...write('a', { vars: { x: 1 } }), expect: 7 }, write('b', { vars: { x: 1 } })];
      await refused(store.putInstances(list, { at: START, by: ANN }), 'precondition_failed', 'etag_mismatch');
      assert.equal(await store.findInstance('d'), null);
      assert.equal((await store.findInstance('b'))?.version, 1);
      assert.deepEqual(await store.putInstances([], { at: START, by: ANN }), []);
    });

    contract('one name twice in a list is refused', async (store) => {
      await refused(
        store.putInstances([write('a'), write('b'), write('a')], { at: START, by: ANN }),
        'invalid',
        'duplicate_name',
      );
      assert.equal(await store.findInstance('b'), null);
    });

    contract('a reference that means nothing is refused and named, with its instance', async (store) => {
      await put(store, 'web');
      await put(store, 'old');
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      await store.retireBundle('old', { base: 1, at: START, by: ANN });
      for (const [reference, code] of [
        ['none', 'unknown_bundle'],
        ['none@stable', 'unknown_bundle'],
        ['old', 'unknown_bundle'],
        ['old@1', 'unknown_bundle'],
        ['web@edge', 'unknown_tag'],
        ['web@2', 'unknown_revision'],
      ] as const) {
        const list = [write('good', { bundles: ['web@stable'] }), write('bad-vm', { bundles: ['web', reference] })];
        const error = await refused(store.putInstances(list, { at: START, by: ANN }), 'invalid', code);
        assert.ok(error.message.includes(reference) && error.message.includes('bad-vm'));
      }
      assert.equal(await store.findInstance('good'), null);
    });

    contract('two lists with the same names at once both come through, each whole', async (store) => {
      await put(store, 'web');
      const names = Array.from({ length: 60 }, (_, index) => `vm-${index}`);
      const list = (who: string, order: string[]) => order.map((vm) => write(vm, { bundles: ['web'], vars: { who } }));
      const [one, two] = await Promise.all([
        store.putInstances(list('one', names), { at: START, by: ANN }),
        store.putInstances(list('two', names.toReversed()), { at: START, by: ANN }),
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
          store.retireBundle(bundle, { base: 1, at: START, by: ANN }),
          store.putInstances([write(`vm-${round}`, { bundles: [bundle] })], { at: START, by: ANN }),
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
      assert.ok((await store.putInstances(list(1), { at: START, by: ANN })).every(({ created }) => created));
      assert.ok((await store.putInstances(list(1), { at: START, by: ANN })).every(({ changed }) => !changed));
      assert.ok(
        (await store.putInstances(list(2), { at: START, by: ANN })).every(({ created, changed }) => !created && changed),
      );
      assert.equal((await store.listBundleUses('web', 1)).total, 20_000);
    });
  });

  describe(`${name}: lists of instances`, () => {
    contract('go in bytewise order, page by page', async (store) => {
      await store.putInstances(
        BYTEWISE.toReversed().map((vm) => write(vm)),
        { at: START, by: ANN },
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
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
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
        { at: START, by: ANN },
      );
      const [a, b, d] = [await found(store, 'a'), await found(store, 'b'), await found(store, 'd')];
      await record(store, [
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
      await store.putInstances([write('vm', { bundles: ['web'], labels: { rack: '1' } })], { at: START, by: ANN });
      await record(store, [delivery(await found(store, 'vm'), { address: '10.0.0.1' })]);
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
        { at: START, by: ANN },
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
        { at: START, by: ANN },
      );
      await store.putInstances([write('vm', { bundles: ['db'], labels: { b: '3' } })], { at: START, by: ANN });
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
      const [written] = await store.putInstances([write('vm', { bundles: ['web'], labels: { a: '1' } })], {
        at: START,
        by: ANN,
      });
      await store.retireInstance('vm', { expect: 1, at: START + 5, by: ANN });
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
      await store.putInstances([write('vm')], { at: START, by: ANN });
      await refused(store.retireInstance('vm', { expect: 2, at: START, by: ANN }), 'precondition_failed', 'etag_mismatch');
      await refused(store.retireInstance('other', { expect: undefined, at: START, by: ANN }), 'not_found', 'unknown_instance');
      await store.retireInstance('vm', { expect: undefined, at: START, by: ANN });
      await refused(store.retireInstance('vm', { expect: undefined, at: START, by: ANN }), 'not_found', 'unknown_instance');
    });

    contract('a revived instance has its id, every generation one higher, and its counts begun anew', async (store) => {
      const [first] = await store.putInstances([write('vm', { vars: { a: 1 } })], { at: START, by: ANN });
      assert.ok(first);
      await record(store, [delivery(first.instance), delivery(first.instance, { address: '10.0.0.6' })]);
      await store.retireInstance('vm', { expect: 1, at: START + 1, by: ANN });
      const [revived] = await store.putInstances([{ ...write('vm', { vars: { a: 1 } }), freshId: 'ffffffffffffffff' }], {
        by: ANN,
        at: START + 2,
      });
      assert.deepEqual(revived, {
        created: true,
        changed: true,
        instance: {
          ...first.instance,
          generations: { include: 1, seed: 1, report: 1 },
          version: 2,
          updatedAt: START + 2,
          reopenedAt: START + 2,
        },
      });
      assert.deepEqual(await store.findInstanceById(first.instance.id), revived.instance);
      assert.equal((await store.listDeliveries('vm', ALL)).length, 2, 'the ledger stays');
      // Right after the old machine's, from the same addresses: deliveries of their own all the same.
      await record(store, [delivery(revived.instance, { at: START + 3 })]);
      await record(store, [delivery(revived.instance, { at: START + 4, address: '10.0.0.6' })]);
      const instance = await store.findInstance('vm');
      assert.deepEqual(
        [instance?.firstDeliveryAt, instance?.lastDeliveryAt, instance?.deliveryCount],
        [START + 3, START + 4, 2],
      );
    });
  });

  describe(`${name}: what instances stated`, () => {
    contract('findSpec gives what was stated at each version, also of a retired instance', async (store) => {
      await put(store, 'web');
      const specs = [
        { bundles: ['web', 'web@1'], vars: { text: 'nul \0 "quoted"' }, networkConfig: { version: 2 } },
        { labels: { rack: 'r1' }, metaData: { a: [1, null] }, vendorData: '#cloud-config\n', networkConfig: 'version: 2\n' },
      ].map((spec) => write('vm', spec));
      for (const spec of specs) await store.putInstances([spec], { at: START, by: ANN });
      await store.putInstances(specs.slice(1), { at: START, by: ANN });
      await store.retireInstance('vm', { expect: 2, at: START, by: ANN });
      assert.deepEqual(await store.findSpec('vm', 1), specs[0]?.spec);
      assert.deepEqual(await store.findSpec('vm', 2), specs[1]?.spec);
      for (const [vm, version] of [
        ['vm', 0],
        ['vm', 3],
        ['other', 1],
      ] as const)
        assert.equal(await store.findSpec(vm, version), null);
    });

    contract(`the newest ${SPECS_KEPT} versions are kept, of each instance`, async (store) => {
      await store.putInstances([write('other')], { at: START, by: ANN });
      for (let version = 1; version <= SPECS_KEPT + 2; version++)
        await store.putInstances([write('vm', { vars: { version } })], { at: START, by: ANN });
      const versions = async (vm: string, from: number, to: number) => {
        const found: number[] = [];
        for (let version = from; version <= to; version++) if (await store.findSpec(vm, version)) found.push(version);
        return found;
      };
      assert.deepEqual(await versions('vm', 1, 4), [3, 4]);
      assert.deepEqual((await store.findSpec('vm', SPECS_KEPT + 2))?.vars, { version: SPECS_KEPT + 2 });
      assert.deepEqual(await versions('other', 1, 2), [1]);
    });
  });

  describe(`${name}: secrets`, () => {
    contract(
      'an instance has its secrets set, replaced and removed; the others stay, and each change is a version',
      async (store) => {
        const turns: [Record<string, string | null>, version: number, kept: Record<string, string>][] = [
          [{ one: '1', two: '2' }, 1, { one: '1', two: '2' }],
          [{ two: 'new', three: '3' }, 2, { one: '1', three: '3', two: 'new' }],
          [{ one: null, none: null }, 3, { three: '3', two: 'new' }],
          [{ two: 'new' }, 4, { three: '3', two: 'new' }],
        ];
        for (const [index, [changes, version, kept]] of turns.entries()) {
          const at = START + index;
          const [written] = await store.putInstances([{ ...write('vm'), secrets: sealed(changes) }], { at, by: ANN });
          assert.deepEqual([written?.changed, written?.created, written?.instance.version], [true, index === 0, version]);
          assert.equal((await store.findInstance('vm'))?.updatedAt, at);
          assert.deepEqual(await values(store, 'instance', 'vm'), kept);
        }
        assert.deepEqual(await store.findSpec('vm', 4), write('vm').spec);
      },
    );

    contract('to remove what is not there, or nothing, changes nothing', async (store) => {
      const [first] = await store.putInstances([{ ...write('vm'), secrets: sealed({ none: null }) }], { at: START, by: ANN });
      assert.deepEqual([first?.created, first?.instance.version], [true, 1]);
      for (const secrets of [sealed({ none: null }), sealed({})]) {
        const [written] = await store.putInstances([{ ...write('vm'), secrets }], { at: START + 1, by: ANN });
        assert.deepEqual(written, { instance: first?.instance, created: false, changed: false });
      }
      assert.deepEqual(await values(store, 'instance', 'vm'), {});
    });

    contract('a secret comes back as it was stored, byte for byte, with its date', async (store) => {
      const bytes = Uint8Array.from({ length: 70_000 }, (_, index) => (index * 7 + (index >> 8)) & 255);
      const secret: NewSecret = { sealed: bytes, bytes: 69_967, endsWithNewline: true };
      const empty: NewSecret = { sealed: Uint8Array.of(0), bytes: 0, endsWithNewline: false };
      await store.putInstances([{ ...write('vm'), secrets: new Map([['tls.key', secret]]) }], { at: START, by: ANN });
      await store.putInstances([{ ...write('vm'), secrets: new Map([['none', empty]]) }], { at: START + 1, by: ANN });
      const [found = []] = await store.findSecrets([{ kind: 'instance', name: 'vm' }]);
      assert.deepEqual(
        found.map(({ sealed, ...info }) => info),
        [
          { name: 'none', bytes: 0, endsWithNewline: false, updatedAt: START + 1 },
          { name: 'tls.key', bytes: 69_967, endsWithNewline: true, updatedAt: START },
        ],
      );
      assert.ok(found[1] && Buffer.from(bytes).equals(found[1].sealed));
    });

    contract('a list with secrets is all or nothing', async (store) => {
      await store.putInstances([{ ...write('a'), secrets: sealed({ old: 'x', other: 'y' }) }], { at: START, by: ANN });
      const list = [
        { ...write('a'), secrets: sealed({ old: null, new: 'x' }) },
        { ...write('b'), secrets: sealed({ new: 'x' }), expect: 7 },
      ];
      await refused(store.putInstances(list, { at: START, by: ANN }), 'precondition_failed', 'etag_mismatch');
      assert.deepEqual(await values(store, 'instance', 'a'), { old: 'x', other: 'y' });
      assert.deepEqual(await values(store, 'instance', 'b'), {});
      await store.putInstances(
        list.map((item) => ({ ...item, expect: undefined })),
        { at: START, by: ANN },
      );
      assert.deepEqual(await values(store, 'instance', 'a'), { new: 'x', other: 'y' });
      assert.deepEqual(await values(store, 'instance', 'b'), { new: 'x' });
    });

    contract(`an owner may have ${LIMITS.secretsPerOwner} secrets`, async (store) => {
      await put(store, 'web');
      const full = Object.fromEntries(Array.from({ length: LIMITS.secretsPerOwner }, (_, index) => [`s${index}`, 'x']));
      const vm = (changes: Record<string, string | null>) =>
        store.putInstances([{ ...write('vm'), secrets: sealed(changes) }], { at: START, by: ANN });
      const web = async (changes: Record<string, string | null>) =>
        store.putBundleSecrets('web', sealed(changes), { base: await secretsVersion(store, 'web'), at: START, by: ANN });
      for (const [kind, owner, change] of [
        ['instance', 'vm', vm],
        ['bundle', 'web', web],
      ] as const) {
        await refused(change({ ...full, more: 'x' }), 'invalid', 'too_many_secrets');
        assert.deepEqual(await values(store, kind, owner), {});
        await change(full);
        await change({ s0: 'replaced' });
        const error = await refused(change({ s1: 'lost', more: 'x' }), 'invalid', 'too_many_secrets');
        assert.ok(error.message.includes(owner));
        await change({ s1: null, more: 'x' });
        const now = await values(store, kind, owner);
        assert.deepEqual(
          [Object.keys(now).length, now.s0, now.s1, now.more],
          [LIMITS.secretsPerOwner, 'replaced', undefined, 'x'],
        );
      }
    });

    contract('a retired instance has none, and none when it is revived', async (store) => {
      await store.putInstances([{ ...write('vm'), secrets: sealed({ one: '1' }) }], { at: START, by: ANN });
      await store.putInstances([{ ...write('other'), secrets: sealed({ one: '1' }) }], { at: START, by: ANN });
      await store.retireInstance('vm', { expect: 1, at: START, by: ANN });
      assert.deepEqual(await values(store, 'instance', 'vm'), {});
      await store.putInstances([{ ...write('vm'), secrets: sealed({ one: null, two: '2' }) }], { at: START, by: ANN });
      assert.deepEqual(await values(store, 'instance', 'vm'), { two: '2' });
      assert.deepEqual(await values(store, 'instance', 'other'), { one: '1' });
    });

    contract("a bundle's secrets are set and removed, and their version counts the changes", async (store) => {
      await put(store, 'web');
      const turns: [Record<string, string | null>, version: number, kept: Record<string, string>][] = [
        [{ one: '1', two: '2' }, 1, { one: '1', two: '2' }],
        [{ one: null, none: null }, 2, { two: '2' }],
        [{ none: null }, 2, { two: '2' }],
        [{}, 2, { two: '2' }],
        [{ two: '2' }, 3, { two: '2' }],
      ];
      for (const [changes, version, kept] of turns) {
        const base = await secretsVersion(store, 'web');
        await store.putBundleSecrets('web', sealed(changes), { base, at: START, by: ANN });
        assert.equal(await secretsVersion(store, 'web'), version);
        assert.deepEqual(await values(store, 'bundle', 'web'), kept);
      }
      assert.equal((await store.findBundle('web'))?.latest.number, 1, 'they belong to no revision');
      await put(store, 'web', {}, { base: 1 });
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      assert.deepEqual(await store.resolveReferences(['web', 'web@stable', 'web@1'].map(parseReference)), [
        { revision: 2, secretsVersion: 3 },
        { revision: 1, secretsVersion: 3 },
        { revision: 1, secretsVersion: 3 },
      ]);
    });

    contract('putBundleSecrets refuses a bundle that is not there or retired, and an old base', async (store) => {
      await put(store, 'web');
      await put(store, 'old');
      await store.retireBundle('old', { base: 1, at: START, by: ANN });
      const change = (bundle: string, base: number) =>
        store.putBundleSecrets(bundle, sealed({ one: 'lost' }), { base, at: START, by: ANN });
      await refused(change('other', 0), 'not_found', 'unknown_bundle');
      await refused(change('old', 0), 'not_found', 'unknown_bundle');
      await refused(change('web', 1), 'conflict', 'changed_meanwhile');
      await change('web', 0);
      await refused(change('web', 0), 'conflict', 'changed_meanwhile');
      assert.equal(await secretsVersion(store, 'web'), 1);
    });

    contract('of many putBundleSecrets from one base exactly one wins', async (store) => {
      await put(store, 'web');
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, (_, index) =>
          store.putBundleSecrets('web', sealed({ [`s${index}`]: 'x' }), { base: 0, at: START, by: ANN }),
        ),
      );
      const losers = results.filter((result) => result.status === 'rejected');
      assert.equal(losers.length, 7);
      for (const { reason } of losers) assert.equal(codeOf(reason), 'changed_meanwhile');
      assert.equal(Object.keys(await values(store, 'bundle', 'web')).length, 1);
    });

    contract('a retired bundle has none, none when it is revived, and their version goes on counting', async (store) => {
      await put(store, 'web');
      await store.putBundleSecrets('web', sealed({ one: '1' }), { base: 0, at: START, by: ANN });
      await store.retireBundle('web', { base: 1, at: START, by: ANN });
      assert.deepEqual(await values(store, 'bundle', 'web'), {});
      await put(store, 'web');
      assert.deepEqual(await values(store, 'bundle', 'web'), {});
      assert.equal(await secretsVersion(store, 'web'), 2, 'one was set, and dropped');
    });

    contract('findSecrets answers in the order of the owners, each by name bytewise, kinds told apart', async (store) => {
      await put(store, 'same');
      await put(store, 'other');
      const names = Object.fromEntries(['b', 'a_b', 'a.b', 'aa', 'B', 'a-b'].map((secret) => [secret, 'x']));
      await store.putBundleSecrets('same', sealed(names), { base: 0, at: START, by: ANN });
      await store.putBundleSecrets('other', sealed({ o: 'x' }), { base: 0, at: START, by: ANN });
      await store.putInstances([{ ...write('same'), secrets: sealed({ i: 'x' }) }], { at: START, by: ANN });
      const found = await store.findSecrets([
        { kind: 'bundle', name: 'other' },
        { kind: 'bundle', name: 'none' },
        { kind: 'bundle', name: 'same' },
        { kind: 'instance', name: 'same' },
        { kind: 'bundle', name: 'other' },
      ]);
      assert.deepEqual(
        found.map((secrets) => secrets.map((secret) => secret.name)),
        [['o'], [], ['B', 'a-b', 'a.b', 'a_b', 'aa', 'b'], ['i'], ['o']],
      );
      assert.deepEqual(await store.findSecrets([]), []);
      const many = Array.from({ length: 20_000 }, (_, index) => ({ kind: 'instance' as const, name: `vm-${index}` }));
      assert.equal((await store.findSecrets([...many, { kind: 'instance', name: 'same' }])).at(-1)?.length, 1);
    });

    contract('listSecrets gives every one by kind, owner and name, page by page', async (store) => {
      await put(store, 'web');
      await put(store, 'a.b');
      await store.putBundleSecrets('web', sealed({ two: '2', one: '1' }), { base: 0, at: START, by: ANN });
      await store.putBundleSecrets('a.b', sealed({ one: '1' }), { base: 0, at: START, by: ANN });
      const list = ['vm', 'a0', 'a-b'].map((vm) => ({ ...write(vm), secrets: sealed({ x: vm }) }));
      await store.putInstances(list, { at: START, by: ANN });
      const seen: string[] = [];
      for (let after: StoredSecret['key'] | null = null; ; ) {
        const page: StoredSecret[] = await store.listSecrets({ after, limit: 2 });
        seen.push(...page.map(({ key, sealed }) => `${key.owner.kind} ${key.owner.name} ${key.name} ${Buffer.from(sealed)}`));
        after = page.at(-1)?.key ?? null;
        if (after === null) break;
        assert.ok(page.length <= 2);
      }
      assert.deepEqual(seen, [
        'bundle a.b one 1',
        'bundle web one 1',
        'bundle web two 2',
        'instance a-b x a-b',
        'instance a0 x a0',
        'instance vm x vm',
      ]);
    });

    contract('resealSecret replaces the sealed form it was shown, and nothing else', async (store) => {
      await put(store, 'web');
      await store.putBundleSecrets('web', sealed({ one: 'old', two: 'old' }), { base: 0, at: START, by: ANN });
      await store.putInstances([{ ...write('web'), secrets: sealed({ one: 'old' }) }], { at: START, by: ANN });
      const owner = { kind: 'bundle', name: 'web' } as const;
      const [before = []] = await store.findSecrets([owner]);
      const reseal = (name: string, from: string, to: string) =>
        store.resealSecret({ owner, name, old: null }, Buffer.from(from), Buffer.from(to), { at: START, by: ANN });
      assert.equal(await reseal('one', 'old', 'new'), true);
      assert.equal(await reseal('one', 'old', 'newer'), false, 'it was changed meanwhile');
      assert.equal(await reseal('none', 'old', 'newer'), false);
      assert.deepEqual(await values(store, 'bundle', 'web'), { one: 'new', two: 'old' });
      assert.deepEqual(await values(store, 'instance', 'web'), { one: 'old' });
      const [after = []] = await store.findSecrets([owner]);
      const info = ({ sealed, ...rest }: SealedSecret) => rest;
      assert.deepEqual(after.map(info), before.map(info));
      assert.equal(await secretsVersion(store, 'web'), 1);
      assert.equal((await store.findInstance('web'))?.version, 1);
    });
  });

  describe(`${name}: sight`, () => {
    /** `web` (revisions 1 to 3, `stable` = 2, one secret) and `db`; `a`, `b` and `c` refer to `web` in each way, `d` does not. */
    const scene = async (store: Store) => {
      for (const base of [null, 1, 2]) await put(store, 'web', { 'a.sh': `${base}` }, { base });
      await put(store, 'db');
      await store.putTag('web', 'stable', 2, { at: START, by: ANN });
      await store.putBundleSecrets('web', sealed({ one: '1' }), { base: 0, at: START, by: ANN });
      await store.putInstances(
        [
          write('a', { bundles: ['web', 'web@1', 'db'] }),
          write('b', { bundles: ['web@stable'] }),
          write('c', { bundles: ['web@1'] }),
          write('d', { bundles: ['db'] }),
        ],
        { at: START, by: ANN },
      );
      await store.putInstances([write('b', { bundles: ['db', 'web@stable'] })], { at: START, by: ANN });
    };
    const seen: Sight = {
      references: new Map([
        ['web', { revision: 3, secretsVersion: 1 }],
        ['web@stable', { revision: 2, secretsVersion: 1 }],
        ['web@1', { revision: 1, secretsVersion: 1 }],
        ['db', { revision: 1, secretsVersion: 0 }],
      ]),
      followers: {
        bundle: 'web',
        versions: new Map([
          ['a', 1],
          ['b', 2],
          ['c', 1],
        ]),
      },
    };
    const writes: Record<string, (store: Store, sight: Sight) => Promise<unknown>> = {
      putRevision: (store, sight) => put(store, 'new', { 'n.sh': 'new' }, { sight }),
      putTag: (store, sight) => store.putTag('db', 'stable', 1, { at: START, by: ANN, sight }),
      putInstances: (store, sight) =>
        store.putInstances([{ ...write('vm'), secrets: sealed({ one: '1' }) }], { at: START, by: ANN, sight }),
      putBundleSecrets: (store, sight) =>
        store.putBundleSecrets('db', sealed({ one: '1' }), { base: 0, at: START, by: ANN, sight }),
    };
    const written = async (store: Store) => [
      await store.findBundle('new'),
      (await store.findBundle('db'))?.tags,
      await store.findInstance('vm'),
      await values(store, 'instance', 'vm'),
      await secretsVersion(store, 'db'),
    ];
    /** What happens meanwhile, and what the refusal names. */
    const meanwhile: Record<string, [named: string, happens: (store: Store) => Promise<unknown>]> = {
      'a new revision': ['web', (store) => put(store, 'web', {}, { base: 3 })],
      'a moved tag': ['web@stable', (store) => store.putTag('web', 'stable', 3, { at: START, by: ANN })],
      "a change of a bundle's secrets": [
        'web',
        (store) => store.putBundleSecrets('web', sealed({ one: null }), { base: 1, at: START, by: ANN }),
      ],
      'a retired bundle': [
        'db',
        async (store) => {
          const followers = { a: ['web', 'web@1'], b: ['web@stable'], d: [] };
          await store.putInstances(
            Object.entries(followers).map(([vm, bundles]) => write(vm, { bundles })),
            { at: START, by: ANN },
          );
          await store.retireBundle('db', { base: 1, at: START, by: ANN });
        },
      ],
      'a purge of what was pinned': [
        'web@1',
        async (store) => {
          await store.putInstances([write('a', { bundles: ['web'] }), write('c', { bundles: ['web'] })], {
            at: START,
            by: ANN,
          });
          await store.purgeRevision('web', 1, { at: START, by: ANN });
        },
      ],
      'a new follower': ['e', (store) => store.putInstances([write('e', { bundles: ['web@3'] })], { at: START, by: ANN })],
      'a changed follower': [
        'c',
        (store) => store.putInstances([write('c', { bundles: ['web@1'], vars: { x: 1 } })], { at: START, by: ANN }),
      ],
      "a change of a follower's secrets": [
        'c',
        (store) =>
          store.putInstances([{ ...write('c', { bundles: ['web@1'] }), secrets: sealed({ one: '1' }) }], {
            at: START,
            by: ANN,
          }),
      ],
      'a follower that is one no more': [
        'c',
        (store) => store.putInstances([write('c', { bundles: ['db'] })], { at: START, by: ANN }),
      ],
      'a follower that is retired': ['c', (store) => store.retireInstance('c', { expect: 1, at: START, by: ANN })],
    };

    for (const [method, change] of Object.entries(writes)) {
      contract(`${method} with a sight that holds is done`, async (store) => {
        await scene(store);
        const before = await written(store);
        await change(store, seen);
        assert.notDeepEqual(await written(store), before);
      });

      contract(`${method} with a sight that is wrong in one thing is refused, and stores nothing`, async (store) => {
        await scene(store);
        const before = await written(store);
        const { references, followers } = seen;
        assert.ok(followers);
        const wrong: Sight[] = [...references].flatMap(([text, { revision, secretsVersion }]) => [
          { references: new Map([[text, { revision: revision + 1, secretsVersion }]]) },
          { references: new Map([[text, { revision, secretsVersion: secretsVersion + 1 }]]) },
        ]);
        for (const text of ['none', 'web@none', 'web@9'])
          wrong.push({ references: new Map([[text, { revision: 9, secretsVersion: 1 }]]) });
        for (const [name, version] of [...followers.versions, ['d', 1] as const]) {
          const more = new Map(followers.versions).set(name, version + 1);
          wrong.push({ references: new Map(), followers: { bundle: 'web', versions: more } });
          const fewer = new Map([...followers.versions].filter(([other]) => other !== name));
          if (fewer.size < 3) wrong.push({ references: new Map(), followers: { bundle: 'web', versions: fewer } });
        }
        for (const sight of wrong) await refused(change(store, sight), 'conflict', 'changed_meanwhile');
        assert.deepEqual(await written(store), before);
      });
    }

    for (const [what, [named, happens]] of Object.entries(meanwhile))
      contract(`${what} is noticed, and named`, async (store) => {
        await scene(store);
        await happens(store);
        const error = await refused(put(store, 'new', {}, { sight: seen }), 'conflict', 'changed_meanwhile');
        assert.ok(error.message.startsWith(`${named} `), error.message);
        assert.equal(await store.findBundle('new'), null);
      });

    contract('what is no follower may change', async (store) => {
      await scene(store);
      await store.putInstances([write('d', { bundles: ['db'], vars: { x: 1 } }), write('e')], { at: START, by: ANN });
      await record(store, [delivery(await found(store, 'a'))]);
      await put(store, 'new', {}, { sight: seen });
    });

    contract('of a publish and a registration that looked at the same moment, one is refused', async (store) => {
      await put(store, 'web');
      const versions = new Map<string, number>();
      for (let round = 1; round <= 8; round++) {
        const latest = (await store.findBundle('web'))?.latest.number ?? 0;
        const references = new Map([['web', { revision: latest, secretsVersion: await secretsVersion(store, 'web') }]]);
        const vm = `vm-${round}`;
        const [published, registered] = await Promise.allSettled([
          round % 2
            ? put(store, 'web', {}, { base: latest, sight: { references, followers: { bundle: 'web', versions } } })
            : store.putBundleSecrets('web', sealed({ one: vm }), {
                by: ANN,
                base: await secretsVersion(store, 'web'),
                at: START,
                sight: { references, followers: { bundle: 'web', versions } },
              }),
          store.putInstances([write(vm, { bundles: ['web'] })], { at: START, by: ANN, sight: { references } }),
        ]);
        const refusals = [published, registered].filter((result) => result.status === 'rejected');
        assert.deepEqual(
          refusals.map(({ reason }) => codeOf(reason)),
          ['changed_meanwhile'],
        );
        if (registered.status === 'fulfilled') versions.set(vm, 1);
      }
    });

    contract('of two publishes that each looked at what the other changes, one is refused', async (store) => {
      await put(store, 'web');
      await put(store, 'db');
      await store.putInstances([write('vm', { bundles: ['web', 'db'] })], { at: START, by: ANN });
      for (let round = 1; round <= 8; round++) {
        const [web, db] = await store.resolveReferences(['web', 'db'].map(parseReference));
        assert.ok(web && db);
        const references = new Map([
          ['web', web],
          ['db', db],
        ]);
        const publish = (bundle: string, base: number) =>
          put(store, bundle, {}, { base, sight: { references, followers: { bundle, versions: new Map([['vm', 1]]) } } });
        const results = await Promise.allSettled([publish('web', web.revision), publish('db', db.revision)]);
        const refusals = results.filter((result) => result.status === 'rejected');
        assert.deepEqual(
          refusals.map(({ reason }) => codeOf(reason)),
          ['changed_meanwhile'],
        );
      }
    });
  });

  describe(`${name}: ledger`, () => {
    contract('a delivery comes back as it was recorded', async (store) => {
      const vm = await registered(store, 'vm');
      const made = delivery(vm, { digest: null, purpose: 'seed', userAgent: 'Cloud-Init/25.1', bytes: 12, holdsSecrets: true });
      const [id] = await record(store, [made]);
      const { instanceId: _, generation: _generation, guarded: _guarded, expects: _expects, ...given } = made;
      assert.deepEqual(await store.listDeliveries('vm', ALL), [{ ...given, id, instance: 'vm', counted: true }]);
      assert.deepEqual(await store.listDeliveries('other', ALL), []);
    });

    contract('hostile addresses and user agents are stored without NUL', async (store) => {
      const vm = await registered(store, 'vm');
      await record(store, [delivery(vm, { address: `1\0${'x'.repeat(9000)}`, userAgent: 'a\0\ud800b' })]);
      const [row] = await store.listDeliveries('vm', ALL);
      assert.equal(row?.userAgent, 'a\uFFFD\uFFFDb');
      assert.ok(row.address.startsWith('1\uFFFDx') && row.address.length <= 255);
    });

    contract('a repeat from the same address within the window is not counted', async (store) => {
      const vm = await registered(store, 'vm');
      const counted = async (change: Partial<NewDelivery>) => {
        await record(store, [delivery(vm, change)]);
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
      const ids = await record(store, [
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

    contract('an answer that was made for something else is not recorded; the rest of its batch is', async (store) => {
      const vm = await registered(store, 'vm');
      await registered(store, 'gone');
      const gone = await found(store, 'gone');
      await store.retireInstance('gone', { expect: undefined, at: START, by: ANN });
      const list = [
        delivery(vm, { instanceVersion: 2 }),
        delivery(vm, { generation: 1 }),
        delivery(gone),
        { ...delivery(vm), instanceId: 'eeeeeeeeeeeeeeee' },
        delivery(vm),
      ];
      const kinds = (await store.recordDeliveries(list, DEFAULT_POLICY)).map(({ kind }) => kind);
      assert.deepEqual(kinds, ['changed', 'changed', 'changed', 'changed', 'recorded']);
      assert.equal((await store.listDeliveries('vm', ALL)).length, 1);
      assert.deepEqual(await store.recordDeliveries([], DEFAULT_POLICY), []);
    });

    contract('a batch larger than a statement is one batch', async (store) => {
      const written = await store.putInstances(
        Array.from({ length: 1500 }, (_, index) => write(`vm-${index}`)),
        { at: START, by: ANN },
      );
      const ids = await record(
        store,
        written.map(({ instance }) => delivery(instance)),
      );
      assert.equal(new Set(ids).size, 1500);
      const [row] = await store.listDeliveries('vm-1499', ALL);
      assert.equal(row?.id, ids[1499]);
      assert.equal((await store.findInstance('vm-1499'))?.deliveryCount, 1);
    });

    contract('of 50 concurrent tries of one machine one counts, and all are rows', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      const ids = await Promise.all(
        Array.from({ length: 50 }, (_, index) =>
          record(store, [delivery(vm), delivery(other, { address: `10.1.0.${index}` })]),
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
      const [id] = await record(store, [delivery(vm)]);
      const [before] = await store.listDeliveries('vm', ALL);
      await store.closeDelivery(id ?? 0, 'aborted');
      assert.deepEqual(await store.listDeliveries('vm', ALL), [{ ...before, outcome: 'aborted' }]);
      await store.closeDelivery(999_999, 'aborted');
    });

    contract('listDeliveries goes from the newest, page by page, of one instance', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      const ids = await record(store, [delivery(vm), delivery(other), delivery(vm), delivery(vm)]);
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
    const report = (instance: Instance, id: string, limit = 10): NewReport => ({
      instanceId: instance.id,
      generation: 0,
      at: START,
      body: { kind: 'manifest', manifest: manifest(id) },
      key: id,
      limit,
    });
    const event = (name: string, result: string | null = 'SUCCESS'): BootEvent => {
      return { name, type: 'finish', description: '', result, at: START };
    };
    const said = (instance: Instance, body: ReportBody, key: string, change: Partial<NewReport> = {}): NewReport => {
      return { ...report(instance, key), body, ...change };
    };
    const log = (text: string, name: LogName = 'cloud-init-output.log'): ReportBody => {
      return { kind: 'log', log: { name, text, truncated: false } };
    };

    const outcome = async (store: Store, report: NewReport) => (await store.recordReport(report)).outcome;

    contract('recordReport keeps a report whole, and one that is sent twice once', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      const long = 'x'.repeat(5000);
      for (const id of ['a', 'a\0', long]) {
        assert.equal(await outcome(store, report(vm, id)), 'stored');
        assert.equal(await outcome(store, report(vm, id)), 'repeated');
      }
      assert.equal(await outcome(store, report(other, 'a')), 'stored');
      const kept = await manifests(store, 'vm');
      assert.deepEqual(
        kept.map(({ instance, at, manifest }) => ({ instance, at, manifest })),
        [long, 'a\0', 'a'].map((id) => ({ instance: 'vm', at: START, manifest: manifest(id) })),
      );
    });

    contract('of the same report sent many times at once one is kept', async (store) => {
      const vm = await registered(store, 'vm');
      const outcomes = await Promise.all(Array.from({ length: 6 }, () => outcome(store, report(vm, 'a'))));
      assert.deepEqual(outcomes.sort(), ['repeated', 'repeated', 'repeated', 'repeated', 'repeated', 'stored']);
    });

    contract('past the limit the oldest are dropped, and the drops counted, for that instance only', async (store) => {
      const [vm, other] = [await registered(store, 'vm'), await registered(store, 'other')];
      for (const id of ['a', 'b', 'c', 'd']) assert.equal(await outcome(store, report(vm, id, 2)), 'stored');
      assert.equal(await outcome(store, report(other, 'a', 2)), 'stored');
      const ids = async (name: string) => (await manifests(store, name)).map(({ manifest }) => manifest.id);
      assert.deepEqual([await ids('vm'), await ids('other')], [['d', 'c'], ['a']]);
      const dropped = async (name: string) => (await store.findInstance(name))?.reportsDropped;
      assert.deepEqual([await dropped('vm'), await dropped('other')], [2, 0]);
    });

    contract('recordReport refuses an id nobody has, a retired one, and a capability of another generation', async (store) => {
      const vm = await registered(store, 'vm');
      await refused(store.recordReport(report({ ...vm, id: 'f'.repeat(16) }, 'a')), 'not_found', 'unknown_capability');
      await refused(store.recordReport({ ...report(vm, 'a'), generation: 1 }), 'not_found', 'unknown_capability');
      await store.retireInstance('vm', { expect: undefined, at: START, by: ANN });
      await refused(store.recordReport(report(vm, 'a')), 'not_found', 'unknown_capability');
      assert.deepEqual(await store.listReports('vm', ALL), []);
    });

    contract('every kind comes back as it was kept', async (store) => {
      const vm = await registered(store, 'vm');
      const key = { kind: 'rsa', key: 'ssh-rsa AAAA\0\ud800', fingerprint: null };
      const bodies: ReportBody[] = [
        { kind: 'event', event: event('modules-final') },
        { kind: 'phoneHome', phoneHome: { instanceId: 'i', hostname: 'h', fqdn: 'f', hostKeys: [key] } },
        log('a\0ü✓\n'),
        { kind: 'manifest', manifest: manifest('a') },
      ];
      for (const body of bodies) assert.equal(await outcome(store, said(vm, body, 'key')), 'stored');
      assert.deepEqual(
        (await store.listReports('vm', ALL)).map(({ id: _, ...rest }) => rest).reverse(),
        bodies.map((body) => ({ ...body, instance: 'vm', at: START })),
      );
    });

    contract('each kind, and each log, has its own limit; events and manifests have one together', async (store) => {
      const vm = await registered(store, 'vm');
      const keep = (body: ReportBody, key: string) => store.recordReport(said(vm, body, key, { limit: 2 }));
      const home = { instanceId: 'i', hostname: '', fqdn: '', hostKeys: [] };
      for (const n of [1, 2, 3]) {
        await keep({ kind: 'phoneHome', phoneHome: home }, `${n}`);
        await keep({ kind: 'event', event: event(`${n}`) }, `${n}`);
        await keep({ kind: 'manifest', manifest: manifest(`${n}`) }, `${n}`);
        await keep(log(`output ${n}`), `${n}`);
        await keep(log(`result ${n}`, 'result.json'), `${n}`);
      }
      const kinds = (await store.listReports('vm', ALL)).map(({ kind }) => kind);
      assert.deepEqual(
        ['event', 'manifest', 'phoneHome', 'log'].map((kind) => kinds.filter((each) => each === kind).length),
        [1, 1, 2, 4],
      );
      const texts = async (name: LogName | null) => (await store.listLogs('vm', name)).map(({ log }) => log.text);
      assert.deepEqual(await texts('result.json'), ['result 3', 'result 2']);
      assert.deepEqual(await texts(null), ['result 3', 'output 3', 'result 2', 'output 2']);
      assert.deepEqual(await texts('cloud-init.log'), []);
      assert.equal((await store.findInstance('vm'))?.reportsDropped, 4 + 1 + 1 + 1);
    });

    contract('what is said is noted in what is known of the boot, once; the next boot may say the same', async (store) => {
      const vm = await registered(store, 'vm');
      const home: ReportBody = { kind: 'phoneHome', phoneHome: { instanceId: 'i', hostname: '', fqdn: '', hostKeys: [] } };
      const boot = async () => (await found(store, 'vm')).boot;
      assert.equal(await outcome(store, said(vm, home, 'k', { at: START + 1 })), 'stored');
      assert.equal(await outcome(store, said(vm, home, 'k', { at: START + 2 })), 'repeated');
      assert.deepEqual([(await boot()).phoneHomeAt, (await boot()).lastWordAt], [START + 1, START + 1]);
      await store.recordReport(said(vm, { kind: 'event', event: event('modules-final', 'FAIL') }, 'e', { at: START + 3 }));
      assert.deepEqual([(await boot()).finalAt, (await boot()).failures.length], [START + 3, 1]);
      await store.recordReport(said(vm, { kind: 'manifest', manifest: manifest('a') }, 'm', { at: START + 4 }));
      assert.deepEqual((await boot()).manifests, { '03-db.yaml': 'failed' });
      const result = log('{"v1": {"errors": ["x"]}}', 'result.json');
      await store.recordReport(said(vm, result, 'r', { at: START + 5 }));
      assert.deepEqual([(await boot()).errors.length, (await boot()).lastWordAt], [1, START + 5]);
    });

    contract('listReports goes from the newest, page by page', async (store) => {
      const vm = await registered(store, 'vm');
      for (const id of ['a', 'b', 'c']) await store.recordReport(report(vm, id));
      const first = await manifests(store, 'vm', { after: null, limit: 2 });
      const second = await manifests(store, 'vm', { after: first.at(-1)?.id ?? null, limit: 2 });
      assert.deepEqual(
        [...first, ...second].map(({ manifest }) => manifest.id),
        ['c', 'b', 'a'],
      );
    });
  });

  describe(`${name}: old secrets`, () => {
    const bundle = { kind: 'bundle', name: 'web' } as const;
    const instance = { kind: 'instance', name: 'vm' } as const;
    /** What an owner's secrets were at each of its versions, from 0. */
    const history = async (store: Store, owner: SecretOwner, until: number) => {
      const owners = Array.from({ length: until + 1 }, (_, version) => ({ ...owner, version }));
      const told = await Promise.all(owners.map((each) => store.findSecretsAt([each])));
      return told.map(([secrets = []]) => secrets.map(({ name, sealed }) => `${name}=${Buffer.from(sealed)}`).join(' '));
    };

    contract("a bundle's secrets are told as they were at each version, retired and revived, too", async (store) => {
      await put(store, 'web');
      const set = async (changes: Record<string, string | null>) =>
        store.putBundleSecrets('web', sealed(changes), { base: await secretsVersion(store, 'web'), at: START, by: ANN });
      await set({ one: 'a', two: 'x' });
      await set({ one: 'b' });
      await set({ two: null });
      await store.retireBundle('web', { base: 1, at: START, by: ANN });
      await put(store, 'web', {}, { base: null });
      await set({ one: 'c' });
      assert.deepEqual(await history(store, bundle, 6), ['', 'one=a two=x', 'one=b two=x', 'one=b', '', 'one=c', 'one=c']);
    });

    contract("an instance's secrets are told as they were at each version, retired and revived, too", async (store) => {
      const set = (changes: Record<string, string | null>, vars = {}) =>
        store.putInstances([{ ...write('vm', { vars }), secrets: sealed(changes) }], { at: START, by: ANN });
      await set({ one: 'a', two: 'x' });
      await store.putInstances([write('vm', { vars: { x: 1 } })], { at: START, by: ANN });
      await set({ one: 'b', two: null });
      await store.retireInstance('vm', { expect: undefined, at: START, by: ANN });
      await set({ two: 'y' });
      assert.deepEqual(await history(store, instance, 5), ['', 'one=a two=x', 'one=a two=x', 'one=b', 'two=y', 'two=y']);
    });

    contract('findSecretsAt answers in the order of the owners, each for itself; null is now', async (store) => {
      await put(store, 'web');
      await store.putBundleSecrets('web', sealed({ one: 'a' }), { base: 0, at: START, by: ANN });
      await store.putBundleSecrets('web', sealed({ one: 'b' }), { base: 1, at: START, by: ANN });
      await store.putInstances([{ ...write('web'), secrets: sealed({ one: 'own' }) }], { at: START, by: ANN });
      const told = await store.findSecretsAt([
        { kind: 'instance', name: 'web', version: null },
        { kind: 'instance', name: 'none', version: null },
        { ...bundle, version: 1 },
        { kind: 'bundle', name: 'none', version: 9 },
      ]);
      assert.deepEqual(
        told.map((secrets) => secrets.map(({ sealed }) => `${Buffer.from(sealed)}`)),
        [['own'], [], ['a'], []],
      );
      assert.equal(`${(await store.findSecretsAt([{ ...bundle, version: null }]))[0]?.[0]?.sealed}`, 'b');
      assert.deepEqual(await store.findSecretsAt([]), []);
      const many = Array.from({ length: 20_000 }, (_, index) => ({ ...instance, name: `vm-${index}`, version: 1 }));
      assert.equal((await store.findSecretsAt([...many, { ...bundle, version: 2 }])).at(-1)?.length, 1);
    });

    contract('a write that is refused keeps no old value', async (store) => {
      await store.putInstances([{ ...write('vm'), secrets: sealed({ one: 'a' }) }], { at: START, by: ANN });
      const wrong = [
        { ...write('vm'), secrets: sealed({ one: 'b' }) },
        { ...write('other'), expect: 7 },
      ];
      await refused(store.putInstances(wrong, { at: START, by: ANN }), 'precondition_failed', 'etag_mismatch');
      assert.equal((await store.listSecrets({ after: null, limit: 9 })).length, 1);
    });

    contract('listSecrets goes on with the old values; each is sealed anew by itself', async (store) => {
      await put(store, 'web');
      for (const [base, value] of ['a', 'b', 'c'].entries())
        await store.putBundleSecrets('web', sealed({ one: value }), { base, at: START, by: ANN });
      const walk = async () => {
        const seen: StoredSecret[] = [];
        for (let after: StoredSecret['key'] | null = null; ; after = seen.at(-1)?.key ?? null) {
          const page: StoredSecret[] = await store.listSecrets({ after, limit: 1 });
          seen.push(...page);
          if (page.length === 0) return seen;
        }
      };
      const seen = await walk();
      assert.deepEqual(
        seen.map(({ key, sealed }) => [key.owner, key.name, key.old === null, `${Buffer.from(sealed)}`]),
        [
          [bundle, 'one', true, 'c'],
          [bundle, 'one', false, 'a'],
          [bundle, 'one', false, 'b'],
        ],
      );
      const [, oldest] = seen;
      assert.ok(oldest);
      assert.equal(await store.resealSecret(oldest.key, Buffer.from('b'), Buffer.from('lost'), { at: START, by: ANN }), false);
      assert.equal(await store.resealSecret(oldest.key, oldest.sealed, Buffer.from('A'), { at: START, by: ANN }), true);
      assert.deepEqual(await history(store, bundle, 3), ['', 'one=A', 'one=b', 'one=c']);
    });

    contract(
      `of an owner ${LIMITS.oldSecretsPerOwner} old values are kept, the newest, and forgotSecrets tells`,
      async (store) => {
        const names = Array.from({ length: LIMITS.secretsPerOwner }, (_, index) => `s${index}`);
        const set = (value: string) =>
          store.putInstances([{ ...write('vm'), secrets: sealed(Object.fromEntries(names.map((name) => [name, value]))) }], {
            at: START,
            by: ANN,
          });
        for (const value of ['a', 'b', 'c', 'd']) await set(value);
        assert.equal(await store.forgotSecrets(instance, 1), false);
        await set('e');
        const counts = (await history(store, instance, 5)).map((told) => (told === '' ? 0 : told.split(' ').length));
        assert.deepEqual(counts, [0, LIMITS.oldSecretsPerOwner - 3 * LIMITS.secretsPerOwner, 256, 256, 256, 256]);
        assert.deepEqual([await store.forgotSecrets(instance, 1), await store.forgotSecrets(instance, 2)], [true, false]);
        assert.equal(await store.forgotSecrets({ kind: 'bundle', name: 'vm' }, 1), false);
      },
    );
  });

  describe(`${name}: what the ledger keeps`, () => {
    const MINUTE = 60_000;
    const fetched = async (store: Store, vm: string, change: Partial<NewDelivery> = {}) => {
      const machine = await found(store, vm);
      await store.recordDeliveries([delivery(machine, { instanceVersion: machine.version, ...change })], DEFAULT_POLICY);
      const [newest] = await store.listDeliveries(vm, { after: null, limit: 1 });
      return newest?.id ?? 0;
    };
    const ids = async (store: Store, vm: string) => (await store.listDeliveries(vm, ALL)).map(({ id }) => id).reverse();

    contract('findDelivery finds one of that instance, and nothing else', async (store) => {
      await Promise.all([registered(store, 'vm'), registered(store, 'other')]);
      const id = await fetched(store, 'vm');
      assert.deepEqual(await store.findDelivery('vm', id), (await store.listDeliveries('vm', ALL))[0]);
      assert.equal(await store.findDelivery('other', id), null);
      assert.equal(await store.findDelivery('vm', id + 1), null);
      await store.retireInstance('vm', { expect: undefined, at: START, by: ANN });
      assert.equal((await store.findDelivery('vm', id))?.id, id);
    });

    contract('pruneByAge drops the oldest first, a batch at a time, and changes nothing of the instance', async (store) => {
      await registered(store, 'vm');
      const made: number[] = [];
      for (const at of [3, 1, 2, 4, 5])
        made.push(await fetched(store, 'vm', { at: START + at * 10 * MINUTE, address: `10.0.0.${at}` }));
      const before = await store.findInstance('vm');
      const limit = { before: START + 40 * MINUTE, limit: 2 };
      assert.equal(await store.pruneByAge('delivery', limit), 2);
      assert.deepEqual(await ids(store, 'vm'), [made[0], made[3], made[4]]);
      assert.equal(await store.pruneByAge('delivery', limit), 1);
      assert.equal(await store.pruneByAge('delivery', limit), 0);
      assert.deepEqual(await ids(store, 'vm'), [made[3], made[4]]);
      assert.deepEqual(await store.findInstance('vm'), before);
    });

    contract('pruneByAge drops old reports, and counts them as no drops', async (store) => {
      const vm = await registered(store, 'vm');
      const manifest = (id: string): ManifestResult => ({
        ...{ id, file: 'f', part: 'f', sha256: 'a'.repeat(64), status: 'applied', attempts: 1 },
        ...{ client: 'kubectl', clientVersion: 'v1', output: '', at: START },
      });
      for (const [id, at] of [
        ['a', 1],
        ['b', 2],
        ['c', 3],
      ] as const)
        await store.recordReport({
          instanceId: vm.id,
          generation: 0,
          at: START + at,
          body: { kind: 'manifest', manifest: manifest(id) },
          key: id,
          limit: 9,
        });
      assert.equal(await store.pruneByAge('report', { before: START + 3, limit: 9 }), 2);
      assert.deepEqual(
        (await manifests(store, 'vm')).map(({ manifest }) => manifest.id),
        ['c'],
      );
      assert.equal((await found(store, 'vm')).reportsDropped, 0);
      assert.equal(await store.pruneByAge('alarm', { before: START, limit: 9 }), 0);
    });

    contract(
      'pruneByCount leaves each instance its newest, all that are young, and goes through all instances',
      async (store) => {
        const names = Array.from({ length: 25 }, (_, index) => `vm-${String(index).padStart(2, '0')}`);
        await store.putInstances(
          names.map((vm) => write(vm)),
          { at: START, by: ANN },
        );
        const made = new Map<string, number[]>();
        const crowded = ['vm-00', 'vm-07', 'vm-10', 'vm-24'];
        for (const vm of crowded) {
          const own: number[] = [];
          for (let count = 0; count < 5; count++)
            own.push(await fetched(store, vm, { at: START + count * 10 * MINUTE, address: `10.0.0.${count}` }));
          made.set(vm, own);
        }
        await store.retireInstance('vm-07', { expect: undefined, at: START, by: ANN });
        let [rounds, total] = [0, 0];
        // Of the three that are too many, one is young.
        for (let after = ''; ; ) {
          const batch = { after, keep: 2, before: START + 20 * MINUTE, limit: 1 };
          const { dropped, next }: { dropped: number; next: string | null } = await store.pruneByCount(batch);
          assert.ok(dropped <= 1);
          total += dropped;
          rounds += 1;
          if (next === null) break;
          after = next;
        }
        assert.equal(total, 8);
        assert.ok(rounds < 20, `${rounds} rounds`);
        for (const vm of crowded) assert.deepEqual(await ids(store, vm), made.get(vm)?.slice(2), vm);
        assert.equal((await found(store, 'vm-00')).deliveryCount, 5);
        const once = { after: '', keep: 2, before: START + 60 * MINUTE, limit: 100 };
        assert.deepEqual(await store.pruneByCount(once), { dropped: 2, next: 'vm-09' });
      },
    );

    const old = { after: 0, now: START + 1000 * MINUTE, slack: MINUTE, limit: 100 };
    /** Sets, replaces; `fetch` comes in between or at whatever other time. */
    const replace = async (store: Store, owner: SecretOwner, value: string, at: number) => {
      if (owner.kind === 'instance')
        return store.putInstances([{ ...write(owner.name), secrets: sealed({ one: value }) }], { at, by: ANN });
      return store.putBundleSecrets(owner.name, sealed({ one: value }), {
        base: await secretsVersion(store, owner.name),
        at,
        by: ANN,
      });
    };
    const kept = async (store: Store) =>
      (await store.listSecrets({ after: null, limit: 99 })).filter(({ key }) => key.old !== null).length;

    for (const [what, fetchAt, holdsSecrets, needed] of [
      ['was rendered while it was in force', 20, true, true],
      ['was rendered a moment before it was set, by another clock', 9.5, true, true],
      ['was rendered long before', 5, true, false],
      ['was rendered after it was replaced', 40, true, false],
      ['holds no secrets', 20, false, false],
    ] as const)
      contract(`a bundle's old value ${needed ? 'stays' : 'goes'} when the delivery there is ${what}`, async (store) => {
        await put(store, 'web');
        await registered(store, 'vm');
        const owner = { kind: 'bundle', name: 'web' } as const;
        await replace(store, owner, 'a', START + 10 * MINUTE);
        await replace(store, owner, 'b', START + 30 * MINUTE);
        const id = await fetched(store, 'vm', { at: START + fetchAt * MINUTE, holdsSecrets });
        assert.deepEqual(await store.pruneOldSecrets(old), { dropped: needed ? 0 : 1, next: null });
        assert.equal(await kept(store), needed ? 1 : 0);
        await store.pruneByAge('delivery', { before: START + 1000 * MINUTE, limit: 9 });
        assert.equal(await store.findDelivery('vm', id), null);
        await store.pruneOldSecrets(old);
        assert.equal(await kept(store), 0);
      });

    contract("an instance's old value stays for as long as a delivery of its versions is there", async (store) => {
      const owner = { kind: 'instance', name: 'vm' } as const;
      await registered(store, 'other');
      for (const value of ['a', 'b', 'c']) {
        await replace(store, owner, value, START);
        // The second one is delivered, and the other machine's deliveries need none of them.
        if (value === 'b') await fetched(store, 'vm', { holdsSecrets: true, at: START + MINUTE });
        await fetched(store, 'other', { holdsSecrets: true });
      }
      await replace(store, owner, 'd', START);
      assert.deepEqual(await store.pruneOldSecrets(old), { dropped: 2, next: null });
      const [secrets = []] = await store.findSecretsAt([{ ...owner, version: 2 }]);
      assert.deepEqual(
        secrets.map(({ sealed }) => `${Buffer.from(sealed)}`),
        ['b'],
      );
    });

    contract('what was replaced a moment ago stays, since a fetch may be under way; batches go through all', async (store) => {
      const owner = { kind: 'instance', name: 'vm' } as const;
      for (const value of ['a', 'b', 'c', 'd']) await replace(store, owner, value, START);
      assert.equal((await store.pruneOldSecrets({ ...old, now: START + MINUTE })).dropped, 0);
      const first = await store.pruneOldSecrets({ ...old, limit: 2 });
      assert.equal(first.dropped, 2);
      const second = await store.pruneOldSecrets({ ...old, limit: 2, after: first.next ?? 0 });
      assert.deepEqual([second.dropped, second.next, await kept(store)], [1, null, 0]);
    });

    contract('two that prune at once do no harm', async (store) => {
      await registered(store, 'vm');
      for (let count = 0; count < 40; count++) await fetched(store, 'vm', { at: START + count });
      const all = await Promise.all(
        Array.from({ length: 12 }, () => store.pruneByAge('delivery', { before: START + 30, limit: 5 })),
      );
      assert.equal(
        all.reduce((sum, count) => sum + count, 0),
        30,
      );
      assert.equal((await ids(store, 'vm')).length, 10);
    });
  });

  describe(`${name}: tokens`, () => {
    const token = (id: string, change: Partial<NewToken> = {}): NewToken => ({
      id,
      name: `of-${id}`,
      role: 'editor',
      scope: { bundles: ['web-*'], instances: null },
      sha256: sha256(id),
      expiresAt: null,
      ...change,
    });
    const by = { at: START, by: ANN, limit: 100 };

    contract('createToken keeps it whole, findToken and listTokens give it back', async (store) => {
      const kept = await store.createToken(token('aaaaaaaa', { expiresAt: START + 5 }), by);
      assert.deepEqual(kept, {
        id: 'aaaaaaaa',
        name: 'of-aaaaaaaa',
        role: 'editor',
        scope: { bundles: ['web-*'], instances: null },
        createdAt: START,
        createdBy: 'ann',
        expiresAt: START + 5,
        revokedAt: null,
        lastUsedAt: null,
      });
      assert.deepEqual(await store.findToken('aaaaaaaa'), { ...kept, sha256: sha256('aaaaaaaa') });
      assert.deepEqual(await store.listTokens(ALL), [kept]);
      assert.equal(await store.findToken('bbbbbbbb'), null);
    });

    contract('a name is one living token’s, and free again when that is revoked or has expired', async (store) => {
      await store.createToken(token('aaaaaaaa', { name: 'ci', expiresAt: START + 5 }), by);
      const again = (id: string, at: number) => store.createToken(token(id, { name: 'ci' }), { ...by, at });
      await refused(again('bbbbbbbb', START + 4), 'conflict', 'token_exists');
      await again('bbbbbbbb', START + 5);
      await refused(again('cccccccc', START + 6), 'conflict', 'token_exists');
      await store.revokeToken('bbbbbbbb', by);
      await again('cccccccc', START + 7);
      const page = await store.listTokens({ after: null, limit: 2 });
      const rest = await store.listTokens({ after: page.at(-1) ?? null, limit: 2 });
      assert.deepEqual(
        [...page, ...rest].map(({ id }) => id),
        ['aaaaaaaa', 'bbbbbbbb', 'cccccccc'],
      );
    });

    contract('of two made at once with one name one is', async (store) => {
      const made = await Promise.allSettled(
        ['aaaaaaaa', 'bbbbbbbb', 'cccccccc'].map((id) => store.createToken(token(id, { name: 'ci' }), by)),
      );
      assert.equal(made.filter(({ status }) => status === 'fulfilled').length, 1);
    });

    contract('revoked, it stays listed; revoked again it stays as it is, and the audit has one line', async (store) => {
      await store.createToken(token('aaaaaaaa'), by);
      await store.revokeToken('aaaaaaaa', { ...by, at: START + 1 });
      await store.revokeToken('aaaaaaaa', { ...by, at: START + 2 });
      assert.deepEqual(
        (await store.listTokens(ALL)).map(({ revokedAt }) => revokedAt),
        [START + 1],
      );
      assert.deepEqual(
        (await store.listAudit({}, ALL)).map(({ action, kind, name, before, after }) => [action, kind, name, before, after]),
        [
          ['revoke', 'token', 'of-aaaaaaaa', 'aaaaaaaa', null],
          ['create', 'token', 'of-aaaaaaaa', null, 'aaaaaaaa'],
        ],
      );
      await refused(store.revokeToken('bbbbbbbb', by), 'not_found', 'unknown_token');
    });

    contract('rotateToken makes one alike with as long a life, and lets the old one go on until then', async (store) => {
      await store.createToken(token('aaaaaaaa', { expiresAt: START + 100 }), by);
      const rotate = (id: string, next: string, at: number, until: number) =>
        store.rotateToken(id, { id: next, sha256: sha256(next) }, { ...by, at, until });
      const { old, next } = await rotate('aaaaaaaa', 'bbbbbbbb', START + 50, START + 60);
      assert.deepEqual([old.expiresAt, next.expiresAt, next.createdAt], [START + 60, START + 150, START + 50]);
      assert.deepEqual([next.name, next.role, next.scope], [old.name, old.role, old.scope]);
      assert.equal((await store.findToken('bbbbbbbb'))?.sha256, sha256('bbbbbbbb'));
      // It would not have lived that long.
      const sooner = await rotate('aaaaaaaa', 'cccccccc', START + 55, START + 90);
      assert.equal(sooner.old.expiresAt, START + 60);
      await refused(rotate('aaaaaaaa', 'dddddddd', START + 60, START + 70), 'conflict', 'token_expired');
      await store.revokeToken('bbbbbbbb', by);
      await refused(rotate('bbbbbbbb', 'dddddddd', START + 60, START + 70), 'conflict', 'token_revoked');
      await refused(rotate('eeeeeeee', 'dddddddd', START + 60, START + 70), 'not_found', 'unknown_token');
      assert.equal(await store.findToken('dddddddd'), null);
      const [line] = await store.listAudit({ action: 'rotate' }, ALL);
      assert.deepEqual([line?.before, line?.after], ['aaaaaaaa', 'cccccccc']);
    });

    contract('a use is noted once a minute, and is no line of the audit', async (store) => {
      await store.createToken(token('aaaaaaaa'), by);
      const used = async (at: number) => {
        await store.touchToken('aaaaaaaa', at);
        return (await store.findToken('aaaaaaaa'))?.lastUsedAt;
      };
      const minute = USE_NOTED_MS;
      assert.deepEqual(
        [await used(START), await used(START + minute - 1), await used(START + minute), await used(START + 5)],
        [START, START, START + minute, START + minute],
      );
      await store.touchToken('bbbbbbbb', START);
      assert.equal((await store.listAudit({}, ALL)).length, 1);
    });

    contract('there are at most so many living tokens', async (store) => {
      const limited = { ...by, limit: 3 };
      await store.createToken(token('aaaaaaaa', { expiresAt: START + 9 }), limited);
      await store.createToken(token('bbbbbbbb'), limited);
      await store.createToken(token('cccccccc'), limited);
      const one = (id: string, at: number) => store.createToken(token(id), { ...limited, at });
      const rotate = (next: string, until: number) =>
        store.rotateToken('bbbbbbbb', { id: next, sha256: sha256(next) }, { ...limited, until });
      await refused(one('dddddddd', START + 8), 'invalid', 'too_many_tokens');
      await refused(rotate('dddddddd', START + 1), 'invalid', 'too_many_tokens');
      assert.equal((await store.findToken('bbbbbbbb'))?.expiresAt, null);
      await rotate('eeeeeeee', START);
      await one('ffffffff', START + 9);
      await refused(one('gggggggg', START + 9), 'invalid', 'too_many_tokens');
      await store.revokeToken('ffffffff', by);
      await one('gggggggg', START + 9);
    });
  });

  describe(`${name}: the audit`, () => {
    const lines = async (store: Store, filter: AuditFilter = {}, page: Page<number> = ALL) =>
      (await store.listAudit(filter, page)).map(({ action, kind, name, before, after, detail }) => [
        ...[action, kind, name, before, after],
        detail,
      ]);

    contract('each change is a line with who, when, from where, and what was before and after', async (store) => {
      const first = await put(store, 'web', { a: '1' }, { by: ANN, message: 'why', detail: { part: 'a' } });
      assert.deepEqual(await store.listAudit({}, ALL), [
        {
          id: (await store.listAudit({}, ALL))[0]?.id,
          at: START,
          actor: 'ann',
          role: 'editor',
          address: '192.0.2.7',
          requestId: 'req-1',
          action: 'put',
          kind: 'bundle',
          name: 'web',
          before: null,
          after: first.digest,
          detail: { revision: 1, message: 'why', part: 'a' },
        },
      ]);
      const second = await put(store, 'web', { a: '2' }, { base: 1 });
      await store.putTag('web', 'stable', 1, { at: START, by: ANN, detail: { force: true } });
      await store.putTag('web', 'stable', 2, { at: START, by: ANN });
      await store.deleteTag('web', 'stable', { at: START, by: ANN });
      await store.putBundleSecrets('web', sealed({ one: 'x', two: 'y' }), { base: 0, at: START, by: ANN });
      await store.putBundleSecrets('web', sealed({ one: null }), { base: 1, at: START, by: ANN });
      await store.resealSecret(
        { owner: { kind: 'bundle', name: 'web' }, name: 'two', old: null },
        Buffer.from('y'),
        Buffer.from('z'),
        {
          at: START,
          by: ANN,
        },
      );
      await store.purgeRevision('web', 1, { at: START, by: ANN });
      await store.putInstances([write('vm'), { ...write('vm-2'), secrets: sealed({ k: 'v' }) }], { at: START, by: ANN });
      const [vm, vm2] = await Promise.all(['vm', 'vm-2'].map((each) => found(store, each)));
      await store.putInstances([write('vm', { vars: { a: 1 } })], { at: START, by: ANN, detail: { var: 'a' } });
      await store.retireInstance('vm', { expect: undefined, at: START, by: ANN });
      await store.retireBundle('web', { base: 2, at: START, by: ANN });
      await store.recordAudit(
        { action: 'reveal', kind: 'instance', name: 'vm-2', before: null, after: null, detail: { digest: 'd' } },
        { at: START, by: ANN },
      );
      const id = vm?.id;
      assert.deepEqual((await lines(store)).reverse().slice(1), [
        ['put', 'bundle', 'web', first.digest, second.digest, { revision: 2 }],
        ['putTag', 'bundle', 'web', null, '1', { tag: 'stable', force: true }],
        ['putTag', 'bundle', 'web', '1', '2', { tag: 'stable' }],
        ['deleteTag', 'bundle', 'web', '2', null, { tag: 'stable' }],
        ['putSecrets', 'bundle', 'web', 'secrets.0', 'secrets.1', { secrets: ['one', 'two'] }],
        ['putSecrets', 'bundle', 'web', 'secrets.1', 'secrets.2', { secretsRemoved: ['one'] }],
        ['reseal', 'bundle', 'web', null, null, { secrets: ['two'] }],
        ['purge', 'bundle', 'web', first.digest, null, { revision: 1 }],
        ['put', 'instance', 'vm', null, `${id}.1`, {}],
        ['put', 'instance', 'vm-2', null, `${vm2?.id}.1`, { secrets: ['k'] }],
        ['put', 'instance', 'vm', `${id}.1`, `${id}.2`, { var: 'a' }],
        ['delete', 'instance', 'vm', `${id}.2`, null, {}],
        ['delete', 'bundle', 'web', second.digest, null, {}],
        ['reveal', 'instance', 'vm-2', null, null, { digest: 'd' }],
      ]);
    });

    contract('what changes nothing, or is refused, is no line', async (store) => {
      await put(store, 'web', { a: '1' });
      await put(store, 'web', { a: '2' }, { base: 1 });
      await store.putTag('web', 'stable', 1, { at: START, by: ANN });
      await store.putInstances([write('vm', { bundles: ['web@stable'] })], { at: START, by: ANN });
      const before = (await lines(store)).length;
      const change = { at: START, by: ANN };
      await store.putTag('web', 'stable', 1, change);
      await store.putInstances([write('vm', { bundles: ['web@stable'] })], change);
      await store.putBundleSecrets('web', sealed({ none: null }), { base: 0, ...change });
      await store.resealSecret(
        { owner: { kind: 'bundle', name: 'web' }, name: 'x', old: null },
        Buffer.of(1),
        Buffer.of(2),
        change,
      );
      await refused(put(store, 'web', { a: '3' }, { base: 1 }), 'conflict', 'changed_meanwhile');
      await refused(store.retireBundle('web', { base: 2, ...change }), 'conflict', 'in_use');
      await refused(store.deleteTag('web', 'stable', change), 'conflict', 'in_use');
      await refused(store.purgeRevision('web', 1, change), 'conflict', 'in_use');
      await refused(store.putTag('web', 'stable', 7, change), 'not_found', 'unknown_revision');
      await refused(store.retireInstance('no', { expect: undefined, ...change }), 'not_found', 'unknown_instance');
      const lost = [write('other'), { ...write('vm'), expect: 7 }];
      await refused(store.putInstances(lost, change), 'precondition_failed', 'etag_mismatch');
      assert.equal((await lines(store)).length, before);
    });

    contract('thousands of instances in one write are a line each', async (store) => {
      await store.putInstances(
        Array.from({ length: 1200 }, (_, index) => write(`vm-${index}`)),
        { at: START, by: ANN },
      );
      const all: string[] = [];
      for (let after: number | null = null; ; ) {
        const page: AuditEntry[] = await store.listAudit({}, { after, limit: 1000 });
        all.push(...page.map((line) => line.name));
        after = page.at(-1)?.id ?? null;
        if (page.length < 1000) break;
      }
      assert.equal(new Set(all).size, 1200);
    });

    contract('listAudit goes from the newest, page by page, of what is asked for', async (store) => {
      const bob = { ...ANN, name: 'bob\0' };
      await put(store, 'web');
      await put(store, 'db', {}, { by: bob, at: START + 5 });
      await store.putInstances([write('web')], { at: START + 6, by: ANN });
      await store.createToken(
        { id: 'aaaaaaaa', name: 'ci', role: 'viewer', scope: EVERYTHING, sha256: 'x', expiresAt: null },
        { at: START + 7, by: ANN, limit: 9 },
      );
      const names = async (filter: AuditFilter) => (await lines(store, filter)).map(([, kind, each]) => `${kind} ${each}`);
      const all = ['token ci', 'instance web', 'bundle db', 'bundle web'];
      for (const [filter, expected] of [
        [{}, all],
        [{ kind: 'bundle' }, ['bundle db', 'bundle web']],
        [{ name: 'web' }, ['instance web', 'bundle web']],
        [{ kind: 'instance', name: 'web' }, ['instance web']],
        [{ actor: 'bob\0' }, ['bundle db']],
        [{ actor: 'bob' }, []],
        [{ action: 'create' }, ['token ci']],
        [{ since: START + 6 }, ['token ci', 'instance web']],
        [{ scope: EVERYTHING }, all],
        [{ scope: { bundles: ['d*'], instances: [] } }, ['bundle db']],
        [{ scope: { bundles: null, instances: ['w*', 'x'] } }, ['instance web', 'bundle db', 'bundle web']],
        [{ scope: { bundles: [], instances: [] } }, []],
      ] as const)
        assert.deepEqual(await names(filter), expected, JSON.stringify(filter));
      const first = await store.listAudit({}, { after: null, limit: 3 });
      const rest = await store.listAudit({}, { after: first.at(-1)?.id ?? null, limit: 3 });
      assert.deepEqual(
        [...first, ...rest].map((line) => `${line.kind} ${line.name}`),
        all,
      );
    });
  });

  describe(`${name}: names that fit`, () => {
    const cases: [NamePatterns, string[]][] = [
      [null, ['a-b', 'a.b', 'aa', 'ab', 'b']],
      [[], []],
      [['a*'], ['a-b', 'a.b', 'aa', 'ab']],
      [['*b'], ['a-b', 'a.b', 'ab', 'b']],
      [
        ['a.b', 'b'],
        ['a.b', 'b'],
      ],
      [
        ['a-*', 'aa'],
        ['a-b', 'aa'],
      ],
      [['a_b', '%', 'a\\b'], []],
    ];

    contract('lists hold those only, page by page', async (store) => {
      for (const bundle of ['a-b', 'a.b', 'aa', 'ab', 'b']) {
        await put(store, bundle);
        await store.putInstances([write(bundle)], { at: START, by: ANN });
      }
      for (const [names, expected] of cases) {
        const bundles = await store.listBundles(ALL, { retired: false, names });
        const instances = await store.listInstances(ALL, { names });
        assert.deepEqual(
          bundles.map((each) => each.name),
          expected,
        );
        assert.deepEqual(
          instances.map((each) => each.name),
          expected,
        );
        const [first] = await store.listInstances({ after: 'a.b', limit: 1 }, { names });
        assert.equal(
          first?.name,
          expected.find((each) => each > 'a.b'),
        );
      }
    });

    contract('who refers to a bundle is told as far as one may know, and a refusal names no other', async (store) => {
      await put(store, 'web', { a: '1' });
      await store.putInstances(
        ['eu-1', 'eu-2', 'us-1'].map((each) => write(each, { bundles: ['web'] })),
        { at: START, by: ANN },
      );
      const uses = async (names?: NamePatterns) => {
        const { uses, total } = await store.listBundleUses('web', 10, names);
        return [uses.map(({ instance }) => instance), total];
      };
      assert.deepEqual(await uses(), [['eu-1', 'eu-2', 'us-1'], 3]);
      assert.deepEqual(await uses(['eu-*']), [['eu-1', 'eu-2'], 2]);
      assert.deepEqual(await uses([]), [[], 0]);
      const message = async (instances: NamePatterns) => {
        const by = { ...ANN, scope: { bundles: null, instances } };
        return (await refused(store.retireBundle('web', { base: 1, at: START, by }), 'conflict', 'in_use')).message;
      };
      assert.match(await message(null), /^eu-1, eu-2, us-1 refer/);
      assert.match(await message(['us-*']), /^us-1 refer/);
      assert.match(await message(['ap-*']), /^instances outside of your token's scope refer/);
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

    test('a database of the first release is brought forward with all that is in it', async (t) => {
      const database = await makeDatabase(t);
      await migrate(database, migrations.slice(0, 2));
      const { parts, bodies } = files({ 'a.sh': 'shared', 'b.sh': 'shared', 'c.sh': 'leak' });
      // More than a page of revisions: each has the first body, and number 7 both.
      const total = 450;
      const { spec } = write('vm', {
        bundles: ['web'],
        vars: { text: 'nul \0 and "quotes"' },
        labels: { rack: '1' },
        networkConfig: 'version: 2\n',
      });
      await database.write(async (db) => {
        const insert = async (table: string, row: Record<string, string | number | Uint8Array>) => {
          const columns = sql.join(Object.keys(row).map((column) => sql.ref(column)));
          await sql`insert into ${sql.table(table)} (${columns}) values (${sql.join(Object.values(row))})`.execute(db);
        };
        for (const [hash, bytes] of bodies)
          await insert('body', { sha256: hash, size: bytes.length, bytes: Buffer.from(bytes) });
        for (const [bundle, latest] of [
          ['web', total],
          ['empty', 1],
        ] as const) {
          await insert('bundle', { name: bundle, latest, created_at: START });
          for (let number = 1; number <= latest; number++) {
            const own = bundle === 'empty' ? [] : number === 7 ? parts : parts.slice(0, 2);
            const content = { part_order: 'name', vars: '{"a":1}', parts: JSON.stringify(own), part_count: own.length };
            await insert('revision', { bundle, number, digest: 'd', ...content, created_at: START, author: 'ann' });
          }
        }
        await insert('instance', {
          name: 'vm',
          id: '00000000000000aa',
          version: 3,
          bundles: JSON.stringify(spec.bundles),
          vars: JSON.stringify(spec.vars),
          labels: JSON.stringify(spec.labels),
          meta_data: '{}',
          vendor_data: 'null',
          network_config: JSON.stringify(spec.networkConfig),
          instance_id: 'i-00000000000000aa',
          include_generation: 0,
          seed_generation: 0,
          report_generation: 0,
          created_at: START,
          updated_at: START,
          delivery_count: 1,
        });
        await insert('instance_reference', { instance: 'vm', position: 0, bundle: 'web' });
        const fetched = {
          purpose: 'include',
          bytes: 8,
          address: '10.0.0.5',
          user_agent: 'Cloud-Init',
          revisions: '["web@450"]',
        };
        await insert('delivery', { instance: 'vm', at: START, ...fetched, counted: 1, outcome: 'delivered' });
      });

      await migrate(database);
      const store = createStore(database);
      const latest = (await store.findBundle('web'))?.latest;
      assert.deepEqual([latest?.number, latest?.message, latest?.purgedAt, latest?.vars], [total, null, null, { a: 1 }]);
      assert.equal((await store.findBundle('web'))?.secretsVersion, 0);
      assert.deepEqual(
        (await store.listDeliveries('vm', ALL)).map(({ instanceVersion }) => instanceVersion),
        [null],
      );
      const vm = await store.findInstance('vm');
      assert.deepEqual(vm?.fetchedAt, { include: START, seed: null });
      // What was delivered then carried no tracking.
      assert.deepEqual(await store.findSpec('vm', 3), { ...spec, track: false });
      const links = await database.read((db) =>
        db
          .selectFrom('revision_body')
          .select(['bundle', 'sha256'])
          .select(({ fn }) => fn.countAll<number>().as('revisions'))
          .groupBy(['bundle', 'sha256'])
          .orderBy('revisions')
          .execute(),
      );
      assert.deepEqual(links, [
        { bundle: 'web', sha256: sha256('leak'), revisions: 1 },
        { bundle: 'web', sha256: sha256('shared'), revisions: total },
      ]);
      await store.purgeRevision('web', 7, { at: START, by: ANN });
      assert.equal(await store.findBody(sha256('leak')), null);
      assert.ok(await store.findBody(sha256('shared')));
      const [written] = await store.putInstances([{ ...write('vm'), secrets: sealed({ one: '1' }) }], { at: START, by: ANN });
      assert.equal(written?.instance.version, 4);
    });

    test('a line of the audit cannot be changed or removed, whatever statement tries', async (t) => {
      const database = await makeDatabase(t);
      await migrate(database);
      const store = createStore(database);
      await store.putInstances([write('vm')], { at: START, by: ANN });
      for (const statement of [
        "update audit set actor = 'nobody'",
        'delete from audit',
        "insert into audit (id, at, actor, role, address, request_id, action, kind, name, detail) select id, at, 'nobody', role, address, request_id, action, kind, name, detail from audit where true on conflict (id) do update set actor = 'nobody'",
        ...(database.engine === 'postgres' ? ['truncate audit'] : ['replace into audit select * from audit']),
      ])
        await assert.rejects(
          database.write((db) => sql.raw(statement).execute(db)),
          /append-only/,
          statement,
        );
      const lines = await store.listAudit({}, ALL);
      assert.deepEqual(
        lines.map(({ actor, name }) => [actor, name]),
        [['ann', 'vm']],
      );
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
    by = ANN,
    message = null,
    detail,
    sight,
  } = change;
  const content: RevisionContent = { order, vars, parts };
  const digest = revisionDigest(content);
  return store.putRevision({ bundle, base, content, digest, bodies, at, by, message, detail, ...(sight && { sight }) });
}

export function write(name: string, spec: Partial<InstanceSpec> = {}): InstanceWrite {
  return {
    name,
    spec: {
      bundles: [],
      vars: {},
      labels: {},
      metaData: {},
      vendorData: null,
      networkConfig: null,
      policy: {},
      track: true,
      ...spec,
    },
    freshId: sha256(name).slice(0, 16),
    expect: undefined,
  };
}

/** Changes of secrets. The store cannot read what is sealed, so here it is plain text. */
export function sealed(changes: Record<string, string | null>): Map<string, NewSecret | null> {
  return new Map(
    Object.entries(changes).map(([name, value]) => [
      name,
      value === null ? null : { sealed: Buffer.from(value), bytes: value.length, endsWithNewline: false },
    ]),
  );
}

/** What was reported of manifests, newest first. */
async function manifests(store: Store, instance: string, page: Page<number> = ALL) {
  const reports = await store.listReports(instance, page);
  return reports.map((report) => ({ ...report, manifest: (report as { manifest: ManifestResult }).manifest }));
}

/** What {@link sealed} put there, by name. */
async function values(store: Store, kind: SecretOwner['kind'], name: string): Promise<Record<string, string>> {
  const [secrets = []] = await store.findSecrets([{ kind, name }]);
  return Object.fromEntries(secrets.map((secret) => [secret.name, Buffer.from(secret.sealed).toString()]));
}

async function secretsVersion(store: Store, bundle: string): Promise<number> {
  return (await store.findBundle(bundle))?.secretsVersion ?? -1;
}

async function found(store: Store, name: string): Promise<Instance> {
  const instance = await store.findInstance(name);
  assert.ok(instance);
  return instance;
}

async function registered(store: Store, name: string): Promise<Instance> {
  await store.putInstances([write(name)], { at: START, by: ANN });
  return found(store, name);
}

/** Puts what must be recorded into the ledger. @returns the ids */
export async function record(store: Store, deliveries: readonly NewDelivery[]): Promise<number[]> {
  const recorded = await store.recordDeliveries(deliveries, DEFAULT_POLICY);
  return recorded.map((one) => {
    assert.equal(one.kind, 'recorded');
    return one.kind === 'recorded' ? one.id : 0;
  });
}

export function delivery(instance: Instance, change: Partial<NewDelivery> = {}): NewDelivery {
  const { purpose = 'include' } = change;
  return {
    instanceId: instance.id,
    at: START,
    purpose,
    digest: sha256('document'),
    bytes: 8,
    address: '10.0.0.5',
    userAgent: 'Cloud-Init/22.4.2',
    revisions: ['web@1', 'db@3'],
    instanceVersion: instance.version,
    generation: instance.generations[purpose],
    outcome: 'delivered',
    refusal: null,
    holdsSecrets: false,
    guarded: false,
    expects: NO_BOOT.expects,
    inputs: null,
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

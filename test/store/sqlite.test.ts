import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { scheduler } from 'node:timers/promises';
import { promisify } from 'node:util';
import SQLite from 'better-sqlite3';
import { sql } from 'kysely';
import { sha256 } from '../../src/domain/bundle.ts';
import type { Store } from '../../src/domain/store.ts';
import { migrate } from '../../src/store/migrate.ts';
import { createStore, openStore } from '../../src/store/open.ts';
import { openSqlite } from '../../src/store/sqlite.ts';
import { ANN } from '../actor.ts';
import { conformance, migrationConformance, refused, sealed, write } from './conformance.ts';
import { stateConformance } from './state-conformance.ts';
import { windowConformance } from './windows.ts';

conformance('SQLite in memory', (t) => opened(t, ':memory:'));
conformance('SQLite file', async (t) => opened(t, await newFile(t)));
windowConformance('SQLite', async (t) => {
  const database = await openSqlite(':memory:');
  t.after(() => database.close());
  await migrate(database);
  return { database, store: createStore(database) };
});
migrationConformance('SQLite', async (t) => {
  const database = await openSqlite(await newFile(t));
  t.after(() => database.close());
  return database;
});

stateConformance('SQLite', async (t) => {
  const database = await openSqlite(await newFile(t));
  t.after(() => database.close());
  return database;
});

describe('SQLite: the file', () => {
  test('holds what was acknowledged, and a reopened store gives it back', async (t) => {
    const file = await newFile(t);
    const first = await openStore({ file });
    await first.putInstances([write('vm')], { at: 1, by: ANN });
    await first.close();
    const second = await opened(t, file);
    assert.equal((await second.findInstance('vm'))?.name, 'vm');
  });

  test('survives kill -9 right after the acknowledgement', async (t) => {
    const file = await newFile(t);
    const script = `
      const { openStore } = await import(${url('src/store/open.ts')});
      const { write } = await import(${url('test/store/conformance.ts')});
      const { ANN } = await import(${url('test/actor.ts')});
      const store = await openStore({ file: ${JSON.stringify(file)} });
      await store.putInstances([write('vm')], { at: 1, by: ANN });
      process.kill(process.pid, 'SIGKILL');`;
    const died = await run(script).catch((error: { signal?: string }) => error.signal);
    assert.equal(died, 'SIGKILL');
    const store = await opened(t, file);
    assert.equal((await store.findInstance('vm'))?.name, 'vm');
  });

  test('serves a second store while the first is open, each seeing what the other wrote', async (t) => {
    const file = await newFile(t);
    const first = await opened(t, file);
    await first.putInstances([write('one')], { at: 1, by: ANN });
    const second = await opened(t, file);
    await second.putInstances([write('two')], { at: 1, by: ANN });
    assert.ok(await first.findInstance('two'));
    assert.ok(await second.findInstance('one'));
    await second.close();
    await first.putInstances([write('three')], { at: 1, by: ANN });
    assert.equal((await first.listInstances({ after: null, limit: 9 }, {})).length, 3);
  });

  test('is brought up by several processes that start at once', async (t) => {
    const file = await newFile(t);
    const script = `
      const { openStore } = await import(${url('src/store/open.ts')});
      const store = await openStore({ file: ${JSON.stringify(file)} });
      process.stdout.write(String(await store.claimKey(['one'])));
      await store.close();`;
    const outputs = await Promise.all([1, 2, 3, 4].map(() => run(script)));
    assert.deepEqual(
      outputs.map(({ stdout }) => stdout),
      ['true', 'true', 'true', 'true'],
    );
  });

  test('is synced at each commit, in WAL mode, with deleted bytes overwritten and foreign keys, and readers cannot write', async (t) => {
    const database = await openSqlite(await newFile(t));
    t.after(() => database.close());
    await migrate(database);
    const pragma = (name: string) => sql<Record<string, unknown>>`${sql.raw(`pragma ${name}`)}`;
    await database.write(async (db) => {
      assert.deepEqual((await pragma('journal_mode').execute(db)).rows, [{ journal_mode: 'wal' }]);
      assert.deepEqual((await pragma('synchronous').execute(db)).rows, [{ synchronous: 2 }]);
      assert.deepEqual((await pragma('secure_delete').execute(db)).rows, [{ secure_delete: 1 }]);
      assert.deepEqual((await pragma('foreign_keys').execute(db)).rows, [{ foreign_keys: 1 }]);
    });
    const stray = database.read((db) => db.insertInto('meta').values({ key: 'a', value: 'b' }).execute());
    await refused(stray, 'unavailable', 'database_unavailable');
  });

  test('a fetch is answered while a write transaction is open', async (t) => {
    const database = await openSqlite(await newFile(t));
    t.after(() => database.close());
    await migrate(database);
    const store = createStore(database);
    await database.write(async (db) => {
      await db.insertInto('meta').values({ key: 'a', value: 'b' }).execute();
      assert.equal(await store.findInstance('vm'), null);
    });
  });

  test('another process that holds the write lock is waited for, and meanwhile everything else goes on', async (t) => {
    const file = await newFile(t);
    const store = await opened(t, file);
    await store.putInstances([write('vm')], { at: 1, by: ANN });
    const other = new SQLite(file);
    t.after(() => other.close());
    other.exec('begin immediate');
    let written = false;
    const putting = store.putInstances([write('two')], { at: 1, by: ANN }).then(() => {
      written = true;
    });
    let [last, longest, reads] = [performance.now(), 0, 0];
    const heart = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 10);
    t.after(() => clearInterval(heart));
    for (const begun = performance.now(); performance.now() - begun < 1200; reads++) {
      assert.ok(await store.findInstance('vm'));
      await scheduler.wait(10);
    }
    assert.equal(written, false);
    other.exec('commit');
    await putting;
    assert.ok(await store.findInstance('two'));
    assert.ok(longest < 400, `the event loop stood still for ${longest} ms`);
    assert.ok(reads > 20, `${reads} reads`);
  });

  test('a lock that is never given back is trouble of ours, in the end', async (t) => {
    const file = await newFile(t);
    const store = await opened(t, file);
    const other = new SQLite(file);
    t.after(() => other.close());
    other.exec('begin immediate');
    await refused(store.putInstances([write('vm')], { at: 1, by: ANN }), 'unavailable', 'database_busy');
    other.exec('commit');
    await store.putInstances([write('vm')], { at: 1, by: ANN });
  });

  test('a full disk refuses the write, keeps what was there, and is over when there is room again', async (t) => {
    const database = await openSqlite(await newFile(t));
    t.after(() => database.close());
    await migrate(database);
    const store = createStore(database);
    await store.putInstances([write('vm')], { at: 1, by: ANN });
    const pages = (limit: number) => database.write((db) => sql.raw(`pragma max_page_count = ${limit}`).execute(db));
    await pages(1);
    const bytes = new Uint8Array(500_000);
    const part = {
      filename: 'a',
      type: 'x',
      typeSaid: true,
      merge: null,
      template: false,
      size: bytes.length,
      sha256: sha256(bytes),
    };
    const content = { order: 'name' as const, vars: {}, parts: [part] };
    const bodies = new Map([[part.sha256, bytes]]);
    const put = () =>
      store.putRevision({ bundle: 'web', base: null, content, digest: 'd', bodies, at: 1, by: ANN, message: null });
    await refused(put(), 'storage_full', 'storage_full');
    assert.equal(await store.findBundle('web'), null);
    assert.ok(await store.findInstance('vm'));
    await pages(1_000_000);
    assert.equal((await put()).number, 1);
    await pages(1);
    const big = new Map([['one', { sealed: bytes, bytes: bytes.length, endsWithNewline: false }]]);
    await refused(store.putInstances([{ ...write('vm'), secrets: big }], { at: 1, by: ANN }), 'storage_full', 'storage_full');
    await refused(store.putBundleSecrets('web', big, { base: 0, at: 1, by: ANN }), 'storage_full', 'storage_full');
    assert.equal((await store.findInstance('vm'))?.version, 1);
    assert.equal((await store.findBundle('web'))?.secretsVersion, 0);
    assert.deepEqual(await store.listSecrets({ after: null, limit: 9 }), []);
  });
});

describe('SQLite: what was purged', () => {
  /** Text nobody else has, as long as asked. */
  const marked = (name: string, length: number) => `${sha256(name)} `.repeat(Math.ceil(length / 65)).slice(0, length);

  test('is in no file of the folder, whatever its size, and neither are removed secrets', async (t) => {
    const file = await newFile(t);
    const store = await opened(t, file);
    const lengths = [80, 400, 1500, 3900, 5000, 20_000];
    const names = Array.from({ length: 240 }, (_, index) => `body ${index}`);
    // Among others, so that pages were split and rewritten while it was there.
    for (const [index, name] of names.entries())
      await putBody(store, { bundle: `web-${index}`, base: null, text: marked(name, lengths[index % lengths.length] ?? 0) });
    const leaked = names.filter((_, index) => index % 4 === 0);
    for (const name of leaked) {
      const bundle = name.replace('body ', 'web-');
      const secrets = sealed({ one: marked(`secret ${name}`, 300) });
      await store.putBundleSecrets(bundle, secrets, { base: 0, at: 1, by: ANN });
      await store.putBundleSecrets(bundle, sealed({ one: null }), { base: 1, at: 1, by: ANN });
      await putBody(store, { bundle, base: 1, text: '' });
    }
    // Without a delivery that may need them, old values go.
    const old = { after: 0, now: 2, slack: 0, limit: 1000 };
    assert.equal((await store.pruneOldSecrets(old)).dropped, leaked.length);
    for (const name of leaked) await store.purgeRevision(name.replace('body ', 'web-'), 1, { at: 1, by: ANN });
    const files = await contents(file);
    const isThere = (text: string) => files.some((bytes) => bytes.includes(text));
    for (const name of leaked)
      for (const what of [name, `vars ${name}`, `secret ${name}`]) assert.ok(!isThere(marked(what, 40)), what);
    for (const name of names.filter((name) => !leaked.includes(name)))
      for (const what of [name, `vars ${name}`]) assert.ok(isThere(marked(what, 40)), what);

    async function putBody(to: Store, { bundle, base, text }: { bundle: string; base: number | null; text: string }) {
      const bytes = Buffer.from(text);
      const part = { filename: 'a', type: 'x', typeSaid: true, merge: null, template: false };
      const parts = [{ ...part, size: bytes.length, sha256: sha256(bytes) }];
      const vars = base === null ? { secret: marked(`vars ${bundle.replace('web-', 'body ')}`, 200) } : {};
      const content = { order: 'name' as const, vars, parts };
      const bodies = new Map([[sha256(bytes), bytes]]);
      await to.putRevision({ bundle, base, content, digest: 'd', bodies, at: 1, by: ANN, message: null });
    }
  });

  test('leaves the log once nobody reads from it; a purge does not fail for it', async (t) => {
    const file = await newFile(t);
    const store = await opened(t, file);
    const bytes = Buffer.from(marked('leak', 300));
    const part = { filename: 'a', type: 'x', typeSaid: true, merge: null, template: false, size: 300, sha256: sha256(bytes) };
    const put = (base: number | null, parts: (typeof part)[]) => {
      const content = { order: 'name' as const, vars: {}, parts };
      const bodies = new Map([[part.sha256, bytes]]);
      return store.putRevision({ bundle: 'web', base, content, digest: 'd', bodies, at: 1, by: ANN, message: null });
    };
    await put(null, [part]);
    await put(1, []);
    const other = new SQLite(file);
    t.after(() => other.close());
    other.exec('begin; select count(*) from body');
    assert.ok((await store.purgeRevision('web', 1, { at: 1, by: ANN })).revision.purgedAt);
    assert.equal(await store.findBody(part.sha256), null);
    const isThere = async () => (await contents(file)).some((bytes) => bytes.includes(marked('leak', 40)));
    assert.ok(await isThere());
    other.exec('commit');
    await store.purgeRevision('web', 1, { at: 1, by: ANN });
    assert.ok(!(await isThere()));
  });

  /** All that is in the folder of a database, file by file. */
  async function contents(file: string): Promise<Buffer[]> {
    const folder = join(file, '..');
    return Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name))));
  }
});

describe('SQLite: what is not ours', () => {
  for (const [what, content] of [
    ['a short text', 'hello\n'],
    ['a long text', 'hello\n'.repeat(5000)],
  ] as const) {
    test(`${what} is refused and left as it is`, async (t) => {
      const file = await newFile(t);
      await writeFile(file, content);
      await refused(openStore({ file }), 'conflict', 'foreign_database');
      assert.equal(await readFile(file, 'utf8'), content);
      assert.deepEqual(await readdir(join(file, '..')), ['test.db']);
    });
  }

  for (const mode of ['delete', 'wal']) {
    test(`another program's database (journal_mode ${mode}) is refused and left as it is`, async (t) => {
      const file = await newFile(t);
      const foreign = new SQLite(file);
      foreign.pragma(`journal_mode = ${mode}`);
      foreign.exec('create table instance (id integer); insert into instance values (1)');
      foreign.close();
      const before = await readFile(file);
      await refused(openStore({ file }), 'conflict', 'foreign_database');
      assert.ok(before.equals(await readFile(file)));
      assert.deepEqual(await readdir(join(file, '..')), ['test.db']);
    });
  }

  test('a file in a folder that cannot be opened is unavailable', async (t) => {
    const file = await newFile(t);
    await refused(openStore({ file: join(file, '..') }), 'unavailable', 'database_unavailable');
  });
});

test('SQLite does not load the driver of PostgreSQL', async () => {
  const script = `
    const { createRequire } = await import('node:module');
    const { openStore } = await import(${url('src/store/open.ts')});
    await (await openStore({ file: ':memory:' })).close();
    const loaded = Object.keys(createRequire(${url('src/store/open.ts')}).cache);
    const has = (name) => loaded.some((file) => file.includes('/node_modules/' + name + '/'));
    process.stdout.write(JSON.stringify([has('better-sqlite3'), has('pg')]));`;
  assert.equal((await run(script)).stdout, '[true,false]');
});

async function opened(t: TestContext, file: string) {
  const store = await openStore({ file });
  t.after(() => store.close());
  return store;
}

/** A path in a folder of its own; nothing is there yet. */
async function newFile(t: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bootbundle-sqlite-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return join(folder, 'test.db');
}

function run(script: string) {
  return promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script]);
}

/** The address of a file of the repository, as a literal for a script. */
function url(path: string): string {
  return JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
}

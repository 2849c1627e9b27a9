import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { migrations } from '../migrations/index.ts';
import { SETTINGS } from '../src/config.ts';
import { describeApi } from '../src/main.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const sources = filesIn('src').filter((file) => file.endsWith('.ts'));

/** Who may import whom: a room, and the rooms it may import besides itself. The files at the top of src are rooms of their own. */
const IMPORTS: Record<string, readonly string[]> = {
  domain: [],
  inspect: ['domain'],
  render: ['domain'],
  guest: [],
  explain: ['domain', 'inspect'],
  service: ['domain', 'explain', 'inspect', 'render', 'guest'],
  store: ['domain', 'migrations'],
  // Reading an upload's MIME and media types is inspect's, and so is the wire that brings them.
  http: ['domain', 'explain', 'inspect', 'service'],
  config: ['domain'],
  'data-dir': ['config'],
  'schema-files': ['domain', 'inspect'],
  tls: ['config'],
  metrics: ['domain'],
  main: ['config', 'data-dir', 'domain', 'http', 'inspect', 'metrics', 'schema-files', 'service', 'store', 'tls'],
  cli: ['config', 'domain', 'explain', 'main', 'schema-files', 'service'],
};
/** What only one room may import. */
const DRIVERS: Record<string, readonly string[]> = {
  kysely: ['store'],
  'better-sqlite3': ['store'],
  pg: ['store'],
  fastify: ['http', 'main'],
  'node:http': ['http'],
  'prom-client': ['metrics'],
  'node:fs': ['config', 'data-dir', 'schema-files', 'tls', 'main', 'store', 'guest', 'cli'],
};
/** What the domain and the pure rooms may take from Node. */
const PURE = ['domain', 'explain', 'inspect', 'render'];
const PURE_BUILTINS = ['node:crypto', 'node:util', 'node:buffer', 'node:zlib'];

test('imports follow the table of DESIGN, section 4', () => {
  for (const file of sources) {
    const room = roomOf(file);
    for (const target of importsOf(file)) {
      if (target.startsWith('.')) {
        const path = relative(ROOT, resolve(ROOT, dirname(file), target));
        const other = path.startsWith('migrations') ? 'migrations' : path === 'package.json' ? room : roomOf(path);
        assert.ok(other === room || IMPORTS[room]?.includes(other), `${file} imports ${path}`);
        continue;
      }
      for (const [driver, rooms] of Object.entries(DRIVERS))
        if (target === driver || target.startsWith(`${driver}/`)) assert.ok(rooms.includes(room), `${file} imports ${target}`);
      if (PURE.includes(room) && target.startsWith('node:'))
        assert.ok(PURE_BUILTINS.includes(target), `${file} imports ${target}`);
    }
  }
});

test('only the cli reads process.env, and only to hand it to config', () => {
  for (const file of sources) assert.ok(!/process\.env/.test(read(file)) || file.startsWith('src/cli/'), file);
});

test('the pure rooms have no clock and no random', () => {
  for (const file of sources.filter((each) => PURE.includes(roomOf(each))))
    assert.doesNotMatch(read(file), /Date\.now|new Date\(\)|Math\.random|randomBytes|randomUUID/, file);
});

test('there is no drawer: no utils, types, helpers, common, models room', () => {
  for (const file of sources) assert.doesNotMatch(dirname(file), /\/(utils|types|helpers|common|models)(\/|$)/, file);
});

test('every room has a README', () => {
  const rooms = new Set(sources.map((file) => dirname(file)).filter((room) => room !== 'src'));
  for (const room of [...rooms, 'migrations']) assert.ok(readdirSync(join(ROOT, room)).includes('README.md'), room);
});

test('every migration file is listed', () => {
  const files = readdirSync(join(ROOT, 'migrations')).filter((file) => /^\d{4}-.*\.ts$/.test(file));
  assert.deepEqual(
    migrations.map(({ name }) => name),
    files.map((file) => file.replace(/\.ts$/, '')).sort(),
  );
});

test('openapi/openapi.json is what the routes say (npm run openapi writes it)', async () => {
  const written = JSON.parse(read('openapi/openapi.json'));
  assert.deepEqual(JSON.parse(JSON.stringify(await describeApi())), written);
});

test('every operation has an id, a summary, a tag, an answer and its errors', async () => {
  const { paths } = JSON.parse(read('openapi/openapi.json')) as { paths: Record<string, Record<string, Operation>> };
  const ids = new Set<string>();
  for (const [path, methods] of Object.entries(paths))
    for (const [method, operation] of Object.entries(methods)) {
      const at = `${method} ${path}`;
      assert.ok(operation.operationId && operation.summary && operation.tags?.length, at);
      assert.ok(!ids.has(operation.operationId), `${at}: operationId is used twice`);
      ids.add(operation.operationId);
      const statuses = Object.keys(operation.responses);
      assert.ok(
        statuses.some((status) => status.startsWith('2')),
        at,
      );
      if (path.startsWith('/api/'))
        for (const status of ['400', '401', '503']) assert.ok(statuses.includes(status), `${at}: ${status}`);
    }
});

test('README lists every setting with its default', () => {
  const readme = read('README.md');
  for (const setting of SETTINGS) {
    const row = readme.split('\n').find((line) => line.startsWith(`| \`BOOTBUNDLE_${setting.name}\``));
    assert.ok(row, setting.name);
    if ('default' in setting) assert.ok(row.includes(`\`${setting.default}\``), setting.name);
  }
});

interface Operation {
  operationId: string;
  summary: string;
  tags: string[];
  responses: Record<string, unknown>;
}

function filesIn(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)));
}

function read(file: string): string {
  return readFileSync(join(ROOT, file), 'utf8');
}

function roomOf(file: string): string {
  return file.split('/')[1]?.replace(/\.ts$/, '') ?? '';
}

function importsOf(file: string): string[] {
  return [...read(file).matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1] ?? '');
}

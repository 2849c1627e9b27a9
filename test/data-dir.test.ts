import assert from 'node:assert/strict';
import { execFile, execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { ConfigError, readConfig } from '../src/config.ts';
import { openDataDir } from '../src/data-dir.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-data-'));
  t.after(() => {
    chmodSync(path, 0o700);
    rmSync(path, { recursive: true });
  });
  return path;
}
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8);
/** Refused in one line, without the content of any file. */
function refused(action: () => unknown, says: RegExp) {
  assert.throws(action, (error) => {
    assert.ok(error instanceof ConfigError, String(error));
    assert.match(error.message, says);
    assert.doesNotMatch(error.message, /[\r\n]|hunter2/);
    return true;
  });
}

test('the first start makes the folder, the key, the token and its curlrc, for the owner only', (t) => {
  const before = process.umask(0o000);
  t.after(() => process.umask(before));
  const path = join(folder(t), 'a', 'data');
  const dir = openDataDir(path);
  dir.key(true);
  const { token, made } = dir.adminToken();

  assert.equal(dir.path, path);
  assert.equal(made, true);
  assert.equal(modeOf(path), '700');
  assert.deepEqual(readdirSync(path).sort(), ['admin-token', 'admin.curlrc', 'server.key']);
  for (const name of readdirSync(path)) assert.equal(modeOf(join(path, name)), '600', name);
  assert.match(readFileSync(join(path, 'server.key'), 'utf8'), /^[0-9a-f]{64}\n$/);
  assert.equal(readFileSync(join(path, 'admin-token'), 'utf8'), `${token}\n`);
  assert.equal(readFileSync(join(path, 'admin.curlrc'), 'utf8'), `header = "Authorization: Bearer ${token}"\n`);
});

test('nothing is made before it is asked for', (t) => {
  const path = folder(t);
  openDataDir(path);
  assert.deepEqual(readdirSync(path), []);
});

test('a second start reads the same and changes no file', (t) => {
  const path = folder(t);
  const first = openDataDir(path);
  const [key, { token }] = [first.key(true), first.adminToken()];
  const files = () =>
    readdirSync(path).map((name) => [name, statSync(join(path, name)).ino, readFileSync(join(path, name), 'utf8')]);
  const before = files();

  const second = openDataDir(path);
  assert.deepEqual(second.key(true), key);
  assert.deepEqual(second.key(false), key);
  assert.deepEqual(second.adminToken(), { token, made: false });
  assert.deepEqual(files(), before);
});

test('two data directories have different keys and tokens', (t) => {
  const [a, b] = [openDataDir(folder(t)), openDataDir(folder(t))];
  assert.notDeepEqual(a.key(true), b.key(true));
  assert.notEqual(a.adminToken().token, b.adminToken().token);
});

test('the key in the file is the one BOOTBUNDLE_KEY_FILE would give', (t) => {
  const path = folder(t);
  const key = openDataDir(path).key(true);
  assert.deepEqual(readConfig({ BOOTBUNDLE_KEY_FILE: join(path, 'server.key') }, new Map()).keys, [key]);
});

test('several first starts at once agree on one key and one token', async (t) => {
  const path = join(folder(t), 'data');
  const script = `
    import { openDataDir } from ${JSON.stringify(new URL('../src/data-dir.ts', import.meta.url).href)};
    while (Date.now() < ${Date.now() + 500});
    const dir = openDataDir(${JSON.stringify(path)});
    console.log(Buffer.from(dir.key(true)).toString(), dir.adminToken().token);`;
  const start = () => promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
  const answers = (await Promise.all([start(), start(), start()])).map(({ stdout }) => stdout);
  assert.equal(new Set(answers).size, 1);
  const [key = '', token = ''] = (answers[0] ?? '').trim().split(' ');
  assert.equal(readFileSync(join(path, 'server.key'), 'utf8'), `${key}\n`);
  assert.equal(readFileSync(join(path, 'admin-token'), 'utf8'), `${token}\n`);
  assert.deepEqual(readdirSync(path).sort(), ['admin-token', 'admin.curlrc', 'server.key']);
});

test('a key that is gone while its database is there is an error, and none is made', (t) => {
  const path = folder(t);
  refused(() => openDataDir(path).key(false), /server\.key: missing, .*restore it from a backup/);
  assert.ok(!existsSync(join(path, 'server.key')));
});

test('an empty or garbled key is refused and left as it is', (t) => {
  const path = folder(t);
  const garbled = [
    '',
    '\n',
    'hunter2\n',
    'x'.repeat(31),
    '\0'.repeat(65),
    ' '.repeat(64),
    Buffer.alloc(64, 0xe9),
    `hunter2 ${'x'.repeat(64)}`,
  ];
  for (const content of garbled) {
    writeFileSync(join(path, 'server.key'), content);
    for (const mayMake of [true, false])
      refused(() => openDataDir(path).key(mayMake), /server\.key: not a key: restore it from a backup/);
    assert.deepEqual(readFileSync(join(path, 'server.key')), Buffer.from(content));
  }
});

test('an empty or garbled token is refused', (t) => {
  const path = folder(t);
  for (const content of ['', 'hunter2', `hunter2 ${'x'.repeat(20)}`, '\0'.repeat(30), `hunter2${'x'.repeat(20)}\nhunter2`]) {
    writeFileSync(join(path, 'admin-token'), content);
    refused(() => openDataDir(path).adminToken(), /admin-token: not a token: delete it/);
  }
});

test('the curlrc follows a token that was changed or deleted', (t) => {
  const path = folder(t);
  const curlrc = () => readFileSync(join(path, 'admin.curlrc'), 'utf8');
  const { token: first } = openDataDir(path).adminToken();
  writeFileSync(join(path, 'admin-token'), 'hunter2-hunter2-hunter2\n');
  assert.deepEqual(openDataDir(path).adminToken(), { token: 'hunter2-hunter2-hunter2', made: false });
  assert.equal(curlrc(), 'header = "Authorization: Bearer hunter2-hunter2-hunter2"\n');

  rmSync(join(path, 'admin-token'));
  const { token, made } = openDataDir(path).adminToken();
  assert.equal(made, true);
  assert.notEqual(token, first);
  assert.equal(curlrc(), `header = "Authorization: Bearer ${token}"\n`);
  assert.equal(modeOf(join(path, 'admin.curlrc')), '600');
  assert.deepEqual(readdirSync(path).sort(), ['admin-token', 'admin.curlrc']);

  rmSync(join(path, 'admin.curlrc'));
  openDataDir(path).adminToken();
  assert.equal(curlrc(), `header = "Authorization: Bearer ${token}"\n`);
});

const noCurl = spawnSync('curl', ['--version']).status !== 0 && 'curl is not installed';
test('curl reads the curlrc, whatever characters the token has', { skip: noCurl }, (t) => {
  const path = folder(t);
  const token = `hunter2"\\n\\"'#=:{}${'x'.repeat(10)}`;
  writeFileSync(join(path, 'admin-token'), token);
  openDataDir(path).adminToken();
  // --libcurl writes what curl would do as C, in whose strings " and \ are escaped.
  const source = join(path, 'call.c');
  execFileSync('curl', ['-s', '-K', join(path, 'admin.curlrc'), '--libcurl', source, 'file:///dev/null']);
  const escaped = JSON.stringify(`Authorization: Bearer ${token}`);
  assert.ok(readFileSync(source, 'utf8').replaceAll(/\\\?/g, '?').includes(escaped));
});

test('what cannot be read or made ends in one line that names BOOTBUNDLE_DATA_DIR', (t) => {
  const path = folder(t);
  writeFileSync(join(path, 'file'), '');
  refused(() => openDataDir(join(path, 'file')), /BOOTBUNDLE_DATA_DIR/);
  refused(() => openDataDir(join(path, 'file', 'data')), /BOOTBUNDLE_DATA_DIR/);
  for (const name of ['server.key', 'admin-token']) mkdirSync(join(path, name));
  refused(() => openDataDir(path).key(true), /server\.key: EISDIR .*BOOTBUNDLE_DATA_DIR/);
  refused(() => openDataDir(path).adminToken(), /admin-token: EISDIR .*BOOTBUNDLE_DATA_DIR/);
});

test('a folder that may not be written to ends so, too', {
  skip: process.getuid?.() === 0 && 'root may write everywhere',
}, (t) => {
  const path = folder(t);
  chmodSync(path, 0o500);
  refused(() => openDataDir(path).key(true), /EACCES .*BOOTBUNDLE_DATA_DIR/);
});

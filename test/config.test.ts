import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ConfigError, flagOf, isWildcard, readConfig, SETTINGS } from '../src/config.ts';
import { DEFAULT_POLICY, type PolicyDefaults } from '../src/domain/policy.ts';

const SECRET = 'hunter2-hunter2-hunter2-hunter2-hunter2';

const read = (env: Record<string, string | undefined> = {}, flags: Record<string, string> = {}) =>
  readConfig(
    Object.fromEntries(Object.entries(env).map(([name, value]) => [`BOOTBUNDLE_${name}`, value])),
    new Map(Object.entries(flags)),
  );

/** Refused in one line that begins with the setting and holds nothing of `secret`. */
function refused(name: string, env: Record<string, string>, flags: Record<string, string> = {}, secret = SECRET): string {
  let message = '';
  assert.throws(
    () => read(env, flags),
    (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      message = error.message;
      return true;
    },
    `${name} was taken: ${JSON.stringify({ ...env, ...flags })}`,
  );
  assert.match(message, new RegExp(`^BOOTBUNDLE_${name}: `));
  assert.doesNotMatch(message, /[\r\n]/);
  assert.ok(!message.includes(secret), message);
  return message;
}

function file(t: TestContext, text: string | Uint8Array): string {
  const folder = mkdtempSync(join(tmpdir(), 'bootbundle-config-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'secret');
  writeFileSync(path, text);
  return path;
}

test('with nothing set there is a default for everything', () => {
  assert.deepEqual(read(), {
    host: '127.0.0.1',
    port: 8080,
    bootListen: null,
    publicUrl: null,
    dataDir: './data',
    databaseUrl: null,
    adminToken: null,
    keys: null,
    cloudInitSchema: null,
    deadlines: { boot: 30 * 60_000, fetch: 24 * 3_600_000 },
    logLevel: 'info',
    policyDefaults: { closeAfter: 'auto', expiresAfter: null, allowFrom: [] },
    trustedProxies: [],
    ledgerRetention: 400 * 24 * 60 * 60 * 1000,
  });
  assert.ok(Object.isFrozen(read()));
});

test('an empty variable is an unset one', () => {
  const empty = SETTINGS.flatMap(({ name }) => [
    [name, ''],
    [`${name}_FILE`, ''],
  ]);
  assert.deepEqual(read(Object.fromEntries(empty)), read());
});

const GOOD: [env: Record<string, string>, config: Partial<ReturnType<typeof readConfig>>][] = [
  [{ HOST: 'localhost' }, { host: 'localhost' }],
  [{ HOST: '192.0.2.10' }, { host: '192.0.2.10' }],
  [{ HOST: '::1' }, { host: '::1' }],
  [{ HOST: 'node-1.example.com' }, { host: 'node-1.example.com' }],
  [{ PORT: '0' }, { port: 0 }],
  [{ BOOT_DEADLINE: 'never', FETCH_DEADLINE: '7d' }, { deadlines: { boot: null, fetch: 7 * 86_400_000 } }],
  [{ PORT: '65535' }, { port: 65_535 }],
  [{ BOOT_LISTEN: '192.0.2.10:8081' }, { bootListen: { host: '192.0.2.10', port: 8081 } }],
  [{ BOOT_LISTEN: 'boot.example.com:1' }, { bootListen: { host: 'boot.example.com', port: 1 } }],
  [{ BOOT_LISTEN: '[2001:db8::1]:8081' }, { bootListen: { host: '2001:db8::1', port: 8081 } }],
  [{ PUBLIC_URL: 'http://192.0.2.10:8080' }, { publicUrl: 'http://192.0.2.10:8080' }],
  [{ PUBLIC_URL: 'http://192.0.2.10:8080/' }, { publicUrl: 'http://192.0.2.10:8080' }],
  [{ PUBLIC_URL: 'https://Boot.example.com:443/x/y//' }, { publicUrl: 'https://boot.example.com/x/y' }],
  [{ PUBLIC_URL: 'http://[2001:DB8::1]:8080' }, { publicUrl: 'http://[2001:db8::1]:8080' }],
  [{ DATA_DIR: '/var/lib/bootbundle' }, { dataDir: '/var/lib/bootbundle' }],
  [{ DATABASE_URL: 'postgres://u:p@db/x' }, { databaseUrl: 'postgres://u:p@db/x' }],
  [{ DATABASE_URL: 'postgresql:///x?host=/run' }, { databaseUrl: 'postgresql:///x?host=/run' }],
  [{ ADMIN_TOKEN: 'x'.repeat(20) }, { adminToken: 'x'.repeat(20) }],
  [{ KEY: SECRET }, { keys: [new TextEncoder().encode(SECRET)] }],
  [{ KEY: `${SECRET}, ${'o'.repeat(32)}` }, { keys: [new TextEncoder().encode(SECRET), new Uint8Array(32).fill(0x6f)] }],
  [{ CLOUD_INIT_SCHEMA: '/srv/schemas' }, { cloudInitSchema: '/srv/schemas' }],
  ...(
    [
      [{ CLOSE_AFTER: '2m' }, { closeAfter: 120_000 }],
      [{ CLOSE_AFTER: 'success' }, { closeAfter: 'success' }],
      [{ CLOSE_AFTER: 'never' }, { closeAfter: 'never' }],
      [{ EXPIRES_AFTER: '7d' }, { expiresAfter: 604_800_000 }],
      [{ ALLOW_FROM: '192.0.2.0/24, 2001:DB8::/32' }, { allowFrom: ['192.0.2.0/24', '2001:db8::/32'] }],
    ] satisfies [Record<string, string>, Partial<PolicyDefaults>][]
  ).map(
    ([env, policy]) => [env, { policyDefaults: { ...DEFAULT_POLICY, ...policy } }] satisfies [Record<string, string>, object],
  ),
  [{ TRUSTED_PROXIES: '::ffff:192.0.2.5,10.0.0.0/8' }, { trustedProxies: ['192.0.2.5', '10.0.0.0/8'] }],
  ...['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'].map(
    (level) => [{ LOG_LEVEL: level }, { logLevel: level }] satisfies [object, object],
  ),
];

for (const [env, expected] of GOOD)
  test(`taken: ${JSON.stringify(env).replaceAll(SECRET, '…')}`, () => assert.deepEqual(read(env), { ...read(), ...expected }));

const BAD: Record<string, string[]> = {
  HOST: ['a b', 'a/b', 'http://x', '[::1]', '127.0.0.1:80', '-x', 'x-', 'x\n', '::1::', 'é', '*'],
  BOOT_DEADLINE: ['0', '30', '1w', '1.5h', 'Never', '99999d', '-1m'],
  FETCH_DEADLINE: [' 1h', '1h '],
  PORT: ['65536', '-1', '1.5', 'x', '8080 ', '0x50', '1e3', '100000', '٣'],
  BOOT_LISTEN: [
    '8081',
    ':8081',
    'host',
    'host:',
    'host:x',
    'host:65536',
    '::1:8081',
    '[::1]',
    '[x]:1',
    'a b:1',
    'http://x:1',
    'host:0',
  ],
  PUBLIC_URL: [
    'x',
    '192.0.2.10:8080',
    'ftp://192.0.2.10',
    'file:///x',
    'http://',
    'http://u@192.0.2.10',
    `http://u:${SECRET}@192.0.2.10`,
    `http://:${SECRET}@192.0.2.10`,
    'http://192.0.2.10/?',
    'http://192.0.2.10/?a=b',
    'http://192.0.2.10/#',
    'http://192.0.2.10/#a',
    `http://192.0.2.10/${'x'.repeat(120)}`,
    // 40 characters that are sent as 120.
    `http://192.0.2.10/${' '.repeat(20)}${'é'.repeat(20)}x`,
  ],
  DATABASE_URL: [
    `postgres://u:${SECRET}@db:x/y`,
    `mysql://u:${SECRET}@db/x`,
    SECRET,
    ` postgres://u:${SECRET}@db/x`,
    'sqlite:x.db',
  ],
  ADMIN_TOKEN: ['short', 'x'.repeat(19), `${SECRET} x`, `${SECRET}\n`, `${SECRET}é`, `\t${SECRET}`],
  KEY: [
    'short',
    'x'.repeat(31),
    `${SECRET},`,
    `,${SECRET}`,
    `${SECRET},${'x'.repeat(31)}`,
    ' '.repeat(40),
    '\0'.repeat(40),
    '\ufffd'.repeat(40),
    `${SECRET} ${SECRET}`,
  ],
  CLOSE_AFTER: ['119s', '0', '1 h', 'Never', 'always', '-1h'],
  EXPIRES_AFTER: ['never', '0d', '7', '1w'],
  ALLOW_FROM: ['192.0.2.7/24', 'x', '192.0.2.0/24,', 'example.com', '10.0.0.0/8 192.0.2.0/24'],
  TRUSTED_PROXIES: ['true', '*', 'loopback', '10.0.0.0/33', '::1%lo'],
  LOG_LEVEL: ['loud', 'INFO', 'info '],
  LEDGER_RETENTION: ['0', '59m', '3651d', '400', '1.5d', 'Never', '-1d'],
};

for (const [name, values] of Object.entries(BAD))
  test(`${name}: a bad value stops the start with one line that names it`, () => {
    for (const value of values) refused(name, { [name]: value });
  });

test('the longest URL still makes a stub of less than 200 bytes', () => {
  const publicUrl = `http://192.0.2.10/${'x'.repeat(102)}`;
  assert.equal(read({ PUBLIC_URL: publicUrl }).publicUrl, publicUrl);
  assert.ok(`#include-once\n${publicUrl}/i/${'x'.repeat(40)}/user-data\n`.length < 200);
  refused('PUBLIC_URL', { PUBLIC_URL: `${publicUrl}x` });
});

test('every setting that is no secret has a flag, which goes before the variable', () => {
  const values: Record<string, string> = {
    HOST: 'flag.example.com',
    PORT: '1',
    BOOT_LISTEN: 'flag.example.com:2',
    PUBLIC_URL: 'http://flag.example.com',
    DATA_DIR: '/flag',
    CLOUD_INIT_SCHEMA: '/flag.json',
    BOOT_DEADLINE: '1m',
    FETCH_DEADLINE: 'never',
    LOG_LEVEL: 'debug',
    CLOSE_AFTER: 'never',
    EXPIRES_AFTER: '1d',
    ALLOW_FROM: '192.0.2.1',
    TRUSTED_PROXIES: '192.0.2.2',
    LEDGER_RETENTION: '90d',
  };
  const open = SETTINGS.filter((setting) => !('secret' in setting)).map(({ name }) => name);
  assert.deepEqual(Object.keys(values).sort(), [...open].sort());
  const env = { HOST: 'env', PORT: '9', BOOT_LISTEN: 'env:9', PUBLIC_URL: 'http://env', DATA_DIR: '/env', LOG_LEVEL: 'warn' };
  for (const [name, value] of Object.entries(values)) {
    assert.deepEqual(read(env, { [flagOf(name)]: value }), read({ ...env, [name]: value }));
    assert.notDeepEqual(read(env, { [flagOf(name)]: value }), read(env));
  }
});

test('a bad flag is refused under the name of its variable', () => {
  refused('PORT', { PORT: '8080' }, { port: 'x' });
});

test('a secret has no flag, and an unknown flag is not passed over', () => {
  for (const flag of ['admin-token', 'key', 'database-url', 'hots', 'HOST', 'data_dir', 'key-file'])
    assert.throws(
      () => read({}, { [flag]: SECRET }),
      (error) => error instanceof ConfigError && error.message.startsWith(`--${flag}: `) && !error.message.includes(SECRET),
    );
});

test('a secret may come from a file; white space around it does not count', (t) => {
  assert.equal(read({ ADMIN_TOKEN_FILE: file(t, `${SECRET}\n`) }).adminToken, SECRET);
  assert.deepEqual(read({ KEY_FILE: file(t, `\n${SECRET},${SECRET}x\r\n`) }).keys, read({ KEY: `${SECRET},${SECRET}x` }).keys);
  assert.equal(read({ DATABASE_URL_FILE: file(t, 'postgres://db/x\n') }).databaseUrl, 'postgres://db/x');
  assert.equal(read({ ADMIN_TOKEN: '', ADMIN_TOKEN_FILE: file(t, SECRET) }).adminToken, SECRET);
});

for (const name of ['ADMIN_TOKEN', 'KEY', 'DATABASE_URL'])
  test(`${name}_FILE: one that is missing, empty, a folder or set beside ${name} stops the start`, (t) => {
    refused(`${name}_FILE`, { [`${name}_FILE`]: '/nonexistent/secret' });
    refused(`${name}_FILE`, { [`${name}_FILE`]: tmpdir() });
    refused(`${name}_FILE`, { [`${name}_FILE`]: file(t, ' \n') });
    const both = refused(name, { [name]: SECRET, [`${name}_FILE`]: file(t, SECRET) });
    assert.match(both, new RegExp(`BOOTBUNDLE_${name}_FILE`));
    refused(name, { [`${name}_FILE`]: file(t, 'hunter2 no good\n') }, {}, 'hunter2');
  });

test('a key file of raw bytes is refused: read as text they would be garbled', (t) => {
  refused('KEY', { KEY_FILE: file(t, Buffer.alloc(64, 0xe9)) });
});

test('what is no secret is not read from a file', () => {
  assert.equal(read({ HOST_FILE: '/nonexistent' }).host, '127.0.0.1');
});

test('listening on a wildcard needs the URL that machines see', () => {
  for (const host of ['0.0.0.0', '::', '0', '0.0', '::0', '0:0:0:0:0:0:0:0']) {
    assert.ok(isWildcard(host), host);
    refused('PUBLIC_URL', { HOST: host });
    assert.equal(read({ HOST: host, PUBLIC_URL: 'http://192.0.2.10' }).publicUrl, 'http://192.0.2.10');
  }
  for (const host of ['127.0.0.1', '::1', 'localhost', '192.0.2.10', '10.0.0.0', '2001:db8::', 'fe80::1%eth0'])
    assert.ok(!isWildcard(host), host);
});

test('with a listener of their own it is that one machines see', () => {
  refused('PUBLIC_URL', { BOOT_LISTEN: '0.0.0.0:8081' });
  refused('PUBLIC_URL', { BOOT_LISTEN: '[::]:8081' });
  assert.equal(read({ HOST: '0.0.0.0', BOOT_LISTEN: '192.0.2.10:8081' }).publicUrl, null);
});

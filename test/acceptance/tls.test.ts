import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { makeCertificate } from '../certificate.ts';
import { runServe, type Server, startServer, temporaryDirectory } from './server.ts';

const files = makeCertificate();
const TLS = { BOOTBUNDLE_TLS_CERT: files.cert, BOOTBUNDLE_TLS_KEY: files.key };

const curl = async (...args: string[]) => (await promisify(execFile)('curl', ['-sS', ...args])).stdout;

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as { port: number };
  probe.close();
  await once(probe, 'close');
  return port;
}

/** Registers a machine by curl, as an operator does. @returns its include URL */
async function register({ url, data }: Server, script: string, copies = 1): Promise<URL> {
  const trusted = ['--fail-with-body', '--cacert', files.cert, '-K', join(data, 'admin.curlrc')];
  const file = join(data, 'a.sh');
  writeFileSync(file, script);
  for (let copy = 0; copy < copies; copy++) await curl(...trusted, '-T', file, `${url}/api/v1/bundles/web/parts/${copy}.sh`);
  await curl(...trusted, '-X', 'PUT', '--json', '{"bundles": ["web"]}', `${url}/api/v1/instances/vm`);
  return new URL((await curl(...trusted, `${url}/api/v1/instances/vm/stub`)).split('\n')[1] ?? '');
}

test('operators and machines are served by https, and the URLs that are told say so', async () => {
  const server = await startServer(TLS);
  assert.match(server.url, /^https:/);
  const include = await register(server, '#!/bin/sh\necho hello\n');
  assert.equal(include.origin, server.url);
  const answer = await curl('-i', '--cacert', files.cert, include.href);
  assert.match(answer, /^HTTP\/1\.1 200 OK/);
  assert.match(answer, /strict-transport-security: max-age=31536000/i);
  assert.match(answer, /echo hello/);
  await assert.rejects(curl(include.href), /certificate/, 'nobody else vouches for it');
  assert.equal(await server.stop(), 0);
  assert.match(server.stderr(), new RegExp(`self-signed: curl needs --cacert ${files.cert}\n`));
  assert.match(server.stdout(), /machines are served with a self-signed certificate/);
  assert.doesNotMatch(server.stdout(), /in the clear/);
});

test('with BOOT_TLS=false machines are served without TLS on their own listener, operators with it', async () => {
  const port = await freePort();
  const server = await startServer({ ...TLS, BOOTBUNDLE_BOOT_LISTEN: `127.0.0.1:${port}`, BOOTBUNDLE_BOOT_TLS: 'false' });
  const include = await register(server, '#!/bin/sh\necho hello\n');
  assert.equal(include.origin, `http://127.0.0.1:${port}`);
  const answer = await curl('-i', include.href);
  assert.match(answer, /echo hello/);
  assert.doesNotMatch(answer, /strict-transport-security/i);
  assert.doesNotMatch(server.stdout(), /machines are served with a self-signed/);
  assert.equal(await server.stop(), 0);
});

test('plain HTTP and nonsense on a port for TLS end the connection at once, and harm nobody', async () => {
  const server = await startServer({ ...TLS, BOOTBUNDLE_LOG_LEVEL: 'trace' });
  for (const text of [
    'GET /i/SECRET/user-data HTTP/1.1\r\nHost: x\r\n\r\n',
    'SECRET\n\n\n\n',
    '\x16\x03\x01\xff\xffSECRET'.repeat(50),
  ]) {
    const began = performance.now();
    const socket = connect(server.port, '127.0.0.1').on('error', () => undefined);
    socket.resume().write(text);
    await once(socket, 'close');
    assert.ok(performance.now() - began < 2000, JSON.stringify(text.slice(0, 20)));
  }
  assert.match(await curl('--cacert', files.cert, `${server.url}/healthz`), /^ok/);
  assert.equal(await server.stop(), 0);
  assert.doesNotMatch(server.stdout() + server.stderr(), /SECRET/);
});

test('a stop waits for no handshake, and cuts no document short', async () => {
  const server = await startServer(TLS);
  const script = `#!/bin/sh\n${'# a long line of a löng script\n'.repeat(105_000)}`;
  const include = await register(server, script, 3);
  const idle = connect(server.port, '127.0.0.1').on('error', () => undefined);
  await once(idle, 'connect');
  const sent = request(include, { rejectUnauthorized: false, agent: false }).end();
  const [answer] = await once(sent, 'response');
  // Slowly, so that the end is asked for while most of it is still to be sent.
  answer.pause();
  const began = performance.now();
  const stopped = server.stop();
  await sleep(300);
  let length = 0;
  for await (const chunk of answer) length += chunk.length;
  assert.ok(answer.complete && length > 3 * script.length, `${length} bytes`);
  assert.equal(await stopped, 0);
  assert.ok(performance.now() - began < 5000);
});

test('TLS that cannot be is one line that names the variable, and nothing is made', async () => {
  const other = makeCertificate();
  for (const [env, says] of [
    [{ BOOTBUNDLE_TLS_CERT: files.cert }, /BOOTBUNDLE_TLS_KEY: needed/],
    [{ BOOTBUNDLE_TLS_CERT: '/none', BOOTBUNDLE_TLS_KEY: files.key }, /BOOTBUNDLE_TLS_CERT: .*ENOENT/],
    [{ BOOTBUNDLE_TLS_CERT: files.cert, BOOTBUNDLE_TLS_KEY: other.key }, /BOOTBUNDLE_TLS_KEY: .*does not belong/],
    [{ ...TLS, BOOTBUNDLE_BOOT_TLS: 'false' }, /BOOTBUNDLE_BOOT_TLS: false needs BOOTBUNDLE_BOOT_LISTEN/],
  ] as const) {
    const data = temporaryDirectory();
    const { code, stderr } = await runServe({ BOOTBUNDLE_DATA_DIR: data, BOOTBUNDLE_PORT: '0', ...env });
    assert.deepEqual([code, stderr.split('\n').length], [1, 2], stderr);
    assert.match(stderr, says);
    assert.deepEqual(readdirSync(data), []);
  }
});

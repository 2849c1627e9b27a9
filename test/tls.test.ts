import assert from 'node:assert/strict';
import { once } from 'node:events';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type TLSSocket } from 'node:tls';
import { ConfigError } from '../src/config.ts';
import { openCertificate } from '../src/tls.ts';
import { makeCertificate, openssl } from './certificate.ts';

const one = makeCertificate();
const two = makeCertificate();

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'bootbundle-tls-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** A copy of a pair, for changing it. */
function copyOf(t: TestContext, { cert, key } = one) {
  const at = folder(t);
  const files = { cert: join(at, 'tls.pem'), key: join(at, 'tls.key') };
  copyFileSync(cert, files.cert);
  copyFileSync(key, files.key);
  return files;
}

test('files that cannot be served are one line that names the setting, and nothing of the key', async (t) => {
  const at = folder(t);
  const text = (content: string) => {
    const path = join(at, `${Math.random()}`);
    writeFileSync(path, content);
    return path;
  };
  const encrypted = join(at, 'encrypted.key');
  openssl('pkey', '-in', one.key, '-aes256', '-passout', 'pass:x', '-out', encrypted);
  const weak = makeCertificate({ bits: 512 });
  const ca = makeCertificate();
  const signed = makeCertificate({ issuer: ca });
  const [leaf, issuer] = [readFileSync(signed.cert, 'utf8'), readFileSync(ca.cert, 'utf8')];
  for (const [what, cert, key, says] of [
    ['no certificate', join(at, 'none'), one.key, /^BOOTBUNDLE_TLS_CERT: .*ENOENT/],
    ['no key', one.cert, join(at, 'none'), /^BOOTBUNDLE_TLS_KEY: .*ENOENT/],
    ['a folder', at, one.key, /^BOOTBUNDLE_TLS_CERT: .*EISDIR/],
    ['an empty certificate', text(''), one.key, /^BOOTBUNDLE_TLS_CERT: not a certificate/],
    ['a key for a certificate', one.key, one.key, /^BOOTBUNDLE_TLS_CERT: not a certificate/],
    ['a broken certificate', text(leaf.replace(/\nMII./, '\nAAAA')), signed.key, /^BOOTBUNDLE_TLS_CERT: not a certificate/],
    ['a broken issuer', text(leaf + issuer.replace(/\nMII./, '\nAAAA')), signed.key, /^BOOTBUNDLE_TLS_CERT: not a certificate/],
    ['a certificate for a key', one.cert, one.cert, /^BOOTBUNDLE_TLS_KEY: not a private key/],
    ['a key with a passphrase', one.cert, encrypted, /^BOOTBUNDLE_TLS_KEY: .*passphrase/],
    ["another's key", one.cert, two.key, /^BOOTBUNDLE_TLS_KEY: .*does not belong/],
    ['the issuer first', text(issuer + leaf), signed.key, /^BOOTBUNDLE_TLS_CERT: .*first/],
    ['a key that is too short', weak.cert, weak.key, /^BOOTBUNDLE_TLS_CERT: cannot be served: .*too small/],
  ] as const)
    await assert.rejects(openCertificate({ cert, key }), (error) => {
      assert.ok(error instanceof ConfigError, `${what}: ${error}`);
      assert.match(error.message, says, what);
      assert.doesNotMatch(error.message, /[\r\n]|PRIVATE KEY-----M/, what);
      return true;
    });
});

test('one that has expired, or is not valid yet, is served with a warning', async () => {
  const { warnings } = await openCertificate(one);
  const day = 24 * 60 * 60 * 1000;
  assert.deepEqual(warnings(Date.now()), []);
  assert.match(warnings(Date.now() + 2 * day).join(), /^BOOTBUNDLE_TLS_CERT: expired at \d{4}-/);
  assert.match(warnings(Date.now() - 2 * day).join(), /^BOOTBUNDLE_TLS_CERT: not valid before \d{4}-/);
});

test('who vouches for itself is told from who has an issuer', async () => {
  const ca = makeCertificate();
  assert.equal((await openCertificate(ca)).selfSigned, true);
  assert.equal((await openCertificate(makeCertificate({ issuer: ca }))).selfSigned, false);
});

/** An https server on these files that looks for others every few milliseconds. */
async function serve(t: TestContext, files: { cert: string; key: string }, ciphers?: string) {
  const certificate = await openCertificate(files);
  const server = createServer({ ...certificate.options, ...(ciphers ? { ciphers } : {}) }, (_request, response) =>
    response.end('ok'),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const told: (string | null)[] = [];
  const end = certificate.follow([server], (trouble) => told.push(trouble), 5);
  t.after(() => {
    end();
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const fingerprint = async () => {
    const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    const { fingerprint256 } = socket.getPeerCertificate();
    socket.destroy();
    return fingerprint256;
  };
  const until = async (count: number) => {
    for (let waited = 0; told.length < count && waited < 2000; waited += 5) await sleep(5);
    assert.equal(told.length, count);
  };
  return { port, told, fingerprint, until };
}

test('renewed files are served from then on, and connections stay; what is no good is told once, and the old one stays', async (t) => {
  const files = copyOf(t);
  const { port, told, fingerprint, until } = await serve(t, files);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const ask = async () => {
    const sent = request({ port, host: '127.0.0.1', agent, rejectUnauthorized: false }).end();
    const [answer] = await once(sent, 'response');
    answer.resume();
    await once(answer, 'end');
    return sent.socket as TLSSocket;
  };
  const connection = await ask();
  const first = await fingerprint();

  copyFileSync(two.cert, files.cert);
  await until(1);
  assert.match(told[0] ?? '', /BOOTBUNDLE_TLS_KEY: .*does not belong/, 'half of a pair');
  assert.equal(await fingerprint(), first);
  writeFileSync(files.key, 'nonsense');
  await until(2);
  assert.match(told[1] ?? '', /BOOTBUNDLE_TLS_KEY: not a private key/);
  rmSync(files.key);
  await until(3);
  assert.match(told[2] ?? '', /BOOTBUNDLE_TLS_KEY: .*ENOENT/);
  await sleep(50);
  assert.equal(told.length, 3, 'each is told once');
  assert.equal(await fingerprint(), first);

  copyFileSync(two.key, files.key);
  await until(4);
  assert.equal(told[3], null);
  assert.notEqual(await fingerprint(), first);
  assert.equal(await ask(), connection, 'the connection of before goes on');
});

test('nothing older than TLS 1.2 is spoken', async (t) => {
  // OpenSSL refuses the old ones by itself, unless told that anything is secure enough.
  const ciphers = 'DEFAULT:@SECLEVEL=0';
  const { port } = await serve(t, copyOf(t), ciphers);
  const protocol = async (version: 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3') => {
    const socket = connect({
      ...{ port, host: '127.0.0.1', rejectUnauthorized: false, ciphers },
      ...{ minVersion: version, maxVersion: version },
    });
    try {
      await once(socket, 'secureConnect');
      return socket.getProtocol();
    } catch (error) {
      return (error as NodeJS.ErrnoException).code;
    } finally {
      socket.destroy();
    }
  };
  assert.equal(await protocol('TLSv1.1'), 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION');
  assert.deepEqual([await protocol('TLSv1.2'), await protocol('TLSv1.3')], ['TLSv1.2', 'TLSv1.3']);
});

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fingerprintOf, withoutCapabilities } from '../../src/domain/report.ts';

const KEYGEN = '/usr/bin/ssh-keygen';

test('a fingerprint is the one that ssh-keygen prints', { skip: !existsSync(KEYGEN) && 'no ssh-keygen here' }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'bootbundle-keys-'));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const kind of ['rsa', 'ecdsa', 'ed25519']) {
    const file = join(folder, kind);
    execFileSync(KEYGEN, ['-q', '-t', kind, '-N', '', '-C', 'root@node 1', '-f', file]);
    const printed = execFileSync(KEYGEN, ['-l', '-f', `${file}.pub`], { encoding: 'utf8' });
    assert.equal(fingerprintOf(readFileSync(`${file}.pub`, 'utf8')), printed.split(' ')[1], kind);
  }
});

test('what is no key has none', () => {
  const key = 'AAAAC3NzaC1lZDI1NTE5AAAAIFdKRbYIaXuPUZ34kJjrvHJbTWsgu6iVrJDR3wLRA6ij';
  assert.match(fingerprintOf(`ssh-ed25519 ${key}`) ?? '', /^SHA256:[\w+/]{43}$/);
  for (const text of [
    '',
    'N/A',
    key,
    `ssh-rsa ${key}`,
    `ssh-ed25519 ${key}=`,
    `ssh-ed25519 ${key.slice(0, 8)}`,
    'x AAAA',
    'ssh-ed25519 ü',
  ])
    assert.equal(fingerprintOf(text), null, text);
});

test('of a capability only its place is left', () => {
  const capability = 'AAAAAAAAAAEAAAAAxOjtMExvTwMtctfQ2EUFXw-_';
  const text = (of: string) => `seed=http://h/s/${of}/ and "https://h/x/i/${of}" and /r/${of}`;
  assert.equal(withoutCapabilities(text(capability)), text('‹capability›'));
  for (const other of [`/q/${capability}`, `/r/${capability}x`, `/r/${capability.slice(1)}`])
    assert.equal(withoutCapabilities(other), other);
});

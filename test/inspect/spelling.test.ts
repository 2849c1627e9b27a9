import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closestKey } from '../../src/inspect/spelling.ts';

const KNOWN = ['runcmd', 'users', 'user', 'write_files', 'packages', 'apt', 'ntp', 'snap', 'swap', 'ca_certs', 'launch-index'];

test('a slip of the finger is understood, and another word is not', () => {
  for (const [key, meant] of [
    ['runmcd', 'runcmd'],
    ['runcmds', 'runcmd'],
    ['rncmd', 'runcmd'],
    ['Runcmd', 'runcmd'],
    ['write-files', 'write_files'],
    ['writefiles', 'write_files'],
    ['wite_fils', 'write_files'],
    ['WRITE_FILES', 'write_files'],
    ['package', 'packages'],
    ['usr', 'user'],
    ['launch_index', 'launch-index'],
    ['APT', 'apt'],
    ['atp', null],
    ['foo', null],
    ['x', null],
    ['', null],
    ['network', null],
    ['datasource', null],
    ['commands', null],
    ['runcmd-extra', null],
    ['u'.repeat(100_000), null],
  ] as const)
    assert.equal(closestKey(key, KNOWN), meant, key.slice(0, 20));
});

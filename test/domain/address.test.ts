import assert from 'node:assert/strict';
import { test } from 'node:test';
import { canonicalAddress, isWithin, readNetwork } from '../../src/domain/address.ts';

test('a network is kept in one spelling', () => {
  for (const [text, network] of [
    ['192.0.2.0/24', '192.0.2.0/24'],
    ['192.0.2.7', '192.0.2.7'],
    ['192.0.2.7/32', '192.0.2.7'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['2001:DB8:0:0::/32', '2001:db8::/32'],
    ['2001:db8::1/128', '2001:db8::1'],
    ['::/0', '::/0'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['::ffff:c000:207', '192.0.2.7'],
    ['::ffff:192.0.2.0/120', '192.0.2.0/24'],
    ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
  ] as const)
    assert.deepEqual(readNetwork(text), { network }, text);
});

test('what is no network says what to write', () => {
  for (const text of [
    '',
    '/',
    'x',
    'unknown',
    '1.2.3',
    '010.0.0.1',
    '0x7f.1',
    '127.1',
    '2130706433',
    '192.0.2.0/',
    '192.0.2.0/024',
  ])
    assert.match((readNetwork(text) as { why: string }).why, /^is no network: write 192\.0\.2\.0\/24/, text);
  for (const text of [
    'fe80::1%eth0',
    '::192.0.2.7',
    '::ffff:010.1.1.1',
    '1::2::3',
    '192.0.2.0/24/24',
    '192.0.2.0 /24',
    '*',
    ':'.repeat(9999),
  ])
    assert.match((readNetwork(text) as { why: string }).why, /^is no network/, text.slice(0, 40));
  for (const [text, why] of [
    ['192.0.2.7/24', 'write 192.0.2.0/24, or 192.0.2.7'],
    ['2001:db8::1/32', 'write 2001:db8::/32, or 2001:db8::1'],
    ['192.0.2.0/33', 'write /0 to /32'],
    ['::/129', 'write /0 to /128'],
    ['::ffff:192.0.2.0/24', 'write /96 to /128'],
  ] as const)
    assert.ok((readNetwork(text) as { why: string }).why.includes(why), text);
});

test('an address is in a network of its own family; an IPv4-mapped one is the IPv4 it maps', () => {
  const within: [string, string, boolean][] = [
    ['192.0.2.7', '192.0.2.0/24', true],
    ['192.0.3.7', '192.0.2.0/24', false],
    ['192.0.2.127', '192.0.2.0/25', true],
    ['192.0.2.128', '192.0.2.0/25', false],
    ['::ffff:192.0.2.7', '192.0.2.0/24', true],
    ['::ffff:c000:207', '192.0.2.7', true],
    ['192.0.2.7', '::/0', false],
    ['2001:db8::1', '0.0.0.0/0', false],
    ['2001:db8:1::5', '2001:db8::/32', true],
    ['2001:db9::5', '2001:db8::/32', false],
    ['2001:db8::0:1', '2001:db8::1', true],
    ['fe80::1%eth0', 'fe80::/10', true],
    ['', '0.0.0.0/0', false],
    ['unknown', '0.0.0.0/0', false],
    ['192.0.2.7', 'nonsense', false],
  ];
  for (const [address, network, expected] of within)
    assert.equal(isWithin(address, [network]), expected, `${address} ${network}`);
  assert.equal(isWithin('192.0.2.7', []), false);
  assert.equal(isWithin('192.0.2.7', ['10.0.0.0/8', '192.0.2.7']), true);
});

test('an address has one spelling, and what is none has none', () => {
  assert.equal(canonicalAddress('2001:0DB8:0:0::0:1'), '2001:db8::1');
  assert.equal(canonicalAddress('::ffff:192.0.2.7'), '192.0.2.7');
  for (const text of ['', 'unknown', '_hidden', '192.0.2.7:80', '[::1]', '192.0.2', 'a'.repeat(10_000)])
    assert.equal(canonicalAddress(text), null);
});

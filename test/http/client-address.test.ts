import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clientAddress } from '../../src/http/client-address.ts';
import { buildTestApp } from '../app.ts';

const PROXY = '192.0.2.5';
const TRUSTED = [PROXY, '10.0.0.0/8', '2001:db8:f::/48'];

test('what a trusted proxy says is believed, hop by hop; what anybody else says is not', () => {
  const rows: [what: string, peer: string, header: string | undefined, client: string][] = [
    ['no proxy', '198.51.100.7', undefined, '198.51.100.7'],
    ['a stranger that says something', '198.51.100.7', '203.0.113.9', '198.51.100.7'],
    ['one hop', PROXY, '198.51.100.7', '198.51.100.7'],
    ['what the client said before is not looked at', PROXY, '203.0.113.9, 198.51.100.7', '198.51.100.7'],
    ['a chain of proxies', PROXY, '198.51.100.7, 10.1.2.3', '198.51.100.7'],
    ['a chain with a lie in front', PROXY, '127.0.0.1, 198.51.100.7,10.1.2.3', '198.51.100.7'],
    ['a proxy that says nothing', PROXY, undefined, PROXY],
    ['an empty header', PROXY, '', PROXY],
    ['only proxies', PROXY, '10.0.0.1, 10.0.0.2', '10.0.0.1'],
    ['IPv6', '2001:db8:f::1', '2001:DB8:0::7', '2001:db8::7'],
    ['IPv6 in brackets with a port', '2001:db8:f::1', '[2001:db8::7]:4711', '2001:db8::7'],
    ['IPv6 in brackets', '2001:db8:f::1', '[2001:db8::7]', '2001:db8::7'],
    ['IPv4 with a port', PROXY, '198.51.100.7:4711', '198.51.100.7'],
    ['a mapped peer', `::ffff:${PROXY}`, '198.51.100.7', '198.51.100.7'],
    ['a mapped client', PROXY, '::ffff:198.51.100.7', '198.51.100.7'],
    ['unknown (RFC 7239)', PROXY, 'unknown', PROXY],
    ['hidden', PROXY, '_hidden', PROXY],
    ['garbage', PROXY, '"><script>', PROXY],
    ['garbage behind a hop', PROXY, '198.51.100.7, x, 10.0.0.1', '10.0.0.1'],
    ['a host name', PROXY, 'localhost', PROXY],
    ['short forms', PROXY, '127.1', PROXY],
    ['octal', PROXY, '010.0.0.1', PROXY],
    ['a zone', PROXY, 'fe80::1%eth0', PROXY],
    ['over-long', PROXY, 'a'.repeat(15_000), PROXY],
    ['a list without end', PROXY, '10.0.0.1,'.repeat(1500), PROXY],
    ['of proxies without end', PROXY, Array(1500).fill('10.0.0.1').join(), '10.0.0.1'],
    ['no peer', '', '198.51.100.7', ''],
  ];
  for (const [what, peer, header, client] of rows) assert.equal(clientAddress(peer, header, TRUSTED), client, what);
  assert.equal(clientAddress(PROXY, '198.51.100.7', []), PROXY, 'nobody is trusted by default');
});

test('ledger, policy and log know the client, and not who or what a header says it is', async (t) => {
  const test = await buildTestApp(t, { trustedProxies: [PROXY] });
  const path = await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  await test.api('PATCH', '/instances/vm', { policy: { allowFrom: ['198.51.100.0/24'] } });
  const fetch = async (remoteAddress: string, headers: Record<string, string>) =>
    (await test.boot(path, { remoteAddress, headers })).statusCode;
  assert.equal(await fetch(PROXY, { 'x-forwarded-for': '198.51.100.7' }), 200);
  assert.equal(await fetch('203.0.113.9', { 'x-forwarded-for': '198.51.100.7' }), 403, 'not by its own word');
  assert.equal(await fetch(PROXY, { 'x-forwarded-for': '198.51.100.7, 203.0.113.9' }), 403, 'the last hop counts');
  assert.equal(await fetch(PROXY, { 'x-forwarded-for': 'unknown' }), 403, 'the proxy itself is not allowed');
  const rows = (await test.api('GET', '/instances/vm/deliveries')).json().items.reverse();
  assert.deepEqual(
    rows.map(({ address }: { address: string }) => address),
    ['198.51.100.7', '203.0.113.9', '203.0.113.9', PROXY],
  );
  assert.match(test.log(), /"route":"\/i\/:capability\/user-data","status":200,[^\n]*"address":"198\.51\.100\.7"/);
});

test('X-Forwarded-Host and -Proto change nothing, and an error of the URL is logged under the client', async (t) => {
  const test = await buildTestApp(t, { trustedProxies: [PROXY] });
  await test.register('vm', { 'web/a.sh': '#!/bin/sh\n' });
  const headers = { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'gopher', 'x-forwarded-for': '198.51.100.7' };
  const plain = await test.api('GET', '/instances/vm');
  const answer = await test.app.inject({
    url: '/api/v1/instances/vm',
    remoteAddress: PROXY,
    headers: { ...headers, authorization: 'Bearer test-admin-token-0123456789' },
  });
  assert.equal(answer.body, plain.body);
  await test.app.inject({ url: '/i/%zz', remoteAddress: PROXY, headers });
  assert.match(test.log(), /"route":null,"status":404,[^\n]*"address":"198\.51\.100\.7"/);
});

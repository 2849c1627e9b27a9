import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { BootbundleError } from '../../src/domain/errors.ts';
import { PURPOSES } from '../../src/domain/instance.ts';
import { createKeyRing } from '../../src/service/keys.ts';
import { createLookupService } from '../../src/service/lookup.ts';
import { ANN } from '../actor.ts';
import { SPEC, storeWithRows } from '../rows.ts';

const keys = createKeyRing([Buffer.alloc(32, 2), Buffer.alloc(32, 1)]);
const oldKeys = createKeyRing([Buffer.alloc(32, 1)]);
const ID = '0123456789abcdef';
const UUID = '6b8b4567-327b-23c6-643c-986966334873';

async function bench(t: TestContext) {
  const { store, rows } = await storeWithRows(t);
  const service = createLookupService({ store, keys });
  const put = (name: string, freshId: string, metaData = {}) =>
    store.putInstances([{ name, spec: { ...SPEC, metaData }, freshId, expect: undefined }], { at: 0, by: ANN });
  const url = (text: string) => service.lookup({ kind: 'url', text });
  return { store, rows, service, put, url };
}

const is = (kind: string, code: string) => (error: unknown) =>
  error instanceof BootbundleError && error.kind === kind && error.code === code;

test('every form in which a URL is found, of each purpose, also under an old key', async (t) => {
  const { put, url } = await bench(t);
  await put('vm', ID);
  const instance = { id: ID, generations: { include: 0, seed: 0, report: 0 } };
  for (const purpose of PURPOSES)
    for (const ring of [keys, oldKeys]) {
      const capability = ring.capability(purpose, instance);
      const include = `#include-once\nhttp://192.0.2.10:8080/i/${capability}/user-data\n`;
      for (const text of [
        capability,
        ` ${capability}\n`,
        `http://elsewhere/i/${capability}/user-data`,
        `/s/${capability}/`,
        include,
        `ro quiet ds=nocloud;s=https://host/base/s/${capability}/ console=tty0`,
        Buffer.from(include).toString('base64'),
        Buffer.from(include)
          .toString('base64')
          .replace(/(.{20})/g, '$1\n'),
        `see https://host/r/${capability}, please`,
      ]) {
        const found = await url(text);
        assert.deepEqual([found.instance, found.by, found.purpose, found.works], ['vm', 'url', purpose, true], text);
        assert.ok(!JSON.stringify(found).includes(capability));
      }
    }
});

test('an old one, and one of a deleted instance, are told as such', async (t) => {
  const { store, put, url } = await bench(t);
  await put('vm', ID);
  const first = keys.capability('include', { id: ID, generations: { include: 0, seed: 0, report: 0 } });
  await store.retireInstance('vm', { expect: undefined, at: 1, by: ANN });
  const { instance, works, reason } = await url(first);
  assert.deepEqual([instance, works], ['vm', false]);
  assert.match(reason, /deleted/);
  await put('vm', ID);
  const old = await url(first);
  assert.deepEqual([old.instance, old.works], ['vm', false]);
  assert.match(old.reason, /old/);
});

test('what is no capability of ours is none, and is not quoted', async (t) => {
  const { put, url } = await bench(t);
  await put('vm', ID);
  const genuine = keys.capability('include', { id: ID, generations: { include: 0, seed: 0, report: 0 } });
  const foreign = createKeyRing([Buffer.alloc(32, 9)]).capability('include', {
    ...{ id: ID, generations: { include: 0, seed: 0, report: 0 } },
  });
  const stranger = keys.capability('include', { id: 'f'.repeat(16), generations: { include: 0, seed: 0, report: 0 } });
  for (const text of [foreign, stranger, `http://h/i/${genuine.toLowerCase()}/user-data`])
    await assert.rejects(url(text), (error) => {
      assert.ok(is('not_found', 'unknown_capability')(error), String(error));
      return !String(error).includes(text);
    });
  for (const text of ['http://h/', genuine.slice(1), `${genuine}A`, `http://h/i/${genuine}A/`, '!', 'a'.repeat(16_000)])
    await assert.rejects(url(text), is('malformed', 'no_clue'));
});

test('an address: whoever fetched from it last', async (t) => {
  const { rows, service, put } = await bench(t);
  await put('a', ID);
  await put('b', 'f'.repeat(16));
  const find = (text: string) => service.lookup({ kind: 'address', text });
  await rows.delivery('b', { at: 5, address: '192.0.2.7' });
  await rows.delivery('a', { at: 9, address: '192.0.2.7' });
  await rows.delivery('b', { at: 12, address: '2001:db8::1' });
  assert.equal((await find('192.0.2.7')).instance, 'a');
  assert.match((await find('2001:db8::1')).reason, /1970-01-01T00:00:00\.012Z/);
  await assert.rejects(find('192.0.2.8'), is('not_found', 'unknown_address'));
});

test('an instance-id: stated, made by us, or phoned home; a UUID in capitals is the same', async (t) => {
  const { store, rows, service, put } = await bench(t);
  const find = async (text: string) => (await service.lookup({ kind: 'instanceId', text })).instance;
  await put('a', ID, { 'instance-id': UUID });
  await put('b', 'f'.repeat(16));
  assert.equal(await find(UUID), 'a');
  assert.equal(await find(UUID.toUpperCase()), 'a');
  assert.equal(await find(`i-${'f'.repeat(16)}`), 'b');
  const told = UUID.replace('6b', '7c');
  await assert.rejects(find(told), is('not_found', 'unknown_instance_id'));
  const phoneHome = { instanceId: told, hostname: '', fqdn: '', hostKeys: [] };
  await rows.report('b', 3, { kind: 'phoneHome', phoneHome });
  assert.equal(await find(told), 'b');
  await store.retireInstance('a', { expect: undefined, at: 4, by: ANN });
  assert.match((await service.lookup({ kind: 'instanceId', text: UUID })).reason, /deleted/);
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cloudInitInstanceId } from '../../src/domain/instance.ts';

const id = '0123456789abcdef';

test('cloud-init knows a machine by its id, which lasts as long as the registration', () => {
  assert.equal(cloudInitInstanceId({ id, metaData: {} }), 'i-0123456789abcdef');
});

test('metaData may say another; what is no text does not count', () => {
  assert.equal(cloudInitInstanceId({ id, metaData: { 'instance-id': 'iid-1' } }), 'iid-1');
  for (const wrong of ['', null, 5, ['x'], {}, true])
    assert.equal(cloudInitInstanceId({ id, metaData: { 'instance-id': wrong } }), 'i-0123456789abcdef');
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BootbundleError } from '../../src/domain/errors.ts';
import {
  checkPolicy,
  DEFAULT_POLICY,
  type PolicyDefaults,
  type PolicySpec,
  parseTime,
  policyInForce,
  refusalOf,
  SECRET_WINDOW_MS,
  type WindowFacts,
  windowAt,
} from '../../src/domain/policy.ts';

const T = Date.UTC(2026, 0, 1);
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const FACTS: WindowFacts = {
  createdAt: T,
  reopenedAt: null,
  closedAt: null,
  openUntil: null,
  firstDeliveryAt: null,
  boot: { readyAt: null },
};

function force(
  spec: PolicySpec = {},
  defaults: Partial<PolicyDefaults> = {},
  secrets = false,
  facts: Partial<WindowFacts> = {},
) {
  return policyInForce(spec, { ...DEFAULT_POLICY, ...defaults }, { ...FACTS, ...facts }, secrets);
}

test('a stated policy is kept in one spelling', () => {
  for (const [stated, kept] of [
    [{}, {}],
    [{ closeAfter: '2m' }, { closeAfter: '2m' }],
    [{ closeAfter: 'success' }, { closeAfter: 'success' }],
    [{ closeAfter: 'never' }, { closeAfter: 'never' }],
    [{ expiresAt: '2026-06-01T12:00:00+02:00' }, { expiresAt: '2026-06-01T10:00:00.000Z' }],
    [{ allowFrom: [] }, { allowFrom: [] }],
    [{ allowFrom: ['2001:DB8::/32', '::ffff:192.0.2.7', '192.0.2.7/32'] }, { allowFrom: ['2001:db8::/32', '192.0.2.7'] }],
    [{ afterClose: 'refuse' }, { afterClose: 'refuse' }],
    [{ afterClose: ['web@stable', 'db@3'] }, { afterClose: ['web@stable', 'db@3'] }],
  ] satisfies [PolicySpec, PolicySpec][]) {
    assert.deepEqual(checkPolicy(stated), kept);
    assert.deepEqual(checkPolicy(kept), kept, 'and stays as it is');
  }
});

test('a policy that cannot be meant is refused with what to write', () => {
  for (const [stated, says] of [
    [{ closeAfter: '119s' }, /at least 2m: cloud-init asks up to 11 times/],
    [{ closeAfter: 'auto' }, /duration .*success or never/],
    [{ closeAfter: '1 hour' }, /duration/],
    [{ closeAfter: '' }, /duration/],
    [{ expiresAt: '2026-06-01' }, /RFC 3339.*2026-12-31T23:59:59Z/],
    [{ expiresAt: '2026-02-30T00:00:00Z' }, /RFC 3339/],
    [{ expiresAt: '2026-06-01T24:00:00Z' }, /RFC 3339/],
    [{ expiresAt: '2026-06-01T00:00:00' }, /RFC 3339/],
    [{ expiresAt: 'tomorrow' }, /RFC 3339/],
    [{ allowFrom: ['192.0.2.7/24'] }, /"192\.0\.2\.7\/24".*write 192\.0\.2\.0\/24/],
    [{ allowFrom: ['example.com'] }, /"example\.com" is no network/],
    [{ afterClose: [] }, /refuse, or/],
    [{ afterClose: ['web', 'web@2'] }, /web twice/],
    [{ afterClose: Array.from({ length: 65 }, (_, n) => `b${n}`) }, /at most 64/],
  ] satisfies [PolicySpec, RegExp][])
    assert.throws(
      () => checkPolicy(stated),
      (error) => error instanceof BootbundleError && error.code === 'bad_policy' && says.test(error.message),
      JSON.stringify(stated).slice(0, 60),
    );
});

test('a time is read whatever its offset', () => {
  assert.equal(parseTime('2026-01-01T00:00:00Z'), T);
  assert.equal(parseTime('2025-12-31t19:00:00.000-05:00'), T);
  assert.equal(parseTime('2024-02-29T00:00:00Z'), Date.UTC(2024, 1, 29));
  for (const text of ['', '2026-01-01 00:00:00Z', '2023-02-29T00:00:00Z', '2026-01-01T00:00:60Z', '+002026-01-01T00:00:00Z'])
    assert.equal(parseTime(text), null, text);
});

test('what is not stated is the default, and the sentence says which it is', () => {
  for (const [policy, closeAfter, why] of [
    [force({}, {}, true), SECRET_WINDOW_MS, /^closes 1h after the first delivery, because secrets are in the document$/],
    [force(), null, /^stays open, because no secrets are in the document/],
    [force({ closeAfter: '10m' }, {}, true), 10 * MINUTE, /^closes 10m after the first delivery, as the instance states$/],
    [force({ closeAfter: 'never' }, {}, true), null, /^stays open, as the instance states$/],
    [force({ closeAfter: 'success' }), 'success', /^closes once the machine has reported success, as the instance states$/],
    [force({}, { closeAfter: 2 * HOUR }), 2 * HOUR, /^closes 2h after the first delivery, as is the default here$/],
    [force({}, { closeAfter: 'never' }, true), null, /^stays open, as is the default here$/],
    [force({}, { closeAfter: 'success' }), 'success', /as is the default here$/],
  ] as const) {
    assert.equal(policy.closeAfter, closeAfter);
    assert.match(policy.why, why);
  }
  const whole = force({ expiresAt: '2026-06-01T00:00:00Z', allowFrom: ['10.0.0.0/8'], afterClose: ['web'] });
  assert.equal(whole.expiresAt, Date.UTC(2026, 5, 1));
  assert.match(
    whole.why,
    /; it expires at 2026-06-01T00:00:00\.000Z, as the instance states; only 10\.0\.0\.0\/8 may fetch, as the instance states; whoever may not is served web$/,
  );
  assert.deepEqual(force({}, { allowFrom: ['10.0.0.0/8'] }).allowFrom, ['10.0.0.0/8']);
  assert.deepEqual(force({ allowFrom: [] }, { allowFrom: ['10.0.0.0/8'] }).allowFrom, [], 'from everywhere, stated');
});

test('the default expiry counts from the registration, or from its reopening', () => {
  assert.equal(force({}, { expiresAfter: HOUR }).expiresAt, T + HOUR);
  assert.equal(force({}, { expiresAfter: HOUR }, false, { reopenedAt: T + 5 * HOUR }).expiresAt, T + 6 * HOUR);
  assert.equal(force({ expiresAt: '2026-06-01T00:00:00Z' }, { expiresAfter: HOUR }).expiresAt, Date.UTC(2026, 5, 1));
});

test('a window: by hand before all, then reopened until, then whichever end comes first', () => {
  const hour = force({ closeAfter: '1h', expiresAt: '2026-01-01T03:00:00Z' });
  const at = (facts: Partial<WindowFacts>, time: number, policy = hour) => windowAt(policy, { ...FACTS, ...facts }, time);
  assert.deepEqual(at({}, T), { open: true, closesAt: T + 3 * HOUR });
  const fetched = { firstDeliveryAt: T + MINUTE };
  assert.deepEqual(at(fetched, T + HOUR), { open: true, closesAt: T + MINUTE + HOUR });
  assert.deepEqual(at(fetched, T + MINUTE + HOUR), { open: false, since: T + MINUTE + HOUR, because: 'delivered' });
  assert.deepEqual(at({}, T + 3 * HOUR), { open: false, since: T + 3 * HOUR, because: 'expired' });
  assert.deepEqual(at({ ...fetched, closedAt: T + 5 }, T + 6), { open: false, since: T + 5, because: 'closed' });
  assert.deepEqual(at({ closedAt: T + 5, openUntil: T + HOUR }, T + 6), { open: false, since: T + 5, because: 'closed' });
  const reopened = { ...fetched, openUntil: T + 9 * HOUR };
  assert.deepEqual(at(reopened, T + 8 * HOUR), { open: true, closesAt: T + 9 * HOUR });
  assert.deepEqual(at(reopened, T + 9 * HOUR), { open: false, since: T + 9 * HOUR, because: 'expired' });
  const success = force({ closeAfter: 'success' });
  assert.equal(at(fetched, T + 99 * HOUR, success).open, true);
  const ready = { ...fetched, boot: { readyAt: T + 2 * MINUTE } };
  assert.deepEqual(at(ready, T + HOUR, success), { open: false, since: T + 2 * MINUTE, because: 'succeeded' });
});

test('a fetch is refused for its address before all; a repeat is refused only after a close by hand', () => {
  const policy = force({ closeAfter: '2m', allowFrom: ['192.0.2.0/24'] });
  const shut = { ...FACTS, firstDeliveryAt: T };
  const fetch = { address: '192.0.2.7', at: T + 2 * MINUTE, repeat: false };
  assert.equal(refusalOf(policy, FACTS, fetch), null);
  assert.equal(refusalOf(policy, shut, fetch), 'delivered');
  assert.equal(refusalOf(policy, shut, { ...fetch, repeat: true }), null);
  assert.equal(refusalOf(policy, shut, { ...fetch, repeat: true, address: '198.51.100.1' }), 'address');
  assert.equal(refusalOf(policy, FACTS, { ...fetch, address: '198.51.100.1' }), 'address');
  assert.equal(refusalOf(policy, FACTS, { ...fetch, address: 'unknown' }), 'address');
  assert.equal(refusalOf(policy, { ...shut, closedAt: T }, { ...fetch, repeat: true }), 'closed');
});

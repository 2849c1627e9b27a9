import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  type BootFacts,
  type Expectations,
  NO_BOOT,
  noteDelivery,
  noteManifest,
  notePhoneHome,
  noteReport,
  noteResult,
  noteUnrendered,
  stateAt,
  stateOf,
  waitingSince,
} from '../../src/domain/boot.ts';
import type { ReportBody } from '../../src/domain/report.ts';

/**
 * What real machines said: cloud-init 22.4.2 and 25.1.4, each two boots, in the order in which it came. A line is an event (type, name, result,
 * description, seconds), `phone-home`, or `result.json` and its text.
 */
const FOLDER = new URL('boots/', import.meta.url);

function reportOf(line: string): ReportBody {
  const [type, ...rest] = JSON.parse(line);
  if (type === 'phone-home') return { kind: 'phoneHome', phoneHome: { instanceId: '', hostname: '', fqdn: '', hostKeys: [] } };
  if (type === 'result.json') return { kind: 'log', log: { name: type, text: rest[0], truncated: false } };
  const [name, result, description, seconds] = rest;
  return { kind: 'event', event: { type, name, result, description, at: Math.round(seconds * 1000) } };
}

const streams = readdirSync(FOLDER).map((file) => {
  const lines = readFileSync(new URL(file, FOLDER), 'utf8').trim().split('\n');
  const [, version = '', what = ''] = /^([\d.]+)-(.*)\.jsonl$/.exec(file) ?? [];
  return { version, what, reports: lines.map(reportOf) };
});

const ALL: Expectations = { events: true, phoneHome: true, manifests: [] };
const delivered = (expects: Partial<Expectations> = {}, facts: BootFacts = NO_BOOT, purpose: 'include' | 'seed' = 'include') =>
  noteDelivery(facts, { at: 1000, purpose, expects: { ...ALL, ...expects } });
const told = (facts: BootFacts, reports: readonly ReportBody[]) =>
  reports.reduce((before, report, index) => noteReport(before, report, 2000 + index), facts);
const isFinal = (report: ReportBody) => report.kind === 'event' && report.event.name === 'modules-final';
/** The two boots of a stream: what comes after the last word of the first belongs to the second. */
function boots({ reports }: { reports: readonly ReportBody[] }): [ReportBody[], ReportBody[]] {
  const second = reports.findIndex((report) => report.kind === 'event' && report.event.name.startsWith('init-local'));
  return [reports.slice(0, second), reports.slice(second)];
}
const event = (name: string, at: number, result: string | null = 'SUCCESS', description = 'ran successfully'): ReportBody => {
  return { kind: 'event', event: { name, type: result === null ? 'start' : 'finish', description, result, at } };
};

const RUNPARTS = 'Runparts: 1 failures (runcmd) in 2 attempted commands';
const ENDS: Record<string, { state: string; reason: RegExp }> = {
  'two-good-boots': { state: 'ready', reason: /^it reported that all/ },
  'reboot-with-include-gone': { state: 'ready', reason: /^it reported that all/ },
  'failing-script-then-reboot': {
    state: 'failed',
    reason: /^cloud-init reported that modules-config\/config-ntp failed \(and 1 more\): Invalid ntp configuration/,
  },
};

for (const stream of streams)
  describe(`cloud-init ${stream.version}, ${stream.what}`, () => {
    const end = ENDS[stream.what];
    assert.ok(end);
    const [first, second] = boots(stream);

    test('it is booting until the first boot is over, and a reboot is no way to another state in the end', () => {
      const before = first.filter((report) => !isFinal(report) && report.kind === 'event' && report.event.result !== 'FAIL');
      assert.equal(stateOf(told(delivered(), before)).state, 'booting');
      const over = told(delivered(), first);
      for (const facts of [over, told(over, second)]) {
        assert.equal(stateOf(facts).state, end.state);
        assert.match(stateOf(facts).reason, end.reason);
      }
      const rebooting = stateOf(told(over, second.slice(0, 10)));
      assert.equal(rebooting.state, end.state === 'ready' ? 'booting' : end.state);
    });

    test('in any order, and with any of it twice, it ends in the same state', () => {
      const order = fc.shuffledSubarray([...stream.reports.keys(), ...stream.reports.keys()], {
        minLength: 2 * stream.reports.length,
      });
      fc.assert(
        fc.property(order, (indexes) => {
          const { state, reason } = stateOf(
            told(
              delivered(),
              indexes.map((index) => stream.reports[index] as ReportBody),
            ),
          );
          assert.equal(state, end.state);
          assert.match(reason, end.reason);
        }),
        { numRuns: 30 },
      );
    });

    test('a machine whose seed is fetched at its reboot, too, ends as well', () => {
      assert.equal(stateOf(told(delivered({}, told(delivered(), first), 'seed'), second)).state, end.state);
    });
  });

test('where events were lost, result.json tells of the end, and of what failed', () => {
  const home = notePhoneHome(delivered(), 2);
  assert.equal(stateOf(noteResult(home, [], 3)).state, 'ready');
  const failed = noteResult(home, [`('scripts_user', RuntimeError('${RUNPARTS}'))`, 'no pair'], 3);
  assert.equal(stateOf(failed).reason, `cloud-init reported an error of scripts_user: ${RUNPARTS}`);
  assert.equal(
    stateOf(noteResult(home, ['what a root likes to say'], 3)).reason,
    'cloud-init reported an error: what a root likes to say',
  );
  const log = (text: string): ReportBody => ({ kind: 'log', log: { name: 'result.json', text, truncated: false } });
  for (const text of ['', '{', '[]', 'null', '{"v1": null}', '{"v1": {"errors": {}}}', '['.repeat(60_000)])
    assert.deepEqual(noteReport(home, log(text), 9), { ...home, lastWordAt: 9 }, text.slice(0, 20));
});

test('a module that runs well later is no failure any more; one that is passed over is', () => {
  const failed = told(delivered(), [event('modules-final/config-scripts-user', 5, 'FAIL'), event('modules-final', 6, 'FAIL')]);
  const passed = told(failed, [
    event('modules-final/config-scripts-user', 15, 'SUCCESS', 'config-scripts-user previously ran'),
  ]);
  assert.equal(stateOf(passed).state, 'failed');
  const healed = told(noteResult(passed, [`('scripts-user', RuntimeError('${RUNPARTS}'))`], 8), [
    event('modules-final/config-scripts-user', 20),
    event('modules-final', 21),
  ]);
  assert.deepEqual([healed.failures, healed.errors], [[], []]);
  // What comes late is older.
  assert.equal(stateOf(told(healed, [event('init-network', 4, 'SUCCESS')])).state, 'booting', 'its phone-home is missing');
});

test('a clock that was set back while it booted holds nothing up', () => {
  const facts = told(delivered(), [
    event('init-network/config-ssh', 7_000_000),
    event('init-network', 7_000_001),
    event('modules-config', 1000),
    event('modules-final', 2000),
  ]);
  assert.equal(stateOf(notePhoneHome(facts, 9)).state, 'ready');
});

test('a boot that is a later one of the same machine does not wait for what is done once', () => {
  const done = { events: true, phoneHome: true, manifests: ['03-a.yaml'] };
  const passedOver = [
    event('modules-final/config-scripts-user', 5, 'SUCCESS', 'config-scripts-user previously ran'),
    event('modules-final', 6),
  ];
  const first = told(delivered(done), [event('modules-final/config-scripts-user', 1), event('modules-final', 2)]);
  // An #include stub is fetched at every boot: nothing is known then of the boot before.
  assert.equal(stateOf(told(delivered(done, first), passedOver)).state, 'ready');
  // A seed: what the first boot had still to report is waited for.
  const home = notePhoneHome(first, 3);
  const seeded = told(delivered({ ...done, manifests: ['04-new.yaml'] }, home, 'seed'), passedOver);
  assert.equal(stateOf(seeded).reason, 'waiting for 1 manifest');
  const applied = noteManifest(seeded, { part: '03-a.yaml', status: 'applied', at: 9 }, 9);
  assert.equal(stateOf(applied).state, 'ready');
  // No fetch at all: what the boot passes over was never reported.
  const rebooted = told(first, passedOver);
  assert.match(stateOf(rebooted).reason, /^waiting for its phone-home, 1 manifest$/);
});

test('a manifest is as its latest result says, in whatever order they come', () => {
  const results = [
    { part: 'a', status: 'retrying', at: 1 },
    { part: 'a', status: 'failed', at: 2 },
    { part: 'a', status: 'applied', at: 3 },
  ] as const;
  for (const order of [
    [0, 1, 2],
    [2, 1, 0],
    [1, 2, 0],
    [2, 0, 2],
  ]) {
    const facts = order.reduce(
      (before, index) => {
        const result = results[index];
        return result ? noteManifest(before, result, 5) : before;
      },
      delivered({ events: false, phoneHome: false, manifests: ['a'] }),
    );
    assert.equal(stateOf(facts).state, 'ready', order.join());
  }
  const failed = noteManifest(delivered({ manifests: ['a'] }), results[1], 5);
  assert.equal(stateOf(failed).reason, 'the manifest a failed for good');
});

test('names that a machine makes up neither grow without bound nor push out what is waited for', () => {
  let facts = delivered({ events: false, phoneHome: false, manifests: ['wanted', '__proto__', 'constructor'] });
  for (let n = 0; n < 1000; n++) {
    facts = noteManifest(facts, { part: `made-up-${n}`, status: 'applied', at: n }, n);
    facts = noteReport(facts, event(`made-up-${n}${'x'.repeat(5000)}`, n, 'FAIL', 'y'.repeat(5000)), n);
  }
  assert.ok(JSON.stringify(facts).length < 40_000);
  facts = { ...facts, failures: [] };
  assert.equal(stateOf(facts).reason, 'waiting for 3 manifests');
  for (const part of ['wanted', '__proto__', 'constructor'])
    facts = JSON.parse(JSON.stringify(noteManifest(facts, { part, status: 'applied', at: 1 }, 1)));
  assert.equal(stateOf(facts).state, 'ready');
});

test('no word is silence once the time for it has passed', () => {
  const deadlines = { fetch: 100, boot: 10 };
  const at = (boot: BootFacts, now: number) => stateAt({ createdAt: 0, reopenedAt: null, boot }, deadlines, now).state;
  assert.deepEqual([at(NO_BOOT, 99), at(NO_BOOT, 100)], ['registered', 'silent']);
  assert.deepEqual([at(delivered(), 1009), at(delivered(), 1010)], ['delivered', 'silent']);
  const booting = notePhoneHome(delivered(), 2000);
  assert.deepEqual([at(booting, 2009), at(booting, 2010)], ['booting', 'silent']);
  const untracked = delivered({ events: false, phoneHome: false });
  assert.deepEqual([at(untracked, 1e9), at(noteUnrendered(booting, 3000), 1e9)], ['delivered', 'failed']);
  assert.equal(waitingSince({ createdAt: 5, reopenedAt: 7, boot: NO_BOOT }), 7);
});

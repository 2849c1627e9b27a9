import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { AuditEntry } from '../../src/domain/audit.ts';
import { type BootEvent, STAGES } from '../../src/domain/boot.ts';
import type { Report } from '../../src/domain/report.ts';
import { createReportReader, inOrder, ofAudit, type TimelineEvent } from '../../src/domain/timeline.ts';

/** `start init-local 10` → an event, at that second of the machine's clock. */
function eventOf(text: string): BootEvent {
  const [type, name = '', second = '0', result = type === 'start' ? null : 'SUCCESS'] = text.split(' ');
  return { type: type as 'start', name, at: Number(second) * 1000, result, description: `about ${name}` };
}

function read(texts: readonly string[], verbose = false) {
  const reader = createReportReader({ verbose });
  const events = texts.flatMap((text, index) => {
    const report: Report = { id: index, instance: 'vm', at: 100 + index, kind: 'event', event: eventOf(text) };
    return reader.read(report);
  });
  const lines = (list: readonly TimelineEvent[]) =>
    list.map((event) => {
      if (event.kind !== 'stage') return event.kind;
      const { name, result, milliseconds } = event.stage;
      return `${name} ${result} ${milliseconds === null ? '?' : milliseconds / 1000}`;
    });
  return { lines: lines(events), running: lines(reader.running()) };
}

test('a stage is one line, when it ends, with the time since its first word; what is in it is none unless it failed', () => {
  assert.deepEqual(
    read([
      'start init-local/check-cache 1',
      'finish init-local/check-cache 2',
      'finish init-local 3',
      'start modules-final/config-x 5',
      'finish modules-final/config-x 5',
      'start modules-final/config-scripts-user 6',
      'finish modules-final/config-scripts-user 8 FAIL',
      'finish modules-final 9 FAIL',
    ]),
    { lines: ['init-local SUCCESS 2', 'modules-final/config-scripts-user FAIL 2', 'modules-final FAIL 4'], running: [] },
  );
});

test('its own beginning is a first word, too; without any there is no time', () => {
  assert.deepEqual(read(['start init-local 1', 'start init-local/x 2', 'finish init-local 3']).lines, ['init-local SUCCESS 2']);
  assert.deepEqual(read(['finish init-local 3']).lines, ['init-local SUCCESS ?']);
});

test('a stage that has not ended is running', () => {
  const { lines, running } = read(['start init-local/x 1', 'finish init-local 2', 'start init-network/x 3']);
  assert.deepEqual([lines, running], [['init-local SUCCESS 1'], ['init-network null ?']]);
});

test('a stage of an earlier boot that never ended is not running in a later one', () => {
  const { running } = read(['start modules-final/x 5', 'finish init-local/check-cache 100']);
  assert.deepEqual(running, ['init-local null ?']);
});

test('a stage whose end was lost is over when the next begins', () => {
  const { lines, running } = read(['start init-network/x 3', 'start modules-config/x 9', 'finish init-network/x 4']);
  assert.deepEqual([lines, running], [[], ['modules-config null ?']]);
});

test('words that come after the end of their stage add to its time, and begin none', () => {
  const late = ['start init-network/b 7', 'finish init-network 9', 'start init-network/a 5', 'finish init-network/a 6'];
  assert.deepEqual(read(late), { lines: ['init-network SUCCESS 4'], running: [] });
});

test('a clock that was set in the middle of a stage gives no time', () => {
  for (const end of [0, 86_401 + 5])
    assert.deepEqual(read(['start init-network/x 5', `finish init-network ${end}`]).lines, ['init-network SUCCESS ?']);
});

test('two boots one after the other are told apart', () => {
  const boot = (from: number) => [`start modules-final/x ${from}`, `finish modules-final ${from + 2}`];
  assert.deepEqual(read([...boot(10), ...boot(50)]).lines, ['modules-final SUCCESS 2', 'modules-final SUCCESS 2']);
});

test('what real machines said in two boots makes few lines, each stage with its time, and nothing runs in the end', () => {
  const folder = new URL('boots/', import.meta.url);
  for (const file of readdirSync(folder)) {
    const events = readFileSync(new URL(file, folder), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
      .filter(([type]) => type === 'start' || type === 'finish')
      .map(
        ([type, name, result, description, seconds]): BootEvent => ({ type, name, result, description, at: seconds * 1000 }),
      );
    const reader = createReportReader({ verbose: false });
    const told = events.flatMap((event, id) => reader.read({ id, instance: 'vm', at: id, kind: 'event', event }));
    const stages = told.flatMap((event) => (event.kind === 'stage' && !event.stage.name.includes('/') ? [event.stage] : []));
    assert.ok(events.length > 60 && told.length <= 12, file);
    const names = stages.map(({ name }) => name);
    assert.deepEqual(names.slice(0, 4), [...STAGES.slice(1), 'init-local'], file);
    assert.equal(names.at(-1), 'modules-final', file);
    assert.ok(
      stages.every(({ milliseconds }) => milliseconds !== null && milliseconds > 0 && milliseconds < 20_000),
      file,
    );
    assert.deepEqual(reader.running(), [], file);
  }
});

test('verbose, every event is a line', () => {
  const { lines, running } = read(['start init-local 1', 'start init-local/x 1', 'finish init-local/x 1'], true);
  assert.deepEqual([lines, running], [['event', 'event', 'event'], []]);
});

test('a log is told by its name and length, not with its text', () => {
  const log = { name: 'result.json' as const, text: 'ü{}', truncated: true };
  const lines = createReportReader({ verbose: false }).read({ id: 1, instance: 'vm', at: 7, kind: 'log', log });
  assert.deepEqual(lines, [{ at: 7, kind: 'log', log: { name: 'result.json', bytes: 4, truncated: true } }]);
});

test('what an audited action was to an instance', () => {
  const entry = (action: string, before: string | null, after: string | null): AuditEntry => ({
    ...{ id: 1, at: 5, actor: 'ann', role: 'editor', address: '', requestId: '', kind: 'instance', name: 'vm', detail: {} },
    ...{ action, before, after },
  });
  for (const [action, before, after, kind, version] of [
    ['put', null, 'abc.1', 'registered', 1],
    ['put', 'abc.1', 'abc.2', 'changed', 2],
    ['put_secret', 'abc.2', 'abc.3', 'changed', 3],
    ['delete', 'abc.3', null, 'retired', null],
    ['close', 'abc.3', 'abc.3', 'closed', 3],
    ['reopen', 'abc.3', 'abc.3', 'reopened', 3],
    ['rotate', 'abc.3', 'abc.4', 'rotated', 4],
  ] as const)
    assert.deepEqual(ofAudit(entry(action, before, after)), { at: 5, kind, by: 'ann', version });
  for (const action of ['reveal', 'constructor', '__proto__']) {
    assert.equal(ofAudit(entry(action, 'abc.3', 'abc.3')), null);
    assert.equal(ofAudit(entry(action, null, null)), null);
  }
});

test('what is of one millisecond goes by kind: what somebody did, the fetch, the reports, what came of it', () => {
  const at = 5;
  const ready: TimelineEvent = { at, kind: 'ready', reason: '' };
  const stage: TimelineEvent = { at, kind: 'stage', stage: { name: '', result: '', description: '', milliseconds: 0 } };
  const registered: TimelineEvent = { at, kind: 'registered', version: 1, by: null };
  const silent: TimelineEvent = { at: 4, kind: 'silent', reason: '' };
  assert.deepEqual(
    inOrder([ready, stage, registered, silent]).map(({ kind }) => kind),
    ['silent', 'registered', 'stage', 'ready'],
  );
});

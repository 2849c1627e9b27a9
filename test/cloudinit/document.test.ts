import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { type CompiledPart, compilePart, GIVEN_RULE, type PartRole, renderDocument } from '../../src/render/document.ts';
import { type Driver, startCloudInit } from './driver.ts';
import { findCloudInit, skipWithout } from './fetch.ts';

/** What the renderer promises, for any content, against the real cloud-init. */
const cloudInit = await findCloudInit();
const REPORT_URL = 'http://192.0.2.10:8080/r/x';

describe('a rendered document in the real cloud-init', { skip: skipWithout(cloudInit) }, () => {
  let driver: Driver;
  before(async () => {
    driver = await startCloudInit(cloudInit);
  });
  after(() => driver.close());

  const consume = (parts: CompiledPart[], { track = false } = {}) => {
    const rules = { takenTypes: new Set(['text/cloud-config', 'text/part-handler']), includeRoots: [] };
    const target = { name: 'node', id: '0123456789abcdef', vars: {}, reportUrl: REPORT_URL, track };
    return driver.consume(renderDocument(parts, target, rules).bytes);
  };
  const part = (
    filename: string,
    type: string,
    body: Uint8Array | string,
    role: PartRole = { kind: 'other' },
    merge: string | null = null,
  ) => compilePart({ filename, type, merge, role, origin: filename }, Buffer.from(body as Uint8Array));

  const TYPES = ['text/x-any', 'application/x-any'];
  const HANDLER = part(
    'handler.py',
    'text/part-handler',
    `def list_types():\n    return ${JSON.stringify(TYPES)}\ndef handle_part(data, ctype, filename, payload):\n    pass\n`,
    { kind: 'handler', handles: TYPES },
  );

  it('any part arrives byte for byte, in order, under its name and type', async () => {
    const line = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 40 }),
      fc.string({ maxLength: 40 }),
      fc.constantFrom(
        '--',
        '--bootbundle-',
        '.',
        'From x',
        'Merge-Type: x',
        '\t',
        ' \t',
        '=41',
        'é ✓ 😀',
        'x'.repeat(998),
        'x'.repeat(999),
      ),
    );
    const text = fc
      .tuple(
        fc.array(line, { minLength: 1, maxLength: 6 }),
        fc.constantFrom('\n', '\r\n', '\r', '\n\n'),
        fc.constantFrom('', '\n', '\r\n'),
      )
      .map(([lines, end, last]) => lines.join(end) + last)
      .filter((body) => body !== '');
    const bytes = fc.uint8Array({ minLength: 1, maxLength: 200 });
    const body = fc.oneof(
      text.map((value) => ({ type: 'text/x-any', bytes: Buffer.from(value) })),
      text.map((value) => ({ type: 'application/x-any', bytes: Buffer.from(value) })),
      bytes.map((value) => ({ type: 'application/x-any', bytes: Buffer.from(value) })),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(body, { minLength: 1, maxLength: 12 }), async (bodies) => {
        const seen = await consume([HANDLER, ...bodies.map(({ type, bytes }, index) => part(`p${index}`, type, bytes))]);
        const sent = bodies.map(({ type, bytes }, index) => ({
          type,
          filename: `${String(index + 2).padStart(2, '0')}-p${index}`,
          text: type.startsWith('text/'),
          payload: bytes.toString('hex'),
        }));
        const got = ({ type, filename, text, payload }: (typeof seen.calls)[number] | (typeof seen.parts)[number]) => ({
          type,
          filename,
          text,
          payload: payload.toString('hex'),
        });
        assert.deepEqual(seen.parts.slice(1).map(got), sent);
        assert.deepEqual(seen.calls.slice(1, -1).map(got), sent);
        assert.deepEqual(seen.warnings, []);
      }),
      { numRuns: 40 },
    );
  });

  type Config = { [key: string]: string | number | boolean | null | Config | unknown[] };
  // A key is of one kind in all configs of a document: scalar, list or map.
  const scalar = fc.oneof(
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.string({ maxLength: 8 }),
    fc.constantFrom('yes', '0644', 'ä 😀'),
  );
  const { config } = fc.letrec<{ config: Config }>((tie) => ({
    config: fc.record(
      {
        s1: scalar,
        s2: scalar,
        l1: fc.array(scalar, { maxLength: 3 }),
        l2: fc.array(fc.record({ a: scalar }, { noNullPrototype: true }), { maxLength: 2 }),
        m1: fc.oneof({ maxDepth: 2 }, fc.constant({} as Config), tie('config')),
        m2: fc.oneof({ maxDepth: 2 }, fc.constant({} as Config), tie('config')),
      },
      { requiredKeys: [], noNullPrototype: true },
    ) as fc.Arbitrary<Config>,
  }));

  /** DESIGN section 5 in five lines: lists join in order, maps recurse, for a single value `pick` decides. */
  function merge(before: Config, later: Config, pick: 'later' | 'first'): Config {
    const merged = { ...before };
    for (const [key, value] of Object.entries(later)) {
      const old = merged[key];
      if (!(key in merged)) merged[key] = value;
      else if (Array.isArray(old) && Array.isArray(value)) merged[key] = [...old, ...value];
      else if (key.startsWith('m')) merged[key] = merge(old as Config, value as Config, pick);
      else if (pick === 'later') merged[key] = value;
    }
    return merged;
  }
  const render = (value: Config) => `#cloud-config\n${JSON.stringify(value)}\n`;

  it('cloud-configs merge as promised: lists join in order, maps recurse, the later single value wins', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(config, { minLength: 1, maxLength: 5 }), async (configs) => {
        const parts = configs.map((value, index) =>
          part(`${index}.cfg`, 'text/cloud-config', render(value), { kind: 'config', statesRule: false }),
        );
        const seen = await consume(parts);
        assert.deepEqual(seen.warnings, []);
        assert.deepEqual(
          seen.config,
          configs.reduce((before, later) => merge(before, later, 'later')),
        );
      }),
      { numRuns: 50 },
    );
  });

  it('when one states its own rule all go in the given order: lists join in order, the first single value wins', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(config, { minLength: 2, maxLength: 4 }), fc.nat(3), async (configs, one) => {
        const parts = configs.map((value, index) =>
          part(
            `${index}.cfg`,
            'text/cloud-config',
            render(value),
            { kind: 'config', statesRule: false },
            index === one % configs.length ? GIVEN_RULE : null,
          ),
        );
        const seen = await consume(parts);
        assert.deepEqual(seen.warnings, []);
        assert.deepEqual(
          seen.config,
          configs.reduce((before, later) => merge(before, later, 'first')),
        );
      }),
      { numRuns: 20 },
    );
  });
});

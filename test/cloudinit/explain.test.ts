import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { emulate } from '../../src/explain/explain.ts';
import type { ClientVersion } from '../../src/explain/explanation.ts';
import { DISAGREEMENTS, QUIRKS } from '../explain/cases.ts';
import { documents, type TestDocument } from './documents.ts';
import { type Driver, startCloudInit } from './driver.ts';
import { tellExplained, tellSeen } from './explain-told.ts';
import { findCloudInit, skipWithout } from './fetch.ts';

/** Held equal to the real client: whatever the document, `explain` says what cloud-init does. */
const cloudInit = await findCloudInit();
const RUNS = Number(process.env.DOCUMENTS || (process.env.REQUIRE_CLOUD_INIT === '1' ? 300 : 60));
const SEED = process.env.DOCUMENTS_SEED ? { seed: Number(process.env.DOCUMENTS_SEED) } : {};

describe('explain and the real cloud-init', { skip: skipWithout(cloudInit) }, () => {
  let driver: Driver;
  let client: ClientVersion;
  before(async () => {
    driver = await startCloudInit(cloudInit);
    client = driver.version.startsWith('22.') ? '22.4' : '25.1';
  });
  after(() => driver?.close());

  async function agree({ bytes, launchIndex }: TestDocument): Promise<void> {
    const index = launchIndex === undefined ? {} : { launchIndex };
    const emulation = await emulate(bytes, { client, ...index });
    // Anything else (an include that was not decoded) would be fetched from the network.
    fc.pre(emulation.explanation.includes.every(({ url }) => url === 'file:///dev/null'));
    const seen = await driver.consume(bytes, index);
    const [said, done] = [tellExplained(emulation), tellSeen(seen, emulation)];
    for (const key of Object.keys(done)) assert.deepEqual([key, said[key]], [key, done[key]]);
  }

  for (const { name, client: only, launchIndex, document } of [...DISAGREEMENTS, ...QUIRKS])
    it(`agree: ${name}`, async (t) => {
      if (only !== undefined && only !== client) t.skip(`of cloud-init ${only}`);
      else await agree({ bytes: document, ...(launchIndex === undefined ? {} : { launchIndex }) });
    });

  it(`agree on ${RUNS} generated documents`, async () => {
    await fc.assert(fc.asyncProperty(documents, agree), { numRuns: RUNS, ...SEED });
  });
});

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileSchemas, type SchemaTexts } from '../../src/inspect/schema.ts';

/** cloud-init's own schemas (26.2) as they lie beside the repository; they are not ours to ship. */
export const UPSTREAM = process.env.CLOUD_INIT_SCHEMAS || fileURLToPath(new URL('../../../shared/data', import.meta.url));

/** For the `skip` of a test: false, or why not. @throws when they are missing although REQUIRE_SCHEMA=1 says that they must not be */
export function skipWithoutSchemas(): false | string {
  if (existsSync(join(UPSTREAM, 'schema-cloud-config-v1.json'))) return false;
  const reason = `no schemas at ${UPSTREAM} (CLOUD_INIT_SCHEMAS)`;
  if (process.env.REQUIRE_SCHEMA === '1') throw new Error(reason);
  return reason;
}

export function readUpstream(): SchemaTexts {
  const read = (name: string) => readFileSync(join(UPSTREAM, `schema-${name}.json`), 'utf8');
  return {
    cloudConfig: read('cloud-config-v1'),
    networkV1: read('network-config-v1'),
    networkV2: read('network-config-v2'),
  };
}

export function upstreamSchemas() {
  return compileSchemas('upstream', readUpstream());
}

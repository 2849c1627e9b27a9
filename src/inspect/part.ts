import { BootbundleError } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import { inspectCloudConfig } from './cloud-config.ts';
import { inspectInclude } from './include.ts';
import { inspectJinja } from './jinja.ts';
import { inspectManifest } from './kube.ts';
import { inspectPartHandler } from './part-handler.ts';
import type { Schemas } from './schema.ts';
import { inspectScript } from './script.ts';
import { sniff } from './sniff.ts';
import { KUBE_TYPES } from './types.ts';

type Validator = (
  filename: string,
  type: string,
  body: Uint8Array,
  schemas: Schemas,
  pause?: () => Promise<void>,
) => Finding[] | Promise<Finding[]>;

/** THE TABLE of validators, by type; Kubernetes' types share one. What is not in it is some part handler's, and nothing is known of it. */
const VALIDATORS: ReadonlyMap<string, Validator> = new Map<string, Validator>([
  ['text/cloud-config', inspectCloudConfig],
  ['text/cloud-config-archive', inspectCloudConfig],
  ['text/cloud-config-jsonp', inspectCloudConfig],
  ['text/x-shellscript', inspectScript],
  ['text/x-shellscript-per-boot', inspectScript],
  ['text/x-shellscript-per-instance', inspectScript],
  ['text/x-shellscript-per-once', inspectScript],
  ['text/cloud-boothook', inspectScript],
  ['text/part-handler', inspectPartHandler],
  ['text/jinja2', inspectJinja],
  ['text/x-include-url', inspectInclude],
  ['text/x-include-once-url', inspectInclude],
]);

/**
 * Judges a part's content as what it is. `schemas`: what judges cloud-configs, or null while there is none; `pause` is waited for between the
 * documents of a manifest and the steps of a cloud-config, so that others get their turn.
 */
export async function inspectPart(
  filename: string,
  type: string,
  body: Uint8Array,
  schemas: Schemas,
  pause?: () => Promise<void>,
): Promise<Finding[]> {
  if (KUBE_TYPES.has(type)) return inspectManifest(filename, type, body, pause);
  return VALIDATORS.get(type)?.(filename, type, body, schemas, pause) ?? [];
}

/** Whether a schema has a say in a type. */
export function isJudgedBySchema(type: string): boolean {
  return VALIDATORS.get(type) === inspectCloudConfig;
}

/**
 * Judges what a template came to: whether cloud-init still takes it for what its source was taken for, and its content as that. `part` is what
 * the findings name, `filename` what the part is called.
 */
export async function inspectRendering(
  part: string,
  filename: string,
  type: string,
  body: Uint8Array,
  schemas: Schemas,
  pause?: () => Promise<void>,
): Promise<Finding[]> {
  let sniffed: Finding[];
  try {
    sniffed = sniff(filename, body, type).findings;
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
    return [{ severity: 'error', code: error.code, part, message: error.message }];
  }
  return [...sniffed, ...(await inspectPart(filename, type, body, schemas, pause))].map((finding) => ({ ...finding, part }));
}

/** A plain part that looks as if it were meant as a template: it would reach the machine with its braces. */
export function inspectBraces(filename: string, body: Uint8Array): Finding[] {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('latin1');
  const match = /\{\{-?[ \t]{0,20}(?:vars|secrets)\./.exec(text);
  if (!match) return [];
  const before = text.slice(0, match.index);
  const line = before.split('\n').length;
  return [
    {
      severity: 'warning',
      code: 'looks_like_template',
      part: filename,
      line,
      column: match.index - before.lastIndexOf('\n'),
      message: 'the part is sent as it is, braces too: add ?template=true if it is a template',
    },
  ];
}

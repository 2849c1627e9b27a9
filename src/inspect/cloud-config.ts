import { BootbundleError } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import { isMapping, readYaml } from './yaml.ts';

/**
 * Judges whether cloud-init can read a cloud-config at all: it drops one that is not YAML, or not of the right shape, with no more than a
 * warning in the machine's log, and boots without the users and keys in it (handlers/cloud_config.py, user_data.py).
 * @returns error findings, with line and column (1-based) where they are known; none for another type
 */
export function inspectCloudConfig(filename: string, type: string, body: Uint8Array): Finding[] {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  const finding = (
    severity: Finding['severity'],
    code: string,
    message: string,
    place: Pick<Finding, 'line' | 'column'> = {},
  ): Finding[] => [{ severity, code, part: filename, ...place, message }];
  try {
    switch (type) {
      case 'text/cloud-config': {
        const [config] = readYaml(text);
        if (config === null) return finding('warning', 'empty_config', 'the cloud-config says nothing');
        return isMapping(config)
          ? []
          : finding('error', 'not_a_mapping', 'a cloud-config is a mapping, KEY: VALUE lines at its top');
      }
      case 'text/cloud-config-archive': {
        const [archive] = readYaml(text);
        if (archive === null) return finding('warning', 'empty_config', 'the archive has nothing in it');
        return Array.isArray(archive) ? [] : finding('error', 'not_a_list', 'a cloud-config archive is a list of parts');
      }
      case 'text/cloud-config-jsonp': {
        const patch: unknown = JSON.parse(text.trimStart().replace(/^#cloud-config-jsonp/, ''));
        return Array.isArray(patch) ? [] : finding('error', 'not_a_list', 'a JSON patch is a list of operations (RFC 6902)');
      }
      default:
        return [];
    }
  } catch (error) {
    if (error instanceof SyntaxError)
      return finding('error', 'bad_json', 'what follows #cloud-config-jsonp (in small letters) is not JSON');
    if (!(error instanceof BootbundleError)) throw error;
    const [{ line, column } = {}] = error.findings ?? [];
    return finding('error', 'bad_yaml', error.message, line !== undefined && column !== undefined ? { line, column } : {});
  }
}

import type { Explanation } from './explanation.ts';
import type { WalkedPart } from './handle.ts';
import { sniff } from './unpack.ts';

/** Where the clients treat this very document differently: what was seen in their source or in a run, nothing else. */
export function versionDifferences(explanation: Explanation, parts: readonly WalkedPart[]): string[] {
  const differences = parts.flatMap(ofPart);
  if (explanation.includes.length > 0)
    differences.push(
      'an include that answers 503 with Retry-After: 25.1 and later wait, without limit; 22.4 gives up after 11 tries, and loses all',
      'an include whose answer breaks off: 25.1 and later fetch it again; 22.4 takes what came',
    );
  // stages.py, consume_data
  if (explanation.warnings.some(({ code }) => code === 'odd_key'))
    differences.push('keys of which some are texts and others are not: 25.1 ends its init stage there; 22.4 does not mind');
  // That of Python's email: 3.11 in Debian 12, 3.13 in Debian 13.
  for (const { filename, encoding } of explanation.parts)
    if (encoding !== null && encoding !== encoding.trim())
      differences.push(
        `${filename}: with a blank behind its Content-Transfer-Encoding 22.4 (Debian 12) leaves it encoded, 25.1 (Debian 13) does not`,
      );
  return [...new Set(differences)];
}

function ofPart({ filename, type, payload }: WalkedPart): string[] {
  const text = payload.kind === 'text' ? payload.text : '';
  // handlers/boot_hook.py
  if (type === 'text/cloud-boothook')
    return [`${filename}: 25.1 lets a boothook's output through to cloud-init-output.log; 22.4 swallows it`];
  // stages.py, _default_handlers
  if (type === 'text/jinja2' && sniff(text.replace(/^[^\n]*\n/, '')) === 'text/cloud-boothook')
    return [`${filename}: a boothook that is a Jinja template is run by 25.1; 22.4 drops it with a warning`];
  // util.py, load_yaml
  if (type === 'text/cloud-config' && text.includes('!!python/unicode'))
    return [`${filename}: the tag !!python/unicode is read by 22.4 only; for 25.1 it is no YAML`];
  return [];
}

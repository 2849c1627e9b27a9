import type { Finding } from '../domain/finding.ts';
import { placeAt } from './offset.ts';
import { trimStart } from './sniff.ts';

/** After so many nobody reads on. */
const MAX_FINDINGS = 20;

/**
 * Judges the URLs of an include, read as cloud-init reads them (user_data.py, _do_include; url_helper.py, read_file_or_url). One that cannot be
 * fetched costs the machine its whole user-data, so what never can be is an error. Whether a URL is our own is asked where our own are known.
 */
export function inspectInclude(filename: string, _type: string, body: Uint8Array): Finding[] {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8');
  const findings: Finding[] = [];
  let urls = 0;
  // The line breaks of Python's str.splitlines, but for those that nobody writes (U+001C to U+001E).
  for (const { 0: line, index } of text.matchAll(/[^\n\v\f\r\u0085\u2028\u2029]+/g)) {
    const url = urlOf(line);
    if (url === '') continue;
    urls++;
    for (const remark of checkUrl(url)) {
      const place = placeAt(text, index + line.indexOf(url));
      findings.push({ severity: remark.severity, code: remark.code, part: filename, ...place, message: remark.message });
    }
    if (findings.length >= MAX_FINDINGS) break;
  }
  if (urls === 0) {
    const message = 'the include names no URL, so it does nothing: write one a line';
    findings.push({ severity: 'warning', code: 'include_empty', part: filename, line: 1, column: 1, message });
  }
  return findings;
}

/** What cloud-init fetches for a line, '' for nothing: the marks may stand before a URL, anything else after a # is a comment. */
function urlOf(line: string): string {
  const mark = /^#include(?:-once)?/i.exec(line)?.[0];
  const rest = mark === undefined ? line : trimStart(line.slice(mark.length));
  return rest.startsWith('#') ? '' : trimStart(rest).trimEnd();
}

type Remark = Pick<Finding, 'severity' | 'code' | 'message'>;

function checkUrl(url: string): Remark[] {
  const error = (code: string, message: string): Remark[] => [{ severity: 'error', code, message }];
  const warning = (code: string, message: string): Remark => ({ severity: 'warning', code, message });

  if (/^(?:\/(?!\/)|file:\/\/)/i.test(url))
    return [
      warning(
        'include_file',
        'cloud-init reads this file of the machine itself: without it the machine loses all its user-data',
      ),
    ];
  const [, scheme, rest = ''] = /^([a-z][a-z0-9+.-]*):(.*)$/is.exec(url) ?? [];
  if (url.startsWith('//') || (scheme !== undefined && !/^https?$/i.test(scheme)))
    return error('include_scheme', 'cloud-init fetches http:// and https:// only: write one of them before the host');
  const host = scheme === undefined ? url : rest.replace(/^\/\//, '');
  if (scheme === undefined) {
    if (!/^[\p{L}\p{N}._-]+(?:[/?#]|$)/u.test(host)) return error('include_url', NO_URL);
    return [warning('include_scheme', 'cloud-init puts http:// before this: write it, or https://'), ...checkSpaces(host)];
  }
  if (!isFetched(rest, host)) return error('include_url', NO_URL);
  const credentials = /^[^/?#]*@/.test(host)
    ? [warning('include_credentials', 'the name and password are kept in the log of each machine: use a URL that needs none')]
    : [];
  return [...credentials, ...checkSpaces(host)];
}

const NO_URL = 'this is no URL that cloud-init can fetch: write one URL a line, plainly, and # before what is a comment';

/** Whether `requests` sends anything for `http:` and the rest. */
function isFetched(rest: string, host: string): boolean {
  if (/^(?:\/[^/]|\/?$|\/\/(?:[/?#]|$))/.test(rest) || /^[^/?#]*\s/.test(host)) return false;
  // An IPv6 address may have a zone, which the web's own parser refuses.
  return /^[^/?#]*%/.test(host) || URL.canParse(`http://${host}`);
}

function checkSpaces(host: string): Remark[] {
  if (!/\s/.test(host)) return [];
  const message =
    'cloud-init takes the whole line as one URL, with %20 for a space: write one URL a line, comments on lines of their own';
  return [{ severity: 'warning', code: 'include_spaces', message }];
}

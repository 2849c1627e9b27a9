/**
 * The token of an `Authorization` header: Bearer (RFC 6750), or Basic with the token as password and any user name (`curl -u :TOKEN`, .netrc).
 * Null when there is none or it cannot be read.
 */
export function tokenOf(header: string | undefined): string | null {
  const match = /^(Bearer|Basic) +([\x21-\x7e]+)$/i.exec(header ?? '');
  const [, scheme = '', value = ''] = match ?? [];
  if (!match) return null;
  if (scheme.toLowerCase() === 'bearer') return value;
  const pair = Buffer.from(value, 'base64').toString('utf8');
  const colon = pair.indexOf(':');
  return colon < 0 ? null : pair.slice(colon + 1);
}

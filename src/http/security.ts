/** Nothing here is a page that loads, frames or is framed, and nothing is for caches; a route for which that is not so says it itself. */
const HEADERS = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
};
/** A year, for this host alone (RFC 6797). */
const STRICT_TRANSPORT = { 'strict-transport-security': 'max-age=31536000' };

/** The headers that every answer of a listener begins with. Over plain HTTP no browser heeds Strict-Transport-Security. */
export function securityHeaders(tls: boolean): Record<string, string> {
  return tls ? { ...HEADERS, ...STRICT_TRANSPORT } : HEADERS;
}

/** swagger-ui's own policy for its page; but no frames, no outside hosts, and no `upgrade-insecure-requests`, which breaks it over plain HTTP. */
export function pagePolicy(policy: string): string {
  return policy
    .replace("frame-ancestors 'self'", "frame-ancestors 'none'")
    .replace(' validator.swagger.io', '')
    .replaceAll(' https:', '')
    .replace(/ *upgrade-insecure-requests;?/, '');
}

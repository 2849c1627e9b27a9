/** The types a manifest goes by; a part handler takes them, cloud-init itself does not. */
export const KUBE_TYPES: ReadonlySet<string> = new Set([
  'text/x-kube-pod',
  'text/x-kube-service',
  'text/x-kube-replica',
  'text/x-kube-manifest',
]);

/** The types cloud-init takes without any part handler (handlers/__init__.py, user_data.py). */
export const CLOUD_INIT_TYPES: ReadonlySet<string> = new Set([
  'text/cloud-boothook',
  'text/cloud-config',
  'text/cloud-config-archive',
  'text/cloud-config-jsonp',
  'text/jinja2',
  'text/part-handler',
  'text/x-include-once-url',
  'text/x-include-url',
  'text/x-shellscript',
  'text/x-shellscript-per-boot',
  'text/x-shellscript-per-instance',
  'text/x-shellscript-per-once',
]);

/** TYPE/SUBTYPE of RFC 2045 tokens, no parameters, lower case: nothing in it can break out of a header. */
const TYPE = /^[a-z0-9!#$%&'*+.^_`{|}~-]{1,64}\/[a-z0-9!#$%&'*+.^_`{|}~-]{1,127}$/;

/** The type in lower case if it has the form TYPE/SUBTYPE, else null. */
export function parseType(text: string): string | null {
  const type = text.trim().toLowerCase();
  return TYPE.test(type) ? type : null;
}

/**
 * What clients put into a Content-Type by themselves: curl for every body or by file extension, browsers and other tools from
 * their tables. It tells nothing of what cloud-init should make of the file. `text/plain` and `text/x-not-multipart` are not
 * believed by cloud-init either (user_data.py, TYPE_NEEDED).
 */
const BY_ITSELF = new RegExp(
  `^(?:${[
    '(?:audio|font|image|message|model|multipart|video)/.*',
    'application/(?:octet-stream|x-www-form-urlencoded|pdf|x-empty)',
    'application/(?:.*\\+)?(?:json|xml|yaml|zip)',
    'application/(?:gzip.*|javascript|json5|ld\\+json|sql|toml|x-compress(?:ed)?|x-desktop|x-gunzip|x-gzip.*|x-javascript|x-ndjson|x-perl|x-php|x-python(?:-code)?|x-ruby|x-sh|x-shellscript|x-tar|x-yaml)',
    'text/(?:css|csv|html|javascript|json|markdown|plain|troff|vnd\\.yaml|xml|yaml)',
    'text/x-(?:c|csrc|json|log|lua|makefile|markdown|not-multipart|perl|python|python3|readme|ruby|script\\.python|script\\.sh|sh|systemd-unit|toml|yaml)',
  ].join('|')})$`,
);

/**
 * Whether a Content-Type header, of a request or of a form's field, states what the part is.
 * @returns the type in lower case and without parameters, or null when the client sends it by itself: then the file is sniffed
 */
export function isSaidType(contentType: string | undefined): string | null {
  const type = parseType(contentType?.split(';', 1)[0] ?? '');
  return type === null || BY_ITSELF.test(type) ? null : type;
}

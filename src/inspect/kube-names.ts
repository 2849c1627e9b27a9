// The forms of Kubernetes' names: k8s.io/apimachinery/pkg/util/validation and k8s.io/apimachinery/pkg/api/validation.

const LABEL = /^[a-z0-9](?:[-a-z0-9]*[a-z0-9])?$/;
const QUALIFIED = /^[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?$/;

/** RFC 1123: lower-case letters, digits and -, 63 at most. */
export function isDnsLabel(name: string): boolean {
  return name.length <= 63 && LABEL.test(name);
}

/** RFC 1123: labels with dots between, 253 characters at most. Unlike DNS Kubernetes has no limit for one label of them. */
export function isDnsSubdomain(name: string): boolean {
  return name.length <= 253 && name.split('.').every((label) => LABEL.test(label));
}

/** What may stand in a URL's path as it is: for the names of roles, such as `system:node`. */
export function isPathSegment(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/%]/.test(name);
}

/** The key of a label or of an annotation: a name, with or without `example.org/` before. */
export function isLabelKey(key: string): boolean {
  const [name = '', prefix, ...more] = key.split('/').reverse();
  return more.length === 0 && (prefix === undefined || isDnsSubdomain(prefix)) && name.length <= 63 && QUALIFIED.test(name);
}

export function isLabelValue(value: string): boolean {
  return value === '' || (value.length <= 63 && QUALIFIED.test(value));
}

/** IANA's form for the name of a service, RFC 6335. */
export function isPortName(name: string): boolean {
  return name.length <= 15 && LABEL.test(name) && /[a-z]/.test(name) && !name.includes('--');
}

/** A key of a ConfigMap or Secret becomes the name of a file. */
export function isDataKey(key: string): boolean {
  return key.length <= 253 && /^[-._a-zA-Z0-9]+$/.test(key) && key !== '.' && !key.startsWith('..');
}

import type { Path } from './json-schema.ts';
import { judgeKind } from './kube-kinds.ts';
import { isDnsLabel, isDnsSubdomain, isPathSegment } from './kube-names.ts';
import { checkRules } from './kube-rules.ts';
import { checkType, type KubeTypes, type Walk } from './kube-types.ts';
import type { Remark } from './remark.ts';
import { isMapping } from './yaml.ts';

/** What all objects of one manifest are judged with. */
export interface Judge {
  types: KubeTypes;
  /** See `definedKinds`. */
  defined: ReadonlySet<string>;
  report(remark: Remark): void;
  full(): boolean;
  plain(path: Path): string | null;
}

/** Judges one object that has a version and a kind, at `path` in its document: the kind, its fields, its names, and what hangs together. */
export function inspectObject(
  judge: Judge,
  apiVersion: string,
  kind: string,
  object: Record<string, unknown>,
  path: Path,
): void {
  const { types, report } = judge;
  const remark = judgeKind(types, apiVersion, kind, judge.defined);
  if (remark) report({ ...remark, path: [...path, 'kind'] });
  const walk: Walk = {
    types,
    report,
    full: judge.full,
    plain: judge.plain,
    seen: new Map(),
    visit: (type, value, at) => checkRules(type, { value, path: at, root: object, report }),
  };
  const type = types.typeOf(apiVersion, kind);
  if (type !== null) {
    checkType(walk, type, object, path);
    checkName(judge, kind, object, path);
  } else checkForeign(walk, object, path);
}

/** Of a kind that is not known, the strings that every object has: kubectl itself refuses others. */
function checkForeign(walk: Walk, { metadata }: Record<string, unknown>, path: Path): void {
  if (!isMapping(metadata)) return;
  for (const field of ['labels', 'annotations']) checkType(walk, '{s}', metadata[field], [...path, 'metadata', field]);
}

interface NameForm {
  fits(name: string): boolean;
  rule: string;
}

const LABEL: NameForm = {
  fits: isDnsLabel,
  rule: 'lower-case letters, digits and - are taken, 63 at most, the first and the last a letter or a digit (RFC 1123)',
};
const SUBDOMAIN: NameForm = {
  fits: isDnsSubdomain,
  rule: 'lower-case letters, digits, - and . are taken, 253 at most, the first and the last of each part a letter or a digit (RFC 1123)',
};
const SEGMENT: NameForm = { fits: isPathSegment, rule: 'it is a part of a URL, without / and %' };

/** Kinds whose names are not subdomains. */
const NAME_FORMS: ReadonlyMap<string, NameForm> = new Map([
  ['Namespace', LABEL],
  ['Service', LABEL],
  ['Role', SEGMENT],
  ['ClusterRole', SEGMENT],
  ['RoleBinding', SEGMENT],
  ['ClusterRoleBinding', SEGMENT],
  ['Binding', SEGMENT],
  ['IPAddress', SEGMENT],
]);

function checkName(judge: Judge, kind: string, object: Record<string, unknown>, path: Path): void {
  // A review is a question that is not kept.
  const metadata = object.metadata ?? {};
  if (kind.endsWith('Review') || !isMapping(metadata)) return;
  const { name, generateName, namespace } = metadata;
  const at = [...path, 'metadata'];
  const remark = (severity: Remark['severity'], code: string, message: string, step?: string): void =>
    judge.report({ severity, code, path: step === undefined ? at : [...at, step], message });
  const refuse = (code: string, message: string, step?: string) => remark('error', code, message, step);

  if ((name ?? '') === '') {
    if (typeof generateName === 'string' && generateName !== '')
      remark(
        'warning',
        'generate_name',
        'kubectl apply, by which manifests reach the API, needs metadata.name',
        'generateName',
      );
    else refuse('missing_name', 'it has no metadata.name, and cannot do without');
  } else if (typeof name === 'string') {
    const form = NAME_FORMS.get(kind) ?? SUBDOMAIN;
    if (!form.fits(name)) refuse('bad_object_name', `metadata.name is no name for a ${kind}: ${form.rule}`, 'name');
    else if (kind === 'Service' && !/^[a-z]/.test(name))
      remark(
        'warning',
        'bad_object_name',
        "a Service's metadata.name begins with a letter (RFC 1035): most Kubernetes refuse this one",
        'name',
      );
    else if (kind === 'CronJob' && name.length > 52)
      refuse('bad_object_name', 'metadata.name of a CronJob has 52 characters at most', 'name');
    else if (kind === 'CustomResourceDefinition' && !isNamedByItself(name, object.spec))
      refuse('bad_object_name', 'metadata.name must be spec.names.plural, a dot and spec.group', 'name');
  }
  if (typeof namespace === 'string' && namespace !== '' && !isDnsLabel(namespace))
    refuse('bad_object_name', `metadata.namespace is no name for a Namespace: ${LABEL.rule}`, 'namespace');
}

function isNamedByItself(name: string, spec: unknown): boolean {
  if (!isMapping(spec) || !isMapping(spec.names)) return true;
  const { plural } = spec.names;
  return typeof plural !== 'string' || typeof spec.group !== 'string' || name === `${plural}.${spec.group}`;
}

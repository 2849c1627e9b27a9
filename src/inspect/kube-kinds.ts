import type { Finding } from '../domain/finding.ts';
import { groupOf, type KubeTypes } from './kube-types.ts';
import { closestKey } from './spelling.ts';
import { isMapping } from './yaml.ts';

/** Since when a version, or one kind of it, is gone (kubernetes.io, Deprecated API Migration Guide). */
const GONE: ReadonlyMap<string, string> = new Map([
  ['extensions/v1beta1', '1.16'],
  ['extensions/v1beta1 Ingress', '1.22'],
  ['apps/v1beta1', '1.16'],
  ['apps/v1beta2', '1.16'],
  ['admissionregistration.k8s.io/v1beta1', '1.22'],
  ['apiextensions.k8s.io/v1beta1', '1.22'],
  ['apiregistration.k8s.io/v1beta1', '1.22'],
  ['authentication.k8s.io/v1beta1', '1.22'],
  ['authorization.k8s.io/v1beta1', '1.22'],
  ['certificates.k8s.io/v1beta1', '1.22'],
  ['coordination.k8s.io/v1beta1', '1.22'],
  ['networking.k8s.io/v1beta1', '1.22'],
  ['rbac.authorization.k8s.io/v1beta1', '1.22'],
  ['scheduling.k8s.io/v1beta1', '1.22'],
  ['storage.k8s.io/v1beta1', '1.22'],
  ['storage.k8s.io/v1beta1 CSIStorageCapacity', '1.27'],
  ['autoscaling/v2beta1', '1.25'],
  ['autoscaling/v2beta2', '1.26'],
  ['batch/v1beta1', '1.25'],
  ['discovery.k8s.io/v1beta1', '1.25'],
  ['events.k8s.io/v1beta1', '1.25'],
  ['node.k8s.io/v1beta1', '1.25'],
  ['policy/v1beta1', '1.25'],
  ['flowcontrol.apiserver.k8s.io/v1beta1', '1.26'],
  ['flowcontrol.apiserver.k8s.io/v1beta2', '1.29'],
  ['flowcontrol.apiserver.k8s.io/v1beta3', '1.32'],
]);

/** Custom resources whose definitions are there before any manifest: k3s brings its own. */
const SHIPPED = new Set(['helm.cattle.io HelmChart', 'helm.cattle.io HelmChartConfig', 'k3s.cattle.io Addon']);

/** The custom kinds that a manifest defines itself, as `GROUP KIND`. */
export function definedKinds(objects: Iterable<unknown>): Set<string> {
  const defined = new Set<string>();
  for (const object of objects) {
    if (!isMapping(object) || object.kind !== 'CustomResourceDefinition' || !isMapping(object.spec)) continue;
    const { group, names } = object.spec;
    if (isMapping(names)) defined.add(`${group} ${names.kind}`);
  }
  return defined;
}

/**
 * What is to be said of an object's version and kind: a kind that Kubernetes does not have needs its definition first, unless it is misspelt
 * or looked for in the wrong place. Only in the core's `v1` there can be no kind of one's own, so it is an error there.
 * @param defined see `definedKinds`
 */
export function judgeKind(
  types: KubeTypes,
  apiVersion: string,
  kind: string,
  defined: ReadonlySet<string>,
): Pick<Finding, 'severity' | 'code' | 'message'> | null {
  const group = groupOf(apiVersion);
  if (types.typeOf(apiVersion, kind) !== null) return judgeAge(types, apiVersion, kind);
  if (defined.has(`${group} ${kind}`) || SHIPPED.has(`${group} ${kind}`)) return null;
  return {
    severity: apiVersion === 'v1' ? 'error' : 'warning',
    code: 'unknown_kind',
    message: unknownKind(types, apiVersion, kind),
  };
}

function judgeAge(types: KubeTypes, apiVersion: string, kind: string): Pick<Finding, 'severity' | 'code' | 'message'> | null {
  const since = goneSince(apiVersion, kind);
  if (since === undefined) return null;
  const now = versionNow(types, kind, groupOf(apiVersion));
  const instead = now === null ? 'and nothing took its place' : `use ${now}`;
  return {
    severity: 'warning',
    code: 'removed_version',
    message: `Kubernetes ${since} and newer have no ${kind} in ${apiVersion}: ${instead}`,
  };
}

function goneSince(apiVersion: string, kind: string): string | undefined {
  return GONE.get(`${apiVersion} ${kind}`) ?? GONE.get(apiVersion);
}

/** Where a kind of Kubernetes' own is today, in the same group rather than in another. */
function versionNow(types: KubeTypes, kind: string, group: string): string | null {
  const versions = types.versionsOf(kind).filter((apiVersion) => goneSince(apiVersion, kind) === undefined);
  return versions.findLast((apiVersion) => groupOf(apiVersion) === group) ?? versions.at(-1) ?? null;
}

function unknownKind(types: KubeTypes, apiVersion: string, kind: string): string {
  const group = groupOf(apiVersion);
  const ours = types.groups().has(group);
  const nothing = ours ? 'Kubernetes has no such kind in this version' : 'this is no kind of Kubernetes itself';
  // A name may be used by others as well: only a group that is ours, or cannot be anybody's, makes it a mistake.
  if (ours || !group.includes('.')) {
    const now = versionNow(types, kind, group);
    if (now !== null) return `${nothing}: ${kind} is in ${now}`;
    const close = closestKey(kind, types.kindsOf(apiVersion)) ?? closestKey(kind, types.kinds());
    if (close !== null)
      return `${nothing}: did you mean ${close} in ${versionNow(types, close, group) ?? types.versionsOf(close)[0]}?`;
  } else {
    const close = closestKey(group, types.groups());
    const now = close === null ? null : versionNow(types, kind, close);
    if (now !== null && groupOf(now) === close) return `${nothing}: did you mean ${now}?`;
  }
  return apiVersion === 'v1'
    ? `${nothing}: write the apiVersion of its definition`
    : `${nothing}: its definition (CRD) must be there before it is applied`;
}

import type { Path } from './json-schema.ts';
import { isDataKey, isDnsLabel, isLabelKey, isLabelValue, isPortName } from './kube-names.ts';
import { type Remark, showPath } from './remark.ts';
import { isMapping } from './yaml.ts';

type Fields = Record<string, unknown>;

/** What a rule looks at: a mapping of a known type, whose fields were held against it already; they may have any type still. */
export interface Subject {
  value: Fields;
  path: Path;
  /** The whole object it stands in. */
  root: Fields;
  report(remark: Remark): void;
}

type Rule = (subject: Subject) => void;

/** THE TABLE of rules, by type without group and version: what the API server refuses beyond the types (validation.go in its pkg/apis). */
const RULES: ReadonlyMap<string, readonly Rule[]> = new Map<string, readonly Rule[]>([
  ['ObjectMeta', [checkLabels, checkAnnotations]],
  ['LabelSelector', [checkLabelSelector]],
  ['ConfigMap', [checkDataKeys]],
  ['Secret', [checkDataKeys]],
  ['PodSpec', [checkPod, checkVolumes, checkMounts]],
  ['Container', [checkContainer]],
  ['ContainerPort', [checkPortNumbers]],
  ['HTTPGetAction', [checkPortNumbers, checkPortName]],
  ['TCPSocketAction', [checkPortNumbers, checkPortName]],
  ['ResourceRequirements', [checkLimits]],
  ['Service', [checkHasSpec]],
  ['ServicePort', [checkPortNumbers, checkPortName]],
  ['ServiceSpec', [checkService]],
  ['Ingress', [checkHasSpec]],
  ['IngressSpec', [checkIngress]],
  ['HTTPIngressPath', [checkIngressPath]],
  ['PersistentVolumeClaim', [checkClaim]],
  ['RollingUpdateDeployment', [checkShares]],
  ['RollingUpdateDaemonSet', [checkShares]],
  ['PodDisruptionBudgetSpec', [checkShares]],
  ['PolicyRule', [checkPolicyRule]],
  ['ClusterRoleBinding', [checkClusterRoleBinding]],
  ['CronJobSpec', [checkSchedule]],
  ['DeploymentSpec', [checkTemplate]],
  ['ReplicaSetSpec', [checkTemplate]],
  ['StatefulSetSpec', [checkTemplate]],
  ['DaemonSetSpec', [checkTemplate]],
  ['ReplicationControllerSpec', [checkController]],
  ['JobSpec', [checkJob]],
]);

/** Looks at one mapping of a type, such as `CoreV1PodSpec`, with the rules for it. */
export function checkRules(type: string, subject: Subject): void {
  for (const rule of RULES.get(type.replace(/^[A-Z][a-z]+V\d+(?:beta\d+)?/, '')) ?? []) rule(subject);
}

function refuse({ path, report }: Subject, code: string, steps: Path, message: (place: string) => string, what?: 'key'): void {
  const at = [...path, ...steps];
  report({ severity: 'error', code, path: at, message: message(showPath(at) || 'it'), ...(what ? { what } : {}) });
}

function mappings(value: unknown): [index: number, each: Fields][] {
  return Array.isArray(value) ? [...value.entries()].filter((entry): entry is [number, Fields] => isMapping(entry[1])) : [];
}

function strings(value: unknown): [key: string, text: string][] {
  return isMapping(value)
    ? Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string')
    : [];
}

function isNothing(value: unknown): boolean {
  return value === null || value === undefined;
}

function checkLabels(subject: Subject): void {
  checkLabelMap(subject, ['labels']);
}

function checkLabelMap(subject: Subject, steps: readonly string[]): void {
  const map = steps.reduce<unknown>((at, step) => (isMapping(at) ? at[step] : undefined), subject.value);
  checkKeys(subject, steps, map, isLabelKey);
  for (const [key, value] of strings(map))
    if (!isLabelValue(value))
      refuse(subject, 'bad_label', [...steps, key], (place) => `${place} is no value for a label: ${LABEL_VALUE}`);
}

const LABEL_VALUE = 'letters, digits, -, _ and . are taken, 63 at most, the first and the last a letter or a digit';
const LABEL_KEY =
  'letters, digits, -, _ and . are taken, 63 at most, the first and the last a letter or a digit, with or without example.org/ before';

function checkKeys(subject: Subject, steps: readonly string[], map: unknown, isKey: (key: string) => boolean): void {
  for (const key of isMapping(map) ? Object.keys(map) : [])
    if (!isKey(key))
      refuse(
        subject,
        'bad_label',
        [...steps, key],
        (place) => `${place} is no key for a label or annotation: ${LABEL_KEY}`,
        'key',
      );
}

function checkAnnotations(subject: Subject): void {
  // In its domain an annotation may have capitals.
  checkKeys(subject, ['annotations'], subject.value.annotations, (key) => isLabelKey(key.toLowerCase()));
}

const OPERATORS = ['In', 'NotIn', 'Exists', 'DoesNotExist'];

function checkLabelSelector(subject: Subject): void {
  checkLabelMap(subject, ['matchLabels']);
  for (const [index, { operator, values }] of mappings(subject.value.matchExpressions)) {
    const at = ['matchExpressions', index];
    if (typeof operator !== 'string' || operator === '') continue;
    const wantsValues = operator === 'In' || operator === 'NotIn';
    const hasValues = Array.isArray(values) && values.length > 0;
    if (!OPERATORS.includes(operator))
      refuse(
        subject,
        'unsupported_value',
        [...at, 'operator'],
        (place) => `${place} must be In, NotIn, Exists or DoesNotExist`,
      );
    else if (wantsValues && !hasValues)
      refuse(subject, 'missing_field', at, (place) => `${place} has no values, which In and NotIn need`);
    else if (!wantsValues && hasValues)
      refuse(
        subject,
        'unsupported_value',
        [...at, 'values'],
        (place) => `${place} must not be there with Exists and DoesNotExist`,
      );
  }
}

function checkDataKeys(subject: Subject): void {
  for (const field of ['data', 'binaryData', 'stringData']) {
    const map = subject.value[field];
    for (const key of isMapping(map) ? Object.keys(map) : [])
      if (!isDataKey(key))
        refuse(
          subject,
          'bad_data_key',
          [field, key],
          () => `a key of ${field} is a file's name: letters, digits, -, _ and . are taken, 253 at most`,
          'key',
        );
  }
}

/** Where a pod keeps its containers: their names must differ from one another. */
const CONTAINERS = ['initContainers', 'containers', 'ephemeralContainers'];

function containersOf(pod: Fields): [at: Path, container: Fields][] {
  return CONTAINERS.flatMap((field) =>
    mappings(pod[field]).map(([index, container]): [Path, Fields] => [[field, index], container]),
  );
}

function checkPod(subject: Subject): void {
  const { value: pod } = subject;
  checkLabelMap(subject, ['nodeSelector']);
  checkUnique(
    subject,
    containersOf(pod).map(([at, { name }]) => [[...at, 'name'], name]),
  );
}

/** Of names that must differ, tells the second and later ones. */
function checkUnique(subject: Subject, names: readonly [at: Path, name: unknown][]): void {
  const seen = new Set<unknown>();
  for (const [at, name] of names) {
    if (typeof name !== 'string' || name === '') continue;
    if (seen.has(name)) refuse(subject, 'duplicate_name', at, (place) => `${place} is taken by an earlier one: choose another`);
    seen.add(name);
  }
}

const DNS_LABEL = 'lower-case letters, digits and - are taken, 63 at most, the first and the last a letter or a digit';

function checkLabelName(subject: Subject, at: Path, name: unknown): void {
  if (typeof name === 'string' && name !== '' && !isDnsLabel(name))
    refuse(subject, 'bad_object_name', at, (place) => `${place} is no name for it: ${DNS_LABEL}`);
}

function checkVolumes(subject: Subject): void {
  const volumes = mappings(subject.value.volumes);
  checkUnique(
    subject,
    volumes.map(([index, { name }]) => [['volumes', index, 'name'], name]),
  );
  for (const [index, { name, ...sources }] of volumes) {
    checkLabelName(subject, ['volumes', index, 'name'], name);
    if (Object.values(sources).filter((source) => !isNothing(source)).length > 1)
      refuse(
        subject,
        'too_many_fields',
        ['volumes', index],
        (place) => `${place} has more than one source: make it two volumes`,
      );
  }
}

/** A StatefulSet's claims are volumes of its pods, too. */
function checkMounts(subject: Subject): void {
  const { root, value: pod } = subject;
  const spec = root.kind === 'StatefulSet' && isMapping(root.spec) ? root.spec : {};
  const claims = mappings(spec.volumeClaimTemplates).map(([, { metadata }]) =>
    isMapping(metadata) ? metadata.name : undefined,
  );
  const volumes = new Set([...mappings(pod.volumes).map(([, { name }]) => name), ...claims]);
  for (const [at, container] of containersOf(pod))
    for (const field of ['volumeMounts', 'volumeDevices'])
      for (const [index, { name }] of mappings(container[field]))
        if (typeof name === 'string' && name !== '' && !volumes.has(name))
          refuse(
            subject,
            'unknown_volume',
            [...at, field, index, 'name'],
            (place) => `${place} is none of the pod's volumes: add one of that name to its volumes`,
          );
}

function checkContainer(subject: Subject): void {
  const { name, ports, volumeMounts } = subject.value;
  checkLabelName(subject, ['name'], name);
  const named = mappings(ports);
  for (const [index, port] of named)
    if (typeof port.name === 'string' && port.name !== '' && !isPortName(port.name))
      refuse(subject, 'bad_port_name', ['ports', index, 'name'], (place) => `${place} is no name for a port: ${PORT_NAME}`);
  checkUnique(
    subject,
    named.map(([index, port]) => [['ports', index, 'name'], port.name]),
  );
  checkUnique(
    subject,
    mappings(volumeMounts).map(([index, { mountPath }]) => [['volumeMounts', index, 'mountPath'], mountPath]),
  );
}

const PORT_NAME =
  'lower-case letters, digits and - are taken, 15 at most, a letter among them, no - at the ends and no two together';

function checkPortNumbers(subject: Subject): void {
  for (const field of ['containerPort', 'hostPort', 'port', 'targetPort', 'nodePort']) {
    const port = subject.value[field];
    // A zero is as good as nothing, where nothing will do.
    const lowest = field === 'containerPort' || field === 'port' ? 1 : 0;
    if (Number.isInteger(port) && ((port as number) < lowest || (port as number) > 65_535))
      refuse(subject, 'out_of_range', [field], (place) => `${place} must be a port, 1 to 65535`);
  }
}

/** Where a port's name will do, a number in quotes is taken for one. */
function checkPortName(subject: Subject): void {
  const field = Object.hasOwn(subject.value, 'targetPort') ? 'targetPort' : 'port';
  const port = subject.value[field];
  if (typeof port === 'string' && /^[1-9][0-9]*$/.test(port))
    refuse(subject, 'wrong_type', [field], (place) => `${place} must be a number, or the name of a port: take the quotes away`);
}

const UNITS: Record<string, number> = { '': 1, n: 1e-9, u: 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };

function amount(quantity: unknown): number {
  if (typeof quantity === 'number') return quantity;
  const [, digits = '', unit = '', binary] = /^(.*?)([numkMGTPEK]?)(i?)$/.exec(String(quantity)) ?? [];
  return Number(digits || Number.NaN) * (binary ? 1024 ** ('KMGTPE'.indexOf(unit) + 1) : (UNITS[unit] ?? Number.NaN));
}

/** What is no quantity is no number either, and told already. */
function checkLimits(subject: Subject): void {
  const { requests, limits } = subject.value;
  if (!isMapping(requests) || !isMapping(limits)) return;
  for (const [resource, request] of Object.entries(requests))
    if (!isNothing(limits[resource]) && amount(request) > amount(limits[resource]) * (1 + 1e-9))
      refuse(subject, 'request_over_limit', ['requests', resource], (place) => `${place} must be at most what limits says`);
}

function checkHasSpec(subject: Subject): void {
  if (isNothing(subject.value.spec))
    refuse(subject, 'missing_field', [], (place) => `${place} has no spec, and cannot do without`);
}

function checkService(subject: Subject): void {
  const { type, clusterIP, ports, externalName } = subject.value;
  checkLabelMap(subject, ['selector']);
  const list = mappings(ports);
  if (list.length === 0 && type !== 'ExternalName' && clusterIP !== 'None' && (isNothing(ports) || Array.isArray(ports)))
    refuse(subject, 'missing_field', [], (place) => `${place} has no ports: list them, or write clusterIP: None`);
  if (type === 'ExternalName' && (isNothing(externalName) || externalName === ''))
    refuse(subject, 'missing_field', [], (place) => `${place} has no externalName, which type ExternalName needs`);
  for (const [index, { name }] of list) {
    checkLabelName(subject, ['ports', index, 'name'], name);
    if (list.length > 1 && (isNothing(name) || name === ''))
      refuse(subject, 'missing_field', ['ports', index], (place) => `${place} has no name, which each of several ports needs`);
  }
  checkUnique(
    subject,
    list.map(([index, { name }]) => [['ports', index, 'name'], name]),
  );
  const inside = isNothing(type) || type === '' || type === 'ClusterIP';
  for (const [index, { nodePort }] of list)
    if (inside && typeof nodePort === 'number' && nodePort > 0)
      refuse(
        subject,
        'unsupported_value',
        ['ports', index, 'nodePort'],
        (place) => `${place} needs type: NodePort or LoadBalancer`,
      );
}

function checkIngress(subject: Subject): void {
  const { defaultBackend, backend, rules } = subject.value;
  if ([defaultBackend, backend].every(isNothing) && (isNothing(rules) || (Array.isArray(rules) && rules.length === 0)))
    refuse(subject, 'missing_field', [], (place) => `${place} has no rules and no defaultBackend: it needs one of them`);
}

function checkIngressPath(subject: Subject): void {
  const { path, pathType } = subject.value;
  if (
    (pathType === 'Prefix' || pathType === 'Exact') &&
    (isNothing(path) || (typeof path === 'string' && !path.startsWith('/')))
  )
    refuse(subject, 'unsupported_value', ['path'], (place) => `${place} must begin with /`);
}

/** Those of a StatefulSet are looked at when the claims are made. */
function checkClaim(subject: Subject): void {
  const { value: claim, root } = subject;
  if (claim !== root) return;
  const spec = isMapping(claim.spec) ? claim.spec : {};
  const requests = isMapping(spec.resources) ? spec.resources.requests : undefined;
  const isEmpty = (value: unknown) => isNothing(value) || (Array.isArray(value) && value.length === 0);
  const lacks = (what: string) =>
    refuse(subject, 'missing_field', ['spec'], () => `spec has no ${what}, and a claim cannot do without`);
  if (isEmpty(spec.accessModes)) lacks('accessModes');
  if (isNothing(requests) || (isMapping(requests) && isNothing(requests.storage))) lacks('resources.requests.storage');
}

/** How many pods, or what share of them. */
function checkShares(subject: Subject): void {
  for (const field of ['maxUnavailable', 'maxSurge', 'minAvailable']) {
    const share = subject.value[field];
    if (typeof share === 'string' && !/^[0-9]+%$/.test(share))
      refuse(
        subject,
        'unsupported_value',
        [field],
        (place) => `${place} must be a number without quotes, or a percentage such as 25%`,
      );
  }
}

/** A rule is about resources of API groups, or about URLs. */
function checkPolicyRule(subject: Subject): void {
  const { nonResourceURLs, apiGroups, resources } = subject.value;
  const lacks = (list: unknown) => isNothing(list) || (Array.isArray(list) && list.length === 0);
  if (!lacks(nonResourceURLs)) return;
  if (lacks(apiGroups)) refuse(subject, 'missing_field', [], (place) => `${place} has no apiGroups: [""] is the core's`);
  if (lacks(resources))
    refuse(subject, 'missing_field', [], (place) => `${place} has no resources, and no nonResourceURLs instead`);
}

function checkClusterRoleBinding(subject: Subject): void {
  for (const [index, { kind, namespace }] of mappings(subject.value.subjects))
    if (kind === 'ServiceAccount' && (isNothing(namespace) || namespace === ''))
      refuse(
        subject,
        'missing_field',
        ['subjects', index],
        (place) => `${place} has no namespace, which a ServiceAccount needs here`,
      );
}

/** As cron has it, with names for the usual ones. A time zone may stand before. */
function checkSchedule(subject: Subject): void {
  const { schedule } = subject.value;
  if (typeof schedule !== 'string' || schedule === '') return;
  const words = schedule
    .trim()
    .replace(/^(?:CRON_)?TZ=\S+\s+/, '')
    .split(/\s+/);
  if (words[0]?.startsWith('@') || words.length === 5) return;
  refuse(
    subject,
    'unsupported_value',
    ['schedule'],
    (place) => `${place} must be five fields, such as 0 3 * * *, or a word such as @daily`,
  );
}

/** A workload's selector must take the pods of its own template, and its pods run for ever. */
function checkTemplate(subject: Subject): void {
  const { selector } = subject.value;
  if (isMapping(selector)) {
    const labels = templateLabels(subject.value);
    const empty = Object.values(selector).every((each) => isNothing(each) || (typeof each === 'object' && !hasMembers(each)));
    if (empty) refuse(subject, 'selector_mismatch', ['selector'], (place) => `${place} is empty: ${SAME_LABELS}`);
    else if (labels && !selects(selector, labels))
      refuse(
        subject,
        'selector_mismatch',
        ['selector'],
        (place) => `${place} does not match the labels of its template: ${SAME_LABELS}`,
      );
  }
  checkRestartPolicy(subject, ['Always']);
}

const SAME_LABELS = 'write the same into matchLabels and template.metadata.labels';

function hasMembers(value: object | null): boolean {
  return value !== null && Object.keys(value).length > 0;
}

/** The labels of a template; null when they are not what they should be, which was told. */
function templateLabels({ template }: Fields): Fields | null {
  if (!isMapping(template)) return null;
  const { metadata } = template;
  if (isNothing(metadata)) return {};
  if (!isMapping(metadata) || (!isNothing(metadata.labels) && !isMapping(metadata.labels))) return null;
  const labels = metadata.labels ?? {};
  return Object.values(labels).every((value) => typeof value === 'string') ? (labels as Fields) : null;
}

/** Whether labels are taken by a LabelSelector; what is no selector takes them all. */
function selects(selector: Fields, labels: Fields): boolean {
  if (!strings(selector.matchLabels).every(([key, value]) => labels[key] === value)) return false;
  return mappings(selector.matchExpressions).every(([, { key, operator, values }]) => {
    if (typeof key !== 'string') return true;
    const has = Object.hasOwn(labels, key);
    switch (operator) {
      case 'Exists':
        return has;
      case 'DoesNotExist':
        return !has;
      case 'In':
        return !Array.isArray(values) || (has && values.includes(labels[key]));
      case 'NotIn':
        return !Array.isArray(values) || !has || !values.includes(labels[key]);
      default:
        return true;
    }
  });
}

/** @param allowed the first of them is what a pod has that does not say */
function checkRestartPolicy(subject: Subject, allowed: readonly string[]): void {
  const { template } = subject.value;
  const pod = isMapping(template) && isMapping(template.spec) ? template.spec : {};
  const { restartPolicy } = pod;
  if (
    typeof restartPolicy === 'string' &&
    ['Always', 'OnFailure', 'Never'].includes(restartPolicy) &&
    !allowed.includes(restartPolicy)
  )
    refuse(
      subject,
      'unsupported_value',
      ['template', 'spec', 'restartPolicy'],
      (place) => `${place} must be ${allowed.join(' or ')} here`,
    );
}

/** A ReplicationController has a plain map for a selector; without one its template's labels are it. */
function checkController(subject: Subject): void {
  const { selector, template } = subject.value;
  const labels = templateLabels(subject.value);
  if (isNothing(template)) refuse(subject, 'missing_field', [], (place) => `${place} has no template, and cannot do without`);
  if (labels && isMapping(selector) && !strings(selector).every(([key, value]) => labels[key] === value))
    refuse(
      subject,
      'selector_mismatch',
      ['selector'],
      (place) => `${place} does not match the labels of its template: write the same into both`,
    );
  checkRestartPolicy(subject, ['Always']);
}

/** A Job makes its own selector, and its pods must end some day. */
function checkJob(subject: Subject): void {
  const { manualSelector, selector, template } = subject.value;
  const pod = isMapping(template) ? template.spec : undefined;
  if (isMapping(pod) && (isNothing(pod.restartPolicy) || pod.restartPolicy === ''))
    refuse(
      subject,
      'missing_field',
      ['template', 'spec'],
      (place) => `${place} has no restartPolicy, and a Job's must be OnFailure or Never`,
    );
  checkRestartPolicy(subject, ['OnFailure', 'Never']);
  const labels = templateLabels(subject.value);
  if (manualSelector === true && isMapping(selector) && labels && !selects(selector, labels))
    refuse(
      subject,
      'selector_mismatch',
      ['selector'],
      (place) => `${place} does not match the labels of its template: ${SAME_LABELS}`,
    );
}

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

/**
 * src/inspect/kube-table.ts is made here, from the package kubernetes-models, which has the types of the API as TypeScript and as validators:
 * `npm run kube-types` writes it anew, for review as a diff.
 */
const TABLE = new URL('../../src/inspect/kube-table.ts', import.meta.url);
const WRITE = process.env.WRITE_KUBE_TYPES === '1';
const MODELS = dirname(fileURLToPath(import.meta.resolve('kubernetes-models')));
const MACHINERY = dirname(
  fileURLToPath(import.meta.resolve('@kubernetes-models/apimachinery', import.meta.resolve('kubernetes-models'))),
);

/** What JSON holds for a type that is no object of fields. */
const SCALARS: Record<string, string> = {
  string: 's',
  boolean: 'b',
  number: 'n',
  ResourceQuantity: 'q',
  IntstrIntOrString: 'p',
  MetaV1Time: 's',
  MetaV1MicroTime: 's',
};
/** Anything goes: free JSON, or one of several shapes. */
const FREE = /^(?:MetaV1FieldsV1|RuntimeRawExtension|ApiextensionsV1(?:beta1)?JSON(?:SchemaPropsOr\w+)?)$/;

/** By type without its version. The API has these as required, but its server takes an object without: an empty value, a zero or a default will do. */
const LENIENT = new Set(
  `ApiextensionsCustomResourceDefinitionVersion.served ApiextensionsCustomResourceDefinitionVersion.storage AppsControllerRevision.revision
  AppsStatefulSetSpec.serviceName BatchPodFailurePolicy.rules CoreEvent.involvedObject CoreEvent.metadata CoreHTTPHeader.value
  CoreISCSIPersistentVolumeSource.lun CoreISCSIVolumeSource.lun CoreLimitRangeSpec.limits CorePreferredSchedulingTerm.preference
  CoreSleepAction.seconds CoreSysctl.value DiscoveryEndpointSlice.endpoints EventsEvent.eventTime EventsEvent.metadata EventsEventSeries.count
  EventsEventSeries.lastObservedTime NetworkingNetworkPolicySpec.podSelector RbacRoleRef.apiGroup ResourceCapacityRequestPolicyRange.min
  ResourceCounter.value ResourceDeviceCapacity.value ResourceDeviceClass.spec ResourceResourceClaim.spec ResourceResourceClaimTemplate.spec
  ResourceResourceClaimTemplateSpec.spec ResourceResourcePool.generation ResourceResourcePool.resourceSliceCount SchedulingPriorityClass.value
  StorageCSIDriver.spec StorageCSINode.spec StorageCSINodeSpec.drivers StorageTokenRequest.audience`.split(/\s+/),
);

/** And these as optional, without which the server refuses the object. */
const DEMANDED = new Set(
  `CoreConfigMapEnvSource.name CoreConfigMapKeySelector.name CoreConfigMapProjection.name CoreConfigMapVolumeSource.name CoreContainer.image
  CorePersistentVolumeSpec.accessModes CorePersistentVolumeSpec.capacity CoreSecretEnvSource.name CoreSecretKeySelector.name
  CoreSecretProjection.name CoreSecretVolumeSource.secretName NetworkingIngressClassSpec.controller
  NetworkingIngressServiceBackend.port`.split(/\s+/),
);

/** What Kubernetes 1.20 to today took for some time and the package no longer has: no mistake on a cluster of that time. */
const RETIRED: Record<string, string> = {
  CoreV1EphemeralVolumeSource: 'readOnly:b',
  CoreV1PodResourceClaim: 'source:*',
  CoreV1ServiceSpec: 'topologyKeys:[s]',
  CoreV1VolumeResourceRequirements: 'claims:*',
  MetaV1ObjectMeta: 'clusterName:s',
  NetworkingV1NetworkPolicy: 'status:*',
};

interface Field {
  name: string;
  required: boolean;
  form: string;
}

interface Model {
  name: string;
  fields: Field[];
  validators: string;
}

test('src/inspect/kube-table.ts is what the package says', async () => {
  const text = await makeTable();
  if (WRITE) writeFileSync(TABLE, text);
  assert.ok(readFileSync(TABLE, 'utf8') === text, 'out of date: npm run kube-types');
});

async function makeTable(): Promise<string> {
  const models = new Map<string, Model>();
  for (const root of [MODELS, MACHINERY])
    for (const file of readdirSync(root, { recursive: true, encoding: 'utf8' }))
      if (file.endsWith('.d.ts') && !/_schemas|index\.d\.ts$/.test(file)) {
        const model = readModel(root, readFileSync(join(root, file), 'utf8'));
        if (model) models.set(model.name, model);
      }

  const groups = new Map<string, string[]>();
  const wanted = new Set<string>();
  for (const { name, fields } of models.values()) {
    const kind = constant(fields, 'kind');
    const apiVersion = constant(fields, 'apiVersion');
    if (kind === null || apiVersion === null || kind.endsWith('List')) continue;
    groups.set(apiVersion, [...(groups.get(apiVersion) ?? []), `${kind}=${name}`]);
    wanted.add(name);
  }
  const lines: string[] = [];
  // A set goes on to what is added to it meanwhile.
  for (const name of wanted) {
    const model = models.get(name);
    assert.ok(model, name);
    const isKind = constant(model.fields, 'kind') !== null;
    const words = [];
    for (const field of model.fields) {
      // The status is the server's: it passes over what a manifest says.
      const form = isKind && field.name === 'status' ? '*' : await refine(model, field);
      const [reference] = /[A-Z]\w+/.exec(form) ?? [];
      if (reference !== undefined && !form.includes('=')) wanted.add(reference);
      words.push(`${field.name}${isDemanded(name, field) ? '!' : ''}:${form}`);
    }
    lines.push([name, ...words, ...(RETIRED[name] ?? '').split(' ')].join(' ').trimEnd());
  }
  const kinds = [...groups].map(([apiVersion, names]) => [apiVersion, ...names.sort()].join(' ')).sort();
  const { version } = JSON.parse(readFileSync(join(MODELS, 'package.json'), 'utf8'));
  return `// Made from kubernetes-models ${version} by \`npm run kube-types\` (test/inspect/kube-table.test.ts).
// The types of Kubernetes' API: Apache-2.0, Copyright The Kubernetes Authors.
// Kinds: APIVERSION KIND=TYPE … Types: TYPE FIELD:FORM …, a required FIELD with !. Forms: s string, b boolean, i integer, n number, q quantity,
// p integer or string, B base64, * anything, =A|B one of these strings, [FORM] list, {FORM} map, TYPE.

export const KINDS = \`
${kinds.join('\n')}
\`;

export const TYPES = \`
${lines.sort().join('\n')}
\`;
`;
}

/** An interface of a .d.ts file of the package: they are all written alike. */
function readModel(root: string, source: string): Model | null {
  const [, local, longName] = /\bI(\w+) as I(Io\w+)/.exec(source) ?? [];
  const [, body] = /^export interface I\w+(?: extends TypeMeta)? \{([\s\S]*?)^\}/m.exec(source) ?? [];
  if (!local || !longName || body === undefined) return null;
  const name = shorten(longName);
  const tokens = body.replaceAll(/\/\*\*[\s\S]*?\*\//g, '').match(/"[^"]*"|\w+|[^\s\w]/g) ?? [];
  let at = 0;
  const take = (token?: string) => {
    assert.ok(token === undefined || tokens[at] === token, `${name}: ${tokens.slice(at, at + 5)}`);
    return tokens[at++] ?? '';
  };
  const form = (): string => {
    const first = take();
    if (first === 'Array') {
      take('<');
      const item = form();
      take('>');
      return `[${item}]`;
    }
    if (first === '{') return tokens[at] === '[' ? map() : inline();
    if (first.startsWith('"')) {
      const values = [first];
      for (; tokens[at] === '|'; values.push(take())) take();
      const words = values.map((value) => value.slice(1, -1));
      if (words.length === 1) return first;
      return words.some((word) => /[\s|]/.test(word)) ? 's' : `=${words.join('|')}`;
    }
    const type = first.replace(/^IIo/, 'Io');
    return SCALARS[shorten(type)] ?? (FREE.test(shorten(type)) ? '*' : type === `I${local}` ? name : shorten(type));
  };
  const map = () => {
    for (const token of ['[', 'key', ':', 'string', ']', ':']) take(token);
    const value = form();
    take(';');
    take('}');
    return `{${value}}`;
  };
  const fields = (): Field[] => {
    const found: Field[] = [];
    while (at < tokens.length && tokens[at] !== '}') {
      const field = { name: JSON.parse(take()) as string, required: tokens[at] !== '?', form: '' };
      if (!field.required) take('?');
      take(':');
      field.form = form();
      take(';');
      found.push(field);
    }
    return found;
  };
  /** The claim templates of a StatefulSet: an object whose own version and kind may be left out. */
  const inline = () => {
    assert.ok(
      fields().some((field) => field.form === 'CoreV1PersistentVolumeClaimSpec'),
      name,
    );
    take('}');
    return 'CoreV1PersistentVolumeClaim';
  };
  return { name, fields: fields(), validators: pathToFileURL(join(root, '_schemas', `${longName}.js`)).href };
}

/** `IoK8sApiCoreV1Pod` → `CoreV1Pod`. */
function shorten(name: string): string {
  return name.replace(
    /^IoK8s(?:ApimachineryPkg(?:ApisMeta|Api|Util)?|ApiextensionsApiserverPkgApis|KubeAggregatorPkgApis|Api)/,
    (prefix) => (prefix.endsWith('Meta') ? 'Meta' : ''),
  );
}

/** Whether the server wants a field. Every kind's own version and kind are looked at before. */
function isDemanded(type: string, { name, required, form }: Field): boolean {
  const field = `${type.replace(/V\d+(?:beta\d+)?/, '')}.${name}`;
  return DEMANDED.has(field) || (required && !form.startsWith('"') && !LENIENT.has(field));
}

function constant(fields: readonly Field[], name: string): string | null {
  const form = fields.find((field) => field.name === name)?.form ?? '';
  return form.startsWith('"') ? JSON.parse(form) : null;
}

/** TypeScript does not tell an integer from a number, nor base64 from text: the validator does. */
async function refine(model: Model, { name, form }: Field): Promise<string> {
  if (form.startsWith('"')) return 's';
  const scalar = /^([[{]?)([ns])([\]}]?)$/.exec(form);
  if (!scalar) return form;
  const [, open = '', letter, close = ''] = scalar;
  const probe = letter === 'n' ? 0.5 : '%';
  const value = open === '[' ? [probe] : open === '{' ? { a: probe } : probe;
  const { validate } = (await import(model.validators)) as { validate: Validator };
  validate({ [name]: value });
  const faults = (validate.errors ?? []).filter(({ instancePath }) => instancePath.split('/')[1] === name);
  const wanted = faults.map(({ params }) => params.type ?? params.format);
  const refined = wanted.includes('integer') ? 'i' : wanted.includes('byte') ? 'B' : letter;
  return `${open}${refined}${close}`;
}

interface Validator {
  (data: unknown): boolean;
  errors?: { instancePath: string; params: { type?: string; format?: string } }[] | null;
}

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text as readText } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { inspectManifest } from '../../src/inspect/kube.ts';
import { isMapping, readYaml } from '../../src/inspect/yaml.ts';
import { type Kube, skipWithoutKube, startKube } from '../guest/kube.ts';
import { run } from '../guest/machine.ts';
import { type Manifest, RIGHT, WRONG } from './manifests.ts';

type Fields = Record<string, unknown>;
type Path = (string | number)[];

/** A real API server has the last word on what `inspectManifest` says. It keeps nothing: all runs are dry. */
describe('manifests before a real Kubernetes API', { skip: skipWithoutKube() }, () => {
  let kube: Kube;
  let folder: string;
  let api: Api;
  before(async () => {
    kube = await startKube();
    folder = mkdtempSync(join(tmpdir(), 'bootbundle-manifests-'));
    writeFileSync(join(folder, 'kubeconfig'), kube.kubeconfig);
    api = new Api(kube.kubeconfig);
  });
  after(async () => {
    api?.close();
    await kube?.remove();
    if (folder) rmSync(folder, { recursive: true });
  });

  it('kubectl apply refuses what has an error, and takes the rest', async () => {
    const env = { ...process.env, KUBECONFIG: join(folder, 'kubeconfig') };
    const disagreements: string[] = [];
    const judge = async ({ what, text, findings }: Manifest, index: number) => {
      const file = join(folder, `${index}.yaml`);
      writeFileSync(file, text);
      const words = ['apply', '--dry-run=server', '--validate=true', `--cache-dir=${join(folder, 'cache')}`, '-f', file];
      const { code, stderr } = await run(kube.kubectl, words, env);
      const refused = code !== 0;
      if (refused !== findings.some((finding) => !finding.startsWith('?')))
        disagreements.push(`${what}: ${refused ? stderr.slice(0, 500) : 'taken'}`);
    };
    const manifests = [...RIGHT, ...WRONG].filter(({ notForRig }) => notForRig === undefined);
    assert.ok(manifests.length > 80);
    const [first, ...others] = manifests.entries();
    if (first) await judge(first[1], first[0]);
    // The first has filled the cache.
    for (let at = 0; at < others.length; at += 4)
      await Promise.all(others.slice(at, at + 4).map(([index, manifest]) => judge(manifest, index)));
    assert.deepEqual(disagreements, []);
  });

  it('no change to a right object that the server takes is an error', async () => {
    const alarms = new Set<string>();
    let [tried, refusedByBoth] = [0, 0];
    for (const object of objects()) {
      const url = await api.urlOf(object);
      if (url === null) continue;
      for (const path of pathsOf(object))
        await Promise.all(
          VALUES.map(async (value) => {
            const changed = change(object, path, value);
            if (changed === null) return;
            const body = JSON.stringify(changed);
            const status = await api.post(url, body);
            // A server of the rig's age passes over unknown fields: only kubectl finds them.
            const findings = await inspectManifest('x', 'text/x-kube-manifest', Buffer.from(body));
            const errors = findings.filter(({ severity, code }) => severity === 'error' && code !== 'unknown_field');
            tried++;
            if (status >= 300 && errors.length > 0) refusedByBoth++;
            const place = `${object.kind} ${path.map((step) => (typeof step === 'number' ? '[]' : step)).join('.')}`;
            if (
              status < 300 &&
              errors.length > 0 &&
              !STRICTER.some((pattern) => pattern.test(`${place} ${JSON.stringify(value)}`))
            )
              alarms.add(`${place}: ${errors[0]?.code}`);
          }),
        );
    }
    assert.ok(tried > 5000 && refusedByBoth > 3000, `${tried} tried, ${refusedByBoth} refused by both`);
    assert.deepEqual([...alarms], []);
  });
});

/** Where we say more than the API server does, and rightly. */
const STRICTER = [
  // kubectl needs a name where the server would make one up.
  /^LimitRange metadata/,
  // It does not look into the template of a StatefulSet, from which no pod could be made then.
  /^StatefulSet spec\.(?:template\.spec|volumeClaimTemplates)/,
  // Go reads an empty list as empty bytes.
  /^(?:Secret|ConfigMap) (?:data|binaryData)\S* \[\]$/,
  /caBundle \[\]$/,
  // A dry run allots no node ports.
  /^Service spec\.ports\.\[\]\.nodePort/,
];

const VALUES = [undefined, null, '', 0, 5, -1, 'x', '5', 'A_b', true, [], {}, ['x'], [{}], { a: 'b' }, 70_000];

/** Every object of the table that the rig's server takes, as JSON. */
function objects(): Fields[] {
  return RIGHT.filter(({ notForRig, what }) => notForRig === undefined && !/kubectl reads|PyYAML/.test(what)).flatMap(
    ({ text }) => {
      const documents = text.startsWith('{') ? [JSON.parse(text)] : readYaml(text.replace('0o400', '0400'), { multi: true });
      return documents.filter(isMapping).flatMap((document) => (Array.isArray(document.items) ? [] : [plainObject(document)]));
    },
  );
}

function plainObject(document: Fields): Fields {
  const object = JSON.parse(JSON.stringify(document));
  delete object.metadata.namespace;
  delete object.metadata.managedFields;
  return object;
}

function* pathsOf(value: unknown, path: Path = []): Generator<Path> {
  if (value === null || typeof value !== 'object') return;
  for (const [key, member] of Object.entries(value)) {
    const step = Array.isArray(value) ? Number(key) : key;
    if (path.length === 0 && ['apiVersion', 'kind', 'status'].includes(key)) continue;
    yield [...path, step];
    yield* pathsOf(member, [...path, step]);
  }
}

/** A copy with another value at the path, or without it; null where that changes nothing. */
function change(object: Fields, path: Path, value: unknown): Fields | null {
  const copy = structuredClone(object);
  const last = path.at(-1) as string;
  const parent = path.slice(0, -1).reduce<Fields>((at, step) => at[step] as Fields, copy);
  if (JSON.stringify(parent[last]) === JSON.stringify(value)) return null;
  if (value !== undefined) parent[last] = value;
  else if (Array.isArray(parent)) parent.splice(Number(last), 1);
  else delete parent[last];
  return copy;
}

/** The API itself: without kubectl thousands of questions take seconds. */
class Api {
  private readonly agent = new Agent({ keepAlive: true, maxSockets: 4, rejectUnauthorized: false });
  private readonly resources = new Map<string, Promise<Resource[]>>();
  private readonly server: string;
  private readonly token: string;

  constructor(kubeconfig: string) {
    this.server = /server: "([^"]+)"/.exec(kubeconfig)?.[1] ?? '';
    this.token = /token: "([^"]+)"/.exec(kubeconfig)?.[1] ?? '';
  }

  /** Where an object of its kind is posted for a dry run; null when the server does not know the kind. */
  async urlOf({ apiVersion, kind }: Fields): Promise<string | null> {
    const version = String(apiVersion);
    const base = version.includes('/') ? `/apis/${version}` : `/api/${version}`;
    if (!this.resources.has(base)) this.resources.set(base, this.list(base));
    const resource = (await this.resources.get(base))?.find((each) => each.kind === kind && !each.name.includes('/'));
    return resource ? `${base}${resource.namespaced ? '/namespaces/default' : ''}/${resource.name}?dryRun=All` : null;
  }

  private async list(base: string): Promise<Resource[]> {
    const { status, body } = await this.ask('GET', base);
    return status === 200 ? JSON.parse(body).resources : [];
  }

  async post(url: string, body: string): Promise<number> {
    return (await this.ask('POST', url, body)).status;
  }

  private ask(method: string, url: string, body?: string): Promise<{ status: number; body: string }> {
    const headers = { authorization: `Bearer ${this.token}`, 'content-type': 'application/json' };
    return new Promise((resolve, reject) => {
      const sent = request(`${this.server}${url}`, { method, headers, agent: this.agent }, (response) => {
        readText(response).then((answer) => resolve({ status: response.statusCode ?? 0, body: answer }), reject);
      });
      sent.on('error', reject);
      sent.end(body);
    });
  }

  close(): void {
    this.agent.destroy();
  }
}

interface Resource {
  name: string;
  kind: string;
  namespaced: boolean;
}

import { type Actor, namesFit } from '../domain/actor.ts';
import type { AuditDetail } from '../domain/audit.ts';
import { sha256 } from '../domain/bundle.ts';
import { wouldBreak } from '../domain/errors.ts';
import type { Finding } from '../domain/finding.ts';
import type { Instance } from '../domain/instance.ts';
import { type PolicyDefaults, policyInForce, windowAt } from '../domain/policy.ts';
import type { Sight, Store } from '../domain/store.ts';
import { type DocumentService, type Scene, sightOf, usesSecrets, type WhatIf } from './documents.ts';
import type { Pause } from './slices.ts';
import { stopwatch } from './stopwatch.ts';

/** How an operator answers for what a change breaks. */
export interface Consent {
  /** Who: he answers for, and is told the names of, machines in his scope only. */
  by: Pick<Actor, 'scope'>;
  /** Instances that may break. */
  accept?: readonly string[];
  /** All in his scope may break. */
  force?: boolean;
}

/** A change of something that machines share. */
export interface Publication {
  bundle: string;
  /** Who follows: those whose references hold this one (`web`, `web@stable`); null: all that refer to the bundle, pinned ones too. */
  reference: string | null;
  /** Asked for only when somebody follows. */
  whatIf: () => Promise<WhatIf>;
}

/** What the gate found; `sight` goes with the write, so that what was not looked at is not committed. */
export interface Passage {
  /** Warnings: who would break when rebuilt, and who breaks with consent. */
  findings: Finding[];
  /** What the audit is to say of the consent: whose, for whom, and who breaks by it. */
  detail: AuditDetail;
  sight: Sight;
}

export interface Gate {
  /** Runs publications one at a time: each is looked at with the one before it in force. */
  inTurn<T>(publication: () => Promise<T>): Promise<T>;
  /**
   * Looks at what a change would do to every machine that follows: each is rendered with its real values and inspected, once as things are and
   * once as they would be. Machines that would get the same are looked at once. Fetches get their turn every few milliseconds.
   * @param memory what was found of each machine; given again, only machines that changed since are looked at again
   * @throws would_break naming machines that have still to boot (never delivered, or their window is open) and would newly be refused, with the findings
   */
  pass(publication: Publication, consent: Consent, memory?: Memory): Promise<Passage>;
}

/** What is newly wrong with a machine, by its name, version and what its references mean. */
export type Memory = Map<string, Finding[]>;

/** How many names an error or a finding lists, and how many findings it has. */
const NAMED = 5;
const TOLD = 50;
/** Instances read at a time; their secrets are in memory no longer. */
const PAGE = 200;

export function createGate({
  store,
  documents,
  slices,
  policyDefaults,
  clock,
  onPublish,
}: {
  store: Store;
  documents: DocumentService;
  slices: () => Pause;
  policyDefaults: PolicyDefaults;
  clock: () => number;
  /** Told how long each publication took, its wait for its turn included; for the metrics. */
  onPublish?: (publication: { seconds: number; outcome: 'published' | 'refused' }) => void;
}): Gate {
  let last: Promise<unknown> = Promise.resolve();

  /** Never delivered, or its window is open: it may ask at any moment. */
  function stillToBoot(instance: Instance, scene: Scene): boolean {
    if (instance.deliveryCount === 0) return true;
    const policy = policyInForce(instance.policy, policyDefaults, instance, usesSecrets(instance, scene));
    return windowAt(policy, instance, clock()).open;
  }

  return {
    inTurn(publication) {
      const seconds = stopwatch();
      const turn = last.then(publication);
      const ended = (outcome: 'published' | 'refused') => onPublish?.({ seconds: seconds(), outcome });
      last = turn.then(
        () => ended('published'),
        () => ended('refused'),
      );
      return turn;
    },

    async pass({ bundle, reference, whatIf: ask }, consent, memory = new Map()) {
      const versions = new Map<string, number>();
      const scene: Scene = { meanings: new Map(), revisions: new Map(), secrets: new Map() };
      const broken = new Breakage();
      const pause = slices();
      let whatIf: WhatIf | null = null;
      for await (const page of followersOf(store, bundle)) {
        for (const { name, version } of page) versions.set(name, version);
        const followers = page.filter(({ bundles }) => reference === null || bundles.includes(reference));
        if (followers.length === 0) continue;
        whatIf ??= await ask();
        await documents.scene(followers, whatIf, scene);
        for (const instance of followers) {
          await pause();
          const kind = kindOf(instance, scene, whatIf);
          const fresh = memory.get(kind) ?? (await freshErrors(documents, instance, scene, whatIf));
          memory.set(kind, fresh);
          if (fresh.length > 0) broken.add(instance, stillToBoot(instance, scene), fresh);
        }
        // What references meant stays; what takes memory is read anew, or cached.
        scene.revisions.clear();
        scene.secrets.clear();
      }
      return { ...broken.judge(consent), sight: sightOf(scene, { bundle, versions }) };
    },
  };
}

async function* followersOf(store: Store, bundle: string): AsyncGenerator<Instance[]> {
  for (let after: string | null = null; ; ) {
    const page: Instance[] = await store.listInstances({ after, limit: PAGE }, { bundle });
    if (page.length > 0) yield page;
    after = page.at(-1)?.name ?? null;
    if (page.length < PAGE) return;
  }
}

/**
 * What machines have in common that get the same document but for their names; where templates make each its own, the machine itself.
 * Its handlers are told its name and `vars.kube` (render/document.ts), and a document may become too large by them, as by what tracks it.
 */
function kindOf({ name, version, bundles, vars, track }: Instance, scene: Scene, { revision }: WhatIf): string {
  const templated = revision?.hasTemplates || bundles.some((text) => scene.revisions.get(text)?.hasTemplates ?? false);
  const meanings = bundles.map((text) => {
    const meaning = scene.meanings.get(text);
    return `${text}=${meaning?.revision}.${meaning?.secretsVersion}`;
  });
  const told = vars.kube === undefined ? '' : sha256(JSON.stringify(vars.kube));
  return [...(templated ? [name, version] : [name.length, told, track]), ...meanings].join(' ');
}

/** What would be wrong and is not wrong today. */
async function freshErrors(documents: DocumentService, instance: Instance, scene: Scene, whatIf: WhatIf): Promise<Finding[]> {
  const errors = async (change?: WhatIf) =>
    (await documents.inspect(instance, scene, change)).findings.filter(({ severity }) => severity === 'error');
  const after = await errors(whatIf);
  if (after.length === 0) return [];
  const before = await errors();
  return after.filter((error) => !before.some((other) => other.code === error.code && fileOf(other) === fileOf(error)));
}

/** Who breaks, and by what. */
class Breakage {
  readonly #waiting: string[] = [];
  readonly #booted: string[] = [];
  /** Each error once, with the machines it breaks. */
  readonly #errors = new Map<string, { finding: Finding; waiting: string[]; booted: string[] }>();

  add(instance: Instance, stillToBoot: boolean, errors: readonly Finding[]): void {
    const kind = stillToBoot ? 'waiting' : 'booted';
    (kind === 'waiting' ? this.#waiting : this.#booted).push(instance.name);
    for (const finding of errors) {
      const key = JSON.stringify(finding);
      const entry = this.#errors.get(key) ?? { finding, waiting: [], booted: [] };
      this.#errors.set(key, entry);
      entry[kind].push(instance.name);
    }
  }

  judge({ accept = [], force = false, by }: Consent): Pick<Passage, 'findings' | 'detail'> {
    const sees = (name: string) => namesFit(by.scope.instances, name);
    const tell = (finding: Finding) => tellable(finding, by.scope);
    const refused = this.#waiting.filter((name) => !(force && sees(name)) && !accept.includes(name));
    if (refused.length > 0) throw this.#refusal(refused, sees, tell);
    const findings = [...this.#errors.values()].slice(0, TOLD).flatMap(({ finding, waiting, booted }) => {
      const why = describe(tell(finding));
      const warning = (code: string, message: string): Finding => ({ severity: 'warning', code, message });
      const accepted = `${list(waiting, sees)} ${verb(waiting, 'breaks', 'break')}, as accepted: ${why}`;
      const rebuilt = `${list(booted, sees)} booted already and would break when rebuilt: ${why}`;
      return [
        ...(waiting.length > 0 ? [warning('breaks_as_accepted', accepted)] : []),
        ...(booted.length > 0 ? [warning('would_break', rebuilt)] : []),
      ];
    });
    const detail = {
      ...(force ? { force } : {}),
      ...(accept.length > 0 ? { accept } : {}),
      ...(this.#waiting.length > 0 ? { breaks: this.#waiting.slice(0, TOLD), breaksInAll: this.#waiting.length } : {}),
    };
    return { findings, detail };
  }

  #refusal(refused: readonly string[], sees: Sees, tell: (finding: Finding) => Finding) {
    const entries = [...this.#errors.values()].filter(({ waiting }) => waiting.some((name) => refused.includes(name)));
    const first = entries[0] as { finding: Finding };
    return wouldBreak(
      'would_break',
      `${list(refused, sees)} ${verb(refused, 'has', 'have')} still to boot and would break: ${describe(tell(first.finding))}`,
      entries
        .slice(0, TOLD)
        .map(({ finding, waiting }) => ({ ...tell(finding), message: `${list(waiting, sees)}: ${tell(finding).message}` })),
    );
  }
}

/** A finding as an operator may know of it: of a part of another team's bundle not more than its code. */
function tellable(finding: Finding, { bundles }: Actor['scope']): Finding {
  const { severity, code, part } = finding;
  const bundle = part?.split(/[@/]/, 1)[0];
  if (bundle === undefined || namesFit(bundles, bundle)) return finding;
  return { severity, code, message: `a part of a bundle outside of your token's scope: ${code}` };
}

/** Whether an operator may know of a machine. */
type Sees = (name: string) => boolean;

function describe({ part, line, message }: Finding): string {
  const place = line === undefined ? undefined : `line ${line}`;
  return [part, place, message].filter((word) => word !== undefined).join(': ');
}

/** `web@3/a.sh` and `web@4/a.sh` are the same part. */
function fileOf({ part = '' }: Finding): string {
  return part.replace(/@\d+\//, '/');
}

/** Some names, and how many more there are; of those he may not know the number only. */
function list(names: readonly string[], sees: Sees): string {
  const known = names.filter(sees);
  const more = known.length - NAMED;
  const hidden = names.length - known.length;
  const outside = `${hidden} ${hidden === 1 ? 'instance' : 'instances'} outside of your token's scope`;
  const told = `${known.slice(0, NAMED).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  if (hidden === 0) return told;
  return known.length === 0 ? outside : `${told}, and ${outside}`;
}

function verb(names: readonly string[], one: string, many: string): string {
  return names.length === 1 ? one : many;
}

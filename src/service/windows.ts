import type { Actor } from '../domain/actor.ts';
import { conflict, notFound } from '../domain/errors.ts';
import { checkSeedUnused, type Instance, instanceEtag, PURPOSES, type Purpose } from '../domain/instance.ts';
import { checkName } from '../domain/names.ts';
import { type DeliveryWindow, type Policy, type PolicyDefaults, policyInForce, windowAt } from '../domain/policy.ts';
import { checkPreconditions, type Preconditions } from '../domain/precondition.ts';
import type { InstanceChange, Store, WindowChange } from '../domain/store.ts';
import type { DocumentService } from './documents.ts';
import type { InstanceService, Stub } from './instances.ts';

/** What a change means for one of an instance's URLs. */
export interface UrlReport {
  purpose: Purpose;
  /** When it was first fetched (`report`: when the machine last said something), epoch milliseconds; null: never. */
  usedAt: number | null;
  /** Whether the URL that machines may have works from now on. */
  works: boolean;
  /** What whoever asks it gets: one sentence. */
  effect: string;
  /** What to use from now on; null where there is none to give out, and for a dry run that would make a new one. */
  stub: Stub | null;
}

export interface WindowReport {
  instance: Instance;
  policy: Policy;
  window: DeliveryWindow;
  changed: boolean;
  urls: UrlReport[];
}

export interface WindowOptions {
  preconditions: Preconditions;
  dryRun: boolean;
  by: Actor;
}

export interface WindowService {
  /** Shuts the window, whatever the policy says. @throws not_found `unknown_instance`; precondition_failed */
  close(name: string, options: WindowOptions): Promise<WindowReport>;
  /**
   * Opens it for so long (milliseconds), or (null) for as long as the policy says; count and first delivery begin anew, the URLs stay.
   * @throws as close; conflict `expired` when it would be shut all the same
   */
  reopen(name: string, options: WindowOptions & { length: number | null }): Promise<WindowReport>;
  /**
   * Makes new capabilities: the old ones open nothing. None named: all.
   * @throws as close; conflict `seed_in_use` when the seed's is among them, was fetched, and `force` is not said
   */
  rotate(name: string, options: WindowOptions & { purposes: readonly Purpose[]; force: boolean }): Promise<WindowReport>;
}

export function createWindowService(deps: {
  store: Store;
  documents: DocumentService;
  instances: InstanceService;
  policyDefaults: PolicyDefaults;
  clock: () => number;
}): WindowService {
  const { store, documents, instances, policyDefaults, clock } = deps;

  /** The change, or what it would come to. */
  async function change(
    name: string,
    { preconditions, dryRun, by }: WindowOptions,
    write: (change: WindowChange) => Promise<InstanceChange>,
    foresee: (instance: Instance, at: number) => Promise<Instance> | Instance,
  ): Promise<InstanceChange> {
    checkName('instance', name);
    const before = await store.findInstance(name);
    if (!before || before.retiredAt !== null)
      throw notFound('unknown_instance', 'there is no such instance; PUT it to register it');
    checkPreconditions(instanceEtag(before), preconditions);
    const at = clock();
    const after = await foresee(before, at);
    if (dryRun) return { before, after, changed: after !== before };
    return write({ expect: preconditions.ifMatch === undefined ? undefined : before.version, at, by });
  }

  /** Without knowing whether secrets are in it (it cannot be rendered now), the policy of one that has some. */
  async function judge(instance: Instance): Promise<{ policy: Policy; window: DeliveryWindow }> {
    const guarded = await documents.holdsSecrets(instance).catch(() => true);
    const policy = policyInForce(instance.policy, policyDefaults, instance, guarded);
    return { policy, window: windowAt(policy, instance, clock()) };
  }

  async function report(
    { before, after, changed }: InstanceChange,
    urls: readonly Omit<UrlReport, 'usedAt' | 'stub'>[],
    dryRun: boolean,
  ): Promise<WindowReport> {
    const stubs: Record<Purpose, () => Promise<Stub | null>> = {
      include: () => instances.stub(after.name, 'include-once'),
      seed: () => instances.stub(after.name, 'nocloud'),
      report: async () => null,
    };
    const usedAt = { ...before.fetchedAt, report: before.boot.lastWordAt };
    const told: UrlReport[] = [];
    for (const url of urls) {
      const renewed = after.generations[url.purpose] !== before.generations[url.purpose];
      const found = dryRun && renewed ? null : await stubs[url.purpose]();
      told.push({ ...url, usedAt: usedAt[url.purpose], stub: found && { url: found.url, text: found.text } });
    }
    return { instance: after, ...(await judge(after)), changed, urls: told };
  }

  return {
    async close(name, options) {
      const done = await change(
        name,
        options,
        (write) => store.closeWindow(name, write),
        (instance, at) => (instance.closedAt === null ? { ...instance, closedAt: at } : instance),
      );
      const { afterClose = 'refuse' } = done.after.policy;
      const instead = afterClose === 'refuse' ? 'answers 410' : `serves ${afterClose.join(', ')}`;
      const urls = [
        { purpose: 'include' as const, works: afterClose !== 'refuse', effect: `${instead}; each fetch is an alarm` },
        {
          purpose: 'seed' as const,
          works: true,
          effect:
            'answers an empty user-data, and the other documents as before: who booted from it keeps datasource and host keys',
        },
      ];
      return report(done, urls, options.dryRun);
    },

    async reopen(name, { length, ...options }) {
      const until = (at: number) => (length === null ? null : at + length);
      const foresee = async (instance: Instance, at: number) => {
        const after = { ...instance, ...ANEW, reopenedAt: at, openUntil: until(at) };
        const { window } = await judge(after);
        if (!window.open)
          throw conflict('expired', `the policy's expiresAt of ${name} has passed: say ?for=1h, or state another expiresAt`);
        return after;
      };
      const done = await change(
        name,
        options,
        (write) => store.reopenWindow(name, { ...write, until: until(write.at) }),
        foresee,
      );
      const effect = 'gives the document again, and counts from zero';
      const urls = (['include', 'seed'] as const).map((purpose) => ({ purpose, works: true, effect }));
      return report(done, urls, options.dryRun);
    },

    async rotate(name, { purposes: named, force, ...options }) {
      const purposes = named.length === 0 ? PURPOSES : PURPOSES.filter((purpose) => named.includes(purpose));
      const foresee = (instance: Instance) => {
        if (purposes.includes('seed')) checkSeedUnused(instance, force);
        const generations = { ...instance.generations };
        for (const purpose of purposes) generations[purpose] += 1;
        return { ...instance, generations, version: instance.version + 1 };
      };
      const done = await change(
        name,
        options,
        (write) => store.rotateCapabilities(name, { ...write, purposes, force }),
        foresee,
      );
      return report(
        done,
        purposes.map((purpose) => ({ purpose, works: false, effect: ROTATED[purpose] })),
        options.dryRun,
      );
    },
  };
}

/** What begins anew with a window. */
const ANEW = { closedAt: null, firstDeliveryAt: null, lastDeliveryAt: null, deliveryCount: 0 };

const ROTATED: Record<Purpose, string> = {
  include:
    'the old URL answers 404, and each fetch of it is an alarm: put the new stub into Nova before the machine is rebuilt',
  seed: 'the old URL answers 404: a machine that boots from it finds no datasource until its kernel is given the new one',
  report: 'what machines report by the old URL is refused with 404: those that booted are not heard of again',
};

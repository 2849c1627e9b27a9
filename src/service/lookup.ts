import { malformed, notFound } from '../domain/errors.ts';
import { PURPOSES, type Purpose } from '../domain/instance.ts';
import type { Store } from '../domain/store.ts';
import type { KeyRing } from './keys.ts';

/** What somebody found and wants to know the machine of. */
export type Clue =
  /** A URL, a stub in any form, a kernel command line, or a capability by itself. */
  | { kind: 'url'; text: string }
  | { kind: 'address'; text: string }
  /** Of cloud-init; on OpenStack the server's UUID. */
  | { kind: 'instanceId'; text: string };

export interface Found {
  instance: string;
  /** What it was found by. */
  by: Clue['kind'];
  /** What the capability is for; null for another clue. */
  purpose: Purpose | null;
  /** Whether the capability opens anything now; null for another clue. */
  works: boolean | null;
  /** One sentence. */
  reason: string;
}

export interface LookupService {
  /** @throws not_found `unknown_capability`, `unknown_address`, `unknown_instance_id`; malformed `no_clue`. No error quotes the clue. */
  lookup(clue: Clue): Promise<Found>;
}

export function createLookupService(deps: { store: Store; keys: KeyRing }): LookupService {
  const { store, keys } = deps;

  async function byUrl(text: string): Promise<Found> {
    const candidates = capabilitiesIn(text);
    if (candidates.length === 0)
      throw malformed('no_clue', 'there is no URL of a machine in it: one looks like http://HOST/i/40-CHARACTERS/user-data');
    for (const capability of candidates)
      for (const purpose of PURPOSES) {
        const claim = keys.verify(purpose, capability);
        const instance = claim && (await store.findInstanceByIdEvenRetired(claim.instanceId));
        if (!claim || !instance) continue;
        const { name: found, retiredAt, generations } = instance;
        const name = { instance: found, by: 'url' as const, purpose };
        if (retiredAt !== null)
          return {
            ...name,
            works: false,
            reason: `its ${purpose} capability; it opens nothing, since the instance was deleted`,
          };
        if (claim.generation !== generations[purpose])
          return {
            ...name,
            works: false,
            reason: `an old ${purpose} capability of its; it opens nothing since it was replaced`,
          };
        return { ...name, works: true, reason: `its ${purpose} capability` };
      }
    throw notFound('unknown_capability', 'this capability was not made here, or it is not whole');
  }

  async function byAddress(text: string): Promise<Found> {
    const { deliveries } = await store.scanDeliveries({ address: text }, { after: null, limit: 1 });
    const [last] = deliveries;
    if (!last) throw notFound('unknown_address', 'the ledger knows no fetch from this address');
    const reason = `the last to ask for a document from this address, at ${new Date(last.at).toISOString()}`;
    return { instance: last.instance, by: 'address', purpose: null, works: null, reason };
  }

  async function byInstanceId(text: string): Promise<Found> {
    const found = { by: 'instanceId' as const, purpose: null, works: null };
    for (const instanceId of new Set([text, text.toLowerCase()])) {
      for (const retired of [false, true]) {
        const [stated] = await store.listInstances({ after: null, limit: 1 }, { instanceId, retired });
        if (stated) {
          const reason = `what its meta-data states${retired ? '; it was deleted' : ''}`;
          return { ...found, instance: stated.name, reason };
        }
      }
      const told = await store.findPhoneHome(instanceId);
      if (told !== null) return { ...found, instance: told, reason: 'what it phoned home last' };
    }
    throw notFound('unknown_instance_id', 'no instance states this instance-id, and none phoned home with it');
  }

  return {
    lookup({ kind, text }) {
      switch (kind) {
        case 'url':
          return byUrl(text);
        case 'address':
          return byAddress(text);
        case 'instanceId':
          return byInstanceId(text);
      }
    },
  };
}

/** So many are tried at most: a text of hostile length has thousands. */
const CANDIDATES = 20;

/** What in a text may be a capability, also where the text is a stub in base64. */
function capabilitiesIn(text: string): string[] {
  const direct = capabilitiesOf(text);
  if (direct.length > 0) return direct;
  const packed = text.replace(/\s+/g, '');
  return /^[A-Za-z0-9+/]+={0,2}$/.test(packed) ? capabilitiesOf(Buffer.from(packed, 'base64').toString('latin1')) : [];
}

function capabilitiesOf(text: string): string[] {
  const inUrls = [...text.matchAll(/\/[isr]\/([A-Za-z0-9_-]{40})(?![A-Za-z0-9_-])/g)].map(([, capability = '']) => capability);
  const bare = /^\s*([A-Za-z0-9_-]{40})\s*$/.exec(text)?.[1];
  return [...new Set(bare === undefined ? inUrls : [bare])].slice(0, CANDIDATES);
}

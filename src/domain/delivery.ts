import type { Alarm } from './alarm.ts';
import type { Expectations } from './boot.ts';
import type { Purpose } from './instance.ts';

/** How a GET of a document ended, as far as a server can tell. */
export type DeliveryOutcome = 'delivered' | 'aborted' | 'failed' | 'refused';

/** Why a fetch did not get the document: the window was shut, or the address is not allowed. */
export type Refusal = 'closed' | 'expired' | 'delivered' | 'succeeded' | 'address';

/** What a document was rendered from, beyond the revisions and the instance's version: with these its bytes can be made again. */
export interface DeliveryInputs {
  generations: Record<Purpose, number>;
  publicUrl: string;
  /** RENDERER_VERSION of src/render/document.ts. */
  renderer: number;
  /** The secrets' version of each bundle whose templates use secrets, by bundle. */
  secretsVersions: Readonly<Record<string, number>>;
}

/** The ledger's record of one GET of a document. */
export interface Delivery {
  /** Grows with time; also the cursor of a list. */
  id: number;
  instance: string;
  /** Epoch milliseconds. */
  at: number;
  /** Which URL was fetched: the `#include` URL or the NoCloud seed. */
  purpose: 'include' | 'seed';
  /** Hex SHA-256 of the document before compression; null when none could be rendered. */
  digest: string | null;
  /** Size of the document before compression. */
  bytes: number;
  address: string;
  userAgent: string;
  /** What it was rendered from: `web@3`, in order. */
  revisions: string[];
  /** The version of the instance it was rendered for; null for rows older than versions were noted. */
  instanceVersion: number | null;
  /** Whether it counts as a delivery of its own, or is cloud-init's repeat of one (see REPEAT_WINDOW_MS). */
  counted: boolean;
  outcome: DeliveryOutcome;
  /** Why the document was refused; with the outcome `delivered` the policy's `afterClose` bundles were served instead. Else null. */
  refusal: Refusal | null;
  /** Whether secrets were in it. */
  holdsSecrets: boolean;
  /** Null for rows older than that, and where nothing was rendered. */
  inputs: DeliveryInputs | null;
}

/** A GET about to be answered; the store decides `id` and `counted`. */
export type NewDelivery = Omit<Delivery, 'id' | 'instance' | 'counted'> & {
  instanceId: string;
  /** What the answer was made for: it is recorded only if the instance is still so. */
  instanceVersion: number;
  generation: number;
  /** Whether secrets are in the instance's own document, whatever is answered: a policy may hang on it. */
  guarded: boolean;
  /** What the document makes the machine say. */
  expects: Expectations;
};

/**
 * What became of one. `changed`: nothing was recorded, since the instance, its capability or its window is not what the answer was made for;
 * look again.
 */
export type Recorded =
  | { kind: 'changed' }
  /** `alarm`: the one that this began; what adds to one is told by its row only. */
  | { kind: 'recorded'; id: number; counted: boolean; alarm: Alarm | null };

/** cloud-init tries up to 11 times: a repeat from the same address this soon after a counted delivery is the same boot. */
export const REPEAT_WINDOW_MS = 2 * 60 * 1000;

/** A counted delivery to another address this soon after the last one is a second machine on one stub. */
export const SECOND_MACHINE_MS = 60 * 60 * 1000;

/** How a fetch ended, for the metrics: what is in the ledger, and what is not. `head`: it was a HEAD, answered as a GET would be. */
export type FetchOutcome = 'delivered' | 'refused' | 'failed' | 'not_found' | 'head';

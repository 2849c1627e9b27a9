import { dump } from 'js-yaml';
import { LRUCache } from 'lru-cache';
import type { Alarm } from '../domain/alarm.ts';
import { NO_BOOT } from '../domain/boot.ts';
import {
  type Delivery,
  type DeliveryInputs,
  type FetchOutcome,
  type NewDelivery,
  REPEAT_WINDOW_MS,
  type Recorded,
  type Refusal,
} from '../domain/delivery.ts';
import { BootbundleError, forbidden, gone, notFound, unavailable } from '../domain/errors.ts';
import { cloudInitInstanceId, type Instance } from '../domain/instance.ts';
import type { JsonObject } from '../domain/json.ts';
import { checkName } from '../domain/names.ts';
import { type PolicyDefaults, policyInForce, refusalOf } from '../domain/policy.ts';
import type { Page, Store } from '../domain/store.ts';
import { RENDERER_VERSION } from '../render/document.ts';
import type { Document, DocumentService } from './documents.ts';
import type { KeyRing } from './keys.ts';
import { stopwatch } from './stopwatch.ts';

/** Who asks for a document, as far as the wire tells. */
export interface Fetcher {
  address: string;
  userAgent: string;
}

/** What a GET of a document is answered with. */
export interface Answer {
  instance: string;
  /** Empty for a seed that is refused: anything but a 200 costs the machine its datasource. */
  bytes: Buffer;
  /** Why it is not the instance's own document; null when it is. */
  refusal: Refusal | null;
}

export interface DeliveryService {
  /**
   * Renders the document of the machine a capability stands for. When it resolves, the ledger's row is on disk.
   * @returns the answer, and `aborted()`, to be called when the client went away before it had all of it
   * @throws not_found `unknown_capability`; of an include, gone `window_shut` and forbidden `address_not_allowed`; unavailable for any trouble of ours
   */
  deliver(purpose: 'include' | 'seed', capability: string, fetcher: Fetcher): Promise<Answer & { aborted: () => void }>;
  /** The same without a delivery, for HEAD. */
  peek(purpose: 'include' | 'seed', capability: string, fetcher: Fetcher): Promise<Answer>;
  /** A NoCloud seed's other documents, whatever the window; empty where nothing is set. @throws not_found `unknown_capability` */
  seed(capability: string, document: 'meta-data' | 'vendor-data' | 'network-config', fetcher: Fetcher): Promise<string>;
  /** Whether a fetch is being answered now. */
  fetching(): boolean;
  /** Newest first. @throws not_found `unknown_instance` */
  list(instance: string, page: Page<number>): Promise<Delivery[]>;
}

/** How often a fetch begins anew because the instance, its window or its capability changed while it was answered. */
const ATTEMPTS = 5;

const NOTHING = Buffer.alloc(0);
const NO_EXPECTATIONS = NO_BOOT.expects;

export function createDeliveryService(deps: {
  store: Store;
  documents: DocumentService;
  keys: KeyRing;
  policyDefaults: PolicyDefaults;
  publicUrl: string;
  clock: () => number;
  /** Told of trouble nobody waits for. */
  onTrouble: (error: unknown, what: string) => void;
  /** Told of each alarm when it begins; what adds to one is told by its row only. */
  onAlarm: (alarm: Alarm) => void;
  /** Told of each fetch, each rendering for one, each commit; for the metrics. */
  onFetch?: (fetch: { purpose: 'include' | 'seed'; outcome: FetchOutcome; seconds: number }) => void;
  onRender?: (rendering: { seconds: number; bytes: number }) => void;
  onCommit?: (commit: { seconds: number; rows: number }) => void;
}): DeliveryService {
  const { store, documents, keys, policyDefaults, publicUrl, clock, onTrouble, onAlarm, onFetch, onRender, onCommit } = deps;
  const commit = groupCommit((rows) => store.recordDeliveries(rows, policyDefaults), onCommit);
  const pace = createPace();
  let underWay = 0;

  /** @returns the id of the row, or null when there is none because what was answered for is so no longer */
  async function record(row: NewDelivery): Promise<number | null> {
    const recorded = await commit(row);
    if (recorded.kind === 'changed') return null;
    if (recorded.alarm) onAlarm(recorded.alarm);
    return recorded.id;
  }

  async function open(purpose: 'include' | 'seed', capability: string, fetcher: Fetcher): Promise<Instance> {
    const claim = keys.verify(purpose, capability);
    const instance = claim && (await store.findInstanceById(claim.instanceId));
    if (claim && instance?.generations[purpose] !== claim.generation) await alarmOfOldStub(claim.instanceId, fetcher);
    else if (instance) return instance;
    throw notFound('unknown_capability', 'no such document');
  }

  /** We made it once, so somebody has what was taken from him: rotated, or its machine deleted. */
  async function alarmOfOldStub(instanceId: string, fetcher: Fetcher): Promise<void> {
    const at = clock();
    const count = pace(instanceId, fetcher.address, at);
    if (count === 0) return;
    try {
      const alarm = await store.recordAlarm({ instanceId, kind: 'old_stub', at, count, ...fetcher });
      if (alarm) onAlarm(alarm);
    } catch (error) {
      onTrouble(error, 'an alarm could not be kept');
    }
  }

  /**
   * Whether a fetch is refused, as far as can be told before anything is rendered.
   * @returns why, and whether secrets are in the document, where that makes the difference
   */
  async function judge(
    instance: Instance,
    { address }: Fetcher,
    at: number,
  ): Promise<{ refusal: Refusal | null; guarded: boolean }> {
    const refusal = (guarded: boolean, repeat: boolean) =>
      refusalOf(policyInForce(instance.policy, policyDefaults, instance, guarded), instance, { address, at, repeat });
    if (refusal(true, false) === null) return { refusal: null, guarded: false };
    const fresh = instance.lastDeliveryAt !== null && Math.abs(at - instance.lastDeliveryAt) < REPEAT_WINDOW_MS;
    const repeat = fresh && (await store.isRepeat({ instance: instance.name, address, at }));
    const anyway = refusal(false, repeat);
    if (anyway !== null || refusal(true, repeat) === null) return { refusal: anyway, guarded: false };
    // What cannot be told will not be rendered either, which is then our trouble.
    const guarded = await documents.holdsSecrets(instance).catch(() => false);
    return { refusal: refusal(guarded, repeat), guarded };
  }

  async function render(instance: Instance): Promise<Document> {
    const seconds = stopwatch();
    try {
      const document = await documents.render(instance);
      onRender?.({ seconds: seconds(), bytes: document.bytes.length });
      return document;
    } catch (error) {
      // What an operator broke since is our trouble, not the machine's: it waits and asks again.
      if (error instanceof BootbundleError && error.kind === 'unavailable') throw error;
      throw new BootbundleError('unavailable', 'cannot_render', `the document of ${instance.name} cannot be rendered`, {
        cause: error,
      });
    }
  }

  /** What the policy has for those who come late, or null: what cannot be rendered, or holds secrets by now, is not served. */
  async function renderAfterClose(instance: Instance): Promise<Document | null> {
    const { afterClose = 'refuse' } = instance.policy;
    if (afterClose === 'refuse') return null;
    const instead: Instance = { ...instance, bundles: afterClose, track: false };
    try {
      const document = await documents.render(instead);
      return document.holdsSecrets ? null : document;
    } catch (error) {
      onTrouble(error, `what ${instance.name} is served after its window closed cannot be rendered`);
      return null;
    }
  }

  /** One attempt at an answer; null when the instance changed meanwhile. */
  async function answer(
    purpose: 'include' | 'seed',
    instance: Instance,
    fetcher: Fetcher,
    at: number,
  ): Promise<(Answer & { aborted: () => void }) | null> {
    const { refusal, guarded } = await judge(instance, fetcher, at);
    const { id: instanceId, version: instanceVersion, name } = instance;
    const row = {
      ...{ instanceId, instanceVersion, at, purpose, ...fetcher, refusal, guarded },
      generation: instance.generations[purpose],
      ...{ digest: null, bytes: 0, revisions: [], holdsSecrets: false, inputs: null, expects: NO_EXPECTATIONS },
    };
    const sent = ({ digest, bytes, revisions }: Document) => ({ digest, bytes: bytes.length, revisions });

    if (refusal !== null) {
      const instead = purpose === 'include' ? await renderAfterClose(instance) : null;
      if (instead) {
        const id = await record({
          ...row,
          ...sent(instead),
          inputs: inputsOf(instance, instead, publicUrl),
          outcome: 'delivered',
        });
        return id === null ? null : { instance: name, bytes: instead.bytes, refusal, aborted: () => abort(id) };
      }
      if ((await record({ ...row, outcome: 'refused' })) === null) return null;
      if (purpose === 'include') throw refused(name, refusal);
      return { instance: name, bytes: NOTHING, refusal, aborted: () => undefined };
    }

    let document: Document;
    try {
      document = await render(instance);
    } catch (error) {
      const id = await record({ ...row, outcome: 'failed' }).catch((lost) => {
        onTrouble(lost, 'a failed delivery could not be put into the ledger');
        return undefined;
      });
      if (id === null) return null;
      throw error;
    }
    const { holdsSecrets, expects } = document;
    const own = {
      ...row,
      ...sent(document),
      holdsSecrets,
      guarded: holdsSecrets,
      expects,
      inputs: inputsOf(instance, document, publicUrl),
    };
    const id = await record({ ...own, outcome: 'delivered' });
    return id === null ? null : { instance: name, bytes: document.bytes, refusal, aborted: () => abort(id) };
  }

  function abort(id: number): void {
    store.closeDelivery(id, 'aborted').catch((lost) => onTrouble(lost, 'an aborted delivery could not be marked'));
  }

  const deliver: DeliveryService['deliver'] = async (purpose, capability, fetcher) => {
    const at = clock();
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const answered = await answer(purpose, await open(purpose, capability, fetcher), fetcher, at);
      if (answered) return answered;
    }
    throw unavailable('changing', 'the instance changes faster than its document is rendered');
  };

  const peek: DeliveryService['peek'] = async (purpose, capability, fetcher) => {
    const instance = await open(purpose, capability, fetcher);
    const { refusal } = await judge(instance, fetcher, clock());
    const { name } = instance;
    if (refusal === null) return { instance: name, bytes: (await render(instance)).bytes, refusal };
    if (purpose === 'seed') return { instance: name, bytes: NOTHING, refusal };
    const instead = await renderAfterClose(instance);
    if (!instead) throw refused(name, refusal);
    return { instance: name, bytes: instead.bytes, refusal };
  };

  /** Tells how a fetch ends, and when. What is answered instead of a document is a refusal. */
  async function told<A extends Answer>(purpose: 'include' | 'seed', good: FetchOutcome, answer: () => Promise<A>): Promise<A> {
    const seconds = stopwatch();
    const tell = (outcome: FetchOutcome) => onFetch?.({ purpose, outcome, seconds: seconds() });
    try {
      const answered = await answer();
      tell(answered.refusal === null ? good : 'refused');
      return answered;
    } catch (error) {
      tell(outcomeOf(error));
      throw error;
    }
  }

  return {
    fetching: () => underWay > 0,

    async deliver(purpose, capability, fetcher) {
      underWay++;
      try {
        return await told(purpose, 'delivered', () => deliver(purpose, capability, fetcher));
      } finally {
        underWay--;
      }
    },

    peek: (purpose, capability, fetcher) => told(purpose, 'head', () => peek(purpose, capability, fetcher)),

    async seed(capability, document, fetcher) {
      const instance = await open('seed', capability, fetcher);
      switch (document) {
        case 'meta-data':
          return yaml({
            'instance-id': cloudInitInstanceId(instance),
            'local-hostname': instance.name,
            ...instance.metaData,
          });
        case 'vendor-data':
          return instance.vendorData ?? '';
        case 'network-config':
          if (instance.networkConfig === null) return '';
          return typeof instance.networkConfig === 'string' ? instance.networkConfig : yaml(instance.networkConfig);
      }
    },

    async list(name, page) {
      checkName('instance', name);
      if (!(await store.findInstance(name))) throw notFound('unknown_instance', 'there is no such instance');
      return store.listDeliveries(name, page);
    },
  };
}

/** Says to whoever reads the machine's console what an operator has to do; it never names the URL. */
function refused(name: string, refusal: Refusal): BootbundleError {
  if (refusal === 'address')
    return forbidden(
      'address_not_allowed',
      `the policy of ${name} does not allow this address: an operator can add it to allowFrom`,
    );
  return gone(
    'window_shut',
    `${name} is not given its document any more: to boot it anew, an operator opens it again with POST /api/v1/instances/${name}/reopen?for=1h`,
  );
}

/** An old stub is anybody's to send, so what is written of it is bounded: so often per second, from one address and for one instance. */
const WRITES_PER_ADDRESS = 1;
const WRITES_PER_INSTANCE = 10;
const PACE_MS = 1000;
const PACED = 10_000;

/** @returns how many an alarm that is written now stands for; 0: not now */
function createPace(): (instanceId: string, address: string, at: number) => number {
  interface Beat {
    since: number;
    writes: number;
    unwritten: number;
  }
  const beats = new LRUCache<string, Beat>({ max: PACED });
  const beatOf = (key: string, at: number) => {
    const beat = beats.get(key) ?? { since: at, writes: 0, unwritten: 0 };
    if (Math.abs(at - beat.since) >= PACE_MS) Object.assign(beat, { since: at, writes: 0 });
    beats.set(key, beat);
    return beat;
  };
  return (instanceId, address, at) => {
    const whole = beatOf(instanceId, at);
    const own = beatOf(`${instanceId} ${address}`, at);
    own.unwritten++;
    if (own.writes >= WRITES_PER_ADDRESS || whole.writes >= WRITES_PER_INSTANCE) return 0;
    own.writes++;
    whole.writes++;
    const { unwritten } = own;
    own.unwritten = 0;
    return unwritten;
  };
}

/** What a replay needs beside the revisions and the instance's version. */
function inputsOf({ generations }: Instance, { secretsVersions }: Document, publicUrl: string): DeliveryInputs {
  return { generations, publicUrl, renderer: RENDERER_VERSION, secretsVersions };
}

/** YAML that reads the same in YAML 1.1 (cloud-init's PyYAML) and 1.2. */
function yaml(value: JsonObject): string {
  return dump(value, { lineWidth: -1 });
}

function outcomeOf(error: unknown): FetchOutcome {
  const kind = error instanceof BootbundleError ? error.kind : 'internal';
  if (kind === 'not_found') return 'not_found';
  return kind === 'gone' || kind === 'forbidden' ? 'refused' : 'failed';
}

/** At most so many rows in one commit: a batch must not hold up the next for long. */
const BATCH = 500;

/**
 * One commit for every fetch that waits: while one batch is being written the next gathers. A fetch that comes alone is
 * written at the end of its turn of the event loop.
 */
function groupCommit(
  write: (rows: readonly NewDelivery[]) => Promise<Recorded[]>,
  onCommit?: (commit: { seconds: number; rows: number }) => void,
): (row: NewDelivery) => Promise<Recorded> {
  const waiting: { row: NewDelivery; resolve: (recorded: Recorded) => void; reject: (error: unknown) => void }[] = [];
  let writing = false;

  async function drain() {
    while (waiting.length > 0) {
      const batch = waiting.splice(0, BATCH);
      const seconds = stopwatch();
      try {
        const recorded = await write(batch.map(({ row }) => row));
        onCommit?.({ seconds: seconds(), rows: batch.length });
        batch.forEach(({ resolve }, index) => {
          resolve(recorded[index] as Recorded);
        });
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    writing = false;
  }

  return (row) =>
    new Promise((resolve, reject) => {
      waiting.push({ row, resolve, reject });
      if (writing) return;
      writing = true;
      setImmediate(drain);
    });
}

import { dump } from 'js-yaml';
import type { Delivery, NewDelivery } from '../domain/delivery.ts';
import { BootbundleError, notFound } from '../domain/errors.ts';
import { cloudInitInstanceId, type Instance } from '../domain/instance.ts';
import type { JsonObject } from '../domain/json.ts';
import { checkName } from '../domain/names.ts';
import type { Page, Store } from '../domain/store.ts';
import type { Document, DocumentService } from './documents.ts';
import type { KeyRing } from './keys.ts';

/** Who asks for a document, as far as the wire tells. */
export interface Fetcher {
  address: string;
  userAgent: string;
}

export interface DeliveryService {
  /**
   * Renders the document of the machine a capability stands for. When it resolves, the ledger's row is on disk.
   * @returns the document, and `aborted()`, to be called when the client went away before it had all of it
   * @throws not_found `unknown_capability`; unavailable for any trouble of ours
   */
  deliver(
    purpose: 'include' | 'seed',
    capability: string,
    fetcher: Fetcher,
  ): Promise<Document & { instance: string; aborted: () => void }>;
  /** The same without a delivery, for HEAD. */
  peek(purpose: 'include' | 'seed', capability: string): Promise<Document & { instance: string }>;
  /** A NoCloud seed's other documents; empty where nothing is set. @throws not_found `unknown_capability` */
  seed(capability: string, document: 'meta-data' | 'vendor-data' | 'network-config'): Promise<string>;
  /** Whether a fetch is being answered now. */
  fetching(): boolean;
  /** Newest first. @throws not_found `unknown_instance` */
  list(instance: string, page: Page<number>): Promise<Delivery[]>;
}

export function createDeliveryService(deps: {
  store: Store;
  documents: DocumentService;
  keys: KeyRing;
  clock: () => number;
  /** Told of trouble nobody waits for. */
  onTrouble: (error: unknown, what: string) => void;
}): DeliveryService {
  const { store, documents, keys, clock, onTrouble } = deps;
  const record = groupCommit((rows) => store.recordDeliveries(rows));
  let underWay = 0;

  async function open(purpose: 'include' | 'seed', capability: string): Promise<Instance> {
    const claim = keys.verify(purpose, capability);
    const instance = claim && (await store.findInstanceById(claim.instanceId));
    if (!instance || instance.generations[purpose] !== claim.generation)
      throw notFound('unknown_capability', 'no such document');
    return instance;
  }

  async function render(instance: Instance): Promise<Document> {
    try {
      return await documents.render(instance);
    } catch (error) {
      // What an operator broke since is our trouble, not the machine's: it waits and asks again.
      if (error instanceof BootbundleError && error.kind === 'unavailable') throw error;
      throw new BootbundleError('unavailable', 'cannot_render', `the document of ${instance.name} cannot be rendered`, {
        cause: error,
      });
    }
  }

  const deliver: DeliveryService['deliver'] = async (purpose, capability, fetcher) => {
    const instance = await open(purpose, capability);
    const { id: instanceId, version: instanceVersion } = instance;
    const circumstances = {
      instanceId,
      instanceVersion,
      at: clock(),
      purpose,
      ...fetcher,
      refusal: null,
      holdsSecrets: false,
      inputs: null,
    };
    let document: Document;
    try {
      document = await render(instance);
    } catch (error) {
      const failed = { ...circumstances, digest: null, bytes: 0, revisions: [], outcome: 'failed' as const };
      await record(failed).catch((lost) => onTrouble(lost, 'a failed delivery could not be put into the ledger'));
      throw error;
    }
    const { digest, bytes, revisions, holdsSecrets } = document;
    const id = await record({ ...circumstances, digest, bytes: bytes.length, revisions, holdsSecrets, outcome: 'delivered' });
    const aborted = () => {
      store.closeDelivery(id, 'aborted').catch((lost) => onTrouble(lost, 'an aborted delivery could not be marked'));
    };
    return { ...document, instance: instance.name, aborted };
  };

  return {
    fetching: () => underWay > 0,

    async deliver(purpose, capability, fetcher) {
      underWay++;
      try {
        return await deliver(purpose, capability, fetcher);
      } finally {
        underWay--;
      }
    },

    async peek(purpose, capability) {
      const instance = await open(purpose, capability);
      return { ...(await render(instance)), instance: instance.name };
    },

    async seed(capability, document) {
      const instance = await open('seed', capability);
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

/** YAML that reads the same in YAML 1.1 (cloud-init's PyYAML) and 1.2. */
function yaml(value: JsonObject): string {
  return dump(value, { lineWidth: -1 });
}

/** At most so many rows in one commit: a batch must not hold up the next for long. */
const BATCH = 500;

/**
 * One commit for every fetch that waits: while one batch is being written the next gathers. A fetch that comes alone is
 * written at the end of its turn of the event loop.
 */
function groupCommit(write: (rows: readonly NewDelivery[]) => Promise<number[]>): (row: NewDelivery) => Promise<number> {
  const waiting: { row: NewDelivery; resolve: (id: number) => void; reject: (error: unknown) => void }[] = [];
  let writing = false;

  async function drain() {
    while (waiting.length > 0) {
      const batch = waiting.splice(0, BATCH);
      try {
        const ids = await write(batch.map(({ row }) => row));
        batch.forEach(({ resolve }, index) => {
          resolve(ids[index] as number);
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

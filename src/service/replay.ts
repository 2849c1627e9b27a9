import { type Actor, roleSuffices } from '../domain/actor.ts';
import type { Delivery } from '../domain/delivery.ts';
import { BootbundleError, conflict, forbidden, notFound } from '../domain/errors.ts';
import type { Instance } from '../domain/instance.ts';
import { LIMITS } from '../domain/limits.ts';
import { checkName, parseReference } from '../domain/names.ts';
import type { SecretOwner } from '../domain/secret.ts';
import { SPECS_KEPT, type Store } from '../domain/store.ts';
import { RENDERER_VERSION } from '../render/document.ts';
import type { Document, DocumentService } from './documents.ts';
import { type InstanceService, type InstanceWriteOptions, type InstanceWriteReport, unknownDelivery } from './instances.ts';
import type { KeyRing } from './keys.ts';

/** What setting an instance back to a delivery came to. */
export interface Pinned {
  report: InstanceWriteReport;
  /** Its references, before and after. */
  before: readonly string[];
  after: readonly string[];
}

/** What machines got, once more. */
export interface ReplayService {
  /** A row of the ledger, of a retired instance too. @throws not_found `unknown_instance`, `unknown_delivery` */
  find(instance: string, id: number): Promise<Delivery>;
  /**
   * The bytes of a delivery, rendered anew from what they were rendered from; equal to the last byte, or not given. Where secrets are in them, the
   * audit knows of it first.
   * @throws forbidden `reveal_needed` when secrets are in it and `reveal` is not said, `admin_needed` when it is; conflict `nothing_delivered`;
   *   conflict `not_replayable`, saying why
   */
  userData(
    instance: string,
    id: number,
    options: { reveal: boolean; by: Actor },
  ): Promise<{ document: Document; revealed: boolean }>;
  /**
   * Sets an instance's references to the revisions of one of its deliveries, in their order, by the same way as any other write.
   * @throws conflict `nothing_delivered`, `purged`, `not_its_own`; whatever a PATCH may be refused for
   */
  pin(
    instance: string,
    id: number,
    options: Pick<InstanceWriteOptions, 'preconditions' | 'dryRun'> & { by: Actor },
  ): Promise<Pinned>;
}

export function createReplayService(deps: {
  store: Store;
  documents: DocumentService;
  instances: InstanceService;
  keys: KeyRing;
  clock: () => number;
}): ReplayService {
  const { store, documents, instances, keys, clock } = deps;

  async function look(name: string, id: number): Promise<{ instance: Instance; delivery: Delivery }> {
    checkName('instance', name);
    const instance = await store.findInstance(name);
    if (!instance) throw notFound('unknown_instance', 'there is no such instance');
    const delivery = await store.findDelivery(name, id);
    if (!delivery) throw unknownDelivery();
    return { instance, delivery };
  }

  /** Those of a delivery's revisions whose content is there no more. A compiled one may still be in memory: that is nothing to go by. */
  async function purgedOf({ revisions }: Delivery): Promise<string[]> {
    const purged: string[] = [];
    for (const text of revisions) {
      const { bundle, revision } = parseReference(text);
      const found = await store.findRevision(bundle, revision ?? 0);
      if (!found || found.purgedAt !== null) purged.push(text);
    }
    return purged;
  }

  async function replay({ id, name }: Instance, delivery: Delivery): Promise<Document> {
    const { inputs, instanceVersion: version, revisions, refusal, digest } = delivery;
    if (!inputs || version === null)
      throw notReplayable('its row is from before the ledger kept what a document was rendered from');
    const spec = await store.findSpec(name, version);
    if (!spec)
      throw notReplayable(
        `what the instance stated then (its version ${version}) is not kept: only that of its last ${SPECS_KEPT} versions is`,
      );
    const purged = await purgedOf(delivery);
    if (purged.length > 0) throw notReplayable(`the content of ${purged.join(', ')} was purged`);

    const { generations, publicUrl, secretsVersions } = inputs;
    // What late ones are served instead makes no machine report.
    const track = refusal === null && spec.track;
    const owner = { ...spec, track, id, name, generations, bundles: revisions };
    let rendered: Document | null = null;
    for (const capability of keys.capabilities('report', owner)) {
      const past = { version, secretsVersions, reportUrl: `${publicUrl}/r/${capability}` };
      try {
        rendered = await documents.renderAt(owner, past);
      } catch (error) {
        throw notReplayable(await failureOf(error, delivery));
      }
      if (rendered.digest === digest) return rendered;
    }
    throw notReplayable((await lossOf(delivery)) ?? differenceOf(rendered));
  }

  /** Why nothing could be rendered. Trouble that passes is no reason: it is thrown on. */
  async function failureOf(error: unknown, delivery: Delivery): Promise<string> {
    if (!(error instanceof BootbundleError)) throw error;
    switch (error.code) {
      case 'secret_unreadable':
        return error.message;
      case 'revision_purged':
      case 'body_missing':
        // Purged since it was looked at; or else our trouble.
        if ((await purgedOf(delivery)).length > 0) return 'the content of one of its revisions was purged';
    }
    if (error.kind !== 'invalid') throw error;
    return (await lossOf(delivery)) ?? `it cannot be rendered any more: ${error.message}`;
  }

  /** What is known not to be there as it was then. */
  async function lossOf({ instance, instanceVersion, inputs }: Delivery): Promise<string | null> {
    if (inputs?.renderer !== RENDERER_VERSION)
      return `another version of bootbundle rendered it (renderer ${inputs?.renderer}, now ${RENDERER_VERSION}), and this one makes other bytes of it`;
    const owners: [SecretOwner, number][] = [
      [{ kind: 'instance', name: instance }, instanceVersion ?? 0],
      ...Object.entries(inputs.secretsVersions).map(([name, version]): [SecretOwner, number] => [
        { kind: 'bundle', name },
        version,
      ]),
    ];
    for (const [owner, version] of owners)
      if (await store.forgotSecrets(owner, version))
        return `a secret that the ${owner.kind} ${owner.name} had then is gone: of its old values only the last ${LIMITS.oldSecretsPerOwner} are kept`;
    return null;
  }

  return {
    find: async (name, id) => (await look(name, id)).delivery,

    async userData(name, id, { reveal, by }) {
      const { instance, delivery } = await look(name, id);
      refuseEmpty(delivery);
      if (delivery.holdsSecrets) {
        if (!reveal) throw forbidden('reveal_needed', 'secrets are in it: say ?reveal=true, with a token of the role admin');
        if (!roleSuffices(by.role, 'admin'))
          throw forbidden('admin_needed', 'secrets are in it: only a token of the role admin may reveal them');
      }
      const document = await replay(instance, delivery);
      if (delivery.holdsSecrets)
        await store.recordAudit(
          {
            ...{ action: 'reveal', kind: 'instance', name, before: null, after: null },
            detail: { delivery: id, digest: document.digest },
          },
          { at: clock(), by },
        );
      return { document, revealed: delivery.holdsSecrets };
    },

    async pin(name, id, { by, ...options }) {
      const { delivery } = await look(name, id);
      refuseEmpty(delivery);
      if (delivery.refusal !== null)
        throw conflict(
          'not_its_own',
          'it was served what its policy has for late fetches, not its own document: pin another one',
        );
      const purged = await purgedOf(delivery);
      if (purged.length > 0) throw conflict('purged', `the content of ${purged.join(', ')} was purged: pin another delivery`);
      const after = delivery.revisions;
      let before: readonly string[] = [];
      const report = await instances.patch(
        name,
        (spec) => {
          before = spec.bundles;
          return { spec: { ...spec, bundles: [...after] } };
        },
        { ...options, by, detail: { pinnedTo: id } },
      );
      return { report, before, after };
    },
  };
}

/** @throws conflict `nothing_delivered` */
function refuseEmpty({ digest, outcome }: Delivery): void {
  if (digest === null || outcome === 'failed' || outcome === 'refused')
    throw conflict(
      'nothing_delivered',
      outcome === 'refused'
        ? 'that fetch was refused: nothing was delivered'
        : 'no document could be rendered: nothing was delivered',
    );
}

/** All of what it was rendered from is there, and yet it comes out otherwise. */
function differenceOf(rendered: Document | null): string {
  const reports = rendered?.parts.some(({ origin }) => origin === 'bootbundle');
  return reports
    ? 'it comes out otherwise, most likely because the key that its report URL was made with is no longer in BOOTBUNDLE_KEY'
    : 'it comes out otherwise, although all of what it was rendered from is there';
}

const notReplayable = (why: string) => conflict('not_replayable', `the delivery cannot be replayed: ${why}`);

import { OURSELVES } from '../domain/actor.ts';
import { isBuiltIn, KUBE_BUNDLE, type RevisionContent, revisionDigest, sha256 } from '../domain/bundle.ts';
import { BootbundleError } from '../domain/errors.ts';
import type { Store } from '../domain/store.ts';
import { kubePartHandler } from '../guest/handler.ts';

/** The bundle whose part handler lays Kubernetes manifests down and has them applied once Kubernetes is up. */
const KUBE = { bundle: KUBE_BUNDLE, filename: 'kube-part-handler.py' };

/**
 * Puts the built-in bundle `kube` there at the first start, and a new revision of it when the product brings another handler, unless an operator
 * has changed or deleted it: then it is his.
 */
export async function ensureBuiltIns(store: Store, clock: () => number): Promise<void> {
  const body = Buffer.from(kubePartHandler());
  const part = {
    filename: KUBE.filename,
    type: 'text/part-handler',
    typeSaid: false,
    merge: null,
    template: false,
    size: body.length,
    sha256: sha256(body),
  };
  const content: RevisionContent = { order: 'name', vars: {}, parts: [part] };
  const digest = revisionDigest(content);
  const present = await store.findBundle(KUBE.bundle);
  if (present && (!isBuiltIn(present.latest) || present.latest.digest === digest || present.retiredAt !== null)) return;
  try {
    await store.putRevision({
      bundle: KUBE.bundle,
      base: present?.latest.number ?? null,
      content,
      digest,
      bodies: new Map([[part.sha256, body]]),
      at: clock(),
      by: OURSELVES,
      message: null,
    });
  } catch (error) {
    // Another replica that starts at this moment did it.
    if (!(error instanceof BootbundleError) || error.code !== 'changed_meanwhile') throw error;
  }
}

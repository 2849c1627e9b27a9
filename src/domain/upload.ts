import type { PartOrder } from './bundle.ts';
import type { JsonObject } from './json.ts';

/** One part as a client sent it. An option that is undefined was not said; null clears it (`type=auto`, `merge=`). */
export interface PartUpload {
  filename: string;
  body: Uint8Array;
  type?: string | null;
  merge?: string | null;
  template?: boolean;
}

/** Several parts as a client sent them, in the order sent. What is undefined was not said. */
export interface BundleUpload {
  order?: PartOrder;
  vars?: JsonObject;
  parts: PartUpload[];
}

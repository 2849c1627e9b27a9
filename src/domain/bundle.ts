import { createHash } from 'node:crypto';
import { OURSELVES } from './actor.ts';
import { canonicalJson, type JsonObject } from './json.ts';

/** One document for cloud-init as a revision keeps it; its bytes are stored once, under `sha256`. */
export interface Part {
  filename: string;
  /** The content type that goes on the wire. */
  type: string;
  /** Whether the operator said the type (then it stays) or it was sniffed (then each new body is sniffed again). */
  typeSaid: boolean;
  /** A cloud-config merge rule for the `Merge-Type` header, or null. */
  merge: string | null;
  /** Rendered as a template for each instance. */
  template: boolean;
  /** Bytes. */
  size: number;
  /** Hex SHA-256 of the bytes. */
  sha256: string;
}

/** `name`: by file name, bytewise, like a conf.d. `given`: as the whole bundle was written. */
export type PartOrder = 'name' | 'given';

/** What a revision states, without its number and its circumstances. */
export interface RevisionContent {
  order: PartOrder;
  /** Defaults for templates. */
  vars: JsonObject;
  /** In the order in which they are sent. */
  parts: Part[];
}

/** One immutable state of a bundle. */
export interface Revision extends RevisionContent {
  bundle: string;
  /** 1, 2, 3, … per bundle, never used again. */
  number: number;
  /** Hex SHA-256 of the content. */
  digest: string;
  /** Epoch milliseconds. */
  createdAt: number;
  /** Who wrote it: an API token's name. */
  author: string;
  /** What the author said of it, or null. */
  message: string | null;
  /** Epoch milliseconds of the purge of its content, or null. */
  purgedAt: number | null;
}

/** A bundle with its newest revision. */
export interface Bundle {
  name: string;
  createdAt: number;
  /** Epoch milliseconds of its deletion, or null while it lives. */
  retiredAt: number | null;
  latest: Revision;
  /** Tag name to revision number. */
  tags: Record<string, number>;
  /** Counts the changes of its secrets, which belong to no revision. */
  secretsVersion: number;
}

/** Who writes the revisions of built-in bundles; no token may bear this name. */
export const BUILT_IN_AUTHOR = OURSELVES.name;

/** The built-in bundle that takes Kubernetes manifests; it heeds an instance's `vars.kube`. */
export const KUBE_BUNDLE = 'kube';

/** Whether a bundle is built in: for as long as its newest revision is the product's own. */
export function isBuiltIn(newest: { author: string }): boolean {
  return newest.author === BUILT_IN_AUTHOR;
}

/** Hex SHA-256. */
export function sha256(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The digest of a revision: equal for equal content, whoever wrote it and when. */
export function revisionDigest(content: RevisionContent): string {
  return sha256(
    canonicalJson({
      order: content.order,
      vars: content.vars,
      parts: content.parts.map(({ filename, type, typeSaid, merge, template, sha256 }) => ({
        filename,
        type,
        typeSaid,
        merge,
        template,
        sha256,
      })),
    }),
  );
}

/** Puts parts in the order they are sent in: bytewise by file name (names are ASCII), or untouched. */
export function arrangeParts(order: PartOrder, parts: readonly Part[]): Part[] {
  return order === 'given'
    ? [...parts]
    : [...parts].sort((a, b) => (a.filename < b.filename ? -1 : a.filename > b.filename ? 1 : 0));
}

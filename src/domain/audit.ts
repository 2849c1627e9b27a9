import type { Actor, TokenScope } from './actor.ts';

/** What was done to something. `before` and `after` are digests or entity tags, null where there was nothing (or nothing is told). */
export interface AuditNote {
  /** `put`, `delete`, `rotate`, `reveal` … */
  action: string;
  kind: 'bundle' | 'instance' | 'token' | 'service';
  name: string;
  before: string | null;
  after: string | null;
  detail: AuditDetail;
}

/** What else there is to say, without a secret: `force`, `accept`, the part or secret by name, the purpose. */
export type AuditDetail = Readonly<Record<string, string | number | boolean | readonly string[]>>;

/** One line of the audit: append-only. */
export interface AuditEntry extends AuditNote {
  /** Grows with time; also the cursor of a list. */
  id: number;
  at: number;
  actor: string;
  role: Actor['role'];
  address: string;
  requestId: string;
}

/** What a look into the audit is for. */
export interface AuditFilter {
  kind?: AuditEntry['kind'] | undefined;
  name?: string | undefined;
  actor?: string | undefined;
  action?: string | undefined;
  /** From then on, epoch milliseconds. */
  since?: number | undefined;
  /** Only of bundles and instances in a scope; of tokens and the service only where it is everything. */
  scope?: TokenScope | undefined;
}

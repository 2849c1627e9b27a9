import { type BootFacts, type StateFacts, stateOf, waitingSince } from '../domain/boot.ts';
import type { InstanceRow } from './database.ts';
import { toFacts } from './instance.ts';

type BootColumns = Pick<InstanceRow, 'boot' | 'state' | 'waiting_since' | 'silent_at'>;

/** The columns that hold what is known of a boot, and what lists look for, derived from it. Whoever said something is silent no more. */
export function bootColumns(facts: StateFacts): BootColumns {
  const { state } = stateOf(facts.boot);
  return { boot: JSON.stringify(facts.boot), state, waiting_since: waitingSince(facts), silent_at: null };
}

/** The columns after `note` took something in. */
export function noted(
  row: Pick<InstanceRow, 'created_at' | 'reopened_at' | 'boot'>,
  note: (facts: BootFacts) => BootFacts,
): BootColumns {
  return bootColumns({ createdAt: row.created_at, reopenedAt: row.reopened_at, boot: note(toFacts(row.boot)) });
}

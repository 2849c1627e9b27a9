import { sql } from 'kysely';
import type { Delivery, DeliveryOutcome } from '../domain/delivery.ts';
import type { Store } from '../domain/store.ts';
import { addressText, type Database, plain } from './database.ts';
import { toDelivery } from './delivery.ts';
import { nameFits } from './scope.ts';

/** So many rows one call looks at: some milliseconds, for SQLite's queries hold the event loop. */
const SCANNED = 2000;

/** The ledger across instances. */
export function ledgerStore(database: Database): Pick<Store, 'scanDeliveries'> {
  return {
    scanDeliveries: ({ instance, bundle, address, outcome, counted, since, until, names = null }, { after, limit }) =>
      database.read(async (db) => {
        // What an index finds decides how far one call looks; the rest is held against what was found.
        const sifted = bundle !== undefined || outcome !== undefined || counted !== undefined;
        const scanned = sifted ? SCANNED : limit;
        let query = db.selectFrom('delivery').selectAll().orderBy('at', 'desc').orderBy('id', 'desc').limit(scanned);
        if (instance !== undefined) query = query.where('instance', '=', plain(instance));
        if (names !== null) query = query.where(nameFits('instance', names));
        if (address !== undefined) query = query.where('address', '=', addressText(address));
        if (since !== undefined) query = query.where('at', '>=', since);
        if (until !== undefined) query = query.where('at', '<', until);
        if (after !== null)
          query = query
            .where('at', '<=', after.at)
            .where(sql<boolean>`(at, id) < (cast(${after.at} as bigint), cast(${after.id} as bigint))`);
        const rows = await query.execute();
        const mark = bundle && (bundle.revision === null ? `"${bundle.name}@` : `"${bundle.name}@${bundle.revision}"`);
        const deliveries: Delivery[] = [];
        let last: { at: number; id: number } | null = null;
        for (const row of rows) {
          last = { at: row.at, id: row.id };
          if (outcome !== undefined && (row.outcome as DeliveryOutcome) !== outcome) continue;
          if (counted !== undefined && (row.counted === 1) !== counted) continue;
          if (mark !== undefined && !row.revisions.includes(mark)) continue;
          deliveries.push(toDelivery(row));
          if (deliveries.length === limit) return { deliveries, next: last };
        }
        return { deliveries, next: rows.length < scanned ? null : last };
      }),
  };
}

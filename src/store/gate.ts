import { BootbundleError } from '../domain/errors.ts';
import type { OnDatabaseError } from './database.ts';
import { isTrouble, storeClosed, translate } from './errors.ts';

/** What every use of a database goes through: errors become the caller's, and closing waits for what is under way. */
export interface Gate {
  /** @throws unavailable `store_closed` once {@link close} was called */
  pass<T>(work: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** `shut` frees the connections; it is called once, when nothing uses them any more. `onError` is told of trouble of the database's own. */
export function gate(shut: () => Promise<void>, onError?: OnDatabaseError): Gate {
  const underWay = new Set<Promise<unknown>>();
  let closing: Promise<void> | undefined;
  return {
    async pass(work) {
      if (closing) throw storeClosed();
      const result = work();
      underWay.add(result);
      try {
        return await result;
      } catch (error) {
        const translated = translate(error);
        if (isTrouble(translated)) onError?.(translated instanceof BootbundleError ? translated.code : 'internal');
        throw translated;
      } finally {
        underWay.delete(result);
      }
    },
    close() {
      closing ??= Promise.allSettled(underWay).then(shut);
      return closing;
    },
  };
}

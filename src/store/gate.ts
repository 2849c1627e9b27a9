import { storeClosed, translate } from './errors.ts';

/** What every use of a database goes through: errors become the caller's, and closing waits for what is under way. */
export interface Gate {
  /** @throws unavailable `store_closed` once {@link close} was called */
  pass<T>(work: () => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** `shut` frees the connections; it is called once, when nothing uses them any more. */
export function gate(shut: () => Promise<void>): Gate {
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
        throw translate(error);
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

import type { FastifyRequest } from 'fastify';
import { canonicalAddress, isWithin } from '../domain/address.ts';

/** More hops than any chain has; what is beyond them is not looked at. */
const HOPS = 32;

/**
 * Whose request it is: the peer's, unless the peer is a trusted proxy; then the address that proxy says it had it from, and so on. What a
 * proxy says that is no address ends the chain at that proxy, so nobody can write himself an address, or none.
 * @param trusted networks as readNetwork writes them
 */
export function clientAddress(peer: string, forwardedFor: string | undefined, trusted: readonly string[]): string {
  let address = canonicalAddress(peer) ?? peer;
  if (trusted.length === 0 || forwardedFor === undefined) return address;
  // Each proxy adds at the end.
  const hops = forwardedFor.split(',').slice(-HOPS).reverse();
  for (const hop of hops) {
    if (!isWithin(address, trusted)) break;
    const before = addressOf(hop.trim());
    if (before === null) break;
    address = before;
  }
  return address;
}

/** `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]:4711`; null for `unknown` and all else. */
function addressOf(hop: string): string | null {
  const [, bracketed] = /^\[([^\]]*)\](?::[0-9]{1,5})?$/.exec(hop) ?? [];
  const [, withPort] = /^([0-9.]+):[0-9]{1,5}$/.exec(hop) ?? [];
  return canonicalAddress(bracketed ?? withPort ?? hop);
}

/**
 * onRequest hook: `request.ip` is the client from now on. Fastify's own `trustProxy` takes whatever a header says for an address, and
 * believes X-Forwarded-Host and X-Forwarded-Proto too, which must not matter here.
 */
export function settleAddress(trusted: readonly string[]): (request: FastifyRequest) => Promise<void> {
  return async (request) => {
    const header = request.headers['x-forwarded-for'];
    const value = clientAddress(request.ip ?? '', Array.isArray(header) ? header.join(',') : header, trusted);
    Object.defineProperty(request, 'ip', { value });
  };
}

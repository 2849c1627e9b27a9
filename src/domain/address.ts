import ipaddr from 'ipaddr.js';

/** A network as it is kept, or what is wrong with it; `why` goes on from its text and says what to write. */
export type NetworkReading = { network: string } | { why: string };

type Address = ipaddr.IPv4 | ipaddr.IPv6;

/** An IPv4-mapped IPv6 address is `::ffff:0:0/96` and the IPv4 address. */
const MAPPED_BITS = 96;

/**
 * Reads `192.0.2.0/24`, `2001:db8::/32` or a single address. Written one way whatever came in: IPv6 as RFC 5952 has it, IPv4-mapped IPv6
 * as the IPv4 it is, a single address without a length.
 */
export function readNetwork(text: string): NetworkReading {
  const [, head = text, digits] = /^([^/]*)\/(0|[1-9][0-9]{0,2})$/.exec(text) ?? [];
  const address = readAddress(head);
  if (!address) return { why: 'is no network: write 192.0.2.0/24, 2001:db8::/32 or one address' };
  const least = address.kind() === 'ipv4' && head.includes(':') ? MAPPED_BITS : 0;
  const bits = address.kind() === 'ipv4' ? 32 : 128;
  const length = digits === undefined ? bits : Number(digits) - least;
  if (length < 0 || length > bits)
    return { why: `has a length its address does not have: write /${least} to /${bits + least}` };
  if (length === bits) return { network: address.toString() };
  const network = `${baseOf(address, length)}/${length}`;
  if (network !== `${address}/${length}`)
    return { why: `has bits beyond its length: write ${network}, or ${address} for the one address` };
  return { network };
}

/** An address in the one way it is written, or null for what is none: `::ffff:192.0.2.7` is `192.0.2.7`. */
export function canonicalAddress(text: string): string | null {
  return readAddress(text)?.toString() ?? null;
}

/** Whether an address lies in one of the networks, which are as {@link readNetwork} writes them. What is no address lies in none. */
export function isWithin(address: string, networks: readonly string[]): boolean {
  // The interface on which a link-local address was seen says nothing of who it is.
  const known = readAddress(address.replace(/%.*$/s, ''));
  return known !== null && networks.some((network) => holds(network, known));
}

function holds(network: string, address: Address): boolean {
  const [head = '', digits] = network.split('/');
  const base = readAddress(head);
  if (!base || base.kind() !== address.kind()) return false;
  return address.match(base, digits === undefined ? base.toByteArray().length * 8 : Number(digits));
}

/** Strict, unlike inet_aton: no octal, no hex, no missing parts; no zone, and no `::192.0.2.7` (deprecated by RFC 4291, 2.5.5.1). */
function readAddress(text: string): Address | null {
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) return ipaddr.IPv4.parse(text);
  if (text.includes('%') || !ipaddr.IPv6.isValid(text)) return null;
  const [, head, tail = ''] = /^(.*:)(.*\..*)$/.exec(text) ?? [];
  if (head === '::' || (head !== undefined && !ipaddr.IPv4.isValidFourPartDecimal(tail))) return null;
  const address = ipaddr.IPv6.parse(text);
  return address.isIPv4MappedAddress() ? address.toIPv4Address() : address;
}

function baseOf(address: Address, length: number): Address {
  const family = address.kind() === 'ipv4' ? ipaddr.IPv4 : ipaddr.IPv6;
  return family.networkAddressFromCIDR(`${address}/${length}`);
}

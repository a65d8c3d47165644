import { BlockList, isIP } from "node:net";

/** Loopback, private, link-local, reserved and multicast ranges: the default of the blocklist. */
export const PRIVATE_RANGES: readonly string[] = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/4",
  "240.0.0.0/4",
  "::/128",
  "::1/128",
  "64:ff9b:1::/48",
  "2001:db8::/32",
  "fc00::/7",
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
];

export interface AddressBlocklist {
  /** @param address an IP address, without brackets */
  blocks(address: string): boolean;
}

function addRange(list: BlockList, range: string): void {
  const [address = "", prefix, ...rest] = range.split("/");
  const family = isIP(address);
  const bits = family === 6 ? 128 : 32;
  const length = prefix === undefined ? bits : /^\d{1,3}$/.test(prefix) ? Number(prefix) : Number.NaN;
  if (family === 0 || rest.length > 0 || !(length >= 0 && length <= bits)) {
    throw new RangeError(`"${range}" is not an IP address or a range like 10.0.0.0/8`);
  }
  list.addSubnet(address, length, family === 6 ? "ipv6" : "ipv4");
}

/** The eight 16-bit groups of an IPv6 address. */
function groupsOf(address: string): readonly number[] {
  // The URL parser writes every form, an embedded dotted quad included, as hexadecimal groups.
  const canonical = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = "", tail] = canonical.split("::");
  const groups = (text: string): number[] =>
    text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
  if (tail === undefined) return groups(head);
  const [front, back] = [groups(head), groups(tail)];
  return [...front, ...Array<number>(8 - front.length - back.length).fill(0), ...back];
}

/** The IPv4 address that packets for a mapped, compatible, NAT64 (RFC 6052) or 6to4 (RFC 3056) address end up at. */
function embeddedIpv4(address: string): string | undefined {
  const groups = groupsOf(address);
  const quad = (high = 0, low = 0): string => [high >> 8, high & 255, low >> 8, low & 255].join(".");
  const lastPair = quad(groups[6], groups[7]);
  if (groups[0] === 0x2002) return quad(groups[1], groups[2]);
  if (groups[0] === 0x64 && groups[1] === 0xff9b && groups.slice(2, 6).every((group) => group === 0)) return lastPair;
  const leading = groups.slice(0, 5).every((group) => group === 0);
  return leading && (groups[5] === 0xffff || groups[5] === 0) ? lastPair : undefined;
}

/**
 * @param ranges CIDR ranges or single addresses, of either family
 * @throws RangeError naming the range that is none
 */
export function createAddressBlocklist(ranges: readonly string[]): AddressBlocklist {
  const list = new BlockList();
  for (const range of ranges) addRange(list, range);
  return {
    blocks(address) {
      const bare = address.replace(/%.*$/, "");
      if (isIP(bare) === 4) return list.check(bare, "ipv4");
      if (isIP(bare) !== 6) throw new TypeError(`"${address}" is not an IP address`);
      const embedded = embeddedIpv4(bare);
      return list.check(bare, "ipv6") || (embedded !== undefined && list.check(embedded, "ipv4"));
    },
  };
}

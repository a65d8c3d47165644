import { isIP } from "node:net";
import { isServerName } from "../matrix/identifiers.ts";
import type { ServerName } from "../matrix/identifiers.ts";

/** Where to connect for a server, and as whom to speak to it. */
export interface ServerAddress {
  /** An IP address (IPv6 without brackets) or a DNS name. */
  readonly host: string;
  readonly port: number;
  /** The `Host` header: the delegated name, never the SRV record's target. */
  readonly hostHeader: string;
  /** The name that the certificate must carry. */
  readonly certificateName: string;
}

export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

export interface DiscoverySources {
  /** `m.server` of a host's well-known file; undefined if there is none that counts. Never fails. */
  readonly wellKnown: (hostname: string) => Promise<ServerName | undefined>;
  /** The SRV records of a name; empty if there are none or they can't be had. Never fails. */
  readonly srvRecords: (name: string) => Promise<readonly SrvRecord[]>;
  /** In [0, 1), for the weights of SRV records. */
  readonly random: () => number;
}

interface ParsedName {
  readonly host: string;
  readonly port: number | undefined;
  readonly isIp: boolean;
}

const DEFAULT_PORT = 8448;

function parseServerName(name: ServerName): ParsedName {
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(name);
  const [, bracketed = name, port] = match ?? [];
  const host = bracketed.replace(/^\[(.*)\]$/, "$1");
  return { host, port: port === undefined ? undefined : Number(port), isIp: isIP(host) !== 0 };
}

/** RFC 2782: by priority; within one, a random order in which weight counts. */
function orderSrvRecords(records: readonly SrvRecord[], random: () => number): readonly SrvRecord[] {
  const left = records.toSorted((a, b) => a.priority - b.priority || a.weight - b.weight);
  const ordered: SrvRecord[] = [];
  while (left.length > 0) {
    const peers = left.filter((record) => record.priority === left[0]?.priority);
    let pick = random() * peers.reduce((sum, record) => sum + record.weight, 0);
    const chosen = peers.find((record) => (pick -= record.weight) < 0) ?? peers[0];
    if (chosen === undefined) break;
    ordered.push(chosen);
    left.splice(left.indexOf(chosen), 1);
  }
  return ordered;
}

async function addressesBySrv(hostname: string, sources: DiscoverySources): Promise<readonly ServerAddress[]> {
  for (const service of ["_matrix-fed._tcp", "_matrix._tcp"]) {
    const records = await sources.srvRecords(`${service}.${hostname}`);
    // RFC 2782: a lone target "." says that the service is decidedly not to be had, which is not the same as no record.
    if (records.length > 0) {
      return orderSrvRecords(records, sources.random)
        .filter((record) => record.name !== "" && record.name !== ".")
        .map((record) => ({
          host: record.name,
          port: record.port,
          hostHeader: hostname,
          certificateName: hostname,
        }));
    }
  }
  return [{ host: hostname, port: DEFAULT_PORT, hostHeader: hostname, certificateName: hostname }];
}

/** What needs no DNS record to be read: an IP literal or a name with a port. */
function directAddress(name: ServerName, parsed: ParsedName): ServerAddress | undefined {
  if (!parsed.isIp && parsed.port === undefined) return undefined;
  return {
    host: parsed.host,
    port: parsed.port ?? DEFAULT_PORT,
    hostHeader: name,
    certificateName: parsed.host,
  };
}

/**
 * The addresses of a server, best first; empty if its DNS says that it offers no federation.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
 */
export async function discoverServer(name: ServerName, sources: DiscoverySources): Promise<readonly ServerAddress[]> {
  const parsed = parseServerName(name);
  const direct = directAddress(name, parsed);
  if (direct !== undefined) return [direct];
  const delegated = await sources.wellKnown(parsed.host);
  if (delegated === undefined || !isServerName(delegated)) return addressesBySrv(parsed.host, sources);
  const parsedDelegate = parseServerName(delegated);
  const delegatedDirect = directAddress(delegated, parsedDelegate);
  return delegatedDirect === undefined ? addressesBySrv(parsedDelegate.host, sources) : [delegatedDirect];
}

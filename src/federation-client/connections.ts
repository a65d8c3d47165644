import { lookup as dnsLookup } from "node:dns";
import type { LookupAddress } from "node:dns";
import { isIP } from "node:net";
import type { LookupFunction } from "node:net";
import { rootCertificates } from "node:tls";
import { callbackify } from "node:util";
import { LRUCache } from "lru-cache";
import { buildConnector, Pool } from "undici";
import type { Dispatcher } from "undici";
import type { AddressBlocklist } from "./address-blocklist.ts";

/** Resolves a name to all of its addresses. */
export type AddressLookup = (hostname: string) => Promise<readonly LookupAddress[]>;

interface ConnectionOptions {
  readonly blocklist: AddressBlocklist;
  readonly verifyCertificates: boolean;
  /** PEM certificates of authorities trusted besides the usual ones. */
  readonly extraAuthorities?: string | undefined;
  /** Instead of the system's resolver. */
  readonly lookup?: AddressLookup | undefined;
}

/** An end of a TLS connection: where to, and the name that the certificate must carry. */
interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly certificateName: string;
}

export interface Connections {
  /** The pool of connections to an end; made at first use. */
  dispatcherFor(endpoint: Endpoint): Dispatcher;
  close(): Promise<void>;
}

/** The address may not be connected to, by the operator's blocklist. */
class BlockedAddressError extends Error {
  override readonly name = "BlockedAddressError";
  readonly address: string;

  constructor(address: string) {
    super(`the address ${address} is on the blocklist`);
    this.address = address;
  }
}

const MAX_POOLS = 2_000;
const CONNECTIONS_PER_POOL = 16;
const CONNECT_TIMEOUT_MS = 10_000;
const KEEP_ALIVE_MS = 30_000;
const MAX_RESPONSE_HEADER_BYTES = 32 * 1024;

function systemLookup(hostname: string): Promise<readonly LookupAddress[]> {
  return new Promise((resolve, reject) => {
    dnsLookup(hostname, { all: true }, (error, addresses) => {
      if (error === null) resolve(addresses);
      else reject(error);
    });
  });
}

/** Hands the socket only addresses that may be connected to, so that no second DNS answer slips in between. */
function guardedLookup(options: ConnectionOptions): LookupFunction {
  const lookup = options.lookup ?? systemLookup;
  const openAddresses = callbackify(async (hostname: string): Promise<LookupAddress[]> => {
    const addresses = await lookup(hostname);
    const open = addresses.filter(({ address }) => !options.blocklist.blocks(address));
    const [first] = addresses;
    if (open.length === 0 && first !== undefined) throw new BlockedAddressError(first.address);
    if (open.length === 0) throw Object.assign(new Error(`no address for ${hostname}`), { code: "ENOTFOUND" });
    return open;
  });
  return (hostname, { all }, callback) => {
    openAddresses(hostname, (error, addresses) => {
      const [first] = addresses ?? [];
      if (error !== null) callback(error, "");
      else if (all === true) callback(null, addresses);
      else callback(null, first?.address ?? "", first?.family);
    });
  };
}

function guardedConnector(endpoint: Endpoint, options: ConnectionOptions): buildConnector.connector {
  const { blocklist, verifyCertificates, extraAuthorities } = options;
  const connect = buildConnector({
    lookup: guardedLookup(options),
    timeout: CONNECT_TIMEOUT_MS,
    rejectUnauthorized: verifyCertificates,
    allowH2: false,
    ...(extraAuthorities === undefined ? {} : { ca: [...rootCertificates, extraAuthorities] }),
  });
  const servername = isIP(endpoint.certificateName) === 0 ? endpoint.certificateName : "";
  return (target, callback) => {
    // The URL parser has turned every spelling of an address ("127.1") into the usual one; a literal is not looked up.
    const literal = target.hostname.replace(/^\[(.*)\]$/, "$1");
    if (isIP(literal) !== 0 && blocklist.blocks(literal)) callback(new BlockedAddressError(literal), null);
    else connect({ ...target, servername }, callback);
  };
}

export function createConnections(options: ConnectionOptions): Connections {
  let closed = false;
  const closing = new Set<Promise<void>>();
  const pools = new LRUCache<string, Pool>({
    max: MAX_POOLS,
    dispose: (pool, _key, reason) => {
      if (reason !== "evict") return;
      const closed = pool.close().finally(() => closing.delete(closed));
      closing.add(closed);
    },
  });

  function open(endpoint: Endpoint): Pool {
    const { host, port } = endpoint;
    const origin = new URL(`https://${isIP(host) === 6 ? `[${host}]` : host}:${port}`).origin;
    return new Pool(origin, {
      connect: guardedConnector(endpoint, options),
      connections: CONNECTIONS_PER_POOL,
      pipelining: 1,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS,
      maxHeaderSize: MAX_RESPONSE_HEADER_BYTES,
    });
  }

  return {
    dispatcherFor(endpoint) {
      if (closed) throw new Error("the federation client is closed");
      const key = `${endpoint.host} ${endpoint.port} ${endpoint.certificateName}`;
      const pool = pools.get(key) ?? open(endpoint);
      pools.set(key, pool);
      return pool;
    },
    async close() {
      closed = true;
      await Promise.all([...pools.values()].map((pool) => pool.destroy()));
      pools.clear();
      await Promise.all(closing);
    },
  };
}

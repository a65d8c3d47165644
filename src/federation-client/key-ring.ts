import { LRUCache } from "lru-cache";
import type { KeyId, ServerName } from "../matrix/identifiers.ts";
import type { KeyLookup, SigningKey } from "../matrix/signatures.ts";
import type { Database } from "../storage/database.ts";
import { loadServerKeys, storeServerKeys } from "../storage/server-keys.ts";
import { timeLeft } from "../storage/time-left.ts";
import { createDestinationSlots } from "./destination-slots.ts";
import { FederationFailure } from "./failures.ts";
import { fetchKeysFromNotary, fetchOwnKeys } from "./fetch-server-keys.ts";
import type { KeyEndpoints, Notary } from "./fetch-server-keys.ts";
import { isFresh, keySetsOfRows, mergeKeySets, rowsOf } from "./server-key-set.ts";
import type { ServerKeySet } from "./server-key-set.ts";

type WantedKeys = ReadonlyMap<ServerName, ReadonlySet<KeyId>>;

/** Supplies other servers' verify keys; whether a key was valid for an event is for src/matrix/signatures.ts to say. */
export interface KeyRing {
  /**
   * The wanted keys, as far as they can be had: from memory, the database, notaries or the servers themselves. A server
   * that can't be asked leaves a hole in the lookup (or an old key), never an error.
   *
   * @param wanted key ids by server; all of them are fetched at once
   * @param atTs a time (ms) at which the keys should be valid, now if it is left out: a key that ran out before is asked
   *   for again. Of a batch of events, the newest one's `origin_server_ts`
   */
  keysFor(wanted: WantedKeys, atTs?: number): Promise<KeyLookup>;
}

export interface KeyRingOptions {
  readonly database: Database;
  readonly client: KeyEndpoints;
  readonly serverName: ServerName;
  readonly signingKey: SigningKey;
  /** Asked before the servers themselves, in this order, many servers at once. */
  readonly trustedKeyServers: readonly ServerName[];
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Told of each server or notary that could not be asked. */
  readonly onFailure?: (failure: FederationFailure) => void;
}

const MAX_SERVERS_IN_MEMORY = 20_000;
const MAX_QUESTIONS_IN_MEMORY = 50_000;
const ASK_AGAIN_AFTER_MS = 60_000;
const SERVERS_PER_NOTARY_REQUEST = 100;
const NOTARY_REQUESTS_AT_ONCE = 4;
const SERVERS_ASKED_AT_ONCE = 100;

interface KeyRingState {
  readonly options: KeyRingOptions;
  readonly keys: LRUCache<ServerName, ServerKeySet>;
  /**
   * When a key was last asked for, with whatever outcome; by who was asked, server and key id. Whom our own back-off has
   * kept us from asking was not asked.
   */
  readonly askedAt: LRUCache<string, number>;
  /** Fetches under way, shared by all who want the same server's keys. */
  readonly underWay: Map<ServerName, Promise<void>>;
  /** Bounds the requests to notaries, and those to servers themselves. */
  readonly slots: { readonly notaries: () => Promise<() => void>; readonly servers: () => Promise<() => void> };
}

/** One look at what is missing, and how it is to be asked for. */
interface Search {
  readonly wanted: WantedKeys;
  readonly atTs: number;
  /** A single server is asked for because it talks to us just now: it waits for neither back-off nor a large batch. */
  readonly urgent: boolean;
}

function isSatisfied(state: KeyRingState, search: Search, server: ServerName): boolean {
  const known = state.keys.get(server);
  return [...(search.wanted.get(server) ?? [])].every((keyId) => isFresh(known?.get(keyId), search.atTs));
}

async function loadIntoMemory(state: KeyRingState, servers: readonly ServerName[]): Promise<void> {
  const unknown = servers.filter((server) => !state.keys.has(server));
  if (unknown.length === 0) return;
  const rows = await loadServerKeys(state.options.database.pool, unknown);
  for (const [server, keys] of keySetsOfRows(rows)) {
    state.keys.set(server, mergeKeySets(keys, state.keys.get(server) ?? new Map()));
  }
}

async function remember(state: KeyRingState, found: ReadonlyMap<ServerName, ServerKeySet>): Promise<void> {
  const { database, now } = state.options;
  for (const [server, told] of found) state.keys.set(server, mergeKeySets(state.keys.get(server) ?? new Map(), told));
  const rows = [...found.keys()].flatMap((server) => rowsOf(server, state.keys.get(server) ?? new Map(), now()));
  await storeServerKeys(database.pool, rows);
}

/** Who is asked, and for the keys of which server. */
interface Question {
  readonly asked: ServerName;
  readonly server: ServerName;
}

/** A clock that was set back makes what was asked last lie ahead. */
function isRecent(askedAt: number | undefined, now: number): boolean {
  return askedAt !== undefined && timeLeft(askedAt + ASK_AGAIN_AFTER_MS, ASK_AGAIN_AFTER_MS, now) > 0;
}

/** Whether one of the wanted keys is missing that was not asked for lately. */
function mayAsk(state: KeyRingState, search: Search, { asked, server }: Question): boolean {
  const known = state.keys.get(server);
  const now = state.options.now();
  return [...(search.wanted.get(server) ?? [])].some(
    (keyId) =>
      !isFresh(known?.get(keyId), search.atTs) && !isRecent(state.askedAt.get(`${asked} ${server} ${keyId}`), now),
  );
}

/** Asks for keys of the servers. A failure is told and leaves its hole. */
async function ask(
  state: KeyRingState,
  search: Search,
  { asked, servers }: { readonly asked: ServerName; readonly servers: readonly ServerName[] },
  fetch: () => Promise<void>,
): Promise<void> {
  try {
    await fetch();
  } catch (error) {
    if (!(error instanceof FederationFailure)) throw error;
    state.options.onFailure?.(error);
    if (error.kind === "backing-off") return;
  }
  const now = state.options.now();
  for (const server of servers) {
    for (const keyId of search.wanted.get(server) ?? []) state.askedAt.set(`${asked} ${server} ${keyId}`, now);
  }
}

async function askServer(state: KeyRingState, server: ServerName, search: Search): Promise<void> {
  const release = search.urgent ? undefined : await state.slots.servers();
  try {
    const { client, now } = state.options;
    const keys = await fetchOwnKeys(client, server, { now: now(), ignoreBackOff: search.urgent });
    await remember(state, new Map([[server, keys]]));
  } finally {
    release?.();
  }
}

async function notaryOf(state: KeyRingState, name: ServerName): Promise<Notary> {
  await loadIntoMemory(state, [name]);
  const known = state.keys.get(name);
  const now = state.options.now();
  if (known !== undefined && [...known.values()].some((key) => key.expiredTs === undefined && isFresh(key, now))) {
    return { name, keys: known };
  }
  const keys = await fetchOwnKeys(state.options.client, name, { now });
  await remember(state, new Map([[name, keys]]));
  return { name, keys };
}

async function askNotary(
  state: KeyRingState,
  notary: Notary,
  servers: readonly ServerName[],
  search: Search,
): Promise<void> {
  const release = await state.slots.notaries();
  try {
    const wanted = new Map(servers.map((server) => [server, search.wanted.get(server) ?? new Set<KeyId>()]));
    const times = { now: state.options.now(), atTs: search.atTs };
    await remember(state, await fetchKeysFromNotary(state.options.client, notary, wanted, times));
  } finally {
    release();
  }
}

async function askNotaries(state: KeyRingState, servers: readonly ServerName[], search: Search): Promise<void> {
  for (const name of state.options.trustedKeyServers) {
    const missing = servers.filter((server) => server !== name && mayAsk(state, search, { asked: name, server }));
    if (missing.length === 0) continue;
    const notary = notaryOf(state, name);
    const batches: Promise<void>[] = [];
    for (let at = 0; at < missing.length; at += SERVERS_PER_NOTARY_REQUEST) {
      const batch = missing.slice(at, at + SERVERS_PER_NOTARY_REQUEST);
      const fetch = async (): Promise<void> => askNotary(state, await notary, batch, search);
      batches.push(ask(state, search, { asked: name, servers: batch }, fetch));
    }
    await Promise.all(batches);
  }
}

/** Asks for servers that nobody asks for yet; each one's own promise is settled as soon as its part is done. */
function startFetch(state: KeyRingState, servers: readonly ServerName[], search: Search): void {
  const notaries = askNotaries(state, servers, search);
  for (const server of servers) {
    const itself = { asked: server, server };
    const fetched = notaries
      .then(async () => {
        if (!mayAsk(state, search, itself)) return;
        await ask(state, search, { asked: server, servers: [server] }, () => askServer(state, server, search));
      })
      .finally(() => state.underWay.delete(server));
    state.underWay.set(server, fetched);
  }
}

async function fetchMissing(state: KeyRingState, search: Search): Promise<void> {
  const servers = [...search.wanted.keys()].filter((server) => server !== state.options.serverName);
  await loadIntoMemory(state, servers);
  const missing = servers.filter((server) => !isSatisfied(state, search, server));
  // Somebody else's fetch may be for other keys of the same server: what it leaves open is then asked for anew.
  const shared = missing.filter((server) => state.underWay.has(server));
  await Promise.all(shared.flatMap((server) => state.underWay.get(server) ?? []));
  const { trustedKeyServers } = state.options;
  const open = missing.filter(
    (server) =>
      !state.underWay.has(server) &&
      [server, ...trustedKeyServers].some((asked) => mayAsk(state, search, { asked, server })),
  );
  if (open.length > 0) startFetch(state, open, search);
  await Promise.all(missing.flatMap((server) => state.underWay.get(server) ?? []));
}

function lookUp(state: KeyRingState, wanted: WantedKeys): KeyLookup {
  const { serverName, signingKey } = state.options;
  // A copy: what is in memory may be pushed out before the lookup is used.
  const found = new Map([...wanted.keys()].map((server) => [server, state.keys.get(server)]));
  const ours = { publicKey: signingKey.publicKey, validUntilTs: Number.MAX_SAFE_INTEGER };
  return (server, keyId) => {
    if (server !== serverName) return found.get(server)?.get(keyId);
    return keyId === signingKey.keyId ? ours : undefined;
  };
}

export function createKeyRing(options: KeyRingOptions): KeyRing {
  const slots = {
    notaries: createDestinationSlots(NOTARY_REQUESTS_AT_ONCE),
    servers: createDestinationSlots(SERVERS_ASKED_AT_ONCE),
  };
  const state: KeyRingState = {
    options,
    keys: new LRUCache({ max: MAX_SERVERS_IN_MEMORY }),
    askedAt: new LRUCache({ max: MAX_QUESTIONS_IN_MEMORY }),
    underWay: new Map(),
    slots: { notaries: () => slots.notaries.take(""), servers: () => slots.servers.take("") },
  };
  return {
    async keysFor(wanted, atTs) {
      const now = options.now();
      // No key is trusted far into the future: a time beyond now would have it fetched again for ever.
      const search = { wanted, atTs: Math.min(atTs ?? now, now), urgent: wanted.size === 1 };
      await fetchMissing(state, search);
      return lookUp(state, wanted);
    },
  };
}

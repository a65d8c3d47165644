import type {
  DirectoryResponse,
  MembershipTemplate,
  SendJoinSummary,
  ServerKeysResponse,
  StateIdsResponse,
  TransactionResponse,
} from "../federation-api/endpoints.ts";
import type { EventId, KeyId, RoomAlias, RoomId, ServerName, UserId } from "../matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../matrix/json.ts";
import type { SigningKey } from "../matrix/signatures.ts";
import type { Database } from "../storage/database.ts";
import { createBackoff } from "./backoff.ts";
import type { CallContext } from "./call-server.ts";
import type { AddressLookup } from "./connections.ts";
import { createDestinationSlots } from "./destination-slots.ts";
import type { DiscoverySources } from "./discovery.ts";
import { eventCalls } from "./event-calls.ts";
import { membershipCalls } from "./membership-calls.ts";
import type { ReadBudget } from "./read-budget.ts";
import { queryCalls } from "./query-calls.ts";
import { createTransport } from "./transport.ts";

/** How one call may differ from its endpoint's defaults. */
export interface CallOptions {
  /** Ask the server even while it is being backed off from. Its failure still counts. */
  readonly ignoreBackOff?: boolean;
  /** For the whole call, the answer's body included. */
  readonly timeoutMs?: number;
  /** Bytes of the answer once decoded. */
  readonly maxBytes?: number;
  /** Shared with other calls. */
  readonly budget?: ReadBudget;
  /** The caller's own abort: the call then fails with the signal's reason, and the server is not blamed. */
  readonly signal?: AbortSignal;
}

/** Takes one event of a long answer; the connection is read no further until the promise is settled. */
export type OnEvent = (kind: "state" | "auth_chain", pdu: JsonValue) => void | Promise<void>;

interface Room {
  readonly roomId: RoomId;
}
interface RoomAndEvent extends Room {
  readonly eventId: EventId;
}
interface RoomAndUser extends Room {
  readonly userId: UserId;
}

/**
 * Signed requests to other servers. Each throws only FederationFailure (and the caller's own abort, and what the
 * caller's `onEvent` throws). PDUs are parsed without loss of numbers, and otherwise as they came.
 */
export interface FederationClient {
  makeJoin(
    server: ServerName,
    request: RoomAndUser & { readonly versions: readonly string[] },
    options?: CallOptions,
  ): Promise<MembershipTemplate>;
  /** @returns what the answer holds besides the two lists of events, which go to `onEvent` as they arrive */
  sendJoin(
    server: ServerName,
    request: RoomAndEvent & { readonly pdu: JsonObject; readonly omitMembers: boolean; readonly onEvent: OnEvent },
    options?: CallOptions,
  ): Promise<SendJoinSummary>;
  makeKnock(
    server: ServerName,
    request: RoomAndUser & { readonly versions: readonly string[] },
    options?: CallOptions,
  ): Promise<MembershipTemplate>;
  /** @returns what the server tells of the room: events, stripped or whole, unchecked */
  sendKnock(
    server: ServerName,
    request: RoomAndEvent & { readonly pdu: JsonObject },
    options?: CallOptions,
  ): Promise<readonly JsonValue[]>;
  makeLeave(server: ServerName, request: RoomAndUser, options?: CallOptions): Promise<MembershipTemplate>;
  sendLeave(
    server: ServerName,
    request: RoomAndEvent & { readonly pdu: JsonObject },
    options?: CallOptions,
  ): Promise<void>;
  /** @returns the event with the invited server's signature, unchecked */
  invite(
    server: ServerName,
    request: RoomAndEvent & {
      readonly roomVersion: string;
      readonly pdu: JsonObject;
      readonly inviteRoomState: readonly JsonValue[];
    },
    options?: CallOptions,
  ): Promise<JsonObject>;
  /** The ids of the state before the event, and of that state's auth chain. */
  stateIds(server: ServerName, request: RoomAndEvent, options?: CallOptions): Promise<StateIdsResponse>;
  /** The same with the events, streamed. */
  state(
    server: ServerName,
    request: RoomAndEvent & { readonly onEvent: OnEvent },
    options?: CallOptions,
  ): Promise<void>;
  event(server: ServerName, eventId: EventId, options?: CallOptions): Promise<JsonValue>;
  eventAuth(server: ServerName, request: RoomAndEvent, options?: CallOptions): Promise<readonly JsonValue[]>;
  getMissingEvents(
    server: ServerName,
    request: Room & {
      readonly earliestEvents: readonly EventId[];
      readonly latestEvents: readonly EventId[];
      readonly limit: number;
      readonly minDepth?: number;
    },
    options?: CallOptions,
  ): Promise<readonly JsonValue[]>;
  backfill(
    server: ServerName,
    request: Room & { readonly eventIds: readonly EventId[]; readonly limit: number },
    options?: CallOptions,
  ): Promise<readonly JsonValue[]>;
  sendTransaction(
    server: ServerName,
    request: { readonly txnId: string; readonly pdus: readonly JsonValue[]; readonly edus?: readonly JsonValue[] },
    options?: CallOptions,
  ): Promise<TransactionResponse>;
  queryProfile(
    server: ServerName,
    request: { readonly userId: UserId; readonly field?: string },
    options?: CallOptions,
  ): Promise<JsonObject>;
  queryDirectory(server: ServerName, alias: RoomAlias, options?: CallOptions): Promise<DirectoryResponse>;
  userDevices(server: ServerName, userId: UserId, options?: CallOptions): Promise<JsonObject>;
  /** The keys of users of the server: by user, the devices that are wanted, or none for all. */
  queryUserKeys(
    server: ServerName,
    deviceKeys: Readonly<Record<UserId, readonly string[]>>,
    options?: CallOptions,
  ): Promise<JsonObject>;
  /** One-time keys: by user and then by device, of which algorithm. */
  claimUserKeys(
    server: ServerName,
    oneTimeKeys: Readonly<Record<UserId, Readonly<Record<string, string>>>>,
    options?: CallOptions,
  ): Promise<JsonObject>;
  /** A server's own keys, its self-signature unchecked. */
  serverKeys(server: ServerName, options?: CallOptions): Promise<ServerKeysResponse>;
  /** Many servers' keys as a notary knows them, no signature checked. */
  queryKeys(
    notary: ServerName,
    wanted: ReadonlyMap<ServerName, ReadonlyMap<KeyId, { readonly minimumValidUntilTs?: number }>>,
    options?: CallOptions,
  ): Promise<readonly JsonValue[]>;
  /** Lifts the back-off of a server that has just talked to us. */
  noteServerAlive(server: ServerName): Promise<void>;
  /** Tells of each server whose back-off is lifted that way in this process, until the returned function is called. */
  onServerAlive(listener: (server: ServerName) => void): () => void;
  /** Ends idle connections and aborts calls under way. */
  close(): Promise<void>;
}

export interface FederationClientOptions {
  readonly serverName: ServerName;
  readonly signingKey: SigningKey;
  readonly database: Database;
  /** CIDR ranges that are never connected to; empty allows all. */
  readonly ipBlocklist: readonly string[];
  readonly verifyCertificates: boolean;
  /** PEM certificates of authorities trusted besides the usual ones. */
  readonly extraAuthorities?: string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Instead of the system's resolver. */
  readonly lookup?: AddressLookup | undefined;
  /** Instead of the hosts' own well-known files and SRV records. */
  readonly discovery?: Partial<DiscoverySources> | undefined;
  /** Requests under way to one server (16). */
  readonly requestsPerServer?: number;
}

const REQUESTS_PER_SERVER = 16;

/** Makes the one client of a process. Connections are opened at first use and kept for a while. */
export function createFederationClient(options: FederationClientOptions): FederationClient {
  const transport = createTransport(options);
  const backoff = createBackoff(options.database, options.now);
  const slots = createDestinationSlots(options.requestsPerServer ?? REQUESTS_PER_SERVER);
  const listeners = new Set<(server: ServerName) => void>();
  const context: CallContext = { serverName: options.serverName, transport, backoff, slots };
  return {
    ...membershipCalls(context),
    ...eventCalls(context, options),
    ...queryCalls(context),
    async noteServerAlive(server) {
      if (!(await backoff.lift(server))) return;
      for (const listener of listeners) listener(server);
    },
    onServerAlive(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    close: () => transport.close(),
  };
}

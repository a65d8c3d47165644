import type { EventId, KeyId, RoomAlias, RoomId, ServerName, UserId } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";

/**
 * Paths of the federation API, as they are sent and signed, and the answers' shapes. The shapes are what a good server
 * sends; src/federation-client checks them before it hands one on.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/
 */

type Query = Readonly<Record<string, string | readonly string[] | undefined>>;

function path(segments: readonly string[], query: Query = {}): string {
  const parts: string[] = [];
  for (const [key, value] of Object.entries(query)) {
    const values = value === undefined ? [] : typeof value === "string" ? [value] : value;
    parts.push(...values.map((one) => `${key}=${encodeURIComponent(one)}`));
  }
  const question = parts.length === 0 ? "" : `?${parts.join("&")}`;
  return `/${segments.map(encodeURIComponent).join("/")}${question}`;
}

function federation(version: "v1" | "v2", segments: readonly string[], query?: Query): string {
  return path(["_matrix", "federation", version, ...segments], query);
}

export const paths = {
  version: (): string => federation("v1", ["version"]),
  serverKeys: (): string => path(["_matrix", "key", "v2", "server"]),
  queryKeys: (): string => path(["_matrix", "key", "v2", "query"]),
  send: (txnId: string): string => federation("v1", ["send", txnId]),
  makeJoin: (roomId: RoomId, userId: UserId, versions: readonly string[]): string =>
    federation("v1", ["make_join", roomId, userId], { ver: versions }),
  sendJoin: (roomId: RoomId, eventId: EventId, omitMembers: boolean): string =>
    federation("v2", ["send_join", roomId, eventId], { omit_members: String(omitMembers) }),
  makeKnock: (roomId: RoomId, userId: UserId, versions: readonly string[]): string =>
    federation("v1", ["make_knock", roomId, userId], { ver: versions }),
  sendKnock: (roomId: RoomId, eventId: EventId): string => federation("v1", ["send_knock", roomId, eventId]),
  makeLeave: (roomId: RoomId, userId: UserId): string => federation("v1", ["make_leave", roomId, userId]),
  sendLeave: (roomId: RoomId, eventId: EventId): string => federation("v2", ["send_leave", roomId, eventId]),
  invite: (roomId: RoomId, eventId: EventId): string => federation("v2", ["invite", roomId, eventId]),
  state: (roomId: RoomId, eventId: EventId): string => federation("v1", ["state", roomId], { event_id: eventId }),
  stateIds: (roomId: RoomId, eventId: EventId): string =>
    federation("v1", ["state_ids", roomId], { event_id: eventId }),
  event: (eventId: EventId): string => federation("v1", ["event", eventId]),
  eventAuth: (roomId: RoomId, eventId: EventId): string => federation("v1", ["event_auth", roomId, eventId]),
  getMissingEvents: (roomId: RoomId): string => federation("v1", ["get_missing_events", roomId]),
  backfill: (roomId: RoomId, eventIds: readonly EventId[], limit: number): string =>
    federation("v1", ["backfill", roomId], { v: eventIds, limit: String(limit) }),
  queryProfile: (userId: UserId, field?: string): string =>
    federation("v1", ["query", "profile"], { user_id: userId, field }),
  queryDirectory: (alias: RoomAlias): string => federation("v1", ["query", "directory"], { room_alias: alias }),
  userDevices: (userId: UserId): string => federation("v1", ["user", "devices", userId]),
  queryUserKeys: (): string => federation("v1", ["user", "keys", "query"]),
  claimUserKeys: (): string => federation("v1", ["user", "keys", "claim"]),
} as const;

/** Of make_join, make_knock and make_leave: an event to complete, sign and send back. */
export interface MembershipTemplate {
  /** Absent: room version 1. */
  readonly room_version?: string;
  readonly event: JsonObject;
}

/** What send_join v2 says besides its two lists of events. */
export interface SendJoinSummary {
  /** The join event as the resident stored it, with its signature where the room is restricted. */
  readonly event?: JsonObject;
  readonly origin?: ServerName;
  readonly membersOmitted: boolean;
  /** Servers with joined members before this join; required where members were omitted. */
  readonly serversInRoom?: readonly ServerName[];
}

export interface StateIdsResponse {
  readonly pdu_ids: readonly EventId[];
  readonly auth_chain_ids: readonly EventId[];
}

/** Of `/send`: by event id, an error for each PDU that could not be handled. */
export interface TransactionResponse {
  readonly pdus: Readonly<Record<EventId, { readonly error?: string }>>;
}

export interface DirectoryResponse {
  readonly room_id: RoomId;
  readonly servers: readonly ServerName[];
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys */
export interface ServerKeysResponse extends JsonObject {
  readonly server_name: ServerName;
  readonly valid_until_ts: number;
  readonly verify_keys: { readonly [keyId: KeyId]: { readonly key: string } };
  readonly old_verify_keys?: { readonly [keyId: KeyId]: { readonly key: string; readonly expired_ts: number } };
  readonly signatures: { readonly [server: ServerName]: { readonly [keyId: KeyId]: string } };
}

export const MAX_TRANSACTION_PDUS = 50;
export const MAX_TRANSACTION_EDUS = 100;

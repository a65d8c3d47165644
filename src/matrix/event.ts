import type { EventId, RoomId, UserId } from "./identifiers.ts";
import type { JsonObject, LosslessNumber } from "./json.ts";
import type { RoomVersionRules } from "./room-versions.ts";

/** In room versions 1 and 2 an edge is a pair of an id and its hashes; later, the id alone. */
export type EventEdge = EventId | readonly [EventId, { readonly [algorithm: string]: string }];

/**
 * An event in its federation format: the JSON of the wire, never remapped.
 *
 * @see https://spec.matrix.org/v1.19/rooms/#complete-list-of-room-versions
 */
export interface Pdu extends JsonObject {
  /** Absent in the create event of room version 12 and later only. */
  readonly room_id?: RoomId;
  readonly type: string;
  readonly sender: UserId;
  readonly state_key?: string;
  readonly content: JsonObject;
  readonly prev_events: readonly EventEdge[];
  readonly auth_events: readonly EventEdge[];
  /** Up to 2^63 − 1 before room version 6: read it with {@link depthOf}. */
  readonly depth: number | LosslessNumber;
  readonly origin_server_ts: number | LosslessNumber;
  readonly hashes?: { readonly sha256: string };
  readonly signatures?: { readonly [server: string]: { readonly [keyId: string]: string } };
}

/** A PDU with what is derived from it once. Immutable: a repaired event is a new value. */
export interface Event {
  readonly eventId: EventId;
  readonly roomId: RoomId;
  readonly pdu: Pdu;
  /** Refused by the auth rules: to its children the state is as if it were absent. */
  readonly rejected: boolean;
}

function edgeId(edge: EventEdge): EventId {
  return typeof edge === "string" ? edge : edge[0];
}

function edgeIds(edges: readonly EventEdge[]): readonly EventId[] {
  return edges.every((edge) => typeof edge === "string") ? edges : edges.map(edgeId);
}

export function prevEventIds(pdu: Pdu): readonly EventId[] {
  return edgeIds(pdu.prev_events);
}

export function authEventIds(pdu: Pdu): readonly EventId[] {
  return edgeIds(pdu.auth_events);
}

export function depthOf(pdu: Pdu): bigint {
  return BigInt(typeof pdu.depth === "number" ? pdu.depth : pdu.depth.value);
}

export function originServerTsOf(pdu: Pdu): number {
  const timestamp = pdu.origin_server_ts;
  return typeof timestamp === "number" ? timestamp : Number(timestamp.value);
}

export function isStateEvent(pdu: Pdu): pdu is Pdu & { readonly state_key: string } {
  return pdu.state_key !== undefined;
}

/** Where ids come from hashes (room version 12), a room's id names its create event. */
export function createEventIdOf(rules: RoomVersionRules, roomId: RoomId): EventId | undefined {
  return rules.roomIdIsCreateEventHash ? `$${roomId.slice(1)}` : undefined;
}

import { createHash } from "node:crypto";
import { authTypesFor } from "../../src/matrix/authorization/auth-types.ts";
import { authorize } from "../../src/matrix/authorization/authorize.ts";
import type { AuthVerdict } from "../../src/matrix/authorization/verdict.ts";
import type { Event, EventEdge, Pdu } from "../../src/matrix/event.ts";
import { eventIdOf, referenceHash } from "../../src/matrix/hashes.ts";
import { serverNameOf } from "../../src/matrix/identifiers.ts";
import type { EventId, RoomId, ServerName, UserId } from "../../src/matrix/identifiers.ts";
import { stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import type { RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { hashAndSignEvent, signEvent } from "../../src/matrix/signatures.ts";
import type { SigningKey } from "../../src/matrix/signatures.ts";
import { stateGet } from "../../src/matrix/state.ts";
import type { StateMap } from "../../src/matrix/state.ts";
import { eventOf, mustHave, nextDepth, stateBeforeAll } from "./hosted-room.ts";
import type { HostedEvent, HostedRoom } from "./hosted-room.ts";

/** An event to be made. What is left out is what an honest server would put there. */
export interface Draft {
  readonly sender: UserId;
  readonly type: string;
  readonly stateKey?: string;
  readonly content: JsonObject;
  readonly prevEvents?: readonly EventId[];
  readonly authEvents?: readonly EventId[];
  readonly originServerTs?: number;
  readonly redacts?: EventId;
  /** Make it even if the auth rules refuse it; the resident then keeps it as rejected. */
  readonly evenIfRejected?: boolean;
}

export type Identity = (server: ServerName) => SigningKey;

/** The verdict of the auth rules on an event, given the state it is checked against. */
export function verdictOn(room: HostedRoom, event: Event, state: StateMap): AuthVerdict {
  const lookUp = (type: string, stateKey: string): Event | undefined => {
    const id = stateGet(state, type, stateKey);
    return id === undefined ? undefined : eventOf(room, id);
  };
  return authorize(event, lookUp, room.rules);
}

/** In room versions 1 and 2 an edge is an id and its hash. */
export function edgesTo(room: HostedRoom, ids: readonly EventId[]): readonly EventEdge[] {
  if (!room.rules.edgesCarryHashes) return ids;
  return ids.map((id) => {
    const hash = referenceHash(mustHave(room, id).event.pdu, room.rules);
    return [id, { sha256: hash.toString("base64").replace(/=+$/, "") }];
  });
}

export function authEventsFor(room: HostedRoom, pdu: Pdu, state: StateMap): EventId[] {
  return authTypesFor(pdu, room.rules).flatMap(([type, stateKey]) => stateGet(state, type, stateKey) ?? []);
}

/** The event without hashes and signatures. */
export function templateFor(room: HostedRoom, draft: Draft): { pdu: Pdu; state: StateMap } {
  const { rules, roomId } = room;
  const prev = draft.prevEvents ?? [...room.extremities].toSorted().slice(0, 10);
  const state = stateBeforeAll(room, prev);
  const roomless = rules.roomIdIsCreateEventHash && draft.type === "m.room.create";
  const redacts = draft.redacts === undefined ? {} : { redacts: draft.redacts };
  const bare: Pdu = {
    ...(roomless ? {} : { room_id: roomId }),
    type: draft.type,
    sender: draft.sender,
    ...(draft.stateKey === undefined ? {} : { state_key: draft.stateKey }),
    content: rules.redaction.redactsInContent ? { ...draft.content, ...redacts } : draft.content,
    ...(rules.redaction.redactsInContent ? {} : redacts),
    prev_events: edgesTo(room, prev),
    auth_events: [],
    depth: nextDepth(room, prev),
    origin_server_ts: draft.originServerTs ?? tick(room),
  };
  const auth = draft.authEvents ?? authEventsFor(room, bare, state);
  return { pdu: { ...bare, auth_events: edgesTo(room, auth) }, state };
}

function tick(room: HostedRoom): number {
  room.clock += 1000;
  return room.clock;
}

/** Makes, signs and authorises an event, and leaves the room as it was: {@link addEvent} adds it. */
export function composeEvent(room: HostedRoom, identity: Identity, draft: Draft): HostedEvent {
  const { pdu, state } = templateFor(room, draft);
  const server = serverNameOf(draft.sender) ?? "";
  const hosted = hostedEvent(room.rules, signedBy(room, identity, { pdu, server }), room.roomId);
  const verdict = verdictOn(room, hosted.event, state);
  if (verdict.allowed) return hosted;
  if (draft.evenIfRejected !== true) {
    throw new Error(`${draft.sender} may not send ${draft.type}: ${verdict.rule}, ${verdict.reason}`);
  }
  return { ...hosted, event: { ...hosted.event, rejected: true } };
}

function signedBy(room: HostedRoom, identity: Identity, draft: { pdu: Pdu; server: ServerName }): Pdu {
  const { pdu, server } = draft;
  const chosen = room.rules.eventIdFormat === "chosen-by-sender" ? { event_id: chosenEventId(pdu, server) } : {};
  const origin = room.rules.redaction.keepObsoleteTopLevelKeys ? { origin: server } : {};
  const signed = hashAndSignEvent({ ...pdu, ...chosen, ...origin }, server, identity(server), room.rules);
  const authorising = authorisingServer(pdu);
  if (authorising === undefined || authorising === server) return signed;
  return signEvent(signed, authorising, identity(authorising), room.rules);
}

/** The server that vouches for a join to a restricted room. */
export function authorisingServer(pdu: Pdu): ServerName | undefined {
  const user = pdu.content["join_authorised_via_users_server"];
  return typeof user === "string" ? serverNameOf(user as UserId) : undefined;
}

function chosenEventId(pdu: Pdu, server: ServerName): EventId {
  const opaque = createHash("sha256").update(stringifyJson(pdu)).digest("hex").slice(0, 24);
  return `$${opaque}:${server}`;
}

/** A finished PDU with its id and text. For a create event of room version 12 the room id is computed. */
export function hostedEvent(rules: RoomVersionRules, pdu: Pdu, roomId?: RoomId): HostedEvent {
  const ofCreate = rules.roomIdIsCreateEventHash && pdu.type === "m.room.create";
  const eventId = eventIdOf(pdu, rules);
  const room: RoomId | undefined = ofCreate ? `!${eventId.slice(1)}` : (roomId ?? pdu.room_id);
  if (room === undefined) throw new Error("an event without a room");
  return { event: { eventId, roomId: room, pdu, rejected: false }, text: stringifyJson(pdu) };
}

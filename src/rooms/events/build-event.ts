import { randomBytes } from "node:crypto";
import { authTypesFor } from "../../matrix/authorization/auth-types.ts";
import { depthOf, type Event, type EventEdge, type Pdu } from "../../matrix/event.ts";
import { referenceHash } from "../../matrix/hashes.ts";
import type { EventId, RoomId, ServerName, UserId } from "../../matrix/identifiers.ts";
import { LosslessNumber, type JsonObject } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { SigningKey } from "../../matrix/signatures.ts";
import { stateGet, type StateMap } from "../../matrix/state.ts";
import { signOwnEvent } from "./sign-own-event.ts";

/** What its maker says of a new event; the rest follows from the room. */
export interface EventDraft {
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly type: string;
  readonly stateKey?: string;
  readonly content: JsonObject;
  readonly redacts?: EventId;
  /** When it came to be, in milliseconds since the epoch: now, unless it says again what was said then. */
  readonly at?: number;
}

/** `prev_events` hold at most 20 ids; the newest extremities are taken. */
const MAX_PREV_EVENTS = 20;

interface EventPlace {
  readonly prevEvents: readonly Event[];
  readonly authEvents: readonly Event[];
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** The ids of the auth events that a draft must name, from the state before it. */
export function authEventIdsFor(draft: EventDraft, state: StateMap, rules: RoomVersionRules): readonly EventId[] {
  const ids = authTypesFor(unplacedPdu(draft), rules).map(([type, stateKey]) => stateGet(state, type, stateKey));
  return ids.filter((id) => id !== undefined);
}

/**
 * A hashed and signed event at its place in the room.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#pdus
 * @throws MatrixError 400 M_BAD_JSON, 413 M_TOO_LARGE for what other servers would drop
 */
export function buildEvent(
  draft: EventDraft,
  place: EventPlace,
  rules: RoomVersionRules,
  signer: { readonly serverName: ServerName; readonly signingKey: SigningKey },
): Event {
  const prevEvents = place.prevEvents.slice(-MAX_PREV_EVENTS);
  const unsigned: Pdu = {
    ...unplacedPdu(draft),
    ...(rules.eventIdFormat === "chosen-by-sender"
      ? { event_id: `$${randomBytes(18).toString("base64url")}:${signer.serverName}` }
      : {}),
    prev_events: prevEvents.map((event) => edgeTo(event, rules)),
    auth_events: place.authEvents.map((event) => edgeTo(event, rules)),
    depth: depthAfter(prevEvents, rules),
    origin: signer.serverName,
    origin_server_ts: place.now,
  };
  return signOwnEvent(unsigned, rules, signer);
}

function unplacedPdu(draft: EventDraft): Pdu {
  return {
    room_id: draft.roomId,
    sender: draft.sender,
    type: draft.type,
    ...(draft.stateKey === undefined ? {} : { state_key: draft.stateKey }),
    ...(draft.redacts === undefined ? {} : { redacts: draft.redacts }),
    content: draft.content,
    prev_events: [],
    auth_events: [],
    depth: 0,
    origin_server_ts: 0,
  };
}

function edgeTo(event: Event, rules: RoomVersionRules): EventEdge {
  if (!rules.edgesCarryHashes) return event.eventId;
  return [event.eventId, { sha256: referenceHash(event.pdu, rules).toString("base64").replaceAll("=", "") }];
}

/** One more than the deepest prev_event, but never beyond what the room version can hold. */
function depthAfter(prevEvents: readonly Event[], rules: RoomVersionRules): number | LosslessNumber {
  let deepest = 0n;
  for (const event of prevEvents) if (depthOf(event.pdu) > deepest) deepest = depthOf(event.pdu);
  const depth = deepest + 1n > rules.maxDepth ? rules.maxDepth : deepest + 1n;
  return depth > BigInt(Number.MAX_SAFE_INTEGER) ? new LosslessNumber(depth.toString()) : Number(depth);
}

import type { EventId, UserId } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";
import { originServerTsOf } from "../matrix/event.ts";
import type { Event } from "../matrix/event.ts";
import { redact } from "../matrix/redaction.ts";
import type { RoomVersionRules } from "../matrix/room-versions.ts";

/** An event as clients get it: no hashes, signatures or edges. */
export interface ClientEvent extends JsonObject {
  readonly type: string;
  readonly sender: UserId;
  readonly event_id: EventId;
  readonly content: JsonObject;
  readonly state_key?: string;
  readonly unsigned?: JsonObject;
}

export interface ClientEventFraming {
  readonly rules: RoomVersionRules;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** Left out in `/sync`, where the room is known from the place. */
  readonly withRoomId: boolean;
  /** The redaction that applies to the event. */
  readonly redactedBecause?: Event | undefined;
  /** Given by the requesting device itself when it sent the event. */
  readonly transactionId?: string | undefined;
  /** The event that this state event took the place of. */
  readonly replaces?: Event | undefined;
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#room-event-format */
export function toClientEvent(event: Event, framing: ClientEventFraming): ClientEvent {
  const { rules, redactedBecause } = framing;
  const pdu = redactedBecause === undefined ? event.pdu : redact(event.pdu, rules);
  return {
    type: pdu.type,
    sender: pdu.sender,
    event_id: event.eventId,
    ...(framing.withRoomId ? { room_id: event.roomId } : {}),
    origin_server_ts: pdu.origin_server_ts,
    ...(pdu.state_key === undefined ? {} : { state_key: pdu.state_key }),
    ...redactionTarget(event, redactedBecause === undefined),
    unsigned: unsignedOf(event, framing),
  };
}

/**
 * The content, and for a redaction the event it names at both places where versions of the specification look for it.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroomredaction
 */
function redactionTarget(event: Event, whole: boolean): { readonly content: JsonObject } & JsonObject {
  const { content, redacts, type } = event.pdu;
  const target = redacts ?? content["redacts"];
  if (type !== "m.room.redaction" || target === undefined || !whole) {
    return { content };
  }
  return { content: { ...content, redacts: target }, redacts: target };
}

function unsignedOf(event: Event, framing: ClientEventFraming): JsonObject {
  const { redactedBecause, transactionId, replaces } = framing;
  return {
    age: Math.max(0, Math.trunc(framing.now - originServerTsOf(event.pdu))),
    ...(transactionId === undefined ? {} : { transaction_id: transactionId }),
    ...(replaces === undefined ? {} : { replaces_state: replaces.eventId, prev_content: replaces.pdu.content }),
    ...(redactedBecause === undefined
      ? {}
      : { redacted_because: toClientEvent(redactedBecause, { ...plain(framing), withRoomId: true }) }),
  };
}

function plain(framing: ClientEventFraming): ClientEventFraming {
  return { rules: framing.rules, now: framing.now, withRoomId: framing.withRoomId };
}

import type { EventId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../matrix/json.ts";
import { originServerTsOf } from "../../matrix/event.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { redact } from "../../matrix/redaction.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";

/** An event as clients get it: no hashes, signatures or edges. */
export interface ClientEvent extends JsonObject {
  readonly type: string;
  readonly sender: UserId;
  readonly event_id: EventId;
  readonly content: JsonObject;
  readonly state_key?: string;
  readonly unsigned?: JsonObject;
}

interface ClientEventFraming {
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
  /** The room's state has it no more, and nothing else in its place. */
  readonly gone?: boolean;
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
    ...contentOf(pdu, rules),
    unsigned: unsignedOf(event, framing),
  };
}

/**
 * The content, and for a redaction the event it names at both places where versions of the specification look for it.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroomredaction
 */
function contentOf(pdu: Pdu, rules: RoomVersionRules): { readonly content: JsonObject; readonly redacts?: JsonValue } {
  const { content } = pdu;
  const redacts = rules.redaction.redactsInContent ? content["redacts"] : pdu["redacts"];
  if (pdu.type !== "m.room.redaction" || redacts === undefined) {
    return { content };
  }
  return { content: { ...content, redacts }, redacts };
}

function unsignedOf(event: Event, framing: ClientEventFraming): JsonObject {
  const { redactedBecause, transactionId, replaces } = framing;
  return {
    age: Math.max(0, Math.trunc(framing.now - originServerTsOf(event.pdu))),
    ...(transactionId === undefined ? {} : { transaction_id: transactionId }),
    ...(replaces === undefined ? {} : { replaces_state: replaces.eventId, prev_content: replaces.pdu.content }),
    ...(framing.gone === true ? { "org.fastjoin.gone": true } : {}),
    ...(redactedBecause === undefined
      ? {}
      : { redacted_because: toClientEvent(redactedBecause, { ...plain(framing), withRoomId: true }) }),
  };
}

function plain(framing: ClientEventFraming): ClientEventFraming {
  return { rules: framing.rules, now: framing.now, withRoomId: framing.withRoomId };
}

import { authEventIds, isStateEvent, prevEventIds } from "../../../src/matrix/event.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { KnownEvent, KnownRoom } from "./known-room.ts";
import type { RoomInPlay } from "./room-in-play.ts";

/** The room's events, with what each server makes of them: for whoever must find out why two of them differ. */
export function timelineText({ room, join, twinJoin }: RoomInPlay, ours: KnownRoom, twin: KnownRoom): string {
  const numbers = new Map([...room.events.keys()].map((id, index) => [id, index]));
  const named = (ids: readonly EventId[]): string => ids.map((id) => numbers.get(id) ?? id).join(",");
  const lines = [...room.events.values()].map(({ event }, index) => {
    const { eventId, pdu } = event;
    const key = isStateEvent(pdu) ? ` [${pdu.state_key}]` : "";
    const mark = eventId === join ? " OUR JOIN" : eventId === twinJoin ? " TWIN'S JOIN" : "";
    return [
      `${index} ${pdu.type}${key} by ${pdu.sender} ${JSON.stringify(pdu.content)}${mark}`,
      `after ${named(prevEventIds(pdu))}; auth ${named(authEventIds(pdu))}; ts ${String(pdu.origin_server_ts)}`,
      `resident ${event.rejected ? "refuses" : room.extremities.has(eventId) ? "tip" : "accepts"}`,
      `ours ${knownAs(ours, eventId)}; twin ${knownAs(twin, eventId)}; ${eventId}`,
    ].join(" | ");
  });
  return ["", `room version ${room.rules.version}`, ...lines].join("\n");
}

function knownAs({ timeline, extremities }: KnownRoom, eventId: EventId): string {
  const at = timeline.findIndex((event) => event.eventId === eventId);
  const event: KnownEvent | undefined = timeline[at];
  if (event === undefined) return "-";
  const tip = extremities.includes(eventId) ? " tip" : "";
  return `#${at}${tip} ${event.rejection ?? (event.softFailed ? "soft-failed" : "accepted")}`;
}

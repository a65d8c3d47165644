import type { Event } from "../../matrix/event.ts";
import { contentHashMatches, redactedText } from "../../matrix/hashes.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { StoredEvent } from "../../storage/events.ts";

/**
 * What gets a place in the timeline where an outlier of its id is known: the copy that is not redacted, if there is one.
 *
 * In room versions 1 and 2 a server can make two events of one id. The verdict on one must not count for the other:
 * the second takes the place of a refused one, whole, but never of one that the room's state may hold.
 *
 * @returns undefined where the id is another event's
 */
export function eventToPlace(rules: RoomVersionRules, known: StoredEvent | undefined, event: Event): Event | undefined {
  if (known === undefined || !known.outlier) return event;
  const isOther =
    rules.eventIdFormat === "chosen-by-sender" && redactedText(known.pdu, rules) !== redactedText(event.pdu, rules);
  if (isOther) return known.rejected ? event : undefined;
  return contentHashMatches(known.pdu, rules) ? { ...event, pdu: known.pdu } : event;
}

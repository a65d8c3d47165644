import type { Pdu } from "../../matrix/event.ts";

/** What a client wants of the events of a timeline or a state; absent members want all. */
export interface EventFilter {
  readonly limit?: number | undefined;
  readonly types?: readonly string[] | undefined;
  readonly not_types?: readonly string[] | undefined;
  readonly senders?: readonly string[] | undefined;
  readonly not_senders?: readonly string[] | undefined;
  readonly contains_url?: boolean | undefined;
  readonly lazy_load_members?: boolean | undefined;
}

interface RoomFilter {
  readonly rooms?: readonly string[] | undefined;
  readonly not_rooms?: readonly string[] | undefined;
  readonly include_leave?: boolean | undefined;
  readonly state?: EventFilter | undefined;
  readonly timeline?: EventFilter | undefined;
  readonly ephemeral?: EventFilter | undefined;
  readonly account_data?: EventFilter | undefined;
}

export interface Filter {
  readonly room?: RoomFilter | undefined;
  readonly presence?: EventFilter | undefined;
  readonly account_data?: EventFilter | undefined;
}

/**
 * Whether the filter lets an event through.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#filtering
 */
export function passesFilter(pdu: Pdu, filter: EventFilter): boolean {
  const { contains_url } = filter;
  const fits = contains_url === undefined || contains_url === (typeof pdu.content["url"] === "string");
  return fits && passesTypeFilter(pdu, filter);
}

/** The same for what is no event of a room's graph, and may have no sender. */
export function passesTypeFilter(
  { type, sender }: { readonly type: string; readonly sender?: string },
  { types, not_types, senders, not_senders }: EventFilter,
): boolean {
  return (
    (types === undefined || types.some((pattern) => matchesType(type, pattern))) &&
    !(not_types ?? []).some((pattern) => matchesType(type, pattern)) &&
    (sender === undefined ||
      ((senders === undefined || senders.includes(sender)) && !(not_senders ?? []).includes(sender)))
  );
}

/** A `*` stands for any sequence of characters. */
function matchesType(type: string, pattern: string): boolean {
  const [start = "", ...rest] = pattern.split("*");
  const end = rest.pop();
  if (end === undefined) {
    return type === pattern;
  }
  if (!type.startsWith(start) || !type.endsWith(end) || type.length < start.length + end.length) {
    return false;
  }
  let at = start.length;
  for (const part of rest) {
    const found = type.indexOf(part, at);
    if (found < 0) {
      return false;
    }
    at = found + part.length;
  }
  return at <= type.length - end.length;
}

export function passesRoomFilter(roomId: string, { rooms, not_rooms }: RoomFilter): boolean {
  return (rooms === undefined || rooms.includes(roomId)) && !(not_rooms ?? []).includes(roomId);
}

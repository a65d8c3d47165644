import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import { stringifyJson } from "../../matrix/json.ts";
import type { JsonValue } from "../../matrix/json.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import type { RoomsContext } from "../context.ts";
import { eventPortions, requireRoomHeld } from "../events/event-portions.ts";
import type { ClientEvent } from "./client-event.ts";
import { toClientEvents } from "./client-events.ts";

interface EventsToRead {
  readonly roomId: RoomId;
  readonly ids: readonly EventId[];
  /** Absent: all of them. */
  readonly isWanted?: (event: StoredEvent) => boolean;
  /** Their place tells it, in `/sync`. */
  readonly withRoomId: boolean;
}

/**
 * Those of the events (of one room) that we have as clients get them, read portion by portion as somebody asks for them.
 *
 * @throws MatrixError 404 M_NOT_FOUND if the room is purged meanwhile
 */
export async function* clientEventBatches(
  ctx: RoomsContext,
  { roomId, ids, isWanted = () => true, withRoomId }: EventsToRead,
): AsyncGenerator<readonly ClientEvent[], void> {
  const { pool } = ctx.database;
  for await (const portion of eventPortions(pool, ids)) {
    const found = await loadEvents(pool, portion);
    const events = portion.flatMap((id) => found.get(id) ?? []);
    const framed = await toClientEvents(ctx, events.filter(isWanted), { withRoomId });
    await requireRoomHeld(pool, roomId);
    yield framed;
  }
}

export async function* jsonTexts(
  batches: AsyncIterable<readonly JsonValue[]>,
): AsyncGenerator<readonly string[], void> {
  for await (const batch of batches) yield batch.map(stringifyJson);
}

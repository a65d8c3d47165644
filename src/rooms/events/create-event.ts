import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { rulesOf, type RoomVersionRules } from "../../matrix/room-versions.ts";
import type { StateMap } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { forwardExtremities, lockRoom } from "../../storage/rooms.ts";
import { acceptEventWithin } from "./accept-event.ts";
import { buildEvent, type EventDraft } from "./build-event.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { knownAuthEventIds } from "./known-auth-events.ts";
import { stateBehind } from "./state-before-event.ts";

/** The event of a draft is refused by the auth rules: its sender is told which one, and nothing is stored. */
function refused(rejection: string): MatrixError {
  return new MatrixError(403, "M_FORBIDDEN", `The room does not allow this: ${rejection}`);
}

/**
 * Makes an event of one of our users, places it after the room's forward extremities and puts it into the outbox of
 * every server of the room. On partial state the auth rules are asked against what we know, as the notes on faster
 * joins have it: a mistake is repaired by the resync.
 *
 * @param also what must happen in the same transaction
 * @throws MatrixError `M_FORBIDDEN` where an auth rule refuses the event, `M_NOT_FOUND` where we are not in the room
 */
export async function createEvent(
  ctx: RoomsContext,
  draft: EventDraft,
  also?: (tx: Connection, stored: StoredEvent) => Promise<void>,
): Promise<StoredEvent> {
  return await commit(ctx, "store an event of ours", (tx) => createEventWithin(ctx, tx, draft, also));
}

/** The same as part of a transaction of the caller's, which a refusal must undo. */
export async function createEventWithin(
  ctx: RoomsContext,
  tx: Connection,
  draft: EventDraft,
  also?: (tx: Connection, stored: StoredEvent) => Promise<void>,
): Promise<StoredEvent> {
  const room = await lockRoom(tx, draft.roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || room.currentSnapshotId === null) {
    throw new MatrixError(404, "M_NOT_FOUND", `This server is not in room ${draft.roomId}`);
  }
  const prevEvents = await latestEvents(tx, await forwardExtremities(tx, draft.roomId));
  const before = await stateBehind(ctx, { database: ctx.database, tx, roomId: draft.roomId, rules }, prevEvents);
  const event = buildEvent(
    draft,
    { prevEvents, authEvents: await authEventsFor(tx, draft, before.state, rules), now: draft.at ?? ctx.now() },
    rules,
    ctx,
  );
  const stored = await acceptEventWithin(ctx, tx, {
    event,
    origin: ctx.serverName,
    ...(also === undefined ? {} : { also }),
  });
  if (stored.rejection !== null) throw refused(stored.rejection);
  if (stored.softFailed) throw refused("the room's current state does not allow it");
  return stored;
}

async function latestEvents(tx: Connection, ids: readonly EventId[]): Promise<readonly StoredEvent[]> {
  const events = [...(await loadEvents(tx, ids)).values()];
  return events.toSorted((a, b) => Number((a.streamId ?? 0n) - (b.streamId ?? 0n))).slice(-20);
}

async function authEventsFor(
  tx: Connection,
  draft: EventDraft,
  state: StateMap,
  rules: RoomVersionRules,
): Promise<readonly StoredEvent[]> {
  const ids = await knownAuthEventIds(tx, draft, state, rules);
  const events = await loadEvents(tx, ids);
  return ids.flatMap((id) => events.get(id) ?? []);
}

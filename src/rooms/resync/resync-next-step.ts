import { prevEventIds } from "../../matrix/event.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, loadEvents, whichExist } from "../../storage/events.ts";
import { localJoinedUsers } from "../../storage/memberships.ts";
import {
  countPartialEvents,
  abandonPartialEvents,
  deletePartialRoom,
  lockPartialRoom,
  nextRepairableEvents,
  partialRoom,
  type RepairableEvent,
} from "../../storage/partial-state.ts";
import { deleteResyncControl } from "../../storage/resync-control.ts";
import { clearResyncStateIds, loadResyncStateIds } from "../../storage/resync-state-ids.ts";
import { lockRoom } from "../../storage/rooms.ts";
import { deleteHopelessPdus } from "../../storage/waiting-pdus.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { deviceListsOwedAfterLeave } from "./device-lists-after-resync.ts";

/** Which join a resync works for: a re-join replaces it, and the old one must not touch the room any more. */
export interface ResyncTarget {
  readonly roomId: RoomId;
  readonly joinEventId: EventId;
}

export type ResyncStep =
  /** The states at these prev_events are missing. */
  | { readonly kind: "fetch"; readonly eventIds: readonly EventId[]; readonly partialEvents: number }
  /** All that these events' full state needs is stored. */
  | { readonly kind: "repair"; readonly eventIds: readonly EventId[]; readonly partialEvents: number }
  | { readonly kind: "finish" }
  | { readonly kind: "superseded" }
  | { readonly kind: "left" };

/** Repaired between two heartbeats of the workflow. */
const BATCH = 100;

/**
 * Which events next: in the order of their arrival, each behind its partial prev_events. What is missing for their full
 * state is fetched when nothing else can be repaired.
 */
export async function nextResyncStep(ctx: RoomsContext, target: ResyncTarget): Promise<ResyncStep> {
  const { pool } = ctx.database;
  const room = await partialRoom(pool, target.roomId);
  const isAbandoned = (await localJoinedUsers(pool, target.roomId, ctx.serverName)).length === 0;
  // Asked again after it was given up: by a workflow that was waiting, or whose worker was killed before it was told.
  if (room === undefined) return { kind: isAbandoned ? "left" : "superseded" };
  if (room.joinEventId !== target.joinEventId) return { kind: "superseded" };
  if (isAbandoned) return await commit(ctx, "give up a room that was left", (tx) => giveUpRoom(ctx, tx, target));
  const events = await nextRepairableEvents(pool, target.roomId, BATCH);
  if (events.length === 0) return { kind: "finish" };
  const partialEvents = await countPartialEvents(pool, target.roomId);
  const lacking = await statesLacking(pool, target.roomId, events);
  const eventIds = repairableNow(events, lacking);
  if (eventIds.length > 0) return { kind: "repair", eventIds, partialEvents };
  return { kind: "fetch", eventIds: [...new Set([...lacking.values()].flat())], partialEvents };
}

/** Those that lack nothing, and build on none that does: a state that nobody can give holds up no more than it must. */
function repairableNow(
  events: readonly RepairableEvent[],
  lacking: ReadonlyMap<EventId, readonly EventId[]>,
): readonly EventId[] {
  const repairable = new Set<EventId>();
  for (const { eventId, after } of events) {
    if (!lacking.has(eventId) && after.every((id) => repairable.has(id))) repairable.add(eventId);
  }
  return [...repairable];
}

/** By event, its prev_events that are in no timeline and whose state is not wholly stored; none where all is there. */
async function statesLacking(
  connection: Connection,
  roomId: RoomId,
  repairable: readonly RepairableEvent[],
): Promise<ReadonlyMap<EventId, readonly EventId[]>> {
  const events = await loadEvents(
    connection,
    repairable.map(({ eventId }) => eventId),
  );
  const wanted = new Set([...events.values()].flatMap((event) => prevEventIds(event.pdu)));
  const prevEvents = await loadEvents(connection, [...wanted]);
  const missing = new Set<EventId>();
  for (const id of wanted) {
    const prev = prevEvents.get(id);
    if (hasState(prev, roomId)) continue;
    if (prev === undefined || !(await isStateWhole(connection, roomId, id))) missing.add(id);
  }
  // In the order of the events, so that what the join lacks is fetched before what somebody else's event does.
  return new Map(
    repairable.flatMap(({ eventId }) => {
      const event = events.get(eventId);
      const lacking = event === undefined ? [] : prevEventIds(event.pdu).filter((id) => missing.has(id));
      return lacking.length === 0 ? [] : [[eventId, lacking] as const];
    }),
  );
}

/** An answer to `/state_ids` is there, and every event that it names. */
async function isStateWhole(connection: Connection, roomId: RoomId, eventId: EventId): Promise<boolean> {
  const told = await loadResyncStateIds(connection, roomId, eventId);
  if (told === undefined) return false;
  const ids = new Set([...told.stateEventIds, ...told.authEventIds]);
  return (await whichExist(connection, [...ids])).size === ids.size;
}

/** Nobody of ours is in the room any more: what was partial stays as it is, and the room can be joined again. */
async function giveUpRoom(ctx: RoomsContext, tx: Connection, target: ResyncTarget): Promise<ResyncStep> {
  await lockRoom(tx, target.roomId);
  const room = await lockPartialRoom(tx, target.roomId);
  if (room === undefined || room.joinEventId !== target.joinEventId) return { kind: "superseded" };
  if ((await localJoinedUsers(tx, target.roomId, ctx.serverName)).length > 0) {
    // Someone has joined in between: the next step looks again.
    return { kind: "repair", eventIds: [], partialEvents: await countPartialEvents(tx, target.roomId) };
  }
  await deviceListsOwedAfterLeave(ctx, tx, room);
  await abandonPartialEvents(tx, target.roomId);
  await deletePartialRoom(tx, target.roomId);
  await clearResyncStateIds(tx, target.roomId);
  await deleteResyncControl(tx, target.roomId);
  await deleteHopelessPdus(tx, target.roomId);
  return { kind: "left" };
}

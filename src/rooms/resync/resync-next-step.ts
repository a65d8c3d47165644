import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvent } from "../../storage/events.ts";
import { keepMembersOfCurrentState, localJoinedUsers } from "../../storage/memberships.ts";
import {
  countPartialEvents,
  abandonPartialEvents,
  deletePartialRoom,
  lockPartialRoom,
  nextRepairableEvents,
  partialRoom,
  somePartialEvents,
  type RepairableEvent,
} from "../../storage/partial-state.ts";
import { deleteResyncControl } from "../../storage/resync-control.ts";
import { clearResyncStateIds } from "../../storage/resync-state-ids.ts";
import { lockRoom } from "../../storage/rooms.ts";
import { unPartialStatedAfter } from "../../storage/streams.ts";
import { deleteHopelessPdus } from "../../storage/waiting-pdus.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { deviceListsOwedAfterLeave } from "./device-lists-after-resync.ts";
import { shuffled } from "./resync-servers.ts";
import { statesLacking } from "./states-lacking.ts";

/** Which join a resync works for: a re-join replaces it, and the old one must not touch the room any more. */
export interface ResyncTarget {
  readonly roomId: RoomId;
  readonly joinEventId: EventId;
}

export type ResyncStep =
  /** The states at these prev_events are missing; our join builds on some of them, which come first. */
  | {
      readonly kind: "fetch";
      readonly eventIds: readonly EventId[];
      readonly ofJoin: readonly EventId[];
      readonly partialEvents: number;
    }
  /** All that these events' full state needs is stored. */
  | { readonly kind: "repair"; readonly eventIds: readonly EventId[]; readonly partialEvents: number }
  | { readonly kind: "finish" }
  | ResyncOver;

/** What has become of a resync whose room is not partial any more, or not for the sake of its join. */
type ResyncOver =
  /** The room was declared whole. */
  | { readonly kind: "completed" }
  | { readonly kind: "superseded" }
  /** Nobody of ours was left in the room. */
  | { readonly kind: "left" };

/** Repaired between two heartbeats of the workflow. */
const BATCH = 100;

/** Told at a time: of more, a sample, another one each time. */
const MOST_MISSING = 200;

/**
 * Which events next: in the order of their arrival, each behind its partial prev_events. What is missing for their full
 * state is fetched when nothing else can be repaired.
 */
export async function nextResyncStep(ctx: RoomsContext, target: ResyncTarget): Promise<ResyncStep> {
  const { pool } = ctx.database;
  const room = await partialRoom(pool, target.roomId);
  if (room?.joinEventId !== target.joinEventId) return await whatBecameOf(pool, target, room !== undefined);
  const isAbandoned = (await localJoinedUsers(pool, target.roomId, ctx.serverName)).length === 0;
  if (isAbandoned) return await commit(ctx, "give up a room that was left", (tx) => giveUpRoom(ctx, tx, target));
  const events = await nextRepairableEvents(pool, target.roomId, BATCH);
  if (events.length === 0) return { kind: "finish" };
  const partialEvents = await countPartialEvents(pool, target.roomId);
  const lacking = await statesLacking(
    pool,
    target.roomId,
    events.map(({ eventId }) => eventId),
  );
  const eventIds = repairableNow(events, lacking).slice(0, BATCH);
  if (eventIds.length > 0) return { kind: "repair", eventIds, partialEvents };
  const further = partialEvents > BATCH ? await statesLackingElsewhere(pool, target) : [];
  return { ...missingStates([...lacking, ...further], target.joinEventId), partialEvents };
}

/** A hundred states that nobody can give must not keep the others from being asked for. */
async function statesLackingElsewhere(
  connection: Connection,
  { roomId }: ResyncTarget,
): Promise<readonly EventLacking[]> {
  return [...(await statesLacking(connection, roomId, await somePartialEvents(connection, roomId, BATCH)))];
}

type EventLacking = readonly [eventId: EventId, stateIds: readonly EventId[]];

/**
 * Asked again by a resync that was waiting, or whose worker was killed before it could report its end. A partial room
 * becomes whole, which the stream tells, or is given up when it was left.
 */
async function whatBecameOf(
  connection: Connection,
  { roomId, joinEventId }: ResyncTarget,
  isPartial: boolean,
): Promise<ResyncOver> {
  const join = await loadEvent(connection, joinEventId);
  const joinedAt = join?.streamId ?? null;
  if (joinedAt !== null && (await unPartialStatedAfter(connection, roomId, joinedAt))) return { kind: "completed" };
  return { kind: isPartial ? "superseded" : "left" };
}

function missingStates(
  lacking: readonly EventLacking[],
  joinEventId: EventId,
): Pick<Extract<ResyncStep, { readonly kind: "fetch" }>, "kind" | "eventIds" | "ofJoin"> {
  const ofJoin = new Map(lacking).get(joinEventId) ?? [];
  const others = [...new Set(lacking.flatMap(([, stateIds]) => stateIds))].filter((id) => !ofJoin.includes(id));
  const told = others.length > MOST_MISSING ? shuffled(others).slice(0, MOST_MISSING) : others;
  return { kind: "fetch", eventIds: [...ofJoin, ...told], ofJoin };
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

/** Nobody of ours is in the room any more: what was partial stays as it is, and the room can be joined again. */
async function giveUpRoom(ctx: RoomsContext, tx: Connection, target: ResyncTarget): Promise<ResyncStep> {
  await lockRoom(tx, target.roomId);
  const room = await lockPartialRoom(tx, target.roomId);
  if (room?.joinEventId !== target.joinEventId) return await whatBecameOf(tx, target, room !== undefined);
  if ((await localJoinedUsers(tx, target.roomId, ctx.serverName)).length > 0) {
    // Someone has joined in between: the next step looks again.
    return { kind: "repair", eventIds: [], partialEvents: await countPartialEvents(tx, target.roomId) };
  }
  await deviceListsOwedAfterLeave(ctx, tx, room);
  await abandonPartialEvents(tx, target.roomId);
  await deletePartialRoom(tx, target.roomId);
  // After that nobody writes members ahead any more.
  await keepMembersOfCurrentState(tx, target.roomId);
  await clearResyncStateIds(tx, target.roomId);
  await deleteResyncControl(tx, target.roomId);
  await deleteHopelessPdus(tx, target.roomId);
  return { kind: "left" };
}

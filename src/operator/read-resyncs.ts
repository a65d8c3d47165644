import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { statesLacking } from "../rooms/resync/states-lacking.ts";
import {
  countPartialEvents,
  listPartialRooms,
  nextRepairableEvents,
  partialRoom,
  partialRoomServers,
} from "../storage/partial-state.ts";
import type { PartialRoom } from "../storage/partial-state.ts";
import { listResyncControls, loadResyncControl, type ResyncControl } from "../storage/resync-control.ts";
import { resyncDrops } from "../storage/resync-drops.ts";
import type { OperatorContext } from "./context.ts";
import { requireKnownRoom } from "./known-room.ts";
import type { WorkflowStanding } from "./resync-workflows.ts";

/** An operator's wish as the API tells it; times are milliseconds since the epoch. */
export interface WishReport {
  readonly wish: "cancelled" | "prefer-server";
  readonly server?: ServerName;
  readonly by: string;
  readonly at: number;
  readonly why: string;
}

/** One line of the list of resyncs. */
export interface ResyncSummary {
  readonly roomId: RoomId;
  readonly joinEventId: EventId | null;
  readonly joinedVia: ServerName | null;
  readonly partialEvents: number;
  readonly wish?: WishReport;
}

/** A state that is missing, and the partial events that build on it. */
export interface LackReport {
  readonly missing: EventId;
  readonly neededBy: EventId;
  /** It can't be dropped then. */
  readonly isOurJoin: boolean;
}

/** An event that an operator has dropped, until its turn has come. */
export interface DropReport {
  readonly eventId: EventId;
  readonly by: string;
  readonly at: number;
  readonly why: string;
}

/** All that is known of one room's resync. */
export type ResyncReport =
  | { readonly roomId: RoomId; readonly state: "complete" }
  | (ResyncSummary & {
      readonly state: "partial";
      /** Servers that were in the room at the join. */
      readonly serversInRoom: readonly ServerName[];
      /** Of the next events to be repaired. */
      readonly lacks: readonly LackReport[];
      readonly drops: readonly DropReport[];
      readonly workflow: WorkflowStanding;
      readonly link?: string;
    });

function wishReport(control: ResyncControl): WishReport {
  const { wish, by, at, why } = control;
  return { wish, by, at, why, ...(control.wish === "prefer-server" && { server: control.serverName }) };
}

async function summary(
  ctx: OperatorContext,
  room: PartialRoom,
  control: ResyncControl | undefined,
): Promise<ResyncSummary> {
  const { roomId, joinEventId, joinedVia } = room;
  const partialEvents = await countPartialEvents(ctx.database.pool, roomId);
  return { roomId, joinEventId, joinedVia, partialEvents, ...(control && { wish: wishReport(control) }) };
}

/** The rooms whose state is partial, as the database has them: true also while Temporal is away. */
export async function listResyncs(ctx: OperatorContext): Promise<readonly ResyncSummary[]> {
  const [rooms, controls] = await Promise.all([listPartialRooms(ctx.database.pool), listResyncControls(ctx.database)]);
  const controlOf = new Map(controls.map((control) => [control.roomId, control]));
  return Promise.all(rooms.map((room) => summary(ctx, room, controlOf.get(room.roomId))));
}

const MOST_LOOKED_AT = 20;

async function lackReports(ctx: OperatorContext, { roomId, joinEventId }: PartialRoom): Promise<readonly LackReport[]> {
  const { pool } = ctx.database;
  const next = await nextRepairableEvents(pool, roomId, MOST_LOOKED_AT);
  const lacking = await statesLacking(
    pool,
    roomId,
    next.map(({ eventId }) => eventId),
  );
  return [...lacking].flatMap(([neededBy, ids]) =>
    ids.map((missing) => ({ missing, neededBy, isOurJoin: neededBy === joinEventId })),
  );
}

/** @throws MatrixError 404 for a room that we are not in */
export async function showResync(ctx: OperatorContext, roomId: RoomId): Promise<ResyncReport> {
  const connection = ctx.database.pool;
  const room = await partialRoom(connection, roomId);
  if (room === undefined) {
    await requireKnownRoom(ctx, roomId);
    return { roomId, state: "complete" };
  }
  const [serversInRoom, lacks, drops, control, workflow] = await Promise.all([
    partialRoomServers(connection, roomId),
    lackReports(ctx, room),
    resyncDrops(connection, roomId),
    loadResyncControl(ctx.database, roomId),
    ctx.workflows.standing(roomId),
  ]);
  const link = ctx.workflows.link(roomId);
  return {
    state: "partial",
    ...(await summary(ctx, room, control)),
    serversInRoom,
    lacks,
    drops: drops.map(({ eventId, by, at, why }) => ({ eventId, by, at, why })),
    workflow,
    ...(link !== undefined && { link }),
  };
}

import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { countPartialEvents, listPartialRooms, partialRoom, partialRoomServers } from "../storage/partial-state.ts";
import type { PartialRoom } from "../storage/partial-state.ts";
import { listResyncControls, loadResyncControl, type ResyncControl } from "../storage/resync-control.ts";
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

/** All that is known of one room's resync. */
export type ResyncReport =
  | { readonly roomId: RoomId; readonly state: "complete" }
  | (ResyncSummary & {
      readonly state: "partial";
      /** Servers that were in the room at the join. */
      readonly serversInRoom: readonly ServerName[];
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

/** @throws MatrixError 404 for a room that we are not in */
export async function showResync(ctx: OperatorContext, roomId: RoomId): Promise<ResyncReport> {
  const connection = ctx.database.pool;
  const room = await partialRoom(connection, roomId);
  if (room === undefined) {
    await requireKnownRoom(ctx, roomId);
    return { roomId, state: "complete" };
  }
  const [serversInRoom, control, workflow] = await Promise.all([
    partialRoomServers(connection, roomId),
    loadResyncControl(ctx.database, roomId),
    ctx.workflows.standing(roomId),
  ]);
  const link = ctx.workflows.link(roomId);
  return {
    state: "partial",
    ...(await summary(ctx, room, control)),
    serversInRoom,
    workflow,
    ...(link !== undefined && { link }),
  };
}

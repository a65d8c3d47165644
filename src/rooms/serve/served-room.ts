import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, ServerName, UserId } from "../../matrix/identifiers.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import { rulesOf, type RoomVersionRules } from "../../matrix/room-versions.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { isServerJoined } from "../../storage/memberships.ts";
import { partialRoomServers } from "../../storage/partial-state.ts";
import { loadRoomStanding } from "../../storage/rooms.ts";
import { wasSentTo } from "../../storage/own-event-destinations.ts";
import type { RoomsContext } from "../context.ts";
import { isServerAllowedInState } from "../events/server-acl.ts";

/** A room that another server asks about. */
export interface ServedRoom {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  /** Of the current state. */
  readonly snapshotId: bigint;
  /** We don't know its full state yet. */
  readonly partial: boolean;
}

/** Who asks, and about which room. */
export interface RoomQuestion {
  readonly origin: ServerName;
  readonly roomId: RoomId;
}

/**
 * A room that we have state of.
 *
 * @throws MatrixError 404 M_NOT_FOUND
 */
export async function servedRoom(ctx: RoomsContext, roomId: RoomId): Promise<ServedRoom> {
  // At once: a partial state must not pass for the full one because the resync ends between two questions.
  const room = await loadRoomStanding(ctx.database.pool, roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || room.currentSnapshotId === null) throw roomNotFound(roomId);
  return { roomId, rules, snapshotId: room.currentSnapshotId, partial: room.partial };
}

/**
 * The same for a server that the room's ACL does not shut out.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403 M_FORBIDDEN
 */
export async function roomServedTo(ctx: RoomsContext, { roomId, origin }: RoomQuestion): Promise<ServedRoom> {
  const room = await servedRoom(ctx, roomId);
  if (!(await isServerAllowedInState(ctx, room.snapshotId, origin))) {
    throw new MatrixError(403, "M_FORBIDDEN", `The access control list of room ${roomId} denies ${origin}`);
  }
  return room;
}

/**
 * The room, where we can let others in and out of it: we are in it and know its full state. To a server that wants to
 * join, a resident that can't help looks like one that is not in the room, so that it asks the next.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403 M_FORBIDDEN
 */
export async function residentRoom(ctx: RoomsContext, question: RoomQuestion): Promise<ServedRoom> {
  const room = await roomServedTo(ctx, question);
  if (room.partial) throw stateNotKnown(room.roomId);
  if (!(await weAreInRoom(ctx, room.roomId))) throw roomNotFound(room.roomId);
  return room;
}

/** What a resident that can't help says to who would join, knock or leave by it. */
export function stateNotKnown(roomId: RoomId): MatrixError {
  return new MatrixError(404, "M_NOT_FOUND", `The state of room ${roomId} is not known in full`);
}

export async function weAreInRoom(ctx: RoomsContext, roomId: RoomId): Promise<boolean> {
  return await isServerJoined(ctx.database.pool, roomId, ctx.serverName);
}

/** In a partially joined room the servers that the join named are believed to be in it as well. */
async function isServerInRoom(ctx: RoomsContext, room: ServedRoom, server: ServerName): Promise<boolean> {
  const { pool } = ctx.database;
  if (await isServerJoined(pool, room.roomId, server)) return true;
  return room.partial && (await partialRoomServers(pool, room.roomId)).includes(server);
}

/** @throws MatrixError 403 M_FORBIDDEN */
export async function requireServerInRoom(ctx: RoomsContext, room: ServedRoom, server: ServerName): Promise<void> {
  if (!(await isServerInRoom(ctx, room, server))) {
    throw new MatrixError(403, "M_FORBIDDEN", `${server} is not in room ${room.roomId}`);
  }
}

/**
 * What MSC3895 has a server answer that knows only part of the room's state.
 *
 * @see https://github.com/matrix-org/matrix-spec-proposals/pull/3895
 */
export function unableDueToPartialState(roomId: RoomId): MatrixError {
  return new MatrixError(
    403,
    "ORG.MATRIX.MSC3895_UNABLE_DUE_TO_PARTIAL_STATE",
    `The state of room ${roomId} is not known in full yet`,
  );
}

/** @throws MatrixError 403 M_FORBIDDEN: a server speaks for its own users only */
export function requireUserOf(origin: ServerName, userId: UserId): void {
  if (serverNameOf(userId) !== origin) {
    throw new MatrixError(403, "M_FORBIDDEN", `${userId} is not a user of ${origin}`);
  }
}

/** The same for a question about an event, where we may answer it: of those that we sent to the server, always. */
export async function requireEventServable(
  ctx: RoomsContext,
  room: ServedRoom,
  { origin, event }: { readonly origin: ServerName; readonly event: StoredEvent | undefined },
): Promise<void> {
  const ours = event !== undefined && event.rejection === null && isOurs(ctx, event);
  if (ours && (await wasSentTo(ctx.database.pool, event.eventId, origin))) return;
  if (room.partial && !ours) throw unableDueToPartialState(room.roomId);
  await requireServerInRoom(ctx, room, origin);
}

/** Sent by one of our users. */
export function isOurs(ctx: RoomsContext, event: StoredEvent): boolean {
  return serverNameOf(event.pdu.sender) === ctx.serverName;
}

export function eventNotFound(eventId: string): MatrixError {
  return new MatrixError(404, "M_NOT_FOUND", `Event ${eventId} is not known here`);
}

function roomNotFound(roomId: RoomId): MatrixError {
  return new MatrixError(404, "M_NOT_FOUND", `This server is not in room ${roomId}`);
}

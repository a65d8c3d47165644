import { serverNameOf, type RoomId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { loadEvent } from "../../storage/events.ts";
import { serversThatToldOf } from "../../storage/invites.ts";
import { joinedRooms } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import { currentStreamPosition, localMembershipsAt } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { serversOfRoom } from "../events/servers-of-room.ts";

interface RoomWanted {
  readonly userId: UserId;
  readonly roomId: RoomId;
  /** The caller's servers, in the order of preference. */
  readonly via: readonly ServerName[];
}

/** More servers than this are not tried for one join or knock. */
const MAX_ATTEMPTS = 20;

/**
 * Servers to enter a room by, or to knock at: the caller's first, then that of our first join, whoever invited the
 * user or took their knock, and whoever the room's id names. For a room of which nothing else is known, those of a
 * room of the user's that was upgraded to it.
 */
export async function serversToAsk(ctx: RoomsContext, wanted: RoomWanted): Promise<readonly ServerName[]> {
  const servers = new Set(wanted.via);
  const known = await partialRoom(ctx.database.pool, wanted.roomId);
  if (typeof known?.joinedVia === "string") servers.add(known.joinedVia);
  for (const server of await serversOfMembership(ctx, wanted)) servers.add(server);
  const ofRoomId = serverNameOf(wanted.roomId);
  if (ofRoomId !== undefined) servers.add(ofRoomId);
  if (wanted.via.length === 0) {
    for (const server of await serversOfPredecessor(ctx, wanted)) servers.add(server);
  }
  servers.delete(ctx.serverName);
  return [...servers].slice(0, MAX_ATTEMPTS);
}

/** Whoever invited the user is in the room, and so was who took their knock. */
async function serversOfMembership(ctx: RoomsContext, { roomId, userId }: RoomWanted): Promise<readonly ServerName[]> {
  const { pool } = ctx.database;
  const memberships = await localMembershipsAt(pool, userId, await currentStreamPosition(pool));
  const own = memberships.find((one) => one.roomId === roomId);
  if (own?.membership !== "invite" && own?.membership !== "knock") return [];
  const event = await loadEvent(pool, own.eventId);
  const sender = event === undefined ? undefined : serverNameOf(event.pdu.sender);
  return [...(sender === undefined ? [] : [sender]), ...(await serversThatToldOf(pool, own.eventId))];
}

/**
 * A room that replaces another has the same servers, as a rule; and the room id of version 12 on names none.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
 */
async function serversOfPredecessor(ctx: RoomsContext, { roomId, userId }: RoomWanted): Promise<readonly ServerName[]> {
  const { pool } = ctx.database;
  for (const older of await joinedRooms(pool, userId)) {
    const snapshotId = (await loadRoom(pool, older))?.currentSnapshotId ?? null;
    const id = snapshotId === null ? undefined : await lookUpInSnapshot(pool, snapshotId, "m.room.tombstone", "");
    const tombstone = id === undefined ? undefined : await loadEvent(pool, id);
    if (tombstone?.pdu.content["replacement_room"] !== roomId) continue;
    const upgrader = serverNameOf(tombstone.pdu.sender);
    return [...(upgrader === undefined ? [] : [upgrader]), ...(await serversOfRoom(pool, ctx, older))];
  }
  return [];
}

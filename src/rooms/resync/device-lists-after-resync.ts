import type { RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { addToldServers, deviceChangesInRoom, serversWithMembershipEvents } from "../../storage/device-list-changes.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { partialRoomServers, type PartialRoom } from "../../storage/partial-state.ts";
import { forgetPendingDeviceUpdates, takePendingDeviceUpdates } from "../../storage/remote-device-lists.ts";
import type { RoomsContext } from "../context.ts";
import { sendDeviceChanges } from "../devices/announce-device-changes.ts";
import { applyDeviceUpdate, parseDeviceUpdate, type DeviceUpdateType } from "../devices/apply-device-update.ts";

/**
 * Device lists of a room whose members are all known at last: other servers are told what they have missed of our
 * users' devices since the join, and what came of users whom we did not know to be members is made up for. Users who
 * were wrongly believed to be members are tracked no longer since the room's memberships were corrected.
 *
 * @param streamId the position of the transaction that ends the resync
 */
export async function deviceListsAfterResync(
  ctx: RoomsContext,
  tx: Connection,
  { partial, streamId }: { readonly partial: PartialRoom; readonly streamId: bigint },
): Promise<void> {
  await tellMissedServers(ctx, tx, { partial, servers: await joinedServers(tx, partial.roomId) });
  await replayPendingUpdates(tx, { roomId: partial.roomId, streamId });
  await forgetPendingDeviceUpdates(tx, partial.roomId);
}

/**
 * The same for a room that the last of our users leaves while it is partial: whoever is owed a change by then, as far
 * as we know, is still told. Before the room's partial rows and memberships go.
 */
export async function deviceListsOwedAfterLeave(
  ctx: Pick<RoomsContext, "serverName">,
  tx: Connection,
  partial: PartialRoom,
): Promise<void> {
  const { roomId } = partial;
  const servers = [...(await joinedServers(tx, roomId)), ...(await partialRoomServers(tx, roomId))];
  await tellMissedServers(ctx, tx, { partial, servers });
  await forgetPendingDeviceUpdates(tx, roomId);
}

/** Also those that have left since: they were in the room with the user when the devices changed. */
async function tellMissedServers(
  ctx: Pick<RoomsContext, "serverName">,
  tx: Connection,
  { partial, servers }: { readonly partial: PartialRoom; readonly servers: readonly ServerName[] },
): Promise<void> {
  const { roomId, deviceListsStreamId: since } = partial;
  const changes = await deviceChangesInRoom(tx, roomId, since);
  if (changes.length === 0) return;
  const passing = await serversWithMembershipEvents(tx, roomId, since);
  const all = [...new Set([...servers, ...passing])].filter((server) => server !== ctx.serverName);
  const owed = changes.map((change) => {
    const told = new Set(change.told);
    return { change, destinations: all.filter((server) => !told.has(server)) };
  });
  await sendDeviceChanges(tx, owed);
  for (const { change, destinations } of owed) {
    if (destinations.length > 0) await addToldServers(tx, change.streamId, destinations);
  }
}

async function replayPendingUpdates(
  tx: Connection,
  { roomId, streamId }: { readonly roomId: RoomId; readonly streamId: bigint },
): Promise<void> {
  for (const { eduType, content } of await takePendingDeviceUpdates(tx, roomId)) {
    const update = parseDeviceUpdate(eduType as DeviceUpdateType, content);
    if (update === undefined) throw new Error(`a kept ${eduType} can't be read any more`);
    await applyDeviceUpdate(tx, update, streamId);
  }
}

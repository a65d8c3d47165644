import type { ServerName, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { Connection } from "../../storage/database.ts";
import {
  appendLocalDeviceChange,
  newestDeviceChange,
  noteDeviceListChanges,
  serversSharingRoomsWith,
  type LocalDeviceChange,
} from "../../storage/device-list-changes.ts";
import { addEdusToOutbox } from "../../storage/outbox-edus.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { keysOfOurUsers } from "./known-keys.ts";

/** What device lists need of the context. */
export type DevicesContext = Pick<RoomsContext, "serverName" | "database" | "reach">;

/** What changed: devices by their ids, or null for the cross-signing keys. At least one. */
type Changed = readonly (string | null)[];

/**
 * Tells clients and other servers that devices or cross-signing keys of one of our users have changed: every server
 * that is known to share a room with the user. Who is told is noted, for the resyncs that find more servers later.
 * Among a transaction's last steps: what has changed is stored.
 */
export async function announceDeviceChanges(
  ctx: Pick<DevicesContext, "serverName">,
  tx: Connection,
  { userId, changed }: { readonly userId: UserId; readonly changed: Changed },
): Promise<void> {
  const first = await takeStreamPositions(tx, changed.length);
  // Behind the position: a join that is stored by now counts, and any later one has a later position.
  const servers = await serversSharingRoomsWith(tx, userId);
  const told = servers.filter((server) => server !== ctx.serverName);
  let prevStreamId = await newestDeviceChange(tx, userId);
  const changes: LocalDeviceChange[] = [];
  for (const [index, deviceId] of changed.entries()) {
    const streamId = first + BigInt(index);
    const change = { streamId, userId, deviceId, prevStreamId, told };
    await appendLocalDeviceChange(tx, change);
    changes.push(change);
    if (deviceId !== null) prevStreamId = streamId;
  }
  await noteDeviceListChanges(tx, first + BigInt(changed.length - 1), [userId]);
  await sendDeviceChanges(
    tx,
    changes.map((change) => ({ change, destinations: told })),
  );
}

/** Tells our own users' clients alone: of what other servers are not told, such as a device's name. */
export async function noteForClients(tx: Connection, userId: UserId): Promise<void> {
  const streamId = await takeStreamPositions(tx, 1);
  await noteDeviceListChanges(tx, streamId, [userId]);
}

interface ChangeToSend {
  readonly change: LocalDeviceChange;
  readonly destinations: readonly ServerName[];
}

/** Puts the EDUs of changes on the servers' lists, with the devices as they are now. */
export async function sendDeviceChanges(tx: Connection, changes: readonly ChangeToSend[]): Promise<void> {
  const owed = changes.filter(({ destinations }) => destinations.length > 0);
  const users = await keysOfOurUsers(tx, [...new Set(owed.map(({ change }) => change.userId))]);
  const edus = owed.map(({ change, destinations }) => {
    const keys = users.get(change.userId);
    const isDevice = change.deviceId !== null;
    return {
      destinations,
      eduType: isDevice ? "m.device_list_update" : "m.signing_key_update",
      content: isDevice
        ? deviceListUpdate(change, keys?.devices.find((one) => one.deviceId === change.deviceId)?.keys)
        : {
            user_id: change.userId,
            ...masterAndSelfSigning(keys?.crossSigning ?? {}),
          },
    };
  });
  await addEdusToOutbox(tx, { edus });
}

/** The cross-signing keys that everyone may see. */
export function masterAndSelfSigning(keys: { readonly master?: JsonObject; readonly self_signing?: JsonObject }): {
  readonly master_key?: JsonObject;
  readonly self_signing_key?: JsonObject;
} {
  return {
    ...(keys.master === undefined ? {} : { master_key: keys.master }),
    ...(keys.self_signing === undefined ? {} : { self_signing_key: keys.self_signing }),
  };
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#device-management */
function deviceListUpdate(change: LocalDeviceChange, keys: JsonObject | undefined): JsonObject {
  return {
    user_id: change.userId,
    device_id: change.deviceId,
    stream_id: Number(change.streamId),
    prev_id: change.prevStreamId === null ? [] : [Number(change.prevStreamId)],
    ...(keys === undefined ? { deleted: true } : { keys }),
  };
}

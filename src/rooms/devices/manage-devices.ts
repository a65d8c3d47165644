import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { deleteDevices, devicesOf, setDeviceName, type Session } from "../../storage/accounts.ts";
import { deleteKeySignatures } from "../../storage/cross-signing-keys.ts";
import { loadDeviceKeys } from "../../storage/device-keys.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import { deleteInboxes } from "../../storage/to-device.ts";
import { announceDeviceChanges, noteForClients, type DevicesContext } from "./announce-device-changes.ts";
import { commit } from "../failpoints.ts";

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices */
export async function listDevices(ctx: DevicesContext, userId: UserId): Promise<readonly JsonObject[]> {
  const devices = await devicesOf(ctx.database, userId);
  return devices.map(({ deviceId, displayName }) => ({
    device_id: deviceId,
    ...(displayName === null ? {} : { display_name: displayName }),
  }));
}

/** @throws MatrixError 404 M_NOT_FOUND */
export async function describeDevice(ctx: DevicesContext, { userId, deviceId }: Session): Promise<JsonObject> {
  const device = (await listDevices(ctx, userId)).find((one) => one["device_id"] === deviceId);
  if (device === undefined) throw unknownDevice(deviceId);
  return device;
}

/** Without a name nothing changes. @throws MatrixError 404 M_NOT_FOUND */
export async function renameDevice(ctx: DevicesContext, device: Session, displayName?: string): Promise<void> {
  if (displayName === undefined) {
    await describeDevice(ctx, device);
    return;
  }
  await commit(ctx, "rename a device", async (tx) => {
    if (!(await setDeviceName(tx, device, displayName))) throw unknownDevice(device.deviceId);
    await noteForClients(tx, device.userId);
  });
}

/**
 * Logs devices out: their tokens end, their keys and messages are gone, and whoever could encrypt to them is told. Ids
 * that name no device of the user are passed over.
 */
export async function removeDevices(ctx: DevicesContext, userId: UserId, deviceIds: readonly string[]): Promise<void> {
  await commit(ctx, "remove devices", async (tx) => {
    const keyed = new Set((await loadDeviceKeys(tx, [userId])).map((device) => device.deviceId));
    const deleted = await deleteDevices(tx, userId, deviceIds);
    await deleteKeySignatures(tx, userId, deleted);
    if (deleted.length === 0) return;
    const changed = deleted.filter((deviceId) => keyed.has(deviceId));
    // Either way a position is taken, behind which nobody appends messages to these devices any more.
    if (changed.length > 0) await announceDeviceChanges(ctx, tx, { userId, changed });
    else await takeStreamPositions(tx, 1);
    await deleteInboxes(tx, userId, deleted);
  });
}

function unknownDevice(deviceId: string): MatrixError {
  return new MatrixError(404, "M_NOT_FOUND", `You have no device ${deviceId}`);
}

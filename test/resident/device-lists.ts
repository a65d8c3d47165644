import type { UserId } from "../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../src/matrix/json.ts";

/** The devices of a user of the resident, as its server tells them. */
export interface HostedDevices {
  /** Of the last update. */
  streamId: number;
  /** Keys by device id. */
  devices: Readonly<Record<string, JsonObject>>;
  masterKey?: JsonObject;
  selfSigningKey?: JsonObject;
  /** By device id: each is handed out once, in this order. */
  oneTimeKeys?: Record<string, JsonObject[]>;
}

export type DeviceLists = Map<UserId, HostedDevices>;

/** @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid */
export function userDevicesAnswer(lists: DeviceLists, userId: UserId): JsonObject {
  const list = lists.get(userId);
  const devices = Object.entries(list?.devices ?? {}).map(([deviceId, keys]) => ({ device_id: deviceId, keys }));
  return {
    user_id: userId,
    stream_id: list?.streamId ?? 1,
    devices,
    ...(list?.masterKey === undefined ? {} : { master_key: list.masterKey }),
    ...(list?.selfSigningKey === undefined ? {} : { self_signing_key: list.selfSigningKey }),
  };
}

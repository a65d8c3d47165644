import type { UserId } from "../../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { userDevicesAnswer } from "../device-lists.ts";
import type { HostedDevices } from "../device-lists.ts";
import { bodyOf, ok, visitedUser } from "../visit.ts";
import type { Handler, Visit } from "../visit.ts";

export const userDevices: Handler = (visit) => ok(userDevicesAnswer(visit.world.deviceLists, visitedUser(visit)));

function wantedIn(visit: Visit, name: string): readonly [UserId, HostedDevices, JsonValue][] {
  const wanted = bodyOf(visit)[name];
  return Object.entries(isJsonObject(wanted) ? wanted : {}).flatMap(([userId, devices]) => {
    const list = visit.world.deviceLists.get(userId as UserId);
    return list === undefined ? [] : [[userId as UserId, list, devices] as [UserId, HostedDevices, JsonValue]];
  });
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery */
export const userKeysQuery: Handler = (visit) => {
  const users = wantedIn(visit, "device_keys");
  return ok({
    device_keys: Object.fromEntries(users.map(([userId, list]) => [userId, list.devices])) as JsonObject,
    master_keys: Object.fromEntries(
      users.flatMap(([userId, { masterKey }]) => (masterKey ? [[userId, masterKey]] : [])),
    ),
    self_signing_keys: {},
  });
};

/** @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim */
export const userKeysClaim: Handler = (visit) => {
  const claimed = wantedIn(visit, "one_time_keys").map(([userId, list, devices]) => {
    const ids = Object.keys(isJsonObject(devices) ? devices : {});
    const keys = ids.flatMap((deviceId) => {
      const key = list.oneTimeKeys?.[deviceId]?.shift();
      return key === undefined ? [] : [[deviceId, key]];
    });
    return [userId, Object.fromEntries(keys)];
  });
  return ok({ one_time_keys: Object.fromEntries(claimed) as JsonObject });
};

import type { UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import { claimKey } from "../../storage/device-keys.ts";
import type { RoomsContext } from "../context.ts";
import { atStep, commit } from "../failpoints.ts";
import type { DevicesContext } from "./announce-device-changes.ts";
import { askServers, byServer } from "./foreign-keys.ts";

/** By user and then by device, of which algorithm a key is wanted. */
export type WantedOneTimeKeys = ReadonlyMap<UserId, Readonly<Record<string, string>>>;

type ClaimedKeys = Readonly<Record<UserId, JsonObject>>;

/**
 * Takes one-time keys of devices, each of which is given to one taker only.
 *
 * @param timeoutMs for each other server
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
 */
export async function claimKeys(ctx: RoomsContext, wanted: WantedOneTimeKeys, timeoutMs: number): Promise<JsonObject> {
  const servers = byServer(wanted);
  const ours = servers.get(ctx.serverName) ?? new Map<UserId, Readonly<Record<string, string>>>();
  servers.delete(ctx.serverName);
  const local = await claimOurKeys(ctx, ours);
  const { answers, failures } = await askServers(servers, async (server, ofServer) => {
    const answer = await atStep(ctx, "claim keys of others", () =>
      ctx.federation.claimUserKeys(server, Object.fromEntries(ofServer), { timeoutMs }),
    );
    return claimedOf(answer, ofServer);
  });
  return { one_time_keys: Object.assign({}, local, ...answers) as JsonObject, failures };
}

/** Keys of our own users' devices; devices that have none are left out. */
export async function claimOurKeys(ctx: DevicesContext, wanted: WantedOneTimeKeys): Promise<ClaimedKeys> {
  const claimed: Record<UserId, JsonObject> = {};
  await commit(ctx, "claim keys", async (tx) => {
    for (const [userId, devices] of wanted) {
      for (const [deviceId, algorithm] of Object.entries(devices)) {
        const taken = await claimKey(tx, { userId, deviceId }, algorithm);
        if (taken === undefined) continue;
        const key = { [`${algorithm}:${taken.keyId}`]: taken.key };
        claimed[userId] = { ...claimed[userId], [deviceId]: key };
      }
    }
  });
  return claimed;
}

/** What a server gave, but only of what it was asked for. */
function claimedOf(answer: JsonObject, wanted: WantedOneTimeKeys): ClaimedKeys {
  const users = answer["one_time_keys"];
  return Object.fromEntries(
    [...wanted].flatMap(([userId, devices]) => {
      const given = isJsonObject(users) ? users[userId] : undefined;
      const keys = Object.entries(isJsonObject(given) ? given : {}).filter(
        ([deviceId, key]) => Object.hasOwn(devices, deviceId) && isJsonObject(key),
      );
      return keys.length === 0 ? [] : [[userId, Object.fromEntries(keys)]];
    }),
  );
}

import { z } from "zod";
import type { CallOptions } from "../../federation-client/client.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import { serverNameOf, type UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import { deleteCrossSigningKeys, storeCrossSigningKeys } from "../../storage/cross-signing-keys.ts";
import {
  storeRemoteDeviceList,
  trackRemoteDeviceList,
  type RemoteDeviceList,
} from "../../storage/remote-device-lists.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";

const object = z.custom<JsonObject>(isJsonObject, "expected a JSON object");

const userDevices = z.object({
  user_id: z.string(),
  stream_id: z.number().int(),
  devices: z.array(
    z.object({
      device_id: z.string().min(1),
      device_display_name: z.string().nullish(),
      // Some servers list devices that have none.
      keys: object.optional(),
    }),
  ),
  master_key: object.nullish(),
  self_signing_key: object.nullish(),
});

/** A list that changes while it is fetched is fetched again, so often at the most. */
const MOST_FETCHES = 3;

/** What is under way, so that a hundred updates after a gap make one request. */
const underWay = new WeakMap<RoomsContext["federation"], Map<UserId, Promise<boolean>>>();

/**
 * Fetches the devices of a user of another server, unless the list that we hold is fresh. Whoever asks while that is
 * under way waits for the same answer.
 *
 * @returns false for a user who is in no room with one of ours: no list of theirs is held
 * @throws FederationFailure
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
 */
export async function refreshDeviceList(ctx: RoomsContext, userId: UserId, options?: CallOptions): Promise<boolean> {
  const requests = underWay.get(ctx.federation) ?? new Map<UserId, Promise<boolean>>();
  underWay.set(ctx.federation, requests);
  const begun = requests.get(userId);
  if (begun !== undefined) return await begun;
  const request = fetchUntilFresh(ctx, userId, options).finally(() => requests.delete(userId));
  requests.set(userId, request);
  return await request;
}

async function fetchUntilFresh(ctx: RoomsContext, userId: UserId, options?: CallOptions): Promise<boolean> {
  for (let fetches = 0; fetches < MOST_FETCHES; fetches += 1) {
    const list = await commit(ctx, "track a device list", (tx) => trackRemoteDeviceList(tx, userId, ctx.serverName));
    if (list === undefined) return false;
    if (!list.stale || (await fetchOnce(ctx, { userId, list }, options))) return true;
  }
  throw failure(userId, "its devices changed each time that they were fetched");
}

/** True if what was fetched is fresh. */
async function fetchOnce(
  ctx: RoomsContext,
  { userId, list }: { readonly userId: UserId; readonly list: RemoteDeviceList },
  options?: CallOptions,
): Promise<boolean> {
  const answer = await ctx.federation.userDevices(serverNameOf(userId) ?? "", userId, options);
  const parsed = userDevices.safeParse(answer);
  if (!parsed.success || parsed.data.user_id !== userId) throw failure(userId, "its list of devices can't be read");
  const { stream_id: streamId, devices, master_key: master, self_signing_key: selfSigning } = parsed.data;
  return await commit(ctx, "store a device list", async (tx) => {
    const fresh = await storeRemoteDeviceList(tx, userId, {
      streamId: BigInt(streamId),
      generation: list.generation,
      devices: devices.flatMap(({ device_id: deviceId, device_display_name: displayName = null, keys }) =>
        keys === undefined || deviceId.includes("\0") ? [] : [{ deviceId, displayName: storable(displayName), keys }],
      ),
    });
    if (!fresh) return false;
    await deleteCrossSigningKeys(tx, [userId]);
    await storeCrossSigningKeys(tx, userId, {
      ...(master == null ? {} : { master }),
      ...(selfSigning == null ? {} : { self_signing: selfSigning }),
    });
    return true;
  });
}

function storable(name: string | null): string | null {
  return name?.replaceAll("\0", "") ?? null;
}

function failure(userId: UserId, reason: string): FederationFailure {
  return new FederationFailure({ kind: "bad-response", server: serverNameOf(userId) ?? "", reason });
}

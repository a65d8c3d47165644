import { z } from "zod";
import { isUserId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import { storeCrossSigningKeys } from "../../storage/cross-signing-keys.ts";
import type { Connection } from "../../storage/database.ts";
import { noteDeviceListChanges } from "../../storage/device-list-changes.ts";
import {
  lockRemoteDeviceList,
  markRemoteDeviceListStale,
  updateRemoteDevice,
  type RemoteDeviceList,
} from "../../storage/remote-device-lists.ts";

const storable = z.string().refine((text) => !text.includes("\0"), "holds a NUL");
const object = z.custom<JsonObject>(isJsonObject, "expected a JSON object");
const user = z.custom<UserId>((value) => isUserId(value) && !value.includes("\0"), "expected a user id");
const streamId = z.number().int();

const listUpdate = z.object({
  user_id: user,
  device_id: storable.min(1),
  device_display_name: storable.nullish(),
  stream_id: streamId,
  prev_id: z.array(streamId).optional(),
  deleted: z.boolean().optional(),
  keys: object.optional(),
});

const keyUpdate = z.object({ user_id: user, master_key: object.optional(), self_signing_key: object.optional() });

/** An update of the devices or cross-signing keys of another server's user, as that server told it. */
export type DeviceUpdate =
  | ({ readonly eduType: "m.device_list_update" } & z.infer<typeof listUpdate>)
  | ({ readonly eduType: "m.signing_key_update" } & z.infer<typeof keyUpdate>);

export type DeviceUpdateType = DeviceUpdate["eduType"];

/** Undefined for what is not as the specification has it. */
export function parseDeviceUpdate(eduType: DeviceUpdateType, content: JsonObject): DeviceUpdate | undefined {
  switch (eduType) {
    case "m.device_list_update": {
      const parsed = listUpdate.safeParse(content);
      return parsed.success ? { eduType, ...parsed.data } : undefined;
    }
    case "m.signing_key_update": {
      const parsed = keyUpdate.safeParse(content);
      return parsed.success ? { eduType, ...parsed.data } : undefined;
    }
  }
}

/** What an update means for a list that we hold: it is in it already, comes next, or one before it was missed. */
export type UpdatePlace = "known" | "next" | "gap";

/**
 * Where an update belongs. One that refers to no other, or to one that we have not seen, or that is older than what we
 * have, comes after a gap, whatever the reason.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#device-management
 */
export function placeOfUpdate(
  list: Pick<RemoteDeviceList, "streamId" | "stale">,
  update: { readonly streamId: bigint; readonly prevIds: readonly bigint[] },
): UpdatePlace {
  if (list.stale || list.streamId === null) return "gap";
  if (update.streamId === list.streamId) return "known";
  const follows = update.prevIds.length > 0 && update.prevIds.every((id) => id === list.streamId);
  return follows && update.streamId > list.streamId ? "next" : "gap";
}

export type Applied = "applied" | "stale";

/**
 * Applies an update of a user that shares a room with one of ours, and has clients told. A list that nobody has asked
 * for is not held; one that misses an update is stale, until it is fetched anew.
 *
 * @param update its sender is the user's server
 * @param position taken by this transaction
 */
export async function applyDeviceUpdate(tx: Connection, update: DeviceUpdate, position: bigint): Promise<Applied> {
  const list = await lockRemoteDeviceList(tx, update.user_id);
  const applied = list === undefined ? "applied" : await applyToList(tx, list, update);
  if (applied !== "known") await noteDeviceListChanges(tx, position, [update.user_id]);
  return applied === "stale" ? "stale" : "applied";
}

async function applyToList(tx: Connection, list: RemoteDeviceList, update: DeviceUpdate): Promise<Applied | "known"> {
  if (update.eduType === "m.signing_key_update") return applySigningKeys(tx, list, update);
  const next = BigInt(update.stream_id);
  const place = placeOfUpdate(list, { streamId: next, prevIds: (update.prev_id ?? []).map(BigInt) });
  switch (place) {
    case "known":
      return "known";
    case "gap":
      await markRemoteDeviceListStale(tx, update.user_id);
      return "stale";
    case "next": {
      const { user_id: userId, device_id: deviceId, device_display_name: displayName = null, deleted, keys } = update;
      await updateRemoteDevice(tx, { userId, deviceId, displayName, keys: deleted === true ? undefined : keys }, next);
      return "applied";
    }
  }
}

async function applySigningKeys(
  tx: Connection,
  list: RemoteDeviceList,
  update: Extract<DeviceUpdate, { readonly eduType: "m.signing_key_update" }>,
): Promise<Applied> {
  if (list.stale) {
    await markRemoteDeviceListStale(tx, update.user_id);
    return "stale";
  }
  const { master_key: master, self_signing_key: selfSigning } = update;
  await storeCrossSigningKeys(tx, update.user_id, {
    ...(master === undefined ? {} : { master }),
    ...(selfSigning === undefined ? {} : { self_signing: selfSigning }),
  });
  return "applied";
}

/** The key of an update that is kept for later: the newest of each replaces the one before. */
export function keptAs(update: DeviceUpdate, serverName: ServerName, content: JsonObject) {
  const deviceId = update.eduType === "m.device_list_update" ? update.device_id : "";
  return { userId: update.user_id, serverName, eduType: update.eduType, deviceId, content };
}

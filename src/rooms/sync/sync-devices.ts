import type { JsonObject } from "../../matrix/json.ts";
import { countOneTimeKeys, unusedFallbackAlgorithms } from "../../storage/device-keys.ts";
import { deleteToDeviceMessages, toDeviceMessages } from "../../storage/to-device.ts";
import type { RoomsContext } from "../context.ts";
import { deviceListNews } from "../devices/device-list-news.ts";
import type { SyncRequest } from "./sync.ts";

interface DevicesToSync {
  /**
   * Where the answer ends: before the position that was asked for if there are more messages than one answer holds,
   * since a client acknowledges all that stands before its token.
   */
  readonly position: bigint;
  /** Groups of the answer; absent where there is nothing to tell. */
  readonly groups: JsonObject;
}

const MOST_MESSAGES = 100;

/** Deletes what the client acknowledges by asking for what comes after it. */
export async function acknowledgeToDevice(ctx: RoomsContext, { requester, since }: SyncRequest): Promise<void> {
  if (since !== undefined) await deleteToDeviceMessages(ctx.database.pool, requester, since);
}

/**
 * Messages to the client's device, and whose devices have changed.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#extensions-to-sync
 */
export async function syncDevices(ctx: RoomsContext, request: SyncRequest, upTo: bigint): Promise<DevicesToSync> {
  const { requester, since } = request;
  const range = { from: since ?? -1n, to: upTo, limit: MOST_MESSAGES };
  const messages = await toDeviceMessages(ctx.database.pool, requester, range);
  const last = messages.at(-1)?.streamId ?? upTo;
  const position = messages.length >= MOST_MESSAGES ? last : upTo;
  const news =
    since === undefined
      ? { changed: [], left: [] }
      : await deviceListNews(ctx, requester.userId, { from: since, to: position });
  const hasNews = news.changed.length > 0 || news.left.length > 0;
  const events = messages.map(({ sender, type, content }) => ({ sender, type, content }));
  return {
    position,
    groups: {
      ...(events.length === 0 ? {} : { to_device: { events } }),
      ...(hasNews ? { device_lists: { ...news } } : {}),
    },
  };
}

/** The keys that the server has left to hand out, which every answer tells. */
export async function deviceKeysLeft({ database: { pool } }: RoomsContext, request: SyncRequest): Promise<JsonObject> {
  const device = request.requester;
  return {
    // Clients take the count of the usual algorithm to be unknown where it is missing.
    device_one_time_keys_count: { signed_curve25519: 0, ...(await countOneTimeKeys(pool, device)) },
    device_unused_fallback_key_types: await unusedFallbackAlgorithms(pool, device),
  };
}

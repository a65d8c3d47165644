import { serverNameOf, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { isInPartialRoom, keepDeviceUpdate, sharesRoomWithUs } from "../../storage/remote-device-lists.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { EduUnusable } from "../edu-unusable.ts";
import { applyDeviceUpdate, keptAs, parseDeviceUpdate, type DeviceUpdateType } from "./apply-device-update.ts";
import { refreshDeviceList } from "./refresh-device-list.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#definition-mdevice_list_update */
export async function receiveDeviceListUpdate(
  ctx: RoomsContext,
  origin: ServerName,
  content: JsonObject,
): Promise<void> {
  await receiveUpdate(ctx, { origin, content, eduType: "m.device_list_update" });
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#definition-msigning_key_update */
export async function receiveSigningKeyUpdate(
  ctx: RoomsContext,
  origin: ServerName,
  content: JsonObject,
): Promise<void> {
  await receiveUpdate(ctx, { origin, content, eduType: "m.signing_key_update" });
}

interface ReceivedUpdate {
  readonly origin: ServerName;
  readonly eduType: DeviceUpdateType;
  readonly content: JsonObject;
}

/**
 * Of a user who is in a room with one of ours it is applied. Of another one it is kept while their server is in a
 * partial room, whose members we don't all know; otherwise it is none of our business.
 */
async function receiveUpdate(ctx: RoomsContext, { origin, eduType, content }: ReceivedUpdate): Promise<void> {
  const update = parseDeviceUpdate(eduType, content);
  if (update === undefined) throw new EduUnusable("it is no update of devices or of cross-signing keys");
  const userId = update.user_id;
  if (serverNameOf(userId) !== origin) throw new EduUnusable(`${userId} is not a user of ${origin}`);
  if (!(await concernsUs(ctx, userId, origin))) return;
  const outcome = await commit(ctx, "store an update of a device list", async (tx) => {
    // First, so that a resync which ends now has either ended before or finds what is kept.
    const position = await takeStreamPositions(tx, 1);
    if (await sharesRoomWithUs(tx, userId, ctx.serverName)) return await applyDeviceUpdate(tx, update, position);
    if (await isInPartialRoom(tx, origin)) await keepDeviceUpdate(tx, keptAs(update, origin, content));
    return "kept";
  });
  if (outcome === "stale") refreshInBackground(ctx, userId);
}

async function concernsUs(ctx: RoomsContext, userId: UserId, origin: ServerName): Promise<boolean> {
  const { pool } = ctx.database;
  return (await sharesRoomWithUs(pool, userId, ctx.serverName)) || (await isInPartialRoom(pool, origin));
}

/** The transaction that brought the update does not wait for it. What fails here is tried again when a client asks. */
function refreshInBackground(ctx: RoomsContext, userId: UserId): void {
  refreshDeviceList(ctx, userId).catch((error: unknown) => {
    ctx.logger.info({ err: error, userId }, "could not fetch a user's devices anew; done when they are asked for");
  });
}

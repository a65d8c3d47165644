import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import { stringifyJson, type JsonObject } from "../../matrix/json.ts";
import { loadAccountData, storeAccountData, type AccountDataPlace } from "../../storage/account-data.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { checkJoined } from "./joined-user.ts";

const MAX_CONTENT_BYTES = 65_536;
const MAX_TYPE_LENGTH = 255;
/** Set by endpoints of their own. */
const RESERVED = new Set(["m.fully_read", "m.push_rules"]);

/**
 * Keeps what a client wants to have kept, of the user or of one of their rooms.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#client-config
 * @throws MatrixError 405 M_BAD_JSON, 413 M_TOO_LARGE
 */
export async function setAccountData(ctx: RoomsContext, place: AccountDataPlace, content: JsonObject): Promise<void> {
  if (RESERVED.has(place.type)) {
    throw new MatrixError(405, "M_BAD_JSON", `Cannot set ${place.type} through this API`);
  }
  if (Buffer.byteLength(stringifyJson(content)) > MAX_CONTENT_BYTES || place.type.length > MAX_TYPE_LENGTH) {
    throw new MatrixError(413, "M_TOO_LARGE", `Account data holds at most ${MAX_CONTENT_BYTES} bytes`);
  }
  await commit(ctx, "store account data", async (tx) => await storeAccountData(tx, place, content));
}

/** @throws MatrixError 404 M_NOT_FOUND */
export async function readAccountData(ctx: RoomsContext, place: AccountDataPlace): Promise<JsonObject> {
  const content = await loadAccountData(ctx.database.pool, place);
  if (content === undefined) throw new MatrixError(404, "M_NOT_FOUND", `There is no ${place.type}`);
  return content;
}

/**
 * Sets the user's place in the room's history, which their clients share.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers
 * @throws MatrixError 403 M_FORBIDDEN for who is not joined
 */
export async function setFullyRead(
  ctx: RoomsContext,
  marker: { readonly roomId: RoomId; readonly userId: UserId; readonly eventId: EventId },
): Promise<void> {
  const { roomId, userId, eventId } = marker;
  await checkJoined(ctx, roomId, userId);
  const place = { userId, roomId, type: "m.fully_read" };
  await commit(ctx, "store a read marker", async (tx) => await storeAccountData(tx, place, { event_id: eventId }));
}

import type { MembershipTemplate } from "../../federation-api/endpoints.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { RoomsContext } from "../context.ts";
import { requireVersion } from "./serve-join.ts";
import {
  acceptSentMembership,
  membershipTemplate,
  readSentMembership,
  type SentMembership,
} from "./serve-membership.ts";
import { requireUserOf, residentRoom, type RoomQuestion, type ServedRoom } from "./served-room.ts";
import { inviteRoomState } from "../read/stripped-state.ts";

/**
 * A knock event for another server's user to complete and sign.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403 M_FORBIDDEN, 400 M_INCOMPATIBLE_ROOM_VERSION
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid
 */
export async function serveMakeKnock(
  ctx: RoomsContext,
  question: RoomQuestion & { readonly userId: UserId; readonly versions: readonly string[] },
): Promise<MembershipTemplate & JsonObject> {
  const { userId } = question;
  requireUserOf(question.origin, userId);
  const room = await residentRoom(ctx, question);
  requireVersion(room, question.versions);
  requireKnocking(room);
  return await membershipTemplate(ctx, room, { userId, content: { membership: "knock" } });
}

/**
 * Takes a knock into the room.
 *
 * @returns events that tell the knocking user what room it is
 * @throws MatrixError 404 M_NOT_FOUND, 403 M_FORBIDDEN, 400 M_BAD_JSON
 * @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid
 */
export async function serveSendKnock(ctx: RoomsContext, sent: SentMembership): Promise<readonly JsonObject[]> {
  const room = await residentRoom(ctx, sent);
  requireKnocking(room);
  const event = readSentMembership(room, sent, "knock");
  await acceptSentMembership(ctx, room, { event, origin: sent.origin });
  return await inviteRoomState(ctx.database.pool, room.snapshotId);
}

function requireKnocking(room: ServedRoom): void {
  if (room.rules.knocking) return;
  throw new MatrixError(403, "M_FORBIDDEN", `Room version ${room.rules.version} does not know knocking`);
}

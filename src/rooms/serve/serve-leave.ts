import type { MembershipTemplate } from "../../federation-api/endpoints.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { RoomsContext } from "../context.ts";
import {
  acceptSentMembership,
  membershipTemplate,
  readSentMembership,
  type SentMembership,
} from "./serve-membership.ts";
import { requireUserOf, residentRoom, type RoomQuestion } from "./served-room.ts";

/**
 * A leave event for another server's user (who is in the room, invited or knocks) to complete and sign.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403 M_FORBIDDEN
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid
 */
export async function serveMakeLeave(
  ctx: RoomsContext,
  question: RoomQuestion & { readonly userId: UserId },
): Promise<MembershipTemplate & JsonObject> {
  const { userId } = question;
  requireUserOf(question.origin, userId);
  const room = await residentRoom(ctx, question);
  return await membershipTemplate(ctx, room, { userId, content: { membership: "leave" } });
}

/**
 * Takes a leave into the room.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403 M_FORBIDDEN, 400 M_BAD_JSON
 * @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid
 */
export async function serveSendLeave(ctx: RoomsContext, sent: SentMembership): Promise<void> {
  const room = await residentRoom(ctx, sent);
  const event = readSentMembership(room, sent, "leave");
  await acceptSentMembership(ctx, room, { event, origin: sent.origin });
}

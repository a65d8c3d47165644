import { serverNameOf } from "../../matrix/identifiers.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { askIfUnknown } from "../appservices/ask-services.ts";
import type { RoomsContext } from "../context.ts";
import type { EventDraft } from "../events/build-event.ts";
import { createEvent } from "../events/create-event.ts";
import { inviteRemoteUser } from "./invite-remote-user.ts";
import { memberContentOf } from "../accounts/profiles.ts";

interface Invitation {
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly target: UserId;
  readonly reason?: string;
  readonly isDirect?: boolean;
  /** Further keys of the membership's content. */
  readonly content?: JsonObject;
}

/**
 * Invites a user, with the consent of their server where that is not ours.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite
 * @throws MatrixError 403 M_FORBIDDEN; FederationFailure where the user's server does not take the invitation
 */
export async function inviteUser(ctx: RoomsContext, invitation: Invitation): Promise<void> {
  const { roomId, sender, target, reason, isDirect } = invitation;
  const isOurs = serverNameOf(target) === ctx.serverName;
  if (isOurs) await askIfUnknown(ctx, target);
  const draft: EventDraft = {
    roomId,
    sender,
    type: "m.room.member",
    stateKey: target,
    content: {
      ...(isOurs ? await memberContentOf(ctx, target) : {}),
      ...invitation.content,
      membership: "invite",
      ...(reason === undefined ? {} : { reason }),
      ...(isDirect === true ? { is_direct: true } : {}),
    },
  };
  await (isOurs ? createEvent(ctx, draft) : inviteRemoteUser(ctx, draft, target));
}

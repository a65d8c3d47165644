import { MatrixError } from "../../federation-api/matrix-error.ts";
import { isUserId, serverNameOf, type EventId, type RoomId, type UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { currentStreamPosition, localMembershipsAt } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";
import { createMembershipEvent } from "../send/create-membership-event.ts";
import type { ReadContext } from "../read/full-state-wait.ts";
import { inviteUser } from "../send/invite-user.ts";
import { untilStandingIsSure } from "../send/until-standing-is-sure.ts";
import { joinRoom } from "./join-room.ts";
import { knockOnRoom } from "./knock-room.ts";
import { leaveRoom } from "./leave-room.ts";

export interface MembershipToSet {
  readonly roomId: RoomId;
  readonly sender: UserId;
  /** The state key: whose membership it is. */
  readonly target: string;
  /** `membership` included. */
  readonly content: JsonObject;
  /** Ends the wait for the full state. */
  readonly signal?: AbortSignal;
}

/**
 * Sets a membership the way state is set. What needs another server then asks it: a join of a room that we know in
 * part is not made up here (the user may be banned without our knowing), nor is another server's user invited without
 * that server. A joined user's change of name is a local event. To remove somebody is to lift their ban if they have one:
 * it waits until that is known.
 *
 * @throws FullStateMissing; MatrixError as joinRoom, knockOnRoom, inviteUser, leaveRoom and createEvent
 */
export async function setMembership(ctx: ReadContext, asked: MembershipToSet): Promise<EventId> {
  const { roomId, sender, target } = asked;
  const content = unvouched(asked.content);
  if (!isUserId(target)) {
    throw new MatrixError(400, "M_INVALID_PARAM", `stateKey: ${JSON.stringify(target)} is not a user id`);
  }
  const { membership, reason: given } = content;
  const reason = typeof given === "string" ? { reason: given } : {};
  if (sender !== target) {
    const isInvite = membership === "invite" && serverNameOf(target) !== ctx.serverName;
    if (membership === "leave") await untilStandingIsSure(ctx, { ...asked, target });
    if (!isInvite) return await createMembershipEvent(ctx, { roomId, sender, target, content });
    await inviteUser(ctx, { roomId, sender, target, content });
    return await standing(ctx, roomId, target);
  }
  switch (membership) {
    case "join":
      if ((await membershipOf(ctx.database.pool, roomId, sender))?.membership === "join") break;
      return (await joinRoom(ctx, { roomId, userId: sender, via: [], content })).eventId;
    case "knock":
      await knockOnRoom(ctx, { roomId, userId: sender, via: [], content });
      return await standing(ctx, roomId, target);
    case "leave":
      await leaveRoom(ctx, { roomId, userId: sender, ...reason });
      return await standing(ctx, roomId, target);
    default:
  }
  const event = await createEvent(ctx, { roomId, sender, type: "m.room.member", stateKey: target, content });
  return event.eventId;
}

/** Clients copy what stood there; but nobody vouches for this event, and without that signature others drop it. */
function unvouched({ join_authorised_via_users_server: _vouching, ...content }: JsonObject): JsonObject {
  return content;
}

/** The event that says how the user stands to the room now. */
async function standing(ctx: RoomsContext, roomId: RoomId, userId: UserId): Promise<EventId> {
  const { pool } = ctx.database;
  const changes = await localMembershipsAt(pool, userId, await currentStreamPosition(pool));
  const latest = changes.find((one) => one.roomId === roomId) ?? (await membershipOf(pool, roomId, userId));
  if (latest === undefined) throw new MatrixError(404, "M_NOT_FOUND", `${userId} is not in room ${roomId}`);
  return latest.eventId;
}

import { FederationFailure } from "../../federation-client/failures.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { Event } from "../../matrix/event.ts";
import { serverNameOf, type EventId, type RoomId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { transaction } from "../../storage/database.ts";
import { insertOutliers, loadEvent } from "../../storage/events.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import {
  appendLocalMembership,
  currentStreamPosition,
  localMembershipsAt,
  takeStreamPositions,
} from "../../storage/streams.ts";
import { completeTemplate, rulesOfTemplate, type Fail, type MembershipRequest } from "./complete-template.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";

export interface RoomToLeave {
  readonly userId: UserId;
  readonly roomId: RoomId;
  readonly reason?: string;
}

/**
 * Takes one of our users out of a room, or declines an invitation. Never waits for a full state: a leave is allowed by
 * the user's own membership, which we know.
 *
 * @throws MatrixError `M_NOT_FOUND` where the user has nothing to leave
 */
export async function leaveRoom(ctx: RoomsContext, request: RoomToLeave): Promise<void> {
  const { userId, roomId } = request;
  const { pool } = ctx.database;
  const current = await membershipOf(pool, roomId, userId);
  const content = { membership: "leave", ...(request.reason === undefined ? {} : { reason: request.reason }) };
  if (current !== undefined && current.membership !== "leave" && current.membership !== "ban") {
    await createEvent(ctx, { roomId, sender: userId, type: "m.room.member", stateKey: userId, content });
    await wakeResync(ctx, roomId);
    return;
  }
  const memberships = await localMembershipsAt(pool, userId, await currentStreamPosition(pool));
  const latest = memberships.find((one) => one.roomId === roomId);
  if (latest?.membership !== "invite" && latest?.membership !== "knock") {
    throw new MatrixError(404, "M_NOT_FOUND", `${userId} is not in room ${roomId}`);
  }
  await leaveFromOutside(ctx, request, latest.eventId, content);
}

/** A resync that waits for its servers would notice only later that nobody is left. */
async function wakeResync(ctx: RoomsContext, roomId: RoomId): Promise<void> {
  if ((await partialRoom(ctx.database.pool, roomId)) === undefined) return;
  try {
    await ctx.resyncs.wake(roomId);
  } catch (error) {
    ctx.logger.warn({ err: error, roomId }, "the resync could not be told of a leave");
  }
}

/**
 * Declines an invitation to a room that we are not in, by a handshake with the inviter's server. Where that server is
 * gone, the user is still rid of the invitation.
 */
async function leaveFromOutside(
  ctx: RoomsContext,
  { userId, roomId }: RoomToLeave,
  invitationId: EventId,
  content: JsonObject,
): Promise<void> {
  const invitation = await loadEvent(ctx.database.pool, invitationId);
  const server = invitation === undefined ? undefined : serverNameOf(invitation.pdu.sender);
  const leave = server === undefined ? undefined : await handshake(ctx, server, { roomId, userId, content });
  await transaction(ctx.database, async (tx) => {
    if (leave !== undefined) await insertOutliers(tx, [{ event: leave, rejection: null }]);
    const streamId = await takeStreamPositions(tx, 1);
    const eventId = leave?.eventId ?? invitationId;
    await appendLocalMembership(tx, { streamId, userId, roomId, membership: "leave", eventId });
  });
}

async function handshake(
  ctx: RoomsContext,
  server: ServerName,
  request: MembershipRequest,
): Promise<Event | undefined> {
  try {
    const event = await leaveEvent(ctx, server, request);
    await ctx.federation.sendLeave(server, { roomId: request.roomId, eventId: event.eventId, pdu: event.pdu });
    return event;
  } catch (error) {
    if (!(error instanceof FederationFailure)) throw error;
    ctx.logger.warn({ err: error, roomId: request.roomId }, "the inviting server could not be told of a refusal");
    return undefined;
  }
}

async function leaveEvent(ctx: RoomsContext, server: ServerName, request: MembershipRequest): Promise<Event> {
  const { roomId, userId, content } = request;
  const template = await ctx.federation.makeLeave(server, { roomId, userId });
  const fail: Fail = (reason) => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its make_leave template ${reason}` });
  };
  return completeTemplate(ctx, template.event, { rules: rulesOfTemplate(template, request, fail), content, fail });
}

import { FederationFailure } from "../federation-client/failures.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { Event, Pdu } from "../matrix/event.ts";
import { parsePdu } from "../matrix/event-format.ts";
import { serverNameOf, type EventId, type RoomId, type ServerName, type UserId } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";
import { rulesOf } from "../matrix/room-versions.ts";
import { hashAndSignEvent } from "../matrix/signatures.ts";
import { transaction } from "../storage/database.ts";
import { insertOutliers, loadEvent } from "../storage/events.ts";
import { membershipOf } from "../storage/memberships.ts";
import {
  appendLocalMembership,
  currentStreamPosition,
  localMembershipsAt,
  takeStreamPositions,
} from "../storage/streams.ts";
import { randomBytes } from "node:crypto";
import type { RoomsContext } from "./context.ts";
import { createEvent } from "./create-event.ts";

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
    return;
  }
  const memberships = await localMembershipsAt(pool, userId, await currentStreamPosition(pool));
  const latest = memberships.find((one) => one.roomId === roomId);
  if (latest?.membership !== "invite" && latest?.membership !== "knock") {
    throw new MatrixError(404, "M_NOT_FOUND", `${userId} is not in room ${roomId}`);
  }
  await leaveFromOutside(ctx, request, latest.eventId, content);
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

interface LeaveRequest {
  readonly roomId: RoomId;
  readonly userId: UserId;
  readonly content: JsonObject;
}

async function handshake(ctx: RoomsContext, server: ServerName, request: LeaveRequest): Promise<Event | undefined> {
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

async function leaveEvent(ctx: RoomsContext, server: ServerName, request: LeaveRequest): Promise<Event> {
  const { roomId, userId, content } = request;
  const template = await ctx.federation.makeLeave(server, { roomId, userId });
  const fail = (reason: string): never => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its make_leave template ${reason}` });
  };
  const rules = rulesOf(template.room_version ?? "1") ?? fail("is of an unknown room version");
  const { event } = template;
  if (event["type"] !== "m.room.member" || event["room_id"] !== roomId) fail("is not about the room");
  if (event["sender"] !== userId || event["state_key"] !== userId) fail("is of another user");
  const { hashes: _hashes, signatures: _signatures, event_id: _id, ...proposed } = event;
  const draft = {
    ...proposed,
    ...(rules.eventIdFormat === "chosen-by-sender"
      ? { event_id: `$${randomBytes(18).toString("base64url")}:${ctx.serverName}` }
      : {}),
    content,
    origin: ctx.serverName,
    origin_server_ts: ctx.now(),
  } as JsonObject as Pdu;
  const verdict = parsePdu(hashAndSignEvent(draft, ctx.serverName, ctx.signingKey, rules), rules);
  return verdict.ok ? verdict.event : fail(`is malformed: ${verdict.reason}`);
}

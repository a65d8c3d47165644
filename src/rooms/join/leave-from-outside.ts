import { FederationFailure } from "../../federation-client/failures.ts";
import { serverNameOf, type EventId, type ServerName } from "../../matrix/identifiers.ts";
import { insertOutliers, loadEvent } from "../../storage/events.ts";
import { serversThatToldOf } from "../../storage/invites.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { lockRoom } from "../../storage/rooms.ts";
import { appendLocalMembership, takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { atStep, commit } from "../failpoints.ts";
import type { VerifiedEvent } from "../events/verify-pdus.ts";
import { receiveVerifiedEvent } from "../receive/receive-pdu.ts";
import { completeTemplate, rulesOfTemplate, type Fail, type MembershipRequest } from "./complete-template.ts";

/** More servers than this are not told: each may take its time, and the user waits. */
const MAX_ATTEMPTS = 3;

/**
 * Declines an invitation to a room that we are not in, or takes a knock back, by a handshake with the inviter's server
 * or with one that the knock went through. Where none can be told, the user is still rid of it.
 *
 * @param membershipId the invitation, or the knock
 * @see https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites
 */
export async function leaveFromOutside(
  ctx: RoomsContext,
  request: MembershipRequest,
  membershipId: EventId,
): Promise<void> {
  const { roomId, userId } = request;
  const told = await tellOneOf(ctx, request, await serversToTell(ctx, membershipId));
  const hasJoined = await commit(ctx, "store a leave from outside", async (tx) => {
    await lockRoom(tx, roomId);
    if ((await membershipOf(tx, roomId, userId))?.membership === "join") return true;
    if (told !== undefined) await insertOutliers(tx, [{ event: told.event, rejection: null }]);
    const streamId = await takeStreamPositions(tx, 1);
    const eventId = told?.event.eventId ?? membershipId;
    await appendLocalMembership(tx, { streamId, userId, roomId, membership: "leave", eventId });
    return false;
  });
  // The user has joined meanwhile, by another client: which of both counts, the room's events say.
  if (hasJoined && told !== undefined) await receiveVerifiedEvent(ctx, told);
}

/** Whoever invited is in the room; those that took a knock were. */
async function serversToTell(ctx: RoomsContext, membershipId: EventId): Promise<readonly ServerName[]> {
  const { pool } = ctx.database;
  const membership = await loadEvent(pool, membershipId);
  const sender = membership === undefined ? undefined : serverNameOf(membership.pdu.sender);
  const servers = new Set([
    ...(sender === undefined ? [] : [sender]),
    ...(await serversThatToldOf(pool, membershipId)),
  ]);
  servers.delete(ctx.serverName);
  return [...servers].slice(0, MAX_ATTEMPTS);
}

async function tellOneOf(
  ctx: RoomsContext,
  request: MembershipRequest,
  servers: readonly ServerName[],
): Promise<VerifiedEvent | undefined> {
  for (const server of servers) {
    const told = await handshake(ctx, server, request);
    if (told !== undefined) return told;
  }
  return undefined;
}

async function handshake(
  ctx: RoomsContext,
  server: ServerName,
  request: MembershipRequest,
): Promise<VerifiedEvent | undefined> {
  try {
    const { event, rules } = await leaveEvent(ctx, server, request);
    const leave = { roomId: request.roomId, eventId: event.eventId, pdu: event.pdu };
    await atStep(ctx, "send a leave", () => ctx.federation.sendLeave(server, leave));
    return { origin: server, event, rules };
  } catch (error) {
    if (!(error instanceof FederationFailure)) throw error;
    ctx.logger.warn({ err: error, roomId: request.roomId }, "a server could not be told that a user does not come");
    return undefined;
  }
}

async function leaveEvent(
  ctx: RoomsContext,
  server: ServerName,
  request: MembershipRequest,
): Promise<Pick<VerifiedEvent, "event" | "rules">> {
  const { roomId, userId, content } = request;
  const template = await ctx.federation.makeLeave(server, { roomId, userId });
  const fail: Fail = (reason) => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its make_leave template ${reason}` });
  };
  const rules = rulesOfTemplate(template, request, fail);
  return { event: completeTemplate(ctx, template.event, { rules, content, fail }), rules };
}

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { FederationFailure } from "../../federation-client/failures.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId, RoomId, ServerName, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { beginJoin, endJoin, type JoinUnderWay } from "../../storage/joins-under-way.ts";
import { localJoinedUsers, membershipOf } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { PrevEventsMissing } from "../events/accept-event.ts";
import type { MembershipRequest } from "./complete-template.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";
import { atStep } from "../failpoints.ts";
import { handshakeFailed, makeJoin, mayFailOverMakeJoin, mayFailOverSendJoin, type JoinTemplate } from "./make-join.ts";
import { authorisingUserFor } from "../serve/restricted-join.ts";
import { servedRoom } from "../serve/served-room.ts";
import { receiveKeptPdus, receiveVerifiedEvent } from "../receive/receive-pdu.ts";
import { fillGapBeforeJoin } from "./fill-gap-before-join.ts";
import { sendJoin, type JoinAnswer } from "./send-join.ts";
import { serversToAsk } from "./servers-to-ask.ts";
import { storeJoin, type JoinStored } from "./store-join.ts";

export interface RoomToJoin {
  readonly userId: UserId;
  readonly roomId: RoomId;
  /** Servers to join by, in the order of preference. */
  readonly via: readonly ServerName[];
  /** Further keys of the membership's content: `displayname`, `avatar_url`, `reason`. */
  readonly content?: JsonObject;
}

/** A client waits about so long; then its join is told failed, although it may still come to be. */
const PAST_KNOWN_WITHIN_MS = 30_000;
const LOOK_AGAIN_MS = 50;

export interface RoomJoined {
  readonly roomId: RoomId;
  readonly eventId: EventId;
  /** The room's full state is still being fetched. */
  readonly partial: boolean;
}

/**
 * Joins one of our users to a room: locally where we know the room in full and its rules let us, else by a handshake
 * with a resident server, which answers without the members. A second local user of a partial room goes through the
 * handshake too, so that a ban which we can't see is honored.
 *
 * @throws MatrixError
 */
export async function joinRoom(ctx: RoomsContext, request: RoomToJoin): Promise<RoomJoined> {
  const { pool } = ctx.database;
  const { roomId, userId } = request;
  const own = await membershipOf(pool, roomId, userId);
  const partial = (await partialRoom(pool, roomId)) !== undefined;
  if (own?.membership === "join") return { roomId, eventId: own.eventId, partial };
  const weAreIn = (await localJoinedUsers(pool, roomId, ctx.serverName)).length > 0;
  if (weAreIn && !partial) {
    const joined = await joinLocally(ctx, request);
    if (joined !== undefined) return joined;
  }
  return await joinByHandshake(ctx, request, await serversToAsk(ctx, request));
}

/** Undefined where only another server can let the user in: into a restricted room for which none of ours can vouch. */
async function joinLocally(ctx: RoomsContext, request: RoomToJoin): Promise<RoomJoined | undefined> {
  const { roomId, userId } = request;
  try {
    const voucher = await authorisingUserFor(ctx, await servedRoom(ctx, roomId), userId);
    const vouched = voucher === undefined ? {} : { join_authorised_via_users_server: voucher };
    const event = await createEvent(ctx, {
      roomId,
      sender: userId,
      type: "m.room.member",
      stateKey: userId,
      content: { ...request.content, ...vouched, membership: "join" },
    });
    return { roomId, eventId: event.eventId, partial: false };
  } catch (error) {
    const otherMayKnow = error instanceof MatrixError && (error.status === 403 || error.status === 400);
    if (otherMayKnow && request.via.length > 0) return undefined;
    throw error;
  }
}

async function joinByHandshake(
  ctx: RoomsContext,
  request: RoomToJoin,
  servers: readonly ServerName[],
): Promise<RoomJoined> {
  const { roomId, userId } = request;
  const underWay: JoinUnderWay = { roomId, userId, attempt: randomUUID() };
  try {
    const join = { ...underWay, content: request.content ?? {} };
    const { answer, stored } = await shakeHands(ctx, join, servers);
    const { eventId } = answer.join;
    if (stored.kind === "entered" && stored.partial) await startResync(ctx, roomId, eventId);
    // Not waited for: the user is in the room.
    if (stored.kind === "joined-too") void fillGapBeforeJoin(ctx, answer);
    return { roomId, eventId, partial: stored.partial };
  } finally {
    await atStep(ctx, "end the note of a join", () => endJoin(ctx.database.pool, underWay));
    // Not waited for: their past may have to be fetched from slow servers.
    void receiveKeptPdus(ctx, roomId);
  }
}

interface HandsShaken {
  readonly answer: JoinAnswer;
  readonly stored: JoinStored;
}

/** make_join and send_join at one server after the other, until one of them lets us in or refuses for good. */
async function shakeHands(
  ctx: RoomsContext,
  request: MembershipRequest & JoinUnderWay,
  servers: readonly ServerName[],
): Promise<HandsShaken> {
  const { roomId } = request;
  const failures: FederationFailure[] = [];
  for (const server of servers) {
    // From here on, PDUs of the room are kept: the resident may send them before its answer is stored.
    await atStep(ctx, "note a join as under way", () => beginJoin(ctx.database.pool, { ...request, since: ctx.now() }));
    const template = await attempt(() => makeJoin(ctx, server, request), failures);
    if (template === undefined) {
      if (!mayFailOverMakeJoin(failures.at(-1) as FederationFailure)) break;
      continue;
    }
    const shaken = await attempt(() => sendAndStore(ctx, directed(template), request), failures);
    if (shaken !== undefined) return shaken;
    if (!mayFailOverSendJoin(failures.at(-1) as FederationFailure)) break;
  }
  for (const failure of failures) ctx.logger.info({ roomId, err: failure }, "a join attempt failed");
  throw handshakeFailed("join", roomId, failures);
}

async function sendAndStore(
  ctx: RoomsContext,
  template: JoinTemplate,
  request: MembershipRequest,
): Promise<HandsShaken> {
  const answer = await sendJoin(ctx, template, request);
  return { answer, stored: await storeAnswer(ctx, answer) };
}

/** A restricted join is sent to the server of the user who authorises it, and to no other. */
function directed(template: JoinTemplate): JoinTemplate {
  return template.authorisedVia === undefined ? template : { ...template, server: template.authorisedVia };
}

async function attempt<T>(step: () => Promise<T>, failures: FederationFailure[]): Promise<T | undefined> {
  try {
    return await step();
  } catch (error) {
    if (!(error instanceof FederationFailure)) throw error;
    failures.push(error);
    return undefined;
  }
}

async function storeAnswer(ctx: RoomsContext, answer: JoinAnswer): Promise<JoinStored> {
  try {
    return await storeJoin(ctx, answer);
  } catch (error) {
    if (!(error instanceof PrevEventsMissing)) throw error;
    await receiveOwnJoin(ctx, answer);
    return { kind: "joined-too", partial: false };
  }
}

/**
 * We know the room in full but not what the resident built the join on: it is received like any event. What it builds
 * on may have to be fetched from slow servers; the user is told when they are in.
 */
async function receiveOwnJoin(ctx: RoomsContext, { server, join, rules }: JoinAnswer): Promise<void> {
  const received = await receiveVerifiedEvent(ctx, { origin: server, event: join, rules });
  if (received.kind === "stored") {
    const { rejection, softFailed } = received.event;
    if (rejection === null && !softFailed) return;
    const reason = `what we know of the room refuses the join that it completed: ${rejection ?? "soft-failed"}`;
    throw new FederationFailure({ kind: "bad-response", server, reason });
  }
  const { roomId, pdu } = join;
  const deadline = performance.now() + PAST_KNOWN_WITHIN_MS;
  while ((await membershipOf(ctx.database.pool, roomId, pdu.sender))?.membership !== "join") {
    if (performance.now() > deadline) {
      throw new MatrixError(
        504,
        "M_UNKNOWN",
        `${server} has let you in, but nobody tells yet what ${roomId} was before`,
      );
    }
    await sleep(LOOK_AGAIN_MS);
  }
}

/** Temporal being away must not fail a join: the reconciler starts the resync as soon as it is back. */
async function startResync(ctx: RoomsContext, roomId: RoomId, joinEventId: EventId): Promise<void> {
  try {
    await atStep(ctx, "start a resync", () => ctx.resyncs.start(roomId, joinEventId));
  } catch (error) {
    ctx.logger.error({ err: error, roomId, joinEventId }, "the resync could not be started yet; it will be");
  }
}

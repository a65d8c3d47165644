import { FederationFailure } from "../../federation-client/failures.ts";
import type { Event } from "../../matrix/event.ts";
import type { RoomId, ServerName, UserId } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import { ROOM_VERSIONS, type RoomVersionRules } from "../../matrix/room-versions.ts";
import { insertOutliers } from "../../storage/events.ts";
import { storeInviteRoomState } from "../../storage/invites.ts";
import { localJoinedUsers } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { insertOrCorrectRoom } from "../../storage/rooms.ts";
import {
  appendLocalMembership,
  currentStreamPosition,
  localMembershipChanges,
  takeStreamPositions,
} from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { atStep, commit } from "../failpoints.ts";
import { createEvent } from "../events/create-event.ts";
import { strippedStateOf } from "../read/stripped-state.ts";
import { receiveVerifiedEvent } from "../receive/receive-pdu.ts";
import { completeTemplate, rulesOfTemplate, type Fail, type MembershipRequest } from "./complete-template.ts";
import { handshakeFailed, mayFailOverMakeJoin } from "./make-join.ts";
import { serversToAsk } from "./servers-to-ask.ts";

export interface RoomToKnockOn {
  readonly userId: UserId;
  readonly roomId: RoomId;
  /** Servers to knock at, in the order of preference. */
  readonly via: readonly ServerName[];
  /** Further keys of the membership's content: `displayname`, `avatar_url`, `reason`. */
  readonly content?: JsonObject;
}

/** A knock that a resident server has taken into the room. */
interface TakenKnock {
  readonly server: ServerName;
  readonly rules: RoomVersionRules;
  readonly event: Event;
  /** What the server tells of the room, as it came. */
  readonly roomState: readonly JsonValue[];
}

/**
 * Knocks on a room for one of our users: locally where we know the room in full, else by a handshake with a resident
 * server, also in a room that we know in part, since we may lack the user's ban.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#knocking-on-rooms
 * @throws MatrixError 403 M_FORBIDDEN where the room does not let the user knock
 */
export async function knockOnRoom(ctx: RoomsContext, request: RoomToKnockOn): Promise<void> {
  const { roomId, userId } = request;
  const { pool } = ctx.database;
  const content: JsonObject = { ...request.content, membership: "knock" };
  const weAreIn = (await localJoinedUsers(pool, roomId, ctx.serverName)).length > 0;
  if (weAreIn && (await partialRoom(pool, roomId)) === undefined) {
    await createEvent(ctx, { roomId, sender: userId, type: "m.room.member", stateKey: userId, content });
    return;
  }
  const servers = await serversToAsk(ctx, request);
  const since = await currentStreamPosition(pool);
  const taken = await knockAtOneOf(ctx, { roomId, userId, content }, servers);
  if (weAreIn) {
    const { server: origin, event, rules } = taken;
    await receiveVerifiedEvent(ctx, { origin, event, rules });
  } else {
    await storeKnock(ctx, taken, { servers, since });
  }
}

async function knockAtOneOf(
  ctx: RoomsContext,
  request: MembershipRequest,
  servers: readonly ServerName[],
): Promise<TakenKnock> {
  const failures: FederationFailure[] = [];
  for (const server of servers) {
    try {
      return await knockAt(ctx, server, request);
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      ctx.logger.info({ roomId: request.roomId, err: error }, "an attempt to knock failed");
      failures.push(error);
      if (!mayFailOverMakeJoin(error)) break;
    }
  }
  throw handshakeFailed("knock on", request.roomId, failures);
}

/**
 * @see https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room
 * @throws FederationFailure; a template that is not about what was asked is a `bad-response`
 */
async function knockAt(ctx: RoomsContext, server: ServerName, request: MembershipRequest): Promise<TakenKnock> {
  const { roomId, userId, content } = request;
  const options = { ignoreBackOff: true };
  const template = await ctx.federation.makeKnock(server, { roomId, userId, versions: ROOM_VERSIONS }, options);
  const fail: Fail = (reason) => {
    throw new FederationFailure({ kind: "bad-response", server, reason: `its make_knock template ${reason}` });
  };
  const rules = rulesOfTemplate(template, request, fail);
  const proposed = template.event["content"];
  if (!isJsonObject(proposed) || proposed["membership"] !== "knock") fail("does not knock");
  const event = completeTemplate(ctx, template.event, { rules, content, fail });
  const { eventId, pdu } = event;
  const roomState = await atStep(ctx, "send a knock", () =>
    ctx.federation.sendKnock(server, { roomId, eventId, pdu }, options),
  );
  return { server, rules, event, roomState };
}

/** Of a room that we are not in: the knock and what we were told, for the user to see and to take back. */
async function storeKnock(
  ctx: RoomsContext,
  { server, rules, event, roomState }: TakenKnock,
  { servers, since }: { readonly servers: readonly ServerName[]; readonly since: bigint },
): Promise<void> {
  const { eventId, roomId, pdu } = event;
  const userId = pdu.sender;
  await commit(ctx, "store a knock", async (tx) => {
    await insertOrCorrectRoom(tx, { roomId, roomVersion: rules.version });
    await insertOutliers(tx, [{ event, rejection: null }]);
    await storeInviteRoomState(tx, eventId, {
      strippedState: strippedStateOf(roomState),
      toldBy: [...new Set([server, ...servers])],
    });
    const streamId = await takeStreamPositions(tx, 1);
    // The room may have answered before its server did: who is invited or in it by now knocks no more.
    const meanwhile = await localMembershipChanges(tx, userId, { from: since, to: streamId });
    if (meanwhile.some((one) => one.roomId === roomId)) return;
    await appendLocalMembership(tx, { streamId, userId, roomId, membership: "knock", eventId });
  });
}

import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import { contentHashMatches } from "../../matrix/hashes.ts";
import { isUserId, serverNameOf } from "../../matrix/identifiers.ts";
import type { EventId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../matrix/json.ts";
import { rulesOf, type RoomVersionRules } from "../../matrix/room-versions.ts";
import { signEvent } from "../../matrix/signatures.ts";
import { storeInviteRoomState } from "../../storage/invites.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { insertOrCorrectRoom, loadRoom, type RoomRow } from "../../storage/rooms.ts";
import { appendLocalMembership, takeStreamPositions } from "../../storage/streams.ts";
import { askIfUnknown } from "../appservices/ask-services.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { isServerAllowedInState } from "../events/server-acl.ts";
import { weAreInRoom, type RoomQuestion } from "./served-room.ts";
import { storeUntoldMembership } from "../events/store-untold-membership.ts";
import { verifyPdus } from "../events/verify-pdus.ts";
import { strippedStateOf } from "../read/stripped-state.ts";

interface Invitation extends RoomQuestion {
  readonly eventId: EventId;
  readonly roomVersion: string;
  readonly pdu: JsonObject;
  /** Events that tell what room it is: stripped, or (room version 12) whole. */
  readonly inviteRoomState: readonly JsonValue[];
}

/**
 * Checks an invitation of one of our users, signs it and, where we are not in the room ourselves, stores it for the
 * user to answer. Where we are, the event comes back to us through the room.
 *
 * @returns the event with our signature
 * @throws MatrixError 400 M_INCOMPATIBLE_ROOM_VERSION, 400 M_BAD_JSON, 403 M_FORBIDDEN
 * @see https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room
 */
export async function serveInvite(ctx: RoomsContext, invitation: Invitation): Promise<Pdu> {
  const rules = rulesOf(invitation.roomVersion);
  if (rules === undefined) {
    const message = `Room version ${invitation.roomVersion} is not supported`;
    const extra = { room_version: invitation.roomVersion };
    throw new MatrixError(400, "M_INCOMPATIBLE_ROOM_VERSION", message, extra);
  }
  const room = await loadRoom(ctx.database.pool, invitation.roomId);
  requireSameVersion(room, rules);
  if (!(await isServerAllowedInState(ctx, room?.currentSnapshotId ?? null, invitation.origin))) {
    throw forbidden(`the room's access control list denies ${invitation.origin}`);
  }
  const { event, invited } = await readInvite(ctx, invitation, rules);
  requireRoomState(invitation, rules);
  await askIfUnknown(ctx, invited);
  const signed: Event = { ...event, pdu: signEvent(event.pdu, ctx.serverName, ctx.signingKey, rules) };
  if (await weAreInRoom(ctx, event.roomId)) {
    const member = await membershipOf(ctx.database.pool, event.roomId, invited);
    if (member?.membership === "join") throw forbidden(`${invited} is in the room`);
    if (member?.membership === "ban") throw forbidden(`${invited} is banned from the room`);
  } else {
    await storeInvite(ctx, { event: signed, invited, rules, inviteRoomState: invitation.inviteRoomState });
  }
  return signed.pdu;
}

/** A room that we have state of has the version that its create event says, whatever an invitation claims. */
function requireSameVersion(room: RoomRow | undefined, rules: RoomVersionRules): void {
  if (room === undefined || room.currentSnapshotId === null) return;
  const formatOf = rulesOf(room.roomVersion)?.eventIdFormat;
  if (room.roomVersion === rules.version) return;
  // Version 1 of the endpoint does not say which of both room versions it is.
  if (formatOf === "chosen-by-sender" && rules.eventIdFormat === "chosen-by-sender") return;
  throw new MatrixError(400, "M_INVALID_PARAM", `The room has version ${room.roomVersion}, not ${rules.version}`);
}

async function readInvite(
  ctx: RoomsContext,
  { roomId, eventId, pdu, origin }: Invitation,
  rules: RoomVersionRules,
): Promise<{ readonly event: Event; readonly invited: UserId }> {
  const verdict = parsePdu(pdu, rules);
  if (!verdict.ok) throw badInvite(verdict.reason);
  const { event } = verdict;
  const { type, content, state_key: invited, sender } = event.pdu;
  if (event.roomId !== roomId) throw badInvite(`it belongs to room ${event.roomId}`);
  if (event.eventId !== eventId) throw badInvite(`its id is ${event.eventId}, the path says ${eventId}`);
  if (type !== "m.room.member" || content["membership"] !== "invite") throw badInvite("it is not an invite");
  if (!isUserId(invited) || serverNameOf(invited) !== ctx.serverName) {
    throw badInvite(`${String(invited)} is not a user of this server`);
  }
  if (serverNameOf(sender) !== origin) throw forbidden(`${sender} is not a user of ${origin}`);
  if (!contentHashMatches(event.pdu, rules)) throw badInvite("its content hash is wrong");
  const { dropped } = await verifyPdus(ctx, { roomId, rules, pdus: [pdu] });
  if (dropped[0] !== undefined) throw forbidden(dropped[0].reason);
  return { event, invited };
}

/**
 * Since specification 1.16 the room is described by whole events, its create event among them, which from room version
 * 12 on proves the room's id. Other events are only shown to the user, so their signatures are not worth asking for
 * keys. To older room versions servers still send stripped events.
 *
 * @throws MatrixError 400 M_MISSING_PARAM, 400 M_INVALID_PARAM
 */
function requireRoomState({ roomId, inviteRoomState }: Invitation, rules: RoomVersionRules): void {
  if (!rules.roomIdIsCreateEventHash) return;
  const verdicts = inviteRoomState.map((entry) => parsePdu(entry, rules));
  const events = verdicts.flatMap((verdict) => (verdict.ok && verdict.event.roomId === roomId ? [verdict.event] : []));
  if (events.length < verdicts.length) {
    throw new MatrixError(400, "M_INVALID_PARAM", "invite_room_state holds something else than events of the room");
  }
  if (!events.some(({ pdu }) => pdu.type === "m.room.create" && pdu.state_key === "")) {
    throw new MatrixError(400, "M_MISSING_PARAM", "invite_room_state lacks the create event");
  }
}

interface AcceptedInvite {
  readonly event: Event;
  readonly invited: UserId;
  readonly rules: RoomVersionRules;
  readonly inviteRoomState: readonly JsonValue[];
}

async function storeInvite(ctx: RoomsContext, invite: AcceptedInvite): Promise<void> {
  const { event, invited, rules } = invite;
  await commit(ctx, "store an invitation", async (tx) => {
    await insertOrCorrectRoom(tx, { roomId: event.roomId, roomVersion: rules.version });
    if (!(await storeUntoldMembership(tx, event, invited))) return;
    const inviter = serverNameOf(event.pdu.sender);
    await storeInviteRoomState(tx, event.eventId, {
      strippedState: strippedStateOf(invite.inviteRoomState),
      toldBy: inviter === undefined ? [] : [inviter],
    });
    await appendLocalMembership(tx, {
      streamId: await takeStreamPositions(tx, 1),
      userId: invited,
      roomId: event.roomId,
      membership: "invite",
      eventId: event.eventId,
    });
  });
}

function badInvite(reason: string): MatrixError {
  return new MatrixError(400, "M_BAD_JSON", `The invitation is not acceptable: ${reason}`);
}

function forbidden(reason: string): MatrixError {
  return new MatrixError(403, "M_FORBIDDEN", `The invitation is refused: ${reason}`);
}

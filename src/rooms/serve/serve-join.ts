import type { MembershipTemplate } from "../../federation-api/endpoints.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { isUserId, serverNameOf } from "../../matrix/identifiers.ts";
import type { EventId, ServerName, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { signEvent } from "../../matrix/signatures.ts";
import { splitStateKey, stateEntries, stateGet } from "../../matrix/state.ts";
import type { StateMap } from "../../matrix/state.ts";
import { authChainIds } from "../../storage/auth-chains.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { loadState, snapshotMembers } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { authorisingUserFor } from "./restricted-join.ts";
import {
  acceptSentMembership,
  membershipTemplate,
  readSentMembership,
  type SentMembership,
} from "./serve-membership.ts";
import { pduTexts, type PduTexts } from "./serve-pdus.ts";
import { requireUserOf, residentRoom, type RoomQuestion, type ServedRoom } from "./served-room.ts";

interface MakeJoinQuestion extends RoomQuestion {
  readonly userId: UserId;
  /** The room versions that the asking server supports. */
  readonly versions: readonly string[];
}

/**
 * A join event for another server's user to complete and sign.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403 M_FORBIDDEN, 400 M_INCOMPATIBLE_ROOM_VERSION,
 *   400 M_UNABLE_TO_AUTHORISE_JOIN, 400 M_UNABLE_TO_GRANT_JOIN
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid
 */
export async function serveMakeJoin(
  ctx: RoomsContext,
  question: MakeJoinQuestion,
): Promise<MembershipTemplate & JsonObject> {
  const { userId } = question;
  requireUserOf(question.origin, userId);
  const room = await residentRoom(ctx, question);
  requireVersion(room, question.versions);
  const authorising = await authorisingUserFor(ctx, room, userId);
  const vouched = authorising === undefined ? {} : { join_authorised_via_users_server: authorising };
  return await membershipTemplate(ctx, room, { userId, content: { membership: "join", ...vouched } });
}

/** @throws MatrixError 400 M_INCOMPATIBLE_ROOM_VERSION */
export function requireVersion(room: ServedRoom, versions: readonly string[]): void {
  const { version } = room.rules;
  if (versions.includes(version)) return;
  const message = `The room's version ${version} is none that the joining server supports`;
  throw new MatrixError(400, "M_INCOMPATIBLE_ROOM_VERSION", message, { room_version: version });
}

interface SentJoin extends SentMembership {
  /** The joining server can do without the members for now. */
  readonly omitMembers: boolean;
}

interface JoinedRoom {
  /** As it went into the room: with our signature, where one of our users vouches for the join. */
  readonly event: Pdu;
  /** Before the join. */
  readonly state: PduTexts;
  readonly authChain: PduTexts;
  /** Some members were left out of `state`. */
  readonly membersOmitted: boolean;
  /** Servers with joined members before the join. */
  readonly serversInRoom: readonly ServerName[];
}

/**
 * Takes a join into the room and tells the joining server the room's state before it.
 *
 * @throws MatrixError as {@link serveMakeJoin}, and 400 M_BAD_JSON
 * @see https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid
 */
export async function serveSendJoin(ctx: RoomsContext, sent: SentJoin): Promise<JoinedRoom> {
  const room = await residentRoom(ctx, sent);
  const event = await vouchFor(ctx, room, readSentMembership(room, sent, "join"));
  const serversInRoom = await joinedServers(ctx.database.pool, room.roomId);
  const stored = await acceptSentMembership(ctx, room, { event, origin: sent.origin });
  return { ...(await stateForJoiner(ctx, room, stored, sent.omitMembers)), event: stored.pdu, serversInRoom };
}

/** Signs a join that one of our users vouches for, if the reason to do so still holds. */
async function vouchFor(ctx: RoomsContext, room: ServedRoom, event: Event): Promise<Event> {
  const authorising = event.pdu.content["join_authorised_via_users_server"];
  if (!room.rules.restrictedJoins || !isUserId(authorising)) return event;
  if (serverNameOf(authorising) !== ctx.serverName) return event;
  await authorisingUserFor(ctx, room, event.pdu.sender);
  return { ...event, pdu: signEvent(event.pdu, ctx.serverName, ctx.signingKey, room.rules) };
}

async function stateForJoiner(
  ctx: RoomsContext,
  room: ServedRoom,
  join: StoredEvent,
  omitMembers: boolean,
): Promise<Pick<JoinedRoom, "state" | "authChain" | "membersOmitted">> {
  if (join.stateBefore === null) throw new Error(`the join ${join.eventId} has no state before it`);
  const before = await loadState(ctx.database, join.stateBefore);
  const stateIds = omitMembers ? await withoutMembers(ctx, join, before) : allIds(before);
  const chain = await authChainIds(ctx.database.pool, [...stateIds, join.eventId]);
  // Who leaves members out wants a small answer; others may take the auth chain for complete.
  const inState = new Set(omitMembers ? stateIds : []);
  return {
    state: pduTexts(ctx, room, stateIds),
    authChain: pduTexts(
      ctx,
      room,
      chain.filter((id) => !inState.has(id)),
    ),
    membersOmitted: stateIds.length < before.size,
  };
}

function allIds(state: StateMap): readonly EventId[] {
  return Array.from(stateEntries(state), ([, eventId]) => eventId);
}

async function withoutMembers(ctx: RoomsContext, join: StoredEvent, before: StateMap): Promise<readonly EventId[]> {
  const kept: EventId[] = [];
  for (const [key, eventId] of stateEntries(before)) {
    if (splitStateKey(key)[0] !== "m.room.member") kept.push(eventId);
  }
  return (await hasName(ctx, before)) ? kept : [...kept, ...(await heroes(ctx, join))];
}

/** Whether clients can name the room without knowing who is in it. */
async function hasName(ctx: RoomsContext, state: StateMap): Promise<boolean> {
  const nameId = stateGet(state, "m.room.name", "");
  const aliasId = stateGet(state, "m.room.canonical_alias", "");
  const ids = [nameId, aliasId].filter((id) => id !== undefined);
  const contents = [...(await loadEvents(ctx.database.pool, ids)).values()].map((event) => event.pdu.content);
  return contents.some(({ name, alias }) => isText(name) || isText(alias));
}

function isText(value: unknown): boolean {
  return typeof value === "string" && value !== "";
}

const MAX_HEROES = 5;

/** @see https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-room */
async function heroes(ctx: RoomsContext, join: StoredEvent): Promise<readonly EventId[]> {
  if (join.stateBefore === null) return [];
  const all = await snapshotMembers(ctx.database.pool, join.stateBefore);
  const others = all.filter((member) => member.userId !== join.pdu.state_key);
  const present = others.filter(({ membership }) => membership === "join" || membership === "invite");
  return (present.length > 0 ? present : others).slice(0, MAX_HEROES).map((member) => member.eventId);
}

import { FederationFailure } from "../../federation-client/failures.ts";
import { authorize } from "../../matrix/authorization/authorize.ts";
import { authEventIds, type Event } from "../../matrix/event.ts";
import { isUserId, serverNameOf, type EventId, type RoomId, type UserId } from "../../matrix/identifiers.ts";
import { stateKeyOf } from "../../matrix/state.ts";
import { insertOutliers, loadEvent, loadEvents, type StoredEvent } from "../../storage/events.ts";
import { applyMembershipChanges, localJoinedUsers, membershipOf, type Membership } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { loadRoom, lockRoom } from "../../storage/rooms.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import { appendLocalMembership, takeStreamPositions } from "../../storage/streams.ts";
import { deleteWaitingPdu } from "../../storage/waiting-pdus.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import type { VerifiedEvent } from "../events/verify-pdus.ts";
import { serversForResync } from "../resync/resync-servers.ts";
import { wakeAbandonedResync } from "../resync/wake-abandoned-resync.ts";

/** The kick or the ban of one of our users. */
interface Removal {
  readonly event: Event;
  readonly userId: UserId;
  readonly membership: Extract<Membership, "leave" | "ban">;
  /** The join that it ends. */
  readonly joinId: EventId;
}

/**
 * Takes a kick or a ban of the last of our users whose past can't be had: once it is in effect, the servers of the room
 * refuse us what lies before it, and the memberships in its auth events, which a partial room mostly lacks. Without this
 * the user would stay in a room that is closed to them, and its resync would ask for ever.
 *
 * It is taken without a place in the room's graph if it names the join that it ends, the state that we know allows it
 * (of a partial room's members, one that we don't know may be joined), and a server of the room confirms that we are out
 * of it.
 *
 * @returns the event, if it was taken
 */
export async function receiveRemoval(
  ctx: RoomsContext,
  { event, rules }: VerifiedEvent,
): Promise<StoredEvent | undefined> {
  const removal = await lastRemoval(ctx, event);
  if (removal === undefined || !(await isAllowed(ctx, removal, rules)) || !(await isConfirmed(ctx, removal))) {
    return undefined;
  }
  const stored = await storeRemoval(ctx, removal);
  if (stored !== undefined) void wakeAbandonedResync(ctx, event.roomId);
  return stored;
}

/** Undefined for any other event; while another user of ours is in the room, its servers tell us what we lack. */
async function lastRemoval(ctx: RoomsContext, event: Event): Promise<Removal | undefined> {
  const { pdu, roomId } = event;
  const { state_key: userId, sender } = pdu;
  const { membership } = pdu.content;
  if (pdu.type !== "m.room.member" || userId === sender || !isUserId(userId)) return undefined;
  if ((membership !== "leave" && membership !== "ban") || serverNameOf(userId) !== ctx.serverName) return undefined;
  const { pool } = ctx.database;
  const joined = await localJoinedUsers(pool, roomId, ctx.serverName);
  const member = await membershipOf(pool, roomId, userId);
  if (joined.length !== 1 || member?.membership !== "join" || !authEventIds(pdu).includes(member.eventId)) {
    return undefined;
  }
  return { event, userId, membership, joinId: member.eventId };
}

async function isAllowed(
  ctx: RoomsContext,
  { event, userId }: Removal,
  rules: VerifiedEvent["rules"],
): Promise<boolean> {
  const { pool } = ctx.database;
  const { roomId, pdu } = event;
  const room = await loadRoom(pool, roomId);
  if (room === undefined || room.currentSnapshotId === null) return false;
  const ids = await lookUpManyInSnapshot(pool, room.currentSnapshotId, [
    ["m.room.create", ""],
    ["m.room.power_levels", ""],
    ["m.room.member", pdu.sender],
    ["m.room.member", userId],
  ]);
  const isPartial = (await partialRoom(pool, roomId)) !== undefined;
  const events = await loadEvents(pool, [...ids.values()]);
  const verdict = authorize(
    event,
    (type, stateKey) => {
      const id = ids.get(stateKeyOf(type, stateKey));
      if (id !== undefined) return events.get(id);
      return isPartial && type === "m.room.member" && stateKey === pdu.sender
        ? assumedJoin(roomId, stateKey)
        : undefined;
    },
    rules,
  );
  return verdict.allowed;
}

/** Whoever sends a membership that the room's servers act by is in the room. */
function assumedJoin(roomId: RoomId, userId: UserId): Event {
  const pdu = {
    room_id: roomId,
    type: "m.room.member",
    sender: userId,
    state_key: userId,
    content: { membership: "join" },
    prev_events: [],
    auth_events: [],
    depth: 0,
    origin_server_ts: 0,
  };
  return { eventId: "$assumed", roomId, pdu, rejected: false };
}

/** Asked for their answer, not for luck. */
const MOST_WITNESSES = 3;

/** What a server says by 403 that knows the room only in part itself (MSC3895): it means any server, not us. */
const UNABLE_DUE_TO_PARTIAL_STATE = "ORG.MATRIX.MSC3895_UNABLE_DUE_TO_PARTIAL_STATE";

/** A server of the room no longer shows us the very join that let us in. The first that answers is believed. */
async function isConfirmed(ctx: RoomsContext, { event, joinId }: Removal): Promise<boolean> {
  const witnesses = (await serversForResync(ctx, { roomId: event.roomId })).slice(0, MOST_WITNESSES);
  for (const server of witnesses) {
    try {
      await ctx.federation.event(server, joinId);
      return false;
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      if (error.status === 403 && error.errcode !== UNABLE_DUE_TO_PARTIAL_STATE) return true;
    }
  }
  return false;
}

/** Undefined if the user's standing has changed meanwhile. */
async function storeRemoval(
  ctx: RoomsContext,
  { event, userId, membership, joinId }: Removal,
): Promise<StoredEvent | undefined> {
  const { roomId, eventId } = event;
  return await commit(ctx, "store a removal", async (tx) => {
    await lockRoom(tx, roomId);
    if ((await membershipOf(tx, roomId, userId))?.eventId !== joinId) return undefined;
    await insertOutliers(tx, [{ event, rejection: null }]);
    await deleteWaitingPdu(tx, eventId);
    const streamId = await takeStreamPositions(tx, 1);
    await applyMembershipChanges(tx, roomId, [{ userId, member: { membership, eventId } }]);
    await appendLocalMembership(tx, { streamId, userId, roomId, membership, eventId });
    return await loadEvent(tx, eventId);
  });
}

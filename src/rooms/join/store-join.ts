import { FederationFailure } from "../../federation-client/failures.ts";
import { prevEventIds, type Event } from "../../matrix/event.ts";
import { stateFromEntries, stateGet, stateKeyOf, stateWith, type StateMap } from "../../matrix/state.ts";
import { withOmittedMembers } from "../../matrix/state-resolution/omitted-members.ts";
import type { Connection } from "../../storage/database.ts";
import { insertOutliers, insertTimelineEvent } from "../../storage/events.ts";
import { keepMembersOfCurrentState, localJoinedUsers, membershipOf } from "../../storage/memberships.ts";
import {
  addPartialRoomServers,
  abandonPartialEvents,
  deletePartialRoom,
  insertPartialRoom,
  lockPartialRoom,
  markPartial,
  partialRoom,
} from "../../storage/partial-state.ts";
import { deleteResyncControl } from "../../storage/resync-control.ts";
import { deleteRoomPurge } from "../../storage/room-purges.ts";
import { clearResyncStateIds } from "../../storage/resync-state-ids.ts";
import { forwardExtremities, insertOrCorrectRoom, lockRoom, setForwardExtremities } from "../../storage/rooms.ts";
import { loadStateEntries } from "../../storage/state-entries.ts";
import { loadState, lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import { currentStreamPosition, takeStreamPositions } from "../../storage/streams.ts";
import { acceptEventWithin } from "../events/accept-event.ts";
import { recomputeFrom } from "../events/recompute-room.ts";
import { rejectionText } from "../events/authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { deviceListsOwedAfterLeave } from "../resync/device-lists-after-resync.ts";
import { AuthEventsMissing, judgeEvent } from "../events/judge-event.ts";
import type { JoinAnswer } from "./send-join.ts";
import { stayAway } from "../resync/stay-away.ts";
import { storeState, type StateSource } from "../events/state-before-event.ts";
import { applyCurrentState, applyMemberships, computeCurrentState } from "../events/update-current-state.ts";

export type JoinStored =
  /** The room is new to us, or was left: this join decides what we know of it. */
  | { readonly kind: "entered"; readonly partial: boolean }
  /** Another of our users is in the room: its state, servers and resync stay as they are. */
  | { readonly kind: "joined-too"; readonly partial: boolean };

/**
 * Stores a join and all that came with it in one transaction: the events, the state before the join, the join itself
 * and, where members were omitted or events had to be left out, the rows that mark room and join as partial.
 *
 * @throws FederationFailure where the auth rules refuse the join, PrevEventsMissing
 */
export async function storeJoin(ctx: RoomsContext, answer: JoinAnswer): Promise<JoinStored> {
  return await commit(ctx, "store a join", async (tx) => {
    const { roomId } = answer.join;
    await insertOrCorrectRoom(tx, { roomId, roomVersion: answer.rules.version });
    const room = await lockRoom(tx, roomId);
    // A room that we have a state of keeps the version that it has.
    if (room?.roomVersion !== answer.rules.version) throw refused(answer, `the room's version is ${room?.roomVersion}`);
    // The join too: the current state names it before its place in the timeline is known.
    await insertOutliers(tx, [...answer.outliers, { event: answer.join, rejection: null }]);
    const source: StateSource = { database: ctx.database, tx, roomId, rules: answer.rules };
    const before = await stateBeforeJoin(source, answer);
    if ((await localJoinedUsers(tx, roomId, ctx.serverName)).length > 0) {
      await requireSameCreate(source, answer, { before: before.state, currentSnapshotId: room.currentSnapshotId });
      const told = await withKnownMembers(source, before, room.currentSnapshotId);
      return await joinToo(ctx, source, answer, told);
    }
    return await enter(ctx, source, answer, before);
  });
}

/** The state before the join as we know it by the answer. */
interface ToldState {
  readonly state: StateMap;
  /** Nothing is missing: neither members that were left out, nor events that had to be. */
  readonly whole: boolean;
}

async function stateBeforeJoin(source: StateSource, answer: JoinAnswer): Promise<ToldState> {
  const entries = await loadStateEntries(source.tx, source.roomId, answer.stateEventIds);
  const accepted = entries.filter((entry) => !entry.rejected);
  const state = stateFromEntries(accepted.map((entry) => [stateKeyOf(entry.type, entry.stateKey), entry.eventId]));
  if (state.size < accepted.length) {
    throw refused(answer, "its send_join answer has two events for one key of the state");
  }
  const allKept = entries.length === new Set(answer.stateEventIds).size && answer.unreadableState === 0;
  const whole = allKept && !answer.membersOmitted;
  const refusal = await refusalOfJoin(source, answer, { state, whole });
  if (refusal !== null) {
    throw refused(answer, `the auth rules refuse the join that it completed: ${refusal}`);
  }
  return { state, whole };
}

async function refusalOfJoin(
  { tx, rules }: StateSource,
  answer: JoinAnswer,
  { state, whole }: ToldState,
): Promise<string | null> {
  try {
    // A light answer's state lacks the invitation that lets the user in; the join's auth events have it.
    return rejectionText(await judgeEvent({ tx, rules, event: answer.join }, { state, partial: !whole }));
  } catch (error) {
    if (!(error instanceof AuthEventsMissing)) throw error;
    throw refused(answer, `its send_join answer lacks what allows the join: ${error.message}`);
  }
}

function refused({ server }: JoinAnswer, reason: string): FederationFailure {
  return new FederationFailure({ kind: "bad-response", server, reason });
}

/** A room in which we are has the create event that it has. */
async function requireSameCreate(
  { tx }: StateSource,
  answer: JoinAnswer,
  { before, currentSnapshotId }: { readonly before: StateMap; readonly currentSnapshotId: bigint | null },
): Promise<void> {
  if (currentSnapshotId === null) return;
  const ours = await lookUpInSnapshot(tx, currentSnapshotId, "m.room.create", "");
  if (ours === stateGet(before, "m.room.create", "")) return;
  throw refused(answer, "its send_join answer has another create event than the room");
}

async function enter(
  ctx: RoomsContext,
  source: StateSource,
  answer: JoinAnswer,
  { state, whole }: ToldState,
): Promise<JoinStored> {
  const { tx, roomId } = source;
  const { join } = answer;
  await forgetOlderJoin(ctx, tx, roomId);
  const before = await storeState(source, state, []);
  const after = await storeState(source, withJoin(state, join), [before]);
  const room = await lockRoom(tx, roomId);
  const change = await computeCurrentState(source, room?.currentSnapshotId ?? null, [after]);

  const applied = await applyMemberships(ctx, source, change);
  const position = await currentStreamPosition(tx);
  const streamId = await takeStreamPositions(tx, 1);
  await insertTimelineEvent(tx, {
    event: join,
    rejection: null,
    softFailed: false,
    stateBefore: before.snapshotId,
    stateAfter: after.snapshotId,
    streamId,
  });
  await setForwardExtremities(tx, roomId, [join.eventId]);
  await applyCurrentState(ctx, source, change, { streamId, told: change.changes, applied });
  if (!whole) await markEnteredPartial(tx, answer, position);
  await stayAway(ctx, tx, roomId);
  return { kind: "entered", partial: !whole };
}

async function markEnteredPartial(tx: Connection, answer: JoinAnswer, deviceListsStreamId: bigint): Promise<void> {
  const { roomId, eventId: joinEventId } = answer.join;
  await insertPartialRoom(tx, { roomId, joinEventId, joinedVia: answer.server, deviceListsStreamId });
  await addPartialRoomServers(tx, roomId, answer.servers);
  await markPartial(tx, roomId, joinEventId);
}

/** What an earlier, abandoned join left partial stays so in the past; the new join begins afresh. */
async function forgetOlderJoin(ctx: RoomsContext, tx: Connection, roomId: StateSource["roomId"]): Promise<void> {
  const older = await lockPartialRoom(tx, roomId);
  if (older !== undefined) await deviceListsOwedAfterLeave(ctx, tx, older);
  await abandonPartialEvents(tx, roomId);
  await deletePartialRoom(tx, roomId);
  // After that nobody writes members ahead any more.
  if (older !== undefined) await keepMembersOfCurrentState(tx, roomId);
  await clearResyncStateIds(tx, roomId);
  await deleteResyncControl(tx, roomId);
  await deleteRoomPurge(tx, roomId);
}

/**
 * The handshake has proved that the join is allowed; it is an event of the room like any other. Where we lack its
 * prev_events, the state that came with it stands in for them.
 */
async function joinToo(
  ctx: RoomsContext,
  source: StateSource,
  answer: JoinAnswer,
  { state, whole }: ToldState,
): Promise<JoinStored> {
  const partial = (await partialRoom(source.tx, source.roomId)) !== undefined;
  // A state with holes must not become the past of an event in a room that we know in full.
  const foreign = partial || whole ? prevEventIds(answer.join.pdu).map((eventId) => ({ eventId, after: state })) : [];
  const { rejection, softFailed } = await acceptEventWithin(ctx, source.tx, {
    event: answer.join,
    origin: answer.server,
    foreign,
    foreignIsPartial: !whole,
  });
  if (rejection !== null || softFailed) {
    throw refused(answer, `what we know of the room refuses the join that it completed: ${rejection ?? "soft-failed"}`);
  }
  if (partial) await keepInSight(ctx, source, answer.join);
  return { kind: "joined-too", partial };
}

/**
 * Another join of ours may build on this one and have been stored before it, on a light answer's state, which is silent
 * on this user. Until the resync has repaired that, this join stays a forward extremity, so that what we know of the
 * room has it.
 */
async function keepInSight(ctx: RoomsContext, source: StateSource, join: Event): Promise<void> {
  const { tx, roomId } = source;
  if ((await membershipOf(tx, roomId, join.pdu.sender))?.membership === "join") return;
  const room = await lockRoom(tx, roomId);
  const standing = await forwardExtremities(tx, roomId);
  if (room === undefined || standing.includes(join.eventId)) return;
  const partially: StateSource = { ...source, partialFor: ctx.serverName };
  const { extremities, change } = await recomputeFrom(partially, room, [...standing, join.eventId]);
  const streamId = await takeStreamPositions(tx, 1);
  await setForwardExtremities(tx, roomId, extremities);
  await applyCurrentState(ctx, source, change, { streamId, told: change.changes });
}

/**
 * What stands in for the state at prev_events that we lack must not forget those whom we know, our own users before all:
 * a light answer is silent on them, which does not mean that they have left.
 */
async function withKnownMembers(
  { database, tx }: StateSource,
  told: ToldState,
  currentSnapshotId: bigint | null,
): Promise<ToldState> {
  if (told.whole || currentSnapshotId === null) return told;
  const [state = told.state] = withOmittedMembers([told.state, await loadState(database, currentSnapshotId, tx)]);
  return { state, whole: false };
}

function withJoin(state: StateMap, join: Event): StateMap {
  return stateWith(state, "m.room.member", join.pdu.sender, join.eventId);
}

import { rulesOf } from "../../matrix/room-versions.ts";
import { stateSize } from "../../matrix/state.ts";
import { transaction, type Connection } from "../../storage/database.ts";
import { countPartialEvents, deletePartialRoom, lockPartialRoom } from "../../storage/partial-state.ts";
import { deleteResyncControl } from "../../storage/resync-control.ts";
import { clearResyncStateIds } from "../../storage/resync-state-ids.ts";
import { lockRoom, setForwardExtremities } from "../../storage/rooms.ts";
import { countUnstoredEntries } from "../../storage/state-entries.ts";
import { appendUnPartialStatedRoom, takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { FullStateUnsound, newsForClients, recomputeRoom } from "../events/recompute-room.ts";
import type { ResyncTarget } from "./resync-next-step.ts";
import type { StateSource } from "../events/state-before-event.ts";
import { applyCurrentState, type CurrentStateChange } from "../events/update-current-state.ts";

export type ResyncFinished =
  | { readonly kind: "completed"; readonly stateEvents: number }
  /** An event arrived on partial state meanwhile: it is repaired first. */
  | { readonly kind: "more" }
  | { readonly kind: "superseded" };

/**
 * Declares the room fully joined. Under the room's lock: forward extremities and current state are computed anew from
 * the repaired events, every event of the full state is stored, the room's partial rows go, and the streams tell it.
 *
 * @throws FullStateUnsound
 */
export async function finishResync(ctx: RoomsContext, target: ResyncTarget): Promise<ResyncFinished> {
  return await transaction(ctx.database, (tx) => finishWithin(ctx, tx, target));
}

async function finishWithin(ctx: RoomsContext, tx: Connection, target: ResyncTarget): Promise<ResyncFinished> {
  const { roomId } = target;
  const room = await lockRoom(tx, roomId);
  const partial = await lockPartialRoom(tx, roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || partial?.joinEventId !== target.joinEventId) {
    return { kind: "superseded" };
  }
  if ((await countPartialEvents(tx, roomId)) > 0) return { kind: "more" };

  const source: StateSource = { database: ctx.database, tx, roomId, rules };
  const { extremities, change } = await recomputeRoom(source, room, target.joinEventId);
  await assertStored(source, change);

  const streamId = await takeStreamPositions(tx, 1);
  await setForwardExtremities(tx, roomId, extremities);
  await applyCurrentState(ctx, source, change, { streamId, told: newsForClients(ctx, change) });
  await deletePartialRoom(tx, roomId);
  await clearResyncStateIds(tx, roomId);
  await deleteResyncControl(tx, roomId);
  await appendUnPartialStatedRoom(tx, streamId, roomId);
  return { kind: "completed", stateEvents: stateSize(change.current) };
}

async function assertStored(source: StateSource, change: CurrentStateChange): Promise<void> {
  if (stateSize(change.current) === 0) throw new FullStateUnsound("the full state is empty");
  const unstored = await countUnstoredEntries(source.tx, change.snapshotId);
  if (unstored > 0) throw new FullStateUnsound(`${unstored} events of the full state are not stored`);
}

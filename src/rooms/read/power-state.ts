import type { AuthState } from "../../matrix/authorization/verdict.ts";
import type { RoomId } from "../../matrix/identifiers.ts";
import { rulesOf, type RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateKeyOf } from "../../matrix/state.ts";
import { loadEvents } from "../../storage/events.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";

/** What tells everybody's power in a room: its create event and its power levels, which a partial state holds too. */
export interface PowerState {
  readonly rules: RoomVersionRules;
  readonly state: AuthState;
}

/** Of the room's current state; undefined for a room that we have no state of. */
export async function powerStateOf(ctx: RoomsContext, roomId: RoomId): Promise<PowerState | undefined> {
  const { pool } = ctx.database;
  const room = await loadRoom(pool, roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || room.currentSnapshotId === null) return undefined;
  const ids = await lookUpManyInSnapshot(pool, room.currentSnapshotId, [
    ["m.room.create", ""],
    ["m.room.power_levels", ""],
  ]);
  const events = await loadEvents(pool, [...ids.values()]);
  return {
    rules,
    state: (type, stateKey) => {
      const id = ids.get(stateKeyOf(type, stateKey));
      return id === undefined ? undefined : events.get(id);
    },
  };
}

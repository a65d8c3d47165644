import type { RoomId } from "../matrix/identifiers.ts";
import { execute, type Connection } from "./query.ts";

// Those that refer to others before those that are referred to.
const STATEMENTS: readonly string[] = [
  `DELETE FROM waiting_pdus WHERE room_id = $1`,
  `DELETE FROM joins_under_way WHERE room_id = $1`,
  `DELETE FROM partial_state_events WHERE room_id = $1`,
  `DELETE FROM partial_state_rooms_servers WHERE room_id = $1`,
  `DELETE FROM resync_state_ids WHERE room_id = $1`,
  `DELETE FROM resync_control WHERE room_id = $1`,
  `DELETE FROM partial_state_rooms WHERE room_id = $1`,
  `DELETE FROM un_partial_stated_event_stream WHERE event_id IN (SELECT event_id FROM events WHERE room_id = $1)`,
  `DELETE FROM un_partial_stated_room_stream WHERE room_id = $1`,
  `DELETE FROM current_state_delta_stream WHERE room_id = $1`,
  `DELETE FROM invite_room_states WHERE event_id IN (
     SELECT event_id FROM events WHERE room_id = $1
     UNION SELECT event_id FROM local_membership_stream WHERE room_id = $1)`,
  `DELETE FROM local_membership_stream WHERE room_id = $1`,
  `DELETE FROM client_transactions WHERE event_id IN (SELECT event_id FROM events WHERE room_id = $1)`,
  `DELETE FROM outbox WHERE event_id IN (SELECT event_id FROM events WHERE room_id = $1)`,
  `DELETE FROM room_aliases WHERE room_id = $1`,
  `DELETE FROM current_memberships WHERE room_id = $1`,
  `DELETE FROM forward_extremities WHERE room_id = $1`,
  `DELETE FROM events WHERE room_id = $1`,
  `UPDATE rooms SET current_snapshot_id = NULL WHERE room_id = $1`,
  `DELETE FROM state_snapshot_entries WHERE snapshot_id IN (
     SELECT snapshot_id FROM state_snapshots WHERE room_id = $1)`,
  `DELETE FROM state_snapshots WHERE room_id = $1`,
];

/** Deletes everything that we hold of a room. True if we held it. */
export async function purgeRoom(tx: Connection, roomId: RoomId): Promise<boolean> {
  // Whoever is about to refer to the room waits, and then finds it gone.
  await execute(tx, `SELECT 1 FROM rooms WHERE room_id = $1 FOR UPDATE`, [roomId]);
  for (const statement of STATEMENTS) await execute(tx, statement, [roomId]);
  return (await execute(tx, `DELETE FROM rooms WHERE room_id = $1`, [roomId])) === 1;
}

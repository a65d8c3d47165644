import type { RoomId } from "../matrix/identifiers.ts";
import { execute, type Connection } from "./query.ts";

// Those that refer to others before those that are referred to.
const DETAILS: readonly string[] = [
  `DELETE FROM waiting_pdus WHERE room_id = $1`,
  `DELETE FROM joins_under_way WHERE room_id = $1`,
  `DELETE FROM early_outliers WHERE room_id = $1`,
  `DELETE FROM typing_users WHERE room_id = $1`,
  `DELETE FROM typing_rooms WHERE room_id = $1`,
  `DELETE FROM receipts WHERE room_id = $1`,
  `DELETE FROM account_data WHERE room_id = $1`,
  `DELETE FROM resync_drops WHERE room_id = $1`,
  `DELETE FROM partial_state_events WHERE room_id = $1`,
  `DELETE FROM partial_state_rooms_servers WHERE room_id = $1`,
  `DELETE FROM resync_state_ids WHERE room_id = $1`,
  `DELETE FROM resync_control WHERE room_id = $1`,
  `DELETE FROM resync_event_changes WHERE room_id = $1`,
  `DELETE FROM partial_state_rooms WHERE room_id = $1`,
  `DELETE FROM un_partial_stated_event_stream WHERE event_id IN (SELECT event_id FROM events WHERE room_id = $1)`,
  `DELETE FROM un_partial_stated_room_stream WHERE room_id = $1`,
  `DELETE FROM current_state_delta_stream WHERE room_id = $1`,
  `DELETE FROM invite_room_states WHERE event_id IN (
     SELECT event_id FROM events WHERE room_id = $1
     UNION SELECT event_id FROM local_membership_stream WHERE room_id = $1)`,
  `DELETE FROM own_event_destinations WHERE room_id = $1`,
  `DELETE FROM forgotten_rooms WHERE room_id = $1`,
  `DELETE FROM misdirected_events WHERE room_id = $1`,
  `DELETE FROM client_transactions WHERE event_id IN (SELECT event_id FROM events WHERE room_id = $1)`,
  `DELETE FROM room_aliases WHERE room_id = $1`,
  `DELETE FROM current_memberships WHERE room_id = $1`,
  `DELETE FROM forward_extremities WHERE room_id = $1`,
];

const NEWS: readonly string[] = [
  `DELETE FROM outbox WHERE event_id IN (SELECT event_id FROM events WHERE room_id = $1)`,
  `DELETE FROM local_membership_stream WHERE room_id = $1`,
];

const OLD_NEWS: readonly string[] = [
  `DELETE FROM local_membership_stream older WHERE room_id = $1 AND (
     membership NOT IN ('leave', 'ban') OR EXISTS (
       SELECT 1 FROM local_membership_stream newer WHERE newer.room_id = $1 AND newer.user_id = older.user_id
         AND newer.stream_id > older.stream_id))`,
];

const EVENTS_AND_STATES: readonly string[] = [
  `DELETE FROM events WHERE room_id = $1 AND NOT EXISTS (
     SELECT 1 FROM outbox WHERE outbox.event_id = events.event_id)`,
  `UPDATE events SET state_before = NULL, state_after = NULL WHERE room_id = $1`,
  `UPDATE rooms SET current_snapshot_id = NULL WHERE room_id = $1`,
  `DELETE FROM state_snapshot_entries WHERE snapshot_id IN (
     SELECT snapshot_id FROM state_snapshots WHERE room_id = $1)`,
  `DELETE FROM state_snapshots WHERE room_id = $1`,
];

/** Deletes everything that we hold of a room, also what is in the outbox. True if we held it. */
export async function purgeRoom(tx: Connection, roomId: RoomId): Promise<boolean> {
  await lockForPurge(tx, roomId);
  await run(tx, roomId, [...DETAILS, ...NEWS, ...EVENTS_AND_STATES]);
  return (await execute(tx, `DELETE FROM rooms WHERE room_id = $1`, [roomId])) === 1;
}

/**
 * The same but for what others have still to be told: events in the outbox, which lose their states, and that our users
 * have left. The room's row stays with them, without a state, as of a room that we have never been in.
 */
export async function purgeRoomDetails(tx: Connection, roomId: RoomId): Promise<void> {
  await lockForPurge(tx, roomId);
  await run(tx, roomId, [...DETAILS, ...OLD_NEWS, ...EVENTS_AND_STATES]);
}

/** Whoever is about to refer to the room waits, and then finds it gone. */
async function lockForPurge(tx: Connection, roomId: RoomId): Promise<void> {
  await execute(tx, `SELECT 1 FROM rooms WHERE room_id = $1 FOR UPDATE`, [roomId]);
}

async function run(tx: Connection, roomId: RoomId, statements: readonly string[]): Promise<void> {
  for (const statement of statements) await execute(tx, statement, [roomId]);
}

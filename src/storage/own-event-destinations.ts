import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** An event of ours and the servers in whose outbox it was put. */
export interface OwnEventSent {
  readonly eventId: EventId;
  readonly streamId: bigint;
  readonly servers: readonly ServerName[];
}

/** Notes to whom an event of ours goes, where the room is partial; does nothing where its members are known. */
export async function noteOwnEventDestinations(
  tx: Connection,
  roomId: RoomId,
  { eventId, streamId, servers }: OwnEventSent,
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO own_event_destinations (event_id, room_id, stream_id, servers)
     SELECT $1, $2, $3, $4::text[] WHERE EXISTS (SELECT 1 FROM partial_state_rooms WHERE room_id = $2)
     ON CONFLICT DO NOTHING`,
    [eventId, roomId, streamId, servers],
  );
}

/** Our events that were noted from this position of the stream on, oldest first; a list of servers may be long. */
export async function ownEventsSince(
  c: Connection,
  roomId: RoomId,
  { from, limit }: { readonly from: bigint; readonly limit?: number },
): Promise<readonly OwnEventSent[]> {
  return queryRows<OwnEventSent & { streamId: bigint }>(
    c,
    `SELECT event_id AS "eventId", stream_id AS "streamId", servers FROM own_event_destinations
     WHERE room_id = $1 AND stream_id >= $2 ORDER BY stream_id LIMIT $3`,
    [roomId, from, limit ?? null],
  );
}

/** What was noted of the room's events: the full state says now who is in it. */
export async function deleteOwnEventDestinations(tx: Connection, roomId: RoomId): Promise<void> {
  await execute(tx, `DELETE FROM own_event_destinations WHERE room_id = $1`, [roomId]);
}

/** Those of the events that are ours and that this server was sent on partial knowledge of the room, rightly or not. */
export async function whichWereSentTo(
  c: Connection,
  ids: readonly EventId[],
  server: ServerName,
): Promise<ReadonlySet<EventId>> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `SELECT event_id AS id FROM own_event_destinations WHERE event_id = ANY ($1::text[]) AND $2 = ANY (servers)
     UNION SELECT event_id FROM misdirected_events WHERE event_id = ANY ($1::text[]) AND server_name = $2`,
    [ids, server],
  );
  return new Set(rows.map((row) => row.id));
}

/** Whether the event is one of ours that this server was sent on partial knowledge of the room, rightly or not. */
export async function wasSentTo(c: Connection, eventId: EventId, server: ServerName): Promise<boolean> {
  const row = await queryRow<{ found: boolean }>(
    c,
    `SELECT EXISTS (SELECT 1 FROM own_event_destinations WHERE event_id = $1 AND $2 = ANY (servers))
         OR EXISTS (SELECT 1 FROM misdirected_events WHERE event_id = $1 AND server_name = $2) AS found`,
    [eventId, server],
  );
  return row?.found ?? false;
}

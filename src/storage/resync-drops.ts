import type { EventId, RoomId } from "../matrix/identifiers.ts";
import { execute, queryRows, type Connection } from "./query.ts";

/** An operator's word that nobody can give the state before a partial event. It goes when the event is partial no more. */
export interface ResyncDrop {
  readonly roomId: RoomId;
  readonly eventId: EventId;
  readonly by: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly why: string;
}

/** A second word on the same event changes nothing. */
export async function insertResyncDrop(tx: Connection, { eventId, roomId, by, at, why }: ResyncDrop): Promise<void> {
  await execute(
    tx,
    `INSERT INTO resync_drops (event_id, room_id, by, at, why) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (event_id) DO NOTHING`,
    [eventId, roomId, by, new Date(at), why],
  );
}

interface Row extends Omit<ResyncDrop, "at"> {
  readonly eventId: EventId;
  readonly at: Date;
}

const COLUMNS = `room_id AS "roomId", event_id AS "eventId", by, at, why`;

/** A room's, the earliest first. */
export async function resyncDrops(c: Connection, roomId: RoomId): Promise<readonly ResyncDrop[]> {
  const rows = await queryRows<Row>(
    c,
    `SELECT ${COLUMNS} FROM resync_drops WHERE room_id = $1 ORDER BY at, event_id COLLATE "C"`,
    [roomId],
  );
  return rows.map(dropOf);
}

export async function loadResyncDrops(
  c: Connection,
  eventIds: readonly EventId[],
): Promise<ReadonlyMap<EventId, ResyncDrop>> {
  const rows = await queryRows<Row>(c, `SELECT ${COLUMNS} FROM resync_drops WHERE event_id = ANY ($1::text[])`, [
    eventIds,
  ]);
  return new Map(rows.map((row) => [row.eventId, dropOf(row)]));
}

function dropOf(row: Row): ResyncDrop {
  return { ...row, at: row.at.getTime() };
}

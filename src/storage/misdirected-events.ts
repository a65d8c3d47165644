import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { execute, queryRows, type Connection } from "./query.ts";

/** An event of ours and a server that had no joined member at it. */
export interface Misdirection {
  readonly eventId: EventId;
  readonly server: ServerName;
}

/** All that went wrongly to one server; times are milliseconds since the epoch. */
export interface MisdirectedServer {
  readonly server: ServerName;
  /** Oldest first; the newest of very many. */
  readonly eventIds: readonly EventId[];
  readonly count: number;
  /** When the full state showed it. */
  readonly foundAt: number;
}

/** Records events that went to servers which should not have had them. `at`: milliseconds. */
export async function insertMisdirectedEvents(
  tx: Connection,
  roomId: RoomId,
  { found, at }: { readonly found: readonly Misdirection[]; readonly at: number },
): Promise<void> {
  if (found.length === 0) return;
  await execute(
    tx,
    `INSERT INTO misdirected_events (room_id, found_at, event_id, server_name)
     SELECT $1, $2, * FROM unnest($3::text[], $4::text[]) ON CONFLICT DO NOTHING`,
    [roomId, new Date(at), found.map((one) => one.eventId), found.map((one) => one.server)],
  );
}

/** Servers that were sent events of ours although none of their users was in the room, in the order of their names. */
export async function misdirectedServers(
  c: Connection,
  roomId: RoomId,
  eventsAtMost: number,
): Promise<readonly MisdirectedServer[]> {
  const rows = await queryRows<Omit<MisdirectedServer, "foundAt"> & { foundAt: Date }>(
    c,
    `SELECT server_name AS server, count(*)::integer AS count, max(found_at) AS "foundAt",
       (array_agg(event_id ORDER BY events.stream_id))[greatest(1, count(*) - $2 + 1):] AS "eventIds"
     FROM misdirected_events misdirected JOIN events USING (event_id)
     WHERE misdirected.room_id = $1 GROUP BY server_name ORDER BY server_name COLLATE "C"`,
    [roomId, eventsAtMost],
  );
  return rows.map((row) => ({ ...row, foundAt: row.foundAt.getTime() }));
}

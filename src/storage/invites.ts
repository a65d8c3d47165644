import type { EventId } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonValue } from "../matrix/json.ts";
import { execute, queryRows, type Connection } from "./query.ts";

/** What an invitation to a room that we may not be in tells of it; the membership itself goes into the stream. */
export async function storeInviteRoomState(
  tx: Connection,
  eventId: EventId,
  strippedState: readonly JsonValue[],
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO invite_room_states (event_id, stripped_state) VALUES ($1, $2)
     ON CONFLICT (event_id) DO UPDATE SET stripped_state = EXCLUDED.stripped_state`,
    [eventId, stringifyJson(strippedState)],
  );
}

export async function loadInviteRoomStates(
  c: Connection,
  eventIds: readonly EventId[],
): Promise<Map<EventId, readonly JsonValue[]>> {
  const rows = await queryRows<{ id: EventId; state: string }>(
    c,
    `SELECT event_id AS id, stripped_state AS state FROM invite_room_states WHERE event_id = ANY ($1::text[])`,
    [eventIds],
  );
  return new Map(rows.map((row) => [row.id, parseJson(row.state) as readonly JsonValue[]]));
}

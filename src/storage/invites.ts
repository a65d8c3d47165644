import type { EventId, ServerName } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonValue } from "../matrix/json.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/**
 * What we are told of a room that we may not be in, with an invitation or in answer to a knock; the membership itself
 * goes into the stream.
 *
 * @param toldBy servers that know of the membership, whom to tell when it is declined or taken back
 */
export async function storeInviteRoomState(
  tx: Connection,
  eventId: EventId,
  told: { readonly strippedState: readonly JsonValue[]; readonly toldBy: readonly ServerName[] },
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO invite_room_states (event_id, stripped_state, told_by) VALUES ($1, $2, $3)
     ON CONFLICT (event_id) DO UPDATE SET stripped_state = EXCLUDED.stripped_state, told_by = EXCLUDED.told_by`,
    [eventId, stringifyJson(told.strippedState), told.toldBy],
  );
}

/** In the order in which they were named. */
export async function serversThatToldOf(c: Connection, eventId: EventId): Promise<readonly ServerName[]> {
  const row = await queryRow<{ servers: readonly ServerName[] }>(
    c,
    `SELECT told_by AS servers FROM invite_room_states WHERE event_id = $1`,
    [eventId],
  );
  return row?.servers ?? [];
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

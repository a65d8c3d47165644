import type { Event } from "../matrix/event.ts";
import { isEventId } from "../matrix/identifiers.ts";
import type { EventId } from "../matrix/identifiers.ts";
import { EVENT_COLUMNS, storedEventOf } from "./events.ts";
import type { StoredEvent } from "./events.ts";
import { execute, queryRows } from "./query.ts";
import type { Connection } from "./query.ts";

/** Notes which event a redaction names, so that it is found when that event is read. Others are passed over. */
export async function noteRedaction(tx: Connection, event: Event): Promise<void> {
  const { type, redacts, content } = event.pdu;
  // v11 on: in the content; before, at the top.
  const target = redacts ?? content["redacts"];
  if (type !== "m.room.redaction" || !isEventId(target)) return;
  await execute(tx, `INSERT INTO redactions (redaction_id, redacts) VALUES ($1, $2) ON CONFLICT DO NOTHING`, [
    event.eventId,
    target,
  ]);
}

/** The redactions in a timeline that name one of the events, whether they may or not; in the order of arrival. */
export async function redactionsNaming(
  c: Connection,
  ids: readonly EventId[],
): Promise<readonly { readonly redacts: EventId; readonly redaction: StoredEvent }[]> {
  const rows = await queryRows<Parameters<typeof storedEventOf>[0] & { readonly redacts: EventId }>(
    c,
    `SELECT redactions.redacts, ${EVENT_COLUMNS} FROM redactions JOIN events e ON e.event_id = redaction_id
     WHERE redactions.redacts = ANY ($1::text[]) AND e.stream_id IS NOT NULL ORDER BY e.stream_id`,
    [ids],
  );
  return rows.map((row) => ({ redacts: row.redacts, redaction: storedEventOf(row) }));
}

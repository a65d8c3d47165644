import type { EventId } from "../matrix/identifiers.ts";
import { EVENT_COLUMNS, storedEventOf } from "./events.ts";
import type { StoredEvent } from "./events.ts";
import { queryRows } from "./query.ts";
import type { Connection } from "./query.ts";

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

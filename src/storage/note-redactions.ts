import type { Event } from "../matrix/event.ts";
import { isEventId } from "../matrix/identifiers.ts";
import { execute } from "./query.ts";
import type { Connection } from "./query.ts";

/** Notes which events the redactions among these name, so that they are found when those are read. */
export async function noteRedactions(tx: Connection, events: readonly Event[]): Promise<void> {
  const named = events.flatMap(({ eventId, pdu }) =>
    pdu.type === "m.room.redaction"
      ? [pdu.redacts, pdu.content["redacts"]].filter(isEventId).map((target) => [eventId, target] as const)
      : [],
  );
  if (named.length === 0) return;
  await execute(
    tx,
    `INSERT INTO redactions (redaction_id, redacts) SELECT * FROM unnest($1::text[], $2::text[])
     ON CONFLICT DO NOTHING`,
    [named.map(([redaction]) => redaction), named.map(([, target]) => target)],
  );
}

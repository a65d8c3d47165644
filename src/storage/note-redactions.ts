import type { Event } from "../matrix/event.ts";
import { isEventId } from "../matrix/identifiers.ts";
import { execute } from "./query.ts";
import type { Connection } from "./query.ts";

/** Notes which event a redaction names, so that it is found when that event is read. Others are passed over. */
export async function noteRedaction(tx: Connection, { eventId, pdu }: Event): Promise<void> {
  if (pdu.type !== "m.room.redaction") return;
  const targets = [pdu.redacts, pdu.content["redacts"]].filter(isEventId);
  await execute(
    tx,
    `INSERT INTO redactions (redaction_id, redacts) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING`,
    [eventId, targets],
  );
}

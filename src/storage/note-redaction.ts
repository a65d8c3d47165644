import type { Event } from "../matrix/event.ts";
import { isEventId } from "../matrix/identifiers.ts";
import { execute } from "./query.ts";
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

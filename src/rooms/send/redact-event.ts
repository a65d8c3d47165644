import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { roomRules } from "../../storage/rooms.ts";
import type { RoomsContext } from "../context.ts";
import { sendOnce } from "./send-once.ts";
import type { ClientTransaction } from "./send-once.ts";

interface Redaction {
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly redacts: EventId;
  readonly content: JsonObject;
}

/**
 * Sends a redaction, which names its event where the room version looks for it.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#redactions
 * @throws MatrixError as createEvent
 */
export async function redactEvent(
  ctx: RoomsContext,
  transaction: ClientTransaction,
  { redacts, content, ...draft }: Redaction,
): Promise<EventId> {
  const rules = await roomRules(ctx.database.pool, draft.roomId);
  if (rules === undefined) {
    throw new MatrixError(404, "M_NOT_FOUND", `This server is not in room ${draft.roomId}`);
  }
  const { redacts: _either, ...rest } = content;
  return sendOnce(ctx, transaction, {
    ...draft,
    type: "m.room.redaction",
    ...(rules.redaction.redactsInContent ? { content: { ...rest, redacts } } : { content: rest, redacts }),
  });
}

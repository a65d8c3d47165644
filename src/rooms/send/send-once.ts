import type { EventId, UserId } from "../../matrix/identifiers.ts";
import { StorageConflict } from "../../storage/errors.ts";
import { clientTransactionEvent, storeClientTransaction } from "../../storage/client-transactions.ts";
import type { EventDraft } from "../events/build-event.ts";
import type { RoomsContext } from "../context.ts";
import { noteActive } from "../edus/own-presence.ts";
import { createEvent } from "../events/create-event.ts";
import { transactionKey } from "../read/transaction-key.ts";

export interface ClientTransaction {
  readonly userId: UserId;
  readonly deviceId: string;
  /** The request's path from the room on, its parts not encoded; the transaction id is the last. */
  readonly path: readonly string[];
}

/**
 * Sends an event, once for every transaction id of a device: a repeated request answers with the first one's event,
 * also where both run at the same time.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
 * @throws MatrixError as createEvent
 */
export async function sendOnce(ctx: RoomsContext, transaction: ClientTransaction, draft: EventDraft): Promise<EventId> {
  const { userId, deviceId, path } = transaction;
  const key = { userId, deviceId, txnId: transactionKey(path) };
  const sent = await clientTransactionEvent(ctx.database.pool, key);
  if (sent !== undefined) {
    return sent;
  }
  try {
    const stored = await createEvent(ctx, draft, async (tx, event) => {
      await storeClientTransaction(tx, key, event.eventId);
    });
    await noteActive(ctx, userId);
    return stored.eventId;
  } catch (error) {
    const first = isLostRace(error) ? await clientTransactionEvent(ctx.database.pool, key) : undefined;
    if (first === undefined) {
      throw error;
    }
    return first;
  }
}

function isLostRace(error: unknown): boolean {
  return error instanceof StorageConflict && error.code === "unique";
}

import type { EventId, UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

interface ClientTransactionKey {
  readonly userId: UserId;
  readonly deviceId: string;
  readonly txnId: string;
}

/** The event that an earlier request with this transaction id has made. */
export async function clientTransactionEvent(c: Connection, key: ClientTransactionKey): Promise<EventId | undefined> {
  const row = await queryRow<{ id: EventId }>(
    c,
    `SELECT event_id AS id FROM client_transactions WHERE user_id = $1 AND device_id = $2 AND txn_id = $3`,
    [key.userId, key.deviceId, key.txnId],
  );
  return row?.id;
}

/** The transaction ids under which a device sent the events, which are told to that device alone. */
export async function clientTransactionIds(
  c: Connection,
  device: { readonly userId: UserId; readonly deviceId: string },
  eventIds: readonly EventId[],
): Promise<Map<EventId, string>> {
  const rows = await queryRows<{ event_id: EventId; txn_id: string }>(
    c,
    `SELECT event_id, txn_id FROM client_transactions
     WHERE user_id = $1 AND device_id = $2 AND event_id = ANY ($3::text[])`,
    [device.userId, device.deviceId, eventIds],
  );
  return new Map(rows.map((row) => [row.event_id, row.txn_id]));
}

/** @throws StorageConflict "unique" if another request with the id was faster */
export async function storeClientTransaction(
  tx: Connection,
  key: ClientTransactionKey,
  eventId: EventId,
): Promise<void> {
  await execute(tx, `INSERT INTO client_transactions (user_id, device_id, txn_id, event_id) VALUES ($1, $2, $3, $4)`, [
    key.userId,
    key.deviceId,
    key.txnId,
    eventId,
  ]);
}

/** Forgets those made before `before` (milliseconds). */
export async function forgetClientTransactions(c: Connection, before: number): Promise<number> {
  return execute(c, `DELETE FROM client_transactions WHERE created_at < $1`, [new Date(before)]);
}

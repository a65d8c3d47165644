import type { ServerName } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonValue } from "../matrix/json.ts";
import { execute, queryRow, type Connection } from "./query.ts";

/** What we answered to a transaction, if it was handled before. */
export async function receivedTransaction(
  c: Connection,
  origin: ServerName,
  txnId: string,
): Promise<JsonValue | undefined> {
  const row = await queryRow<{ response: string }>(
    c,
    `SELECT response FROM received_transactions WHERE origin = $1 AND txn_id = $2`,
    [origin, txnId],
  );
  return row && parseJson(row.response);
}

export async function storeReceivedTransaction(
  c: Connection,
  received: { readonly origin: ServerName; readonly txnId: string; readonly response: JsonValue },
): Promise<void> {
  await execute(
    c,
    `INSERT INTO received_transactions (origin, txn_id, response) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    [received.origin, received.txnId, stringifyJson(received.response)],
  );
}

/** Forgets those received before `before` (milliseconds). */
export async function forgetReceivedTransactions(c: Connection, before: number): Promise<number> {
  return execute(c, `DELETE FROM received_transactions WHERE received_at < $1`, [new Date(before)]);
}

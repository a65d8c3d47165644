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

/** @returns what is to be answered: another response, if the same transaction was handled meanwhile by someone else */
export async function storeReceivedTransaction(
  c: Connection,
  received: { readonly origin: ServerName; readonly txnId: string; readonly response: JsonValue },
): Promise<JsonValue> {
  const row = await queryRow<{ response: string }>(
    c,
    // The update that changes nothing waits for whoever is storing the same transaction, and gives what they stored.
    `INSERT INTO received_transactions (origin, txn_id, response) VALUES ($1, $2, $3)
     ON CONFLICT (origin, txn_id) DO UPDATE SET origin = EXCLUDED.origin RETURNING response`,
    [received.origin, received.txnId, stringifyJson(received.response)],
  );
  return row === undefined ? received.response : parseJson(row.response);
}

/** Forgets those received before `before` (milliseconds). */
export async function forgetReceivedTransactions(c: Connection, before: number): Promise<number> {
  return execute(c, `DELETE FROM received_transactions WHERE received_at < $1`, [new Date(before)]);
}

import type { ServerName } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonObject } from "../matrix/json.ts";
import { execute, queryRows, type Connection } from "./query.ts";
import { tellStream } from "./streams.ts";

/** An ephemeral data unit as other servers get it. */
export interface OutgoingEdu extends JsonObject {
  readonly edu_type: string;
  readonly content: JsonObject;
}

interface EduForOutbox {
  readonly destinations: readonly ServerName[];
  readonly eduType: string;
  readonly content: JsonObject;
  /** An entry for the same server and of the same key that is in no transaction yet is replaced, in its place. */
  readonly replaces?: string;
}

/**
 * Puts EDUs on the list of each server, in this order, and wakes the delivery when the transaction commits. No stream
 * position is taken: clients have nothing to see here. Where the order between transactions counts, as with device
 * lists, take a position (or another lock) before this: then who commits first is also sent first.
 */
export async function addEdusToOutbox(
  tx: Connection,
  { edus }: { readonly edus: readonly EduForOutbox[] },
): Promise<void> {
  const sent = edus.filter(({ destinations }) => destinations.length > 0);
  for (const { destinations, eduType, content, replaces } of sent) {
    await execute(
      tx,
      // Sorted, so that two writers who replace the same entries wait for each other instead of deadlocking.
      `INSERT INTO outbox_edus (destination, edu_type, content, replace_key)
       SELECT destination, $2, $3, $4 FROM unnest($1::text[]) AS destination ORDER BY destination
       ON CONFLICT (destination, replace_key) WHERE txn_id IS NULL
         DO UPDATE SET edu_type = EXCLUDED.edu_type, content = EXCLUDED.content`,
      [[...new Set(destinations)], eduType, stringifyJson(content), replaces ?? null],
    );
  }
  if (sent.length > 0) await tellStream(tx);
}

/** Those of a transaction that was begun, in the order of sending. */
export async function loadOutboxEdus(
  c: Connection,
  destination: ServerName,
  txnId: string,
): Promise<readonly OutgoingEdu[]> {
  const rows = await queryRows<{ eduType: string; content: string }>(
    c,
    `SELECT edu_type AS "eduType", content FROM outbox_edus WHERE destination = $1 AND txn_id = $2 ORDER BY edu_id`,
    [destination, txnId],
  );
  return rows.map((row) => ({ edu_type: row.eduType, content: parseJson(row.content) as JsonObject }));
}

/** What is of no use any more when it comes late; messages to devices and changes of devices are always kept. */
const PASSING = ["m.typing", "m.receipt", "m.presence"];

/**
 * For a server that has fallen far behind: drops what only says how things stood at the time.
 *
 * @returns how many were dropped
 */
export async function dropPassingEdus(c: Connection, destination: ServerName): Promise<number> {
  return execute(c, `DELETE FROM outbox_edus WHERE destination = $1 AND edu_type = ANY ($2::text[])`, [
    destination,
    PASSING,
  ]);
}

import type { ServerName, UserId } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonObject } from "../matrix/json.ts";
import type { Session } from "./accounts.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import type { StreamRange } from "./streams.ts";

export interface ToDeviceMessage {
  readonly userId: UserId;
  /** `*` means each device that the user has now. */
  readonly deviceId: string;
  readonly sender: UserId;
  readonly type: string;
  readonly content: JsonObject;
}

interface ReceivedMessage {
  readonly streamId: bigint;
  readonly sender: UserId;
  readonly type: string;
  readonly content: JsonObject;
}

/**
 * Puts messages into the inboxes of our users' devices, in the order given. One for a device that is not there is
 * dropped: nobody could ever read it.
 *
 * @param appended `streamId` is taken by this transaction: a device that is logged out meanwhile then finds them
 */
export async function appendToDevice(
  tx: Connection,
  appended: { readonly streamId: bigint; readonly messages: readonly ToDeviceMessage[] },
): Promise<void> {
  const { streamId, messages } = appended;
  await execute(
    tx,
    `INSERT INTO to_device_messages (stream_id, user_id, device_id, sender, type, content)
     SELECT $1, devices.user_id, devices.device_id, message.sender, message.type, message.content
     FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
       WITH ORDINALITY AS message (user_id, device_id, sender, type, content, place)
     JOIN devices ON devices.user_id = message.user_id AND message.device_id IN ('*', devices.device_id)
     ORDER BY message.place`,
    [
      streamId,
      messages.map((message) => message.userId),
      messages.map((message) => message.deviceId),
      messages.map((message) => message.sender),
      messages.map((message) => message.type),
      messages.map((message) => stringifyJson(message.content)),
    ],
  );
}

/** A device's messages within the range, oldest first: `limit` of them, and those that share the last one's position. */
export async function toDeviceMessages(
  c: Connection,
  { userId, deviceId }: Session,
  { from, to, limit }: StreamRange & { readonly limit: number },
): Promise<readonly ReceivedMessage[]> {
  const rows = await queryRows<{ streamId: bigint; sender: UserId; type: string; content: string }>(
    c,
    `SELECT stream_id AS "streamId", sender, type, content FROM (
       SELECT * FROM to_device_messages
       WHERE user_id = $1 AND device_id = $2 AND stream_id > $3 AND stream_id <= $4
       ORDER BY stream_id FETCH FIRST ($5::bigint) ROWS WITH TIES) page
     ORDER BY stream_id, message_id`,
    [userId, deviceId, from, to, limit],
  );
  return rows.map((row) => ({ ...row, content: parseJson(row.content) as JsonObject }));
}

/** Deletes what a device has acknowledged by asking for what comes after the position. */
export async function deleteToDeviceMessages(
  c: Connection,
  { userId, deviceId }: Session,
  upTo: bigint,
): Promise<void> {
  await execute(c, `DELETE FROM to_device_messages WHERE user_id = $1 AND device_id = $2 AND stream_id <= $3`, [
    userId,
    deviceId,
    upTo,
  ]);
}

/** Deletes all messages to devices that are gone. Behind a stream position, so that none is being appended. */
export async function deleteInboxes(tx: Connection, userId: UserId, deviceIds: readonly string[]): Promise<void> {
  await execute(tx, `DELETE FROM to_device_messages WHERE user_id = $1 AND device_id = ANY ($2::text[])`, [
    userId,
    deviceIds,
  ]);
}

/** False if the device's request with this transaction id was carried out before. */
export async function beginToDeviceTransaction(tx: Connection, sender: Session, txnId: string): Promise<boolean> {
  const row = await queryRow(
    tx,
    `INSERT INTO to_device_transactions (user_id, device_id, txn_id) VALUES ($1, $2, $3)
     ON CONFLICT DO NOTHING RETURNING 1`,
    [sender.userId, sender.deviceId, txnId],
  );
  return row !== undefined;
}

/** False if the server's message was taken before. */
export async function noteReceivedToDevice(tx: Connection, origin: ServerName, messageId: string): Promise<boolean> {
  const row = await queryRow(
    tx,
    `INSERT INTO received_to_device (origin, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING 1`,
    [origin, messageId],
  );
  return row !== undefined;
}

/** Forgets what our clients asked before `before` (milliseconds). */
export async function forgetToDeviceTransactions(c: Connection, before: number): Promise<number> {
  return execute(c, `DELETE FROM to_device_transactions WHERE created_at < $1`, [new Date(before)]);
}

/** Forgets the ids of messages that came before `before` (milliseconds). */
export async function forgetReceivedToDevice(c: Connection, before: number): Promise<number> {
  return execute(c, `DELETE FROM received_to_device WHERE received_at < $1`, [new Date(before)]);
}

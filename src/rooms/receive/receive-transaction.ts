import { parsePdu } from "../../matrix/event-format.ts";
import { isEventId, isRoomId, type EventId, type RoomId, type ServerName } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import { rulesOf, type RoomVersionRules } from "../../matrix/room-versions.ts";
import { receivedTransaction, storeReceivedTransaction } from "../../storage/received-transactions.ts";
import { standingInRooms } from "../../storage/room-standing.ts";
import { roomRules } from "../../storage/rooms.ts";
import type { RoomsContext } from "../context.ts";
import { receiveEdus } from "../edus/receive-edus.ts";
import { atStep } from "../failpoints.ts";
import { keepUnchecked } from "../fetch/keep-waiting.ts";
import type { PduReceived } from "./receive-pdu.ts";
import { inGraphOrder, receivePdus, type ReceivedPdus } from "./receive-pdus.ts";
import { receiveRefusals } from "./receive-refusals.ts";

interface ReceivedTransaction {
  readonly origin: ServerName;
  readonly txnId: string;
  readonly pdus: readonly JsonValue[];
  readonly edus: readonly JsonValue[];
}

/** By event id: empty for a PDU that was taken (also a rejected one), else why it was not. */
type TransactionResults = Readonly<Record<EventId, { readonly error?: string }>>;

/**
 * Handles a transaction: rooms and EDUs side by side, the PDUs of a room in the order of its graph. Returns only when
 * each PDU is stored, kept or dropped and each EDU handled; a repeated transaction gets the first one's answer.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#transactions
 */
export async function receiveTransaction(
  ctx: RoomsContext,
  transaction: ReceivedTransaction,
): Promise<TransactionResults> {
  const { origin, txnId, pdus, edus } = transaction;
  const { pool } = ctx.database;
  await ctx.federation.noteServerAlive(origin);
  const answered = await receivedTransaction(pool, origin, txnId);
  if (answered !== undefined) return answered as TransactionResults;

  const byRoom = new Map<RoomId, JsonObject[]>();
  for (const pdu of pdus) {
    // A PDU without a room can't even be named in the answer.
    if (!isJsonObject(pdu) || !isRoomId(pdu["room_id"])) continue;
    const ofRoom = byRoom.get(pdu["room_id"]) ?? [];
    ofRoom.push(pdu);
    byRoom.set(pdu["room_id"], ofRoom);
  }
  const [results] = await Promise.all([receiveRooms(ctx, origin, byRoom), receiveEdus(ctx, origin, edus)]);
  const answer: TransactionResults = results;
  // Of what changed nothing nothing need be remembered, or any server could fill our disk.
  if (edus.length === 0 && Object.values(answer).every(({ error }) => error !== undefined)) return answer;
  const stored = await atStep(ctx, "store the answer to a transaction", () =>
    storeReceivedTransaction(pool, { origin, txnId, response: answer }),
  );
  return stored as TransactionResults;
}

interface RoomPdus {
  readonly origin: ServerName;
  readonly roomId: RoomId;
  readonly pdus: readonly JsonObject[];
}

/** Where we are in, events are received; where we are about to be, they are kept until then. */
async function receiveRooms(
  ctx: RoomsContext,
  origin: ServerName,
  byRoom: ReadonlyMap<RoomId, readonly JsonObject[]>,
): Promise<TransactionResults> {
  if (byRoom.size === 0) return {};
  const standings = await standingInRooms(ctx.database.pool, [...byRoom.keys()], ctx.serverName);
  const ours: ReceivedPdus[] = [];
  const others: Promise<TransactionResults>[] = [];
  for (const { roomId, roomVersion, currentSnapshotId, weAreIn, joining } of standings) {
    const room: RoomPdus = { origin, roomId, pdus: byRoom.get(roomId) ?? [] };
    const rules = roomVersion === null ? undefined : rulesOf(roomVersion);
    if (weAreIn && rules !== undefined) ours.push({ ...room, rules, currentSnapshotId });
    else others.push(joining && !weAreIn ? keepUntilJoined(ctx, room) : refuse(ctx, room, rules));
  }
  const [received, ...answers] = await Promise.all([receivePdus(ctx, ours), ...others]);
  const results: Record<EventId, { error?: string }> = Object.assign({}, ...answers);
  for (const one of received) note(one, results);
  return results;
}

function note(received: PduReceived, results: Record<EventId, { error?: string }>): void {
  switch (received.kind) {
    case "stored":
      results[received.event.eventId] = {};
      break;
    case "waiting":
      results[received.eventId] = {};
      break;
    case "dropped":
      if (received.eventId !== undefined) results[received.eventId] = { error: received.reason };
  }
}

/** Of a room that we are not in, all that concerns us is what keeps our users out of it. */
async function refuse(
  ctx: RoomsContext,
  room: RoomPdus,
  rules: RoomVersionRules | undefined,
): Promise<TransactionResults> {
  const { origin, roomId, pdus } = room;
  const reason = "this server is not in the room";
  const taken = rules === undefined ? {} : await receiveRefusals(ctx, { ...room, rules });
  const count = pdus.length - Object.keys(taken).length;
  // One line, however many they are.
  if (count > 0) ctx.logger.info({ origin, roomId, count, reason }, "PDUs were dropped");
  return { ...allDropped(room, rules, reason), ...taken };
}

/** The room's version, and with it the events' ids, may not be known before the join is stored. */
async function keepUntilJoined(ctx: RoomsContext, { origin, roomId, pdus }: RoomPdus): Promise<TransactionResults> {
  const results: Record<EventId, { error?: string }> = {};
  const rules = await roomRules(ctx.database.pool, roomId);
  const receivedAt = ctx.now();
  for (const [index, pdu] of inOrder(pdus, rules).entries()) {
    const reason = "join-under-way";
    await keepUnchecked(ctx, { roomId, origin, pdu, reason, receivedAt: receivedAt + index, retryAt: receivedAt });
    const id = idOf(pdu, rules);
    if (id !== undefined) results[id] = {};
  }
  return results;
}

function inOrder(pdus: readonly JsonObject[], rules: RoomVersionRules | undefined): readonly JsonValue[] {
  return rules === undefined ? pdus : inGraphOrder(pdus, rules).map(({ pdu }) => pdu);
}

function allDropped(input: RoomPdus, rules: RoomVersionRules | undefined, error: string): TransactionResults {
  const ids = input.pdus.map((pdu) => idOf(pdu, rules)).filter((id) => id !== undefined);
  return Object.fromEntries(ids.map((id) => [id, { error }]));
}

function idOf(pdu: JsonValue, rules: RoomVersionRules | undefined): EventId | undefined {
  if (rules === undefined) return isJsonObject(pdu) && isEventId(pdu["event_id"]) ? pdu["event_id"] : undefined;
  const verdict = parsePdu(pdu, rules);
  return verdict.ok ? verdict.event.eventId : undefined;
}

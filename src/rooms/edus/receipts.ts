import {
  isEventId,
  isRoomId,
  isUserId,
  type EventId,
  type RoomId,
  type ServerName,
  type UserId,
} from "../../matrix/identifiers.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import type { Connection } from "../../storage/database.ts";
import { addEdusToOutbox } from "../../storage/outbox-edus.ts";
import {
  hasPlaceForReader,
  isNewsReceipt,
  storeReceipt,
  type Receipt,
  type ReceiptType,
} from "../../storage/receipts.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { serversOfRoom } from "../events/servers-of-room.ts";
import { EduUnusable } from "../edu-unusable.ts";
import { checkJoined } from "./joined-user.ts";
import { noteActive } from "./own-presence.ts";
import { checkServerInRoom, standingOf } from "./speaker.ts";

/** Of an EDU; servers send some dozens. */
const MAX_ROOMS = 100;
/** Of a room in an EDU. */
const MAX_READERS = 250;

interface OwnReceipt {
  readonly roomId: RoomId;
  readonly userId: UserId;
  readonly type: ReceiptType;
  readonly eventId: EventId;
  /** A thread's root, or "main". */
  readonly threadId?: string | undefined;
}

/**
 * A user of ours has read up to an event. Other servers are told, unless it is a private receipt.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#receipts
 * @throws MatrixError 403 M_FORBIDDEN for who is not joined
 */
export async function setOwnReceipt(ctx: RoomsContext, own: OwnReceipt): Promise<void> {
  const { roomId, userId, type, eventId } = own;
  await checkJoined(ctx, roomId, userId);
  const receipt: Receipt = { roomId, userId, type, eventId, threadId: own.threadId ?? "", ts: ctx.now() };
  if (await isNewsReceipt(ctx.database.pool, receipt)) {
    await commit(ctx, "store a receipt of ours", async (tx) => {
      if (type === "m.read") await tellReceipt(ctx, tx, receipt);
      await storeNews(tx, [receipt]);
    });
  }
  await noteActive(ctx, userId);
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#receipts */
async function tellReceipt(ctx: RoomsContext, tx: Connection, receipt: Receipt): Promise<void> {
  const { roomId, userId, eventId, threadId, ts } = receipt;
  const data = { ts, ...(threadId === "" ? {} : { thread_id: threadId }) };
  const edu = {
    destinations: await serversOfRoom(tx, ctx, roomId),
    eduType: "m.receipt",
    content: { [roomId]: { "m.read": { [userId]: { data, event_ids: [eventId] } } } },
    replaces: `receipt ${roomId} ${userId} ${threadId}`,
  };
  await addEdusToOutbox(tx, { edus: [edu] });
}

/**
 * Takes in an `m.receipt` EDU: what of it can be read and believed.
 *
 * @throws EduUnusable if that is nothing
 */
export async function receiveReceipts(ctx: RoomsContext, origin: ServerName, content: JsonObject): Promise<void> {
  const reasons: string[] = [];
  let taken = 0;
  for (const [roomId, ofRoom] of Object.entries(content).slice(0, MAX_ROOMS)) {
    try {
      taken += await receiveRoomReceipts(ctx, origin, receiptsIn(roomId, ofRoom));
    } catch (error) {
      if (!(error instanceof EduUnusable)) throw error;
      reasons.push(error.message);
    }
  }
  if (taken === 0 && reasons.length > 0) throw new EduUnusable(reasons.join("; "));
}

/** Only `m.read` is for other servers. */
function receiptsIn(roomId: string, ofRoom: JsonValue | undefined): readonly [Receipt, ...Receipt[]] {
  const read = isJsonObject(ofRoom) ? ofRoom["m.read"] : undefined;
  const entries = Object.entries(isRoomId(roomId) && isJsonObject(read) ? read : {});
  const receipts = entries.slice(0, MAX_READERS).flatMap(([userId, one]) => {
    const receipt = receiptOf(userId, one);
    return receipt === undefined ? [] : [{ roomId: roomId as RoomId, type: "m.read" as const, ...receipt }];
  });
  const [first, ...rest] = receipts;
  if (first === undefined) throw new EduUnusable("it holds no receipt that can be read");
  return [first, ...rest];
}

function receiptOf(userId: string, value: JsonValue | undefined): Omit<Receipt, "roomId" | "type"> | undefined {
  const { data, event_ids: eventIds } = isJsonObject(value) ? value : {};
  if (!isUserId(userId) || !isJsonObject(data) || !isJsonArray(eventIds)) return undefined;
  const eventId = eventIds.at(-1);
  const { ts, thread_id: threadId = "" } = data;
  if (!isEventId(eventId) || !isTimestamp(ts) || !isThreadId(threadId)) return undefined;
  return { userId, eventId, threadId, ts };
}

function isTimestamp(ts: JsonValue | undefined): ts is number {
  return typeof ts === "number" && Number.isSafeInteger(ts);
}

function isThreadId(threadId: JsonValue): threadId is string {
  return threadId === "" || threadId === "main" || isEventId(threadId);
}

/** @returns how many were believed */
async function receiveRoomReceipts(
  ctx: RoomsContext,
  origin: ServerName,
  receipts: readonly [Receipt, ...Receipt[]],
): Promise<number> {
  const [{ roomId }] = receipts;
  await checkServerInRoom(ctx, roomId, origin);
  let believed = 0;
  const news: Receipt[] = [];
  for (const receipt of receipts) {
    if (!(await isBelieved(ctx, origin, receipt))) continue;
    believed += 1;
    if (await isNewsReceipt(ctx.database.pool, receipt)) news.push(receipt);
  }
  if (believed === 0) throw new EduUnusable(`none of its readers is a member of ${roomId}`);
  if (news.length > 0) await commit(ctx, "store receipts", async (tx) => await storeNews(tx, news));
  return believed;
}

/** Looks again at what is news: now nobody else can store receipts until the transaction ends. */
async function storeNews(tx: Connection, receipts: readonly Receipt[]): Promise<void> {
  const streamId = await takeStreamPositions(tx, 1);
  for (const receipt of receipts) {
    if (await isNewsReceipt(tx, receipt)) await storeReceipt(tx, receipt, streamId);
  }
}

async function isBelieved(ctx: RoomsContext, origin: ServerName, { roomId, userId }: Receipt): Promise<boolean> {
  const standing = await standingOf(ctx, { roomId, userId, origin });
  if (standing !== "believed") return standing === "joined";
  return await hasPlaceForReader(ctx.database.pool, roomId, origin);
}

import type { LongObject } from "../../federation-api/long-json.ts";
import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { changedRoomAccountData } from "../../storage/account-data.ts";
import { changedReceipts, type Receipt } from "../../storage/receipts.ts";
import type { RoomsSince } from "../../storage/room-ranges.ts";
import { changedTyping } from "../../storage/typing.ts";
import type { RoomsContext } from "../context.ts";
import { passesTypeFilter, type EventFilter } from "../read/event-filter.ts";
import { syncToken } from "../read/sync-token.ts";
import type { SyncRequest } from "./sync.ts";

interface RoomSince {
  readonly roomId: RoomId;
  /** Undefined where the client knows nothing of the room yet. */
  readonly since: bigint | undefined;
}

/** Before every position. */
const START_OF_STREAM = -(2n ** 62n);

/**
 * Adds to the joined rooms who types, who has read what, and the user's own data of the room. A room where nothing else
 * has happened is told for that alone.
 *
 * @param rooms all those that the client may be told of, by what it knows already
 */
export async function withEphemeral(
  ctx: RoomsContext,
  request: SyncRequest,
  { group, rooms, position }: { readonly group: LongObject; readonly rooms: readonly RoomSince[]; position: bigint },
): Promise<LongObject> {
  const shown = rooms.filter(({ roomId, since }) => since !== undefined || group[roomId] !== undefined);
  const since = shown.map((room) => room.since ?? START_OF_STREAM);
  const asked: RoomsSince = { roomIds: shown.map(({ roomId }) => roomId), since, to: position };
  const ephemeral = await ephemeralEvents(ctx, request, asked);
  const accountData = await accountDataEvents(ctx, request, asked);
  const told: Record<string, LongObject> = { ...(group as Record<string, LongObject>) };
  for (const roomId of new Set([...ephemeral.keys(), ...accountData.keys()])) {
    const timeline = { events: [], limited: false, prev_batch: syncToken(position) };
    const [passing, kept] = [ephemeral.get(roomId), accountData.get(roomId)];
    told[roomId] = {
      ...(told[roomId] ?? { timeline }),
      ...(passing === undefined ? {} : { ephemeral: { events: passing } }),
      ...(kept === undefined ? {} : { account_data: { events: kept } }),
    };
  }
  return told;
}

type EventsByRoom = ReadonlyMap<RoomId, readonly JsonObject[]>;

async function ephemeralEvents(ctx: RoomsContext, request: SyncRequest, asked: RoomsSince): Promise<EventsByRoom> {
  const { pool } = ctx.database;
  const filter = request.filter.room?.ephemeral ?? {};
  const events = new Map<RoomId, JsonObject[]>();
  if (passesTypeFilter({ type: "m.typing" }, filter)) {
    for (const [roomId, userIds] of await changedTyping(pool, asked)) {
      add(events, roomId, { type: "m.typing", content: { user_ids: userIds } });
    }
  }
  if (passesTypeFilter({ type: "m.receipt" }, filter)) {
    const receipts = await changedReceipts(pool, { ...asked, viewer: request.requester.userId });
    for (const [roomId, content] of receiptContents(receipts)) add(events, roomId, { type: "m.receipt", content });
  }
  return events;
}

type ReceiptContent = Record<EventId, Record<string, Record<UserId, JsonObject>>>;

/**
 * By event, type and user: there is place for one. A receipt of no thread wins, as it holds for every thread.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mreceipt
 */
export function receiptContents(receipts: readonly Receipt[]): ReadonlyMap<RoomId, JsonObject> {
  const contents = new Map<RoomId, ReceiptContent>();
  for (const { roomId, eventId, type, userId, threadId, ts } of receipts) {
    const content = contents.get(roomId) ?? {};
    const ofEvent = (content[eventId] ??= {});
    const ofType = (ofEvent[type] ??= {});
    const hasUnthreaded = ofType[userId] !== undefined && ofType[userId]["thread_id"] === undefined;
    if (!hasUnthreaded) ofType[userId] = { ts, ...(threadId === "" ? {} : { thread_id: threadId }) };
    contents.set(roomId, content);
  }
  return contents;
}

async function accountDataEvents(ctx: RoomsContext, request: SyncRequest, asked: RoomsSince): Promise<EventsByRoom> {
  const filter: EventFilter = request.filter.room?.account_data ?? {};
  const viewer = request.requester.userId;
  const events = new Map<RoomId, JsonObject[]>();
  for (const { roomId, type, content } of await changedRoomAccountData(ctx.database.pool, { ...asked, viewer })) {
    if (passesTypeFilter({ type, sender: viewer }, filter)) add(events, roomId, { type, content });
  }
  return events;
}

function add(events: Map<RoomId, JsonObject[]>, roomId: RoomId, event: JsonObject): void {
  const ofRoom = events.get(roomId);
  if (ofRoom === undefined) events.set(roomId, [event]);
  else ofRoom.push(event);
}

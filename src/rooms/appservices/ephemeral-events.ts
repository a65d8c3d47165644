import type { ApplicationService } from "../../appservice-client/registration.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { presenceWithin, receiptsWithin, roomsWithTyping } from "../../storage/appservice-ephemeral.ts";
import type { StreamRange } from "../../storage/streams.ts";
import { changedTyping } from "../../storage/typing.ts";
import type { RoomsContext } from "../context.ts";
import { presenceContent } from "../edus/own-presence.ts";
import { receiptContents } from "../sync/sync-ephemeral.ts";
import { roomInterest } from "./interest.ts";
import { isUserOf } from "./namespaces.ts";

/**
 * Who types, who has read what, and who is there, as far as it changed within a range and a service wants to know: of
 * the rooms that it is interested in, and of its users. Only what holds now is told, however long the range.
 *
 * @see https://spec.matrix.org/v1.19/application-service-api/#pushing-edus
 */
export async function ephemeralEvents(
  ctx: RoomsContext,
  service: ApplicationService,
  range: StreamRange,
): Promise<readonly JsonObject[]> {
  if (!service.receiveEphemeral || range.to <= range.from) return [];
  const { pool } = ctx.database;
  const typingRooms = await roomsWithTyping(pool, range);
  const allReceipts = await receiptsWithin(pool, range);
  const allPresence = await presenceWithin(pool, range);
  const roomIds = [
    ...typingRooms,
    ...allReceipts.map(({ roomId }) => roomId),
    ...allPresence.flatMap((one) => one.roomIds),
  ];
  const interest = await roomInterest(ctx, service, [...new Set(roomIds)], range);

  const wantedRooms = typingRooms.filter((roomId) => interest.wants(roomId, range.to));
  const since = wantedRooms.map(() => range.from);
  const typing = await changedTyping(pool, { roomIds: wantedRooms, since, to: range.to });
  const receipts = allReceipts.filter(
    ({ roomId, type, userId }) =>
      interest.wants(roomId, range.to) && (type !== "m.read.private" || isUserOf(service, userId, ctx.serverName)),
  );
  const presences = allPresence.filter(
    ({ presence, roomIds: rooms }) =>
      isUserOf(service, presence.userId, ctx.serverName) || rooms.some((roomId) => interest.wants(roomId, range.to)),
  );
  const now = ctx.now();
  return [
    ...[...typing].map(([roomId, userIds]) => ({
      type: "m.typing",
      room_id: roomId,
      content: { user_ids: userIds },
    })),
    ...[...receiptContents(receipts)].map(([roomId, content]) => ({ type: "m.receipt", room_id: roomId, content })),
    ...presences.map(({ presence }) => ({
      type: "m.presence",
      sender: presence.userId,
      content: presenceContent(presence, now),
    })),
  ];
}

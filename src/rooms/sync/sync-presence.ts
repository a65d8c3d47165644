import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { changedPresence, presenceInRooms, type Presence } from "../../storage/presence.ts";
import { localMembershipChanges, type StreamRange } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { presenceContent } from "../edus/own-presence.ts";
import { passesTypeFilter } from "../read/event-filter.ts";
import type { SyncRequest } from "./sync.ts";

/**
 * How those are who share a room with the user: who is not offline at first, and in rooms that the user has entered, and
 * then whatever changes.
 */
export async function syncPresence(
  ctx: RoomsContext,
  { requester, since, filter }: SyncRequest,
  position: bigint,
): Promise<JsonObject> {
  const { pool } = ctx.database;
  const { userId: viewer } = requester;
  const range = { from: since ?? -1n, to: position };
  const changed = await changedPresence(pool, viewer, { ...range, withOffline: since !== undefined });
  const met = since === undefined ? [] : await presenceOfTheMet(ctx, viewer, range);
  const told = new Map([...met, ...changed].map((presence) => [presence.userId, presence]));
  const wanted = [...told.values()].filter(({ userId }) =>
    passesTypeFilter({ type: "m.presence", sender: userId }, filter.presence ?? {}),
  );
  if (wanted.length === 0) return {};
  const now = ctx.now();
  const events = wanted.map((presence) => ({
    type: "m.presence",
    sender: presence.userId,
    content: presenceContent(presence, now),
  }));
  return { presence: { events } };
}

async function presenceOfTheMet(ctx: RoomsContext, viewer: UserId, range: StreamRange): Promise<readonly Presence[]> {
  const { pool } = ctx.database;
  const changes = await localMembershipChanges(pool, viewer, range);
  const entered = changes.filter(({ membership }) => membership === "join").map(({ roomId }) => roomId);
  return entered.length === 0 ? [] : await presenceInRooms(pool, entered);
}

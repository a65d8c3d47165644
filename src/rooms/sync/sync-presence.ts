import type { JsonObject } from "../../matrix/json.ts";
import { changedPresence } from "../../storage/presence.ts";
import type { RoomsContext } from "../context.ts";
import { presenceContent } from "../edus/own-presence.ts";
import { passesTypeFilter } from "../read/event-filter.ts";
import type { SyncRequest } from "./sync.ts";

/** How those are who share a room with the user: who is not offline at first, and then whatever changes. */
export async function syncPresence(
  ctx: RoomsContext,
  { requester, since, filter }: SyncRequest,
  position: bigint,
): Promise<JsonObject> {
  const range = { from: since ?? -1n, to: position, withOffline: since !== undefined };
  const changed = await changedPresence(ctx.database.pool, requester.userId, range);
  const wanted = changed.filter(({ userId }) =>
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

import type { JsonObject } from "../../matrix/json.ts";
import { changedAccountData } from "../../storage/account-data.ts";
import type { RoomsContext } from "../context.ts";
import { passesTypeFilter } from "../read/event-filter.ts";
import type { SyncRequest } from "./sync.ts";

/** What the user's clients have kept that belongs to no room. */
export async function syncAccountData(
  ctx: RoomsContext,
  { requester, since, filter }: SyncRequest,
  position: bigint,
): Promise<JsonObject> {
  const { userId } = requester;
  const changed = await changedAccountData(ctx.database.pool, userId, { from: since ?? -1n, to: position });
  const events = changed
    .filter(({ type }) => passesTypeFilter({ type, sender: userId }, filter.account_data ?? {}))
    .map(({ type, content }) => ({ type, content }));
  return events.length === 0 ? {} : { account_data: { events } };
}

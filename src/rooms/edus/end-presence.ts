import { serverNameOf } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import {
  forgetPresence,
  hasEnteredRoomSinceTold,
  lockPresence,
  prolongPresence,
  storePresence,
  usersWithPresenceDue,
  type Presence,
} from "../../storage/presence.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { storeOwn, tellPresence } from "./own-presence.ts";

/** Who has done nothing for so long is away. */
const IDLE_AFTER_MS = 5 * 60_000;
/** Others take a user for offline of whom they have heard nothing for half an hour. */
const TELL_AGAIN_AFTER_MS = 20 * 60_000;
const FORGET_AFTER_MS = 7 * 24 * 60 * 60_000;

/**
 * Ends the presence of those who are not heard of any more. Of our own users tells others again in time, and soon those
 * whose room they have joined.
 */
export async function endPresence(ctx: RoomsContext): Promise<void> {
  const now = ctx.now();
  const { serverName } = ctx;
  await forgetPresence(ctx.database.pool, serverName, now - FORGET_AFTER_MS);
  const due = { now, serverName, idleBefore: now - IDLE_AFTER_MS, toldBefore: now - TELL_AGAIN_AFTER_MS };
  // One transaction for each: whoever wants a stream position waits for the whole of it.
  for (const userId of await usersWithPresenceDue(ctx.database.pool, due)) {
    await commit(ctx, "end presence", async (tx) => await endOrTell(ctx, tx, await lockPresence(tx, userId)));
  }
}

async function endOrTell(ctx: RoomsContext, tx: Connection, before: Presence | undefined): Promise<void> {
  const now = ctx.now();
  // Another process was here first, or the user has come back.
  if (before === undefined || before.presence === "offline") return;
  const isOurs = serverNameOf(before.userId) === ctx.serverName;
  if (before.onlineUntil <= now) {
    const after: Presence = { ...before, presence: "offline", currentlyActive: false };
    if (isOurs) await storeOwn(ctx, tx, before, after);
    else await storePresence(tx, after, await takeStreamPositions(tx, 1));
  } else if (isOurs && before.presence === "online" && before.lastActiveAt <= now - IDLE_AFTER_MS) {
    await storeOwn(ctx, tx, before, { ...before, presence: "unavailable", currentlyActive: false });
  } else if (isOurs && (await hasEnteredRoomSinceTold(tx, before.userId))) {
    await tellPresence(ctx, tx, before);
    await storePresence(tx, { ...before, toldAt: now }, await takeStreamPositions(tx, 1));
  } else if (before.toldAt !== null && before.toldAt <= now - TELL_AGAIN_AFTER_MS) {
    await tellPresence(ctx, tx, before);
    await prolongPresence(tx, { ...before, toldAt: now });
  }
}

import { isUserId, serverNameOf, type ServerName } from "../../matrix/identifiers.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import {
  acquaintanceOf,
  hasPlaceForPresence,
  lockPresence,
  loadPresence,
  prolongPresence,
  storePresence,
  type Presence,
  type PresenceState,
} from "../../storage/presence.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { EduUnusable } from "../edu-unusable.ts";

/** Other servers tell again in less time than this of a user who is not offline. */
const REMOTE_PRESENCE_MS = 30 * 60_000;
const MAX_STATUS_LENGTH = 1_024;
/** Of an EDU; servers send some dozens. */
const MAX_ENTRIES = 250;

/**
 * Takes in an `m.presence` EDU, of users who share a room with us: also of a partial room's, where we believe that who
 * is not known to be outside is in it.
 *
 * @throws EduUnusable if there is nothing in it that can be read and believed
 */
export async function receivePresence(ctx: RoomsContext, origin: ServerName, content: JsonObject): Promise<void> {
  const { push } = content;
  let believed = 0;
  for (const entry of isJsonArray(push) ? push.slice(0, MAX_ENTRIES) : []) {
    const presence = presenceOf(entry, ctx.now());
    if (presence === undefined || serverNameOf(presence.userId) !== origin) continue;
    if (!(await isBelieved(ctx, origin, presence))) continue;
    believed += 1;
    await takePresence(ctx, presence);
  }
  if (believed === 0)
    throw new EduUnusable("it holds no presence that can be read, of a user who shares a room with us");
}

function presenceOf(entry: JsonValue, now: number): Presence | undefined {
  if (!isJsonObject(entry)) return undefined;
  const { user_id: userId, presence, last_active_ago: ago, status_msg: status } = entry;
  if (!isUserId(userId) || !isPresenceState(presence)) return undefined;
  const past = typeof ago === "number" && Number.isFinite(ago) ? Math.min(Math.max(0, ago), now) : 0;
  return {
    userId,
    presence,
    statusMsg: typeof status === "string" ? status.slice(0, MAX_STATUS_LENGTH) : null,
    lastActiveAt: now - past,
    currentlyActive: entry["currently_active"] === true,
    onlineUntil: now + REMOTE_PRESENCE_MS,
    toldAt: null,
  };
}

function isPresenceState(value: JsonValue | undefined): value is PresenceState {
  return value === "online" || value === "unavailable" || value === "offline";
}

async function isBelieved(ctx: RoomsContext, origin: ServerName, { userId, presence }: Presence): Promise<boolean> {
  const { pool } = ctx.database;
  const acquaintance = await acquaintanceOf(pool, userId, { serverName: ctx.serverName });
  if (acquaintance !== "maybe-joined") return acquaintance === "joined";
  if ((await loadPresence(pool, userId)) !== undefined) return true;
  return presence !== "offline" && (await hasPlaceForPresence(pool, origin));
}

async function takePresence(ctx: RoomsContext, presence: Presence): Promise<void> {
  await commit(ctx, "store presence", async (tx) => {
    const before = await lockPresence(tx, presence.userId);
    const isNews =
      before?.presence !== presence.presence ||
      before.statusMsg !== presence.statusMsg ||
      before.currentlyActive !== presence.currentlyActive;
    if (isNews) await storePresence(tx, presence, await takeStreamPositions(tx, 1));
    else await prolongPresence(tx, presence);
  });
}

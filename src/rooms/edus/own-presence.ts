import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { Connection } from "../../storage/database.ts";
import { addEdusToOutbox } from "../../storage/outbox-edus.ts";
import {
  acquaintanceOf,
  loadPresence,
  lockPresence,
  prolongPresence,
  serversSharingRooms,
  storePresence,
  type Presence,
  type PresenceState,
} from "../../storage/presence.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";

/** A client that has lost its connection comes back within this time, or counts as gone. */
const GRACE_MS = 60_000;
/** Written down again only after a part of it: clients ask for news all the time. */
const REWRITE_MS = 30_000;

type Change = Pick<Presence, "presence" | "lastActiveAt" | "onlineUntil"> & { readonly statusMsg?: string | null };

/**
 * A user of ours says how they are.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
 */
export async function setOwnPresence(
  ctx: RoomsContext,
  wish: { readonly userId: UserId; readonly presence: PresenceState; readonly statusMsg: string | null },
): Promise<void> {
  const { presence, statusMsg } = wish;
  const now = ctx.now();
  await changeOwn(ctx, wish.userId, (before) => ({
    presence,
    statusMsg,
    lastActiveAt: presence === "online" ? now : (before?.lastActiveAt ?? now),
    onlineUntil: Math.max(before?.onlineUntil ?? 0, now + GRACE_MS),
  }));
}

/**
 * A client of the user asks for news: that alone makes them present, as the client wishes to be shown. Who has been
 * idle stays so until they do something.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
 */
export async function notePolling(
  ctx: RoomsContext,
  poll: { readonly userId: UserId; readonly as: PresenceState; readonly forMs: number },
): Promise<void> {
  if (poll.as === "offline") return;
  const change = (before: Presence | undefined): Change | undefined => afterPoll(before, poll, ctx.now());
  // Most polls change nothing: those lock nothing.
  if (change(await loadPresence(ctx.database.pool, poll.userId)) === undefined) return;
  await changeOwn(ctx, poll.userId, change);
}

function afterPoll(
  before: Presence | undefined,
  poll: { readonly as: PresenceState; readonly forMs: number },
  now: number,
): Change | undefined {
  const until = now + poll.forMs + GRACE_MS;
  const isShown = before !== undefined && before.presence !== "offline";
  const presence = isShown && before.presence === "unavailable" ? before.presence : poll.as;
  if (before?.presence === presence && before.onlineUntil > until - REWRITE_MS) return undefined;
  return {
    presence,
    lastActiveAt: isShown ? before.lastActiveAt : now,
    onlineUntil: Math.max(before?.onlineUntil ?? 0, until),
  };
}

/** The user has done something that others may notice. Who wants to be offline stays so. */
export async function noteActive(ctx: RoomsContext, userId: UserId): Promise<void> {
  const change = (before: Presence | undefined): Change | undefined => afterAction(before, ctx.now());
  if (change(await loadPresence(ctx.database.pool, userId)) === undefined) return;
  await changeOwn(ctx, userId, change);
}

function afterAction(before: Presence | undefined, now: number): Change | undefined {
  if (before === undefined || before.presence === "offline") return undefined;
  if (before.presence === "online" && before.lastActiveAt > now - REWRITE_MS) return undefined;
  return { presence: "online", lastActiveAt: now, onlineUntil: before.onlineUntil };
}

async function changeOwn(
  ctx: RoomsContext,
  userId: UserId,
  change: (before: Presence | undefined) => Change | undefined,
): Promise<void> {
  await commit(ctx, "store presence of ours", async (tx) => {
    const before = await lockPresence(tx, userId);
    const changed = change(before);
    if (changed === undefined) return;
    const currentlyActive = changed.presence === "online";
    const unchanged = { userId, statusMsg: before?.statusMsg ?? null, toldAt: before?.toldAt ?? null };
    await storeOwn(ctx, tx, before, { ...unchanged, ...changed, currentlyActive });
  });
}

/** Stores a user's presence, and tells others if there is anything new to see. */
export async function storeOwn(
  ctx: RoomsContext,
  tx: Connection,
  before: Presence | undefined,
  after: Presence,
): Promise<void> {
  const isNews =
    before?.presence !== after.presence ||
    before.statusMsg !== after.statusMsg ||
    before.currentlyActive !== after.currentlyActive;
  if (!isNews) return await prolongPresence(tx, after);
  await tellPresence(ctx, tx, after);
  await storePresence(tx, { ...after, toldAt: ctx.now() }, await takeStreamPositions(tx, 1));
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#presence */
export async function tellPresence(ctx: RoomsContext, tx: Connection, presence: Presence): Promise<void> {
  const servers = await serversSharingRooms(tx, presence.userId);
  const edu = {
    destinations: servers.filter((server) => server !== ctx.serverName),
    eduType: "m.presence",
    content: { push: [{ user_id: presence.userId, ...presenceContent(presence, ctx.now()) }] },
    replaces: `presence ${presence.userId}`,
  };
  await addEdusToOutbox(tx, { edus: [edu] });
}

/** What clients and servers are told of it. */
export function presenceContent(presence: Presence, now: number): JsonObject {
  const { statusMsg, currentlyActive } = presence;
  return {
    presence: presence.presence,
    last_active_ago: Math.max(0, now - presence.lastActiveAt),
    currently_active: currentlyActive,
    ...(statusMsg === null ? {} : { status_msg: statusMsg }),
  };
}

/**
 * How a user is, for one of ours who shares a room with them.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus
 * @throws MatrixError 403 M_FORBIDDEN for a stranger
 */
export async function readPresence(
  ctx: RoomsContext,
  { userId, viewer }: { readonly userId: UserId; readonly viewer: UserId },
): Promise<JsonObject> {
  const { pool } = ctx.database;
  if (userId !== viewer && (await acquaintanceOf(pool, userId, { userId: viewer })) === "none") {
    throw new MatrixError(403, "M_FORBIDDEN", `You share no room with ${userId}`);
  }
  const presence = await loadPresence(pool, userId);
  return presence === undefined ? { presence: "offline" } : presenceContent(presence, ctx.now());
}

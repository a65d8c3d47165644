import {
  isRoomId,
  isUserId,
  serverNameOf,
  type RoomId,
  type ServerName,
  type UserId,
} from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { Connection } from "../../storage/database.ts";
import { addEdusToOutbox } from "../../storage/outbox-edus.ts";
import { timeLeft } from "../../storage/time-left.ts";
import { expireTypists, nextTypingExpiry, noteTypingChanged, startTyping, stopTyping } from "../../storage/typing.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { serversOfRoom } from "../events/servers-of-room.ts";
import { EduUnusable } from "../edu-unusable.ts";
import { checkJoined } from "./joined-user.ts";
import { noteActive } from "./own-presence.ts";
import { checkServerInRoom, standingOf } from "./speaker.ts";

/** Other servers tell again in less time than this of a user who types on. */
const REMOTE_TYPING_MS = 60_000;
/** A client tells again; one that asks for more has forgotten that it is a person who types. */
const MAX_OWN_TYPING_MS = 120_000;

interface OwnTyping {
  readonly roomId: RoomId;
  readonly userId: UserId;
  /** For how long, in milliseconds; undefined for a user who types no longer. */
  readonly forMs: number | undefined;
}

/**
 * A user of ours begins, goes on or ceases to type.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid
 * @throws MatrixError 403 M_FORBIDDEN for who is not joined
 */
export async function setOwnTyping(ctx: RoomsContext, { roomId, userId, forMs }: OwnTyping): Promise<void> {
  await checkJoined(ctx, roomId, userId);
  await commit(ctx, "store typing of ours", async (tx) => {
    const hasChanged =
      forMs === undefined
        ? await stopTyping(tx, { roomId, userId })
        : await startTyping(tx, { roomId, userId, expiresAt: ctx.now() + Math.min(forMs, MAX_OWN_TYPING_MS) });
    // Told also where nothing has changed: other servers forget who is not said to type on.
    if (hasChanged || forMs !== undefined) await tellTyping(ctx, tx, { roomId, userId, typing: forMs !== undefined });
    if (hasChanged) await noteTypingChanged(tx, [roomId]);
  });
  if (forMs !== undefined) await noteActive(ctx, userId);
}

interface Told {
  readonly roomId: RoomId;
  readonly userId: UserId;
  readonly typing: boolean;
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#typing-notifications */
async function tellTyping(ctx: RoomsContext, tx: Connection, { roomId, userId, typing }: Told): Promise<void> {
  const edu = {
    destinations: await serversOfRoom(tx, ctx, roomId),
    eduType: "m.typing",
    content: { room_id: roomId, user_id: userId, typing },
    replaces: `typing ${roomId} ${userId}`,
  };
  await addEdusToOutbox(tx, { edus: [edu] });
}

/** Takes in an `m.typing` EDU. @throws EduUnusable */
export async function receiveTyping(ctx: RoomsContext, origin: ServerName, content: JsonObject): Promise<void> {
  const { room_id: roomId, user_id: userId, typing } = content;
  if (!isRoomId(roomId) || !isUserId(userId) || typeof typing !== "boolean") {
    throw new EduUnusable("it names no room, no user, or not whether they type");
  }
  await checkServerInRoom(ctx, roomId, origin);
  if ((await standingOf(ctx, { roomId, userId, origin })) === "outside") {
    throw new EduUnusable(`${userId} is no member of ${roomId}`);
  }
  await commit(ctx, "store typing", async (tx) => {
    const hasChanged = typing
      ? await startTyping(tx, { roomId, userId, expiresAt: ctx.now() + REMOTE_TYPING_MS })
      : await stopTyping(tx, { roomId, userId });
    if (hasChanged) await noteTypingChanged(tx, [roomId]);
  });
}

/**
 * Ends the typing whose time is over; of our own users other servers are told.
 *
 * @returns when the next one's is, in milliseconds since the epoch
 */
export async function expireTyping(ctx: RoomsContext): Promise<number | undefined> {
  const now = ctx.now();
  const next = await nextTypingExpiry(ctx.database.pool);
  if (next === undefined || timeLeft(next, MAX_OWN_TYPING_MS, now) > 0) return next;
  await commit(ctx, "expire typing", async (tx) => {
    const expired = await expireTypists(tx, { now, longestMs: MAX_OWN_TYPING_MS });
    for (const { roomId, userId } of expired) {
      if (serverNameOf(userId) === ctx.serverName) await tellTyping(ctx, tx, { roomId, userId, typing: false });
    }
    const rooms = new Set(expired.map(({ roomId }) => roomId));
    if (rooms.size > 0) await noteTypingChanged(tx, [...rooms]);
  });
  return await nextTypingExpiry(ctx.database.pool);
}

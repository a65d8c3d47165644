import type { EventId, RoomId } from "../matrix/identifiers.ts";
import type { RoomsContext } from "./context.ts";

/** Why an event that a server gave us is not in the room: each is for the operator to see. */
const LOSSES = [
  /** Nobody could tell its past for a day. */
  "past-unknown",
  /** Nobody could tell the key of its server for an hour. */
  "key-unknown",
  /** More of the room's events waited for their past than are kept. */
  "too-many-wait",
  /** It came with the answer to a join, and was not genuine, or built upon one that was not. */
  "join-answer",
] as const;
type Loss = (typeof LOSSES)[number];

interface LostEvents {
  readonly loss: Loss;
  readonly roomId: RoomId;
  /** Those whose ids could be read. */
  readonly eventIds: readonly EventId[];
  /** All of them, where that is more. */
  readonly count?: number;
  readonly reason: string;
}

/** A log line names so many. */
const NAMED = 20;

const counted = new Map<Loss, number>(LOSSES.map((loss) => [loss, 0]));

/** Tells the operator, in the log and by a metric, of events that we let go. */
export function reportLostEvents(ctx: RoomsContext, lost: LostEvents): void {
  const { loss, roomId, eventIds, reason } = lost;
  const count = lost.count ?? eventIds.length;
  if (count === 0) return;
  counted.set(loss, (counted.get(loss) ?? 0) + count);
  ctx.logger.warn({ loss, roomId, count, eventIds: eventIds.slice(0, NAMED), reason }, "events were let go");
}

/** How many this process has let go since it started, by cause. */
export function lostEventCounts(): ReadonlyMap<Loss, number> {
  return counted;
}

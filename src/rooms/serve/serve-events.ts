import { MatrixError } from "../../federation-api/matrix-error.ts";
import { depthOf, prevEventIds, type Pdu } from "../../matrix/event.ts";
import type { EventId, ServerName } from "../../matrix/identifiers.ts";
import { loadEvent, loadEvents, type StoredEvent } from "../../storage/events.ts";
import type { RoomsContext } from "../context.ts";
import { pdusVisibleTo } from "./event-visibility.ts";
import {
  eventNotFound,
  requireEventServable,
  requireServerInRoom,
  roomServedTo,
  servedRoom,
  type RoomQuestion,
} from "./served-room.ts";

/**
 * One event, for a server that is in its room or was sent it by us. Soft-failed events and outliers are served,
 * rejected ones are not.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403
 */
export async function serveEvent(
  ctx: RoomsContext,
  question: { readonly origin: ServerName; readonly eventId: EventId },
): Promise<Pdu> {
  const event = await loadEvent(ctx.database.pool, question.eventId);
  if (event === undefined || event.rejection !== null) throw eventNotFound(question.eventId);
  const room = await servedRoom(ctx, event.roomId);
  await requireEventServable(ctx, room, { origin: question.origin, event });
  const [pdu] = await pdusVisibleTo(ctx, room, question.origin, [event]);
  if (pdu === undefined) throw eventNotFound(question.eventId);
  return pdu;
}

interface MissingEventsQuestion extends RoomQuestion {
  /** What the asking server has already: the walk ends there. */
  readonly earliest: readonly EventId[];
  /** Whose past is asked for; they are not part of the answer. */
  readonly latest: readonly EventId[];
  readonly limit: number;
  readonly minDepth: number;
}

const MAX_MISSING_EVENTS = 20;

/**
 * The events between two places of a room's graph, oldest first. Nearest to `latest` come first where the limit
 * leaves some out.
 */
export async function serveMissingEvents(ctx: RoomsContext, question: MissingEventsQuestion): Promise<readonly Pdu[]> {
  const room = await roomServedTo(ctx, question);
  await requireServerInRoom(ctx, room, question.origin);
  const latest = await timelineEvents(ctx, question, question.latest);
  const minDepth = BigInt(question.minDepth);
  const walked = await walkBack(ctx, question, {
    from: latest.flatMap((event) => prevEventIds(event.pdu)),
    stopAt: new Set([...question.earliest, ...question.latest]),
    limit: Math.min(question.limit, MAX_MISSING_EVENTS),
    wanted: (event) => depthOf(event.pdu) >= minDepth,
  });
  return await pdusVisibleTo(ctx, room, question.origin, walked.toReversed());
}

interface BackfillQuestion extends RoomQuestion {
  /** The newest events of the answer. */
  readonly from: readonly EventId[];
  readonly limit: number;
}

const MAX_BACKFILL_EVENTS = 100;
const MAX_BACKFILL_STARTS = 20;

/** The given events and what is before them, newest first. */
export async function serveBackfill(ctx: RoomsContext, question: BackfillQuestion): Promise<readonly Pdu[]> {
  if (question.from.length > MAX_BACKFILL_STARTS) {
    throw new MatrixError(400, "M_INVALID_PARAM", `v may be given ${MAX_BACKFILL_STARTS} times`);
  }
  const room = await roomServedTo(ctx, question);
  await requireServerInRoom(ctx, room, question.origin);
  const walked = await walkBack(ctx, question, {
    from: question.from,
    stopAt: new Set(),
    limit: Math.min(question.limit, MAX_BACKFILL_EVENTS),
    wanted: () => true,
  });
  return await pdusVisibleTo(ctx, room, question.origin, walked);
}

interface Walk {
  readonly from: readonly EventId[];
  /** Neither given nor walked past. */
  readonly stopAt: ReadonlySet<EventId>;
  readonly limit: number;
  /** What is not wanted is not walked past either. */
  readonly wanted: (event: StoredEvent) => boolean;
}

/** Newest first: by depth, so that of two branches the longer is not followed to its end before the other begins. */
async function walkBack(ctx: RoomsContext, question: RoomQuestion, walk: Walk): Promise<readonly StoredEvent[]> {
  const seen = new Set<EventId>(walk.stopAt);
  const found: StoredEvent[] = [];
  const front: StoredEvent[] = [];
  let next = walk.from;
  while (found.length < walk.limit) {
    const ids = [...new Set(next)].filter((id) => !seen.has(id));
    for (const id of ids) seen.add(id);
    front.push(...(await timelineEvents(ctx, question, ids)).filter(walk.wanted));
    front.sort(newestLast);
    const newest = front.pop();
    if (newest === undefined) break;
    found.push(newest);
    next = prevEventIds(newest.pdu);
  }
  return found;
}

function newestLast(a: StoredEvent, b: StoredEvent): number {
  const [depthA, depthB] = [depthOf(a.pdu), depthOf(b.pdu)];
  if (depthA !== depthB) return depthA < depthB ? -1 : 1;
  return (a.streamId ?? 0n) < (b.streamId ?? 0n) ? -1 : 1;
}

/** Those of the events that are in the room's timeline here; of outliers we don't know what is around them. */
async function timelineEvents(
  ctx: RoomsContext,
  { roomId }: RoomQuestion,
  ids: readonly EventId[],
): Promise<readonly StoredEvent[]> {
  const events = ids.length === 0 ? [] : [...(await loadEvents(ctx.database.pool, ids)).values()];
  return events.filter((event) => event.roomId === roomId && !event.outlier);
}

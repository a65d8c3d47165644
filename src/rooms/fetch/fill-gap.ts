import { FederationFailure } from "../../federation-client/failures.ts";
import { createReadBudget, type ReadBudget } from "../../federation-client/read-budget.ts";
import { depthOf, prevEventIds, type Event } from "../../matrix/event.ts";
import { topologicalOrder } from "../../matrix/event-graph.ts";
import type { EventId, ServerName } from "../../matrix/identifiers.ts";
import { hasState, loadEvents } from "../../storage/events.ts";
import { forwardExtremities } from "../../storage/rooms.ts";
import { depthOfArrival } from "../../storage/timeline.ts";
import { settleWaitingPdu, settleWaitingPdus, whichWait } from "../../storage/waiting-pdus.ts";
import { acceptEvent, acceptEvents, PrevEventsMissing } from "../events/accept-event.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import { AuthEventsMissing } from "../events/judge-event.ts";
import { verifyPdus, type VerifiedEvent } from "../events/verify-pdus.ts";
import { keepWaiting } from "./keep-waiting.ts";
import { noteGapAnswered, notAnswered } from "./answered-gaps.ts";
import { fetchAuthEvents } from "./fetch-auth-events.ts";

/** As many events as one request asks for. */
const PAGE = 20;

/** A gap is followed back for so many pages; the state is asked for at what lies before. */
const MOST_PAGES = 10;

/** A parent that waits is left to its own attempts, so many times. */
export const PARENT_ATTEMPTS = 3;

interface GapToFill extends VerifiedEvent {
  /** The event's prev_events that are in no timeline of ours. */
  readonly missing: readonly EventId[];
  /** Bytes that all answers of the server to this attempt may have together. */
  readonly maxBytes?: number;
}

/** Two hundred events, and the auth events that they lack: honest ones have less than a hundredth of it. */
const MAX_BYTES = 256 * 1024 * 1024;

interface GapWithinBudget extends GapToFill {
  readonly budget: ReadBudget;
}

/**
 * Asks a server (`origin`) for what lies between an event and what we know, page by page, and accepts the answer in the
 * order of the room's graph. An event of the gap whose own past stays unknown waits for it, as if it had been sent.
 * What is no ancestor of the event, and what is older than our being in the room, is left alone. A server is asked once.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
 * @returns how many events of the gap are in the timeline now
 * @throws FederationFailure
 */
export async function fillGap(ctx: RoomsContext, gap: GapToFill): Promise<number> {
  const { origin, rules, event } = gap;
  // A prev_event that waits itself has had its gap asked for already, if perhaps of a server that has gone since.
  const waiting = await whichWait(ctx.database.pool, gap.missing, { attemptsBelow: PARENT_ATTEMPTS });
  const missing = notAnswered(
    ctx,
    origin,
    gap.missing.filter((id) => !waiting.has(id)),
  );
  const oldest = await depthOfArrival(ctx.database.pool, event.roomId);
  // What is no deeper than we are in the room has no prev_event that we could place.
  if (missing.length === 0 || depthOf(event.pdu) <= oldest) return 0;

  const budget = createReadBudget(gap.maxBytes ?? MAX_BYTES);
  const found = await walkBack(ctx, { ...gap, missing, budget }, oldest);
  let accepted = 0;
  let rest = topologicalOrder(found, (each) => prevEventIds(each.pdu)).ordered;
  for (let first = rest[0]; first !== undefined; first = rest[0]) {
    const together = await acceptTogether(ctx, origin, rest);
    if (together > 0 || (await acceptOrKeep(ctx, { origin, rules, event: first, budget })))
      accepted += Math.max(1, together);
    rest = rest.slice(Math.max(1, together));
  }
  return accepted;
}

/** Follows the missing prev_events back until what they build on is known, too old, or the server has no more. */
async function walkBack(ctx: RoomsContext, gap: GapWithinBudget, oldest: bigint): Promise<readonly Event[]> {
  const { origin, event } = gap;
  const { roomId } = event;
  const found = new Map<EventId, Event>();
  const history = new Set<EventId>();
  // The event may stand there itself, placed by the state that was told at the gap's near end.
  const extremities = await forwardExtremities(ctx.database.pool, roomId);
  const earliestEvents = extremities.filter((id) => id !== event.eventId);
  const minDepth = Number(oldest);
  let latestEvents: readonly EventId[] = [event.eventId];
  let open: readonly EventId[] = gap.missing;
  for (let page = 0; page < MOST_PAGES && open.length > 0; page += 1) {
    const request = { roomId, earliestEvents, latestEvents, limit: PAGE, minDepth };
    const told = await askForPage(ctx, gap, open, request).catch((error: unknown) => {
      if (page > 0 && error instanceof FederationFailure) return error;
      throw error;
    });
    if (told instanceof FederationFailure) {
      // What had come stands; its oldest events ask for the rest themselves, which this server has yet to answer.
      ctx.logger.info({ err: told, roomId, origin, page, found: found.size }, "a server broke off in a gap");
      return [...found.values()];
    }
    for (const { eventId, pdu } of told) if (depthOf(pdu) < oldest) history.add(eventId);
    const fresh = await unplaced(ctx, ancestorsAmong(told, open, history));
    if (fresh.length === 0) break;
    for (const one of fresh) found.set(one.eventId, one);
    const past = await unknownPast(ctx, found);
    open = notAnswered(
      ctx,
      origin,
      past.filter((id) => !history.has(id)),
    );
    const wanted = new Set(open);
    const before = [...found.values()].filter(({ pdu }) => prevEventIds(pdu).some((id) => wanted.has(id)));
    latestEvents = before.slice(0, PAGE).map(({ eventId }) => eventId);
  }
  // However much further it goes, this server is not followed there: the next time would be as long.
  noteGapAnswered(ctx, origin, open);
  return [...found.values()];
}

type PageRequest = Parameters<RoomsContext["federation"]["getMissingEvents"]>[1];

/** Checks 1 to 3 of a page; a server that does not know the room has answered too. */
async function askForPage(
  ctx: RoomsContext,
  { origin, rules, budget }: GapWithinBudget,
  open: readonly EventId[],
  request: PageRequest,
): Promise<readonly Event[]> {
  const { roomId } = request;
  try {
    const pdus = await ctx.federation.getMissingEvents(origin, request, { budget });
    noteGapAnswered(ctx, origin, open);
    const { events, dropped } = await verifyPdus(ctx, { roomId, rules, pdus: pdus.slice(0, PAGE) });
    for (const drop of dropped) ctx.logger.info({ roomId, origin, ...drop }, "an event of a gap was dropped");
    return events;
  } catch (error) {
    if (error instanceof FederationFailure && error.status === 404) noteGapAnswered(ctx, origin, open);
    throw error;
  }
}

/** What of a page can be reached from the ids; a server must not slip in what nobody asked for. */
function ancestorsAmong(
  told: readonly Event[],
  from: readonly EventId[],
  except: ReadonlySet<EventId>,
): readonly Event[] {
  const byId = new Map(told.map((event) => [event.eventId, event]));
  const reached: Event[] = [];
  const path = [...from];
  for (const id of path) {
    const event = byId.get(id);
    if (event === undefined || except.has(id)) continue;
    byId.delete(id);
    reached.push(event);
    path.push(...prevEventIds(event.pdu));
  }
  return reached;
}

async function unplaced(ctx: RoomsContext, events: readonly Event[]): Promise<readonly Event[]> {
  const known = await loadEvents(
    ctx.database.pool,
    events.map(({ eventId }) => eventId),
  );
  return events.filter(({ eventId, roomId }) => !hasState(known.get(eventId), roomId));
}

/** What the found events build on and we have in no timeline. */
async function unknownPast(ctx: RoomsContext, found: ReadonlyMap<EventId, Event>): Promise<readonly EventId[]> {
  const past = new Set([...found.values()].flatMap(({ pdu }) => prevEventIds(pdu)));
  const ids = [...past].filter((id) => !found.has(id));
  const known = await loadEvents(ctx.database.pool, ids);
  return ids.filter((id) => known.get(id)?.outlier !== false);
}

/** As many as can be placed in one transaction: none where the first lacks something of its past. */
async function acceptTogether(ctx: RoomsContext, origin: ServerName, events: readonly Event[]): Promise<number> {
  try {
    const inputs = events.map((event) => ({ event, origin }));
    const taken = await acceptEvents(ctx, inputs);
    await atStep(ctx, "settle a waiting event", () => settleWaitingPdus(ctx.database.pool, taken, ctx.now()));
    return taken.length;
  } catch (error) {
    if (!(error instanceof PrevEventsMissing || error instanceof AuthEventsMissing)) throw error;
    return 0;
  }
}

/** One that may lack auth events, which are asked for; what it lacks then leaves it waiting. */
async function acceptOrKeep(
  ctx: RoomsContext,
  { origin, rules, event, budget }: VerifiedEvent & { readonly budget: ReadBudget },
): Promise<boolean> {
  const { pool } = ctx.database;
  try {
    await fetchAuthEvents(ctx, { event, rules, servers: [origin], budget });
    await acceptEvent(ctx, { event, origin });
    await atStep(ctx, "settle a waiting event", () => settleWaitingPdu(pool, event, ctx.now()));
    return true;
  } catch (error) {
    if (!(error instanceof PrevEventsMissing || error instanceof AuthEventsMissing)) throw error;
    const { eventId, roomId, pdu } = event;
    const reason = "missing-prev-events";
    await keepWaiting(ctx, { eventId, roomId, origin, pdu, reason, receivedAt: ctx.now(), fromGap: true });
    return false;
  }
}

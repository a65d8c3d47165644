import { prevEventIds } from "../../matrix/event.ts";
import { topologicalOrder } from "../../matrix/event-graph.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { fetchEvents } from "./fetch-events.ts";
import { whichExist } from "../../storage/events.ts";
import { forwardExtremities } from "../../storage/rooms.ts";
import { whichWait } from "../../storage/waiting-pdus.ts";
import { acceptEvent, PrevEventsMissing } from "../events/accept-event.ts";
import { authEventIdsWithCreate } from "../events/authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { AuthEventsMissing } from "../events/judge-event.ts";
import { verifyPdus, type VerifiedEvent } from "../events/verify-pdus.ts";

/** As many events as one request asks for. */
const GAP_LIMIT = 20;

/** A parent that waits is left to its own attempts, so many times. */
export const PARENT_ATTEMPTS = 3;

/**
 * Asks the sender of an event for what lies between it and what we know, and accepts the answer in the order of the
 * room's graph. An event of the answer whose own past is unknown is passed over.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid
 * @returns how many events of the gap are in the timeline now
 * @throws FederationFailure
 */
export async function fillGap(
  ctx: RoomsContext,
  received: VerifiedEvent,
  missing: readonly EventId[],
): Promise<number> {
  const { origin, event, rules } = received;
  const { roomId } = event;
  // A prev_event that waits itself has had its gap asked for already, if perhaps of a server that has gone since.
  const waiting = await whichWait(ctx.database.pool, missing, { attemptsBelow: PARENT_ATTEMPTS });
  if (missing.every((id) => waiting.has(id))) return 0;

  const earliestEvents = await forwardExtremities(ctx.database.pool, roomId);
  const pdus = await ctx.federation.getMissingEvents(origin, {
    roomId,
    earliestEvents,
    latestEvents: [event.eventId],
    limit: GAP_LIMIT,
  });
  const { events, dropped } = await verifyPdus(ctx, { roomId, rules, pdus });
  for (const drop of dropped) ctx.logger.info({ roomId, origin, ...drop }, "an event of a gap was dropped");
  let accepted = 0;
  for (const one of topologicalOrder(events, (each) => prevEventIds(each.pdu)).ordered) {
    if (await acceptWithAuthEvents(ctx, { origin, rules, event: one })) accepted += 1;
  }
  return accepted;
}

async function acceptWithAuthEvents(ctx: RoomsContext, { origin, rules, event }: VerifiedEvent): Promise<boolean> {
  const authIds = authEventIdsWithCreate(event, rules);
  const stored = await whichExist(ctx.database.pool, authIds);
  const eventIds = authIds.filter((id) => !stored.has(id));
  if (eventIds.length > 0) await fetchEvents(ctx, { roomId: event.roomId, rules, server: origin, eventIds });
  try {
    await acceptEvent(ctx, { event, origin });
    return true;
  } catch (error) {
    if (error instanceof PrevEventsMissing || error instanceof AuthEventsMissing) return false;
    throw error;
  }
}

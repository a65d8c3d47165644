import { FederationFailure } from "../../federation-client/failures.ts";
import { depthOf, prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { insertTimelineEvent, loadEvents } from "../../storage/events.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { lockRoom, roomRules } from "../../storage/rooms.ts";
import { oldestTimelineEvents, takeBackfillPositions } from "../../storage/timeline.ts";
import { authEventIdsWithCreate, authorizeOutliers, type AuthorizedOutlier } from "../events/authorize-outliers.ts";
import { eventToPlace } from "../events/event-to-place.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { fetchEvents } from "./fetch-events.ts";
import { verifyPdus } from "../events/verify-pdus.ts";

/** Events asked for at once. */
const PAGE = 100;

/** Somebody waits for the page. */
const TIMEOUT_MS = 10_000;

/** More servers are not tried while somebody waits. */
const MOST_SERVERS = 3;

/**
 * Fetches a page of the history before what we know of a room. Its events are judged by their auth events (checks 1 to
 * 4) and stand in the timeline without a state, before all others (docs/decisions/003).
 *
 * @returns how many events were added; 0 too where no server gave any
 * @see https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
 */
export async function backfillHistory(ctx: RoomsContext, roomId: RoomId): Promise<number> {
  const { pool } = ctx.database;
  const rules = await roomRules(pool, roomId);
  const before = await backwardExtremities(ctx, roomId);
  if (rules === undefined || before.length === 0) return 0;
  for (const server of await serversWithHistory(ctx, roomId)) {
    try {
      const added = await backfillFrom(ctx, { roomId, rules, server, before });
      if (added > 0) return added;
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      ctx.logger.info({ err: error, roomId }, "a server gave no history");
    }
  }
  return 0;
}

/** The prev_events of our oldest events that are in no timeline. */
async function backwardExtremities(ctx: RoomsContext, roomId: RoomId): Promise<readonly EventId[]> {
  const oldest = await oldestTimelineEvents(ctx.database.pool, roomId, PAGE);
  const prevIds = [...new Set(oldest.flatMap((event) => prevEventIds(event.pdu)))];
  const known = await loadEvents(ctx.database.pool, prevIds);
  return prevIds.filter((id) => known.get(id)?.outlier !== false).slice(0, PAGE);
}

async function serversWithHistory(ctx: RoomsContext, roomId: RoomId): Promise<readonly ServerName[]> {
  const joinedVia = (await partialRoom(ctx.database.pool, roomId))?.joinedVia ?? undefined;
  const servers = new Set([
    ...(joinedVia === undefined ? [] : [joinedVia]),
    ...(await joinedServers(ctx.database.pool, roomId)),
  ]);
  servers.delete(ctx.serverName);
  return [...servers].slice(0, MOST_SERVERS);
}

interface HistoryPage {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly server: ServerName;
  readonly before: readonly EventId[];
}

async function backfillFrom(ctx: RoomsContext, page: HistoryPage): Promise<number> {
  const { roomId, rules, server, before } = page;
  const request = { roomId, eventIds: before, limit: PAGE };
  const pdus = await ctx.federation.backfill(server, request, { timeoutMs: TIMEOUT_MS });
  const { events, dropped } = await verifyPdus(ctx, { roomId, rules, pdus: pdus.slice(0, PAGE) });
  for (const drop of dropped) ctx.logger.info({ roomId, server, ...drop }, "an event of the history was dropped");
  const eventIds = [...new Set(events.flatMap((event) => authEventIdsWithCreate(event, rules)))];
  const given = new Set(events.map((event) => event.eventId));
  await fetchEvents(ctx, { roomId, rules, server, eventIds: eventIds.filter((id) => !given.has(id)) });
  const { authorized } = await authorizeOutliers(ctx.database.pool, rules, events);
  return await storeHistory(ctx, page, authorized);
}

async function storeHistory(
  ctx: RoomsContext,
  { roomId, rules }: Pick<HistoryPage, "roomId" | "rules">,
  history: readonly AuthorizedOutlier[],
): Promise<number> {
  return await commit(ctx, "store history", async (tx) => {
    await lockRoom(tx, roomId);
    const ids = history.map(({ event }) => event.eventId);
    const known = await loadEvents(tx, ids);
    const unplaced = history.flatMap(({ event: given, rejection }) => {
      const stored = known.get(given.eventId);
      const event = stored?.outlier === false ? undefined : eventToPlace(rules, stored, given);
      return event === undefined ? [] : [{ event, rejection }];
    });
    const newestFirst = unplaced.toSorted((a, b) => newerFirst(a.event, b.event));
    const positions = await takeBackfillPositions(tx, newestFirst.length);
    for (const [index, { event, rejection }] of newestFirst.entries()) {
      const streamId = positions[index];
      if (streamId === undefined) throw new Error("a position is missing");
      const place = { rejection, softFailed: false, stateBefore: null, stateAfter: null, streamId };
      await insertTimelineEvent(tx, { event, ...place });
    }
    return newestFirst.length;
  });
}

/** By depth, which is all that tells the order of events whose graph has holes. */
function newerFirst(a: Event, b: Event): number {
  const [one, other] = [depthOf(a.pdu), depthOf(b.pdu)];
  if (one !== other) return one > other ? -1 : 1;
  return a.eventId < b.eventId ? -1 : 1;
}

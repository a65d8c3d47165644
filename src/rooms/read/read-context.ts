import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { loadEvent, loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { splitStateKey, stateEntries } from "../../matrix/state.ts";
import { toClientEvents } from "./client-events.ts";
import type { RoomsContext } from "../context.ts";
import { passesFilter } from "./event-filter.ts";
import type { EventFilter } from "./event-filter.ts";
import { visibleEvents } from "./history-visibility.ts";
import { memberEventsOfSenders } from "./lazy-members.ts";
import { roomAccess } from "./room-access.ts";
import { syncToken } from "./sync-token.ts";
import { visibleTimeline } from "./visible-timeline.ts";

interface ContextWanted {
  readonly roomId: RoomId;
  readonly eventId: EventId;
  readonly requester: { readonly userId: UserId; readonly deviceId: string };
  /** Of the events around it. */
  readonly limit: number;
  readonly filter: EventFilter;
}

/**
 * An event of a timeline, what happened around it, and the state behind the last of these, without the members that
 * have sent none of them. Never waits: what is known of a partial room is given at once.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid
 * @throws MatrixError 403 M_FORBIDDEN, 404 M_NOT_FOUND
 */
export async function readContext(ctx: RoomsContext, wanted: ContextWanted): Promise<JsonObject> {
  const { roomId, requester, filter } = wanted;
  const access = await roomAccess(ctx, roomId, requester.userId);
  const event = await loadEvent(ctx.database.pool, wanted.eventId);
  const shown = event !== undefined && event.roomId === roomId && !event.rejected && !event.softFailed;
  const [found] = shown ? await visibleEvents(ctx, access, [event]) : [];
  if (found === undefined || found.streamId === null) {
    throw new MatrixError(404, "M_NOT_FOUND", "There is no such event, or you may not see it");
  }
  const [from, limit] = [found.streamId, Math.ceil(wanted.limit / 2)];
  const backward = { from: from - 1n, to: undefined, direction: "backward", limit, filter } as const;
  const forward = { from, to: undefined, direction: "forward", limit: wanted.limit - limit, filter } as const;
  const [before, after] = await Promise.all([
    visibleTimeline(ctx, roomId, access, backward),
    visibleTimeline(ctx, roomId, access, forward),
  ]);
  const framing = { withRoomId: true, device: requester, withPrevContent: true };
  const [single] = await toClientEvents(ctx, [found], framing);
  const state = await stateFor(ctx, [...before.events.toReversed(), found, ...after.events], filter);
  return {
    event: single,
    events_before: await toClientEvents(ctx, before.events, framing),
    events_after: await toClientEvents(ctx, after.events, framing),
    state: await toClientEvents(ctx, state, { withRoomId: true }),
    start: syncToken(before.next ?? startOf(before.events.at(-1) ?? found)),
    end: syncToken(after.next ?? after.events.at(-1)?.streamId ?? from),
  };
}

function startOf({ streamId }: StoredEvent): bigint {
  return (streamId ?? 0n) - 1n;
}

async function stateFor(
  ctx: RoomsContext,
  events: readonly StoredEvent[],
  filter: EventFilter,
): Promise<readonly StoredEvent[]> {
  const snapshotId = events.at(-1)?.stateAfter ?? null;
  if (snapshotId === null) {
    return [];
  }
  const entries = [...stateEntries(await loadState(ctx.database, snapshotId))];
  const others = entries.filter(([key]) => splitStateKey(key)[0] !== "m.room.member").map(([, id]) => id);
  const loaded = [...(await loadEvents(ctx.database.pool, others)).values()];
  const members = await memberEventsOfSenders(ctx, snapshotId, events);
  return [...loaded, ...members].filter(({ pdu, rejected }) => !rejected && passesFilter(pdu, filter));
}

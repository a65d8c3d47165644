import type { ApplicationService } from "../../appservice-client/registration.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { stringifyJson } from "../../matrix/json.ts";
import { readPushItems, type PushItem } from "../../storage/appservice-items.ts";
import type { PushPlace } from "../../storage/appservice-pushes.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import type { RoomsContext } from "../context.ts";
import { toClientEvents } from "../read/client-events.ts";
import { interestingItems } from "./interest.ts";

/** What an application service is to be told next. */
export interface NextTransaction {
  /** The JSON to push; undefined where nothing on the way to `upTo` is of interest. */
  readonly body: string | undefined;
  readonly upTo: PushPlace;
  /** There may be more behind it. */
  readonly more: boolean;
}

/** Items looked at in one go, most of which may be of no interest. */
const LOOKED_AT = 500;
const MOST_EVENTS = 100;

/**
 * Reads what happened behind a place, and makes a transaction of what the service is interested in.
 *
 * Behind a resync it is told once more what the full state has changed: each event that is accepted now and was not
 * before, and for each key of the room's state that changed the event that stands there now. A key with nothing in it
 * any more is told by the event that stood there, without its content and marked `org.fastjoin.rejected`.
 *
 * @see https://spec.matrix.org/v1.19/application-service-api/#pushing-events
 */
export async function nextTransaction(
  ctx: RoomsContext,
  service: ApplicationService,
  from: PushPlace,
): Promise<NextTransaction> {
  const { items, places, end, atEnd } = await readPushItems(ctx.database.pool, from, LOOKED_AT);
  const range = { from: from.position, to: items.at(-1)?.streamId ?? from.position };
  const counting = items.filter(({ kind, accepted }) => accepted || kind === "state" || kind === "gone");
  const interesting = await interestingItems(ctx, service, counting, range);
  const wanted = counting.filter((item) => interesting.has(item));
  const chosen = wanted.slice(0, MOST_EVENTS);
  const last = chosen.at(-1);
  const isCut = chosen.length < wanted.length;
  const events = await clientEvents(ctx, chosen);
  return {
    body: events.length === 0 ? undefined : stringifyJson({ events }),
    upTo: (isCut && last !== undefined ? places[items.indexOf(last)] : undefined) ?? end,
    more: isCut || !atEnd,
  };
}

async function clientEvents(ctx: RoomsContext, items: readonly PushItem[]): Promise<readonly JsonObject[]> {
  const stored = await loadEvents(
    ctx.database.pool,
    items.map(({ eventId }) => eventId),
  );
  const framed = await framedByRoom(ctx, [...stored.values()]);
  const told = new Map<EventId, JsonObject>();
  for (const { eventId, kind } of items) {
    const event = framed.get(eventId);
    // Later is what counts: an event that came and went within one transaction is gone.
    if (event !== undefined) told.set(eventId, kind === "gone" ? withoutContent(event) : event);
  }
  return [...told.values()];
}

async function framedByRoom(
  ctx: RoomsContext,
  events: readonly StoredEvent[],
): Promise<ReadonlyMap<EventId, JsonObject>> {
  const framed = new Map<EventId, JsonObject>();
  for (const roomId of new Set(events.map((event) => event.roomId))) {
    const ofRoom = events.filter((event) => event.roomId === roomId);
    for (const event of await toClientEvents(ctx, ofRoom, { withRoomId: true, withPrevContent: true })) {
      framed.set(event.event_id, event);
    }
  }
  return framed;
}

/** So that a service which does not know the mark takes nothing for true that isn't. */
function withoutContent(event: JsonObject): JsonObject {
  return { ...event, content: {}, unsigned: { "org.fastjoin.rejected": true } };
}

import type { ApplicationService } from "../../appservice-client/registration.ts";
import { isStateEvent } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { isJsonObject, stringifyJson } from "../../matrix/json.ts";
import { readPushItems, type PushItem } from "../../storage/appservice-items.ts";
import type { PushPlace } from "../../storage/appservice-pushes.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { loadInviteRoomStates } from "../../storage/invites.ts";
import { loadRoom, roomRules } from "../../storage/rooms.ts";
import { lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { toClientEvents } from "../read/client-events.ts";
import { toGoneEvent } from "../read/gone-state.ts";
import { ephemeralEvents } from "./ephemeral-events.ts";
import { interestingItems } from "./interest.ts";
import { isUserOf } from "./namespaces.ts";

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
 * Behind a resync it is told once more what the full state has changed: each message that is accepted now and was not
 * before; and for each state event that is judged otherwise now, and each key of the room's state that changed, the event
 * that stands there now, or that it is gone.
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
  const counting = items.filter((item) => counts(item) || isRefusedOfItsOwn(ctx, service, item));
  const interesting = await interestingItems(ctx, service, counting, range);
  const wanted = counting.filter((item) => interesting.has(item));
  const chosen = wanted.slice(0, MOST_EVENTS);
  const last = chosen.at(-1);
  const isCut = chosen.length < wanted.length;
  const upTo = (isCut && last !== undefined ? places[items.indexOf(last)] : undefined) ?? end;
  const events = await clientEvents(ctx, await news(ctx, chosen));
  const ephemeral = await ephemeralEvents(ctx, service, { from: from.position, to: upTo.position });
  return { body: bodyOf(events, ephemeral), upTo, more: isCut || !atEnd };
}

function bodyOf(events: readonly JsonObject[], ephemeral: readonly JsonObject[]): string | undefined {
  if (events.length === 0 && ephemeral.length === 0) return undefined;
  return stringifyJson({ events, ...(ephemeral.length === 0 ? {} : { ephemeral }) });
}

/** A message of others that is refused can't be taken back; of a state event, what stands instead is told. */
function counts({ kind, accepted, isState }: PushItem): boolean {
  switch (kind) {
    case "event":
    case "membership":
      return accepted;
    case "judged":
      return accepted || isState;
    case "state":
    case "gone":
      return true;
  }
}

/** Nobody else would tell the service: a user of its namespace may have no device that a message could reach. */
function isRefusedOfItsOwn(ctx: RoomsContext, service: ApplicationService, { kind, sender }: PushItem): boolean {
  return kind === "judged" && isUserOf(service, sender, ctx.serverName);
}

/** An event to tell of, or one that is gone without another in its place. */
interface News {
  readonly event: StoredEvent;
  readonly gone: boolean;
}

async function news(ctx: RoomsContext, items: readonly PushItem[]): Promise<readonly News[]> {
  const events = await loadEvents(
    ctx.database.pool,
    items.map(({ eventId }) => eventId),
  );
  const told = new Map<EventId, News>();
  for (const { eventId, kind, accepted, isState } of items) {
    const event = events.get(eventId);
    if (event === undefined) continue;
    const one: News =
      kind === "judged" && (isState || !accepted) ? await newsInstead(ctx, event) : { event, gone: kind === "gone" };
    const known = told.get(one.event.eventId);
    // Of state the last word counts; a message has its place where it was said.
    if (known !== undefined && !isStateEvent(one.event.pdu) && !one.gone) continue;
    told.delete(one.event.eventId);
    told.set(one.event.eventId, one);
  }
  return [...told.values()];
}

/** What stands now under this state event's key, be it the event or another; a message is merely gone. */
async function newsInstead({ database }: RoomsContext, judged: StoredEvent): Promise<News> {
  const { pool } = database;
  const { type, state_key: stateKey } = judged.pdu;
  if (stateKey === undefined) return { event: judged, gone: true };
  const snapshotId = (await loadRoom(pool, judged.roomId))?.currentSnapshotId ?? null;
  const standing = snapshotId === null ? undefined : await lookUpInSnapshot(pool, snapshotId, type, stateKey);
  const event = standing === undefined ? undefined : (await loadEvents(pool, [standing])).get(standing);
  return event === undefined ? { event: judged, gone: true } : { event, gone: false };
}

async function clientEvents(ctx: RoomsContext, all: readonly News[]): Promise<readonly JsonObject[]> {
  const framed = new Map<EventId, JsonObject>();
  for (const roomId of new Set(all.map(({ event }) => event.roomId))) {
    const ofRoom = all.filter(({ event }) => event.roomId === roomId);
    const standing = ofRoom.flatMap(({ event, gone }) => (gone ? [] : [event]));
    for (const event of await toClientEvents(ctx, standing, { withRoomId: true, withPrevContent: true })) {
      framed.set(event.event_id, event);
    }
    const rules = await roomRules(ctx.database.pool, roomId);
    for (const { event, gone } of ofRoom) {
      if (gone && rules !== undefined) {
        framed.set(event.eventId, toGoneEvent(event, { rules, now: ctx.now(), withRoomId: true }));
      }
    }
  }
  const told = await loadInviteRoomStates(ctx.database.pool, [...framed.keys()]);
  return all.flatMap(({ event: { eventId } }) => {
    const event = framed.get(eventId);
    const roomState = told.get(eventId);
    if (event === undefined) return [];
    // Of a room that we are not in, this is all there is.
    const unsigned = { ...unsignedOf(event), ...(roomState === undefined ? {} : { invite_room_state: roomState }) };
    return [{ ...event, unsigned }];
  });
}

function unsignedOf({ unsigned }: JsonObject): JsonObject {
  return isJsonObject(unsigned) ? unsigned : {};
}

import type { Pdu } from "../matrix/event.ts";
import type { EventId } from "../matrix/identifiers.ts";
import { stateEntries } from "../matrix/state.ts";
import { authChainIds } from "../storage/auth-chains.ts";
import { loadEvent, loadEvents, type StoredEvent } from "../storage/events.ts";
import { loadState } from "../storage/state-snapshots.ts";
import type { RoomsContext } from "./context.ts";
import {
  eventNotFound,
  isOurs,
  requireServerInRoom,
  roomServedTo,
  unableDueToPartialState,
  type RoomQuestion,
} from "./served-room.ts";

export interface StateQuestion extends RoomQuestion {
  /** The state before this event is asked for. */
  readonly eventId: EventId;
}

export interface StateAnswer<T> {
  readonly state: readonly T[];
  /** The auth chain of the state; an event of the state that authorises another is in both. */
  readonly authChain: readonly T[];
}

/**
 * The ids of the state before an event and of its auth chain.
 *
 * @throws MatrixError 404 M_NOT_FOUND for an event that we don't have, refused or know only as part of a state;
 *   403 for a server that is not in the room, or while our state of it is partial
 */
export async function serveStateIds(ctx: RoomsContext, question: StateQuestion): Promise<StateAnswer<EventId>> {
  const room = await roomServedTo(ctx, question);
  if (room.partial) throw unableDueToPartialState(room.roomId);
  await requireServerInRoom(ctx, room, question.origin);
  const event = await acceptedEvent(ctx, question);
  if (event.outlier || event.stateBefore === null) throw eventNotFound(question.eventId);
  const state = eventIdsOf(await loadState(ctx.database, event.stateBefore));
  return { state, authChain: await authChainIds(ctx.database.pool, state) };
}

/** The same with the events themselves. */
export async function serveState(ctx: RoomsContext, question: StateQuestion): Promise<StateAnswer<Pdu>> {
  const { state, authChain } = await serveStateIds(ctx, question);
  return { state: await loadPdus(ctx, state), authChain: await loadPdus(ctx, authChain) };
}

/**
 * The auth chain of an event. While the room is partial it is served for our own events only: we can vouch for no
 * other's.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403
 */
export async function serveEventAuth(ctx: RoomsContext, question: StateQuestion): Promise<readonly Pdu[]> {
  const room = await roomServedTo(ctx, question);
  const event = await loadEvent(ctx.database.pool, question.eventId);
  const servable = event !== undefined && event.rejection === null && event.roomId === question.roomId;
  if (room.partial && !(servable && isOurs(ctx, event))) throw unableDueToPartialState(room.roomId);
  await requireServerInRoom(ctx, room, question.origin);
  if (!servable) throw eventNotFound(question.eventId);
  return await loadPdus(ctx, await authChainIds(ctx.database.pool, [event.eventId]));
}

async function acceptedEvent(ctx: RoomsContext, { roomId, eventId }: StateQuestion): Promise<StoredEvent> {
  const event = await loadEvent(ctx.database.pool, eventId);
  if (event === undefined || event.rejection !== null || event.roomId !== roomId) throw eventNotFound(eventId);
  return event;
}

function eventIdsOf(state: Parameters<typeof stateEntries>[0]): readonly EventId[] {
  return Array.from(stateEntries(state), ([, eventId]) => eventId);
}

/** So many events are read at a time that neither the database nor the event loop is held up for long. */
const EVENTS_A_READ = 2_000;

/** Those of the events that are stored, in the order of the ids. */
export async function loadPdus(ctx: RoomsContext, ids: readonly EventId[]): Promise<readonly Pdu[]> {
  const pdus: Pdu[] = [];
  for (let start = 0; start < ids.length; start += EVENTS_A_READ) {
    const slice = ids.slice(start, start + EVENTS_A_READ);
    const events = await loadEvents(ctx.database.pool, slice);
    for (const id of slice) {
      const event = events.get(id);
      if (event !== undefined) pdus.push(event.pdu);
    }
  }
  return pdus;
}

import type { EventId } from "../../matrix/identifiers.ts";
import { authChainIds } from "../../storage/auth-chains.ts";
import { loadEvent, type StoredEvent } from "../../storage/events.ts";
import { snapshotEventIds } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { pduTexts, type PduTexts } from "./serve-pdus.ts";
import {
  eventNotFound,
  requireEventServable,
  requireServerInRoom,
  roomServedTo,
  unableDueToPartialState,
  type RoomQuestion,
  type ServedRoom,
} from "./served-room.ts";

interface StateQuestion extends RoomQuestion {
  /** The state before this event is asked for. */
  readonly eventId: EventId;
}

interface StateIds {
  readonly state: readonly EventId[];
  /** The auth chain of the state; an event of the state that authorises another is in both. */
  readonly authChain: readonly EventId[];
}

interface StateTexts {
  readonly state: PduTexts;
  readonly authChain: PduTexts;
}

/**
 * The ids of the state before an event and of its auth chain.
 *
 * @throws MatrixError 404 M_NOT_FOUND for an event that we don't have, refused or know only as part of a state;
 *   403 for a server that is not in the room, or while our state of it is partial
 */
export async function serveStateIds(ctx: RoomsContext, question: StateQuestion): Promise<StateIds> {
  const { state, authChain } = await stateIds(ctx, question);
  return { state, authChain };
}

async function stateIds(ctx: RoomsContext, question: StateQuestion): Promise<StateIds & { readonly room: ServedRoom }> {
  const room = await roomServedTo(ctx, question);
  if (room.partial) throw unableDueToPartialState(room.roomId);
  await requireServerInRoom(ctx, room, question.origin);
  const event = await acceptedEvent(ctx, question);
  if (event.outlier || event.stateBefore === null) throw eventNotFound(question.eventId);
  const state = await snapshotEventIds(ctx.database, event.stateBefore);
  return { room, state, authChain: await authChainIds(ctx.database.pool, state) };
}

/** The same with the events themselves. */
export async function serveState(ctx: RoomsContext, question: StateQuestion): Promise<StateTexts> {
  const { room, state, authChain } = await stateIds(ctx, question);
  return { state: pduTexts(ctx, room, state), authChain: pduTexts(ctx, room, authChain) };
}

/**
 * The auth chain of an event. While the room is partial it is served for our own events only: we can vouch for no
 * other's. To a server that we sent such an event it is served always.
 *
 * @throws MatrixError 404 M_NOT_FOUND, 403
 */
export async function serveEventAuth(ctx: RoomsContext, question: StateQuestion): Promise<PduTexts> {
  const room = await roomServedTo(ctx, question);
  const event = await loadEvent(ctx.database.pool, question.eventId);
  const ofRoom = event?.roomId === question.roomId ? event : undefined;
  if (ofRoom !== undefined && ofRoom.rejection !== null) throw eventNotFound(question.eventId);
  await requireEventServable(ctx, room, { origin: question.origin, event: ofRoom });
  if (ofRoom === undefined) throw eventNotFound(question.eventId);
  return pduTexts(ctx, room, await authChainIds(ctx.database.pool, [ofRoom.eventId]));
}

async function acceptedEvent(ctx: RoomsContext, { roomId, eventId }: StateQuestion): Promise<StoredEvent> {
  const event = await loadEvent(ctx.database.pool, eventId);
  if (event === undefined || event.rejection !== null || event.roomId !== roomId) throw eventNotFound(eventId);
  return event;
}

import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { Event } from "../../matrix/event.ts";
import type { StateMap } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { acceptInTurn } from "./accept-event.ts";
import { buildEvent, type EventDraft } from "./build-event.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { eventsOf } from "./events-at-hand.ts";
import { knownAuthEventIds } from "./known-auth-events.ts";
import { openTurn, stateBehindInTurn, type Behind, type RoomTurn } from "./room-turn.ts";

/** The event of a draft is refused by the auth rules: its sender is told which one, and nothing is stored. */
export function refused(rejection: string): MatrixError {
  return new MatrixError(403, "M_FORBIDDEN", `The room does not allow this: ${rejection}`);
}

/**
 * Makes an event of one of our users, places it after the room's forward extremities and puts it into the outbox of
 * every server of the room. On partial state the auth rules are asked against what we know, as the notes on faster
 * joins have it: a mistake is repaired by the resync.
 *
 * @param also what must happen in the same transaction
 * @throws MatrixError `M_FORBIDDEN` where an auth rule refuses the event, `M_NOT_FOUND` where we are not in the room
 */
export async function createEvent(
  ctx: RoomsContext,
  draft: EventDraft,
  also?: (tx: Connection, stored: StoredEvent) => Promise<void>,
): Promise<StoredEvent> {
  return await commit(ctx, "store an event of ours", (tx) => createEventWithin(ctx, tx, draft, also));
}

/** The same as part of a transaction of the caller's, which a refusal must undo. */
export async function createEventWithin(
  ctx: RoomsContext,
  tx: Connection,
  draft: EventDraft,
  also?: (tx: Connection, stored: StoredEvent) => Promise<void>,
): Promise<StoredEvent> {
  const { turn, event } = await makeEvent(ctx, tx, draft);
  const own = { event, origin: ctx.serverName };
  const stored = await acceptInTurn(ctx, turn, also === undefined ? own : { ...own, also });
  if (stored.rejection !== null) throw refused(stored.rejection);
  if (stored.softFailed) throw refused("the room's current state does not allow it");
  return stored;
}

interface MadeEvent extends Behind {
  /** The room, which is locked, and where nothing is placed yet. */
  readonly turn: RoomTurn;
  readonly event: Event;
}

/**
 * The signed event of a draft behind the room's forward extremities, which is neither judged nor placed yet.
 *
 * @throws MatrixError `M_NOT_FOUND` where we are not in the room
 */
export async function makeEvent(ctx: RoomsContext, tx: Connection, draft: EventDraft): Promise<MadeEvent> {
  const turn = await openTurn(ctx, tx, draft.roomId, []);
  if (turn === undefined || turn.front.currentSnapshotId === null) {
    throw new MatrixError(404, "M_NOT_FOUND", `This server is not in room ${draft.roomId}`);
  }
  const prevEvents = latestEvents(turn);
  const behind = await stateBehindInTurn(turn, prevEvents, {
    sender: draft.sender,
    type: draft.type,
    ...(draft.stateKey === undefined ? {} : { state_key: draft.stateKey }),
  });
  const authEvents = await authEventsFor(turn, draft, behind.before.state);
  const event = buildEvent(draft, { prevEvents, authEvents, now: draft.at ?? ctx.now() }, turn.source.rules, ctx);
  return { ...behind, turn, event };
}

function latestEvents({ front, source }: RoomTurn): readonly StoredEvent[] {
  const events = front.extremities.flatMap((id) => source.atHand.known.get(id) ?? []);
  return events.toSorted((a, b) => Number((a.streamId ?? 0n) - (b.streamId ?? 0n))).slice(-20);
}

async function authEventsFor(
  { source }: RoomTurn,
  draft: EventDraft,
  state: StateMap,
): Promise<readonly StoredEvent[]> {
  const ids = await knownAuthEventIds(source.tx, draft, state, source.rules);
  const events = await eventsOf(source, ids);
  return ids.flatMap((id) => events.get(id) ?? []);
}

import { isStateEvent } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { stateKeyOf, stateOfMap, stateWith, type StateKey, type StateMap } from "../../matrix/state.ts";
import { loadEvent } from "../../storage/events.ts";
import { fetchedSnapshot, loadResyncStateIds } from "../../storage/resync-state-ids.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { loadStateEntries } from "../../storage/state-entries.ts";
import { loadState, lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import { rejectionText } from "./authorize-outliers.ts";
import { judgeByState } from "./judge-event.ts";
import type { ForeignState, StateSource } from "./state-before-event.ts";

/** Another server's account of a state is not whole or not sound; nothing may be built on it. */
export class ForeignStateUnusable extends Error {
  readonly eventId: EventId;

  constructor(eventId: EventId, reason: string) {
    super(`the state at ${eventId} can't be used: ${reason}`);
    this.name = "ForeignStateUnusable";
    this.eventId = eventId;
  }
}

/**
 * The state after an event that is in no timeline of ours: as it was stored when all of it had been fetched, or from
 * what `/state_ids` told, if every event of that is stored by now.
 *
 * @throws ForeignStateUnusable where an id is not stored, two events claim one key, or nothing was told
 */
export async function foreignStateAfter(source: StateSource, eventId: EventId): Promise<ForeignState> {
  const snapshotId = await fetchedSnapshot(source.tx, source.roomId, eventId);
  if (snapshotId !== undefined) {
    return { eventId, snapshotId, after: await loadState(source.database, snapshotId, source.tx) };
  }
  const told = await loadResyncStateIds(source.tx, source.roomId, eventId);
  if (told === undefined) throw new ForeignStateUnusable(eventId, "no server has told it yet");
  const { after } = await stateAfterTold(source, eventId, told.stateEventIds);
  return { eventId, after };
}

interface StateAfterTold {
  readonly after: StateMap;
  /** Told events that the auth rules refuse, and that the state is without. */
  readonly refused: readonly EventId[];
}

/**
 * The state before an event as `/state_ids` told it, and the event itself where it is an accepted state event.
 *
 * @throws ForeignStateUnusable
 */
export async function stateAfterTold(
  source: StateSource,
  eventId: EventId,
  stateEventIds: readonly EventId[],
): Promise<StateAfterTold> {
  const event = await loadEvent(source.tx, eventId);
  if (event?.roomId !== source.roomId) throw new ForeignStateUnusable(eventId, "the event itself is not stored");
  const { before, refused } = await stateOfIds(source, eventId, stateEventIds);
  if (event.rejection !== null || !isStateEvent(event.pdu)) return { after: before, refused };
  const refusal = rejectionText(await judgeByState({ ...source, event }, before));
  const after = refusal === null ? stateWith(before, event.pdu.type, event.pdu.state_key, eventId) : before;
  return { after, refused };
}

/** Events read at once: whoever else the process serves gets its turn between. */
const PORTION = 5_000;

async function stateOfIds(
  source: StateSource,
  at: EventId,
  ids: readonly EventId[],
): Promise<{ readonly before: StateMap; readonly refused: readonly EventId[] }> {
  if (ids.length === 0) throw new ForeignStateUnusable(at, "it is empty");
  const state = new Map<StateKey, EventId>();
  const refused: EventId[] = [];
  let stored = 0;
  for (let start = 0; start < ids.length; start += PORTION) {
    const entries = await loadStateEntries(source.tx, source.roomId, ids.slice(start, start + PORTION));
    stored += entries.length;
    for (const { eventId, type, stateKey, rejected } of entries) {
      if (rejected) {
        refused.push(eventId);
        continue;
      }
      const key = stateKeyOf(type, stateKey);
      if (state.has(key)) throw new ForeignStateUnusable(at, `two events claim ${type} ${JSON.stringify(stateKey)}`);
      state.set(key, eventId);
    }
  }
  if (stored < ids.length) {
    const others = `${ids.length - stored} of its ${ids.length} events`;
    throw new ForeignStateUnusable(at, `${others} are not stored, or of another room, or no state events`);
  }
  const create = state.get(stateKeyOf("m.room.create", ""));
  if (create === undefined) throw new ForeignStateUnusable(at, "it has no create event");
  if (create !== (await createEventOf(source)))
    throw new ForeignStateUnusable(at, "its create event is not the room's");
  return { before: stateOfMap(state), refused };
}

/** A room's create event never changes, and even a partial state has it. */
async function createEventOf({ tx, roomId }: StateSource): Promise<EventId | undefined> {
  const room = await loadRoom(tx, roomId);
  if (room === undefined || room.currentSnapshotId === null) return undefined;
  return await lookUpInSnapshot(tx, room.currentSnapshotId, "m.room.create", "");
}

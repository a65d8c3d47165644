import type { EventId } from "../../matrix/identifiers.ts";
import { isUserId } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateGet, stateWith, type StateMap } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { memberEventNamedBySender } from "../../storage/member-events.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { authEventIdsFor, type EventDraft } from "./build-event.ts";

/**
 * The ids of the auth events that a draft must name, as far as we know them. Of all that the auth rules ask for, a
 * partial state may lack one thing: the membership of another server's user who is invited, kicked or banned. Where
 * that user has spoken since we joined, their own events name it.
 */
export async function knownAuthEventIds(
  tx: Connection,
  draft: EventDraft,
  state: StateMap,
  rules: RoomVersionRules,
): Promise<readonly EventId[]> {
  return authEventIdsFor(draft, await withNamedTarget(tx, draft, state), rules);
}

async function withNamedTarget(tx: Connection, draft: EventDraft, state: StateMap): Promise<StateMap> {
  const { roomId, sender, stateKey: target } = draft;
  if (draft.type !== "m.room.member" || !isUserId(target) || target === sender) return state;
  if (stateGet(state, "m.room.member", target) !== undefined) return state;
  // In full state, who is not in it is no member.
  if ((await partialRoom(tx, roomId)) === undefined) return state;
  const named = await memberEventNamedBySender(tx, roomId, target);
  return named === undefined ? state : stateWith(state, "m.room.member", target, named);
}

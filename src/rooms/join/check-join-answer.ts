import { authTypesFor } from "../../matrix/authorization/auth-types.ts";
import { isStateEvent, type Event } from "../../matrix/event.ts";
import { isUserId, serverNameOf, type EventId, type RoomId, type ServerName } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { splitStateKey, stateKeyOf, type StateKey } from "../../matrix/state.ts";
import type { RoomsContext } from "../context.ts";
import type { AuthorizedOutlier } from "../events/authorize-outliers.ts";
import type { OutlierIntakeResult } from "../fetch/outlier-intake.ts";
import { reportLostEvents } from "../lost-events.ts";
import type { Fail } from "./complete-template.ts";

/** What the auth rules hold the join against: without these of the state, nobody knows whether it is allowed. */
export interface Judges {
  readonly keys: ReadonlySet<StateKey>;
  /** Those that the answer has in its state and that did not pass the checks yet. */
  readonly told: Map<EventId, StateKey>;
}

export function judgesOf({ pdu }: Event, rules: RoomVersionRules): Judges {
  const keys = authTypesFor(pdu, rules).map(([type, stateKey]) => stateKeyOf(type, stateKey));
  return { keys: new Set(keys), told: new Map() };
}

/** Notes an event of the told state, should it be one of these. */
export function noteJudge({ keys, told }: Judges, { eventId, pdu }: Event): void {
  const key = isStateEvent(pdu) ? stateKeyOf(pdu.type, pdu.state_key) : undefined;
  if (key !== undefined && keys.has(key)) told.set(eventId, key);
}

/** Each of them is genuine, and what it builds upon is there. */
export function checkJudges({ told }: Judges, { dropped, missingAuthEvents }: OutlierIntakeResult, refuse: Fail): void {
  const [first] = told;
  if (first === undefined) return;
  const [eventId, key] = first;
  const why = dropped.find((drop) => drop.eventId === eventId)?.reason;
  const lacking = `it builds on ${[...missingAuthEvents].slice(0, 5).join(", ")}`;
  refuse(`has no genuine ${splitStateKey(key)[0]}, which the join is judged by: ${eventId}: ${why ?? lacking}`);
}

/** The room is joined without what is not genuine; the resync asks for those of the state again. */
export function reportLeftOut(ctx: RoomsContext, roomId: RoomId, result: OutlierIntakeResult): void {
  const { dropped, undecided, letGo } = result;
  const eventIds = [...dropped.flatMap(({ eventId }) => eventId ?? []), ...undecided, ...letGo];
  const count = dropped.length + undecided.length + letGo.size;
  const why = dropped[0]?.reason ?? (letGo.size > 0 ? "too many wait for auth events" : "auth events are missing");
  reportLostEvents(ctx, {
    loss: "join-answer",
    roomId,
    eventIds,
    count,
    reason: `left out of a send_join answer: ${why}`,
  });
}

/** Who answers for a room is in it, so that a state without members of theirs is not the whole of it. */
export function isJoinedAt(server: ServerName, { pdu }: Event): boolean {
  if (pdu.type !== "m.room.member" || !isUserId(pdu.state_key)) return false;
  return pdu.content["membership"] === "join" && serverNameOf(pdu.state_key) === server;
}

/** By any state key: no second one of whatever form. */
export function isCreate({ pdu }: Event): boolean {
  return pdu.type === "m.room.create" && isStateEvent(pdu);
}

interface CreateEvents {
  readonly creates: readonly AuthorizedOutlier[];
  readonly stateIds: readonly EventId[];
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly result: OutlierIntakeResult;
}

/** One create event, in the state, of the room and the version that were asked for. */
export function checkCreateEvents({ creates, stateIds, roomId, rules, result }: CreateEvents, refuse: Fail): void {
  const [create] = creates;
  if (create === undefined) return refuse(withoutCreate(result));
  if (creates.length > 1) refuse("holds more than one create event");
  if (!stateIds.includes(create.event.eventId)) refuse("has no create event in its state");
  if (create.rejection !== null) refuse(`has a create event that the auth rules refuse: ${create.rejection}`);
  const version = create.event.pdu.content["room_version"] ?? "1";
  if (version !== rules.version) {
    refuse(`is of room version ${JSON.stringify(version)}, make_join said ${rules.version}`);
  }
  if (create.event.roomId !== roomId) refuse("is of another room");
}

/** Without the creator's key nothing in the room can be proved: that is the cause, not what is missing for it. */
function withoutCreate({ dropped }: OutlierIntakeResult): string {
  const [unproved] = dropped;
  if (unproved === undefined) return "has no create event";
  return `can't be proved: ${unproved.eventId ?? "an event"}: ${unproved.reason}`;
}

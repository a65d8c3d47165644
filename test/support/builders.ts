import type { Event, Pdu } from "../../src/matrix/event.ts";
import { contentHash, eventIdOf } from "../../src/matrix/hashes.ts";
import { serverNameOf } from "../../src/matrix/identifiers.ts";
import type { EventId, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import { authTypesFor } from "../../src/matrix/authorization/auth-types.ts";
import { authorize } from "../../src/matrix/authorization/authorize.ts";
import type { AuthState, AuthVerdict } from "../../src/matrix/authorization/verdict.ts";
import type { RoomVersion, RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { emptyState, stateEntries, stateGet, stateWith } from "../../src/matrix/state.ts";
import type { StateMap } from "../../src/matrix/state.ts";
import { rulesFor } from "./a-pdu.ts";

export const ALICE: UserId = "@alice:one.example";
export const BOB: UserId = "@bob:two.example";
export const CHARLIE: UserId = "@charlie:three.example";
export const DORA: UserId = "@dora:four.example";

/** What a test says of an event; the builder adds the rest. */
export interface EventDraft {
  readonly type: string;
  readonly sender: UserId;
  readonly stateKey?: string;
  readonly content?: JsonObject;
  /** Milliseconds; by default each event is a second younger than the one before. */
  readonly ts?: number;
  /** By default the event on the tip of the branch. */
  readonly prev?: readonly Event[];
  /** By default what the auth events selection finds in the state of the branch. */
  readonly auth?: readonly Event[];
  readonly extra?: JsonObject;
  readonly rejected?: boolean;
}

/** A point in the room: the last event of a branch, and the state after it. */
export interface Branch {
  readonly tip: Event;
  readonly state: StateMap;
}

export interface TestRoom {
  readonly rules: RoomVersionRules;
  readonly roomId: RoomId;
  readonly create: Event;
  /** The branch that holds nothing but the create event. */
  readonly root: Branch;
  readonly events: ReadonlyMap<EventId, Event>;
  readonly event: (id: EventId) => Event | undefined;
  /** Makes an event and adds it to the room, allowed or not. */
  add(branch: Branch, draft: EventDraft): Event;
  /** Makes events one after the other, each with the state after those before it. */
  send(branch: Branch, ...drafts: readonly EventDraft[]): Branch;
  /** A state of exactly these events. */
  stateOf(...events: readonly Event[]): StateMap;
  /** A branch's state, or a state, as the auth rules look at it. */
  authState(state: StateMap): AuthState;
}

/** A room with a real event graph: ids, and from version 12 on the room id, are the events' hashes. */
export function aRoom(
  version: RoomVersion,
  { creator = ALICE, createContent = {} }: { creator?: UserId; createContent?: JsonObject } = {},
): TestRoom {
  const rules = rulesFor(version);
  const events = new Map<EventId, Event>();
  let roomId: RoomId = `!room:${serverNameOf(creator)}`;
  let clock = 1_000_000;

  const make = (draft: EventDraft, prev: readonly Event[], auth: readonly Event[]): Event => {
    clock += 1000;
    const hasRoomId = !(rules.roomIdIsCreateEventHash && draft.type === "m.room.create");
    const depth = 1 + Math.max(0, ...prev.map((event) => Number(event.pdu.depth)));
    const bare = {
      type: draft.type,
      sender: draft.sender,
      ...(hasRoomId ? { room_id: roomId } : {}),
      ...(draft.stateKey === undefined ? {} : { state_key: draft.stateKey }),
      content: draft.content ?? {},
      prev_events: edges(prev, rules),
      auth_events: edges(auth, rules),
      depth,
      origin_server_ts: draft.ts ?? clock,
      ...(rules.eventIdFormat === "chosen-by-sender"
        ? { event_id: `$event-${events.size}:${serverNameOf(draft.sender)}` }
        : {}),
      ...draft.extra,
    } as unknown as Pdu;
    const pdu: Pdu = { ...bare, hashes: { sha256: contentHash(bare, rules) } };
    const eventId = eventIdOf(pdu, rules);
    const ownRoomId: RoomId = hasRoomId ? roomId : `!${eventId.slice(1)}`;
    const event: Event = { eventId, roomId: ownRoomId, pdu, rejected: draft.rejected ?? false };
    events.set(eventId, event);
    return event;
  };

  const content = { room_version: version, ...(rules.creatorIsSender ? {} : { creator }), ...createContent };
  const create = make({ type: "m.room.create", sender: creator, stateKey: "", content }, [], []);
  roomId = create.roomId;

  const event = (id: EventId): Event | undefined => events.get(id);
  const add = (branch: Branch, draft: EventDraft): Event => {
    const selection = authTypesFor(
      {
        type: draft.type,
        sender: draft.sender,
        content: draft.content ?? {},
        ...(draft.stateKey === undefined ? {} : { state_key: draft.stateKey }),
      },
      rules,
    );
    const selected = selection
      .map(([type, stateKey]) => stateGet(branch.state, type, stateKey))
      .map((id) => (id === undefined ? undefined : events.get(id)))
      .filter((found) => found !== undefined);
    return make(draft, draft.prev ?? [branch.tip], draft.auth ?? selected);
  };
  const after = (branch: Branch, tip: Event): Branch => ({
    tip,
    state:
      tip.pdu.state_key === undefined || tip.rejected
        ? branch.state
        : stateWith(branch.state, tip.pdu.type, tip.pdu.state_key, tip.eventId),
  });
  const stateOf = (...list: readonly Event[]): StateMap =>
    list.reduce((state, one) => stateWith(state, one.pdu.type, one.pdu.state_key ?? "", one.eventId), emptyState);

  return {
    rules,
    roomId,
    create,
    root: { tip: create, state: stateOf(create) },
    events,
    event,
    add,
    send: (branch, ...drafts) => drafts.reduce((at, draft) => after(at, add(at, draft)), branch),
    stateOf,
    authState: (state) => (type, stateKey) => {
      const id = stateGet(state, type, stateKey);
      return id === undefined ? undefined : events.get(id);
    },
  };
}

function edges(list: readonly Event[], rules: RoomVersionRules): unknown {
  return list.map(({ eventId, pdu }) => (rules.edgesCarryHashes ? [eventId, pdu.hashes ?? {}] : eventId));
}

/** The ids of a state in the order of its keys, to compare states by. */
export function idsOf(state: StateMap): readonly (readonly [string, EventId])[] {
  return [...stateEntries(state)].sort(([one], [other]) => (one < other ? -1 : 1));
}

export function member(sender: UserId, membership: string, target: UserId = sender, more: JsonObject = {}): EventDraft {
  return { type: "m.room.member", sender, stateKey: target, content: { membership, ...more } };
}

export function joinRules(sender: UserId, rule: string, more: JsonObject = {}): EventDraft {
  return { type: "m.room.join_rules", sender, stateKey: "", content: { join_rule: rule, ...more } };
}

export function powerLevels(sender: UserId, content: JsonObject): EventDraft {
  return { type: "m.room.power_levels", sender, stateKey: "", content };
}

export function topic(sender: UserId, text: string): EventDraft {
  return { type: "m.room.topic", sender, stateKey: "", content: { topic: text } };
}

/** Power levels in which the room's creator stands at the top: by number, or from version 12 on by being the creator. */
export function usersWith(room: TestRoom, users: JsonObject): JsonObject {
  return room.rules.privilegedCreators ? users : { [room.create.pdu.sender]: 100, ...users };
}

/** The usual start: the creator joined, power levels, public join rules, then everybody else joins. */
export function openRoom(room: TestRoom, users: JsonObject = {}, others: readonly UserId[] = [BOB, CHARLIE]): Branch {
  const creator = room.create.pdu.sender;
  return room.send(
    room.root,
    member(creator, "join"),
    powerLevels(creator, { users: usersWith(room, users) }),
    joinRules(creator, "public"),
    ...others.map((user) => member(user, "join")),
  );
}

/** What the auth rules say of an event that is sent on a branch. */
export function judge(room: TestRoom, branch: Branch, draft: EventDraft): AuthVerdict {
  return authorize(room.add(branch, draft), room.authState(branch.state), room.rules);
}

/** The code of the rule that decided, behind a minus where it refused. */
export function ruleFor(room: TestRoom, branch: Branch, draft: EventDraft): string {
  const { allowed, rule } = judge(room, branch, draft);
  return allowed ? rule : `-${rule}`;
}

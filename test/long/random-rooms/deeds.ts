import { authEventIds, prevEventIds } from "../../../src/matrix/event.ts";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { virtualServerName } from "../../resident/identities.ts";
import { templateFor, type Draft } from "../../resident/compose-event.ts";
import { currentState, membershipIn, stateBeforeAll, stateEventOf } from "../../resident/hosted-room.ts";
import { mustKnow, type RoomInPlay } from "./room-in-play.ts";
import type { Happening, Place } from "./story.ts";

/** What a happening comes to in a room as it is now. */
export function draftOf(play: RoomInPlay, happening: Happening): Draft {
  // Beside our join, other join rules would undo it.
  const place = placeOf(play, happening.what === "join rules" ? { place: "tips" } : happening.place);
  const ghost = happening.ghost === "by its place" ? ghostOf(play, happening) : undefined;
  const prevEvents = (ghost === undefined ? undefined : beforeTheLeave(play, ghost)) ?? place;
  const draft = { ...deed(play, happening, prevEvents), prevEvents };
  if (happening.staleBy > 0) return { ...draft, authEvents: staleAuthEvents(play, draft, happening.staleBy) };
  return happening.ghost === "by its auth events" ? { ...draft, authEvents: ghostlyAuthEvents(play, draft) } : draft;
}

/** The events on which a new one is built; never one of a server that is not let in, such as a create event's rival. */
function placeOf(play: RoomInPlay, place: Place): readonly EventId[] {
  const { room, join } = play;
  const tips = [...room.extremities].toSorted().slice(0, 10);
  switch (place.place) {
    case "tips":
      return tips;
    case "back":
      return [recent(play, place.by)];
    case "beside our join":
      return join === undefined ? tips : prevEventIds(mustKnow(play, join).pdu);
    case "merge":
      return [...new Set([recent(play, place.one), recent(play, place.other)])];
  }
}

/** An event of the room so many before the newest, refused ones included; never one of its first, which make it a room. */
function recent({ room }: RoomInPlay, by: number): EventId {
  const ids = [...room.events.keys()];
  const id = ids[Math.max(ids.length - 1 - by, Math.min(8, ids.length - 1))];
  if (id === undefined) throw new Error("a room without events");
  return id;
}

function staleAuthEvents(play: RoomInPlay, draft: Draft, by: number): readonly EventId[] {
  const { pdu } = templateFor(play.room, { ...draft, prevEvents: [recent(play, by)] });
  return authEventIds(pdu);
}

/** The sender's own membership, which is no join, is replaced by the join of before. */
function ghostlyAuthEvents(play: RoomInPlay, draft: Draft): readonly EventId[] {
  const { pdu } = templateFor(play.room, draft);
  const isOwn = (id: EventId): boolean => {
    const event = mustKnow(play, id);
    return event.pdu.type === "m.room.member" && event.pdu.state_key === draft.sender;
  };
  const join = lastJoinOf(play, draft.sender);
  const others = authEventIds(pdu).filter((id) => !isOwn(id));
  return join === undefined ? authEventIds(pdu) : [...others, join];
}

/** Somebody who has been in the room and is so no more. */
function ghostOf(play: RoomInPlay, { who, ghost }: Happening): UserId | undefined {
  if (ghost === "no") return undefined;
  const state = currentState(play.room);
  const gone = play.users.filter(
    (user) => membershipIn(play.room, state, user) !== "join" && lastJoinOf(play, user) !== undefined,
  );
  return gone[who % Math.max(1, gone.length)];
}

/** What the last leave or ban of somebody was made after. */
function beforeTheLeave({ room }: RoomInPlay, userId: UserId): readonly EventId[] | undefined {
  const leave = stateEventOf(room, currentState(room), ["m.room.member", userId]);
  return leave === undefined ? undefined : prevEventIds(leave.pdu);
}

function lastJoinOf({ room }: RoomInPlay, userId: UserId): EventId | undefined {
  return [...room.events.values()].findLast(
    ({ event: { pdu, rejected } }) =>
      !rejected && pdu.type === "m.room.member" && pdu.state_key === userId && pdu.content["membership"] === "join",
  )?.event.eventId;
}

interface People {
  /** In the room, as the event's place has it, and of a server that the resident speaks for. */
  readonly actor: UserId;
  readonly target: UserId;
  /** Who has the power to do most things, or anyone where the happening is bold. */
  readonly moderator: UserId;
}

function peopleOf(play: RoomInPlay, happening: Happening, prevEvents: readonly EventId[]): People {
  const { who, whom, bold } = happening;
  const { founder } = play.stage.resident;
  const state = stateBeforeAll(play.room, prevEvents);
  const joined = play.users.filter((user) => membershipIn(play.room, state, user) === "join");
  const actors = bold ? play.users : joined;
  const actor = ghostOf(play, happening) ?? actors[who % Math.max(1, actors.length)] ?? founder;
  const targets = [...play.users, play.secondUser];
  const target = targets[whom % targets.length] ?? founder;
  return { actor, target, moderator: bold || happening.ghost !== "no" ? actor : founder };
}

type Deed = Pick<Draft, "sender" | "type" | "stateKey" | "content" | "redacts">;

function deed(play: RoomInPlay, happening: Happening, prevEvents: readonly EventId[]): Deed {
  const { what, who, whom } = happening;
  const { actor, target, moderator } = peopleOf(play, happening, prevEvents);
  switch (what) {
    case "message":
      return { sender: actor, type: "m.room.message", content: { msgtype: "m.text", body: `${who}` } };
    case "topic":
      return { sender: moderator, type: "m.room.topic", stateKey: "", content: { topic: `${who} ${whom}` } };
    case "join":
      return member(...joinerOf(play, happening), "join");
    case "rename":
      return member(actor, actor, "join", { displayname: `${whom}` });
    case "leave":
      return member(actor, actor, "leave");
    case "kick":
    case "unban":
      return member(moderator, target, "leave");
    case "ban":
      return member(moderator, target, "ban");
    case "invite":
      return member(actor, target, "invite");
    case "knock":
      return member(...joinerOf(play, happening), "knock");
    case "levels":
      return {
        sender: moderator,
        type: "m.room.power_levels",
        stateKey: "",
        content: levels(play, whom % 3 === 0 ? play.stage.ours.sidecar.userId : actor, whom),
      };
    case "join rules":
      return { sender: moderator, type: "m.room.join_rules", stateKey: "", content: joinRules(play, whom) };
    case "redaction":
      return { sender: actor, type: "m.room.redaction", content: {}, redacts: recent(play, whom % 12) };
  }
}

function member(sender: UserId, userId: UserId, membership: string, more: JsonObject = {}): Deed {
  return { sender, type: "m.room.member", stateKey: userId, content: { membership, ...more } };
}

/** Someone new, or someone who has been in the room before. */
function joinerOf(play: RoomInPlay, { who, whom }: Happening): [UserId, UserId] {
  const known = play.users[who % play.users.length];
  if (whom % 2 === 0 && known !== undefined) return [known, known];
  play.newcomers += 1;
  const user: UserId = `@new-${play.newcomers}:${virtualServerName(who % 4)}`;
  play.users.push(user);
  return [user, user];
}

function levels(play: RoomInPlay, moderator: UserId, whom: number): JsonObject {
  const founder = play.room.rules.privilegedCreators ? {} : { [play.stage.resident.founder]: 100 };
  return { users: { ...founder, [moderator]: 50 }, ban: 50, kick: 50, invite: 0, redact: 50, state_default: whom % 51 };
}

function joinRules({ room }: RoomInPlay, whom: number): JsonObject {
  // Mostly open, as closed doors beside our join undo it.
  const rules = ["public", "public", "public", "restricted", "restricted", "knock", "invite"];
  const rule = rules[whom % rules.length] ?? "public";
  return rule === "restricted"
    ? { join_rule: rule, allow: [{ type: "m.room_membership", room_id: room.roomId }] }
    : { join_rule: rule };
}

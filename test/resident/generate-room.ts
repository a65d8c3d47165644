import { createHash } from "node:crypto";
import { serverNameOf } from "../../src/matrix/identifiers.ts";
import type { EventId, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import { rulesOf } from "../../src/matrix/room-versions.ts";
import { composeEvent } from "./compose-event.ts";
import type { Draft } from "./compose-event.ts";
import { addEvent, newHostedRoom } from "./hosted-room.ts";
import type { HostedRoom } from "./hosted-room.ts";
import { identityOf, virtualServerName } from "./identities.ts";
import type { RoomParameters } from "./room-parameters.ts";

/** The room's creator: joined, and able to do anything. */
export const FOUNDER: UserId = `@founder:${virtualServerName(0)}`;

interface Growth {
  readonly room: HostedRoom;
  readonly parameters: RoomParameters;
  readonly say: (draft: Draft) => EventId;
  /** Joined, of no power, and not yet touched by any act: each act takes one. */
  readonly ordinary: UserId[];
  readonly moderators: UserId[];
}

/** Makes a room from nothing. Every event is hashed, signed and allowed by the rules of its version. */
export function generateRoom(parameters: RoomParameters): HostedRoom {
  const growth = foundRoom(parameters);
  const passing = parameters.bans + parameters.kicks + parameters.leaves;
  const arrivals = parameters.members - 1 + passing;
  const acts = schedule(actsOf(parameters), arrivals);
  for (let index = 1; index <= arrivals; index++) {
    const user = memberId(index, parameters);
    join(growth, user, index);
    if (index <= 2) growth.moderators.push(user);
    else growth.ordinary.push(user);
    if (index === Math.min(2, arrivals)) appoint(growth);
    for (const act of acts.get(index) ?? []) act(growth);
  }
  if (parameters.joinRule !== "public") closeDoors(growth);
  return growth.room;
}

export function memberId(index: number, parameters: Pick<RoomParameters, "servers">): UserId {
  return `@member-${String(index).padStart(5, "0")}:${virtualServerName(index % parameters.servers)}`;
}

function foundRoom(parameters: RoomParameters): Growth {
  const rules = rulesOf(parameters.version);
  if (rules === undefined) throw new Error(`no room version ${parameters.version}`);
  const opaque = createHash("sha256").update(JSON.stringify(parameters)).digest("hex").slice(0, 18);
  const named: RoomId = `!${opaque}:${virtualServerName(0)}`;
  const identity = (server: string): ReturnType<typeof identityOf> => identityOf(parameters.seed, server);
  const creator = rules.creatorIsSender ? {} : { creator: FOUNDER };
  const content = { room_version: parameters.version, ...creator };
  // In room version 12 the id is the hash of this very event, which must then differ from seed to seed.
  const mark = rules.roomIdIsCreateEventHash ? { "test.rooms.seed": opaque } : {};
  const create = composeEvent(newHostedRoom(named, rules), identity, {
    sender: FOUNDER,
    type: "m.room.create",
    stateKey: "",
    content: { ...content, ...mark },
  });
  const room = newHostedRoom(create.event.roomId, rules);
  room.clock += 1000;
  addEvent(room, create);
  const say = (draft: Draft): EventId => {
    const hosted = composeEvent(room, identity, draft);
    addEvent(room, hosted);
    return hosted.event.eventId;
  };
  const growth: Growth = { room, parameters, say, ordinary: [], moderators: [] };
  furnish(growth);
  return growth;
}

function setState(growth: Growth, type: string, content: JsonObject): void {
  growth.say({ sender: FOUNDER, type, stateKey: "", content });
}

function powerLevels(growth: Growth): JsonObject {
  const founder = growth.room.rules.privilegedCreators ? {} : { [FOUNDER]: 100 };
  const moderators = Object.fromEntries(growth.moderators.map((user) => [user, 50]));
  return {
    users: { ...founder, ...moderators },
    users_default: 0,
    events: { "m.room.power_levels": 100, "m.room.history_visibility": 100, "m.room.topic": 50 },
    events_default: 0,
    state_default: 50,
    ban: 50,
    kick: 50,
    redact: 50,
    invite: 0,
  };
}

function furnish(growth: Growth): void {
  growth.say({
    sender: FOUNDER,
    type: "m.room.member",
    stateKey: FOUNDER,
    content: { membership: "join", displayname: "Founder" },
  });
  setState(growth, "m.room.power_levels", powerLevels(growth));
  setState(growth, "m.room.join_rules", { join_rule: "public" });
  setState(growth, "m.room.history_visibility", { history_visibility: "shared" });
  setState(growth, "m.room.guest_access", { guest_access: "can_join" });
  if (growth.parameters.named) {
    setState(growth, "m.room.name", { name: `A room of ${growth.parameters.members}` });
  }
  setState(growth, "m.room.topic", { topic: "Generated for a test" });
}

function appoint(growth: Growth): void {
  setState(growth, "m.room.power_levels", powerLevels(growth));
}

function closeDoors(growth: Growth): void {
  const { joinRule } = growth.parameters;
  const restricted = joinRule === "restricted" || joinRule === "knock_restricted";
  const allow = restricted ? { allow: [{ type: "m.room_membership", room_id: growth.room.roomId }] } : {};
  setState(growth, "m.room.join_rules", { join_rule: joinRule, ...allow });
}

function join(growth: Growth, user: UserId, index: number): void {
  growth.say({
    sender: user,
    type: "m.room.member",
    stateKey: user,
    content: { membership: "join", displayname: `Member ${index}`, avatar_url: `mxc://${serverNameOf(user)}/avatar` },
  });
}

type Act = (growth: Growth) => void;

function removal(membership: "ban" | "leave", by: "moderator" | "self"): Act {
  return (growth) => {
    const user = growth.ordinary.pop();
    if (user === undefined) throw new Error("nobody is left to be removed");
    const sender = by === "self" ? user : (growth.moderators[0] ?? FOUNDER);
    growth.say({ sender, type: "m.room.member", stateKey: user, content: { membership } });
  };
}

const ban = removal("ban", "moderator");
const kick = removal("leave", "moderator");
const leave = removal("leave", "self");

function speak(growth: Growth): void {
  const sender = growth.ordinary.at(-1) ?? FOUNDER;
  growth.say({ sender, type: "m.room.message", content: { msgtype: "m.text", body: `Hello from ${sender}` } });
}

function changeTopic(growth: Growth): void {
  setState(growth, "m.room.topic", { topic: `Topic ${growth.room.events.size}` });
}

function changeProfile(growth: Growth): void {
  const user = growth.ordinary.shift() ?? FOUNDER;
  const content = { membership: "join", displayname: `Renamed ${growth.room.events.size}` };
  growth.say({ sender: user, type: "m.room.member", stateKey: user, content });
}

function fork(growth: Growth): void {
  const before = [...growth.room.extremities].toSorted();
  const topic = (name: string): JsonObject => ({ topic: `${name} branch at ${growth.room.events.size}` });
  const moderator = growth.moderators[0] ?? FOUNDER;
  const conflicting = growth.room.events.size % 2 === 0;
  growth.say({ sender: FOUNDER, type: "m.room.topic", stateKey: "", content: topic("left"), prevEvents: before });
  const type = conflicting ? "m.room.topic" : "m.room.avatar";
  const content = conflicting ? topic("right") : { url: `mxc://${virtualServerName(0)}/room` };
  growth.say({ sender: moderator, type, stateKey: "", content, prevEvents: before });
  growth.say({ sender: FOUNDER, type: "m.room.message", content: { msgtype: "m.text", body: "Together again" } });
}

function refused(growth: Growth): void {
  const sender = growth.ordinary.at(-1) ?? FOUNDER;
  const evenIfRejected = true;
  growth.say({ sender, type: "m.room.topic", stateKey: "", content: { topic: "I may not" }, evenIfRejected });
}

function actsOf(parameters: RoomParameters): readonly (readonly [Act, number])[] {
  return [
    [ban, parameters.bans],
    [kick, parameters.kicks],
    [leave, parameters.leaves],
    [speak, parameters.messages],
    [changeTopic, parameters.topicChanges],
    [changeProfile, parameters.profileChanges],
    [fork, parameters.forks],
    [refused, parameters.rejected],
  ];
}

/** Spreads the acts over the arrivals: by index of the arrival after which each happens. */
function schedule(acts: readonly (readonly [Act, number])[], arrivals: number): Map<number, Act[]> {
  const planned = new Map<number, Act[]>();
  for (const [act, count] of acts) {
    for (let turn = 0; turn < count; turn++) {
      // Not before the fifth arrival: two moderators, and somebody for the acts to happen to.
      const first = Math.min(5, arrivals);
      const index = first + Math.floor(((turn + 1) * (arrivals - first)) / count);
      planned.set(index, [...(planned.get(index) ?? []), act]);
    }
  }
  return planned;
}

import { setTimeout as sleep } from "node:timers/promises";
import type { RoomId } from "../../../src/matrix/identifiers.ts";
import { parseJson } from "../../../src/matrix/json.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import type { RoomVersionRules } from "../../../src/matrix/room-versions.ts";
import {
  callAs,
  changeMember,
  createSynapseRoom,
  joinOnSynapse,
  leaveOnSynapse,
  redactOnSynapse,
  sendEvent,
  sendMessage,
  setState,
} from "../../support/synapse/synapse-client.ts";
import type { SynapseUser } from "../../support/synapse/synapse-client.ts";

/** Alice, bob, carol and dave live on one server, erin, frank and grace on another. */
export type Cast = Readonly<Record<"alice" | "bob" | "carol" | "dave" | "erin" | "frank" | "grace", SynapseUser>>;

/** Long enough for an event to reach the other server, so that no two events have the same prev_event. */
const settled = () => sleep(400);

/** Makes a room in which everything happens once that the auth rules of its version know of. */
export async function playRoom(cast: Cast, rules: RoomVersionRules): Promise<RoomId> {
  const { alice, bob, erin } = cast;
  const room = await createSynapseRoom(alice, { version: rules.version });
  await joinOnSynapse(bob, room);
  await joinOnSynapse(erin, room, [alice.synapse.serverName]);
  await settled();
  await sendMessage(erin, room, "From another server");
  await settled();
  await talk(cast, room, rules);
  await govern(cast, room, rules);
  await expel(cast, room);
  await inviteAndLeave(cast, room);
  if (rules.knocking) await knock(cast, room);
  if (rules.restrictedJoins) await joinRestricted(cast, room, rules);
  return room;
}

async function talk({ alice, bob }: Cast, room: RoomId, rules: RoomVersionRules): Promise<void> {
  const message = await sendMessage(bob, room, 'Unicode: é 日本 😀 "\\ \u0001 \u2028');
  await redactOnSynapse(alice, room, message);
  const numbers = rules.strictCanonicalJson ? "[0,-1,9007199254740991]" : "[9007199254740993,1.0,1.5,-0.25,1e22]";
  await sendEvent(alice, room, "org.example.numbers", { numbers: parseJson(numbers), "😀": 1, ﬁ: 2, "": null });
}

async function govern({ alice, bob }: Cast, room: RoomId, rules: RoomVersionRules): Promise<void> {
  await setState(alice, room, { type: "m.room.topic", content: { topic: "A topic" } });
  const path = `/rooms/${encodeURIComponent(room)}/state/m.room.power_levels/`;
  const levels = await callAs(alice, "GET", path);
  const users = { ...(levels["users"] as JsonObject), [bob.userId]: 50 };
  await setState(alice, room, { type: "m.room.power_levels", content: { ...levels, users } });
  await setState(bob, room, { type: "m.room.name", content: { name: "A name" } });
  if (rules.aliasesAreSpecial) {
    const stateKey = alice.synapse.serverName;
    await setState(alice, room, { type: "m.room.aliases", stateKey, content: { aliases: [] } });
  }
}

async function expel({ alice, bob, carol, dave }: Cast, room: RoomId): Promise<void> {
  await joinOnSynapse(carol, room);
  await changeMember(bob, room, "kick", carol.userId);
  await joinOnSynapse(dave, room);
  await changeMember(alice, room, "ban", dave.userId);
  await changeMember(alice, room, "unban", dave.userId);
}

async function inviteAndLeave({ alice, erin, frank }: Cast, room: RoomId): Promise<void> {
  await changeMember(alice, room, "invite", frank.userId);
  await settled();
  await joinOnSynapse(frank, room);
  await settled();
  await leaveOnSynapse(erin, room);
  await settled();
}

async function knock({ alice, carol }: Cast, room: RoomId): Promise<void> {
  await setState(alice, room, { type: "m.room.join_rules", content: { join_rule: "knock" } });
  await callAs(carol, "POST", `/knock/${encodeURIComponent(room)}`, {});
}

/** Grace's join is vouched for by alice's server, and so signed by both. */
async function joinRestricted({ alice, grace }: Cast, room: RoomId, rules: RoomVersionRules): Promise<void> {
  const lobby = await createSynapseRoom(alice, { version: rules.version });
  await joinOnSynapse(grace, lobby, [alice.synapse.serverName]);
  await settled();
  const joinRule = rules.knockRestricted ? "knock_restricted" : "restricted";
  const allow = [{ type: "m.room_membership", room_id: lobby }];
  await setState(alice, room, { type: "m.room.join_rules", content: { join_rule: joinRule, allow } });
  await settled();
  await joinOnSynapse(grace, room, [alice.synapse.serverName]);
  await settled();
}

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { EventId, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { stateMapOf, type StateEntry } from "../support/http-client.ts";
import { eventually, fastjoin } from "../support/sidecar-process.ts";
import { openSynapseScene } from "../support/synapse/scene.ts";
import {
  callAs,
  changeMember,
  createSynapseRoom,
  joinOnSynapse,
  leaveOnSynapse,
  readMessages,
  readState,
  registerUser,
  sendMessage,
} from "../support/synapse/synapse-client.ts";

/** One of each state resolution algorithm, and those that people use most. */
const VERSIONS: readonly RoomVersion[] = ["1", "6", "10", "11", "12"];

const { synapse, settings, ourName, alice } = await openSynapseScene();
const bob = await registerUser(synapse, "bob");

async function ourRoom(version: RoomVersion, options: JsonObject = {}): Promise<RoomId> {
  const body = { room_version: version, preset: "public_chat", name: `Version ${version}`, ...options };
  const { room_id: roomId } = await alice.post<{ readonly room_id: RoomId }>("createRoom", body);
  return roomId;
}

function setState(roomId: RoomId, type: string, content: JsonObject, stateKey = ""): Promise<unknown> {
  return alice.put(`rooms/${encodeURIComponent(roomId)}/state/${type}/${encodeURIComponent(stateKey)}`, content);
}

async function synapseSees(roomId: RoomId, eventId: EventId): Promise<void> {
  await eventually(
    async () => ((await readMessages(bob, roomId)).some((event) => event["event_id"] === eventId) ? true : undefined),
    { withinMs: 60_000, about: () => `Synapse does not see ${eventId}` },
  );
}

/** Both servers' answers to "what is the state of this room?" become one. */
async function statesAgree(roomId: RoomId): Promise<number> {
  let [ours, theirs] = [new Map<string, string>(), new Map<string, string>()];
  await eventually(
    async () => {
      ours = await alice.fullState(roomId);
      theirs = stateMapOf((await readState(bob, roomId)) as unknown as StateEntry[]);
      return JSON.stringify([...ours].toSorted()) === JSON.stringify([...theirs].toSorted()) ? true : undefined;
    },
    { withinMs: 60_000, about: () => JSON.stringify({ ours: [...ours], theirs: [...theirs] }) },
  );
  return ours.size;
}

async function membership(roomId: RoomId, userId: UserId): Promise<string | undefined> {
  const path = `rooms/${encodeURIComponent(roomId)}/state/m.room.member/${encodeURIComponent(userId)}`;
  return (await alice.get<{ readonly membership?: string }>(path)).membership;
}

describe("a real Synapse", () => {
  it.each(VERSIONS)("joins a room of ours of version %s, talks in it, and leaves", async (version) => {
    const roomId = await ourRoom(version);
    await setState(roomId, "m.room.topic", { topic: "before the join" });
    await setState(roomId, "m.room.member", { membership: "ban" }, `@banned:${synapse.serverName}`);
    const early = (await alice.say(roomId, "before the join")) as EventId;

    await joinOnSynapse(bob, roomId, [ourName]);
    const ours = (await alice.say(roomId, "hello from Fastjoin")) as EventId;
    const theirs = await sendMessage(bob, roomId, "hello from Synapse");
    await alice.sees(roomId, theirs);
    await synapseSees(roomId, ours);
    // What was said before its time comes by /backfill.
    await synapseSees(roomId, early);
    expect(await statesAgree(roomId)).toBeGreaterThan(6);

    await leaveOnSynapse(bob, roomId);
    await eventually(async () => ((await membership(roomId, bob.userId)) === "leave" ? true : undefined));
  });

  it("asked us for the light answer, and for the state behind it", async () => {
    const log = await readFile(join(synapse.dataDir, "homeserver.log"), "utf8");
    expect(log).toContain("omit_members=true");
    expect(log).toContain("/_matrix/federation/v1/state_ids/");
  });

  it.each<RoomVersion>(["11", "12"])("invites our user to a room of version %s, who joins", async (version) => {
    const roomId = await createSynapseRoom(bob, {
      version,
      preset: "private_chat",
      options: { name: "Private" },
    });
    await changeMember(bob, roomId, "invite", alice.userId as UserId);
    const joined = await fastjoin(settings.env, "join", roomId, "--via", synapse.serverName, "--as", "alice");
    expect(joined).toMatchObject({ code: 0, stderr: "" });
    const said = (await alice.say(roomId, "thank you")) as EventId;
    await synapseSees(roomId, said);
  });

  it("refuses an invitation of ours", async () => {
    const back = await ourRoom("11", { preset: "private_chat", invite: [bob.userId] });
    expect(await membership(back, bob.userId)).toBe("invite");
    // Not in the room, it refuses by make_leave and send_leave.
    await leaveOnSynapse(bob, back);
    await eventually(async () => ((await membership(back, bob.userId)) === "leave" ? true : undefined));
  });

  it("knocks on a room of ours, and is let in", async () => {
    const initial_state = [{ type: "m.room.join_rules", state_key: "", content: { join_rule: "knock" } }];
    const roomId = await ourRoom("11", { initial_state });
    await callAs(bob, "POST", `/knock/${encodeURIComponent(roomId)}?via=${ourName}&server_name=${ourName}`, {});
    expect(await membership(roomId, bob.userId)).toBe("knock");
    await alice.post(`rooms/${encodeURIComponent(roomId)}/invite`, { user_id: bob.userId });
    await joinOnSynapse(bob, roomId, [ourName]);
    expect(await membership(roomId, bob.userId)).toBe("join");
  });

  it("joins a restricted room of ours on the word of our user", async () => {
    const lobby = await ourRoom("10");
    const content = { join_rule: "restricted", allow: [{ type: "m.room_membership", room_id: lobby }] };
    const roomId = await ourRoom("10", { initial_state: [{ type: "m.room.join_rules", state_key: "", content }] });
    await expect(joinOnSynapse(bob, roomId, [ourName])).rejects.toThrow("M_FORBIDDEN");
    await joinOnSynapse(bob, lobby, [ourName]);
    await joinOnSynapse(bob, roomId, [ourName]);
    const said = await sendMessage(bob, roomId, "inside");
    await alice.sees(roomId, said);
    await statesAgree(roomId);
  });
});

import { describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../src/matrix/identifiers.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { stateMapOf, type StateEntry } from "../support/http-client.ts";
import { eventually, fastjoin } from "../support/sidecar-process.ts";
import { openSynapseScene } from "../support/synapse/scene.ts";
import {
  changeMember,
  createSynapseRoom,
  joinOnSynapse,
  readMessages,
  readState,
  registerUser,
  sendMessage,
  setState,
  type SynapseUser,
} from "../support/synapse/synapse-client.ts";

/** One of each state resolution algorithm, and those that people use most. */
const VERSIONS: readonly RoomVersion[] = ["1", "6", "10", "11", "12"];

const { synapse, settings, sidecar, alice } = await openSynapseScene();
const admin = await registerUser(synapse, "admin");
const members = await Promise.all(Array.from({ length: 8 }, (_, index) => registerUser(synapse, `member${index}`)));

/** A room with a past: messages, topics, power levels, a ban, a kick. */
async function livelyRoom(version: RoomVersion): Promise<RoomId> {
  const roomId = await createSynapseRoom(admin, { version, options: { name: `Version ${version}` } });
  for (const member of members) await joinOnSynapse(member, roomId);
  const [moderator, banned, kicked] = members as [SynapseUser, SynapseUser, SynapseUser];
  // From room version 12 on the creator outranks every number and may not be listed.
  const creator = version === "12" ? {} : { [admin.userId]: 100 };
  await setState(admin, roomId, {
    type: "m.room.power_levels",
    content: { users: { ...creator, [moderator.userId]: 50 }, kick: 50, ban: 50, events: { "m.room.topic": 50 } },
  });
  await setState(moderator, roomId, { type: "m.room.topic", content: { topic: "before the join" } });
  await sendMessage(banned, roomId, "something bad");
  await changeMember(moderator, roomId, "ban", banned.userId);
  await changeMember(moderator, roomId, "kick", kicked.userId);
  return roomId;
}

async function synapseSees(roomId: RoomId, eventId: EventId): Promise<void> {
  await eventually(
    async () => ((await readMessages(admin, roomId)).some((event) => event["event_id"] === eventId) ? true : undefined),
    { withinMs: 60_000, about: () => `Synapse does not see ${eventId}` },
  );
}

async function untilComplete(roomId: RoomId): Promise<void> {
  await eventually(
    async () => ((await fastjoin(settings.env, "show", roomId)).stdout.includes("complete") ? true : undefined),
    { withinMs: 60_000, about: () => `the resync of ${roomId} does not end: ${sidecar.output().slice(-4000)}` },
  );
}

describe("a room on a real Synapse", () => {
  for (const version of VERSIONS) {
    it(`of version ${version} is joined partially, used both ways, and ends up with Synapse's own state`, async () => {
      const roomId = await livelyRoom(version);

      const joined = await fastjoin(settings.env, "join", roomId, "--via", synapse.serverName, "--as", "alice");
      expect(joined.stderr).toBe("");
      expect(joined.code).toBe(0);
      expect(joined.stdout).toContain("its state is partial");

      // While the resync may still run …
      const ours = (await alice.say(roomId, "hello from Fastjoin")) as EventId;
      const theirs = await sendMessage(admin, roomId, "hello from Synapse");
      await setState(admin, roomId, { type: "m.room.topic", content: { topic: "during the resync" } });
      await changeMember(admin, roomId, "ban", members[3]?.userId ?? "@nobody:example.org");
      await alice.sees(roomId, theirs);
      await synapseSees(roomId, ours);

      await untilComplete(roomId);

      // … and when it is over.
      const later = await sendMessage(admin, roomId, "welcome");
      await alice.sees(roomId, later);
      await synapseSees(roomId, (await alice.say(roomId, "thank you")) as EventId);
      await eventually(async () => {
        const expected = stateMapOf((await readState(admin, roomId)) as unknown as StateEntry[]);
        const actual = await alice.fullState(roomId);
        return actual.size === expected.size ? true : undefined;
      });
      const expected = stateMapOf((await readState(admin, roomId)) as unknown as StateEntry[]);
      expect(await alice.fullState(roomId)).toEqual(expected);
      expect(expected.size).toBeGreaterThan(members.length);
    });
  }
});

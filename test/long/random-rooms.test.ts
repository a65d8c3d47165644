import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { serverNameOf, type EventId, type UserId } from "../../src/matrix/identifiers.ts";
import { ROOM_VERSIONS } from "../../src/matrix/room-versions.ts";
import { stateKeyOf } from "../../src/matrix/state.ts";
import { joinRoom } from "../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../src/rooms/join/leave-room.ts";
import { receiveWaitingPdus } from "../../src/rooms/receive/receive-waiting-pdus.ts";
import { countWaitingPdus } from "../../src/storage/waiting-pdus.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { openScene } from "../support/scene.ts";
import { driveResync } from "../support/drive-resync.ts";

/** The seed can be set to try other rooms, and their number to try more. */
const SEED = Number(process.env["RANDOM_ROOMS_SEED"] ?? 20_261_122);
const ROOMS = Number(process.env["RANDOM_ROOMS"] ?? 150);

const { database, resident, sidecar } = await openScene();

/** Something that happens in the room while its state is partial; numbers are read modulo what there is to choose. */
interface Happening {
  readonly what: "message" | "topic" | "join" | "leave" | "ban" | "levels" | "stale message";
  readonly who: number;
  /** Kept from us, so that there is a gap before what comes next. */
  readonly silent: boolean;
}

const happening: fc.Arbitrary<Happening> = fc.record({
  what: fc.constantFrom("message", "topic", "join", "leave", "ban", "levels", "stale message"),
  who: fc.nat(1_000),
  silent: fc.boolean(),
});

let labels = 0;

function members(room: HostedRoom): readonly UserId[] {
  const others = resident.joinedMembers(room).filter((user) => serverNameOf(user)?.endsWith(".rooms.test") === true);
  return others.filter((user) => user !== resident.founder);
}

async function happen(room: HostedRoom, { what, who, silent }: Happening): Promise<void> {
  const candidates = members(room);
  const actor = candidates[who % candidates.length] ?? resident.founder;
  const sending = { push: !silent, to: [sidecar.serverName] };
  switch (what) {
    case "message":
      return void (await resident.sendMessage(room, actor, `message ${who}`, sending));
    case "topic":
      return void (await resident.sendState(room, { type: "m.room.topic", content: { topic: `${who}` } }, sending));
    case "join":
      return void (await resident.join(room, `@new-${who}:server-00${who % 4}.rooms.test`, sending));
    case "leave":
      if (actor !== resident.founder) await resident.leave(room, actor, sending);
      return;
    case "ban":
      if (actor !== resident.founder) await resident.ban(room, actor, sending);
      return;
    case "levels": {
      const creator = room.rules.privilegedCreators ? {} : { [resident.founder]: 100 };
      const content = { users: { ...creator, [actor]: 50 }, ban: 50, kick: 50 };
      return void (await resident.sendState(room, { type: "m.room.power_levels", content }, sending));
    }
    case "stale message":
      return await sendAsBanned(room, actor, sending);
  }
}

/** A ban that we don't see, and then a message that names the membership of before as its auth event. */
async function sendAsBanned(
  room: HostedRoom,
  actor: UserId,
  sending: { readonly to: readonly string[] },
): Promise<void> {
  if (actor === resident.founder) return;
  const state = resident.fullState(room);
  const keys: readonly (readonly [string, string])[] = [
    ...(room.rules.roomIdIsCreateEventHash ? [] : ([["m.room.create", ""]] as const)),
    ["m.room.power_levels", ""],
    ["m.room.member", actor],
  ];
  const authEvents = keys.map(([type, key]) => state.get(stateKeyOf(type, key)) as EventId);
  await resident.ban(room, actor, { push: false });
  await resident.sendMessage(room, actor, "still here", { authEvents, evenIfRejected: true, ...sending });
}

describe("a partially joined room in which anything happens", () => {
  it(`ends with the state of a full join, in ${ROOMS} random rooms`, async () => {
    const aStory = fc.record({
      version: fc.constantFrom(...ROOM_VERSIONS),
      bans: fc.nat(3),
      forks: fc.nat(3),
      before: fc.array(happening, { maxLength: 6 }),
      after: fc.array(happening, { minLength: 1, maxLength: 12 }),
    });
    await fc.assert(
      fc.asyncProperty(aStory, async ({ version, bans, forks, before, after }) => {
        labels += 1;
        const room = resident.hostRoom({ version, members: 14, servers: 4, bans, forks, label: `random ${labels}` });
        for (const one of before) await happen(room, { ...one, silent: true });
        const { userId, ctx } = sidecar;
        const via = [resident.serverName];
        const joined = await joinRoom(ctx, { userId, roomId: room.roomId, via });
        for (const one of after) await happen(room, one);
        // What was kept from us is told by whatever comes last.
        await resident.sendMessage(room, resident.founder, "the end", { to: [sidecar.serverName] });
        for (let round = 0; round < 20 && (await countWaitingPdus(database.pool, room.roomId)) > 0; round += 1) {
          await receiveWaitingPdus({ ...ctx, now: () => Date.now() + round * 600_000 });
        }
        expect(await driveResync(ctx, room.roomId, joined.eventId)).toBe("completed");
        expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
        await leaveRoom(ctx, { userId, roomId: room.roomId });
      }),
      { seed: SEED, numRuns: ROOMS },
    );
  });
});

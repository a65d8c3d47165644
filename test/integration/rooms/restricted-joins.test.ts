import { describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { knockOnRoom } from "../../../src/rooms/join/knock-room.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { currentStreamPosition, localMembershipsAt } from "../../../src/storage/streams.ts";
import type { Front } from "../../resident/front.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene({ fronts: 2 });
const [first, second] = resident.fronts as [Front, Front];
const { ctx } = sidecar;
const BOTH = [first.serverName, second.serverName];

let rooms = 0;
function hostRoom(joinRule: "restricted" | "knock_restricted" | "invite" | "knock"): HostedRoom {
  rooms += 1;
  return resident.hostRoom({ members: 20, joinRule, label: `room ${rooms}` });
}

let users = 0;
function aUser(): UserId {
  users += 1;
  return `@user${users}:${sidecar.serverName}`;
}

const join = async (room: HostedRoom, userId: UserId, via: readonly string[] = BOTH) =>
  joinRoom(ctx, { userId, roomId: room.roomId, via });

/** The first server has the other one's user vouch, who may invite too. */
function haveTheOtherVouch(room: HostedRoom): () => void {
  const state = resident.fullState(room);
  const named = [
    stateKeyOf("m.room.create", ""),
    stateKeyOf("m.room.power_levels", ""),
    stateKeyOf("m.room.join_rules", ""),
    stateKeyOf("m.room.member", second.user),
  ].flatMap((key) => state.get(key) ?? []);
  const content = { membership: "join", join_authorised_via_users_server: second.user };
  const changes = { content, auth_events: named };
  return resident.trouble({ kind: "lie", lie: "template", changes, at: "make_join" }, first);
}

function asked(front: Front, room: HostedRoom): readonly string[] {
  const here = front.requests.filter((one) => one.uri.includes(encodeURIComponent(room.roomId)));
  return here.map((one) => one.endpoint).filter((endpoint) => endpoint.endsWith("_join"));
}

async function endsAsTheResident(room: HostedRoom, joinEventId: EventId): Promise<void> {
  expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("completed");
  expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
}

describe("a restricted join for which a third server's user vouches", () => {
  it("is proposed by one server and completed at the other, which signs it", async () => {
    const room = hostRoom("restricted");
    const end = haveTheOtherVouch(room);
    const userId = aUser();
    const joined = await join(room, userId, [first.serverName]);
    end();
    expect(asked(first, room)).toEqual(["make_join"]);
    expect(asked(second, room)).toEqual(["send_join"]);
    const event = await loadEvent(database.pool, joined.eventId);
    expect(event?.pdu.content["join_authorised_via_users_server"]).toBe(second.user);
    expect(Object.keys(event?.pdu.signatures ?? {}).toSorted()).toEqual(
      [second.serverName, sidecar.serverName].toSorted(),
    );
    expect((await partialRoom(database.pool, room.roomId))?.joinedVia).toBe(second.serverName);
    await endsAsTheResident(room, joined.eventId);
  });

  it("goes on at the next server where that one does not complete it", async () => {
    const room = hostRoom("restricted");
    const end = haveTheOtherVouch(room);
    const down = resident.trouble({ kind: "refuse", status: 503, at: "send_join", times: 1 }, second);
    const joined = await join(room, aUser());
    down();
    end();
    expect(asked(first, room)).toEqual(["make_join"]);
    expect(asked(second, room)).toEqual(["send_join", "make_join", "send_join"]);
    await endsAsTheResident(room, joined.eventId);
  });

  it.each([
    ["make_join", "M_UNABLE_TO_AUTHORISE_JOIN"],
    ["make_join", "M_UNABLE_TO_GRANT_JOIN"],
    ["send_join", "M_UNABLE_TO_AUTHORISE_JOIN"],
  ] as const)("is asked of the next server where %s answers %s", async (at, errcode) => {
    const room = hostRoom("restricted");
    const end = resident.trouble({ kind: "refuse", status: 400, errcode, at }, first);
    const joined = await join(room, aUser());
    end();
    expect(asked(second, room)).toEqual(["make_join", "send_join"]);
    await endsAsTheResident(room, joined.eventId);
  });

  it("is not sent to ourselves, whoever the template has vouch", async () => {
    const room = hostRoom("restricted");
    const content = { membership: "join", join_authorised_via_users_server: aUser() };
    const end = resident.trouble({ kind: "lie", lie: "template", changes: { content }, at: "make_join" }, first);
    await expect(join(room, aUser(), [first.serverName])).rejects.toThrow("a user of ours");
    await join(room, aUser());
    end();
    expect(asked(first, room)).toEqual(["make_join", "make_join"]);
    expect(asked(second, room)).toEqual(["make_join", "send_join"]);
  });

  it("of a second user of a partial room is a handshake too", async () => {
    const room = hostRoom("restricted");
    const { eventId } = await join(room, aUser());
    const before = await partialRoom(database.pool, room.roomId);
    const end = haveTheOtherVouch(room);
    const userId = aUser();
    await join(room, userId, [first.serverName]);
    end();
    expect(resident.membership(room, userId)).toBe("join");
    expect(await partialRoom(database.pool, room.roomId)).toEqual(before);
    await endsAsTheResident(room, eventId);
  });
});

describe("an invitation in a partial room", () => {
  it.each(["invite", "restricted"] as const)(
    "is seen by our user and taken up by a handshake, with nobody vouching (%s)",
    async (joinRule) => {
      const room = hostRoom(joinRule);
      const [one, two] = [aUser(), aUser()];
      await resident.invite(room, one, { by: first.user });
      const { eventId } = await join(room, one);
      const invited = await resident.invite(room, two, { by: first.user });
      await resident.deliver(room, [invited.eventId], { to: [sidecar.serverName] });
      expect(await standing(two, room)).toMatchObject({ membership: "invite", eventId: invited.eventId });

      // Nobody is named: the inviter's server is asked.
      const joined = await join(room, two, []);

      expect(joined.partial).toBe(true);
      const event = await loadEvent(database.pool, joined.eventId);
      expect(event?.pdu.content).toEqual({ membership: "join" });
      expect(resident.membership(room, two)).toBe("join");
      await endsAsTheResident(room, eventId);
    },
  );

  it("follows a knock", async () => {
    const room = hostRoom("knock");
    const [one, two] = [aUser(), aUser()];
    await resident.invite(room, one, { by: first.user });
    const { eventId } = await join(room, one);
    await knockOnRoom(ctx, { userId: two, roomId: room.roomId, via: [second.serverName] });
    expect(await standing(two, room)).toMatchObject({ membership: "knock" });
    const invited = await resident.invite(room, two, { by: first.user });
    await resident.deliver(room, [invited.eventId], { to: [sidecar.serverName] });
    expect(await standing(two, room)).toMatchObject({ membership: "invite" });
    await join(room, two, []);
    expect(resident.membership(room, two)).toBe("join");
    await endsAsTheResident(room, eventId);
  });
});

describe("a room of knock_restricted", () => {
  it("lets in for whom somebody vouches, and takes the knock of another", async () => {
    const room = hostRoom("knock_restricted");
    const { eventId } = await join(room, aUser());
    const knocker = aUser();
    await knockOnRoom(ctx, { userId: knocker, roomId: room.roomId, via: BOTH });
    expect(resident.membership(room, knocker)).toBe("knock");
    await join(room, knocker);
    expect(resident.membership(room, knocker)).toBe("join");
    await endsAsTheResident(room, eventId);
  });
});

async function standing(userId: UserId, room: HostedRoom) {
  const changes = await localMembershipsAt(database.pool, userId, await currentStreamPosition(database.pool));
  return changes.find((one) => one.roomId === room.roomId);
}

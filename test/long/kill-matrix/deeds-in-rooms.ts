import type { RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { resyncWorkflowId } from "../../../workflows/contract.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Deed } from "./deeds.ts";
import type { Stage } from "./stage.ts";
import {
  aftermath,
  enter,
  insist,
  membershipOf,
  newRoom,
  operate,
  reconcile,
  rowsOf,
  tell,
  theySay,
  until,
  untilWhole,
  visitorJoins,
  weSay,
} from "./stage.ts";

const inRoom = (room: { readonly roomId: string }, rest: string): string =>
  `rooms/${encodeURIComponent(room.roomId)}/${rest}`;

/** The resync stands still until it is let go. */
function holdResync({ lane, resident }: Stage): () => void {
  return resident.trouble({ kind: "hold", at: "state_ids", forServer: lane.serverName });
}

/** Who has left already, and was not told, is told when they ask again. */
async function leave(stage: Stage, room: HostedRoom): Promise<void> {
  await insist("a leave", async () => {
    try {
      await stage.alice.post(inRoom(room, "leave"));
    } catch (error) {
      if ((await membershipOf(stage, room)) !== "leave") throw error;
    }
  });
}

const liveInPartialRoom: Deed = {
  name: "join a room, live in it while it is partial, and have it repaired",
  run: async (stage) => {
    const room = newRoom(stage);
    const letGo = holdResync(stage);
    await enter(stage, room);
    await reconcile(stage);
    await theySay(stage, room, "theirs, before");
    await weSay(stage, room, "ours, before");
    letGo();
    await weSay(stage, room, "ours, after");
    await theySay(stage, room, "theirs, after");
    return await aftermath(stage, room);
  },
};

const joinInFull: Deed = {
  name: "join a room by an answer that holds everything",
  run: async (stage) => {
    const { lane, resident } = stage;
    const room = newRoom(stage, { members: 3_200 });
    const end = resident.trouble({ kind: "full-join", forServer: lane.serverName });
    await enter(stage, room);
    end();
    await weSay(stage, room, "ours, after");
    return await aftermath(stage, room, { hasStory: false });
  },
};

const hearDuringJoin: Deed = {
  name: "hear of events while the join is under way, and of one behind a gap",
  run: async (stage) => {
    const { lane, resident } = stage;
    const room = newRoom(stage);
    const since = resident.front.requests.length;
    const letGo = resident.trouble({ kind: "hold", at: "send_join", forServer: lane.serverName });
    const joined = enter(stage, room);
    await until("the join is under way", async () =>
      resident.front.requests
        .slice(since)
        .some(({ endpoint, origin }) => endpoint === "send_join" && origin === lane.serverName),
    );
    await theySay(stage, room, "theirs, meanwhile");
    letGo();
    await joined;
    const sending = { push: false, withhold: true };
    const hidden = await resident.sendMessage(room, resident.front.user, "theirs, hidden", sending);
    await theySay(stage, room, "theirs, behind it");
    resident.reveal(room, hidden.eventId);
    return await aftermath(stage, room);
  },
};

const leavePartialRoom: Deed = {
  name: "leave a partial room, and forget it",
  run: async (stage) => {
    const { alice, lane, resident } = stage;
    const room = newRoom(stage);
    const letGo = holdResync(stage);
    await enter(stage, room);
    await leave(stage, room);
    letGo();
    await until("the resync is over", async () => (await rowsOf(lane, "partial_state_rooms", room)) === 0);
    await until("the resident knows", async () => resident.membership(room, alice.userId as UserId) === "leave");
    await insist("to forget", () => alice.post(inRoom(room, "forget")));
    const handle = lane.temporal.workflow.getHandle(resyncWorkflowId(lane.serverName, room.roomId));
    return {
      membership: await membershipOf(stage, room),
      story: await insist("the story", async () => String(await handle.result())),
      forgotten: await rowsOf(lane, "forgotten_rooms", room),
    };
  },
};

const removedFromRoom: Deed = {
  name: "be kicked from a partial room by an event whose past nobody tells",
  run: async (stage) => {
    const { alice, lane, resident } = stage;
    const room = newRoom(stage);
    const letGo = holdResync(stage);
    await enter(stage, room);
    const sending = { push: false, withhold: true };
    await resident.sendMessage(room, resident.front.user, "theirs, hidden", sending);
    const { event } = await resident.kick(room, alice.userId as UserId, { push: false });
    await tell(stage, { pdus: [event.pdu] });
    await until("alice is out", async () => (await membershipOf(stage, room)) === "leave");
    letGo();
    await until("the resync is over", async () => (await rowsOf(lane, "partial_state_rooms", room)) === 0);
    return { membership: await membershipOf(stage, room) };
  },
};

const refuseInvitation: Deed = {
  name: "be invited, and refuse",
  run: async (stage) => {
    const { resident } = stage;
    const room = newRoom(stage, { joinRule: "invite" });
    const userId = stage.alice.userId as UserId;
    await insist("an invitation", () => resident.invite(room, userId, { by: resident.front.user, to: [] }));
    const invited = await insist("the invitation", () => membershipOf(stage, room));
    await leave(stage, room);
    return { invited, after: await membershipOf(stage, room), there: resident.membership(room, userId) };
  },
};

const knockInVain: Deed = {
  name: "knock, and be refused",
  run: async (stage) => {
    const { alice, resident } = stage;
    const room = newRoom(stage, { joinRule: "knock" });
    const path = `knock/${encodeURIComponent(room.roomId)}?via=${encodeURIComponent(resident.serverName)}`;
    await insist("a knock", () => alice.post(path));
    const knocking = await membershipOf(stage, room);
    const { event } = await resident.kick(room, alice.userId as UserId, { push: false });
    await tell(stage, { pdus: [event.pdu] });
    return { knocking, after: await membershipOf(stage, room) };
  },
};

const makeRoom: Deed = {
  name: "make a room, invite a user of another server, and let one in",
  run: async (stage) => {
    const { alice, resident } = stage;
    const { roomId } = await insist("a room", async () => {
      const made = await alice.post<{ room_id: string }>("createRoom", { preset: "public_chat", room_version: "11" });
      return { roomId: made.room_id };
    });
    const guest = resident.front.user;
    await insist("an invitation", () => alice.post(inRoom({ roomId }, "invite"), { user_id: guest }));
    const joined = await insist("a join by another server", () => visitorJoins(stage, roomId as RoomId));
    const members = await insist("the members", () =>
      alice.get<{ joined: object }>(inRoom({ roomId }, "joined_members")),
    );
    const state = await insist("the state", () => alice.fullState(roomId));
    return {
      invited: state.has(`m.room.member\u001f${guest}`),
      isIn: Object.keys(members.joined).includes(joined),
    };
  },
};

const steerResync: Deed = {
  name: "cancel a resync by hand and in Temporal, and set it going again",
  run: async (stage) => {
    const { lane } = stage;
    const room = newRoom(stage);
    const letGo = holdResync(stage);
    await enter(stage, room);
    const id = resyncWorkflowId(lane.serverName, room.roomId);
    const handle = lane.temporal.workflow.getHandle(id);
    await insist("a cancel in Temporal", () => handle.cancel());
    await until("it is cancelled", async () => (await handle.describe()).status.name === "CANCELLED");
    const noted = await wishOf(stage, room);
    const isCancelled = async (): Promise<boolean> => (await handle.describe()).status.name === "CANCELLED";
    const goesOn = async (): Promise<boolean> => !(await isCancelled());
    await operate(stage, room, { what: "retry", isDone: goesOn });
    await until("it runs again", goesOn);
    await operate(stage, room, { what: "cancel", isDone: isCancelled });
    await until("it is cancelled by hand", isCancelled);
    const wished = await wishOf(stage, room);
    letGo();
    await operate(stage, room, { what: "retry", isDone: goesOn });
    await untilWhole(stage, room);
    return { noted, wished, ...(await aftermath(stage, room)) };
  },
};

async function wishOf({ lane }: Stage, room: HostedRoom): Promise<string | undefined> {
  return await insist("the wish", async () => {
    const { rows } = await lane.database.pool.query<{ wish: string }>(
      "SELECT wish FROM resync_control WHERE room_id = $1",
      [room.roomId],
    );
    if (rows[0] === undefined) throw new Error("there is none yet");
    return rows[0].wish;
  });
}

async function isPurged({ lane }: Stage, { roomId }: HostedRoom): Promise<boolean> {
  const { rowCount } = await lane.database.pool.query(
    "SELECT 1 FROM room_purges WHERE room_id = $1 AND purged_at IS NOT NULL",
    [roomId],
  );
  return rowCount === 1;
}

const DAYS = 24 * 60 * 60_000;

const purgeRoom: Deed = {
  name: "purge a room in the middle of its resync",
  run: async (stage) => {
    const { alice, lane, resident } = stage;
    const room = newRoom(stage);
    const letGo = holdResync(stage);
    await enter(stage, room);
    await operate(stage, room, { what: "purge", isDone: async () => await isPurged(stage, room) });
    letGo();
    const partial = await rowsOf(lane, "partial_state_rooms", room);
    const events = await rowsOf(lane, "partial_state_events", room);
    await until("the resident knows", async () => resident.membership(room, alice.userId as UserId) === "leave");
    await until("it is told", async () => {
      const { rowCount } = await lane.database.pool.query(
        "SELECT 1 FROM outbox JOIN events USING (event_id) WHERE destination = $1 AND room_id = $2",
        [resident.serverName, room.roomId],
      );
      return rowCount === 0;
    });
    await lane.shiftClock(8 * DAYS);
    try {
      await until("the room is gone", async () => {
        await reconcile(stage);
        return (await rowsOf(lane, "rooms", room)) === 0;
      });
    } finally {
      await lane.shiftClock(0);
    }
    return { partial, events, left: await rowsOf(lane, "events", room) };
  },
};

export const DEEDS_IN_ROOMS: readonly Deed[] = [
  liveInPartialRoom,
  hearDuringJoin,
  leavePartialRoom,
  removedFromRoom,
  steerResync,
  refuseInvitation,
  knockInVain,
  makeRoom,
  joinInFull,
  purgeRoom,
];

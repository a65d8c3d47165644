import { MatrixError } from "../../../src/federation-api/matrix-error.ts";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { redactEvent } from "../../../src/rooms/send/redact-event.ts";
import type { RoomInPlay } from "./room-in-play.ts";
import type { Step } from "./story.ts";
import { settle, tellOfJoins, tellOfOurs } from "./tell.ts";

type OwnStep = Extract<Step, { step: "ours" }>;

/** A user of ours does something, as far as it is allowed; the others hear of it. */
export async function actForOurs(play: RoomInPlay, step: OwnStep): Promise<void> {
  const { ours } = play.stage;
  await ours.survive(step.crash, async () => {
    try {
      await act(play, step);
    } catch (error) {
      // What the room does not allow, its user is told; here nobody minds.
      if (!(error instanceof MatrixError)) throw error;
    }
    await settle(play);
  });
  await tellOfJoins(play);
  await tellOfOurs(play);
}

async function act(play: RoomInPlay, { what, whom }: OwnStep): Promise<void> {
  const { stage, room, secondUser } = play;
  const { ctx, userId: sender } = stage.ours.sidecar;
  const { roomId } = room;
  const draft = { roomId, sender };
  switch (what) {
    case "message":
      return void (await createEvent(ctx, { ...draft, type: "m.room.message", content: { body: `ours ${whom}` } }));
    case "topic":
      return void (await createEvent(ctx, {
        ...draft,
        type: "m.room.topic",
        stateKey: "",
        content: { topic: `${whom}` },
      }));
    case "rename": {
      const content = { membership: "join", displayname: `${whom}` };
      return void (await createEvent(ctx, { ...draft, type: "m.room.member", stateKey: sender, content }));
    }
    case "second joins":
      return void (await joinRoom(ctx, { userId: secondUser, roomId, via: [stage.resident.serverName] }));
    case "second leaves":
      return await leaveRoom(ctx, { userId: secondUser, roomId });
    case "kick":
      return void (await createEvent(ctx, {
        ...draft,
        type: "m.room.member",
        stateKey: targetOf(play, whom),
        content: { membership: whom % 2 === 0 ? "leave" : "ban" },
      }));
    case "redaction": {
      const redacts = [...room.events.keys()][whom % room.events.size];
      if (redacts === undefined) return;
      const transaction = { userId: sender, deviceId: "DEVICE", path: ["redact", roomId, redacts, `${whom}`] };
      return void (await redactEvent(ctx, transaction, { ...draft, redacts, content: {} }));
    }
  }
}

function targetOf({ users, secondUser }: RoomInPlay, whom: number): UserId {
  return [...users, secondUser][whom % (users.length + 1)] ?? secondUser;
}

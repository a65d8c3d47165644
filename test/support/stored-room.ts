import type { Event, Pdu } from "../../src/matrix/event.ts";
import type { EventId, RoomId } from "../../src/matrix/identifiers.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { transaction, type Database } from "../../src/storage/database.ts";
import { insertTimelineEvent } from "../../src/storage/events.ts";
import { insertRoom } from "../../src/storage/rooms.ts";
import { takeStreamPositions } from "../../src/storage/streams.ts";

let rooms = 0;

/** A room that is known by its id and version alone. */
export async function aStoredRoom(database: Database, roomVersion: RoomVersion = "11"): Promise<RoomId> {
  rooms += 1;
  const roomId: RoomId = `!room${rooms}:example.org`;
  await insertRoom(database.pool, { roomId, roomVersion });
  return roomId;
}

/** An event as storage sees it: neither hashed nor signed, with an id of its own choice. */
export function anEvent(roomId: RoomId, eventId: EventId, changes: Partial<Pdu> = {}): Event {
  const pdu: Pdu = {
    room_id: roomId,
    type: "m.room.message",
    sender: "@alice:example.org",
    content: { body: `event ${eventId}` },
    prev_events: [],
    auth_events: [],
    depth: 1,
    origin_server_ts: 1_700_000_000_000,
    ...changes,
  };
  return { eventId, roomId, pdu, rejected: false };
}

export function aMemberEvent(roomId: RoomId, eventId: EventId, number: number): Event {
  const userId = `@user${number}:server${number % 50}.example.org` as const;
  return anEvent(roomId, eventId, {
    type: "m.room.member",
    sender: userId,
    state_key: userId,
    content: { membership: "join", displayname: `User number ${number}` },
    auth_events: [`$create`, `$power`, `$rules`],
    hashes: { sha256: "x".repeat(43) },
    signatures: { [`server${number % 50}.example.org`]: { "ed25519:key": "y".repeat(86) } },
  });
}

/** Stores the event at the end of the timeline, without any state. */
export async function storeInTimeline(database: Database, event: Event): Promise<bigint> {
  return transaction(database, async (tx) => {
    const streamId = await takeStreamPositions(tx, 1);
    const verdict = { rejection: null, softFailed: false, stateBefore: null, stateAfter: null };
    await insertTimelineEvent(tx, { event, streamId, ...verdict });
    return streamId;
  });
}

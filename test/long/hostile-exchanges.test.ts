import { Writable } from "node:stream";
import fc from "fast-check";
import pino from "pino";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { MatrixError } from "../../src/federation-api/matrix-error.ts";
import { FederationFailure } from "../../src/federation-client/failures.ts";
import type { Pdu } from "../../src/matrix/event.ts";
import { isServerName, serverNameOf } from "../../src/matrix/identifiers.ts";
import { parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { hashAndSignEvent } from "../../src/matrix/signatures.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import { joinRoom } from "../../src/rooms/join/join-room.ts";
import { receiveTransaction } from "../../src/rooms/receive/receive-transaction.ts";
import { fetchMissingState } from "../../src/rooms/resync/resync-fetch-state.ts";
import { nextResyncStep } from "../../src/rooms/resync/resync-next-step.ts";
import { whichExist } from "../../src/storage/events.ts";
import {
  byteMutations,
  mutated,
  mutatedBytes,
  mutatedContent,
  mutation,
  type ByteMutation,
  type Mutation,
} from "../property/arbitrary-real-events.ts";
import type { Draft } from "../resident/compose-event.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { identityOf } from "../resident/identities.ts";
import { driveResync } from "../support/drive-resync.ts";
import { rowsNaming } from "../support/rows-naming.ts";
import { openScene } from "../support/scene.ts";
import { runs } from "../support/fuzz.ts";

const { database, resident, sidecar } = await openScene();
const failures: string[] = [];
const log = new Writable({
  write(chunk, _encoding, done) {
    failures.push(String(chunk));
    done();
  },
});
const ctx: RoomsContext = { ...sidecar.ctx, logger: pino({ level: "error" }, log) };
const { userId } = sidecar;
const via = [resident.serverName];
const origin = resident.serverName;
let count = 0;

afterEach(() => {
  resident.clearTrouble();
  expect(failures).toEqual([]);
});

function aRoom(version: RoomVersion = "11"): HostedRoom {
  count += 1;
  return resident.hostRoom({
    label: `hostile ${count}`,
    version,
    members: 6,
    servers: 2,
    bans: 1,
    kicks: 0,
    leaves: 1,
  });
}

/** Only errors that say what was wrong may come out. */
async function onlyOurs(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof MatrixError) && !(error instanceof FederationFailure)) throw error;
    expect(error.message).not.toBe("");
    return false;
  }
}

const ROOM_VERSIONS_HERE = ["1", "3", "6", "10", "11", "12"] as const;

function draftsOf(sender: Draft["sender"]): readonly Draft[] {
  return [
    { sender, type: "m.room.message", content: { msgtype: "m.text", body: "hello" } },
    { sender, type: "m.room.member", stateKey: sender, content: { membership: "join", displayname: "Re\u00f1amed" } },
    { sender, type: "m.room.topic", stateKey: "", content: { topic: "topic" } },
    { sender, type: "m.reaction", content: { "m.relates_to": { rel_type: "m.annotation", event_id: "$a", key: "+" } } },
    { sender, type: "m.room.member", stateKey: "@guest:server-001.rooms.test", content: { membership: "invite" } },
  ];
}

const EDUS: readonly JsonObject[] = [
  { edu_type: "m.typing", content: { room_id: "!a:b", user_id: `@u:${origin}`, typing: true } },
  {
    edu_type: "m.receipt",
    content: { "!a:b": { "m.read": { [`@u:${origin}`]: { event_ids: ["$a"], data: { ts: 1 } } } } },
  },
  { edu_type: "m.presence", content: { push: [{ user_id: `@u:${origin}`, presence: "online", last_active_ago: 5 }] } },
  {
    edu_type: "m.device_list_update",
    content: { user_id: `@u:${origin}`, device_id: "D", stream_id: 6, prev_id: [5] },
  },
  {
    edu_type: "m.signing_key_update",
    content: { user_id: `@u:${origin}`, master_key: { keys: {}, usage: ["master"] } },
  },
  {
    edu_type: "m.direct_to_device",
    content: { sender: `@u:${origin}`, type: "t", message_id: "m", messages: { [userId]: { "*": { a: 1 } } } },
  },
];

/** Signs what a mutation has left of an event, so that more than its signature is put to the test. */
function resigned(room: HostedRoom, value: JsonValue): JsonValue {
  const pdu = value as Pdu;
  try {
    const server = serverNameOf(pdu.sender);
    if (!isServerName(server)) return value;
    return hashAndSignEvent(pdu, server, identityOf(resident.world.seed, server), room.rules);
  } catch {
    // No event can be made of it; it is sent as it is.
    return value;
  }
}

const hostilePdu = fc.record({
  draft: fc.nat(),
  by: mutation,
  contentOnly: fc.boolean(),
  signed: fc.boolean(),
});

describe("receiveTransaction", () => {
  const rooms: HostedRoom[] = [];

  beforeAll(async () => {
    for (const version of ROOM_VERSIONS_HERE) {
      const room = aRoom(version);
      const { eventId } = await joinRoom(ctx, { roomId: room.roomId, userId, via });
      await driveResync(ctx, room.roomId, eventId);
      rooms.push(room);
    }
  });

  it("gives a result for each of mutated events and EDUs, and takes a good event after all of them", async () => {
    const edus = fc.array(fc.tuple(fc.nat(), mutation), { maxLength: 2 });
    const property = fc.asyncProperty(
      fc.nat(),
      fc.array(hostilePdu, { minLength: 1, maxLength: 3 }),
      edus,
      async (at, hostile, spoilt) => {
        const room = rooms[at % rooms.length] ?? expect.fail();
        const pdus: JsonValue[] = [];
        for (const { draft, by, contentOnly, signed } of hostile) {
          const drafts = draftsOf(resident.front.user);
          const made = drafts[draft % drafts.length] ?? expect.fail();
          const { event } = await resident.send(room, { ...made, evenIfRejected: true }, { push: false, keep: false });
          const value = contentOnly ? mutatedContent(event.pdu, by) : mutated(event.pdu, by);
          pdus.push(signed ? resigned(room, value) : value);
        }
        count += 1;
        const told = spoilt.map(([which, by]) => mutated(EDUS[which % EDUS.length] ?? {}, by));
        const results = await receiveTransaction(ctx, { origin, txnId: `t${count}`, pdus, edus: told });
        const reasons = Object.values(results).map(({ error }) => error);
        expect(reasons.every((error) => error === undefined || error !== "")).toBe(true);
      },
    );
    await fc.assert(property, runs(400));
    for (const room of rooms) {
      const { event } = await resident.sendMessage(room, resident.front.user, "good", { push: false });
      await receiveTransaction(ctx, { origin, txnId: `good ${room.roomId}`, pdus: [event.pdu], edus: [] });
      expect([...(await whichExist(database.pool, [event.eventId]))]).toEqual([event.eventId]);
    }
  });
});

type Spoiled = { readonly by: Mutation } | { readonly bytes: readonly ByteMutation[] };

const spoiling: fc.Arbitrary<Spoiled> = fc.oneof(fc.record({ by: mutation }), fc.record({ bytes: byteMutations }));

function spoil(how: Spoiled): (text: string) => string | Uint8Array {
  if ("bytes" in how) return (text) => mutatedBytes(Buffer.from(text), how.bytes);
  return (text) => stringifyJson(mutated(parseJson(text), how.by));
}

const version = fc.constantFrom(...ROOM_VERSIONS_HERE);

describe("a join", () => {
  it("comes to be or leaves nothing behind, whatever make_join and send_join answer", async () => {
    const property = fc.asyncProperty(
      version,
      fc.constantFrom("make_join", "send_join", "send_join"),
      spoiling,
      async (of, at, how) => {
        const { roomId } = aRoom(of);
        const end = resident.trouble({ kind: "rewrite", change: spoil(how), at });
        const joined = await onlyOurs(() => joinRoom(ctx, { roomId, userId, via }));
        end();
        const { forgotten_rooms: _kept, ...rows } = await rowsNaming(database, roomId);
        expect(Object.keys(rows).length > 0).toBe(joined);
      },
    );
    await fc.assert(property, runs(120));
  });
});

describe("the state of a partial room", () => {
  it("is had or is not, and the room stays what it is, whatever state_ids, state and event answer", async () => {
    const property = fc.asyncProperty(
      version,
      fc.constantFrom("state_ids", "state", "event"),
      spoiling,
      async (of, at, how) => {
        const { roomId } = aRoom(of);
        const { eventId: joinEventId } = await joinRoom(ctx, { roomId, userId, via });
        const target = { roomId, joinEventId };
        const step = await nextResyncStep(ctx, target);
        if (step.kind !== "fetch") return;
        const [eventId = joinEventId] = step.eventIds;
        if (at === "event") resident.trouble({ kind: "refuse", status: 500, at: "state" });
        resident.trouble({ kind: "rewrite", change: spoil(how), at });
        await onlyOurs(() => fetchMissingState(ctx, { ...target, eventId, server: resident.serverName }));
        resident.clearTrouble();
        expect(await driveResync(ctx, roomId, joinEventId)).toBe("completed");
        const truth = resident.fullState(resident.room(roomId));
        expect((await sidecar.currentState(roomId)).size).toBe(truth.size);
      },
    );
    await fc.assert(property, runs(80));
  });
});

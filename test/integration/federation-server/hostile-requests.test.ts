import { Writable } from "node:stream";
import fc from "fast-check";
import pino from "pino";
import { beforeAll, describe, expect, it } from "vitest";
import type { Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import type { RoomId } from "../../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { hashAndSignEvent } from "../../../src/matrix/signatures.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { ALICE, aRoom } from "../../support/a-room.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";
import type { RemoteServer } from "../../support/loopback-federation.ts";
import { runs } from "../../support/fuzz.ts";

const BOB = "@bob:them.example";
const logged: string[] = [];
const log = new Writable({
  write(chunk, _encoding, done) {
    logged.push(String(chunk));
    done();
  },
});

const ctx = aRoomsContext(await openTestDatabase(), { logger: pino({ level: "error" }, log) });
let them: RemoteServer;
let roomId: RoomId;
let template: JsonObject;

beforeAll(async () => {
  them = await (await startLoopbackFederation(ctx)).remote("them.example");
  roomId = await aRoom(ctx);
  const made = await them.ask("GET", `/_matrix/federation/v1/make_join/${roomId}/${BOB}?ver=11`);
  template = (made.body as { readonly event: JsonObject }).event;
});

const oddText = fc.oneof(
  fc.constantFrom("", "\0", "..", "%", "/", "?", "#a:b", "\u{1F600}", "'; DROP TABLE events; --", "x".repeat(300)),
  fc.string({ unit: "grapheme", maxLength: 12 }),
);

/** Words that fit a place, or nearly. */
const anyWords = fc.record({
  txn: oddText,
  text: oddText,
  room: fc.oneof(
    { arbitrary: fc.constant("room"), weight: 8 },
    fc.constantFrom("!a:b", "!", "!\0:b", `!${"r".repeat(43)}`),
    oddText,
  ),
  event: fc.oneof(
    { arbitrary: fc.constant("event"), weight: 8 },
    fc.constantFrom("$a:b", "$", `$${"e".repeat(43)}`, "$a\0b"),
    oddText,
  ),
  user: fc.oneof(
    { arbitrary: fc.constant(BOB), weight: 4 },
    fc.constantFrom(BOB, ALICE, "@:them.example", "@a\0:them.example"),
    oddText,
  ),
});

const json = fc.jsonValue({ maxDepth: 3 }) as fc.Arbitrary<JsonValue>;

const KEYS = ["type", "sender", "state_key", "content", "prev_events", "auth_events", "depth", "hashes", "room_id"];

/** A membership event of the right form but for one or two members, signed all the same where that can be done. */
const nearlyAnEvent = fc
  .record({
    changes: fc.oneof(fc.constant({}), fc.dictionary(fc.constantFrom(...KEYS), json, { maxKeys: 2 })),
    kind: fc.constantFrom("join", "leave", "invite", "knock"),
  })
  .map(({ changes, kind }): JsonValue => {
    const invited = kind === "invite" ? { state_key: ALICE } : {};
    const pdu = { ...template, ...invited, content: { membership: kind }, ...changes } as unknown as Pdu;
    try {
      return hashAndSignEvent(pdu, them.name, them.key, rulesFor("11"));
    } catch {
      return pdu;
    }
  });

const transaction = fc.record(
  { pdus: fc.array(fc.oneof(json, nearlyAnEvent, nearlyAnEvent), { maxLength: 3 }), edus: json },
  { requiredKeys: ["pdus"] },
);

const invitation = fc.record({
  room_version: fc.constantFrom("11", "11", "1", "12", "x"),
  event: nearlyAnEvent,
  invite_room_state: fc.oneof(json, fc.array(nearlyAnEvent, { maxLength: 2 })),
});

const walk = fc.record(
  { earliest_events: json, latest_events: fc.array(fc.constantFrom("$a", "$a\0b", "x")), limit: json },
  { requiredKeys: ["latest_events"] },
);

const userIds = fc.constantFrom("@alice:us.example", "@a\0b:us.example", "@b:other.example", "alice", "__proto__");
const perDevice = fc.oneof(json, fc.array(fc.constantFrom("D", "\0")), fc.dictionary(fc.string(), fc.string()));

function ofUsers(name: string): fc.Arbitrary<JsonValue> {
  return fc.dictionary(userIds, perDevice).map((users) => ({ [name]: users }) as JsonValue);
}

type Place = readonly [method: string, path: string, body?: fc.Arbitrary<JsonValue>];

const PLACES: readonly Place[] = [
  ["PUT", "v1/send/:txn", transaction],
  ["GET", "v1/event/:event"],
  ["GET", "v1/state/:room?event_id=:event"],
  ["GET", "v1/state_ids/:room?event_id=:event"],
  ["GET", "v1/event_auth/:room/:event"],
  ["POST", "v1/get_missing_events/:room", walk],
  ["GET", "v1/backfill/:room?v=:event&limit=:text"],
  ["GET", "v1/make_join/:room/:user?ver=:text"],
  ["GET", "v1/make_leave/:room/:user"],
  ["GET", "v1/make_knock/:room/:user?ver=11"],
  ["PUT", "v1/send_join/:room/:event", nearlyAnEvent],
  ["PUT", "v2/send_join/:room/:event?omit_members=true", nearlyAnEvent],
  ["PUT", "v1/send_leave/:room/:event", nearlyAnEvent],
  ["PUT", "v2/send_leave/:room/:event", nearlyAnEvent],
  ["PUT", "v1/send_knock/:room/:event", nearlyAnEvent],
  ["PUT", "v1/invite/:room/:event", nearlyAnEvent],
  ["PUT", "v2/invite/:room/:event", invitation],
  ["GET", "v1/query/profile?user_id=:user&field=:text"],
  ["GET", "v1/query/directory?room_alias=:text"],
  ["GET", "v1/user/devices/:user"],
  ["POST", "v1/user/keys/query", ofUsers("device_keys")],
  ["POST", "v1/user/keys/claim", ofUsers("one_time_keys")],
];

const anyRequest = fc.constantFrom(...PLACES).chain(([method, path, body = json]) =>
  fc.record({
    method: fc.constant(method),
    path: fc.constant(path),
    fill: anyWords,
    content: fc.oneof({ arbitrary: body, weight: 5 }, { arbitrary: json, weight: 1 }),
  }),
);

/** The id of the event that the body holds, so that the path names it. */
function eventIdIn(content: JsonValue): string {
  const pdu = isJsonObject(content) && isJsonObject(content["event"]) ? content["event"] : content;
  try {
    return eventIdOf(pdu as Pdu, rulesFor("11"));
  } catch {
    return "$none";
  }
}

describe("createFederationApp", () => {
  it(
    "answers whatever a server sends with JSON, and never with a failure of its own",
    { timeout: 180_000 },
    async () => {
      await fc.assert(
        fc.asyncProperty(anyRequest, async ({ method, path: place, fill, content }) => {
          const words = { ...fill, ...(fill.room === "room" ? { room: roomId } : {}) };
          const event = fill.event === "event" ? eventIdIn(content) : fill.event;
          const path = place.replaceAll(/:(\w+)/g, (_all, name: keyof typeof words) =>
            encodeURIComponent(name === "event" ? event : words[name]).replaceAll(".", "%2E"),
          );
          const answer = await them.ask(method, `/_matrix/federation/${path}`, method === "GET" ? undefined : content);
          expect(logged).toEqual([]);
          expect(answer.status).toBeLessThan(500);
          if (answer.status !== 200) {
            expect(isJsonObject(answer.body) && answer.body["errcode"]).toMatch(/^(M_|ORG\.MATRIX\.)[A-Z0-9_]+$/);
          }
        }),
        runs(400),
      );
    },
  );
});

import { setTimeout as sleep } from "node:timers/promises";
import { Writable } from "node:stream";
import type { ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";
import { Client, Connection } from "@temporalio/client";
import { MockActivityEnvironment } from "@temporalio/testing";
import pino from "pino";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { createResyncActivities } from "../../../activities/resync-activities.ts";
import type { FetchOutcome } from "../../../activities/fetch-outcome.ts";
import type { CallOptions, FederationClient } from "../../../src/federation-client/client.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { nextResyncStep, type ResyncTarget } from "../../../src/rooms/resync/resync-next-step.ts";

import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Endpoint, TroubleKind } from "../../resident/trouble.ts";
import { startLoopbackClientApi, type TestClient } from "../../support/loopback-client.ts";
import { rowsNaming } from "../../support/rows-naming.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const logged: string[] = [];
const log = new Writable({
  write(chunk, _encoding, done) {
    logged.push(String(chunk));
    done();
  },
});

const ENOUGH_MS = 30_000;
let patienceMs = ENOUGH_MS;

/** As the product asks, but with less patience: 15 minutes and a gigabyte are too much for a test. */
function impatient(federation: FederationClient): FederationClient {
  const shorter = (options: CallOptions = {}): CallOptions => ({
    ...options,
    timeoutMs: patienceMs,
    maxBytes: 2_000_000,
  });
  return {
    ...federation,
    sendJoin: (server, request, options) => federation.sendJoin(server, request, shorter(options)),
    stateIds: (server, request, options) => federation.stateIds(server, request, shorter(options)),
    state: (server, request, options) => federation.state(server, request, shorter(options)),
  };
}

const ctx: RoomsContext = {
  ...sidecar.ctx,
  federation: impatient(sidecar.ctx.federation),
  logger: pino({ level: "info" }, log),
};
const api = await startLoopbackClientApi(database, ctx);
const activities = createResyncActivities(ctx);
/** Nothing listens there: the activity's reports of what is left are lost, which it is used to. */
const temporal = new Client({ connection: Connection.lazy({ address: "127.0.0.1:1" }) });
let client: TestClient;
let rooms = 0;

beforeAll(async () => {
  client = await api.register("alice");
});

afterEach(() => {
  resident.clearTrouble();
  patienceMs = ENOUGH_MS;
});

function raw(answer: (response: ServerResponse) => void | Promise<void>): TroubleKind {
  return { kind: "raw", answer };
}

function rewritten(change: (text: string) => string | Uint8Array): TroubleKind {
  return { kind: "rewrite", change };
}

/** One byte after the other for as long as the connection lasts. */
async function drip(response: ServerResponse): Promise<void> {
  response.write('{"origin":"');
  while (!response.destroyed) {
    response.write("a");
    await sleep(5);
  }
}

function notUtf8(text: string): Uint8Array {
  const bytes = Buffer.from(text);
  bytes[bytes.indexOf('"$') + 2] = 0xff;
  return bytes;
}

/** The first list of the answer stands in it twice. */
function twice(text: string): string {
  const list = /"(state|pdus|pdu_ids)":/.exec(text)?.[1] ?? "";
  return text.replace(/^\{/, `{"${list}":[],`);
}

interface WayOfSending {
  readonly way: string;
  readonly trouble: TroubleKind;
  /** Words of the error that names the cause. */
  readonly says: string;
  readonly cause: "invalid-data" | "unreachable" | "forbidden";
  /** How long we wait for the answer. */
  readonly patienceMs?: number;
}

const WAYS: readonly WayOfSending[] = [
  {
    way: "truncated",
    trouble: rewritten((text) => text.slice(0, -20)),
    says: "the text ends too early",
    cause: "invalid-data",
  },
  {
    way: "broken off in the middle",
    trouble: { kind: "half-body" },
    says: "the answer broke off",
    cause: "invalid-data",
  },
  {
    way: "nested 100,000 deep",
    trouble: rewritten((text) => text.replace(/^\{/, `{"x":${"[".repeat(1e5)}${"]".repeat(1e5)},`)),
    says: "nested deeper than 1000 levels",
    cause: "invalid-data",
  },
  { way: "with a key twice", trouble: rewritten(twice), says: "is there twice", cause: "invalid-data" },
  { way: "in no UTF-8", trouble: rewritten(notUtf8), says: "the text is not UTF-8", cause: "invalid-data" },
  {
    way: "as two million values",
    trouble: rewritten((text) => text.replace(/^\{/, `{"x":[${"[],".repeat(650_000)}[]],`)),
    says: "more than",
    cause: "invalid-data",
  },
  {
    way: "one byte at a time, forever",
    trouble: raw(drip),
    says: "the answer took too long",
    cause: "unreachable",
    patienceMs: 2_500,
  },
  {
    way: "as a gzip bomb",
    trouble: raw((response) => {
      response.writeHead(200, { "content-encoding": "gzip" });
      response.end(gzipSync(Buffer.alloc(10_000_000, " ")));
    }),
    says: "the answer is larger than 2000000 bytes",
    cause: "invalid-data",
  },
  {
    way: "as gzip that is none",
    trouble: raw((response) => void response.writeHead(200, { "content-encoding": "gzip" }).end("{}")),
    says: "incorrect header check",
    cause: "invalid-data",
  },
  {
    way: "in an encoding that nobody asked for",
    trouble: raw((response) => void response.writeHead(200, { "content-encoding": "zstd" }).end("{}")),
    says: "which was not asked for",
    cause: "invalid-data",
  },
  {
    way: "as a redirect to a private address",
    trouble: raw((response) => {
      const location = `https://127.0.0.1:${resident.front.port}/_matrix/federation/v1/version`;
      response.writeHead(307, { location }).end();
    }),
    says: "HTTP 307",
    cause: "forbidden",
  },
  {
    way: "as an HTML page",
    trouble: raw((response) => void response.end("<!doctype html><title>It works!</title>")),
    says: "unexpected byte 0x3c",
    cause: "invalid-data",
  },
  {
    way: "as a list",
    trouble: raw((response) => void response.end("[]")),
    says: "unexpected byte 0x5b",
    cause: "invalid-data",
  },
];

/** How often the resident was asked what nobody should have been redirected to. */
function askedForVersion(): number {
  return resident.front.requests.filter(({ endpoint }) => endpoint === "version").length;
}

function aRoom(): HostedRoom {
  rooms += 1;
  return resident.hostRoom({ label: `room ${rooms}`, members: 8 });
}

async function fetchOnce(target: ResyncTarget, at: Endpoint, trouble: TroubleKind): Promise<FetchOutcome> {
  const step = await nextResyncStep(ctx, target);
  if (step.kind !== "fetch") throw new Error(`the resync is to ${step.kind}`);
  resident.trouble({ ...trouble, at });
  const input = { ...target, eventId: step.eventIds[0] ?? "", server: resident.serverName };
  return (await new MockActivityEnvironment({}, { client: temporal }).run(
    activities.fetchMissingState,
    input,
  )) as FetchOutcome;
}

describe("an answer to send_join that comes", () => {
  it.each(WAYS.map((one) => [one.way, one] as const))(
    "%s fails the join with its cause, told to the client and the log",
    async (_way, { trouble, says, ...way }) => {
      const room = aRoom();
      logged.length = 0;
      patienceMs = way.patienceMs ?? ENOUGH_MS;
      resident.trouble({ ...trouble, at: "send_join" });
      const path = `join/${encodeURIComponent(room.roomId)}`;
      const answer = await client.call("POST", path, { query: { via: resident.serverName } });
      // A redirect is a refusal of the resident's, all else a bad gateway.
      expect([502, 307]).toContain(answer.status);
      expect(answer.body).toMatchObject({ errcode: "M_UNKNOWN", error: expect.stringContaining(says) });
      expect(logged.join("")).toContain(says);
      expect(await rowsNaming(database, room.roomId)).toEqual({});
      expect(askedForVersion()).toBe(0);
    },
  );
});

describe.each<Endpoint>(["state_ids", "state"])("an answer to %s that comes", (at) => {
  it.each(WAYS.map((one) => [one.way, one] as const))(
    "%s is a cause in the workflow's details and the log",
    async (_way, { trouble, says, cause, ...way }) => {
      const { roomId } = aRoom();
      const { eventId } = await joinRoom(ctx, { roomId, userId: client.userId, via: [resident.serverName] });
      const before = await rowsNaming(database, roomId);
      logged.length = 0;
      patienceMs = way.patienceMs ?? ENOUGH_MS;
      const outcome = await fetchOnce({ roomId, joinEventId: eventId }, at, trouble);
      expect(outcome).toMatchObject({ kind: "failed", cause, detail: expect.stringContaining(says) });
      expect(logged.join("")).toContain(says);
      const after = await rowsNaming(database, roomId);
      // What came before the fault may be genuine, and is kept as that; the room itself knows nothing of it.
      const { events: _before, resync_state_ids: _ids, ...roomBefore } = before;
      const { events: _after, resync_state_ids: _told, ...roomAfter } = after;
      expect(roomAfter).toEqual(roomBefore);
      expect(askedForVersion()).toBe(0);
    },
  );
});

import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { parseXMatrix, signedRequestObject } from "../../../src/federation-api/x-matrix.ts";
import { LosslessNumber, parseJson } from "../../../src/matrix/json.ts";
import type { JsonValue } from "../../../src/matrix/json.ts";
import { verifyJsonSignature } from "../../../src/matrix/signatures.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aClient, answering, failureOf, ourKey, startServer } from "./loopback-server.ts";

const database = await openTestDatabase();
const room = { roomId: "!room:x.example", eventId: "$event" } as const;

/** Takes the events of a streamed answer. */
function aCollector() {
  const events: [kind: string, pdu: JsonValue][] = [];
  return { events, onEvent: (kind: string, pdu: JsonValue): void => void events.push([kind, pdu]) };
}

describe("createFederationClient", () => {
  it("signs what it sends, for the server it sends it to", async () => {
    const server = await startServer(answering({ pdus: {} }));
    const pdus = [parseJson('{"depth":9007199254740993,"type":"ü"}')];
    await aClient(database).sendTransaction(server.name, { txnId: "a/b", pdus });
    const [seen] = server.seen;
    if (seen === undefined) throw new Error("nothing was sent");
    expect(seen).toMatchObject({ method: "PUT", url: "/_matrix/federation/v1/send/a%2Fb" });
    expect(seen.headers.host).toBe(server.name);
    const content = parseJson(seen.body);
    expect(content).toMatchObject({ origin: "us.example", pdus });
    const credentials = parseXMatrix(seen.headers.authorization ?? "");
    if (credentials === undefined) throw new Error("not signed");
    expect(credentials.destination).toBe(server.name);
    const request = { method: "PUT", uri: seen.url, origin: "us.example", destination: server.name, content };
    const signed = signedRequestObject(request, credentials);
    expect(verifyJsonSignature(signed, "us.example", "ed25519:us", ourKey.publicKey)).toBe(true);
  });

  it("streams the events of send_join and gives the rest", async () => {
    const server = await startServer(
      answering(
        '{"members_omitted":true,"state":[{"type":"a","depth":9007199254740993},{"type":"b"}],"event":{"e":1.5},' +
          '"servers_in_room":["x.example","y.example","no server!","x.example"],"auth_chain":[{"type":"c"}],' +
          '"origin":"x.example","unknown":[1]}',
      ),
    );
    const { events, onEvent } = aCollector();
    const request = { ...room, pdu: { type: "m.room.member" }, omitMembers: true, onEvent };
    expect(await aClient(database).sendJoin(server.name, request)).toEqual({
      membersOmitted: true,
      event: { e: new LosslessNumber("1.5") },
      origin: "x.example",
      serversInRoom: ["x.example", "y.example"],
    });
    expect(events).toEqual([
      ["state", { type: "a", depth: new LosslessNumber("9007199254740993") }],
      ["state", { type: "b" }],
      ["auth_chain", { type: "c" }],
    ]);
    expect(server.seen[0]?.url).toBe("/_matrix/federation/v2/send_join/!room%3Ax.example/%24event?omit_members=true");
    expect(JSON.parse(server.seen[0]?.body ?? "")).toEqual({ type: "m.room.member" });
  });

  it("reads no faster than events are taken, and holds little of a large answer", async () => {
    const event = JSON.stringify({ type: "m.room.member", filler: "x".repeat(1000) });
    const total = 60_000;
    let written = 0;
    const server = await startServer(async (_request, response) => {
      response.write('{"auth_chain":[],"pdus":[');
      for (; written < total; written++) {
        if (!response.write(written === 0 ? event : `,${event}`)) await once(response, "drain");
      }
      response.end("]}");
    });
    let taken = 0;
    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const reading = aClient(database).state(server.name, {
      ...room,
      onEvent: () => {
        taken++;
        return taken === 1 ? gate : undefined;
      },
    });
    await expect.poll(() => taken).toBe(1);
    // The buffers on the way fill up; then the server has to wait.
    let before = -1;
    while (before !== written) {
      before = written;
      await sleep(300);
    }
    expect(written).toBeLessThan(total / 2);
    open();
    await reading;
    expect(taken).toBe(total);
  });

  it("hands on what the taker of events throws, blames nobody for it, and drops the connection", async () => {
    const server = await startServer(answering({ pdus: [1, 2], auth_chain: [] }));
    const client = aClient(database);
    const onEvent = (): never => {
      throw new TypeError("disk full");
    };
    await expect(client.state(server.name, { ...room, onEvent })).rejects.toThrow(new TypeError("disk full"));
    await client.state(server.name, { ...room, onEvent: () => undefined });
  });

  it.each([
    ["a list that is missing", { auth_chain: [] }],
    ["a list that is none", { pdus: {}, auth_chain: [] }],
    ["no object", []],
    ["no JSON", "<html>"],
    ["nothing", ""],
  ])("refuses an answer to /state with %s", async (_what, body) => {
    const server = await startServer(answering(body));
    const failure = await failureOf(aClient(database).state(server.name, { ...room, onEvent: () => undefined }));
    expect(failure.kind).toBe("bad-response");
    expect(failure.message).toContain(server.name);
  });

  it.each([
    ["stateIds", { pdu_ids: ["no id"], auth_chain_ids: [] }],
    ["stateIds", { pdu_ids: ["$a"] }],
    ["makeJoin", { room_version: "11" }],
    ["makeJoin", { event: {}, room_version: 11 }],
    ["makeKnock", { event: "x" }],
    ["sendKnock", { knock_room_state: {} }],
    ["event", { pdus: [] }],
    ["event", { pdus: [{}, {}] }],
    ["eventAuth", { auth_chain: "x" }],
    ["getMissingEvents", {}],
    ["backfill", { pdus: null }],
    ["sendTransaction", {}],
    ["queryDirectory", { room_id: "x", servers: [] }],
    ["queryProfile", []],
    ["serverKeys", { server_name: "x.example" }],
    ["invite", {}],
  ] as const)("refuses an answer to %s that is not what was promised: %j", async (endpoint, body) => {
    const server = await startServer(answering(body));
    const client = aClient(database);
    const calls = {
      stateIds: () => client.stateIds(server.name, room),
      makeJoin: () => client.makeJoin(server.name, { ...room, userId: "@u:us.example", versions: ["11"] }),
      makeKnock: () => client.makeKnock(server.name, { ...room, userId: "@u:us.example", versions: ["11"] }),
      sendKnock: () => client.sendKnock(server.name, { ...room, pdu: {} }),
      event: () => client.event(server.name, "$a"),
      eventAuth: () => client.eventAuth(server.name, room),
      getMissingEvents: () =>
        client.getMissingEvents(server.name, { ...room, earliestEvents: [], latestEvents: ["$a"], limit: 10 }),
      backfill: () => client.backfill(server.name, { ...room, eventIds: ["$a"], limit: 10 }),
      sendTransaction: () => client.sendTransaction(server.name, { txnId: "1", pdus: [] }),
      queryDirectory: () => client.queryDirectory(server.name, "#a:x.example"),
      queryProfile: () => client.queryProfile(server.name, { userId: "@u:x.example" }),
      serverKeys: () => client.serverKeys(server.name),
      invite: () => client.invite(server.name, { ...room, roomVersion: "11", pdu: {}, inviteRoomState: [] }),
    };
    expect((await failureOf(calls[endpoint]())).kind).toBe("bad-response");
  });

  it("tells a refusal with its status, code and reason", async () => {
    const server = await startServer(answering({ errcode: "M_FORBIDDEN", error: "not you" }, 403));
    const failure = await failureOf(aClient(database).event(server.name, "$a"));
    expect(failure).toMatchObject({ kind: "refused", server: server.name, status: 403, errcode: "M_FORBIDDEN" });
    expect(failure.message).toBe(`${server.name}: HTTP 403, M_FORBIDDEN, not you`);
  });

  it("tells a refusal in something else than JSON", async () => {
    const server = await startServer(answering("<html>".repeat(50_000), 404));
    const failure = await failureOf(aClient(database).event(server.name, "$a"));
    expect(failure).toMatchObject({ kind: "refused", status: 404, errcode: undefined });
  });

  it("does not ask itself, nor something that is no server name", async () => {
    const client = aClient(database);
    expect((await failureOf(client.event("us.example", "$a"))).message).toContain("our own name");
    expect((await failureOf(client.event("a/b", "$a"))).message).toContain("no server name");
  });

  it("ends with the caller's own reason when the caller gives up, and does not blame the server", async () => {
    const server = await startServer(() => undefined);
    const client = aClient(database);
    const impatience = new AbortController();
    const call = client.event(server.name, "$a", { signal: impatience.signal });
    await expect.poll(() => server.seen.length).toBe(1);
    impatience.abort(new Error("changed my mind"));
    await expect(call).rejects.toThrow("changed my mind");
    const again = client.event(server.name, "$a", { timeoutMs: 50 });
    expect((await failureOf(again)).kind).toBe("timeout");
  });

  it("asks one server no more than the limit at a time", async () => {
    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const server = await startServer(async (_request, response) => {
      await gate;
      response.end('{"pdus":[{}]}');
    });
    const client = aClient(database, { requestsPerServer: 3 });
    const calls = Promise.all(Array.from({ length: 12 }, () => client.event(server.name, "$a")));
    await expect.poll(() => server.seen.length).toBe(3);
    await sleep(300);
    expect(server.seen.length).toBe(3);
    open();
    await calls;
  });

  it("asks again over a new connection when the server has closed the kept one", async () => {
    let requests = 0;
    const server = await startServer((_request, response) => {
      requests++;
      if (requests === 2) response.socket?.destroy();
      else response.end('{"pdus":[{}]}');
    });
    const client = aClient(database);
    await client.event(server.name, "$a");
    await client.event(server.name, "$a");
    expect(requests).toBe(3);
  });
});

describe("back-off", () => {
  const deadName = "dead.example:1";

  /** A client whose names lead nowhere, at the time `clock.now`. */
  function aClientOfTheDead(clock: { now: number }) {
    return aClient(database, { now: () => clock.now });
  }

  async function forgetBackOffs(): Promise<void> {
    await database.pool.query("DELETE FROM destinations");
  }

  it("leaves a dead server alone, in every process, until the time is over", async () => {
    await forgetBackOffs();
    const clock = { now: Date.now() };
    const first = await failureOf(aClientOfTheDead(clock).event(deadName, "$a"));
    expect(first).toMatchObject({ kind: "unreachable", reason: "the connection was refused" });
    const other = aClientOfTheDead(clock);
    const second = await failureOf(other.event(deadName, "$a"));
    expect(second).toMatchObject({ kind: "backing-off", retryAfterMs: 30_000 });
    expect(second.message).toContain("it failed: the connection was refused");
    clock.now += 30_000;
    expect((await failureOf(other.event(deadName, "$a"))).kind).toBe("unreachable");
    expect(await failureOf(other.event(deadName, "$a"))).toMatchObject({ kind: "backing-off", retryAfterMs: 60_000 });
  });

  it("leaves no server alone by what was noted while the clock was ahead, and lifts what it notes then", async () => {
    await forgetBackOffs();
    const clock = { now: Date.now() + 60 * 60_000 };
    const client = aClientOfTheDead(clock);
    await failureOf(client.event(deadName, "$a"));
    await client.noteServerAlive(deadName);
    await failureOf(client.event(deadName, "$a"));
    clock.now -= 60 * 60_000;
    expect((await failureOf(client.event(deadName, "$a"))).kind).toBe("unreachable");
    expect((await failureOf(client.event(deadName, "$a"))).kind).toBe("backing-off");
    await client.noteServerAlive(deadName);
    expect((await failureOf(client.event(deadName, "$a"))).kind).toBe("unreachable");
  });

  it("asks all the same where the caller wants it, and lets one server's trouble be its own", async () => {
    await forgetBackOffs();
    const client = aClientOfTheDead({ now: Date.now() });
    await failureOf(client.event(deadName, "$a"));
    expect((await failureOf(client.event(deadName, "$a", { ignoreBackOff: true }))).kind).toBe("unreachable");
    const server = await startServer(answering({ pdus: [{}] }));
    await client.event(server.name, "$a");
  });

  it("ends when the server talks to us, and tells who listens", async () => {
    await forgetBackOffs();
    const client = aClientOfTheDead({ now: Date.now() });
    const alive: string[] = [];
    const forget = client.onServerAlive((server) => alive.push(server));
    await failureOf(client.event(deadName, "$a"));
    await client.noteServerAlive(deadName);
    expect(alive).toEqual([deadName]);
    expect((await failureOf(client.event(deadName, "$a"))).kind).toBe("unreachable");
    await client.noteServerAlive(deadName);
    await client.noteServerAlive("never.failed.example");
    expect(alive).toEqual([deadName, deadName]);
    forget();
  });

  it("ends with an answer, even a refusal", async () => {
    await forgetBackOffs();
    const answers = [answering({}, 503), answering({ errcode: "M_FORBIDDEN" }, 403)];
    const server = await startServer((request, response) => answers.shift()?.(request, response));
    const client = aClient(database);
    await failureOf(client.event(server.name, "$a"));
    expect((await failureOf(client.event(server.name, "$a"))).kind).toBe("backing-off");
    await failureOf(client.event(server.name, "$a", { ignoreBackOff: true }));
    const { rows } = await database.pool.query("SELECT * FROM destinations");
    expect(rows).toEqual([]);
  });

  it.each([
    ["a refused event", 403, false],
    ["a server that is overloaded", 429, true],
    ["a server in trouble", 500, true],
  ])("after %s (%i): %s", async (_what, status, expected) => {
    await forgetBackOffs();
    const server = await startServer(answering({ retry_after_ms: 45_000 }, status));
    const client = aClient(database);
    await failureOf(client.event(server.name, "$a"));
    expect((await failureOf(client.event(server.name, "$a"))).kind === "backing-off").toBe(expected);
  });

  it("takes no wish to be left alone for longer than an hour", async () => {
    await forgetBackOffs();
    const server = await startServer(answering({ retry_after_ms: Number.MAX_SAFE_INTEGER }, 429));
    const failure = await failureOf(aClient(database).event(server.name, "$a"));
    expect(failure).toMatchObject({ kind: "refused", retryAfterMs: 3_600_000 });
  });

  it("counts a refused transaction too: a good one gives no reason to refuse it", async () => {
    await forgetBackOffs();
    const server = await startServer(answering({ errcode: "M_UNKNOWN" }, 400));
    const client = aClient(database);
    await failureOf(client.sendTransaction(server.name, { txnId: "1", pdus: [] }));
    expect((await failureOf(client.sendTransaction(server.name, { txnId: "1", pdus: [] }))).kind).toBe("backing-off");
  });
});

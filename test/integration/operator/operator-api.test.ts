import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createClientApp } from "../../../src/client-api/app.ts";
import { runCli } from "../../../src/main/cli.ts";
import type { EventId, RoomId, ServerName } from "../../../src/matrix/identifiers.ts";
import { knownProgress } from "../../../src/operator/known-progress.ts";
import type { ResyncWorkflows, WorkflowStanding } from "../../../src/operator/resync-workflows.ts";
import { createOperatorRouter } from "../../../src/operator/router.ts";
import { createStreamWaiter } from "../../../src/rooms/read/stream-waiter.ts";
import { addPartialRoomServers, insertPartialRoom, markPartial } from "../../../src/storage/partial-state.ts";
import { appendResyncEventChanges } from "../../../src/storage/resync-event-changes.ts";
import { loadResyncControl, storeResyncControl } from "../../../src/storage/resync-control.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startInProcessSidecar, type InProcessSidecar } from "../../support/in-process-sidecar.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const TOKEN = "the-operators-own-token";

/** Temporal as the operator's use cases see it; it notes what it was told, together with the wish stored by then. */
interface Engine extends ResyncWorkflows {
  running: boolean;
  away: boolean;
  /** Called in the midst of a start, as what a run that ends may do then. */
  duringStart: () => Promise<void>;
  standingOf: WorkflowStanding;
  readonly told: string[];
}

describe("the operator API", async () => {
  const database = await openTestDatabase();
  let sidecar: InProcessSidecar;
  let server: Server;
  let url: string;
  let roomId: RoomId;
  let engine: Engine;

  async function tell(what: string): Promise<boolean> {
    if (engine.away) {
      throw new Error("Temporal is away");
    }
    const control = await loadResyncControl(database, roomId);
    engine.told.push(`${what}; wish: ${control?.wish ?? "none"}`);
    return engine.running;
  }

  function anEngine(): Engine {
    return {
      running: true,
      away: false,
      duringStart: async () => undefined,
      standingOf: { state: "none" },
      told: [],
      standing: async () => engine.standingOf,
      signalRetry: () => tell("retry"),
      signalPreferServer: (_roomId: RoomId, name: ServerName) => tell(`prefer ${name}`),
      link: () => "http://ui.example/workflow",
    };
  }

  async function ask(method: string, path: string, body?: unknown, token = TOKEN): Promise<[number, unknown]> {
    const answer = await fetch(`${url}/_fastjoin/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
    });
    return [answer.status, await answer.json()];
  }

  /** Runs a command against this API. */
  async function command(...args: readonly string[]): Promise<{ code: number; text: string }> {
    let text = "";
    const env = {
      FASTJOIN_SERVER_NAME: sidecar.serverName,
      FASTJOIN_CLIENT_LISTEN: new URL(url).host,
      FASTJOIN_OPERATOR_TOKEN: TOKEN,
      FASTJOIN_DATA_DIR: "/nonexistent",
    };
    const code = await runCli(args, { env, write: (more) => void (text += more), now: () => 0 });
    return { code, text };
  }

  const pathOf = (action = "") => `/resyncs/${encodeURIComponent(roomId)}${action}`;

  beforeAll(async () => {
    sidecar = await startInProcessSidecar(database);
    const ctx = {
      ...sidecar.ctx,
      resyncs: {
        start: async (_roomId: RoomId, joinEventId: string, options?: { readonly replace: boolean }) => {
          await tell(`start for ${joinEventId}${options?.replace === true ? ", replacing" : ""}`);
          await engine.duringStart();
        },
        wake: async () => void (await tell("wake")),
        cancel: async () => void (await tell("cancel")),
      },
    };
    const workflows: ResyncWorkflows = {
      standing: (room) => engine.standing(room),
      signalRetry: (room) => engine.signalRetry(room),
      signalPreferServer: (room, name) => engine.signalPreferServer(room, name),
      link: (room) => engine.link(room),
    };
    const stream = createStreamWaiter(database);
    const app = createClientApp({
      ...ctx,
      stream,
      registration: { kind: "closed" },
      resyncProgress: async () => undefined,
      extraRouters: [createOperatorRouter({ ...ctx, workflows }, TOKEN)],
    });
    server = createServer(app);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return async () => {
      await stream.close();
    };
  });

  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await sidecar.close();
  });

  beforeEach(async () => {
    engine = anEngine();
    roomId = await aStoredRoom(database);
    const join = anEvent(roomId, `$join-of-${roomId}`);
    await storeInTimeline(database, join);
    await insertPartialRoom(database.pool, {
      roomId,
      joinEventId: join.eventId,
      joinedVia: "resident.example",
      deviceListsStreamId: 0n,
    });
    await addPartialRoomServers(database.pool, roomId, ["resident.example", "other.example"]);
  });

  it("refuses those without the operator's token", async () => {
    expect((await ask("GET", "/resyncs", undefined, "some other token"))[0]).toBe(401);
    expect((await fetch(`${url}/_fastjoin/v1/resyncs`)).status).toBe(401);
  });

  it("lists partial rooms from the database", async () => {
    const [status, body] = await ask("GET", "/resyncs");
    expect(status).toBe(200);
    expect(body).toMatchObject({
      resyncs: expect.arrayContaining([
        { roomId, joinEventId: `$join-of-${roomId}`, joinedVia: "resident.example", partialEvents: 0 },
      ]) as unknown,
    });
  });

  it("shows a room's resync with its servers and its page in Temporal", async () => {
    const [status, body] = await ask("GET", pathOf());
    expect(status).toBe(200);
    expect(body).toMatchObject({
      state: "partial",
      roomId,
      serversInRoom: expect.arrayContaining(["other.example", "resident.example"]) as unknown,
      workflow: { state: "none" },
      link: "http://ui.example/workflow",
    });
  });

  it("tells a complete room from one that is not there", async () => {
    const complete = await aStoredRoom(database);
    expect(await ask("GET", `/resyncs/${encodeURIComponent(complete)}`)).toEqual([
      200,
      { roomId: complete, state: "complete" },
    ]);
    expect(await ask("GET", "/resyncs/!nowhere:x.org")).toMatchObject([404, { errcode: "M_NOT_FOUND" }]);
    for (const action of ["retry", "cancel", "leave", "drop"]) {
      const path = `/resyncs/!nowhere:x.org/${action}`;
      expect(await ask("POST", path, { eventId: "$event" }), action).toMatchObject([404, { errcode: "M_NOT_FOUND" }]);
    }
    expect(await ask("POST", `/resyncs/${encodeURIComponent(complete)}/retry`, {})).toMatchObject([
      409,
      { errcode: "FASTJOIN.NOT_PARTIAL" },
    ]);
  });

  it("stores the wish to cancel before the workflow is told", async () => {
    expect(await ask("POST", pathOf("/cancel"), { by: "root", why: "too large" })).toEqual([
      200,
      { workflowTold: true },
    ]);
    expect(engine.told).toEqual(["cancel; wish: cancelled"]);
    expect(await loadResyncControl(database, roomId)).toMatchObject({
      wish: "cancelled",
      by: "root",
      why: "too large",
    });
  });

  it("keeps the wish where Temporal is away", async () => {
    engine.away = true;
    expect(await ask("POST", pathOf("/cancel"), {})).toEqual([200, { workflowTold: false }]);
    expect(await loadResyncControl(database, roomId)).toMatchObject({ wish: "cancelled", by: "operator" });
  });

  it("takes back the wish to cancel before it retries", async () => {
    await ask("POST", pathOf("/cancel"), {});
    expect(await ask("POST", pathOf("/retry"), {})).toEqual([200, { workflowTold: true }]);
    // A signal might reach the run that is being cancelled.
    expect(engine.told).toEqual(["cancel; wish: cancelled", `start for $join-of-${roomId}, replacing; wish: none`]);
  });

  it("does not heed that the run that it replaces notes its end", async () => {
    engine.duringStart = async () => {
      const note = { roomId, by: "temporal", at: 0, why: "the workflow was cancelled" };
      await storeResyncControl(database, { ...note, wish: "cancelled" });
    };
    await ask("POST", pathOf("/cancel"), {});
    await ask("POST", pathOf("/retry"), {});
    expect(await loadResyncControl(database, roomId)).toBeUndefined();
    await ask("POST", pathOf("/cancel"), {});
    await ask("POST", pathOf("/retry"), { via: "other.example" });
    expect(await loadResyncControl(database, roomId)).toMatchObject({ serverName: "other.example" });
  });

  it("starts the workflow of the room's join on a retry where none runs", async () => {
    engine.running = false;
    await ask("POST", pathOf("/retry"), {});
    expect(engine.told).toEqual(["retry; wish: none", `start for $join-of-${roomId}, replacing; wish: none`]);
  });

  it("points the resync at a server before it retries", async () => {
    await ask("POST", pathOf("/retry"), { via: "other.example" });
    expect(engine.told).toEqual(["prefer other.example; wish: prefer-server", "retry; wish: prefer-server"]);
    expect(await loadResyncControl(database, roomId)).toMatchObject({ serverName: "other.example" });
  });

  /** An event of another server on an event that nobody has; its room's join is known in full. */
  async function aLackingEvent(): Promise<EventId> {
    const event = anEvent(roomId, `$theirs-of-${roomId}`, { prev_events: ["$lost"] });
    await storeInTimeline(database, event);
    await markPartial(database.pool, roomId, event.eventId);
    return event.eventId;
  }

  it("drops an event whose state nobody can give, wakes the resync, and shows both before its turn", async () => {
    const eventId = await aLackingEvent();
    expect(await ask("GET", pathOf())).toMatchObject([
      200,
      { lacks: [{ missing: "$lost", neededBy: eventId, isOurJoin: false }], drops: [] },
    ]);
    expect(await ask("POST", pathOf("/drop"), { eventId, by: "root", why: "gone" })).toEqual([
      200,
      { workflowTold: true },
    ]);
    expect(engine.told).toEqual(["wake; wish: none"]);
    expect(await ask("GET", pathOf())).toMatchObject([
      200,
      { lacks: [], drops: [{ eventId, by: "root", why: "gone", at: expect.any(Number) as number }] },
    ]);
  });

  it("refuses to drop what can't be dropped", async () => {
    const drop = (body: object): Promise<[number, unknown]> => ask("POST", pathOf("/drop"), body);
    expect(await drop({})).toMatchObject([400, { errcode: "M_INVALID_PARAM" }]);
    expect(await drop({ eventId: "theirs" })).toMatchObject([400, { errcode: "M_INVALID_PARAM" }]);
    expect(await drop({ eventId: "$nowhere" })).toMatchObject([409, { errcode: "FASTJOIN.NOT_PARTIAL" }]);
    const join = `$join-of-${roomId}`;
    expect(await drop({ eventId: join })).toMatchObject([409, { errcode: "FASTJOIN.NOT_DROPPABLE" }]);
    expect(engine.told).toEqual([]);
  });

  it("answers bad requests with Matrix errors", async () => {
    expect(await ask("POST", pathOf("/retry"), { via: "not a server" })).toMatchObject([
      400,
      { errcode: "M_INVALID_PARAM" },
    ]);
    expect(await ask("POST", pathOf("/retry"), "{")).toMatchObject([400, { errcode: "M_NOT_JSON" }]);
    expect(await ask("GET", "/resyncs/nonsense")).toMatchObject([400, { errcode: "M_INVALID_PARAM" }]);
    expect(await ask("GET", "/resyncs/%ZZ")).toMatchObject([400, { errcode: "M_INVALID_PARAM" }]);
    expect(await ask("GET", "/nothing")).toMatchObject([404, { errcode: "M_UNRECOGNIZED" }]);
    expect(await ask("POST", "/joins", { room: "!r:x", userId: "@a:elsewhere.org" })).toMatchObject([
      400,
      { errcode: "M_INVALID_PARAM" },
    ]);
  });

  it("makes accounts while registration is closed", async () => {
    const [status, account] = await ask("POST", "/users", { name: "dora" });
    expect(status).toBe(200);
    const { accessToken, password } = account as { accessToken: string; password: string };
    const whoami = await fetch(`${url}/_matrix/client/v3/account/whoami`, {
      headers: { authorization: `Bearer ${accessToken}` },
    });
    expect(await whoami.json()).toMatchObject({ user_id: `@dora:${sidecar.serverName}` });
    const login = await fetch(`${url}/_matrix/client/v3/login`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ type: "m.login.password", identifier: { type: "m.id.user", user: "dora" }, password }),
    });
    expect(login.status).toBe(200);
    expect(await ask("POST", "/users", { name: "dora" })).toMatchObject([400, { errcode: "M_USER_IN_USE" }]);
  });

  describe("knownProgress", () => {
    const ctx = () => ({ ...sidecar.ctx, workflows: engine });
    const progress = { phase: "waiting", partialEvents: 3, idsLeft: 7, servers: [] } as const;

    it("tells what a worker tells", async () => {
      engine.standingOf = { state: "running", runId: "run", progress };
      expect(await knownProgress(ctx(), roomId)).toEqual(progress);
    });

    it("tells what the workflow last told Temporal where no worker answers, with the count of the database", async () => {
      const servers = [{ name: "one.example", result: "answered", failures: 0 }] as const;
      const lastKnown = { phase: "fetching", partialEvents: 3, servers } as const;
      engine.standingOf = {
        state: "running",
        runId: "run",
        note: "no worker",
        lastKnown: { ...lastKnown, servers: [...servers] },
      };
      expect(await knownProgress(ctx(), roomId)).toEqual({ phase: "fetching", partialEvents: 0, servers });
    });

    it.each(["none", "unknown"] as const)(
      "tells what the database knows where the workflow's state is %s",
      async (state) => {
        engine.standingOf = { state, note: "" };
        expect(await knownProgress(ctx(), roomId)).toEqual({ partialEvents: 0 });
      },
    );
  });

  /** The event that was stored for the join, as if a resync had rejected it so many times. */
  async function changeTheJoin(times: number): Promise<void> {
    const change = { change: "rejected", rule: "membership.join.banned", reason: "she is banned" } as const;
    for (let place = 1; place <= times; place += 1) {
      const at = { streamId: BigInt(place), roomId, at: place * 1000 };
      await appendResyncEventChanges(database.pool, at, [{ eventId: `$join-of-${roomId}`, ...change }]);
    }
  }

  it("tells what a resync has changed: what, when, why, by which auth rule", async () => {
    await changeTheJoin(1);
    const [status, body] = await ask("GET", pathOf("/changes"));
    expect(status).toBe(200);
    const change = { change: "rejected", rule: "membership.join.banned", reason: "she is banned", at: 1000 };
    const event = { eventId: `$join-of-${roomId}`, type: "m.room.message", sender: "@alice:example.org" };
    expect(body).toEqual({ roomId, changes: [{ ...event, ...change }] });
    expect(await ask("GET", pathOf("/changes?after=no"))).toMatchObject([400, { errcode: "M_INVALID_PARAM" }]);
  });

  describe("from the command line", () => {
    it("lists what a resync has changed, however much", async () => {
      expect((await command("changes", roomId)).text).toContain("no resync has changed");
      await changeTheJoin(101);
      const { text } = await command("changes", roomId);
      expect(text).toContain("1970-01-01T00:00:01.000Z  rejected  $join-of-");
      expect(text).toContain("refused by membership.join.banned: she is banned");
      expect(JSON.parse((await command("changes", roomId, "--json")).text)).toHaveProperty("changes.length", 101);
    });

    it("lists, shows, cancels and retries", async () => {
      expect(await command("rooms")).toMatchObject({
        code: 0,
        text: expect.stringContaining(`${roomId}  0 partial`) as unknown,
      });
      engine.standingOf = {
        state: "running",
        runId: "run",
        progress: { phase: "waiting", partialEvents: 3, idsLeft: 7, servers: [] },
      };
      const shown = await command("show", roomId);
      expect(shown.text).toContain("waiting; 3 partial events, 7 state events still to fetch");
      expect((await command("cancel", roomId, "--why", "enough")).text).toBe(`cancelled the resync of ${roomId}\n`);
      expect((await command("show", roomId)).text).toMatch(/wish {6}cancelled, by command line, .+: enough/);
      expect((await command("retry", roomId, "--via", "other.example")).text).toBe(`retrying ${roomId}\n`);
      expect(engine.told.at(-1)).toBe(`start for $join-of-${roomId}, replacing; wish: prefer-server`);
    });

    it("shows what lacks a state, and drops it", async () => {
      const eventId = await aLackingEvent();
      expect((await command("show", roomId)).text).toContain(`fastjoin drop '${roomId}' '${eventId}'`);
      expect(await command("drop", roomId, eventId, "--why", "its server is gone")).toEqual({
        code: 0,
        text: `dropped ${eventId} of ${roomId}\n`,
      });
      expect((await command("show", roomId)).text).toMatch(/dropped {3}\$.+, by command line, .+: its server is gone/);
    });

    it("prints JSON for scripts", async () => {
      const { text } = await command("show", roomId, "--json");
      expect(JSON.parse(text)).toMatchObject({ roomId, state: "partial" });
    });

    it("adds a user with the given password", async () => {
      const { code, text } = await command("user", "add", "emil", "--password", "correct horse");
      expect(code).toBe(0);
      expect(text).toContain(`user          @emil:${sidecar.serverName}\npassword      correct horse\naccess token  `);
    });

    it("fails with exit code 1 on a refusal, 2 on wrong use, 78 on wrong settings", async () => {
      for (const name of ["show", "retry", "cancel", "leave", "purge"]) {
        expect((await command(name, "!nowhere:x.org")).code, name).toBe(1);
      }
      expect((await command("drop", "!nowhere:x.org", "$event")).code).toBe(1);
      expect((await command("show")).code).toBe(2);
      expect((await command("frobnicate")).code).toBe(2);
      expect((await command("join", roomId)).code).toBe(2);
      const line = { env: { FASTJOIN_FULL_STATE_WAIT: "x" }, write: () => undefined, now: Date.now };
      expect(await runCli(["rooms"], line)).toBe(78);
    });

    it("says so where no sidecar answers or no token is to be had", async () => {
      const env = { FASTJOIN_CLIENT_LISTEN: "127.0.0.1:1", FASTJOIN_DATA_DIR: "/nonexistent" };
      const line = { write: () => undefined, now: Date.now };
      expect(await runCli(["rooms"], { ...line, env })).toBe(1);
      expect(await runCli(["rooms"], { ...line, env: { ...env, FASTJOIN_OPERATOR_TOKEN: TOKEN } })).toBe(1);
    });
  });
});

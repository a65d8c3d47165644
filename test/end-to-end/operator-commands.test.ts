import { Client, Connection, type WorkflowHandle } from "@temporalio/client";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { reservedPort } from "../support/reserved-port.ts";
import type { RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { ResyncReport } from "../../src/operator/read-resyncs.ts";
import { RECONCILE_SCHEDULE, resyncWorkflowId, type ResyncOutcome } from "../../workflows/contract.ts";
import { spawnResident, type ResidentProcess } from "../resident/spawn-resident.ts";
import { httpClient, type HttpClient } from "../support/http-client.ts";
import {
  eventually,
  fastjoin,
  sidecarSettings,
  spawnFastjoin,
  untilRunning,
  type SidecarProcess,
  type SidecarSettings,
} from "../support/sidecar-process.ts";

let resident: ResidentProcess;
let settings: SidecarSettings;
let sidecar: SidecarProcess;
let alice: HttpClient;
let temporal: Connection;
let via: string;
let room: RoomId;

beforeAll(async () => {
  resident = await spawnResident({ fronts: 2 }, [{ members: 60, servers: 4 }]);
  via = resident.serverNames[0] ?? "";
  room = resident.rooms[0] ?? "!none";
  const port = await reservedPort();
  settings = await sidecarSettings({
    FASTJOIN_SERVER_NAME: `localhost:${port}`,
    FASTJOIN_FEDERATION_LISTEN: `127.0.0.1:${port}`,
    FASTJOIN_FEDERATION_VERIFY_CERTIFICATES: "false",
    FASTJOIN_TRUSTED_KEY_SERVERS: via,
    FASTJOIN_FULL_STATE_WAIT: "1",
  });
  sidecar = spawnFastjoin(settings.env, "start");
  const running = await untilRunning(settings, sidecar, ({ clientUrl }) => clientUrl !== undefined);
  temporal = await Connection.connect({ address: running.temporalAddress ?? "" });
  const { stdout } = await fastjoin(settings.env, "user", "add", "alice");
  const accessToken = /access token\s+(\S+)/.exec(stdout)?.[1] ?? "";
  alice = httpClient(running.clientUrl ?? "", `@alice:localhost:${port}`, accessToken);
}, 240_000);

afterAll(async () => {
  await temporal?.close();
  sidecar?.child.kill("SIGTERM");
  await sidecar?.finished;
  await resident?.stop();
  await settings?.remove();
}, 60_000);

async function command(...args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await fastjoin(settings.env, ...args);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return stdout;
}

async function report(): Promise<ResyncReport> {
  return JSON.parse(await command("show", room, "--json")) as ResyncReport;
}

async function untilReport(accept: (found: ResyncReport) => boolean): Promise<ResyncReport> {
  let last: ResyncReport | undefined;
  return eventually(
    async () => {
      last = await report();
      return accept(last) ? last : undefined;
    },
    { about: () => `the last report: ${JSON.stringify(last)}` },
  );
}

/** How often a front of the resident was asked for the room's state. */
async function stateRequests(front: number): Promise<number> {
  const requests = await resident.call("requests", front);
  return requests.filter(({ endpoint }) => endpoint === "state_ids" || endpoint === "state").length;
}

/** The resync of the room waits: no server gives it the state at what was said while we were away. */
async function joinThatWaits(): Promise<void> {
  const { founder } = await resident.call("room", room);
  await resident.call("sendMessage", room, founder, "without you", { push: false });
  for (const front of [0, 1]) {
    await resident.call("trouble", { kind: "refuse", status: 500, at: ["state_ids", "state"] }, front);
  }
  await command("join", room, "--via", via, "--as", "alice");
  await untilReport(
    (found) =>
      found.state === "partial" && found.workflow.state === "running" && found.workflow.progress?.phase === "waiting",
  );
}

function resyncOf(roomId: RoomId): WorkflowHandle<() => Promise<ResyncOutcome>> {
  const { FASTJOIN_SERVER_NAME: serverName = "" } = settings.env;
  return new Client({ connection: temporal }).workflow.getHandle(resyncWorkflowId(serverName, roomId));
}

/** Runs the reconciler now, and waits until it has run. */
async function reconcile(): Promise<void> {
  const schedule = new Client({ connection: temporal }).schedule.getHandle(RECONCILE_SCHEDULE);
  const turns = async (): Promise<number> => (await schedule.describe()).info.numActionsTaken;
  const before = await turns();
  await schedule.trigger();
  await eventually(async () => {
    const { info } = await schedule.describe();
    return info.numActionsTaken > before && info.runningActions.length === 0 ? true : undefined;
  });
}

describe("the operator's commands on a resync that goes wrong", () => {
  it("join while no server gives the full state, and show which one failed and why", async () => {
    for (const front of [0, 1]) {
      await resident.call("trouble", { kind: "refuse", status: 500, at: ["state_ids", "state"] }, front);
    }
    expect(await command("join", room, "--via", via, "--as", "alice")).toContain("its state is partial");
    expect(await command("rooms")).toContain(room);
    const found = await untilReport(
      ({ state, ...rest }) =>
        state === "partial" &&
        "workflow" in rest &&
        rest.workflow.state === "running" &&
        rest.workflow.progress?.phase === "waiting",
    );
    expect(found).toMatchObject({
      joinedVia: via,
      workflow: {
        progress: {
          servers: expect.arrayContaining([expect.objectContaining({ name: via, result: "failed" })]) as unknown,
        },
      },
    });
    const failed = new RegExp(`${via}: failed \\d+ times? \\(server-error.*next attempt in`);
    // In the moment of an attempt there is no next one.
    await eventually(async () => (failed.test(await command("show", room)) ? true : undefined));
  });

  it("cancel it: the reconciler leaves it alone, and the room stays usable", async () => {
    await command("cancel", room, "--why", "the resident is being repaired");
    await untilReport((found) => found.state === "partial" && found.workflow.state === "closed");
    for (const front of [0, 1]) {
      await resident.call("clearTrouble", front);
    }
    await reconcile();
    await delay(1000);
    expect(await report()).toMatchObject({
      state: "partial",
      workflow: { state: "closed" },
      wish: { wish: "cancelled", why: "the resident is being repaired" },
    });
    const eventId = await alice.say(room, "still here");
    await eventually(async () => ((await resident.call("has", room, eventId as `$${string}`)) ? true : undefined));
  });

  it("retry it through a server of the operator's choice, to the resident's own state", async () => {
    const other = resident.serverNames[1] ?? "";
    const before = await Promise.all([0, 1].map(stateRequests));
    await command("retry", room, "--via", other);
    await untilReport(({ state }) => state === "complete");
    expect(await command("rooms")).not.toContain(room);
    expect(await alice.fullState(room)).toEqual(new Map(await resident.call("fullState", room)));
    const after = await Promise.all([0, 1].map(stateRequests));
    expect(after[0]).toBe(before[0]);
    expect(after[1]).toBeGreaterThan(before[1] ?? 0);
  });

  it("leave the room", async () => {
    expect(await command("leave", room)).toBe(`left ${room}: ${alice.userId}\n`);
    await eventually(async () =>
      (await resident.call("membership", room, alice.userId as `@${string}`)) === "leave" ? true : undefined,
    );
  });

  it("end by themselves when the last of our users is kicked, however long they would have waited", async () => {
    await joinThatWaits();

    await resident.call("kick", room, alice.userId as UserId);

    expect(await resyncOf(room).result()).toBe("completed-by-leave");
    expect(await report()).toMatchObject({ roomId: room, state: "complete" });
    expect(await command("rooms")).not.toContain(room);
  });

  it("purge the room in the middle of them: the workflow ends, nothing is held, the room can be joined again", async () => {
    await joinThatWaits();

    expect(await command("purge", room, "--why", "too large")).toMatch(`purged ${room}: left by ${alice.userId}`);

    await eventually(async () => ((await resyncOf(room).describe()).status.name === "RUNNING" ? undefined : true));
    await eventually(async () =>
      (await resident.call("membership", room, alice.userId as UserId)) === "leave" ? true : undefined,
    );
    expect((await fastjoin(settings.env, "show", room)).code).toBe(1);
    await reconcile();
    expect(await command("rooms")).not.toContain(room);
    for (const front of [0, 1]) await resident.call("clearTrouble", front);
    await command("join", room, "--via", via, "--as", "alice");
    await untilReport(({ state }) => state === "complete");
    expect(await alice.fullState(room)).toEqual(new Map(await resident.call("fullState", room)));
  });
});

import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { reservedPort } from "../support/reserved-port.ts";
import { startEmbeddedTemporal } from "../../src/main/embedded/temporal.ts";
import { createLogger } from "../../src/main/logger.ts";
import type { UserId } from "../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../src/matrix/state.ts";
import type { RequestRecord } from "../resident/front.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import { cloneDatabase } from "../support/database.ts";
import type { HttpClient } from "../support/http-client.ts";
import { addAlice, expectEqualStates, joinVia, settingsBeside, untilComplete } from "../support/sidecar-scene.ts";
import { eventually, fastjoin, spawnFastjoin } from "../support/sidecar-process.ts";
import { startSidecar, type StartedSidecar } from "../support/started-sidecar.ts";
import { temporalCli } from "../support/temporal-cli.ts";

let resident: Resident;
let members = 1200;

beforeAll(async () => {
  resident = await startResident();
});
afterAll(async () => {
  await resident.close();
});

/** A room of more than a thousand members whose state takes half a minute to fetch, or until the trouble is ended. */
function slowRoom(): HostedRoom {
  members += 1;
  resident.trouble({ kind: "slow", bytesPerSecond: 30_000, at: "state" });
  return resident.hostRoom({ members, servers: 20 });
}

function isForStateOf({ roomId }: HostedRoom): (request: RequestRecord) => boolean {
  return ({ endpoint, uri }) => endpoint === "state" && uri.includes(encodeURIComponent(roomId));
}

/** What was said since the join, each message as often as the timeline has it. */
async function timelineBodies(alice: HttpClient, room: HostedRoom): Promise<readonly unknown[]> {
  const path = `rooms/${encodeURIComponent(room.roomId)}/messages?dir=b&limit=100`;
  const { chunk } = await alice.get<{ chunk: { type: string; content: { body?: unknown } }[] }>(path);
  const said = chunk.filter((event) => event.type === "m.room.message").map((event) => event.content.body);
  return said.filter((body) => typeof body === "string" && /^(?:ours|theirs),/.test(body));
}

describe("a resync", () => {
  let started: StartedSidecar;

  beforeAll(async () => {
    started = await startSidecar(resident);
  }, 180_000);
  afterAll(() => started.close());

  for (const part of ["worker", "serve"] as const) {
    it(`goes on when the ${part} is killed in the middle of it, and loses and doubles nothing`, async () => {
      const { alice, kill, settings, sidecar } = started;
      const room = slowRoom();
      await joinVia(alice, room, resident);
      await alice.say(room.roomId, "ours, before");
      await resident.sendMessage(room, resident.founder, "theirs, before");
      await eventually(() => (resident.front.requests.some(isForStateOf(room)) ? true : undefined));
      await delay(1500);
      expect((await fastjoin(settings.env, "rooms")).stdout).toContain(room.roomId);

      await kill(part);
      // A server that was away is sent to again until it answers.
      const during = await resident.sendMessage(room, resident.founder, "theirs, during", { push: false });
      await eventually(async () => {
        const [result] = await resident.deliver(room, [during.eventId]);
        return result !== undefined && "status" in result && result.status === 200 ? true : undefined;
      });
      await eventually(async () => (await alice.say(room.roomId, "ours, after").catch(() => undefined)) && true);
      resident.clearTrouble();
      await untilComplete(settings, room, sidecar);

      expectEqualStates(await alice.fullState(room.roomId), resident.fullState(room));
      const bodies = await timelineBodies(alice, room);
      expect(bodies.toSorted()).toEqual(["ours, after", "ours, before", "theirs, before", "theirs, during"]);
      await resident.waitForEvent(
        (event) => event.roomId === room.roomId && event.pdu.content["body"] === "ours, after",
      );
      const heard = [...room.events.values()].filter(({ event }) => event.pdu.sender === alice.userId);
      expect(heard.filter(({ event }) => event.pdu.type === "m.room.message")).toHaveLength(2);
    });
  }

  it("stays cancelled until it is retried, with its room usable", async () => {
    const { alice, kill, settings, sidecar } = started;
    const room = slowRoom();
    resident.trouble({
      kind: "refuse",
      status: 403,
      errcode: "M_FORBIDDEN",
      error: "Host not in room.",
      at: "state_ids",
    });
    await joinVia(alice, room, resident);
    const cancelled = await fastjoin(settings.env, "cancel", room.roomId, "--why", "maintenance");
    expect(cancelled.stdout).toContain("cancelled the resync");
    resident.clearTrouble();

    const message = await resident.sendMessage(room, resident.founder, "still here?");
    await alice.sees(room.roomId, message.eventId);
    await alice.say(room.roomId, "still here");
    // Longer than the reconciler's interval would make the test slow; it is asked at every start of serve too.
    await kill("serve");
    await delay(3000);
    const shown = (await fastjoin(settings.env, "show", room.roomId)).stdout;
    expect(shown).toContain("partial");
    expect(shown).toContain("maintenance");

    expect((await fastjoin(settings.env, "retry", room.roomId)).stdout).toContain("retrying");
    await untilComplete(settings, room, sidecar);
    expectEqualStates(await alice.fullState(room.roomId), resident.fullState(room));
  });
});

describe("a join while Temporal is away", () => {
  it("succeeds, and its resync runs once Temporal is back", async () => {
    const database = await cloneDatabase({ empty: true });
    const temporalPort = await reservedPort();
    const settings = await settingsBeside(resident, {
      DATABASE_URL: database.url,
      TEMPORAL_ADDRESS: `127.0.0.1:${temporalPort}`,
      FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${await reservedPort()}`,
    });
    const clientUrl = `http://${settings.env["FASTJOIN_CLIENT_LISTEN"]}`;
    const serve = spawnFastjoin(settings.env, "serve");
    const stop: (() => Promise<unknown>)[] = [];
    try {
      await eventually(async () => (await fetch(`${clientUrl}/_fastjoin/health`).catch(() => undefined)) && true, {
        about: () => serve.output(),
      });
      const alice = await addAlice(settings, clientUrl);
      members += 1;
      const room = resident.hostRoom({ members });
      await joinVia(alice, room, resident);
      await alice.say(room.roomId, "nobody repairs this yet");

      const temporal = await startEmbeddedTemporal({
        cli: await temporalCli(),
        dataDir: settings.dataDir,
        port: temporalPort,
        uiPort: await reservedPort(),
        logger: createLogger("silent", { process: "test" }),
      });
      stop.push(async () => temporal.kill("SIGTERM"));
      const worker = spawnFastjoin(settings.env, "worker");
      stop.push(async () => {
        worker.child.kill("SIGTERM");
        await worker.finished;
      });
      await untilComplete(settings, room, worker);
      const state = await alice.fullState(room.roomId);
      expectEqualStates(state, resident.fullState(room));
      expect(state.get(stateKeyOf("m.room.member", alice.userId as UserId))).toBeDefined();
    } finally {
      for (const one of stop.toReversed()) await one();
      serve.child.kill("SIGTERM");
      await serve.finished;
      await database.drop();
      await settings.remove();
    }
  });
});

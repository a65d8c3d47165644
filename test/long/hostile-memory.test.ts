import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { connect, type TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import { joinVia, untilComplete } from "../support/sidecar-scene.ts";
import { startSidecar, type StartedSidecar } from "../support/started-sidecar.ts";

const MIB = 1_048_576;
/**
 * Of serve and worker together, at any moment. Both take about 280 when idle, and up to 420 were seen on a machine that
 * was twenty times overloaded, where garbage is collected late; without bounds it is more than a thousand.
 */
const MOST_MIB = 512;

let resident: Resident;
let started: StartedSidecar;

beforeAll(async () => {
  resident = await startResident();
});
afterAll(() => resident.close());

// What a process has once held it does not give back at once: each case has its own.
beforeEach(async () => {
  started = await startSidecar(resident, { built: true });
}, 180_000);

afterEach(async () => {
  resident.clearTrouble();
  await started.close();
});

/** What both hold at this moment, in MiB, as the kernel counts it. */
function heldNow(): number {
  const parts = ["serve", "worker"].map((part) => {
    const status = readFileSync(`/proc/${started.running().processes[part]}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  });
  return parts.reduce((sum, one) => sum + one, 0);
}

/** The most that both hold together while the work is done. */
async function mostHeld(work: () => Promise<void>): Promise<number> {
  let most = heldNow();
  const watch = setInterval(() => (most = Math.max(most, heldNow())), 50);
  await work().finally(() => clearInterval(watch));
  return Math.round(most);
}

/** Writes the pieces for as long as they are taken. */
async function writeAll(response: ServerResponse, pieces: Iterable<string>): Promise<void> {
  response.setMaxListeners(0);
  const over = new Promise((resolve) => response.once("close", resolve));
  for (const piece of pieces) {
    if (response.destroyed) return;
    const drained = new Promise((resolve) => response.once("drain", resolve));
    if (!response.write(piece)) await Promise.race([drained, over]);
  }
  response.end();
}

/** 600 MB of events of the right form, each as large as an event may be, signed by nobody. */
function* largeEvents(room: HostedRoom, list: "state" | "pdus"): Generator<string> {
  const [first] = room.events.values();
  const pdu = { ...first?.event.pdu, type: "m.large", content: { padding: "x".repeat(60_000) } };
  yield `{"auth_chain":[],"servers_in_room":[],"members_omitted":true,"${list}":[`;
  let written = 0;
  for (let n = 0; written < 600 * MIB; n += 1) {
    const text = stringifyJson({ ...pdu, depth: n + 1 } as JsonObject);
    written += text.length;
    yield n === 0 ? text : `,${text}`;
  }
  yield "]}";
}

function endless(room: HostedRoom, list: "state" | "pdus") {
  return (response: ServerResponse): Promise<void> => writeAll(response, largeEvents(room, list));
}

/** A request that says it has 12 MiB, of which all but the end comes. */
async function holdOut(port: number): Promise<TLSSocket> {
  const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false });
  socket.on("error", () => undefined);
  await once(socket, "secureConnect");
  const authorization = 'Authorization: X-Matrix origin="them.example",key="ed25519:1",sig="c2ln"';
  const head = ["PUT /_matrix/federation/v1/send/1 HTTP/1.1", "Host: us", authorization, `Content-Length: ${12 * MIB}`];
  socket.write(`${head.join("\r\n")}\r\n\r\n`);
  const over = new Promise((resolve) => socket.once("close", resolve));
  for (let sent = 0; sent < 11 && !socket.destroyed; sent += 1) {
    const drained = new Promise((resolve) => socket.once("drain", resolve));
    if (!socket.write(Buffer.alloc(MIB, " "))) await Promise.race([drained, over]);
  }
  return socket;
}

describe("serve and worker together stay small", () => {
  it("over 600 MB of events in an answer to send_join", async () => {
    const room = resident.hostRoom({ label: "large join" });
    const end = resident.trouble({ kind: "raw", at: "send_join", answer: endless(room, "state") });
    const most = await mostHeld(async () => {
      await expect(joinVia(started.alice, room, resident)).rejects.toThrow(/send_join answer/);
    });
    end();
    expect(most).toBeLessThan(MOST_MIB);
  });

  it("over 600 MB of events in an answer to /state, after which the resync goes on", async () => {
    const room = resident.hostRoom({ label: "large state" });
    resident.trouble({ kind: "raw", at: "state", times: 1, answer: endless(room, "pdus") });
    const most = await mostHeld(async () => {
      await joinVia(started.alice, room, resident);
      await untilComplete(started.settings, room, started.sidecar);
    });
    expect(most).toBeLessThan(MOST_MIB);
  });

  it("in a flood of large requests that do not end", async () => {
    const port = Number(started.settings.env["FASTJOIN_FEDERATION_LISTEN"]?.split(":")[1]);
    const most = await mostHeld(async () => {
      const flood = await Promise.all(Array.from({ length: 30 }, () => holdOut(port)));
      await started.alice.get("account/whoami");
      for (const socket of flood) socket.destroy();
    });
    expect(most).toBeLessThan(MOST_MIB);
  });
});

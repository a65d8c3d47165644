import type { AddressInfo } from "node:net";
import express from "express";
import { afterAll, describe, expect, it } from "vitest";
import { createMetrics } from "../../../src/main/metrics.ts";
import { reportLostEvents } from "../../../src/rooms/lost-events.ts";
import { addWaitingPdu } from "../../../src/storage/waiting-pdus.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext } from "../../support/loopback-federation.ts";

const database = await openTestDatabase();
const app = express();
app.use(createMetrics(database).router);
const server = app.listen(0, "127.0.0.1");
afterAll(() => new Promise((resolve) => server.close(resolve)));

async function metrics(): Promise<string> {
  const { port } = server.address() as AddressInfo;
  return await (await fetch(`http://127.0.0.1:${port}/_fastjoin/metrics`)).text();
}

/** Counted since the process began, in which other tests lose events too. */
function lostEvents(text: string, cause: string): number {
  const [, count] = new RegExp(`^fastjoin_lost_events_total\\{cause="${cause}"\\} (\\d+)$`, "m").exec(text) ?? [];
  return Number(count);
}

describe("createMetrics", () => {
  it("shows what waits, and what was let go by cause, however often it is asked", async () => {
    const roomId = "!metrics:example.org";
    const pdu = { eventId: "$waits", roomId, origin: "them.example", pdu: {}, receivedAt: 0 } as const;
    await addWaitingPdu(database.pool, { ...pdu, reason: "missing-prev-events" });
    const lost = { loss: "join-answer", roomId, eventIds: ["$one"], count: 3, reason: "for a test" } as const;
    const before = lostEvents(await metrics(), "join-answer");
    const pastUnknown = lostEvents(await metrics(), "past-unknown");
    reportLostEvents(aRoomsContext(database), lost);
    for (let asked = 0; asked < 2; asked += 1) {
      const text = await metrics();
      expect(text).toMatch(/^fastjoin_waiting_pdus 1$/m);
      expect(lostEvents(text, "join-answer")).toBe(before + 3);
      expect(lostEvents(text, "past-unknown")).toBe(pastUnknown);
    }
  });
});

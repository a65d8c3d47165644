import { describe, expect, it } from "vitest";
import type { ServerName, UserId } from "../../../src/matrix/identifiers.ts";
import { lostEventCounts } from "../../../src/rooms/lost-events.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { countWaitingPdus, waitingPdusOf } from "../../../src/storage/waiting-pdus.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { enterRoom, expectWhole, completeResync } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;
const HOUR_MS = 60 * 60_000;

/** A joined user of a server whose key we have not had until now. */
async function strangerIn(room: HostedRoom): Promise<{ readonly user: UserId; readonly server: ServerName }> {
  const known = await pool.query<{ server_name: ServerName }>("SELECT server_name FROM server_keys");
  const names = known.rows.map((row) => row.server_name);
  for (const event of room.events.values()) {
    const { type, sender, content } = event.event.pdu;
    const server = sender.slice(sender.indexOf(":") + 1) as ServerName;
    if (type === "m.room.member" && content["membership"] === "join" && !names.includes(server)) {
      return { user: sender, server };
    }
  }
  throw new Error("the keys of all servers are known already");
}

describe("a PDU whose server's key can't be had", () => {
  it("is given up after an hour, for the operator to see", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId } = entered;
    const { user, server } = await strangerIn(room);
    const found = resident.trouble({ kind: "no-keys", servers: [server] });
    const sent = await resident.sendMessage(room, user, "nobody knows me", { to: [sidecar.serverName] });
    const before = lostEventCounts().get("key-unknown") ?? 0;

    await receiveWaitingPdus({ ...sidecar.ctx, now: () => Date.now() + HOUR_MS + 1_000 });

    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    expect(lostEventCounts().get("key-unknown")).toBe(before + 1);
    expect(await loadEvent(pool, sent.eventId)).toBeUndefined();
    found();
  });

  it("waits for the key, is told its sender taken, and is in the room once the key is there", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId } = entered;
    const { user, server } = await strangerIn(room);
    const found = resident.trouble({ kind: "no-keys", servers: [server] });

    const sent = await resident.sendMessage(room, user, "who am I?", { to: [sidecar.serverName] });

    expect(sent.results).toMatchObject([{ status: 200, body: { pdus: { [sent.eventId]: {} } } }]);
    expect(await waitingPdusOf(pool, roomId, { reason: "missing-keys" })).toHaveLength(1);
    await receiveWaitingPdus(sidecar.ctx);
    expect(await countWaitingPdus(pool, roomId)).toBe(1);

    found();
    // What was asked for in vain is not asked for again at once; another process has not asked yet.
    await sidecar.restart(database);
    await receiveWaitingPdus({ ...sidecar.ctx, now: () => Date.now() + HOUR_MS / 2 });
    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    expect(await loadEvent(pool, sent.eventId)).toMatchObject({ outlier: false, rejection: null });
    await completeResync(scene, entered);
    await expectWhole(scene, entered);
  });
});

import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, it } from "vitest";
import { callServer } from "../../resident/outbound.ts";
import { startResident } from "../../resident/resident.ts";
import { spawnResident } from "../../resident/spawn-resident.ts";

describe("spawnResident", () => {
  it("hosts rooms in another process and takes commands", async () => {
    const resident = await spawnResident({ fronts: 2 }, [{ members: 20, label: "spawned" }]);
    try {
      const [roomId] = resident.rooms;
      if (roomId === undefined) throw new Error("no room");
      expect(resident.serverNames).toHaveLength(2);
      const room = await resident.call("room", roomId);
      expect(room).toMatchObject({ roomId, version: "11", joinedMembers: 22, joinedServers: 7 });
      const sent = await resident.call("sendMessage", roomId, room.founder, "hello");
      expect(sent.results).toEqual([]);
      expect(await resident.call("has", roomId, sent.eventId)).toBe(true);
      expect(await resident.call("fullState", roomId)).toHaveLength(room.stateEvents);
      await expect(resident.call("sendMessage", roomId, "@nobody:server-000.rooms.test", "x")).rejects.toThrow(
        "may not",
      );

      await resident.call("trouble", { kind: "refuse", status: 418, at: "version" }, 1);
      const statuses = resident.serverNames.map(async (server) => await versionStatus(server));
      expect(await Promise.all(statuses)).toEqual([200, 418]);
    } finally {
      await resident.stop();
    }
    expect(resident.child.signalCode ?? resident.child.exitCode).toBe(0);
  });

  it("ends with the process that started it, however that ended", async () => {
    const script = `
      import { spawnResident } from ${JSON.stringify(new URL("../../resident/spawn-resident.ts", import.meta.url).href)};
      const { child } = await spawnResident();
      process.stdout.write(child.pid + "\\n");
    `;
    const starter = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(starter.stdout, "data")) as [Buffer];
    const pid = Number(String(line));
    expect(isAlive(pid)).toBe(true);
    starter.kill("SIGKILL");
    await expect.poll(() => isAlive(pid)).toBe(false);
  });
});

async function versionStatus(server: string): Promise<number | undefined> {
  const asker = await startResident();
  try {
    const uri = "/_matrix/federation/v1/version";
    const reply = await callServer(asker.world, { origin: asker.serverName, destination: server, method: "GET", uri });
    return reply.status;
  } finally {
    await asker.close();
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

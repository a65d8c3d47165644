import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startSynapse } from "../support/synapse/start-synapse.ts";
import { createSynapseRoom, readMessages, registerUser, sendMessage } from "../support/synapse/synapse-client.ts";

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "start-synapse-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe("startSynapse", () => {
  it("goes on as the same server when it is started again on its data", async () => {
    const dataDir = join(directory, "again");
    const first = await startSynapse({ dataDir });
    const alice = await registerUser(first, "alice");
    const room = await createSynapseRoom(alice, { version: "11" });
    const message = await sendMessage(alice, room, "Before");
    await first.stop();
    expect(isAlive(first.pid)).toBe(false);
    const second = await startSynapse({ dataDir, serverPort: first.federationPort });
    try {
      expect(second.serverName).toBe(first.serverName);
      const messages = await readMessages({ ...alice, synapse: second }, room);
      expect(messages[0]).toMatchObject({ event_id: message, content: { body: "Before" } });
    } finally {
      await second.stop();
    }
  });

  it("leaves no Synapse behind when the process that started it is killed", async () => {
    const module = pathToFileURL(join(import.meta.dirname, "../support/synapse/start-synapse.ts")).href;
    const options = JSON.stringify({ dataDir: join(directory, "orphan") });
    const program = `
      const { startSynapse } = await import(${JSON.stringify(module)});
      process.stdout.write(String((await startSynapse(${options})).pid));`;
    const starter = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [text] = (await once(starter.stdout, "data")) as [Buffer];
    const pid = Number(text);
    expect(isAlive(pid)).toBe(true);
    starter.kill("SIGKILL");
    const deadline = Date.now() + 10_000;
    while (isAlive(pid) && Date.now() < deadline) await sleep(50);
    expect(isAlive(pid)).toBe(false);
  });

  it("says why when Synapse does not come up", async () => {
    const database = "postgresql://nobody:nothing@127.0.0.1:1/none";
    const start = startSynapse({ dataDir: join(directory, "broken"), database });
    await expect(start).rejects.toThrow(/connection to server at "127\.0\.0\.1", port 1 failed/);
  });
});

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { reservedPort } from "../support/reserved-port.ts";
import { readRunning } from "../../src/main/running-file.ts";
import { eventually, sidecarSettings, type SidecarSettings } from "../support/sidecar-process.ts";
import { startSynapse, type Synapse } from "../support/synapse/start-synapse.ts";
import { createSynapseRoom, joinOnSynapse, registerUser } from "../support/synapse/synapse-client.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

let synapseDir: string;
let synapse: Synapse;
let settings: SidecarSettings;
let started: ChildProcess;
let output = "";

/** One of the README's commands as it stands there, but for the names of room and server. */
async function readmeCommand(command: string, names: Readonly<Record<string, string>> = {}): Promise<string> {
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const line = readme.split("\n").find((one) => one.startsWith(command));
  if (line === undefined) throw new Error(`the README has no command "${command}"`);
  const text = Object.entries(names).reduce((sum, [name, value]) => sum.replaceAll(name, value), line);
  const { stdout } = await run("sh", ["-c", text], { cwd: ROOT, env: settings.env });
  return stdout;
}

beforeAll(async () => {
  // The commands run what `npm ci` has built; here the sources may be newer.
  await run("npm", ["run", "build"], { cwd: ROOT });
  synapseDir = await mkdtemp(join(tmpdir(), "fastjoin-synapse-"));
  synapse = await startSynapse({ dataDir: synapseDir });
  const port = await reservedPort();
  settings = await sidecarSettings({
    FASTJOIN_SERVER_NAME: `localhost:${port}`,
    FASTJOIN_FEDERATION_LISTEN: `127.0.0.1:${port}`,
    FASTJOIN_FEDERATION_VERIFY_CERTIFICATES: "false",
  });
  started = spawn("npm", ["start"], { cwd: ROOT, env: settings.env, stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [started.stdout, started.stderr]) stream?.on("data", (text) => (output += String(text)));
  await eventually(
    async () => {
      const running = await readRunning(settings.dataDir);
      const ready = running?.processes["worker"] !== undefined && running.clientUrl !== undefined;
      const answer = ready ? await fetch(`${running.clientUrl}/_fastjoin/ready`).catch(() => undefined) : undefined;
      return answer?.ok === true ? true : undefined;
    },
    { withinMs: 90_000, about: () => `npm start is not ready: ${output.slice(-4000)}` },
  );
}, 300_000);

afterAll(async () => {
  const supervisor = (await readRunning(settings.dataDir))?.processes["supervisor"];
  const ended = once(started, "exit");
  if (supervisor !== undefined) process.kill(supervisor, "SIGTERM");
  else started.kill("SIGTERM");
  await ended;
  await synapse?.stop();
  await settings?.remove();
  await rm(synapseDir, { recursive: true, force: true });
}, 60_000);

describe("the README's commands", () => {
  it("start the sidecar, make an account, and join a room of a Synapse, whose state becomes complete", async () => {
    const admin = await registerUser(synapse, "admin");
    const roomId = await createSynapseRoom(admin, { version: "11" });
    for (const name of ["one", "two", "three"]) await joinOnSynapse(await registerUser(synapse, name), roomId);
    const names = { "!room:example.org": roomId, "example.org": synapse.serverName };

    expect(await readmeCommand("npx fastjoin user add")).toContain(`@alice:${settings.env["FASTJOIN_SERVER_NAME"]}`);
    expect(await readmeCommand("npx fastjoin join", names)).toContain(`joined ${roomId}`);
    await eventually(
      async () => ((await readmeCommand("npx fastjoin show", names)).includes("complete: nothing") ? true : undefined),
      { about: () => `the resync does not end: ${output.slice(-4000)}` },
    );
    expect(await readmeCommand("npx fastjoin rooms")).toContain("every room's state is complete");
  });
});

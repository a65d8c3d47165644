import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import { reservedPort } from "../reserved-port.ts";
import { httpClient, type HttpClient } from "../http-client.ts";
import {
  fastjoin,
  sidecarSettings,
  spawnFastjoin,
  untilRunning,
  type SidecarProcess,
  type SidecarSettings,
} from "../sidecar-process.ts";
import { startSynapse, type Synapse } from "./start-synapse.ts";

/** A real Synapse and a sidecar beside it, each of its own processes, until the file's tests are over. */
export interface SynapseScene {
  readonly synapse: Synapse;
  readonly settings: SidecarSettings;
  readonly sidecar: SidecarProcess;
  readonly ourName: string;
  /** A user of the sidecar. */
  readonly alice: HttpClient;
}

export async function openSynapseScene(): Promise<SynapseScene> {
  const dataDir = await mkdtemp(join(tmpdir(), "fastjoin-synapse-"));
  afterAll(() => rm(dataDir, { recursive: true, force: true }));
  const synapse = await startSynapse({ dataDir });
  afterAll(() => synapse.stop(), 60_000);
  const port = await reservedPort();
  const ourName = `localhost:${port}`;
  const settings = await sidecarSettings({
    FASTJOIN_SERVER_NAME: ourName,
    FASTJOIN_FEDERATION_LISTEN: `127.0.0.1:${port}`,
    FASTJOIN_FEDERATION_VERIFY_CERTIFICATES: "false",
  });
  afterAll(() => settings.remove());
  const sidecar = spawnFastjoin(settings.env, "start");
  afterAll(async () => {
    sidecar.child.kill("SIGTERM");
    await sidecar.finished;
  }, 60_000);
  const running = await untilRunning(settings, sidecar, ({ clientUrl }) => clientUrl !== undefined);
  const { stdout } = await fastjoin(settings.env, "user", "add", "alice");
  const accessToken = /access token\s+(\S+)/.exec(stdout)?.[1] ?? "";
  const alice = httpClient(running.clientUrl ?? "", `@alice:${ourName}`, accessToken);
  return { synapse, settings, sidecar, ourName, alice };
}

import { reservedPort } from "./reserved-port.ts";
import type { Running } from "../../src/main/running-file.ts";
import type { Resident } from "../resident/resident.ts";
import type { HttpClient } from "./http-client.ts";
import {
  spawnBuiltFastjoin,
  spawnFastjoin,
  untilRunning,
  type SidecarProcess,
  type SidecarSettings,
} from "./sidecar-process.ts";
import { addAlice, settingsBeside } from "./sidecar-scene.ts";

/** `fastjoin start` with everything embedded, beside a resident, and a user on it. */
export interface StartedSidecar {
  readonly settings: SidecarSettings;
  readonly sidecar: SidecarProcess;
  readonly alice: HttpClient;
  /** Its processes as they were last seen. */
  running(): Running;
  /** SIGKILL, waited for until another has taken the part. */
  kill(part: SupervisedPart): Promise<void>;
  /** SIGTERM, waited for. */
  close(): Promise<void>;
}

export type SupervisedPart = "serve" | "worker" | "postgres" | "temporal";

/** From the sources, or as it is installed. */
export async function startSidecar(
  resident: Resident,
  { built = false }: { readonly built?: boolean } = {},
): Promise<StartedSidecar> {
  const settings = await settingsBeside(resident, { FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${await reservedPort()}` });
  const sidecar = (built ? spawnBuiltFastjoin : spawnFastjoin)(settings.env, "start");
  const close = async (): Promise<void> => {
    sidecar.child.kill("SIGTERM");
    await sidecar.finished;
    await settings.remove();
  };
  try {
    let running = await untilRunning(settings, sidecar, ({ clientUrl }) => clientUrl !== undefined);
    const alice = await addAlice(settings, running.clientUrl ?? "");
    const kill = async (part: SupervisedPart): Promise<void> => {
      const before = running.processes[part] ?? 0;
      process.kill(before, "SIGKILL");
      running = await untilRunning(settings, sidecar, ({ processes }) => (processes[part] ?? before) !== before);
    };
    return { settings, sidecar, alice, running: () => running, kill, close };
  } catch (error) {
    await close();
    throw error;
  }
}

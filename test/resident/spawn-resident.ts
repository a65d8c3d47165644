import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { RoomId, ServerName } from "../../src/matrix/identifiers.ts";
import type { AdminCommands } from "./admin.ts";
import type { ResidentOptions } from "./resident.ts";
import type { RoomParameters } from "./room-parameters.ts";

/** A resident in another process. */
export interface ResidentProcess {
  readonly serverNames: readonly ServerName[];
  /** Of the rooms asked for at the start, in their order. */
  readonly rooms: readonly RoomId[];
  readonly child: ChildProcess;
  call<Command extends keyof AdminCommands>(
    command: Command,
    ...parameters: Parameters<AdminCommands[Command]>
  ): Promise<Awaited<ReturnType<AdminCommands[Command]>>>;
  stop(): Promise<void>;
}

const entry = join(dirname(fileURLToPath(import.meta.url)), "main.ts");

export async function spawnResident(
  options: ResidentOptions = {},
  rooms: readonly Partial<RoomParameters>[] = [],
): Promise<ResidentProcess> {
  const words = [options, ...rooms].map((value) => JSON.stringify(value));
  const child = spawn(process.execPath, ["--import", "tsx", entry, ...words], { stdio: ["pipe", "pipe", "inherit"] });
  const line = await firstLine(child);
  const {
    admin,
    serverNames,
    rooms: hosted,
  } = JSON.parse(line) as {
    admin: string;
    serverNames: ServerName[];
    rooms: RoomId[];
  };
  return {
    serverNames,
    rooms: hosted,
    child,
    call: async (command, ...parameters) => {
      const body = JSON.stringify({ command, parameters });
      const response = await fetch(admin, { method: "POST", body });
      const { result, error } = (await response.json()) as { result: never; error?: string };
      if (error !== undefined) throw new Error(`${command}: ${error}`);
      return result;
    },
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    },
  };
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("no standard output");
  const lines = createInterface(child.stdout);
  const ended = once(child, "exit").then(([code]) => {
    throw new Error(`the resident ended with ${String(code)} before it was up`);
  });
  const [line] = (await Promise.race([once(lines, "line"), ended])) as [string];
  // The line came: a later exit is no failure of this start.
  ended.catch(() => undefined);
  return line;
}

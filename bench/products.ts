import { mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { lastLines, startSidecar } from "../demo/sidecar.ts";
import { startEmbeddedPostgres } from "../src/main/embedded/postgres.ts";
import { startSynapse } from "../test/support/synapse/start-synapse.ts";

export type ProductName = "Fastjoin" | "Synapse";

/** Process ids, as they are now. */
export interface Processes {
  /** Those of the product itself, by part. */
  readonly own: Readonly<Record<string, number>>;
  /** The postmaster. */
  readonly postgres: number;
  readonly temporal: number | undefined;
}

/** A homeserver with a PostgreSQL of its own, ready to join rooms. */
export interface Product {
  readonly name: ProductName;
  readonly serverName: string;
  readonly clientUrl: string;
  readonly databaseUrl: string;
  processes(): Promise<Processes>;
  endOfLog(): string;
  /** How far the log goes by now, in bytes. */
  logLength(): number;
  /** By process, the longest time that its event loop was held up since then, as it says itself, in milliseconds. */
  heldUpSince(logLength: number): Readonly<Record<string, number>>;
}

export interface Stoppable {
  stop(): Promise<void>;
}

export interface Surroundings {
  /** An empty directory for data and logs. */
  readonly directory: string;
  /** The resident, which knows the keys of all its virtual servers. */
  readonly notary: string;
  /** Run Fastjoin's sources instead of the build. */
  readonly fromSource: boolean;
  /** Is told of what must be ended again, as soon as it runs. */
  readonly opened: (one: Stoppable) => void;
}

function endOf(logFile: string): string {
  return lastLines(logFile, 12).replaceAll(/^(.{300}).*$/gm, "$1 …");
}

function heldUp(log: string): Readonly<Record<string, number>> {
  const longest: Record<string, number> = {};
  for (const line of log.split("\n").filter((one) => one.includes("heldUpMs"))) {
    const { process, heldUpMs } = JSON.parse(line) as { process: string; heldUpMs: number };
    longest[process] = Math.max(longest[process] ?? 0, heldUpMs);
  }
  return longest;
}

/** As `npm start` runs it. */
export async function openFastjoin({ directory, notary, fromSource, opened }: Surroundings): Promise<Product> {
  const dataDir = join(directory, "fastjoin");
  mkdirSync(dataDir, { mode: 0o711 });
  const sidecar = await startSidecar({ dataDir, notary, fromSource });
  opened(sidecar);
  return {
    name: "Fastjoin",
    serverName: sidecar.serverName,
    clientUrl: sidecar.clientUrl,
    databaseUrl: sidecar.databaseUrl,
    processes: async () => {
      const { supervisor, serve, worker, postgres, temporal } = await sidecar.processes();
      if (supervisor === undefined || serve === undefined || worker === undefined || postgres === undefined) {
        throw new Error("a part of Fastjoin has ended");
      }
      return { own: { supervisor, serve, worker }, postgres, temporal };
    },
    endOfLog: () => endOf(sidecar.logFile),
    logLength: () => statSync(sidecar.logFile).size,
    heldUpSince: (logLength) => heldUp(readFileSync(sidecar.logFile).subarray(logLength).toString()),
  };
}

/** With the settings of PostgreSQL that Fastjoin's has, and the same server as notary. */
export async function openSynapse({ directory, notary, opened }: Surroundings): Promise<Product> {
  const home = join(directory, "synapse");
  mkdirSync(home, { mode: 0o711 });
  const postgres = await startEmbeddedPostgres({ dataDir: home, database: "synapse" });
  opened(postgres);
  const synapse = await startSynapse({
    dataDir: home,
    database: postgres.url,
    overrides: {
      trusted_key_servers: [{ server_name: notary, accept_keys_insecurely: true }],
      // Fastjoin has none: Synapse is not to spend time on what the other does not do.
      presence: { enabled: false },
      // What the resident holds back, so that a room stays partial, must not make Synapse give its resync up for good.
      federation: { client_timeout: 1_200_000 },
    },
  });
  opened(synapse);
  return {
    name: "Synapse",
    serverName: synapse.serverName,
    clientUrl: synapse.clientUrl,
    databaseUrl: postgres.url,
    processes: async () => ({ own: { synapse: synapse.pid }, postgres: postgres.pid, temporal: undefined }),
    endOfLog: () => endOf(join(home, "homeserver.log")),
    // It does not tell.
    logLength: () => 0,
    heldUpSince: () => ({}),
  };
}

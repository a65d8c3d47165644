import { connect, createServer, type Server } from "node:net";
import { reservedPort } from "./reserved-port.ts";
import { startEmbeddedTemporal } from "../../src/main/embedded/temporal.ts";
import { createLogger } from "../../src/main/logger.ts";
import type { Resident } from "../resident/resident.ts";
import { cloneDatabase } from "./database.ts";
import { settingsBeside } from "./sidecar-scene.ts";
import { eventually, spawnFastjoin, type SidecarProcess, type SidecarSettings } from "./sidecar-process.ts";
import { temporalCli } from "./temporal-cli.ts";

/** One half of a sidecar in a process of its own. */
export interface FleetProcess {
  /** Of a worker, which listens to nobody, nothing that could be called. */
  readonly clientUrl: string;
  readonly federationPort: number;
  pid(): number;
  output(): string;
  /** SIGKILL, waited for. */
  kill(): Promise<void>;
  /** Starts it again, on its old ports. */
  start(): Promise<void>;
}

/** Several processes of one sidecar: one database, one Temporal, one name that a balancer stands behind. */
export interface Fleet {
  /** As the operator's commands are run with; they talk to the first `serve`. */
  readonly settings: SidecarSettings;
  readonly databaseUrl: string;
  readonly temporalAddress: string;
  readonly serves: readonly FleetProcess[];
  readonly workers: readonly FleetProcess[];
  /** The `serve` that other servers reach from now on; those that are under way stay where they are. */
  routeTo(serve: FleetProcess): void;
  output(): string;
  close(): Promise<void>;
}

/** Passes connections on as they are, TLS included, the way a balancer on TCP does. */
async function startBalancer(port: number, target: () => number): Promise<Server> {
  const server = createServer((client) => {
    const upstream = connect(target(), "127.0.0.1");
    client.on("error", () => upstream.destroy()).on("close", () => upstream.destroy());
    upstream.on("error", () => client.destroy()).on("close", () => client.destroy());
    client.pipe(upstream).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  return server;
}

interface Part {
  readonly command: "serve" | "worker";
  readonly env: Readonly<Record<string, string>>;
  readonly ports: { readonly client: number; readonly federation: number };
  readonly isReady: (part: SidecarProcess) => Promise<boolean>;
}

function processOf({ command, env, ports, isReady }: Part): FleetProcess {
  const told: string[] = [];
  let running: SidecarProcess | undefined;
  const output = (): string => told.join("") + (running?.output() ?? "");
  const start = async (): Promise<void> => {
    told.push(running?.output() ?? "");
    const started = spawnFastjoin(env, command);
    running = started;
    await eventually(
      async () => {
        if (started.child.exitCode !== null) throw new Error(`${command} ended: ${output()}`);
        return (await isReady(started)) ? true : undefined;
      },
      { withinMs: 120_000, about: () => `${command} is not ready: ${output()}` },
    );
  };
  return {
    clientUrl: `http://127.0.0.1:${ports.client}`,
    federationPort: ports.federation,
    pid: () => running?.child.pid ?? 0,
    output,
    start,
    kill: async () => {
      running?.child.kill("SIGKILL");
      await running?.finished;
    },
  };
}

async function isReadyAt(url: string): Promise<boolean> {
  const answer = await fetch(`${url}/_fastjoin/ready`).catch(() => undefined);
  return answer?.ok === true;
}

async function servePart(env: Readonly<Record<string, string>>): Promise<Part> {
  const ports = { client: await reservedPort(), federation: await reservedPort() };
  return {
    command: "serve",
    ports,
    env: {
      ...env,
      FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${ports.client}`,
      FASTJOIN_FEDERATION_LISTEN: `127.0.0.1:${ports.federation}`,
    },
    isReady: () => isReadyAt(`http://127.0.0.1:${ports.client}`),
  };
}

/** All of them start at once, on an empty database and an empty data directory. */
export async function startFleet(resident: Resident, size: { serves: number; workers: number }): Promise<Fleet> {
  const database = await cloneDatabase({ empty: true });
  const temporalPort = await reservedPort();
  const temporalAddress = `127.0.0.1:${temporalPort}`;
  const base = await settingsBeside(resident, { DATABASE_URL: database.url, TEMPORAL_ADDRESS: temporalAddress });
  const temporal = await startEmbeddedTemporal({
    cli: await temporalCli(),
    dataDir: base.dataDir,
    port: temporalPort,
    uiPort: await reservedPort(),
    logger: createLogger("silent", { process: "test" }),
  });
  const parts: Part[] = [];
  for (let count = 0; count < size.serves; count += 1) parts.push(await servePart(base.env));
  for (let count = 0; count < size.workers; count += 1) {
    parts.push({
      command: "worker",
      env: base.env,
      ports: { client: 0, federation: 0 },
      isReady: async (part) => part.output().includes("the worker polls"),
    });
  }
  const processes = parts.map(processOf);
  const [first] = processes;
  if (first === undefined) throw new Error("a fleet without a process");
  const serves = processes.slice(0, size.serves);
  let target = first;
  const port = Number(base.env["FASTJOIN_FEDERATION_LISTEN"]?.split(":").at(-1));
  const balancer = await startBalancer(port, () => target.federationPort);
  const close = async (): Promise<void> => {
    balancer.close();
    await Promise.all(processes.map((one) => one.kill()));
    temporal.kill("SIGKILL");
    await database.drop();
    await base.remove();
  };
  try {
    await Promise.all(processes.map((one) => one.start()));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    settings: { ...base, env: { ...base.env, FASTJOIN_CLIENT_LISTEN: first.clientUrl.replace("http://", "") } },
    databaseUrl: database.url,
    temporalAddress,
    serves,
    workers: processes.slice(size.serves),
    routeTo: (serve) => void (target = serve),
    output: () => processes.map((one) => one.output().slice(-3000)).join("\n──\n"),
    close,
  };
}

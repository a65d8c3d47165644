import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { randomBytes } from "node:crypto";
import type { LookupAddress } from "node:dns";
import type { RequestListener } from "node:http";
import pino from "pino";
import { createFederationClient } from "../../src/federation-client/client.ts";
import type { DiscoverySources } from "../../src/federation-client/discovery.ts";
import { createKeyRing } from "../../src/federation-client/key-ring.ts";
import { createFederationApp } from "../../src/federation-server/app.ts";
import type { EventId, RoomId, ServerName, UserId } from "../../src/matrix/identifiers.ts";
import { stateEntries, type StateKey } from "../../src/matrix/state.ts";
import { signingKeyFromSeed } from "../../src/matrix/signatures.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import { startOutboxDelivery } from "../../src/rooms/send/deliver-outbox.ts";
import type { Database } from "../../src/storage/database.ts";
import { loadRoom } from "../../src/storage/rooms.ts";
import { loadState } from "../../src/storage/state-snapshots.ts";
import { loopbackCertificate } from "../resident/certificate.ts";

/** The sidecar's use cases and its federation listener in this process; who drives the resync, the test decides. */
export interface InProcessSidecar {
  /** Of the present process: another one after {@link restart}. */
  readonly ctx: RoomsContext;
  readonly serverName: ServerName;
  readonly userId: UserId;
  /** The resyncs that joins have asked for. */
  readonly wanted: { readonly roomId: RoomId; readonly joinEventId: EventId }[];
  /** The rooms whose resyncs were to look again. */
  readonly woken: RoomId[];
  currentState(roomId: RoomId): Promise<ReadonlyMap<StateKey, EventId>>;
  /** As if the process had ended and another had begun: nothing is left but the database. Nothing is delivered then. */
  restart(database: Database): Promise<void>;
  /** Until {@link listen} no other server reaches us; what we ask and send goes out as ever. */
  stopListening(): Promise<void>;
  /** Listens again, on the port of our name. */
  listen(): Promise<void>;
  close(): Promise<void>;
}

interface SidecarOptions {
  readonly notaries?: readonly ServerName[];
  /** Whether what stands in the outbox is sent. True. */
  readonly delivers?: boolean;
  /** Whether names without a port are looked up; if not, such servers are unreachable at once. True. */
  readonly discovers?: boolean;
}

export async function startInProcessSidecar(
  database: Database,
  options: SidecarOptions = {},
): Promise<InProcessSidecar> {
  let app: RequestListener = (_request, response) => void response.writeHead(503).end();
  const server = createServer(await loopbackCertificate(), (request, response) => app(request, response));
  const port = await listening(server, 0);
  const serverName = `localhost:${port}`;
  const identity: Identity = { serverName, signingKey: signingKeyFromSeed("ed25519:test", randomBytes(32)) };
  const wanted: InProcessSidecar["wanted"] = [];
  const woken: RoomId[] = [];
  let ctx = contextOf(database, identity, { ...options, wanted, woken });
  app = createFederationApp(ctx);
  const delivery = options.delivers === false ? undefined : startOutboxDelivery(ctx);
  return {
    get ctx() {
      return ctx;
    },
    serverName,
    userId: `@alice:${serverName}`,
    wanted,
    woken,
    restart: async (restarted) => {
      await delivery?.stop();
      await ctx.federation.close();
      ctx = contextOf(restarted, identity, { ...options, wanted, woken });
      app = createFederationApp(ctx);
    },
    stopListening: () => closed(server),
    listen: async () => void (await listening(server, port)),
    currentState: async (roomId) => {
      const room = await loadRoom(database.pool, roomId);
      if (room?.currentSnapshotId == null) throw new Error(`${roomId} has no current state`);
      return new Map(stateEntries(await loadState(database, room.currentSnapshotId)));
    },
    close: async () => {
      await delivery?.stop();
      await closed(server);
      await ctx.federation.close();
    },
  };
}

type Identity = Pick<RoomsContext, "serverName" | "signingKey">;

/** Answers for every name that no server has it. */
const NO_DISCOVERY: Partial<DiscoverySources> = {
  wellKnown: async () => undefined,
  srvRecords: async () => [],
};

function contextOf(
  database: Database,
  identity: Identity,
  { notaries = [], discovers = true, wanted, woken }: SidecarOptions & Pick<InProcessSidecar, "wanted" | "woken">,
): RoomsContext {
  const now = Date.now;
  const federation = createFederationClient({
    ...identity,
    database,
    ipBlocklist: [],
    verifyCertificates: false,
    now,
    ...(discovers ? {} : { discovery: NO_DISCOVERY, lookup: onlyLocalhost }),
  });
  const client = { database, client: federation };
  return {
    ...identity,
    database,
    federation,
    keyRing: createKeyRing({ ...client, ...identity, trustedKeyServers: notaries, now }),
    resyncs: {
      start: async (roomId, joinEventId) => void wanted.push({ roomId, joinEventId }),
      wake: async (roomId) => void woken.push(roomId),
      cancel: async () => {},
    },
    logger: pino({ level: process.env["TEST_LOG_LEVEL"] ?? "silent" }),
    now,
    fullStateWaitMs: 500,
    defaultRoomVersion: "11",
  };
}

async function onlyLocalhost(hostname: string): Promise<readonly LookupAddress[]> {
  if (hostname === "localhost") return [{ address: "127.0.0.1", family: 4 }];
  throw Object.assign(new Error(`${hostname} has no address`), { code: "ENOTFOUND" });
}

async function listening(server: Server, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(port, "127.0.0.1", resolve);
  });
  return (server.address() as AddressInfo).port;
}

async function closed(server: Server): Promise<void> {
  const ended = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await ended;
}

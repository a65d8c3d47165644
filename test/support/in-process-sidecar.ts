import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import { randomBytes } from "node:crypto";
import type { RequestListener } from "node:http";
import pino from "pino";
import { createFederationClient } from "../../src/federation-client/client.ts";
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
  readonly ctx: RoomsContext;
  readonly serverName: ServerName;
  readonly userId: UserId;
  /** The resyncs that joins have asked for. */
  readonly wanted: { readonly roomId: RoomId; readonly joinEventId: EventId }[];
  currentState(roomId: RoomId): Promise<ReadonlyMap<StateKey, EventId>>;
  close(): Promise<void>;
}

export async function startInProcessSidecar(
  database: Database,
  options: { readonly notaries?: readonly ServerName[] } = {},
): Promise<InProcessSidecar> {
  let app: RequestListener = (_request, response) => void response.writeHead(503).end();
  const server = createServer(await loopbackCertificate(), (request, response) => app(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const serverName = `localhost:${(server.address() as AddressInfo).port}`;
  const ctx = contextOf(database, serverName, options.notaries ?? []);
  app = createFederationApp(ctx.rooms);
  const delivery = startOutboxDelivery(ctx.rooms);
  return {
    ctx: ctx.rooms,
    serverName,
    userId: `@alice:${serverName}`,
    wanted: ctx.wanted,
    currentState: async (roomId) => {
      const room = await loadRoom(database.pool, roomId);
      if (room?.currentSnapshotId == null) throw new Error(`${roomId} has no current state`);
      return new Map(stateEntries(await loadState(database, room.currentSnapshotId)));
    },
    close: async () => {
      await delivery.stop();
      await closed(server);
      await ctx.rooms.federation.close();
    },
  };
}

function contextOf(
  database: Database,
  serverName: ServerName,
  trustedKeyServers: readonly ServerName[],
): { readonly rooms: RoomsContext; readonly wanted: { roomId: RoomId; joinEventId: EventId }[] } {
  const signingKey = signingKeyFromSeed("ed25519:test", randomBytes(32));
  const now = Date.now;
  const federation = createFederationClient({
    serverName,
    signingKey,
    database,
    ipBlocklist: [],
    verifyCertificates: false,
    now,
  });
  const keyRing = createKeyRing({ database, client: federation, serverName, signingKey, trustedKeyServers, now });
  const wanted: { roomId: RoomId; joinEventId: EventId }[] = [];
  const rooms: RoomsContext = {
    serverName,
    signingKey,
    database,
    federation,
    keyRing,
    resyncs: {
      start: async (roomId, joinEventId) => void wanted.push({ roomId, joinEventId }),
      wake: async () => {},
      cancel: async () => {},
    },
    logger: pino({ level: process.env["TEST_LOG_LEVEL"] ?? "silent" }),
    now,
    fullStateWaitMs: 500,
    defaultRoomVersion: "11",
  };
  return { rooms, wanted };
}

async function closed(server: Server): Promise<void> {
  const ended = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeAllConnections();
  await ended;
}

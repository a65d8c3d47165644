import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";
import type { RoomId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { openTestDatabase } from "../database.ts";
import { driveResync } from "../drive-resync.ts";
import { startInProcessSidecar, type InProcessSidecar } from "../in-process-sidecar.ts";
import { startLoopbackClientApi, type LoopbackClientApi } from "../loopback-client.ts";
import { startSynapse, type Synapse } from "./start-synapse.ts";

/** A real Synapse, and a sidecar in this process whose rooms stay partial until a test completes them. */
export interface InProcessSynapseScene {
  readonly synapse: Synapse;
  readonly sidecar: InProcessSidecar;
  readonly api: LoopbackClientApi;
  /** The room's resync, from its first step to its last. */
  complete(roomId: RoomId): Promise<void>;
}

/** A real Synapse, until the file's tests are over. */
export async function openSynapse(overrides: JsonObject = {}): Promise<Synapse> {
  const dataDir = await mkdtemp(join(tmpdir(), "fastjoin-synapse-"));
  afterAll(() => rm(dataDir, { recursive: true, force: true }));
  const synapse = await startSynapse({ dataDir, overrides });
  afterAll(() => synapse.stop(), 60_000);
  return synapse;
}

/** @param overrides of Synapse's settings, by their names at the top level of `homeserver.yaml` */
export async function openInProcessSynapseScene(overrides: JsonObject = {}): Promise<InProcessSynapseScene> {
  const synapse = await openSynapse(overrides);
  const database = await openTestDatabase();
  const sidecar = await startInProcessSidecar(database);
  afterAll(() => sidecar.close());
  const api = await startLoopbackClientApi(database, sidecar.ctx);
  return {
    synapse,
    sidecar,
    api,
    complete: async (roomId) => {
      const joined = sidecar.wanted.findLast((one) => one.roomId === roomId);
      if (joined === undefined) throw new Error(`no resync of ${roomId} was asked for`);
      const end = await driveResync(sidecar.ctx, roomId, joined.joinEventId);
      if (end !== "completed") throw new Error(`the resync ended as ${end}`);
    },
  };
}

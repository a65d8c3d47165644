import { afterAll } from "vitest";
import type { Database } from "../../src/storage/database.ts";
import { startResident, type Resident, type ResidentOptions } from "../resident/resident.ts";
import { openTestDatabase } from "./database.ts";
import { startInProcessSidecar, type InProcessSidecar } from "./in-process-sidecar.ts";

/** A resident and a sidecar that trusts its keys, both in this process, until the file's tests are over. */
export interface Scene {
  readonly database: Database;
  readonly resident: Resident;
  readonly sidecar: InProcessSidecar;
}

export async function openScene(options: ResidentOptions = {}): Promise<Scene> {
  const database = await openTestDatabase();
  const resident = await startResident(options);
  const sidecar = await startInProcessSidecar(database, { notaries: [resident.serverName] });
  afterAll(async () => {
    await sidecar.close();
    await resident.close();
  });
  return { database, resident, sidecar };
}

import { afterAll } from "vitest";
import type { ServerName } from "../../../src/matrix/identifiers.ts";
import type { Database } from "../../../src/storage/database.ts";
import type { Front } from "../../resident/front.ts";
import { startResident, type Resident } from "../../resident/resident.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startInProcessSidecar, type InProcessSidecar } from "../../support/in-process-sidecar.ts";
import { mortalDatabase, type MortalDatabase } from "./mortal-database.ts";
import type { Crash, Mood } from "./story.ts";

/** The servers that all rooms of a test file are played on. */
export interface Stage {
  readonly resident: Resident;
  /** It joins with members omitted. */
  readonly ours: Server;
  /** It joins in full, and is sent the same. */
  readonly twin: Server;
}

export interface Server {
  readonly database: Database;
  readonly sidecar: InProcessSidecar;
  /** Does a step in which something may break, and then again, in another process if need be, as its caller would. */
  survive(crash: Crash | null, step: () => Promise<void>): Promise<void>;
}

export async function openStage(): Promise<Stage> {
  const resident = await startResident({ fronts: 3, tellsOfJoins: false });
  const ours = await openServer(resident.serverName);
  const twin = await openServer(resident.serverName);
  for (const front of resident.fronts) {
    resident.trouble({ kind: "full-join", at: "send_join", forServer: twin.sidecar.serverName }, front);
  }
  afterAll(async () => {
    await ours.sidecar.close();
    await twin.sidecar.close();
    await resident.close();
  });
  return { resident, ours, twin };
}

async function openServer(notary: ServerName): Promise<Server> {
  const database = await openTestDatabase();
  let process: MortalDatabase = mortalDatabase(database);
  const options = { notaries: [notary], delivers: false, discovers: false };
  const sidecar = await startInProcessSidecar(process.database, options);
  const survive: Server["survive"] = async (crash, step) => {
    let failed = false;
    process.endAt(crash);
    try {
      await step();
    } catch (error) {
      if (!process.ended && !process.interrupted) throw error;
      failed = true;
    }
    process.endAt(null);
    if (process.ended) {
      process = mortalDatabase(database);
      await sidecar.restart(process.database);
    } else if (!failed) {
      return;
    }
    await step();
  };
  return { database, sidecar, survive };
}

/** Sets how a server treats the questions of ours; it goes on being honest to the twin. */
export function setMood({ resident, ours }: Stage, front: Front, mood: Mood): () => void {
  const { serverName: forServer } = ours.sidecar;
  const trouble = (one: Parameters<Resident["trouble"]>[0]): (() => void) =>
    resident.trouble({ ...one, forServer }, front);
  const told = ["state", "event", "get_missing_events"] as const;
  switch (mood) {
    case "honest":
      return () => undefined;
    case "hides the gap":
      return trouble({ kind: "lie", lie: "missing-events", every: 1, at: "get_missing_events" });
    case "hides half the gap":
      return trouble({ kind: "lie", lie: "missing-events", every: 2, at: "get_missing_events" });
    case "knows no gap":
      return trouble({ kind: "refuse", status: 403, at: "get_missing_events" });
    case "knows no state":
      return trouble({ kind: "refuse", status: 403, at: ["state", "state_ids", "event"] });
    case "bad signatures":
      return trouble({ kind: "lie", lie: "bad-signature", type: "m.room.member", at: told });
    case "bad contents":
      return trouble({ kind: "lie", lie: "bad-content", type: "m.room.member", at: told });
    case "half answers":
      return trouble({ kind: "half-body", at: [...told, "state_ids"] });
    case "no answers":
      return trouble({ kind: "reset", at: [...told, "state_ids"] });
    case "garbage":
      return trouble({ kind: "garbage", at: [...told, "state_ids"] });
    case "empty state":
      return trouble({ kind: "lie", lie: "empty-state", at: ["state", "state_ids"] });
    case "no create event":
      return trouble({ kind: "lie", lie: "no-create", at: ["state", "state_ids"] });
    case "wrong ids":
      return trouble({
        kind: "lie",
        lie: "answer",
        changes: { pdu_ids: ["$nothing:server-000.rooms.test"] },
        at: "state_ids",
      });
    case "no auth chain":
      return trouble({ kind: "lie", lie: "missing-auth", at: ["state", "state_ids"] });
  }
}

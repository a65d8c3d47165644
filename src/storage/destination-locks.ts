import type { Database } from "./database.ts";
import { openSessionLocks, type SessionLocks } from "./session-locks.ts";

/** Sees to it that one process at a time sends to a server; named by the servers. */
export type DestinationLocks = SessionLocks;

export function openDestinationLocks(database: Database): DestinationLocks {
  return openSessionLocks(database, "outbox");
}

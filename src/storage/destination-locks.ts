import pg from "pg";
import type { ServerName } from "../matrix/identifiers.ts";
import type { Database } from "./database.ts";

/** Sees to it that one process at a time sends to a server. */
export interface DestinationLocks {
  /** @returns a function that unlocks, or undefined if another process holds the lock */
  tryLock(server: ServerName): Promise<(() => Promise<void>) | undefined>;
  close(): Promise<void>;
}

const LOCK = "SELECT pg_try_advisory_lock(hashtextextended('fastjoin outbox ' || $1, 0)) AS locked";
const UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('fastjoin outbox ' || $1, 0))";

/**
 * Locks of one connection of its own, so that they cost the pool nothing; they go with the connection when the process
 * dies. Each lock is asked for by one caller of this process at a time: PostgreSQL lets a session lock again what it
 * holds.
 */
export function openDestinationLocks(database: Database): DestinationLocks {
  let session: Promise<pg.Client> | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  async function connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: database.url,
      application_name: "fastjoin outbox",
      keepAlive: true,
    });
    // With the connection its locks are gone; the next one that is wanted opens another.
    const forget = (): void => {
      session = undefined;
    };
    client.on("error", forget);
    client.on("end", forget);
    try {
      await client.connect();
      return client;
    } catch (error) {
      forget();
      throw error;
    }
  }

  /** One statement at a time: a connection has no more to give. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = turn.then(work);
    turn = done.catch(() => undefined);
    return done;
  }

  return {
    async tryLock(server) {
      session ??= connect();
      const client = await session;
      const { rows } = await inTurn(() => client.query<{ locked: boolean }>(LOCK, [server]));
      if (rows[0]?.locked !== true) return undefined;
      return async () => {
        // A connection that does not answer is ended, and its locks with it.
        await inTurn(() => client.query(UNLOCK, [server])).catch(() => client.end());
      };
    },
    async close() {
      const client = await session?.catch(() => undefined);
      await client?.end();
    },
  };
}

import pg from "pg";
import type { Database } from "./database.ts";

/** Locks by name, of which each is held by one process at a time. */
export interface SessionLocks {
  /** @returns a function that unlocks, or undefined if another process holds the lock */
  tryLock(name: string): Promise<(() => Promise<void>) | undefined>;
  close(): Promise<void>;
}

const LOCK = "SELECT pg_try_advisory_lock(hashtextextended($1, 0)) AS locked";
const UNLOCK = "SELECT pg_advisory_unlock(hashtextextended($1, 0))";

/**
 * Locks of one connection of its own, so that they cost the pool nothing; they go with the connection when the process
 * dies. Each lock is asked for by one caller of this process at a time: PostgreSQL lets a session lock again what it
 * holds.
 *
 * @param purpose tells these locks from others, and is shown in PostgreSQL's list of connections
 */
export function openSessionLocks(database: Database, purpose: string): SessionLocks {
  let session: Promise<pg.Client> | undefined;
  let turn: Promise<unknown> = Promise.resolve();

  async function connect(): Promise<pg.Client> {
    const client = new pg.Client({
      connectionString: database.url,
      application_name: `fastjoin ${purpose}`,
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
    async tryLock(name) {
      session ??= connect();
      const client = await session;
      const key = `fastjoin ${purpose} ${name}`;
      const { rows } = await inTurn(() => client.query<{ locked: boolean }>(LOCK, [key]));
      if (rows[0]?.locked !== true) return undefined;
      return async () => {
        // A connection that does not answer is ended, and its locks with it.
        await inTurn(() => client.query(UNLOCK, [key])).catch(() => client.end());
      };
    },
    async close() {
      const client = await session?.catch(() => undefined);
      await client?.end();
    },
  };
}

import type pg from "pg";
import type { Database } from "../../../src/storage/database.ts";
import type { Crash } from "./story.ts";

/** What every query of a process throws that has ended. */
export class ProcessEnded extends Error {
  constructor() {
    super("the process has ended");
    this.name = "ProcessEnded";
  }
}

/** A process's connections to a database: one of them breaks, or all at once, in the middle of whatever goes on. */
export interface MortalDatabase {
  readonly database: Database;
  readonly ended: boolean;
  /** A connection has been terminated since {@link endAt}. */
  readonly interrupted: boolean;
  /** At the n-th query from now, or never. */
  endAt(crash: Crash | null): void;
}

interface Life {
  readonly real: Database;
  ended: boolean;
  interrupted: boolean;
  queriesLeft: number;
  how: Crash["how"];
}

type Query = (...given: readonly unknown[]) => Promise<unknown>;

export function mortalDatabase(real: Database): MortalDatabase {
  const life: Life = {
    real,
    ended: false,
    interrupted: false,
    queriesLeft: Number.POSITIVE_INFINITY,
    how: "the process ends",
  };
  const pool = replacing(real.pool, {
    query: mortal(life, asQuery(real.pool), async (given) => {
      const client = await real.pool.connect();
      const lost = listeningFor(client);
      try {
        await terminate(life, client);
        return await asQuery(client)(...given);
      } finally {
        client.off("error", lost);
        client.release(true);
      }
    }),
    connect: async () => {
      requireAlive(life);
      return mortalClient(life, await real.pool.connect());
    },
  });
  return {
    // An object of its own, so that nothing that one process remembers of the database is another's.
    database: { ...real, pool, prisma: async () => replacing(await real.prisma(), {}, () => requireAlive(life)) },
    get ended() {
      return life.ended;
    },
    get interrupted() {
      return life.interrupted;
    },
    endAt: (crash) => {
      life.interrupted = false;
      life.queriesLeft = crash?.atQuery ?? Number.POSITIVE_INFINITY;
      life.how = crash?.how ?? "the process ends";
    },
  };
}

function asQuery(connection: pg.Pool | pg.PoolClient): Query {
  return connection.query.bind(connection) as unknown as Query;
}

function requireAlive(life: Life): void {
  if (life.ended) throw new ProcessEnded();
}

/** @param interruptedQuery the query on a connection that is being terminated */
function mortal(life: Life, query: Query, interruptedQuery: (given: readonly unknown[]) => Promise<unknown>): Query {
  return async (...given) => {
    requireAlive(life);
    life.queriesLeft -= 1;
    if (life.queriesLeft !== 0) return await query(...given);
    switch (life.how) {
      case "the connection ends":
        life.interrupted = true;
        return await interruptedQuery(given);
      case "the process ends after it":
        await query(...given);
        break;
      case "the process ends":
    }
    life.ended = true;
    throw new ProcessEnded();
  };
}

async function terminate({ real }: Life, client: pg.PoolClient): Promise<void> {
  const { processID } = client as unknown as { readonly processID: number };
  await real.pool.query("SELECT pg_terminate_backend($1)", [processID]);
}

/** Without a listener the loss of a connection would end this process. */
function listeningFor(client: pg.PoolClient): () => void {
  const lost = (): void => undefined;
  client.on("error", lost);
  return lost;
}

/** A connection of a process that has ended is closed, so that PostgreSQL rolls back. */
function mortalClient(life: Life, client: pg.PoolClient): pg.PoolClient {
  const query = asQuery(client);
  return replacing(client, {
    query: mortal(life, query, async (given) => {
      await terminate(life, client);
      return await query(...given);
    }),
    release: (error?: Error | boolean) => client.release(life.ended ? true : error),
  });
}

/** The same object with some of its members replaced. */
function replacing<T extends object>(target: T, members: Readonly<Record<string, unknown>>, before?: () => void): T {
  return new Proxy(target, {
    get: (_target, key) => {
      before?.();
      if (typeof key === "string" && key in members) return members[key];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === "function" ? (value as (...given: unknown[]) => unknown).bind(target) : value;
    },
  });
}

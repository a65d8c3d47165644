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

/** A process's connections to a database: they break all at once, in the middle of whatever goes on. */
export interface MortalDatabase {
  readonly database: Database;
  readonly ended: boolean;
  /** At the n-th query from now, or never. */
  endAt(crash: Crash | null): void;
  /** Now. */
  end(): void;
}

interface Life {
  ended: boolean;
  queriesLeft: number;
  carriedOut: boolean;
}

type Query = (...given: readonly unknown[]) => Promise<unknown>;

export function mortalDatabase(real: Database): MortalDatabase {
  const life: Life = { ended: false, queriesLeft: Number.POSITIVE_INFINITY, carriedOut: false };
  const pool = replacing(real.pool, {
    query: mortal(life, real.pool.query.bind(real.pool) as unknown as Query),
    connect: async () => {
      requireAlive(life);
      return mortalClient(life, await real.pool.connect());
    },
  });
  return {
    // An object of its own, so that nothing that one process remembers of the database is another's.
    database: { ...real, pool, prisma: replacing(real.prisma, {}, () => requireAlive(life)) },
    get ended() {
      return life.ended;
    },
    endAt: (crash) => {
      life.queriesLeft = crash?.atQuery ?? Number.POSITIVE_INFINITY;
      life.carriedOut = crash?.carriedOut ?? false;
    },
    end: () => {
      life.ended = true;
    },
  };
}

function requireAlive(life: Life): void {
  if (life.ended) throw new ProcessEnded();
}

function mortal(life: Life, query: Query): Query {
  return async (...given) => {
    requireAlive(life);
    life.queriesLeft -= 1;
    if (life.queriesLeft > 0) return await query(...given);
    if (life.carriedOut) await query(...given);
    life.ended = true;
    throw new ProcessEnded();
  };
}

/** A connection of a process that has ended is closed, so that PostgreSQL rolls back. */
function mortalClient(life: Life, client: pg.PoolClient): pg.PoolClient {
  return replacing(client, {
    query: mortal(life, client.query.bind(client) as unknown as Query),
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

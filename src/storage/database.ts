import pg from "pg";
import { DatabaseUnavailable, statementErrorOf, storageErrorOf } from "./errors.ts";
import type { PrismaClient } from "./generated/client.ts";
import { execute, type Connection } from "./query.ts";

export type { Connection } from "./query.ts";

export interface Database {
  readonly url: string;
  readonly pool: pg.Pool;
  /** Loaded when it is first asked for: its query compiler takes 40 MiB, and the worker needs none of it. */
  readonly prisma: () => Promise<PrismaClient>;
  close(): Promise<void>;
}

interface DatabaseOptions {
  /** Connections of the pool (default 10); Prisma has a pool of its own, a third of its size. */
  readonly connections?: number;
  /** Told of connections that break while idle; the pool replaces them by itself. */
  readonly onIdleError?: (error: Error) => void;
  /** Shown in pg_stat_activity. */
  readonly applicationName?: string;
  /** How long a transaction may ask for nothing before PostgreSQL ends it, in milliseconds (60,000). */
  readonly idleTransactionMs?: number;
}

const DEFAULT_CONNECTIONS = 10;
const CONNECT_TIMEOUT_MS = 10_000;
/** A process that is frozen (a suspended machine) keeps its connections and with them its locks on whole rooms. */
const IDLE_TRANSACTION_MS = 60_000;

/** Opens the pools lazily: the first query connects. */
export function openDatabase(url: string, options: DatabaseOptions = {}): Database {
  const connections = options.connections ?? DEFAULT_CONNECTIONS;
  const config = {
    connectionString: url,
    application_name: options.applicationName ?? "fastjoin",
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    idle_in_transaction_session_timeout: options.idleTransactionMs ?? IDLE_TRANSACTION_MS,
    keepAlive: true,
  };
  const pool = new pg.Pool({ ...config, max: connections });
  // Without a listener a connection that PostgreSQL closes (a restart) would end the process.
  pool.on("error", (error) => options.onIdleError?.(error));
  let prisma: Promise<PrismaClient> | undefined;
  return {
    url,
    pool,
    prisma: () => (prisma ??= openPrisma({ ...config, max: Math.max(1, Math.ceil(connections / 3)) }).catch(forget)),
    async close() {
      await Promise.all([pool.end(), prisma?.then((client) => client.$disconnect())]);
    },
  };

  /** What could not be loaded, for want of files that may be open, is loaded by the next who asks. */
  function forget(error: unknown): never {
    prisma = undefined;
    throw error;
  }
}

async function openPrisma(config: pg.PoolConfig): Promise<PrismaClient> {
  const [client, { PrismaPg }] = await Promise.all([import("./generated/client.ts"), import("@prisma/adapter-pg")]);
  return new client.PrismaClient({ adapter: new PrismaPg(config) });
}

/** A transaction that has not ended: what it has written may never come to be. */
export interface OpenTransaction {
  /** Done once it is committed, or never. */
  readonly onCommit: (() => void)[];
}

const openTransactions = new WeakMap<Connection, OpenTransaction>();

/** The transaction of {@link transaction} that the connection is in. */
export function openTransaction(c: Connection): OpenTransaction | undefined {
  return openTransactions.get(c);
}

/**
 * Runs `work` in a transaction (read committed), commits, and gives its result; rolls back when it throws. Nothing is
 * tried again here: only the caller knows what of its own work must be redone.
 *
 * @throws StorageConflict, PartialRoomGone, DatabaseUnavailable, and whatever `work` throws
 */
export async function transaction<T>(database: Database, work: (tx: Connection) => Promise<T>): Promise<T> {
  const client = await orUnavailable(database.pool.connect());
  let broken: Error | undefined;
  // A connection that is lost between two statements is reported here; the next statement then fails by itself.
  const onError = (error: Error) => {
    // The first one says why, those behind it that nothing more comes.
    broken ??= error;
  };
  client.on("error", onError);
  const open: OpenTransaction = { onCommit: [] };
  openTransactions.set(client, open);
  try {
    await orUnavailable(client.query("BEGIN"));
    const result = await work(client);
    await orUnavailable(client.query("COMMIT"));
    for (const act of open.onCommit) act();
    return result;
  } catch (error) {
    const failure = withReason(storageErrorOf(error), broken);
    await client.query("ROLLBACK").catch((unanswered: Error) => {
      broken = unanswered;
    });
    throw failure;
  } finally {
    openTransactions.delete(client);
    client.off("error", onError);
    client.release(broken);
  }
}

/** The statement that finds the connection lost knows nothing of why; what came before it does. */
function withReason(failure: unknown, broken: Error | undefined): unknown {
  if (!(failure instanceof DatabaseUnavailable) || failure.cause instanceof pg.DatabaseError) return failure;
  // What the work found (`undoTo`) would be in no log.
  const namesWork = failure.cause instanceof Error && failure.cause.cause !== undefined;
  return namesWork || !(broken instanceof pg.DatabaseError) ? failure : new DatabaseUnavailable(broken);
}

async function orUnavailable<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw statementErrorOf(error);
  }
}

/**
 * Undoes the work, and nothing else of the transaction, when it throws.
 *
 * @throws what `work` throws; DatabaseUnavailable where it can't be undone, which names that as its cause
 */
export async function withSavepoint<T>(tx: Connection, work: () => Promise<T>): Promise<T> {
  await execute(tx, "SAVEPOINT work");
  try {
    const result = await work();
    await execute(tx, "RELEASE SAVEPOINT work");
    return result;
  } catch (error) {
    await undoTo(tx, error);
    throw error;
  }
}

async function undoTo(tx: Connection, error: unknown): Promise<void> {
  try {
    await execute(tx, "ROLLBACK TO SAVEPOINT work");
  } catch (failure) {
    // That a lost connection answers nothing says less than how it was lost.
    if (error instanceof DatabaseUnavailable) return;
    const { message } = failure as Error;
    throw new DatabaseUnavailable(new Error(message, { cause: error }));
  }
}

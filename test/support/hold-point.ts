import pg from "pg";
import { onTestFinished } from "vitest";
import type { FederationClient } from "../../src/federation-client/client.ts";
import type { Database } from "../../src/storage/database.ts";
import { eventually } from "./sidecar-process.ts";

/** Something stopped at a definite point until it is let go, at the latest when the test is over. */
export interface Held {
  /** Resolved when somebody has come to the point. */
  readonly reached: Promise<void>;
  release(): void;
}

interface Gate extends Held {
  /** Stops whoever comes. */
  pass(): Promise<void>;
}

function newGate(): Gate {
  let arrive = (): void => {};
  let open = (): void => {};
  const reached = new Promise<void>((resolve) => (arrive = resolve));
  const opened = new Promise<void>((resolve) => (open = resolve));
  onTestFinished(() => open());
  return {
    reached,
    release: () => open(),
    pass: async () => {
      arrive();
      await opened;
    },
  };
}

// ── Locks ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** A lock that the test holds on a connection of its own. */
export interface LockHeld {
  readonly pid: number;
  release(): Promise<void>;
}

/** Runs the statements in a transaction that stays open until it is released, which rolls it back. */
export async function holdLock(
  database: Database,
  statement: string,
  values: readonly unknown[] = [],
): Promise<LockHeld> {
  const client = new pg.Client({ connectionString: database.url, application_name: "test lock" });
  await client.connect();
  await client.query("BEGIN");
  await client.query(statement, [...values]);
  const { rows } = await client.query<{ pid: number }>("SELECT pg_backend_pid() AS pid");
  let released: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    released ??= client.end();
    await released;
  };
  onTestFinished(release);
  return { pid: rows[0]?.pid ?? 0, release };
}

/**
 * Everyone who wants to store anything that is told to others stops with all of its work done and all of its locks
 * held: a stream position is the last thing that a transaction takes.
 */
export async function holdStream(database: Database): Promise<LockHeld> {
  return holdLock(database, "SELECT position FROM stream_position FOR UPDATE");
}

interface Waiting {
  readonly pid: number;
  readonly query: string;
}

/** Those in this database that wait for a lock, by the statement that waits. */
async function waitingFor(database: Database, statement: RegExp): Promise<readonly Waiting[]> {
  const { rows } = await database.pool.query<Waiting>(
    `SELECT pid, query FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid() AND cardinality(pg_blocking_pids(pid)) > 0`,
  );
  return rows.filter(({ query }) => statement.test(query));
}

/** Waits until so many wait for a lock with such a statement: the proof that the two sides have met. */
export async function untilWaiting(database: Database, statement: RegExp, count = 1): Promise<void> {
  await eventually(async () => ((await waitingFor(database, statement)).length >= count ? true : undefined), {
    withinMs: 40_000,
    about: () => `nobody waits at ${statement}`,
  });
}

/** The statements at which the use cases wait for each other. */
export const AT_STREAM = /UPDATE stream_position/;
export const AT_ROOM = /FROM rooms WHERE room_id = \$1 FOR NO KEY UPDATE/;
/** Where members are written ahead. */
export const AT_PARTIAL_ROOM = /FROM partial_state_rooms WHERE room_id = \$1 FOR KEY SHARE/;

// ── Statements ──────────────────────────────────────────────────────────────────────────────────────────────────────

interface StatementPoint {
  /** Which of the matching statements, the first being 1. */
  readonly nth?: number;
  /** Stops with the answer in hand instead of before asking. */
  readonly after?: boolean;
}

type Query = (...parameters: unknown[]) => Promise<unknown>;

function textOf(parameters: readonly unknown[]): string {
  const [first] = parameters;
  return typeof first === "string" ? first : ((first as { text?: string } | undefined)?.text ?? "");
}

/** The same database for one side of a race, which stops at its n-th statement of this kind. */
export function holdAtStatement(
  database: Database,
  statement: RegExp,
  { nth = 1, after = false }: StatementPoint = {},
): Held & { readonly database: Database } {
  const gate = newGate();
  let seen = 0;
  const guarded =
    (query: Query): Query =>
    async (...parameters) => {
      if (!statement.test(textOf(parameters)) || ++seen !== nth) return query(...parameters);
      if (!after) await gate.pass();
      const answer = await query(...parameters);
      if (after) await gate.pass();
      return answer;
    };
  const withQuery = <T extends object>(target: T, more: Readonly<Record<string, unknown>> = {}): T =>
    new Proxy(target, {
      get(of, name) {
        if (name in more) return more[name as string];
        const value: unknown = Reflect.get(of, name, of);
        if (typeof value !== "function") return value;
        const bound = value.bind(of) as Query;
        return name === "query" ? guarded(bound) : bound;
      },
    });
  const { pool } = database;
  const held = withQuery(pool, { connect: async () => withQuery(await pool.connect()) });
  return { ...gate, database: { ...database, pool: held } };
}

// ── Requests ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The same federation client for one side of a race, which stops before its n-th call of this kind, or after it. */
export function holdAtRequest(
  federation: FederationClient,
  name: keyof FederationClient,
  { nth = 1, after = false }: StatementPoint = {},
): Held & { readonly federation: FederationClient } {
  const gate = newGate();
  let seen = 0;
  const call = federation[name] as Query;
  const guarded: Query = async (...parameters) => {
    if (++seen !== nth) return call(...parameters);
    if (!after) await gate.pass();
    const answer = await call(...parameters);
    if (after) await gate.pass();
    return answer;
  };
  return { ...gate, federation: { ...federation, [name]: guarded } };
}

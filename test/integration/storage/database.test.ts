import type pg from "pg";
import { expect, describe, it } from "vitest";
import { openDatabase, transaction, withSavepoint, type Connection } from "../../../src/storage/database.ts";
import { execute, queryRow } from "../../../src/storage/query.ts";
import { openTestDatabase } from "../../support/database.ts";

const database = await openTestDatabase();
await database.pool.query("CREATE TABLE counts (n integer); INSERT INTO counts VALUES (0)");

describe("transaction", () => {
  it("of a process that is frozen in its midst is undone, so that its locks hold up nobody, and says so", async () => {
    const frozen = openDatabase(database.url, { idleTransactionMs: 1_500 });
    try {
      const count = (n: number) => `UPDATE counts SET n = n + ${n}`;
      let thaw = (): void => {};
      const thawed = new Promise<void>((resolve) => (thaw = resolve));
      let reach = (): void => {};
      const reached = new Promise<void>((resolve) => (reach = resolve));
      const lost = transaction(frozen, async (tx) => {
        await tx.query(count(1));
        reach();
        await thawed;
        await tx.query(count(1));
      });
      await reached;
      // Waits for the frozen one's lock, and gets it.
      await transaction(database, async (tx) => void (await tx.query(count(10))));
      thaw();
      await expect(lost).rejects.toThrow();
      const { rows } = await database.pool.query("SELECT n FROM counts");
      expect(rows).toEqual([{ n: 10 }]);
    } finally {
      await frozen.close();
    }
  });
});

describe("the loss of a connection", () => {
  const END = "SELECT pg_terminate_backend(pg_backend_pid())";
  const lost = { name: "DatabaseUnavailable", message: expect.stringMatching(/due to administrator command/) };

  async function endFromOutside(tx: Connection): Promise<void> {
    const pid = await queryRow<{ pid: number }>(tx, "SELECT pg_backend_pid() AS pid");
    const ended = new Promise<void>((resolve) => (tx as pg.PoolClient).once("end", () => resolve()));
    await database.pool.query("SELECT pg_terminate_backend($1)", [pid?.pid]);
    await ended;
  }

  it("is told with its reason by whoever would undo what it was lost in", async () => {
    const broken = transaction(database, (tx) => withSavepoint(tx, async () => void (await execute(tx, END))));
    await expect(broken).rejects.toMatchObject(lost);
  });

  it("is told with its reason by a transaction that finds it lost", async () => {
    const broken = transaction(database, async (tx) => {
      await endFromOutside(tx);
      await execute(tx, "SELECT 1");
    });
    await expect(broken).rejects.toMatchObject(lost);
  });

  it("hides nothing of why its work was to be undone, whoever has ended it meanwhile", async () => {
    const broken = transaction(database, (tx) =>
      withSavepoint(tx, async () => {
        await endFromOutside(tx);
        throw new Error("what the work found");
      }),
    );
    await expect(broken).rejects.toMatchObject({
      name: "DatabaseUnavailable",
      cause: { cause: { message: "what the work found" } },
    });
  });

  it("hides nothing of why its work was to be undone", async () => {
    const broken = transaction(database, (tx) =>
      withSavepoint(tx, async () => {
        await execute(tx, END).catch(() => undefined);
        throw new Error("what the work found");
      }),
    );
    await expect(broken).rejects.toMatchObject({
      name: "DatabaseUnavailable",
      cause: { cause: { message: "what the work found" } },
    });
  });
});

describe("queryRow", () => {
  it.each([
    { list: [], what: "nothing" },
    { list: ["", "a", "NULL", "null", null, " b ", "{c}", "d,e"], what: "what means something in a list" },
    {
      list: [`"`, `\\`, `\\"`, `{"a":"\\u0000\\"\\n"}`, `\u2028`],
      what: "quotes, JSON, and what it writes in its own way",
    },
    { list: [`"\n\\"`, `\t`, `\u001f`, `\u007f`, null, `NULL`, `{"b":"\\""}`], what: "control characters" },
    { list: [`\u{1F600}"`, `é`, `\u{FFFF}`], what: "more than ASCII" },
  ])("hands PostgreSQL a list of texts as it is: $what", async ({ list }) => {
    const row = await queryRow<{ list: string[] }>(database.pool, "SELECT $1::text[] AS list", [list]);
    expect(row?.list).toEqual(list);
  });

  it("hands on lists of other things, and replaces what no text can hold", async () => {
    const lists = "SELECT $1::bigint[] AS numbers, $2::boolean[] AS booleans, $3::text[] AS texts";
    const row = await queryRow(database.pool, lists, [[1n, null], [true], [`\uD800"`, undefined]]);
    expect(row).toEqual({ numbers: ["1", null], booleans: [true], texts: [`\uFFFD"`, null] });
  });

  it.each([
    { list: [0n, -1n, 2n ** 63n - 1n, -(2n ** 63n)], what: "to the ends of their range" },
    { list: [], what: "none" },
    { list: [null, null], what: "unknown ones" },
    { list: [null, 1n], what: "some of them unknown" },
  ])("hands PostgreSQL a list of integers as it is: $what", async ({ list }) => {
    const row = await queryRow(database.pool, "SELECT $1::bigint[]::text[] AS list", [list]);
    expect(row).toEqual({ list: list.map((one) => one?.toString() ?? null) });
  });

  it("refuses a text that PostgreSQL can't hold", async () => {
    await expect(queryRow(database.pool, "SELECT $1::text[]", [["\0"]])).rejects.toThrow(/invalid byte sequence/);
  });
});

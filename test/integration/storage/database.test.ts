import { expect, describe, it } from "vitest";
import { openDatabase, transaction } from "../../../src/storage/database.ts";
import { openTestDatabase } from "../../support/database.ts";

const database = await openTestDatabase();
await database.pool.query("CREATE TABLE counts (n integer); INSERT INTO counts VALUES (0)");

describe("transaction", () => {
  it("of a process that is frozen in its midst is undone, so that its locks hold up nobody, and says so", async () => {
    const frozen = openDatabase(database.url, { idleTransactionMs: 100 });
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

import { randomUUID } from "node:crypto";
import { pino } from "pino";
import { beforeEach, describe, expect, it } from "vitest";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import {
  forgetOldTransactions,
  startForgettingTransactions,
} from "../../../src/rooms/upkeep/forget-old-transactions.ts";
import { createSession, createUser } from "../../../src/storage/accounts.ts";
import { openTestDatabase } from "../../support/database.ts";

const DAY_MS = 24 * 60 * 60_000;
const database = await openTestDatabase();
const { pool } = database;

const ctx = { database, now: Date.now, logger: pino({ level: "silent" }) } as unknown as RoomsContext;

async function received(ageMs: number): Promise<void> {
  await pool.query(
    "INSERT INTO received_transactions (origin, txn_id, response, received_at) VALUES ($1, $2, $3, $4)",
    ["other.example", randomUUID(), "{}", new Date(Date.now() - ageMs)],
  );
}

async function ofClient(ageMs: number): Promise<void> {
  await pool.query(
    "INSERT INTO client_transactions (user_id, device_id, txn_id, event_id, created_at) VALUES ($1, $2, $3, $4, $5)",
    ["@alice:x", "DEVICE", randomUUID(), "$event", new Date(Date.now() - ageMs)],
  );
}

async function left(): Promise<readonly number[]> {
  const counts = await pool.query<{ received: number; clients: number }>(
    `SELECT (SELECT count(*)::int FROM received_transactions) AS received,
            (SELECT count(*)::int FROM client_transactions) AS clients`,
  );
  return [counts.rows[0]?.received ?? -1, counts.rows[0]?.clients ?? -1];
}

beforeEach(async () => {
  await pool.query("DELETE FROM received_transactions");
  await pool.query("DELETE FROM client_transactions");
  for (const ageMs of [0, 6.9 * DAY_MS, 7.1 * DAY_MS]) await received(ageMs);
  for (const ageMs of [0, 0.9 * DAY_MS, 1.1 * DAY_MS, 6 * DAY_MS]) await ofClient(ageMs);
});

describe("forgetOldTransactions", () => {
  it("forgets those of servers after a week, those of clients after a day", async () => {
    expect(await forgetOldTransactions(ctx)).toEqual({ received: 1, ofClients: 2 });
    expect(await left()).toEqual([2, 2]);
  });
});

describe("forgetOldTransactions of messages to devices", () => {
  it("forgets those of servers after a week, those of clients after a day", async () => {
    await createUser(database, "@alice:x");
    await createSession(database, { userId: "@alice:x", deviceId: "DEVICE" });
    for (const days of [0, 0.9, 1.1, 6.9, 7.1]) {
      const at = new Date(Date.now() - days * DAY_MS);
      await pool.query(`INSERT INTO received_to_device VALUES ('other.example', $1, $2)`, [`m${days}`, at]);
      await pool.query(`INSERT INTO to_device_transactions VALUES ('@alice:x', 'DEVICE', $1, $2)`, [`t${days}`, at]);
    }
    await forgetOldTransactions(ctx);
    const messages = await pool.query(`SELECT message_id FROM received_to_device ORDER BY received_at DESC`);
    expect(messages.rows.map((row) => row.message_id)).toEqual(["m0", "m0.9", "m1.1", "m6.9"]);
    const transactions = await pool.query(`SELECT txn_id FROM to_device_transactions ORDER BY created_at DESC`);
    expect(transactions.rows.map((row) => row.txn_id)).toEqual(["t0", "t0.9"]);
  });
});

describe("startForgettingTransactions", () => {
  it("forgets at once, and stops when what is under way is done", async () => {
    const forgetting = startForgettingTransactions(ctx);
    await forgetting.stop();
    expect(await left()).toEqual([2, 2]);
  });
});

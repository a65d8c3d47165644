import express, { type Router } from "express";
import type { Database } from "../storage/database.ts";
import type { TemporalLink } from "./temporal-connection.ts";

type Check = { readonly ok: true } | { readonly ok: false; readonly error: string };

async function check(work: () => Promise<unknown>): Promise<Check> {
  try {
    await work();
    return { ok: true };
  } catch (error) {
    return { ok: false, error: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * `GET /_fastjoin/health`: the process answers. `GET /_fastjoin/ready`: so do the database, whose schema is up to
 * date, and Temporal; 503 tells which does not. Joins work without Temporal, but are not completed.
 */
export function createHealthRouter(database: Database, temporal: TemporalLink, migrated: () => boolean): Router {
  const router = express.Router();
  router.get("/_fastjoin/health", (_request, response) => {
    response.json({ status: "ok" });
  });
  router.get("/_fastjoin/ready", async (_request, response) => {
    const [databaseCheck, temporalCheck] = await Promise.all([
      check(() => database.pool.query("SELECT 1")),
      check(() => temporal.within(() => temporal.connection.workflowService.getSystemInfo({}))),
    ]);
    const migrations: Check = migrated() ? { ok: true } : { ok: false, error: "the migrations have not run" };
    const ready = databaseCheck.ok && temporalCheck.ok && migrations.ok;
    response.status(ready ? 200 : 503).json({ ready, database: databaseCheck, temporal: temporalCheck, migrations });
  });
  return router;
}

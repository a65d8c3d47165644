import { forgetClientTransactions } from "../../storage/client-transactions.ts";
import { forgetReceivedTransactions } from "../../storage/received-transactions.ts";
import { forgetReceivedToDevice, forgetToDeviceTransactions } from "../../storage/to-device.ts";
import type { RoomsContext } from "../context.ts";
import { doNowAndThen, type Upkeep } from "./do-now-and-then.ts";

const HOUR_MS = 60 * 60_000;
const DAY_MS = 24 * HOUR_MS;

/** A server repeats a transaction, under the same id, until it is answered: Synapse and others for days. */
const RECEIVED_FOR_MS = 7 * DAY_MS;
/** A client repeats a request while its user waits for it. */
const OF_CLIENTS_FOR_MS = DAY_MS;

/** Forgets the ids of transactions that nobody repeats any more, and what was answered to them. */
export async function forgetOldTransactions(
  ctx: RoomsContext,
): Promise<{ readonly received: number; readonly ofClients: number }> {
  const { pool } = ctx.database;
  const now = ctx.now();
  const received = await forgetReceivedTransactions(pool, now - RECEIVED_FOR_MS);
  const ofClients = await forgetClientTransactions(pool, now - OF_CLIENTS_FOR_MS);
  await forgetReceivedToDevice(pool, now - RECEIVED_FOR_MS);
  await forgetToDeviceTransactions(pool, now - OF_CLIENTS_FOR_MS);
  return { received, ofClients };
}

/** Forgets old transactions every hour. */
export function startForgettingTransactions(ctx: RoomsContext): Upkeep {
  return doNowAndThen(async () => ctx.logger.debug(await forgetOldTransactions(ctx), "forgot old transactions"), {
    everyMs: HOUR_MS,
    logger: ctx.logger,
    failure: "could not forget old transactions; tried again in an hour",
  });
}

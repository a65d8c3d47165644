import { transaction, type Connection } from "../storage/database.ts";
import type { RoomsContext } from "./context.ts";

/**
 * Every step that is seen outside of the process: what is committed, what Temporal is told, what is sent, what is
 * answered for. Before and after each stands a failpoint, at which a test can end the process or take away what it
 * relies on; docs/reliability.md tells how each of them ends.
 */
export const STEPS = [
  // Joins
  "note a join as under way",
  "store early events of an answer",
  "send a join",
  "store a join",
  "start a resync",
  "start a missing resync",
  "report started resyncs",
  "end the note of a join",
  // Events of others
  "keep an event",
  "accept an event",
  "settle a waiting event",
  "delete a kept event",
  "store a removal",
  "store a refusal",
  "store the answer to a transaction",
  "store an invitation",
  "store history",
  // Events of ours
  "store an event of ours",
  "create a room",
  "begin a transaction",
  "send a transaction",
  "take a transaction off",
  "send a knock",
  "store a knock",
  "send a leave",
  "store a leave from outside",
  "send an invitation",
  "forget a room",
  // Resyncs
  "say a resync's next step",
  "store state ids",
  "store outliers",
  "confirm a state",
  "report a fetched state",
  "repair events",
  "report repaired events",
  "write members ahead",
  "finish a resync",
  "report a finished resync",
  "give up a room that was left",
  "wake a resync",
  "note an operator's wish",
  "cancel a resync",
  "start a resync anew",
  "note that a resync was cancelled",
  "report a cancelled resync",
  "note a purge",
  "delete the details of a purged room",
  "delete a purged room",
  // Application services
  "begin a push",
  "push to an application service",
  "end a push",
  // EDUs and account data
  "store typing of ours",
  "store typing",
  "expire typing",
  "store a receipt of ours",
  "store receipts",
  "store presence of ours",
  "store presence",
  "end presence",
  "store account data",
  "store a read marker",
  // Devices
  "store device keys",
  "claim keys",
  "claim keys of others",
  "store signing keys",
  "store signatures",
  "rename a device",
  "remove devices",
  "send to devices",
  "store messages to devices",
  "track a device list",
  "store a device list",
  "store an update of a device list",
] as const;

export type Step = (typeof STEPS)[number];
export type Failpoint = `before: ${Step}` | `after: ${Step}`;

/** What stands at the failpoints; absent but in tests. */
export type Reach = (failpoint: Failpoint) => Promise<void>;

/** Does a step that is seen outside of the process, between its two failpoints. */
export async function atStep<T>(ctx: Pick<RoomsContext, "reach">, step: Step, work: () => Promise<T>): Promise<T> {
  await ctx.reach?.(`before: ${step}`);
  const result = await work();
  await ctx.reach?.(`after: ${step}`);
  return result;
}

/**
 * Does the work in one transaction. Its failpoints are as near to the commit as can be: with everything written and all
 * locks held, and when it is there for others to see.
 *
 * @throws StorageConflict, PartialRoomGone, and whatever `work` throws
 */
export async function commit<T>(
  ctx: Pick<RoomsContext, "database" | "reach">,
  step: Step,
  work: (tx: Connection) => Promise<T>,
): Promise<T> {
  const result = await transaction(ctx.database, async (tx) => {
    const done = await work(tx);
    await ctx.reach?.(`before: ${step}`);
    return done;
  });
  await ctx.reach?.(`after: ${step}`);
  return result;
}

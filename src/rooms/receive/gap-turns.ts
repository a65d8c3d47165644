import { setTimeout as sleep } from "node:timers/promises";
import type { RoomId } from "../../matrix/identifiers.ts";
import type { Database } from "../../storage/database.ts";
import type { RoomsContext } from "../context.ts";

/** A server that never answers holds up those who ask another for no longer than this. */
const MOST_WAIT_MS = 10_000;

const turnsOf = new WeakMap<Database, Map<RoomId, Promise<unknown>>>();

/**
 * One event of a room after the other has its past looked for: whoever comes second finds there what the first was
 * given, so that several events of one gap ask for it once. Another process may ask too, which does no harm.
 */
export async function inGapTurn<T>(ctx: RoomsContext, roomId: RoomId, work: () => Promise<T>): Promise<T> {
  const turns = turnsOf.get(ctx.database) ?? new Map<RoomId, Promise<unknown>>();
  turnsOf.set(ctx.database, turns);
  const before = turns.get(roomId);
  const ours = before === undefined ? work() : afterTurn(before).then(work);
  // Whoever waits for us does not care how it ends.
  const settled = ours.catch(() => undefined);
  turns.set(roomId, settled);
  try {
    return await ours;
  } finally {
    if (turns.get(roomId) === settled) turns.delete(roomId);
  }
}

async function afterTurn(before: Promise<unknown>): Promise<void> {
  const patience = new AbortController();
  const tired = sleep(MOST_WAIT_MS, undefined, { signal: patience.signal, ref: false }).catch(() => undefined);
  await Promise.race([before, tired]);
  patience.abort();
}

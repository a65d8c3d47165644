import { LRUCache } from "lru-cache";
import type { EventId, ServerName } from "../../matrix/identifiers.ts";
import type { Database } from "../../storage/database.ts";
import type { RoomsContext } from "../context.ts";

/** Forgotten after so many, or when the process ends: then a gap is asked for once more. */
const REMEMBERED = 50_000;

const answeredOf = new WeakMap<Database, LRUCache<string, true>>();

function answered(ctx: RoomsContext): LRUCache<string, true> {
  const known = answeredOf.get(ctx.database) ?? new LRUCache<string, true>({ max: REMEMBERED });
  answeredOf.set(ctx.database, known);
  return known;
}

/** A server has told what it has of these missing events: it is not asked for them again. */
export function noteGapAnswered(ctx: RoomsContext, server: ServerName, missing: Iterable<EventId>): void {
  for (const id of missing) answered(ctx).set(`${server} ${id}`, true);
}

/** Those of the missing events that the server was not asked for yet, or could not answer. */
export function notAnswered(ctx: RoomsContext, server: ServerName, missing: readonly EventId[]): readonly EventId[] {
  return missing.filter((id) => !answered(ctx).has(`${server} ${id}`));
}

import type { EventId, ServerName } from "../../matrix/identifiers.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { deleteResyncStateIds } from "../../storage/resync-state-ids.ts";
import { roomRules } from "../../storage/rooms.ts";
import type { RoomsContext } from "../context.ts";
import { fetchForeignState, type ForeignStateFetched } from "../fetch/fetch-foreign-state.ts";
import type { ResyncTarget } from "./resync-next-step.ts";

export interface StateToFetch extends ResyncTarget {
  /** The prev_event at which the state is missing. */
  readonly eventId: EventId;
  readonly server: ServerName;
  readonly signal?: AbortSignal;
  readonly onProgress?: (idsLeft: number) => void;
}

/**
 * Fetches the state at a missing prev_event of a partial event from one server, as far as that server has it.
 *
 * @throws FederationFailure, the caller's abort
 */
export async function fetchMissingState(
  ctx: RoomsContext,
  request: StateToFetch,
): Promise<ForeignStateFetched | { readonly kind: "superseded" }> {
  const { pool } = ctx.database;
  const room = await partialRoom(pool, request.roomId);
  const rules = await roomRules(pool, request.roomId);
  if (room?.joinEventId !== request.joinEventId || rules === undefined) return { kind: "superseded" };
  try {
    return await fetchForeignState(ctx, { ...request, rules });
  } finally {
    // Where another worker has ended the resync meanwhile, it has cleared away what was told until then.
    const still = await partialRoom(pool, request.roomId);
    if (still === undefined) await deleteResyncStateIds(pool, request.roomId, request.eventId);
  }
}

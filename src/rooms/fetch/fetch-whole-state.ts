import { FederationFailure } from "../../federation-client/failures.ts";
import type { ReadBudget } from "../../federation-client/read-budget.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomsContext } from "../context.ts";
import type { DroppedPdu } from "../events/verify-pdus.ts";
import { callOptions, dropStored, intakeIntoDatabase } from "./fetch-events.ts";
import type { ForeignStateToFetch } from "./fetch-foreign-state.ts";
import type { OutlierIntake } from "./outlier-intake.ts";
import { reportDropped } from "./report-dropped.ts";

export interface WatchedFetch extends ForeignStateToFetch {
  readonly budget: ReadBudget;
  readonly onDropped: (dropped: readonly DroppedPdu[]) => void;
}

interface MissingEvents {
  /** Loses what is fetched. */
  readonly missing: Set<EventId>;
  /** How many events state and auth chain have. */
  readonly total: number;
}

/** From a tenth of the ids missing, one long `/state` is cheaper than many `/event`. */
const WHOLE_STATE_FROM = 0.1;

/** An honest answer that does not fit at first does the second time, when its auth chain is stored, or the third. */
const MOST_ANSWERS = 4;

/** `/state` of the largest rooms takes residents minutes. */
const STATE_TIMEOUT_MS = 10 * 60_000;

/**
 * Asks for the whole state, where that is cheaper than to ask for its missing events one by one; and again for as long as
 * there is much that came and found no room to wait for its auth events, and each answer brings something on. What the
 * server did not give, or gave badly, is no reason to ask again.
 */
export async function fetchWhileCheaper(
  ctx: RoomsContext,
  request: WatchedFetch,
  { missing, total }: MissingEvents,
): Promise<void> {
  const isMuch = (count: number): boolean => count > 1 && count >= total * WHOLE_STATE_FROM;
  for (let answers = 0; answers < MOST_ANSWERS && isMuch(missing.size); answers += 1) {
    const letGo = await fetchWholeStateOrSome(ctx, request, missing);
    const before = missing.size;
    await dropStored(ctx, missing);
    request.onProgress?.(missing.size);
    if (!isMuch(letGo) || missing.size === before) break;
  }
}

/** A server that can't give the whole state at once, its room being too large for it, may still give it piece by piece. */
async function fetchWholeStateOrSome(
  ctx: RoomsContext,
  request: WatchedFetch,
  missing: ReadonlySet<EventId>,
): Promise<number> {
  try {
    return await fetchWholeState(ctx, request, missing);
  } catch (error) {
    if (!(error instanceof FederationFailure) || error.kind !== "refused" || (error.status ?? 0) < 500) throw error;
    ctx.logger.info({ err: error, roomId: request.roomId }, "a server could not give a whole state at once");
    return 0;
  }
}

/**
 * An answer that breaks off is no whole state, but what had come until then is kept.
 *
 * @returns how many events of it were let go for want of room
 */
async function fetchWholeState(
  ctx: RoomsContext,
  request: WatchedFetch,
  wanted: ReadonlySet<EventId>,
): Promise<number> {
  const { roomId, rules, server } = request;
  const intake = intakeIntoDatabase(ctx, { roomId, rules, wanted });
  try {
    await streamState(ctx, request, { intake, expected: wanted.size });
    const { dropped, letGo } = await intake.settle();
    reportDropped(ctx, { roomId, server, endpoint: "/state" }, dropped);
    request.onDropped(dropped);
    return letGo.size;
  } catch (error) {
    if (error instanceof FederationFailure) await intake.settle();
    throw error;
  } finally {
    await intake.end();
  }
}

async function streamState(
  ctx: RoomsContext,
  request: WatchedFetch,
  { intake, expected }: { readonly intake: OutlierIntake; readonly expected: number },
): Promise<void> {
  const { roomId, eventId, server, signal, onProgress } = request;
  let arrived = 0;
  const onEvent = (_kind: "state" | "auth_chain", pdu: JsonValue): Promise<void> | undefined => {
    signal?.throwIfAborted();
    arrived += 1;
    if (arrived % 500 === 0) onProgress?.(Math.max(0, expected - arrived));
    return intake.add(pdu);
  };
  const options = { ...callOptions(request), timeoutMs: STATE_TIMEOUT_MS };
  await ctx.federation.state(server, { roomId, eventId, onEvent }, options);
}

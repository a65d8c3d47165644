import type { CallOptions } from "../../federation-client/client.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import { createReadBudget, type ReadBudget } from "../../federation-client/read-budget.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { insertOutliers, whichExist } from "../../storage/events.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import type { DroppedPdu } from "../events/verify-pdus.ts";
import { createOutlierIntake, type OutlierIntake } from "./outlier-intake.ts";
import { holesIn, reportDropped } from "./report-dropped.ts";

interface EventsToFetch {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly server: ServerName;
  readonly eventIds: readonly EventId[];
  readonly signal?: AbortSignal;
  /** What may be read of the server, with whatever else is asked of it in this attempt. */
  readonly budget?: ReadBudget;
  /** Told what failed the checks. */
  readonly onDropped?: (dropped: readonly DroppedPdu[]) => void;
}

/** Requests to one server under way at once. */
const CONCURRENCY = 5;

/** Refusals of one event after the other: a server that has given fewer than this by then has none of the rest. */
const MAX_REFUSALS = 50;

/** Auth events may themselves lack auth events; a chain with more holes behind holes than this is given up on. */
const MAX_ROUNDS = 20;

/** And no more of them than this: each may name ten others, which its maker can make up as fast as we ask. */
const MAX_ANCESTORS = 2_000;

/** Honest events weigh a KiB each; so many of them may have 64. */
const MAX_BYTES = 256 * 1024 * 1024;

/** An intake whose events become outliers in the database, chunk by chunk. */
export function intakeIntoDatabase(
  ctx: RoomsContext,
  room: { readonly roomId: RoomId; readonly rules: RoomVersionRules; readonly wanted?: ReadonlySet<EventId> },
): OutlierIntake {
  return createOutlierIntake(ctx, {
    ...room,
    keep: async (chunk) => {
      await commit(ctx, "store outliers", (tx) => insertOutliers(tx, chunk));
      return "stored";
    },
  });
}

/**
 * Fetches events one by one with whatever auth events they lack, and stores them as outliers. Any server will do:
 * what counts is that the id is the hash of the event and the signatures hold.
 *
 * @returns how many of the wanted events are stored now
 * @throws FederationFailure of the first request that failed, once all that could be fetched is stored
 */
export async function fetchEvents(ctx: RoomsContext, request: EventsToFetch): Promise<number> {
  const intake = intakeIntoDatabase(ctx, request);
  const within = { ...request, budget: request.budget ?? createReadBudget(MAX_BYTES) };
  let failure: FederationFailure | undefined;
  try {
    failure = await fetchWithAncestors(ctx, within, intake);
    const result = await intake.settle();
    const dropped = [...result.dropped, ...holesIn(result)];
    reportDropped(ctx, { roomId: request.roomId, server: request.server, endpoint: "/event" }, dropped);
    request.onDropped?.(dropped);
  } finally {
    await intake.end();
  }
  const left = await notStored(ctx, request.eventIds);
  if (left.length > 0 && failure !== undefined) throw failure;
  return request.eventIds.length - left.length;
}

/** @returns why the first request failed that did */
async function fetchWithAncestors(
  ctx: RoomsContext,
  request: EventsToFetch,
  intake: OutlierIntake,
): Promise<FederationFailure | undefined> {
  const asked = new Set<EventId>();
  let wanted: readonly EventId[] = await notStored(ctx, request.eventIds);
  let failure: FederationFailure | undefined;
  let kept = 0;
  for (let round = 0; round < MAX_ROUNDS && wanted.length > 0; round += 1) {
    for (const id of wanted) asked.add(id);
    const failed = await fetchInto(ctx, request, wanted, intake);
    failure ??= failed;
    // That it lacks one event says nothing of the others; a server that is away is asked no more.
    if (failed !== undefined && failed.status !== 404) break;
    const left = MAX_ANCESTORS + request.eventIds.length - asked.size;
    const result = await intake.settle();
    wanted = [...result.missingAuthEvents].filter((id) => !asked.has(id)).slice(0, left);
    // There is room again for those that found none, once others wait no longer.
    if (result.kept > kept) wanted = [...wanted, ...result.letGo];
    kept = result.kept;
  }
  return failure;
}

/** Those of the ids that we have no event of. */
export async function notStored(ctx: RoomsContext, ids: readonly EventId[]): Promise<readonly EventId[]> {
  const stored = await whichExist(ctx.database.pool, ids);
  return ids.filter((id) => !stored.has(id));
}

const IDS_AT_ONCE = 20_000;

/** Takes from the set what we have an event of by now. */
export async function dropStored(ctx: RoomsContext, missing: Set<EventId>): Promise<void> {
  const drop = async (ids: readonly EventId[]): Promise<void> => {
    for (const id of await whichExist(ctx.database.pool, ids)) missing.delete(id);
  };
  let some: EventId[] = [];
  for (const id of missing) {
    some.push(id);
    if (some.length < IDS_AT_ONCE) continue;
    await drop(some);
    some = [];
  }
  await drop(some);
}

/** Requests the events, a few at a time, and hands them to the intake. */
async function fetchInto(
  ctx: RoomsContext,
  request: EventsToFetch,
  ids: readonly EventId[],
  intake: OutlierIntake,
): Promise<FederationFailure | undefined> {
  const queue = [...ids];
  const options = callOptions(request);
  let failure: FederationFailure | undefined;
  let given = 0;
  let refused = 0;
  const worker = async (): Promise<void> => {
    for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
      request.signal?.throwIfAborted();
      try {
        const pdu = await ctx.federation.event(request.server, id, options);
        await intake.add(pdu);
        given += 1;
      } catch (error) {
        if (!(error instanceof FederationFailure)) throw error;
        failure ??= error;
        refused += 1;
        // A server that is down is not asked for the rest; one that merely lacks this event is, within reason: it may
        // have named a million events that are none.
        if (error.kind !== "refused" || refused > Math.max(MAX_REFUSALS, given)) queue.length = 0;
      }
    }
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  return failure;
}

/** The resync has its own, visible back-off per server; the client's must not hide a server from it. */
export function callOptions({ signal, budget }: Pick<EventsToFetch, "signal" | "budget">): CallOptions {
  return {
    ignoreBackOff: true,
    ...(signal === undefined ? {} : { signal }),
    ...(budget === undefined ? {} : { budget }),
  };
}

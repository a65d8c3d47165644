import { FederationFailure } from "../federation-client/failures.ts";
import { prevEventIds, type Event } from "../matrix/event.ts";
import { parsePdu } from "../matrix/event-format.ts";
import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { serverNameOf } from "../matrix/identifiers.ts";
import type { RoomVersionRules } from "../matrix/room-versions.ts";
import { hasState, loadEvents } from "../storage/events.ts";
import { forgetStaleJoins, isJoinUnderWay } from "../storage/joins-under-way.ts";
import { localJoinedUsers } from "../storage/memberships.ts";
import { deleteResyncStateIds } from "../storage/resync-state-ids.ts";
import { roomRules } from "../storage/rooms.ts";
import {
  deleteWaitingPdu,
  dueWaitingPdus,
  postponeWaitingPdu,
  whichWait,
  type WaitingPdu,
} from "../storage/waiting-pdus.ts";
import type { RoomsContext } from "./context.ts";
import { fetchForeignState } from "./fetch-foreign-state.ts";
import { receiveKeptPdus, receiveVerifiedEvent } from "./receive-pdu.ts";

/** Between two looks at the table. */
const INTERVAL_MS = 1_000;

const AT_ONCE = 50;

/** A join that takes longer has been ended by a crash. */
const JOIN_ABANDONED_AFTER_MS = 15 * 60_000;

/** The wait doubles with each attempt, up to this. */
const MOST_BACK_OFF_MS = 5 * 60_000;

/** An event whose past nobody could tell for this long is given up; later events of the room bring it back. */
const GIVE_UP_AFTER_MS = 24 * 60 * 60_000;

/** Handles the PDUs that wait for their past, until it is stopped. */
export function startReceivingWaitingPdus(ctx: RoomsContext): { stop(): Promise<void> } {
  const stopped = new AbortController();
  const done = receiveUntilStopped(ctx, stopped.signal);
  return {
    stop: async () => {
      stopped.abort();
      await done;
    },
  };
}

async function receiveUntilStopped(ctx: RoomsContext, stopped: AbortSignal): Promise<void> {
  while (!stopped.aborted) {
    try {
      await receiveWaitingPdus(ctx);
    } catch (error) {
      // The database may be away for a while; what waits in it waits on.
      ctx.logger.error({ err: error }, "waiting PDUs could not be handled");
    }
    await sleep(INTERVAL_MS, stopped);
  }
}

async function sleep(ms: number, stopped: AbortSignal): Promise<void> {
  if (stopped.aborted) return;
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    stopped.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

/** One round: each PDU that is due is tried again, the state at its missing prev_events fetched first. */
export async function receiveWaitingPdus(ctx: RoomsContext): Promise<void> {
  const { pool } = ctx.database;
  await forgetStaleJoins(pool, ctx.now() - JOIN_ABANDONED_AFTER_MS);
  for (const waiting of await dueWaitingPdus(pool, { now: ctx.now(), limit: AT_ONCE })) {
    switch (waiting.reason) {
      case "missing-prev-events":
        await receiveWaiting(ctx, waiting);
        break;
      case "join-under-way":
        // The join has handled what it found when it ended; this came too late for that, or a crash ended it.
        if (await isJoinUnderWay(pool, waiting.roomId)) await postpone(ctx, waiting);
        else await receiveKeptPdus(ctx, waiting.roomId);
    }
  }
}

async function receiveWaiting(ctx: RoomsContext, waiting: WaitingPdu): Promise<void> {
  const { pool } = ctx.database;
  const { roomId, eventId, origin } = waiting;
  const rules = await roomRules(pool, roomId);
  const verdict = rules === undefined ? undefined : parsePdu(waiting.pdu, rules);
  const weAreIn = (await localJoinedUsers(pool, roomId, ctx.serverName)).length > 0;
  const tooOld = ctx.now() - waiting.receivedAt > GIVE_UP_AFTER_MS;
  if (rules === undefined || verdict?.ok !== true || !weAreIn || tooOld) {
    ctx.logger.warn({ roomId, eventId, tooOld, weAreIn }, "a waiting PDU was given up");
    await deleteWaitingPdu(pool, eventId);
    return;
  }
  const { event } = verdict;
  const missing = await missingPrevEvents(ctx, event);
  // Its turn comes when its parent's has come.
  if ((await whichWait(pool, missing)).size > 0) return await postpone(ctx, waiting);
  for (const id of missing) await fetchPast(ctx, { roomId, rules, eventId: id, servers: [origin, serverOf(event)] });
  const result = await receiveVerifiedEvent(ctx, { origin, rules, event });
  if (result.kind !== "stored") return await postpone(ctx, waiting);
  for (const id of missing) await deleteResyncStateIds(pool, roomId, id);
}

async function missingPrevEvents(ctx: RoomsContext, event: Event): Promise<readonly EventId[]> {
  const ids = prevEventIds(event.pdu);
  const known = await loadEvents(ctx.database.pool, ids);
  return ids.filter((id) => !hasState(known.get(id), event.roomId));
}

function serverOf(event: Event): ServerName {
  return serverNameOf(event.pdu.sender) ?? "";
}

interface Past {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly eventId: EventId;
  readonly servers: readonly ServerName[];
}

/** Fetches the state at a missing prev_event from the first server that has it. */
async function fetchPast(ctx: RoomsContext, { servers, ...past }: Past): Promise<void> {
  for (const server of new Set(servers)) {
    if (server === ctx.serverName || server === "") continue;
    try {
      if ((await fetchForeignState(ctx, { ...past, server })).kind === "complete") return;
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      ctx.logger.info({ err: error, eventId: past.eventId }, "the state at a missing prev_event could not be fetched");
    }
  }
}

async function postpone(ctx: RoomsContext, { eventId, attempts }: WaitingPdu): Promise<void> {
  const wait = Math.min(MOST_BACK_OFF_MS, INTERVAL_MS * 2 ** Math.min(attempts, 20));
  await postponeWaitingPdu(ctx.database.pool, eventId, ctx.now() + wait);
}

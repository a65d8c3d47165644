import { sha256Base64 } from "../../matrix/hashes.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { stringifyJson } from "../../matrix/json.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import { addWaitingPdu, dropExcessWaitingPdus, type PduToKeep } from "../../storage/waiting-pdus.ts";
import { reportLostEvents } from "../lost-events.ts";

/**
 * So many PDUs of one room may wait, which is some 100 MB at most. An honest server's gap has hundreds of events; only
 * one that makes up events without end has more.
 */
const MOST_WAITING_PER_ROOM = 2_000;

/**
 * Keeps a PDU that can't be handled yet. Beyond the limit of its room the server of whose PDUs most wait loses its
 * oldest: newer events of the room bring back what they build on, and no server can push out another's.
 */
export async function keepWaiting(ctx: RoomsContext, waiting: PduToKeep, most = MOST_WAITING_PER_ROOM): Promise<void> {
  const { pool } = ctx.database;
  const { roomId } = waiting;
  await atStep(ctx, "keep an event", () => addWaitingPdu(pool, waiting));
  const eventIds = await dropExcessWaitingPdus(pool, roomId, most);
  const reason = `more than ${most} of the room's events wait for their past`;
  reportLostEvents(ctx, { loss: "too-many-wait", roomId, eventIds, reason });
}

/** Nothing is checked yet: under an id of its own, so that no server can put something else in the place of an event to come. */
export async function keepUnchecked(
  ctx: RoomsContext,
  kept: Pick<PduToKeep, "roomId" | "origin" | "pdu" | "receivedAt"> & {
    readonly reason: "join-under-way" | "missing-keys";
    readonly retryAt: number;
  },
): Promise<void> {
  const eventId: EventId = `$kept-${sha256Base64(kept.origin + stringifyJson(kept.pdu))}`;
  await keepWaiting(ctx, { ...kept, eventId });
}

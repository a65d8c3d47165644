import type { RoomsContext } from "../context.ts";
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
  await addWaitingPdu(pool, waiting);
  const eventIds = await dropExcessWaitingPdus(pool, roomId, most);
  const reason = `more than ${most} of the room's events wait for their past`;
  reportLostEvents(ctx, { loss: "too-many-wait", roomId, eventIds, reason });
}

import type { EventId, ServerName } from "../../matrix/identifiers.ts";
import { loadEvent, loadEvents, type StoredEvent } from "../../storage/events.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { insertMisdirectedEvents, type Misdirection } from "../../storage/misdirected-events.ts";
import { addToOutbox } from "../../storage/outbox.ts";
import { deleteOwnEventDestinations, ownEventsSince, type OwnEventSent } from "../../storage/own-event-destinations.ts";
import { takeFromOutbox } from "../../storage/take-from-outbox.ts";
import type { RoomsContext } from "../context.ts";
import type { StateSource } from "../events/state-before-event.ts";
import { visitJoinedServers } from "./joined-servers-at-events.ts";

/**
 * Sets right to whom our events went while we did not know who was in the room. A server that is in it and never got
 * our latest event (it joined meanwhile, or the join's list lacked it) is sent that event, and fetches what is before
 * it by itself. A server that was sent events although none of its users was in the room is recorded for the operator;
 * what still waits in its outbox is not sent.
 *
 * Part of the transaction that declares the room fully joined, after its current state is stored.
 */
export async function reachMissedServers(
  ctx: RoomsContext,
  source: StateSource,
  { joinEventId }: { readonly joinEventId: EventId },
): Promise<void> {
  const { tx, roomId } = source;
  const join = await loadEvent(tx, joinEventId);
  const sent = await ownEventsSince(tx, roomId, join?.streamId ?? 0n);
  if (sent.length > 0) {
    const events = await loadEvents(
      tx,
      sent.map((one) => one.eventId),
    );
    const wronglyOwed = await findMisdirected(source, sent, events);
    const withheld = await takeFromOutbox(tx, wronglyOwed);
    const isWithheld = membershipTest(withheld);
    const found = wronglyOwed.filter((one) => !isWithheld(one));
    await insertMisdirectedEvents(tx, roomId, { found, at: ctx.now() });
    await sendLatest(ctx, source, { sent, events, isWithheld });
  }
  await deleteOwnEventDestinations(tx, roomId);
}

function membershipTest(entries: readonly Misdirection[]): (entry: Misdirection) => boolean {
  const keys = new Set(entries.map(({ eventId, server }) => `${eventId} ${server}`));
  return ({ eventId, server }) => keys.has(`${eventId} ${server}`);
}

async function findMisdirected(
  source: StateSource,
  sent: readonly OwnEventSent[],
  events: ReadonlyMap<EventId, StoredEvent>,
): Promise<readonly Misdirection[]> {
  const serversOf = new Map(sent.map((one) => [one.eventId, one.servers]));
  const inOrder = sent.flatMap(({ eventId }) => events.get(eventId) ?? []);
  const found: Misdirection[] = [];
  await visitJoinedServers(source, inOrder, ({ eventId }, isJoined) => {
    for (const server of serversOf.get(eventId) ?? []) if (!isJoined(server)) found.push({ eventId, server });
  });
  return found;
}

interface SentEvents {
  readonly sent: readonly OwnEventSent[];
  readonly events: ReadonlyMap<EventId, StoredEvent>;
  readonly isWithheld: (entry: Misdirection) => boolean;
}

/** The latest that the full state accepts: from it on, everything of ours can be asked for. */
async function sendLatest(
  ctx: RoomsContext,
  { tx, roomId }: StateSource,
  { sent, events, isWithheld }: SentEvents,
): Promise<void> {
  const latest = sent.findLast(({ eventId }) => {
    const event = events.get(eventId);
    return event !== undefined && event.rejection === null && !event.softFailed;
  });
  if (latest === undefined) return;
  const { eventId, streamId } = latest;
  const told = new Set(latest.servers.filter((server) => !isWithheld({ eventId, server })));
  const missed: ServerName[] = (await joinedServers(tx, roomId)).filter(
    (server) => server !== ctx.serverName && !told.has(server),
  );
  if (missed.length === 0) return;
  await addToOutbox(tx, { eventId, streamId, destinations: missed });
  ctx.logger.info({ roomId, eventId, missed: missed.length }, "servers of a room are sent the latest event of ours");
}

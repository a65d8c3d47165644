import type { EventId } from "../../matrix/identifiers.ts";
import { loadEvent, loadEvents, type StoredEvent } from "../../storage/events.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { insertMisdirectedEvents, type Misdirection } from "../../storage/misdirected-events.ts";
import { addToOutbox } from "../../storage/outbox.ts";
import { deleteOwnEventDestinations, ownEventsSince, type OwnEventSent } from "../../storage/own-event-destinations.ts";
import { takeFromOutbox } from "../../storage/take-from-outbox.ts";
import type { RoomsContext } from "../context.ts";
import type { StateSource } from "../events/state-before-event.ts";
import { walkJoinedServers, type JoinedServersWalk } from "./joined-servers-at-events.ts";

/**
 * Sets right to whom our events went while we did not know who was in the room. A server that is in it and was not sent
 * all of our events (it joined meanwhile, or the join's list lacked it) is sent the latest, and fetches what is before
 * it by itself; again, if it was sent that one: it could not place it after those that it lacked, as we could not tell
 * it their state. A server that was sent events although none of its users was in the room is recorded for the
 * operator; what still waits in its outbox is not sent.
 *
 * Part of the transaction that declares the room fully joined, after its current state is stored.
 */
export async function reachMissedServers(ctx: RoomsContext, source: StateSource, room: RoomMadeWhole): Promise<void> {
  const { tx, roomId } = source;
  const latest = await settleMisdirected(ctx, source, room);
  if (latest !== undefined) await sendToMissed(ctx, source, latest);
  await deleteOwnEventDestinations(tx, roomId);
}

interface RoomMadeWhole {
  readonly joinEventId: EventId;
  /** The current state, whose members are stored. */
  readonly snapshotId: bigint;
}

/** Read at a time: each with up to thousands of servers. */
const BATCH = 20;

/** @returns our latest event that the full state accepts, with the servers that have it, or will get it, and all before */
async function settleMisdirected(
  ctx: RoomsContext,
  source: StateSource,
  { joinEventId, snapshotId }: RoomMadeWhole,
): Promise<OwnEventSent | undefined> {
  const { tx, roomId } = source;
  const walk = walkJoinedServers(source, snapshotId);
  let latest: OwnEventSent | undefined;
  // What was noted before the join is of an earlier stay.
  let from = (await loadEvent(tx, joinEventId))?.streamId ?? 0n;
  for (;;) {
    const batch = await ownEventsSince(tx, roomId, { from, limit: BATCH });
    const last = batch.at(-1);
    if (last === undefined) return latest;
    const events = await loadEvents(
      tx,
      batch.map((one) => one.eventId),
    );
    const wronglyOwed = await findMisdirected(walk, batch, events);
    const withheld = await withhold(ctx, source, wronglyOwed);
    for (const sent of batch) {
      if (isAccepted(events.get(sent.eventId))) latest = after(latest, without(sent, withheld));
    }
    from = last.streamId + 1n;
  }
}

function isAccepted(event: StoredEvent | undefined): boolean {
  return event !== undefined && event.rejection === null && !event.softFailed;
}

function after(earlier: OwnEventSent | undefined, sent: OwnEventSent): OwnEventSent {
  if (earlier === undefined) return sent;
  const servers = new Set(sent.servers);
  return { ...sent, servers: earlier.servers.filter((server) => servers.has(server)) };
}

function without(sent: OwnEventSent, withheld: readonly Misdirection[]): OwnEventSent {
  const from = new Set(withheld.filter((one) => one.eventId === sent.eventId).map((one) => one.server));
  return { ...sent, servers: sent.servers.filter((server) => !from.has(server)) };
}

async function findMisdirected(
  walk: JoinedServersWalk,
  batch: readonly OwnEventSent[],
  events: ReadonlyMap<EventId, StoredEvent>,
): Promise<readonly Misdirection[]> {
  const found: Misdirection[] = [];
  for (const { eventId, servers } of batch) {
    const event = events.get(eventId);
    if (event === undefined) continue;
    const isJoined = await walk.stepTo(event);
    for (const server of servers) if (!isJoined(server)) found.push({ eventId, server });
  }
  return found;
}

/** Records those that may have arrived. @returns those that are not sent any more */
async function withhold(
  ctx: RoomsContext,
  { tx, roomId }: StateSource,
  wronglyOwed: readonly Misdirection[],
): Promise<readonly Misdirection[]> {
  const withheld = await takeFromOutbox(tx, wronglyOwed);
  const isWithheld = new Set(withheld.map(({ eventId, server }) => `${eventId} ${server}`));
  const found = wronglyOwed.filter(({ eventId, server }) => !isWithheld.has(`${eventId} ${server}`));
  await insertMisdirectedEvents(tx, roomId, { found, at: ctx.now() });
  return withheld;
}

/** From that event on, everything of ours can be asked for. */
async function sendToMissed(
  ctx: RoomsContext,
  { tx, roomId }: StateSource,
  { eventId, streamId, servers }: OwnEventSent,
): Promise<void> {
  const told = new Set([...servers, ctx.serverName]);
  const missed = (await joinedServers(tx, roomId)).filter((server) => !told.has(server));
  if (missed.length === 0) return;
  await addToOutbox(tx, { eventId, streamId, destinations: missed });
  ctx.logger.info({ roomId, eventId, missed: missed.length }, "servers of a room are sent the latest event of ours");
}

import { serverNameOf, type EventId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { splitStateKey } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { insertTimelineEvents, type StoredEvent } from "../../storage/events.ts";
import { addToOutbox } from "../../storage/outbox.ts";
import { noteOwnEventDestinations } from "../../storage/own-event-destinations.ts";
import { markEachPartial } from "../../storage/partial-state.ts";
import { setExtremitiesOfRooms, setResolvedOf } from "../../storage/rooms.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { serversOfRoom } from "./servers-of-room.ts";
import { eventsOf } from "./events-at-hand.ts";
import type { PlacedEvent, RoomTurn } from "./room-turn.ts";
import { applyCurrentStates, type CurrentStateChange } from "./update-current-state.ts";

/**
 * Writes what turns of one transaction have placed, all in one: the events with their positions in the streams, the
 * rooms' extremities and current states, and our own events into the outbox. Among the last steps of the transaction:
 * everybody else who wants a position waits until it ends.
 */
export async function writeTurns(ctx: RoomsContext, tx: Connection, turns: readonly RoomTurn[]): Promise<void> {
  const placed = turns.flatMap((turn) => turn.placed.map((one) => ({ ...one, turn })));
  if (placed.length === 0) return;
  const destinations = new Map<EventId, readonly ServerName[]>();
  for (const turn of turns) for (const entry of await destinationsOfOurs(ctx, turn)) destinations.set(...entry);

  const first = await takeStreamPositions(tx, placed.length);
  const entries = placed.map((one, index) => ({ ...one, streamId: first + BigInt(index) }));
  await insertTimelineEvents(
    tx,
    entries.map(({ event, streamId }) => ({ ...event, event, streamId })),
  );
  const partial = entries.flatMap((one) => (one.partial ? [one.event] : []));
  if (partial.length > 0) await markEachPartial(tx, partial);
  const moved = turns.flatMap(({ front, source }) =>
    front.moved ? [[source.roomId, front.extremities] as const] : [],
  );
  if (moved.length > 0) await setExtremitiesOfRooms(tx, new Map(moved));
  for (const turn of turns) {
    const changes = entries.flatMap(({ change, streamId, turn: itsTurn }) =>
      itsTurn === turn && change !== undefined ? [{ change, streamId }] : [],
    );
    if (changes.length > 0) await applyCurrentStates(ctx, turn.source, changes);
  }
  for (const turn of turns) await rememberResolved(turn);
  for (const { event, streamId, turn } of entries) {
    turn.source.atHand.known.set(event.eventId, { ...event, streamId });
    const servers = destinations.get(event.eventId);
    if (servers === undefined) continue;
    const own = { eventId: event.eventId, streamId };
    await addToOutbox(tx, { ...own, destinations: servers });
    if (turn.source.partialFor !== undefined) await noteOwnEventDestinations(tx, event.roomId, { ...own, servers });
  }
}

/** The comparison of all members need not be made again for each message. */
async function rememberResolved({ front, source, opening }: RoomTurn): Promise<void> {
  const { currentSnapshotId, resolvedOf } = front;
  if (source.partialFor === undefined || resolvedOf === undefined) return;
  if (currentSnapshotId === opening.currentSnapshotId && resolvedOf === opening.resolvedOf) return;
  await setResolvedOf(source.tx, source.roomId, resolvedOf);
}

/**
 * Our own events go to every server of the room; while it is partial, also to those that the join named. Who was in the
 * room before is told too: a kick takes its target's server out of the room.
 */
async function destinationsOfOurs(
  ctx: RoomsContext,
  { placed, source }: RoomTurn,
): Promise<ReadonlyMap<EventId, readonly ServerName[]>> {
  const ours = placed.filter(({ event, origin }) => origin === ctx.serverName && !event.rejected && !event.softFailed);
  const destinations = new Map<EventId, readonly ServerName[]>();
  if (ours.length === 0) return destinations;
  const servers = new Set(await serversOfRoom(source.tx, ctx, source.roomId));
  for (const one of placed) {
    for (const server of await serversJoiningWith(source, one)) servers.add(server);
    servers.delete(ctx.serverName);
    if (ours.includes(one)) destinations.set(one.event.eventId, [...servers]);
  }
  return destinations;
}

async function serversJoiningWith(source: RoomTurn["source"], { change }: PlacedEvent): Promise<readonly ServerName[]> {
  const members = [...membersOf(change?.changes ?? new Map())];
  const events: ReadonlyMap<EventId, StoredEvent> = await eventsOf(
    source,
    members.map(([, eventId]) => eventId),
  );
  return members.flatMap(([userId, eventId]) => {
    const server = serverNameOf(userId);
    return server !== undefined && events.get(eventId)?.pdu.content["membership"] === "join" ? [server] : [];
  });
}

function* membersOf(changes: CurrentStateChange["changes"]): Iterable<readonly [UserId, EventId]> {
  for (const [key, eventId] of changes) {
    const [type, stateKey] = splitStateKey(key);
    if (type === "m.room.member" && eventId !== null) yield [stateKey as UserId, eventId];
  }
}

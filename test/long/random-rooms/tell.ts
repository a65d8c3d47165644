import { setTimeout as sleep } from "node:timers/promises";
import type { Event } from "../../../src/matrix/event.ts";
import type { EventId, ServerName } from "../../../src/matrix/identifiers.ts";
import { parseJson, type JsonValue } from "../../../src/matrix/json.ts";
import { inGraphOrder } from "../../../src/rooms/receive/receive-pdus.ts";
import { receiveTransaction } from "../../../src/rooms/receive/receive-transaction.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { waitingPdusOf } from "../../../src/storage/waiting-pdus.ts";
import { queryRows } from "../../../src/storage/query.ts";
import { admitEvent } from "../../resident/admit-event.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { mustKnow, type RoomInPlay } from "./room-in-play.ts";
import type { Server } from "./stage.ts";
import type { Crash, Manner } from "./story.ts";

/** Events of the room that one server sends to ours and to the twin. */
export interface Telling {
  readonly eventIds: readonly EventId[];
  readonly origin: ServerName;
  readonly manner: Manner;
  readonly mix: number;
  readonly crash: Crash | null;
}

/** All are over, also where one of them has failed: then its error is thrown. */
export async function allOf(doings: readonly Promise<unknown>[]): Promise<void> {
  for (const one of await Promise.allSettled(doings)) if (one.status === "rejected") throw one.reason;
}

interface Transaction {
  readonly txnId: string;
  readonly eventIds: readonly EventId[];
}

let transactions = 0;

/** In the same transactions; the process of ours may end on the way, and is then sent all of them again. */
export async function tell(play: RoomInPlay, telling: Telling): Promise<void> {
  const { ours, twin } = play.stage;
  const planned = transactionsOf(telling);
  await ours.survive(telling.crash, async () => {
    const sending = (one: Transaction): Promise<void> => send(play, ours, telling.origin, one);
    if (telling.manner === "at once") await allOf(planned.map(sending));
    else for (const one of planned) await sending(one);
  });
  // What ours receives together, the twin receives one by one: that must make no difference.
  for (const one of planned.flatMap((transaction) => oneByOne(play, transaction))) {
    await send(play, twin, telling.origin, one);
  }
  for (const id of telling.eventIds) {
    play.toldOurs.add(id);
    play.toldTwin.add(id);
  }
}

function oneByOne(play: RoomInPlay, { txnId, eventIds }: Transaction): readonly Transaction[] {
  const pdus = eventIds.map((id): JsonValue => mustKnow(play, id).pdu);
  return inGraphOrder(pdus, play.room.rules).flatMap(({ eventId }) =>
    eventId === undefined ? [] : [{ txnId: `${txnId}-${eventId}`, eventIds: [eventId] }],
  );
}

function transactionsOf({ eventIds, manner, mix }: Telling): readonly Transaction[] {
  const lists = manner === "together" ? [eventIds] : orderOf(eventIds, manner, mix).map((id) => [id]);
  return lists.map((list) => {
    transactions += 1;
    return { txnId: `random-${transactions}`, eventIds: list };
  });
}

function orderOf(eventIds: readonly EventId[], manner: Manner, mix: number): readonly EventId[] {
  if (manner === "repeated") return eventIds.flatMap((id) => [id, id]);
  if (manner !== "shuffled") return eventIds;
  const rest = [...eventIds];
  const order: EventId[] = [];
  for (let left = mix; rest.length > 0; left = Math.floor(left / 2) + 1)
    order.push(...rest.splice(left % rest.length, 1));
  return order;
}

async function send(
  play: RoomInPlay,
  server: Server,
  origin: ServerName,
  { txnId, eventIds }: Transaction,
): Promise<void> {
  const pdus = eventIds.map((id): JsonValue => mustKnow(play, id).pdu);
  const results = await receiveTransaction(server.sidecar.ctx, { origin, txnId, pdus, edus: [] });
  for (const [id, { error }] of Object.entries(results)) if (error !== undefined) play.notTaken.set(id, error);
}

/** What we made, as our outbox has it, goes to the resident and to the twin. */
export async function tellOfOurs(play: RoomInPlay): Promise<void> {
  const { resident, ours, twin } = play.stage;
  const origin = ours.sidecar.serverName;
  const rows = await queryRows<{ id: EventId; pdu: string }>(
    ours.database.pool,
    `SELECT DISTINCT outbox.stream_id, events.event_id AS id, pdu FROM outbox JOIN events USING (event_id)
     WHERE room_id = $1 ORDER BY outbox.stream_id`,
    [play.room.roomId],
  );
  for (const { id, pdu } of rows) {
    if (play.toldTwin.has(id)) continue;
    await admitEvent({ world: resident.world, room: play.room, origin }, parseJson(pdu));
    play.toldTwin.add(id);
    await send(play, twin, origin, { txnId: `ours-${id}`, eventIds: [id] });
  }
}

/** Joins of ours that the resident has let in: it tells the twin. */
export async function tellOfJoins(play: RoomInPlay): Promise<void> {
  const { resident, ours, twin } = play.stage;
  const suffix = `:${ours.sidecar.serverName}`;
  for (const { event } of play.room.events.values()) {
    if (!event.pdu.sender.endsWith(suffix) || play.toldTwin.has(event.eventId)) continue;
    play.toldTwin.add(event.eventId);
    await send(play, twin, resident.serverName, { txnId: `join-${event.eventId}`, eventIds: [event.eventId] });
  }
}

/** Has a server look again at what waits for its past, so long after. */
export async function letTimePass({ sidecar }: Server, milliseconds: number): Promise<void> {
  const now = (): number => Date.now() + milliseconds;
  await receiveWaitingPdus({ ...sidecar.ctx, now });
}

/** Waits for what a join leaves to do when it has ended: it handles what came while it was under way. */
export async function settle({ stage, room }: RoomInPlay): Promise<void> {
  const { pool } = stage.ours.database;
  for (let looks = 0; looks < 100; looks += 1) {
    const kept = await waitingPdusOf(pool, room.roomId, { reason: "join-under-way", limit: 1 });
    if (kept.length === 0) return;
    await sleep(5);
  }
  // A process that ended has left them to the loop over all that waits.
}

/** What happened while our join was under way. */
interface Meanwhile {
  readonly eventIds: readonly EventId[];
  /** Ours has acknowledged them. */
  readonly acknowledged: boolean;
  /** The join at which they were sent: another one than ours in the end, where something broke. */
  readonly join: EventId | undefined;
}

/**
 * Has something happen, and ours told of it, as soon as the resident has let us in.
 *
 * @returns what it was, to be asked when the join has ended
 */
export function whileWeJoin(play: RoomInPlay, happen: () => Promise<readonly EventId[]>): () => Promise<Meanwhile> {
  const { resident, ours } = play.stage;
  let telling: Promise<Meanwhile> | undefined;
  const tellOurs = async (join: EventId): Promise<Meanwhile> => {
    const eventIds = await happen();
    try {
      for (const id of eventIds) {
        await send(play, ours, resident.serverName, { txnId: `meanwhile-${id}`, eventIds: [id] });
      }
      return { eventIds, acknowledged: true, join };
    } catch {
      // Its sender sends it again: what is wrong not only for the moment comes up then.
      return { eventIds, acknowledged: false, join };
    }
  };
  const onEvent = (room: HostedRoom, { eventId, pdu }: Event): void => {
    if (room === play.room && pdu.sender === ours.sidecar.userId) telling ??= tellOurs(eventId);
  };
  resident.world.news.on("event", onEvent);
  return async () => {
    resident.world.news.off("event", onEvent);
    return (await telling) ?? { eventIds: [], acknowledged: true, join: undefined };
  };
}

/** The twin hears what ours was told, or what is told both. */
export async function tellTwin(play: RoomInPlay, eventIds: readonly EventId[]): Promise<void> {
  const { resident, twin } = play.stage;
  for (const id of eventIds) {
    await send(play, twin, resident.serverName, { txnId: `twin-${id}`, eventIds: [id] });
    play.toldTwin.add(id);
  }
}

import type { Event } from "../../src/matrix/event.ts";
import { serverNameOf } from "../../src/matrix/identifiers.ts";
import type { EventId, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import { emptyState, stateDiff, stateEntries } from "../../src/matrix/state.ts";
import { acceptEvent } from "../../src/rooms/events/accept-event.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import { finishResync } from "../../src/rooms/resync/resync-finish.ts";
import { storeJoin } from "../../src/rooms/join/store-join.ts";
import { transaction } from "../../src/storage/database.ts";
import { insertOutliers, loadEvent } from "../../src/storage/events.ts";
import { settlePartialEvents } from "../../src/storage/partial-state.ts";
import { storeSnapshot } from "../../src/storage/state-snapshots.ts";
import { appendUnPartialStatedEvents, takeStreamPositions } from "../../src/storage/streams.ts";
import { BOB, CHARLIE, aRoom, member, openRoom } from "./builders.ts";
import type { Branch } from "./builders.ts";

/** What of an event the full state decides otherwise than the partial one did. */
export interface Verdict {
  readonly eventId: EventId;
  readonly rejection: string | null;
}

export interface PartialRoom {
  readonly roomId: RoomId;
  readonly joinEventId: EventId;
  /** A message of a remote member, accepted on partial state. */
  receive(sender: UserId, body: string): Promise<EventId>;
  /** Gives every event its full state, and declares the room fully joined. */
  complete(verdicts?: readonly Verdict[]): Promise<void>;
}

const isNoMember = (key: string): boolean => !key.startsWith("m.room.member");

let rooms = 0;

/** A room of other servers (its members: alice of one.example, bob, charlie) which `joiner` has entered by a light join. */
export async function aPartialRoom(ctx: RoomsContext, joiner: UserId): Promise<PartialRoom> {
  rooms += 1;
  // Version 12: another create event makes another room id.
  const room = aRoom("12", { createContent: { number: rooms } });
  const open = openRoom(room, {}, [BOB, CHARLIE]);
  const join = room.add(open, member(joiner, "join"));
  const { roomId } = room;
  const known = [...stateEntries(open.state)].filter(([key]) => isNoMember(key)).map(([, id]) => id);
  const creatorsJoin = eventsOf(room.events.values()).filter(({ pdu }) => pdu.state_key === room.create.pdu.sender);
  const light = [...known.flatMap((id) => room.event(id) ?? []), ...creatorsJoin];
  await storeJoin(ctx, {
    server: serverNameOf(BOB) ?? "",
    rules: room.rules,
    join,
    membersOmitted: true,
    servers: [BOB, CHARLIE].map((user) => serverNameOf(user) ?? ""),
    stateEventIds: known,
    unreadableState: 0,
    outliers: light.map((event) => ({ event, rejection: null })),
  });
  const received: Event[] = [];
  let branch: Branch = { ...room.send(open, member(joiner, "join")), tip: join };
  const rest = eventsOf(room.events.values()).filter((event) => event.eventId !== join.eventId);

  return {
    roomId,
    joinEventId: join.eventId,
    async receive(sender, body) {
      const event = room.add(branch, { type: "m.room.message", sender, content: { msgtype: "m.text", body } });
      branch = { ...branch, tip: event };
      const auth = rest.filter(({ pdu }) => pdu.state_key === sender);
      await insertOutliers(
        ctx.database.pool,
        auth.map((one) => ({ event: one, rejection: null })),
      );
      await acceptEvent(ctx, { event, origin: serverNameOf(sender) ?? "" });
      received.push(event);
      return event.eventId;
    },
    async complete(verdicts = []) {
      await transaction(ctx.database, async (tx) => {
        await insertOutliers(
          tx,
          rest.map((event) => ({ event, rejection: null })),
        );
        const before = await storeSnapshot(tx, roomId, {
          parentId: null,
          changes: stateDiff(emptyState, open.state),
        });
        const after = await storeSnapshot(tx, roomId, {
          parentId: before,
          changes: new Map([[`m.room.member\u001f${joiner}`, join.eventId]]),
        });
        const changed = new Map(verdicts.map(({ eventId, rejection }) => [eventId, rejection]));
        for (const { eventId } of [join, ...received]) {
          const stateBefore = eventId === join.eventId ? before : after;
          const stored = await loadEvent(tx, eventId);
          const rejection = changed.has(eventId) ? (changed.get(eventId) ?? null) : (stored?.rejection ?? null);
          await settlePartialEvents(tx, [{ eventId, stateBefore, stateAfter: after, rejection }]);
          const rejectionStatusChanged = (stored?.rejection === null) !== (rejection === null);
          const streamId = await takeStreamPositions(tx, 1);
          await appendUnPartialStatedEvents(tx, [{ streamId, eventId, rejectionStatusChanged }]);
        }
      });
      await finishResync(ctx, { roomId, joinEventId: join.eventId });
    },
  };
}

function eventsOf(events: Iterable<Event>): Event[] {
  return [...events];
}

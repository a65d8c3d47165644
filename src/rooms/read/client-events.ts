import type { EventId, UserId } from "../../matrix/identifiers.ts";
import { isStateEvent } from "../../matrix/event.ts";
import type { Event } from "../../matrix/event.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { clientTransactionIds } from "../../storage/client-transactions.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { roomRules } from "../../storage/rooms.ts";
import { lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import { toClientEvent } from "./client-event.ts";
import type { ClientEvent } from "./client-event.ts";
import type { RoomsContext } from "../context.ts";
import { EVENTS_AT_ONCE } from "../events/load-many-events.ts";
import { redactionsFor } from "./redactions.ts";
import { transactionIdOf } from "./transaction-key.ts";

interface ClientEventsFraming {
  readonly withRoomId: boolean;
  /** The device that asks: it is told its own transaction ids. */
  readonly device?: { readonly userId: UserId; readonly deviceId: string };
  /** Timeline events say what state they took the place of. */
  readonly withPrevContent?: boolean;
}

/** Events of one room as clients get them, in the given order, redacted where a redaction applies. */
export async function toClientEvents(
  ctx: RoomsContext,
  events: readonly StoredEvent[],
  framing: ClientEventsFraming,
): Promise<readonly ClientEvent[]> {
  const [first] = events;
  const rules = first === undefined ? undefined : await roomRules(ctx.database.pool, first.roomId);
  if (rules === undefined) {
    return [];
  }
  const clientEvents: ClientEvent[] = [];
  for (let start = 0; start < events.length; start += EVENTS_AT_ONCE) {
    clientEvents.push(...(await frame(ctx, rules, events.slice(start, start + EVENTS_AT_ONCE), framing)));
  }
  return clientEvents;
}

async function frame(
  ctx: RoomsContext,
  rules: RoomVersionRules,
  events: readonly StoredEvent[],
  framing: ClientEventsFraming,
): Promise<readonly ClientEvent[]> {
  const [redactions, transactionIds, replaced] = await Promise.all([
    redactionsFor(ctx, events, rules),
    transactionIdsFor(ctx, events, framing),
    framing.withPrevContent === true ? replacedEvents(ctx, events) : new Map<EventId, Event>(),
  ]);
  const now = ctx.now();
  return events.map((event) =>
    toClientEvent(event, {
      rules,
      now,
      withRoomId: framing.withRoomId,
      redactedBecause: redactions.get(event.eventId),
      transactionId: transactionIds.get(event.eventId),
      replaces: replaced.get(event.eventId),
    }),
  );
}

async function transactionIdsFor(
  ctx: RoomsContext,
  events: readonly StoredEvent[],
  { device }: ClientEventsFraming,
): Promise<ReadonlyMap<EventId, string>> {
  const own = device === undefined ? [] : events.filter(({ pdu }) => pdu.sender === device.userId);
  if (device === undefined || own.length === 0) {
    return new Map();
  }
  const ids = own.map(({ eventId }) => eventId);
  const keys = await clientTransactionIds(ctx.database.pool, device, ids);
  return new Map([...keys].map(([eventId, key]) => [eventId, transactionIdOf(key)]));
}

async function replacedEvents(ctx: RoomsContext, events: readonly StoredEvent[]): Promise<ReadonlyMap<EventId, Event>> {
  const replaced = new Map<EventId, EventId>();
  for (const { eventId, pdu, stateBefore } of events) {
    if (!isStateEvent(pdu) || stateBefore === null) {
      continue;
    }
    const before = await lookUpInSnapshot(ctx.database.pool, stateBefore, pdu.type, pdu.state_key);
    if (before !== undefined && before !== eventId) {
      replaced.set(eventId, before);
    }
  }
  if (replaced.size === 0) {
    return new Map();
  }
  const found = await loadEvents(ctx.database.pool, [...new Set(replaced.values())]);
  return new Map(
    [...replaced].flatMap(([eventId, before]) => {
      const event = found.get(before);
      return event === undefined ? [] : [[eventId, event] as const];
    }),
  );
}

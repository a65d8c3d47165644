import { prevEventIds, type Event } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import { topologicalOrder } from "../../matrix/event-graph.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { acceptEvents, PrevEventsMissing } from "../events/accept-event.ts";
import type { RoomsContext } from "../context.ts";
import { AuthEventsMissing } from "../events/judge-event.ts";
import { verifyPdus } from "../events/verify-pdus.ts";
import {
  keepUnproved,
  receiveDropped,
  receiveVerifiedEvent,
  receiveWithHoles,
  settled,
  type PduReceived,
  type ReceivedPdu,
} from "./receive-pdu.ts";
import { BANNED_BY_ACL, isServerAllowed } from "./server-acl.ts";

/** PDUs of one room that came together. */
export interface ReceivedPdus extends Omit<ReceivedPdu, "pdu"> {
  readonly pdus: readonly JsonValue[];
}

/**
 * Receives the PDUs of a room that came together, parents first: each as `receive-pdu.ts` does, but as many as possible
 * in one transaction. Whatever is wrong with one of them harms no other.
 */
export async function receivePdus(ctx: RoomsContext, received: ReceivedPdus): Promise<readonly PduReceived[]> {
  const { origin, roomId, rules } = received;
  const ordered = inGraphOrder(received.pdus, rules);
  const pdus = ordered.map(({ pdu }) => pdu);
  const { events, dropped } = await verifyPdus(ctx, { roomId, rules, pdus });
  const results: PduReceived[] = [];
  for (const run of betweenAclChanges(events)) results.push(...(await receiveRun(ctx, received, run)));
  for (const drop of dropped) {
    const result = await receiveDropped(ctx, { origin, roomId, drop });
    const pdu = ordered.find(({ eventId }) => eventId === drop.eventId)?.pdu;
    if (result.kind !== "unproved") results.push(result);
    else if (pdu !== undefined) results.push(await keepUnproved(ctx, { origin, roomId, rules, pdu }, result));
  }
  return results;
}

interface ReadPdu {
  readonly pdu: JsonValue;
  readonly eventId?: Event["eventId"];
}

/** Parents first, so that a shuffled transaction leaves no gaps; those that can't be read come last. */
export function inGraphOrder(pdus: readonly JsonValue[], rules: RoomVersionRules): readonly ReadPdu[] {
  const unreadable: ReadPdu[] = [];
  const events = pdus.flatMap((pdu) => {
    const verdict = parsePdu(pdu, rules);
    if (verdict.ok) return [verdict.event];
    unreadable.push({ pdu });
    return [];
  });
  const { ordered, cyclic } = topologicalOrder(events, (event) => prevEventIds(event.pdu));
  return [...ordered, ...cyclic, ...unreadable];
}

/** An event may change which servers the room lets take part: what comes behind it is for the new list to decide. */
function betweenAclChanges(events: readonly Event[]): readonly (readonly Event[])[] {
  const runs: Event[][] = [];
  let run: Event[] = [];
  for (const event of events) {
    run.push(event);
    if (event.pdu.type !== "m.room.server_acl") continue;
    runs.push(run);
    run = [];
  }
  return [...runs, run].filter(({ length }) => length > 0);
}

/** From the third check on; as many as can be, and can be judged together, in one transaction after the other. */
async function receiveRun(
  ctx: RoomsContext,
  { origin, roomId, rules }: ReceivedPdus,
  events: readonly Event[],
): Promise<readonly PduReceived[]> {
  if (!(await isServerAllowed(ctx, roomId, origin))) {
    return events.map(({ eventId }) => ({ kind: "dropped", eventId, reason: BANNED_BY_ACL }));
  }
  const results: PduReceived[] = [];
  let rest = events;
  while (rest.length > 0) {
    const taken = await acceptTogether(ctx, { origin, roomId, rules }, rest);
    results.push(...taken);
    rest = rest.slice(taken.length);
  }
  return results;
}

/** The first of the events, and those behind it that can be stored with it. */
async function acceptTogether(
  ctx: RoomsContext,
  { origin, rules, roomId }: Omit<ReceivedPdus, "pdus">,
  events: readonly Event[],
): Promise<readonly PduReceived[]> {
  const [event] = events;
  if (event === undefined) return [];
  try {
    const stored = await acceptEvents(
      ctx,
      events.map((one) => ({ event: one, origin })),
    );
    return await settled(ctx, roomId, stored);
  } catch (error) {
    if (error instanceof PrevEventsMissing || error instanceof AuthEventsMissing) {
      return [await receiveWithHoles(ctx, { origin, rules, event })];
    }
    if (events.length === 1) throw error;
    // Whatever is wrong with one of them is its own affair.
    ctx.logger.warn({ err: error, roomId, events: events.length }, "events could not be stored together");
    return await oneByOne(ctx, { origin, rules }, events);
  }
}

/** What fails is thrown when the others are stored: its transaction is sent again, and they must not wait for that. */
async function oneByOne(
  ctx: RoomsContext,
  { origin, rules }: Pick<ReceivedPdus, "origin" | "rules">,
  events: readonly Event[],
): Promise<readonly PduReceived[]> {
  const results: PduReceived[] = [];
  const failures: unknown[] = [];
  for (const event of events) {
    try {
      results.push(await receiveVerifiedEvent(ctx, { origin, rules, event }));
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
  return results;
}

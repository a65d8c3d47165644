import { setTimeout as delay } from "node:timers/promises";
import { prevEventIds, type Event } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import { topologicalOrder } from "../../matrix/event-graph.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { DatabaseUnavailable } from "../../storage/errors.ts";
import { acceptEvents, acceptPlainEvents, PrevEventsMissing } from "../events/accept-event.ts";
import type { RoomsContext } from "../context.ts";
import { AuthEventsMissing } from "../events/judge-event.ts";
import { verifyPdus, type VerifiedEvent } from "../events/verify-pdus.ts";
import {
  keepUnproved,
  receiveDropped,
  receiveVerifiedEvent,
  receiveWithHoles,
  settled,
  type PduReceived,
  type ReceivedPdu,
} from "./receive-pdu.ts";
import { BANNED_BY_ACL, isServerAllowed, isServerAllowedInState } from "../events/server-acl.ts";

/** PDUs of one room that came together. */
export interface ReceivedPdus extends Omit<ReceivedPdu, "pdu"> {
  readonly pdus: readonly JsonValue[];
  /** The room's current state, of which the server ACL is taken. */
  readonly currentSnapshotId: bigint | null;
}

/** Rooms whose PDUs are not checked by then, for a server's keys, say, keep the others waiting no longer. */
const READY_WITHIN_MS = 100;

/**
 * Receives PDUs that came together, in each room parents first: each as `receive-pdu.ts` does, but as many as possible
 * in one transaction. Whatever is wrong with one of them harms no other, and a room that is slow no other room.
 */
export async function receivePdus(ctx: RoomsContext, rooms: readonly ReceivedPdus[]): Promise<readonly PduReceived[]> {
  const checking = rooms.map((room) => checkPdus(ctx, room));
  const ready = rooms.length < 2 ? [] : await readyWithin(READY_WITHIN_MS, checking);
  const stored = await acceptAcrossRooms(ctx, ready);
  const ofRooms = await Promise.all(checking.map(async (one) => await receiveRest(ctx, await one, stored)));
  return [...stored.values(), ...ofRooms.flat()];
}

/** PDUs of a room that went through the first three checks and the server ACL. */
interface CheckedPdus extends ReceivedPdus {
  /** Between two runs, an event changes which servers may take part. */
  readonly runs: readonly (readonly Event[])[];
  readonly dropped: readonly PduReceived[];
}

async function checkPdus(ctx: RoomsContext, received: ReceivedPdus): Promise<CheckedPdus> {
  const { origin, roomId, rules } = received;
  const ordered = inGraphOrder(received.pdus, rules);
  const pdus = ordered.map(({ pdu }) => pdu);
  const { events, dropped } = await verifyPdus(ctx, { roomId, rules, pdus });
  const results: PduReceived[] = [];
  for (const drop of dropped) {
    const result = await receiveDropped(ctx, { origin, roomId, drop });
    const pdu = ordered.find(({ eventId }) => eventId === drop.eventId)?.pdu;
    if (result.kind !== "unproved") results.push(result);
    else if (pdu !== undefined) results.push(await keepUnproved(ctx, { origin, roomId, rules, pdu }, result));
  }
  if (events.length > 0 && !(await isServerAllowedInState(ctx, received.currentSnapshotId, origin))) {
    return { ...received, runs: [], dropped: [...results, ...events.map(bannedByAcl)] };
  }
  return { ...received, runs: betweenAclChanges(events), dropped: results };
}

function bannedByAcl({ eventId }: Event): PduReceived {
  return { kind: "dropped", eventId, reason: BANNED_BY_ACL };
}

async function readyWithin<T>(milliseconds: number, promises: readonly Promise<T>[]): Promise<readonly T[]> {
  const ready: T[] = [];
  const patience = new AbortController();
  // What fails is thrown where its room is received.
  const all = Promise.allSettled(promises.map(async (promise) => ready.push(await promise)));
  const waited = delay(milliseconds, undefined, { signal: patience.signal }).catch(() => undefined);
  await Promise.race([all, waited]);
  patience.abort();
  return [...ready];
}

/** What needs no look beyond its room and its parents, of all rooms in one transaction. */
async function acceptAcrossRooms(
  ctx: RoomsContext,
  rooms: readonly CheckedPdus[],
): Promise<ReadonlyMap<EventId, PduReceived>> {
  const inputs = rooms.flatMap(({ origin, runs }) => (runs[0] ?? []).map((event) => ({ event, origin })));
  if (inputs.length === 0) return new Map();
  try {
    const stored = await acceptPlainEvents(ctx, inputs);
    const results = await settled(ctx, stored);
    return new Map(stored.map(({ eventId }, index) => [eventId, results[index] ?? { kind: "waiting", eventId }]));
  } catch (error) {
    if (error instanceof DatabaseUnavailable) throw error;
    ctx.logger.warn({ err: error, events: inputs.length }, "events of several rooms could not be stored together");
    return new Map();
  }
}

async function receiveRest(
  ctx: RoomsContext,
  room: CheckedPdus,
  stored: ReadonlyMap<EventId, PduReceived>,
): Promise<readonly PduReceived[]> {
  const results = [...room.dropped];
  for (const [index, run] of room.runs.entries()) {
    const rest = run.filter(({ eventId }) => !stored.has(eventId));
    const isAllowed = index === 0 || (await isServerAllowed(ctx, room.roomId, room.origin));
    results.push(...(isAllowed ? await receiveRun(ctx, room, rest) : rest.map(bannedByAcl)));
  }
  const { roomId, origin } = room;
  for (const one of results) {
    if (one.kind === "dropped") ctx.logger.info({ origin, roomId, ...one }, "a PDU was dropped");
  }
  return results;
}

interface ReadPdu {
  readonly pdu: JsonValue;
  readonly eventId?: EventId;
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

/**
 * As many as can be judged together, in one transaction after the other. What fails is thrown when the others are
 * stored: its transaction is sent again, and they must not wait for that.
 *
 * @throws DatabaseUnavailable at once
 */
async function receiveRun(
  ctx: RoomsContext,
  { origin, rules, roomId }: ReceivedPdus,
  events: readonly Event[],
): Promise<readonly PduReceived[]> {
  const results: PduReceived[] = [];
  const failures: unknown[] = [];
  let together = true;
  let rest = events;
  for (let event = rest[0]; event !== undefined; event = rest[0]) {
    try {
      const taken = together
        ? await acceptTogether(ctx, { origin, rules, event }, rest)
        : [await receiveVerifiedEvent(ctx, { origin, rules, event })];
      results.push(...taken);
      rest = rest.slice(taken.length);
    } catch (error) {
      // Each of the others would be waited for as long, and fail as well.
      if (error instanceof DatabaseUnavailable) throw error;
      const isItsOwn = !together || rest.length === 1;
      if (isItsOwn) failures.push(error);
      if (isItsOwn) rest = rest.slice(1);
      else ctx.logger.warn({ err: error, roomId, events: rest.length }, "events could not be stored together");
      together = false;
    }
  }
  if (failures.length > 0) throw failures[0];
  return results;
}

/** The event, and those behind it that can be stored with it. */
async function acceptTogether(
  ctx: RoomsContext,
  received: VerifiedEvent,
  events: readonly Event[],
): Promise<readonly PduReceived[]> {
  try {
    const inputs = events.map((event) => ({ event, origin: received.origin }));
    return await settled(ctx, await acceptEvents(ctx, inputs));
  } catch (error) {
    if (!(error instanceof PrevEventsMissing || error instanceof AuthEventsMissing)) throw error;
    return [await receiveWithHoles(ctx, received)];
  }
}

import { FederationFailure } from "../../federation-client/failures.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import { isJsonObject, type JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { loadEvent, type StoredEvent } from "../../storage/events.ts";
import { isJoinUnderWay } from "../../storage/joins-under-way.ts";
import { localJoinedUsers } from "../../storage/memberships.ts";
import { roomRules } from "../../storage/rooms.ts";
import { deleteKeptPdu, settleWaitingPdus, waitingPdusOf, type WaitingPdu } from "../../storage/waiting-pdus.ts";
import { acceptEvent, PrevEventsMissing } from "../events/accept-event.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import { fetchEvents } from "../fetch/fetch-events.ts";
import { fillGap } from "../fetch/fill-gap.ts";
import { reportLostEvents } from "../lost-events.ts";
import { AuthEventsMissing } from "../events/judge-event.ts";
import { inGapTurn } from "./gap-turns.ts";
import { keepUnchecked, keepWaiting } from "../fetch/keep-waiting.ts";
import { wakeAbandonedResync } from "../resync/wake-abandoned-resync.ts";
import { receiveRefusals } from "./receive-refusals.ts";
import { receiveRemoval } from "./receive-removal.ts";
import { BANNED_BY_ACL, isServerAllowed } from "../events/server-acl.ts";
import { verifyPdus, type DroppedPdu, type VerifiedEvent } from "../events/verify-pdus.ts";

export interface ReceivedPdu {
  readonly origin: ServerName;
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly pdu: JsonValue;
}

export type PduReceived =
  /** In the timeline: accepted, soft-failed or rejected, which the sender is not told; or beside it (`receive-removal.ts`). */
  | { readonly kind: "stored"; readonly event: StoredEvent }
  /** Kept until its past is known, or its server's key. */
  | { readonly kind: "waiting"; readonly eventId: EventId }
  | { readonly kind: "dropped"; readonly eventId?: EventId; readonly reason: string };

/**
 * Receives one PDU:
 * 1.–3. format, signatures, content hash (`verify-pdus.ts`), and the room's server ACL;
 * then what is missing of its past: auth events from the sender, prev_events by `/get_missing_events`;
 * 4.–6. the auth rules, and its place in the room (`accept-event.ts`).
 * An event whose past stays unknown, or for whose signature no key can be had just now, is kept in `waiting_pdus`
 * (`receive-waiting-pdus.ts`), never dropped.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
 */
export async function receivePdu(ctx: RoomsContext, input: ReceivedPdu): Promise<PduReceived> {
  const received = await receiveUnchecked(ctx, input);
  return received.kind === "unproved" ? await keepUnproved(ctx, input, received) : received;
}

/** What waits for its server's key is checked anew when its turn comes. */
export async function keepUnproved(
  ctx: RoomsContext,
  { roomId, origin, pdu }: ReceivedPdu,
  { eventId, reason }: Unproved,
): Promise<PduReceived> {
  ctx.logger.info({ roomId, origin, eventId, reason }, "a PDU waits for its server's key");
  const receivedAt = ctx.now();
  await keepUnchecked(ctx, { roomId, origin, pdu, reason: "missing-keys", receivedAt, retryAt: receivedAt });
  return { kind: "waiting", eventId };
}

/** Nothing could be proved for the event or against it: its server's key could not be had. */
interface Unproved {
  readonly kind: "unproved";
  readonly eventId: EventId;
  readonly reason: string;
}

async function receiveUnchecked(ctx: RoomsContext, received: ReceivedPdu): Promise<PduReceived | Unproved> {
  const { origin, roomId, rules, pdu } = received;
  const { events, dropped } = await verifyPdus(ctx, { roomId, rules, pdus: [pdu] });
  const [event] = events;
  if (event === undefined) {
    return await receiveDropped(ctx, { origin, roomId, drop: dropped[0] ?? { kind: "malformed", reason: UNREADABLE } });
  }
  if (!(await isServerAllowed(ctx, roomId, origin))) {
    return { kind: "dropped", eventId: event.eventId, reason: BANNED_BY_ACL };
  }
  return await receiveVerifiedEvent(ctx, { origin, rules, event });
}

const UNREADABLE = "it could not be read";

/** A PDU that did not pass the first two checks. */
export async function receiveDropped(
  ctx: RoomsContext,
  { origin, roomId, drop }: Pick<ReceivedPdu, "origin" | "roomId"> & { readonly drop: DroppedPdu },
): Promise<PduReceived | Unproved> {
  const { kind, eventId, reason } = drop;
  if (eventId === undefined) return { kind: "dropped", reason };
  if (!(await isServerAllowed(ctx, roomId, origin))) return { kind: "dropped", eventId, reason: BANNED_BY_ACL };
  return kind === "no-key" ? { kind: "unproved", eventId, reason } : { kind: "dropped", eventId, reason };
}

/** From the third check on. */
export async function receiveVerifiedEvent(ctx: RoomsContext, received: VerifiedEvent): Promise<PduReceived> {
  const { event } = received;
  const existing = await loadEvent(ctx.database.pool, event.eventId);
  if (existing !== undefined && !existing.outlier) return await settledOne(ctx, existing);
  const attempt = await tryToAccept(ctx, received);
  if (attempt.kind === "accepted") return await settledOne(ctx, attempt.event);
  return await receiveWithHoles(ctx, received);
}

/** An event whose past is not known: what is missing of it is looked for first. */
export async function receiveWithHoles(ctx: RoomsContext, received: VerifiedEvent): Promise<PduReceived> {
  return await inGapTurn(ctx, received.event, () => fillHolesAndReceive(ctx, received));
}

/** Each kind of hole is filled once; what then still misses is left to the waiting table. */
async function fillHolesAndReceive(ctx: RoomsContext, received: VerifiedEvent): Promise<PduReceived> {
  const filled = new Set<unknown>();
  for (;;) {
    // The first time too: another event of the same gap may have filled it meanwhile.
    const attempt = await tryToAccept(ctx, received);
    if (attempt.kind === "accepted") return await settledOne(ctx, attempt.event);
    const { hole } = attempt;
    if (filled.has(hole.constructor) || !(await fillHole(ctx, received, hole))) break;
    filled.add(hole.constructor);
  }
  const removal = await receiveRemoval(ctx, received);
  if (removal !== undefined) return { kind: "stored", event: removal };
  const { event, origin } = received;
  const { eventId, roomId, pdu } = event;
  await keepWaiting(ctx, { eventId, roomId, origin, pdu, reason: "missing-prev-events", receivedAt: ctx.now() });
  return { kind: "waiting", eventId };
}

type Hole = PrevEventsMissing | AuthEventsMissing;
type Attempt =
  | { readonly kind: "accepted"; readonly event: StoredEvent }
  | { readonly kind: "hole"; readonly hole: Hole };

async function tryToAccept(ctx: RoomsContext, { event, origin }: VerifiedEvent): Promise<Attempt> {
  try {
    return { kind: "accepted", event: await acceptEvent(ctx, { event, origin }) };
  } catch (error) {
    if (error instanceof PrevEventsMissing || error instanceof AuthEventsMissing) return { kind: "hole", hole: error };
    throw error;
  }
}

/** Whether the sender had anything to fill the hole with. */
async function fillHole(ctx: RoomsContext, received: VerifiedEvent, hole: Hole): Promise<boolean> {
  const { origin, rules, event } = received;
  try {
    if (hole instanceof PrevEventsMissing) return (await fillGap(ctx, { ...received, missing: hole.eventIds })) > 0;
    const request = { roomId: event.roomId, rules, server: origin, eventIds: hole.eventIds };
    return (await fetchEvents(ctx, request)) > 0;
  } catch (error) {
    if (!(error instanceof FederationFailure)) throw error;
    ctx.logger.info(
      { err: error, eventId: event.eventId },
      "the past of an event could not be fetched from its sender",
    );
    return false;
  }
}

async function settledOne(ctx: RoomsContext, event: StoredEvent): Promise<PduReceived> {
  await settled(ctx, [event]);
  return { kind: "stored", event };
}

/** Events that are in a timeline now: who waits for them has a turn. */
export async function settled(ctx: RoomsContext, events: readonly StoredEvent[]): Promise<readonly PduReceived[]> {
  await atStep(ctx, "settle a waiting event", () => settleWaitingPdus(ctx.database.pool, events, ctx.now()));
  // One of ours may have been kicked or banned.
  const isOurs = ({ pdu }: StoredEvent) =>
    pdu.type === "m.room.member" && (pdu.state_key ?? "").endsWith(`:${ctx.serverName}`);
  const changed = new Set(events.filter(isOurs).map(({ roomId }) => roomId));
  for (const roomId of changed) void wakeAbandonedResync(ctx, roomId);
  return events.map((event) => ({ kind: "stored", event }));
}

/**
 * Handles the PDUs that arrived while the room was being joined, in the order of their arrival. What fails is left to
 * the loop over all waiting PDUs.
 */
export async function receiveKeptPdus(ctx: RoomsContext, roomId: RoomId): Promise<void> {
  try {
    const kept = await waitingPdusOf(ctx.database.pool, roomId, { reason: "join-under-way" });
    for (const one of kept) await receiveKeptPdu(ctx, one);
  } catch (error) {
    ctx.logger.error({ err: error, roomId }, "PDUs that were kept during a join could not be handled yet");
  }
}

/** A server whose key nobody could tell for so long is taken to be gone; later events bring back what was lost. */
const KEYS_WITHIN_MS = 60 * 60_000;

/**
 * One of these, or one that waits for a key: it is received like any other, or waits on under its own id.
 *
 * @returns false if it is kept on: for a join that is under way, or for want of a key
 */
export async function receiveKeptPdu(ctx: RoomsContext, waiting: WaitingPdu): Promise<boolean> {
  const { pool } = ctx.database;
  const { roomId, origin, pdu } = waiting;
  // In this order: a join that ends in between has put us into the room. One that was abandoned, or that began after
  // the one that this was kept for, is no reason to drop what came meanwhile.
  const joining = await isJoinUnderWay(pool, roomId);
  const rules = await roomRules(pool, roomId);
  const weAreIn = (await localJoinedUsers(pool, roomId, ctx.serverName)).length > 0;
  if (joining && !weAreIn) return false;
  if (rules !== undefined && weAreIn) {
    const result = await receiveUnchecked(ctx, { origin, roomId, rules, pdu });
    if (result.kind === "unproved" && ctx.now() - waiting.receivedAt <= KEYS_WITHIN_MS) return false;
    if (result.kind === "unproved") {
      const { eventId, reason } = result;
      reportLostEvents(ctx, { loss: "key-unknown", roomId, eventIds: [eventId], reason });
    }
    if (result.kind === "dropped") ctx.logger.info({ roomId, origin, reason: result.reason }, "a kept PDU was dropped");
  }
  // The join has failed, perhaps for this very reason: the sender, which was told that we have it, won't repeat it.
  if (rules !== undefined && !weAreIn && isJsonObject(pdu)) await receiveRefusals(ctx, { roomId, rules, pdus: [pdu] });
  await atStep(ctx, "delete a kept event", () => deleteKeptPdu(pool, waiting));
  return true;
}

import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { MembershipTemplate } from "../../federation-api/endpoints.ts";
import type { Event } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import { contentHashMatches } from "../../matrix/hashes.ts";
import type { EventId, ServerName, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { addToOutbox } from "../../storage/outbox.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { forwardExtremities } from "../../storage/rooms.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { acceptEvent, PrevEventsMissing } from "../events/accept-event.ts";
import { authEventIdsFor, buildEvent, type EventDraft } from "../events/build-event.ts";
import type { RoomsContext } from "../context.ts";
import { AuthEventsMissing, judgeByState } from "../events/judge-event.ts";
import { requireUserOf, stateNotKnown, type RoomQuestion, type ServedRoom } from "./served-room.ts";
import { verifyPdus } from "../events/verify-pdus.ts";

/** The memberships that a server may ask for its own users by a handshake of make_ and send_. */
type HandshakeMembership = "join" | "leave" | "knock";

interface TemplateRequest {
  readonly userId: UserId;
  /** `membership` included. */
  readonly content: JsonObject;
}

/**
 * A membership event for another server to complete and sign, at the end of the room's graph as we see it.
 *
 * @throws MatrixError 403 M_FORBIDDEN if the auth rules would refuse it
 */
export async function membershipTemplate(
  ctx: RoomsContext,
  room: ServedRoom,
  { userId, content }: TemplateRequest,
): Promise<MembershipTemplate & JsonObject> {
  const { pool } = ctx.database;
  const draft: EventDraft = {
    roomId: room.roomId,
    sender: userId,
    type: "m.room.member",
    stateKey: userId,
    content,
  };
  const state = await loadState(ctx.database, room.snapshotId);
  const prevEvents = [...(await loadEvents(pool, await forwardExtremities(pool, room.roomId))).values()];
  const authEventIds = authEventIdsFor(draft, state, room.rules);
  const authEvents = [...(await loadEvents(pool, authEventIds)).values()];
  const place = { prevEvents: prevEvents.toSorted(byArrival), authEvents, now: ctx.now() };
  const event = buildEvent(draft, place, room.rules, ctx);
  const verdict = await judgeByState({ tx: pool, rules: room.rules, event }, state);
  if (!verdict.allowed) throw forbidden(`${verdict.rule}: ${verdict.reason}`);
  // Hashes, signatures and (in room versions 1 and 2) the id are for the server to make whose user it is.
  const { hashes: _hashes, signatures: _signatures, event_id: _eventId, ...template } = event.pdu;
  return { room_version: room.rules.version, event: template };
}

function byArrival(a: StoredEvent, b: StoredEvent): number {
  return Number((a.streamId ?? 0n) - (b.streamId ?? 0n));
}

export interface SentMembership extends RoomQuestion {
  readonly eventId: EventId;
  readonly pdu: JsonObject;
}

/**
 * A membership event that a server sends for one of its users, as far as it can be read by itself.
 *
 * @throws MatrixError 400 M_BAD_JSON for one of the wrong form, 403 M_FORBIDDEN for another server's user
 */
export function readSentMembership(room: ServedRoom, sent: SentMembership, membership: HandshakeMembership): Event {
  const verdict = parsePdu(sent.pdu, room.rules);
  if (!verdict.ok) throw badEvent(verdict.reason);
  const { event } = verdict;
  const { type, sender, state_key: stateKey, content } = event.pdu;
  if (event.roomId !== room.roomId) throw badEvent(`it belongs to room ${event.roomId}`);
  if (event.eventId !== sent.eventId) throw badEvent(`its id is ${event.eventId}, the path says ${sent.eventId}`);
  if (type !== "m.room.member" || content["membership"] !== membership) throw badEvent(`it is not a ${membership}`);
  if (stateKey !== sender) throw badEvent("its sender is not the user that it is about");
  requireUserOf(sent.origin, sender);
  // A redacted copy would do in the room, but its sender should know that what it sends can't be verified.
  if (!contentHashMatches(event.pdu, room.rules)) throw badEvent("its content hash is wrong");
  return event;
}

/**
 * Checks the event's signatures, accepts it into the room and has the outbox tell the other servers.
 *
 * @throws MatrixError 403 M_FORBIDDEN if a check refuses it: then nothing is stored
 */
export async function acceptSentMembership(
  ctx: RoomsContext,
  room: ServedRoom,
  { event, origin }: { readonly event: Event; readonly origin: ServerName },
): Promise<StoredEvent> {
  const { roomId, rules } = room;
  const { dropped } = await verifyPdus(ctx, { roomId, rules, pdus: [event.pdu] });
  if (dropped[0] !== undefined) throw forbidden(dropped[0].reason);
  const stored = await acceptOrExplain(ctx, event, origin);
  // Of an event that was here before, what was said of it then.
  requireAccepted(stored);
  return stored;
}

async function acceptOrExplain(ctx: RoomsContext, event: Event, origin: ServerName): Promise<StoredEvent> {
  try {
    return await acceptEvent(ctx, {
      event,
      origin,
      also: async (tx, stored) => {
        requireAccepted(stored);
        // We may have left the room and joined it anew since its state was found to be full.
        if ((await partialRoom(tx, stored.roomId)) !== undefined) throw stateNotKnown(stored.roomId);
        await tellOtherServers(ctx, tx, { stored, origin });
      },
    });
  } catch (error) {
    if (error instanceof PrevEventsMissing || error instanceof AuthEventsMissing) {
      throw new MatrixError(400, "M_INVALID_PARAM", `The event does not continue our template: ${error.message}`);
    }
    throw error;
  }
}

async function tellOtherServers(
  ctx: RoomsContext,
  tx: Connection,
  { stored, origin }: { readonly stored: StoredEvent; readonly origin: ServerName },
): Promise<void> {
  const servers = await joinedServers(tx, stored.roomId);
  const destinations = servers.filter((server) => server !== ctx.serverName && server !== origin);
  if (stored.streamId === null || destinations.length === 0) return;
  await addToOutbox(tx, { eventId: stored.eventId, streamId: stored.streamId, destinations });
}

function requireAccepted(stored: StoredEvent): void {
  if (stored.rejection !== null) throw forbidden(stored.rejection);
  if (stored.softFailed) throw forbidden("the room's current state does not allow it");
}

function forbidden(reason: string): MatrixError {
  return new MatrixError(403, "M_FORBIDDEN", `The room does not allow this: ${reason}`);
}

function badEvent(reason: string): MatrixError {
  return new MatrixError(400, "M_BAD_JSON", `The event is not acceptable: ${reason}`);
}

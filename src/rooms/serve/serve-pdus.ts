import type { TextBatches } from "../../federation-api/long-json.ts";
import type { Pdu } from "../../matrix/event.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import { stringifyJson } from "../../matrix/json.ts";
import { redact } from "../../matrix/redaction.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { loadPduTexts } from "../../storage/pdu-texts.ts";
import { redactionsNaming } from "../../storage/redactions.ts";
import type { RoomsContext } from "../context.ts";
import { eventPortions, requireRoomHeld } from "../events/event-portions.ts";
import { redactionsFor } from "../read/redactions.ts";

/** The JSON of PDUs. */
export type PduTexts = TextBatches;

/**
 * Those of the events (of one room) that are stored, in the order of the ids; redacted ones in their redacted form.
 *
 * @throws MatrixError 404 M_NOT_FOUND if the room is purged meanwhile
 */
export async function* pduTexts(
  ctx: RoomsContext,
  { roomId, rules }: { readonly roomId: RoomId; readonly rules: RoomVersionRules },
  ids: readonly EventId[],
): AsyncGenerator<readonly string[]> {
  const { pool } = ctx.database;
  for await (const batch of eventPortions(pool, ids)) {
    const texts = await loadPduTexts(pool, batch);
    const redacted = await redactedAmong(ctx, rules, batch);
    await requireRoomHeld(pool, roomId);
    yield batch.flatMap((id) => {
      const pdu = redacted.get(id);
      return pdu === undefined ? (texts.get(id) ?? []) : stringifyJson(pdu);
    });
  }
}

async function redactedAmong(
  ctx: RoomsContext,
  rules: RoomVersionRules,
  ids: readonly EventId[],
): Promise<ReadonlyMap<EventId, Pdu>> {
  const named = (await redactionsNaming(ctx.database.pool, ids)).map(({ redacts }) => redacts);
  if (named.length === 0) return new Map();
  return await redactedForms(ctx, rules, [...(await loadEvents(ctx.database.pool, named)).values()]);
}

/** The redacted forms of those of the events (of one room) to which a redaction applies. */
export async function redactedForms(
  ctx: RoomsContext,
  rules: RoomVersionRules,
  events: readonly StoredEvent[],
): Promise<ReadonlyMap<EventId, Pdu>> {
  const redactions = await redactionsFor(ctx, events, rules);
  const redacted = events.filter(({ eventId }) => redactions.has(eventId));
  return new Map(redacted.map(({ eventId, pdu }) => [eventId, redact(pdu, rules)]));
}

import { powerLevelOf, requiredLevel } from "../../matrix/authorization/levels.ts";
import type { Event, Pdu } from "../../matrix/event.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateKeyOf } from "../../matrix/state.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { redactionsNaming } from "../../storage/redactions.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";

/**
 * The redaction that applies to each of the events (of one room), where one does. Redactions are applied when events
 * are read and never to what is stored: one that is rejected or soft-failed later, by the full state, then undoes
 * itself, and one that arrives before its event needs no memory.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v3/#handling-redactions
 */
export async function redactionsFor(
  ctx: RoomsContext,
  events: readonly StoredEvent[],
  rules: RoomVersionRules,
): Promise<ReadonlyMap<EventId, Event>> {
  const byId = new Map(events.map((event) => [event.eventId, event]));
  const applied = new Map<EventId, Event>();
  for (const { redacts, redaction } of await redactionsNaming(ctx.database.pool, [...byId.keys()])) {
    const target = byId.get(redacts);
    if (target !== undefined && !applied.has(redacts) && (await applies(ctx, redaction, target, rules))) {
      applied.set(redacts, redaction);
    }
  }
  return applied;
}

async function applies(
  ctx: RoomsContext,
  redaction: StoredEvent,
  target: StoredEvent,
  rules: RoomVersionRules,
): Promise<boolean> {
  const isValid = !redaction.rejected && !redaction.softFailed && redaction.roomId === target.roomId;
  if (!isValid || redactedBy(redaction.pdu, rules) !== target.eventId) {
    return false;
  }
  // v1–v2: the auth rules have asked this already.
  if (rules.redactionAuthRule || serverNameOf(redaction.pdu.sender) === serverNameOf(target.pdu.sender)) {
    return true;
  }
  return mayRedact(ctx, redaction, rules);
}

/** v11 on: the content names the event; before, the top of the redaction. */
function redactedBy(pdu: Pdu, rules: RoomVersionRules): JsonValue | undefined {
  return rules.redaction.redactsInContent ? pdu.content["redacts"] : pdu["redacts"];
}

async function mayRedact(ctx: RoomsContext, redaction: StoredEvent, rules: RoomVersionRules): Promise<boolean> {
  if (redaction.stateBefore === null) {
    return false;
  }
  const ids = await lookUpManyInSnapshot(ctx.database.pool, redaction.stateBefore, [
    ["m.room.create", ""],
    ["m.room.power_levels", ""],
  ]);
  const events = await loadEvents(ctx.database.pool, [...ids.values()]);
  const state = (type: string, stateKey: string): Event | undefined => {
    const id = ids.get(stateKeyOf(type, stateKey));
    return id === undefined ? undefined : events.get(id);
  };
  return powerLevelOf(redaction.pdu.sender, state, rules) >= requiredLevel("redact", state, rules);
}

import { depthOf, prevEventIds } from "../../../src/matrix/event.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { stringifyJson } from "../../../src/matrix/json.ts";
import { jsonPieces } from "../answer.ts";
import { eventOf, mustHave } from "../hosted-room.ts";
import type { HostedRoom } from "../hosted-room.ts";
import { servedText } from "../lies.ts";
import { lieNamed } from "../trouble.ts";
import { bodyOf, requireInRoom, visitedRoom } from "../visit.ts";
import type { Handler } from "../visit.ts";
import { pdusAnswer } from "./state-routes.ts";

/** Walks back along prev_events, nearest first; `from` itself stands in front. */
function* walkBack(room: HostedRoom, from: readonly EventId[], stopAt: ReadonlySet<EventId>): Generator<EventId> {
  const seen = new Set<EventId>(stopAt);
  let wave = from.filter((id) => !seen.has(id));
  while (wave.length > 0) {
    const next: EventId[] = [];
    for (const id of wave) {
      const event = eventOf(room, id);
      if (seen.has(id) || event === undefined || room.withheld.has(id)) continue;
      seen.add(id);
      yield id;
      next.push(...prevEventIds(event.pdu));
    }
    wave = next;
  }
}

function idsIn(value: unknown): EventId[] {
  return Array.isArray(value) ? value.filter((id): id is EventId => typeof id === "string") : [];
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid */
export const getMissingEvents: Handler = (visit) => {
  const room = visitedRoom(visit);
  requireInRoom(visit, room);
  const lied = lieNamed(visit.troubles, "gap");
  if (lied !== undefined) return { status: 200, pieces: jsonPieces({ events: lied.pdus.map(stringifyJson) }) };
  const body = bodyOf(visit);
  const latest = idsIn(body["latest_events"]);
  const most = lieNamed(visit.troubles, "short-gap")?.most ?? 20;
  const limit = Math.min(Number(body["limit"] ?? 10), most);
  const minDepth = Number(body["min_depth"] ?? 0);
  const found: EventId[] = [];
  for (const id of walkBack(room, latest, new Set(idsIn(body["earliest_events"])))) {
    if (found.length >= limit) break;
    // The latest events are known to the asker: it wants what lies before them.
    if (!latest.includes(id) && depthOf(mustHave(room, id).event.pdu) >= BigInt(minDepth)) found.push(id);
  }
  const every = lieNamed(visit.troubles, "missing-events")?.every ?? Number.POSITIVE_INFINITY;
  const told = found.filter((_id, index) => (index + 1) % every !== 0);
  const events = oldestFirst(room, told).map((id) => servedText(visit.troubles, mustHave(room, id)));
  return { status: 200, pieces: jsonPieces({ events }) };
};

function oldestFirst(room: HostedRoom, ids: readonly EventId[]): EventId[] {
  const depth = (id: EventId): number => Number(depthOf(mustHave(room, id).event.pdu));
  return ids.toSorted((one, other) => depth(one) - depth(other));
}

export const backfill: Handler = (visit) => {
  const room = visitedRoom(visit);
  requireInRoom(visit, room);
  const limit = Math.min(Number(visit.query.get("limit") ?? 100), 100);
  const found: EventId[] = [];
  for (const id of walkBack(room, visit.query.getAll("v") as EventId[], new Set())) {
    if (found.length >= limit) break;
    found.push(id);
  }
  return pdusAnswer(
    visit,
    found.map((id) => servedText(visit.troubles, mustHave(room, id))),
  );
};

import { paths } from "../../src/federation-api/endpoints.ts";
import { MatrixError } from "../../src/federation-api/matrix-error.ts";
import { authEventIds, prevEventIds } from "../../src/matrix/event.ts";
import type { Event } from "../../src/matrix/event.ts";
import { parsePdu } from "../../src/matrix/event-format.ts";
import { contentHashMatches } from "../../src/matrix/hashes.ts";
import type { EventId, KeyId, ServerName } from "../../src/matrix/identifiers.ts";
import { isJsonObject, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonValue } from "../../src/matrix/json.ts";
import { redact } from "../../src/matrix/redaction.ts";
import { requiredSigners, verifyEventSignatures } from "../../src/matrix/signatures.ts";
import { stateFromEntries, stateKeyOf } from "../../src/matrix/state.ts";
import { verdictOn } from "./compose-event.ts";
import { addEvent, currentState, eventOf, stateBeforeAll } from "./hosted-room.ts";
import type { HostedEvent, HostedRoom } from "./hosted-room.ts";
import { callServer, remoteKeysOf } from "./outbound.ts";
import { isOurs, keyLookupOf } from "./world.ts";
import type { World } from "./world.ts";

/** Who brought an event, and whom it is asked for what is missing. */
export interface Bringer {
  readonly world: World;
  readonly room: HostedRoom;
  readonly origin: ServerName;
}

/**
 * The checks of a received event, 1 to 6, and its place in the room. A rejected event is kept as such.
 *
 * @throws MatrixError for an event that is dropped: bad format, signature, or prev_events that can't be had
 */
export async function admitEvent(bringer: Bringer, pdu: JsonValue): Promise<HostedEvent> {
  const { world, room } = bringer;
  const verdict = parsePdu(pdu, room.rules);
  if (!verdict.ok) throw new MatrixError(400, "M_BAD_JSON", verdict.reason);
  const known = room.events.get(verdict.event.eventId);
  if (known !== undefined) return known;
  if (verdict.event.roomId !== room.roomId) throw new MatrixError(400, "M_BAD_JSON", "an event of another room");
  const signed = await checkedSignatures(world, room, verdict.event);
  await fetchMissing(bringer, signed);
  const judged = judge(room, signed);
  const hosted = { event: judged.event, text: stringifyJson(judged.event.pdu) };
  addEvent(room, hosted, judged.softFailed);
  world.news.emit("event", room, judged.event);
  return hosted;
}

async function checkedSignatures(world: World, room: HostedRoom, event: Event): Promise<Event> {
  const { rules } = room;
  for (const server of requiredSigners(event.pdu, rules, event.eventId)) {
    if (isOurs(world, server)) continue;
    const keyIds = Object.keys(event.pdu.signatures?.[server] ?? {}) as KeyId[];
    for (const keyId of keyIds) await remoteKeysOf(world, server, keyId);
  }
  const verdict = verifyEventSignatures(event.pdu, rules, event.eventId, keyLookupOf(world));
  if (!verdict.valid) throw new MatrixError(403, "M_FORBIDDEN", `signature of ${verdict.server}: ${verdict.reason}`);
  return contentHashMatches(event.pdu, rules) ? event : { ...event, pdu: redact(event.pdu, rules) };
}

function unknownOf(room: HostedRoom, ids: readonly EventId[]): EventId[] {
  return ids.filter((id) => !room.events.has(id));
}

/** Asks the bringer for the events between what the resident knows and this one. */
async function fetchMissing(bringer: Bringer, event: Event): Promise<void> {
  const { world, room, origin } = bringer;
  const missing = unknownOf(room, prevEventIds(event.pdu));
  if (missing.length === 0) return;
  if (isOurs(world, origin)) throw new MatrixError(400, "M_UNKNOWN", `missing prev_events ${missing.join(", ")}`);
  const { body } = await callServer(world, {
    origin: world.fronts[0]?.serverName ?? "",
    destination: origin,
    method: "POST",
    uri: paths.getMissingEvents(room.roomId),
    content: { earliest_events: [...room.extremities], latest_events: [event.eventId], limit: 20, min_depth: 0 },
  });
  const events = isJsonObject(body) ? (body["events"] ?? body["pdus"]) : undefined;
  for (const pdu of Array.isArray(events) ? (events as readonly JsonValue[]) : []) {
    const parsed = parsePdu(pdu, room.rules);
    if (parsed.ok && unknownOf(room, prevEventIds(parsed.event.pdu)).length === 0) await admitEvent(bringer, pdu);
  }
  const still = unknownOf(room, prevEventIds(event.pdu));
  if (still.length > 0) throw new MatrixError(400, "M_UNKNOWN", `missing prev_events ${still.join(", ")}`);
}

function judge(room: HostedRoom, event: Event): { event: Event; softFailed: boolean } {
  const auth = authEventIds(event.pdu).flatMap((id) => eventOf(room, id) ?? []);
  const claimed = stateFromEntries(
    auth
      .filter((one) => !one.rejected)
      .map((one) => [stateKeyOf(one.pdu.type, String(one.pdu.state_key)), one.eventId] as const),
  );
  const complete = auth.length === authEventIds(event.pdu).length;
  const before = stateBeforeAll(room, prevEventIds(event.pdu));
  const byClaim = room.rules.roomIdIsCreateEventHash ? withCreate(room, claimed) : claimed;
  const accepted = complete && verdictOn(room, event, byClaim).allowed && verdictOn(room, event, before).allowed;
  if (!accepted) return { event: { ...event, rejected: true }, softFailed: false };
  return { event, softFailed: !verdictOn(room, event, currentState(room)).allowed };
}

function withCreate(room: HostedRoom, claimed: ReturnType<typeof stateFromEntries>): typeof claimed {
  const create = stateKeyOf("m.room.create", "");
  return stateFromEntries([...claimed.base, [create, `$${room.roomId.slice(1)}` as const]]);
}

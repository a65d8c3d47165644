import { isStateEvent } from "../../src/matrix/event.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { stringifyJson } from "../../src/matrix/json.ts";
import type { HostedEvent, HostedRoom } from "./hosted-room.ts";
import { eventOf, mustHave } from "./hosted-room.ts";
import { lieNamed, liesNamed } from "./trouble.ts";
import type { Trouble } from "./trouble.ts";

/** The ids of a state as the front tells them. */
export function liedState(
  troubles: readonly Trouble[],
  room: HostedRoom,
  truth: readonly EventId[],
): readonly EventId[] {
  if (lieNamed(troubles, "empty-state") !== undefined) return [];
  let told = truth;
  for (const { type, stateKey, eventId } of liesNamed(troubles, "replace-state")) {
    told = told.filter((id) => !holdsKey(room, id, [type, stateKey]));
    if (eventId !== null) told = [...told, eventId];
  }
  if (lieNamed(troubles, "no-create") !== undefined) {
    told = told.filter((id) => !holdsKey(room, id, ["m.room.create", ""]));
  }
  const missing = lieNamed(troubles, "missing-state");
  return missing === undefined ? told : told.filter((_id, index) => (index + 1) % missing.every !== 0);
}

function holdsKey(room: HostedRoom, eventId: EventId, [type, stateKey]: readonly [string, string]): boolean {
  const pdu = eventOf(room, eventId)?.pdu;
  return pdu !== undefined && isStateEvent(pdu) && pdu.type === type && pdu.state_key === stateKey;
}

export function liedChain(troubles: readonly Trouble[], truth: ReadonlySet<EventId>): ReadonlySet<EventId> {
  const missing = liesNamed(troubles, "missing-auth");
  if (missing.length === 0) return truth;
  if (missing.some(({ eventId }) => eventId === undefined)) return new Set();
  const hidden = new Set(missing.map(({ eventId }) => eventId));
  return new Set([...truth].filter((id) => !hidden.has(id)));
}

/** The text of an event as the front serves it. */
export function servedText(troubles: readonly Trouble[], hosted: HostedEvent): string {
  const { pdu } = hosted.event;
  if (liesNamed(troubles, "bad-content").some(({ type }) => type === pdu.type)) {
    return stringifyJson({ ...pdu, content: { ...pdu.content, "test.rooms.changed": true } });
  }
  const spoilt = liesNamed(troubles, "spoil").find(({ eventId }) => eventId === hosted.event.eventId);
  if (spoilt?.how === "form") return stringifyJson({ ...pdu, depth: "deep" });
  if (spoilt !== undefined || liesNamed(troubles, "bad-signature").some(({ type }) => type === pdu.type)) {
    const broken = Object.entries(pdu.signatures ?? {}).map(([server, signatures]) => [
      server,
      Object.fromEntries(Object.keys(signatures).map((keyId) => [keyId, "A".repeat(86)])),
    ]);
    return stringifyJson({ ...pdu, signatures: Object.fromEntries(broken) as NonNullable<typeof pdu.signatures> });
  }
  return hosted.text;
}

/** The events' texts one by one; those that the resident withholds are left out. */
export function* textsOf(
  troubles: readonly Trouble[],
  room: HostedRoom,
  ids: Iterable<EventId>,
  list: "state" | "auth_chain" = "state",
): Generator<string> {
  for (const id of ids) {
    if (!room.withheld.has(id)) yield servedText(troubles, mustHave(room, id));
  }
  for (const repeated of liesNamed(troubles, "repeat")) {
    if (repeated.list !== list) continue;
    for (let left = repeated.times; left > 0; left -= 1) yield repeated.text;
  }
  if (list !== "auth_chain") return;
  for (const { pdu } of liesNamed(troubles, "foreign-auth")) yield stringifyJson(pdu);
}

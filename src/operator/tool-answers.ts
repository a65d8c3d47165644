import { authorize } from "../matrix/authorization/authorize.ts";
import { originServerTsOf } from "../matrix/event.ts";
import type { Event, Pdu } from "../matrix/event.ts";
import { contentHashMatches, eventIdOf } from "../matrix/hashes.ts";
import { isEventId, isKeyId, isRoomId } from "../matrix/identifiers.ts";
import type { EventId, KeyId, ServerName } from "../matrix/identifiers.ts";
import { isJsonArray, isJsonObject, LosslessNumber } from "../matrix/json.ts";
import type { JsonObject, JsonValue } from "../matrix/json.ts";
import { redact } from "../matrix/redaction.ts";
import { rulesOf } from "../matrix/room-versions.ts";
import type { RoomVersionRules } from "../matrix/room-versions.ts";
import { verifyJsonSignature } from "../matrix/signatures.ts";
import type { VerifyKey } from "../matrix/signatures.ts";
import { resolveState } from "../matrix/state-resolution/resolve.ts";
import { splitStateKey, stateEntries, stateFromEntries, stateKeyOf } from "../matrix/state.ts";
import type { StateMap } from "../matrix/state.ts";

/** What is wrong with a line of input: its `code` and message are the answer. */
export class ToolInputError extends Error {
  readonly code: "BAD_INPUT" | "UNKNOWN_EVENT" | "UNKNOWN_ROOM_VERSION";
  override readonly name = "ToolInputError";

  constructor(code: ToolInputError["code"], message: string) {
    super(message);
    this.code = code;
  }
}

/** The tools: each makes one answer of one line of input, and throws what is wrong with the line. */
export const TOOLS = {
  "resolve-state": answerResolveState,
  authorize: answerAuthorize,
  "event-id": answerEventId,
  redact: answerRedact,
  verify: answerVerify,
} as const satisfies Record<string, (input: JsonValue) => JsonObject>;

function answerResolveState(input: JsonValue): JsonObject {
  const request = object(input, "the line");
  const rules = rulesIn(request);
  const events = new Map<EventId, Event>();
  for (const entry of array(request["events"], "events")) {
    const event = eventIn(entry, "events", rules);
    events.set(event.eventId, event);
  }
  const stateSets = array(request["state_sets"], "state_sets").map((ids) => stateSetIn(ids, events));
  const state = resolveState({ rules, stateSets, event: (id) => events.get(id) });
  const resolved = [...stateEntries(state)].map(([key, id]) => [splitStateKey(key).join("\u001f"), id] as const);
  return { resolved: Object.fromEntries(resolved.sort(([one], [other]) => (one < other ? -1 : 1))) };
}

function answerAuthorize(input: JsonValue): JsonObject {
  const request = object(input, "the line");
  const rules = rulesIn(request);
  const event = eventIn(request["event"], "event", rules);
  const state = new Map<string, Event>();
  for (const entry of array(request["state"], "state")) {
    const stateEvent = eventIn(entry, "state", rules);
    state.set(keyOf(stateEvent), stateEvent);
  }
  const verdict = authorize(
    event,
    (type, stateKey) => {
      const found = state.get(stateKeyOf(type, stateKey));
      return found?.rejected === true ? undefined : found;
    },
    rules,
  );
  return { allowed: verdict.allowed, rule: verdict.rule, reason: verdict.allowed ? "" : verdict.reason };
}

function answerEventId(input: JsonValue): JsonObject {
  const { pdu, rules } = pduRequest(input);
  const eventId: unknown = eventIdOf(pdu, rules);
  if (!isEventId(eventId)) {
    throw new ToolInputError("BAD_INPUT", "in this room version, the event id is the pdu's event_id");
  }
  return { event_id: eventId };
}

function answerRedact(input: JsonValue): JsonObject {
  const { pdu, rules } = pduRequest(input);
  return { pdu: redact(pdu, rules) };
}

function answerVerify(input: JsonValue): JsonObject {
  const { pdu, rules, request } = pduRequest(input);
  const keys = request["keys"] === undefined ? {} : object(request["keys"], "keys");
  const redacted = redact(pdu, rules);
  const signatures = Object.entries(object(pdu["signatures"] ?? {}, "signatures")).map(([server, byKey]) => {
    const serverKeys = Object.hasOwn(keys, server) ? object(keys[server], `the keys of ${server}`) : {};
    const results = Object.keys(object(byKey, `the signatures of ${server}`)).map((keyId) => {
      const key = Object.hasOwn(serverKeys, keyId) ? keyIn(serverKeys[keyId], `${server} ${keyId}`) : undefined;
      return [keyId, key !== undefined && holds({ redacted, rules, server, keyId }, key)] as const;
    });
    return [server, Object.fromEntries(results)] as const;
  });
  return { hash_ok: contentHashMatches(pdu, rules), signatures: Object.fromEntries(signatures) };
}

interface Signature {
  readonly redacted: Pdu;
  readonly rules: RoomVersionRules;
  readonly server: ServerName;
  readonly keyId: string;
}

/**
 * v5 on: a key counts for events made while it was valid.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v5/#signing-key-validity-period
 */
function holds({ redacted, rules, server, keyId }: Signature, key: VerifyKey): boolean {
  if (rules.enforceKeyValidity && originServerTsOf(redacted) > (key.expiredTs ?? key.validUntilTs)) {
    return false;
  }
  return isKeyId(keyId) && verifyJsonSignature(redacted, server, keyId satisfies KeyId, key.publicKey);
}

function keyIn(value: JsonValue | undefined, what: string): VerifyKey {
  const entry = object(value, `the key ${what}`);
  const encoded = entry["key"];
  if (typeof encoded !== "string") {
    throw new ToolInputError("BAD_INPUT", `the key ${what} has no "key" in base64`);
  }
  const expiredTs = timestampIn(entry["expired_ts"], `expired_ts of ${what}`);
  return {
    publicKey: Buffer.from(encoded, "base64"),
    validUntilTs: timestampIn(entry["valid_until_ts"], `valid_until_ts of ${what}`) ?? Infinity,
    ...(expiredTs === undefined ? {} : { expiredTs }),
  };
}

function timestampIn(value: JsonValue | undefined, what: string): number | undefined {
  if (value === undefined || value === null) {
    return undefined;
  }
  return Number(integer(value, what).toString());
}

function pduRequest(input: JsonValue): { pdu: Pdu; rules: RoomVersionRules; request: JsonObject } {
  const request = object(input, "the line");
  const pdu = object(request["pdu"], "pdu");
  if (typeof pdu["type"] !== "string") {
    throw new ToolInputError("BAD_INPUT", "the pdu has no type");
  }
  object(pdu["content"], "the content of the pdu");
  integer(pdu["origin_server_ts"] ?? 0, "origin_server_ts of the pdu");
  return { pdu: pdu as Pdu, rules: rulesIn(request), request };
}

function rulesIn(request: JsonObject): RoomVersionRules {
  const version = request["room_version"];
  const rules = typeof version === "string" ? rulesOf(version) : undefined;
  if (rules === undefined) {
    throw new ToolInputError("UNKNOWN_ROOM_VERSION", `room_version ${JSON.stringify(version)} is not known`);
  }
  return rules;
}

/** What matters neither to the auth rules nor to the resolution may be missing: these are tools to try things with. */
const OPTIONAL_FIELDS = { prev_events: [], auth_events: [], depth: 0, origin_server_ts: 0 };

function eventIn(value: JsonValue | undefined, where: string, rules: RoomVersionRules): Event {
  const entry = object(value, `an entry of ${where}`);
  const eventId = entry["event_id"];
  if (!isEventId(eventId)) {
    throw new ToolInputError("BAD_INPUT", `an event_id in ${where} is ${JSON.stringify(eventId)}`);
  }
  const pdu: JsonObject = { ...OPTIONAL_FIELDS, ...object(entry["pdu"], `the pdu of ${eventId}`) };
  for (const field of ["type", "sender"]) {
    if (typeof pdu[field] !== "string") {
      throw new ToolInputError("BAD_INPUT", `the pdu of ${eventId} has no ${field}`);
    }
  }
  if (pdu["state_key"] !== undefined && typeof pdu["state_key"] !== "string") {
    throw new ToolInputError("BAD_INPUT", `the state_key of ${eventId} is not a string`);
  }
  object(pdu["content"], `the content of ${eventId}`);
  for (const field of ["prev_events", "auth_events"]) {
    if (!array(pdu[field], `${field} of ${eventId}`).every((edge) => isEventId(isJsonArray(edge) ? edge[0] : edge))) {
      throw new ToolInputError("BAD_INPUT", `${field} of ${eventId} are not event ids`);
    }
  }
  integer(pdu["depth"], `depth of ${eventId}`);
  integer(pdu["origin_server_ts"], `origin_server_ts of ${eventId}`);
  return { eventId, roomId: roomIdIn(pdu, eventId, rules), pdu: pdu as Pdu, rejected: entry["rejected"] === true };
}

function roomIdIn(pdu: JsonObject, eventId: EventId, rules: RoomVersionRules): Event["roomId"] {
  const roomId = pdu["room_id"];
  if (isRoomId(roomId)) {
    return roomId;
  }
  if (roomId === undefined && rules.roomIdIsCreateEventHash && pdu["type"] === "m.room.create") {
    return `!${eventId.slice(1)}`;
  }
  throw new ToolInputError("BAD_INPUT", `the room_id of ${eventId} is ${JSON.stringify(roomId)}`);
}

function stateSetIn(value: JsonValue, events: ReadonlyMap<EventId, Event>): StateMap {
  const entries = array(value, "an entry of state_sets").map((id) => {
    const event = isEventId(id) ? events.get(id) : undefined;
    if (event === undefined) {
      throw new ToolInputError(
        "UNKNOWN_EVENT",
        `the event ${JSON.stringify(id)} of a state set is not among the events`,
      );
    }
    return [keyOf(event), event.eventId] as const;
  });
  return stateFromEntries(entries);
}

function keyOf({ eventId, pdu }: Event): string {
  if (pdu.state_key === undefined) {
    throw new ToolInputError("BAD_INPUT", `${eventId} is in a state but has no state_key`);
  }
  return stateKeyOf(pdu.type, pdu.state_key);
}

function object(value: JsonValue | undefined, what: string): JsonObject {
  if (!isJsonObject(value)) {
    throw new ToolInputError("BAD_INPUT", `${what} is not an object`);
  }
  return value;
}

function array(value: JsonValue | undefined, what: string): readonly JsonValue[] {
  if (!isJsonArray(value)) {
    throw new ToolInputError("BAD_INPUT", `${what} is not an array`);
  }
  return value;
}

function integer(value: JsonValue | undefined, what: string): number | LosslessNumber {
  if (Number.isSafeInteger(value) || (value instanceof LosslessNumber && /^-?[0-9]+$/.test(value.value))) {
    return value as number | LosslessNumber;
  }
  throw new ToolInputError("BAD_INPUT", `${what} is not an integer`);
}

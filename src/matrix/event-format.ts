import { CanonicalJsonError } from "./canonical-json.ts";
import type { Event, Pdu } from "./event.ts";
import { eventIdOf, eventTexts, type EventTexts } from "./hashes.ts";
import { isEventId, isRoomId, isServerName, isUserId, serverNameOf } from "./identifiers.ts";
import { isJsonArray, isJsonObject, LosslessNumber } from "./json.ts";
import type { JsonObject, JsonValue } from "./json.ts";
import type { RoomVersionRules } from "./room-versions.ts";

type FormatVerdict =
  | { readonly ok: true; readonly event: Event; readonly texts: EventTexts }
  | { readonly ok: false; readonly reason: string };

/** @see https://spec.matrix.org/v1.19/client-server-api/#size-limits */
export const MAX_PDU_BYTES = 65_536;
export const MAX_FIELD_BYTES = 255;
const MAX_PREV_EVENTS = 20;
const MAX_AUTH_EVENTS = 10;
/** Of objects and arrays, the event itself counted. The parser of Synapse, Ruma and so Conduit goes no deeper. */
const MAX_PDU_NESTING = 127;

/** What is wrong with a part of an event, or undefined. */
type Complaint = string | undefined;
type Check = (pdu: JsonObject, rules: RoomVersionRules) => Complaint;

/**
 * Check 1 on a received event: has it the form of its room version? Its id is computed on the way. Neither hashes nor
 * signatures are checked. Never throws, whatever the value: a refused event is dropped.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
 */
export function parsePdu(value: JsonValue, rules: RoomVersionRules): FormatVerdict {
  if (!isJsonObject(value)) return { ok: false, reason: "not a JSON object" };
  for (const check of CHECKS) {
    const complaint = check(value, rules);
    if (complaint !== undefined) return { ok: false, reason: complaint };
  }
  const pdu = value as Pdu;
  const texts = writeTexts(pdu, rules);
  if (typeof texts === "string") return { ok: false, reason: texts };
  const eventId = eventIdOf(pdu, rules, texts.redacted);
  return { ok: true, event: { eventId, roomId: pdu.room_id ?? `!${eventId.slice(1)}`, pdu, rejected: false }, texts };
}

const CHECKS: readonly Check[] = [
  checkType,
  checkSender,
  checkRoomId,
  checkStateKey,
  checkContent,
  checkEventId,
  (pdu, rules) => checkEdges(pdu, "prev_events", MAX_PREV_EVENTS, rules),
  (pdu, rules) => checkEdges(pdu, "auth_events", MAX_AUTH_EVENTS, rules),
  checkDepth,
  checkOriginServerTs,
  checkHashes,
  checkSignatures,
  checkUnsigned,
  checkRedacts,
  checkValues,
];

function own(object: JsonObject, key: string): JsonValue | undefined {
  return Object.hasOwn(object, key) ? object[key] : undefined;
}

/** PostgreSQL's text holds no NUL, and no identifier of an honest server has one. */
function checkShortText(value: string, name: string): Complaint {
  if (value.includes("\u0000")) return `${name} holds a NUL character`;
  if (value.length > MAX_FIELD_BYTES || Buffer.byteLength(value) > MAX_FIELD_BYTES) {
    return `${name} is longer than ${MAX_FIELD_BYTES} bytes`;
  }
  return undefined;
}

function checkType(pdu: JsonObject): Complaint {
  const type = own(pdu, "type");
  return typeof type === "string" ? checkShortText(type, "type") : "type is not a string";
}

function checkSender(pdu: JsonObject): Complaint {
  const sender = own(pdu, "sender");
  if (typeof sender !== "string") return "sender is not a string";
  const complaint = checkShortText(sender, "sender");
  if (complaint !== undefined) return complaint;
  if (!isUserId(sender) || !isServerName(serverNameOf(sender))) return "sender is not a user id";
  return undefined;
}

/** v12 on: the create event names its room by its own hash, so it can't hold the room's id. */
function checkRoomId(pdu: JsonObject, rules: RoomVersionRules): Complaint {
  const roomId = own(pdu, "room_id");
  if (rules.roomIdIsCreateEventHash && pdu["type"] === "m.room.create" && pdu["state_key"] === "") {
    return roomId === undefined ? undefined : "the create event has a room_id";
  }
  if (typeof roomId !== "string") return "room_id is not a string";
  const complaint = checkShortText(roomId, "room_id");
  if (complaint !== undefined) return complaint;
  if (!isRoomId(roomId)) return "room_id is not a room id";
  if (!rules.roomIdIsCreateEventHash && !roomId.includes(":")) return "room_id has no server name";
  return undefined;
}

function checkStateKey(pdu: JsonObject): Complaint {
  const stateKey = own(pdu, "state_key");
  if (stateKey === undefined) return undefined;
  return typeof stateKey === "string" ? checkShortText(stateKey, "state_key") : "state_key is not a string";
}

function checkContent(pdu: JsonObject): Complaint {
  const content = own(pdu, "content");
  if (!isJsonObject(content)) return "content is not an object";
  const membership = pdu["type"] === "m.room.member" ? own(content, "membership") : undefined;
  return typeof membership === "string" ? checkShortText(membership, "membership") : undefined;
}

/** v1–v2 only: later the form has no `event_id`, and Synapse drops an event that claims one. */
function checkEventId(pdu: JsonObject, rules: RoomVersionRules): Complaint {
  const eventId = own(pdu, "event_id");
  if (rules.eventIdFormat !== "chosen-by-sender") {
    return eventId === undefined ? undefined : "event_id is not part of an event of this room version";
  }
  if (typeof eventId !== "string") return "event_id is not a string";
  const complaint = checkShortText(eventId, "event_id");
  if (complaint !== undefined) return complaint;
  if (!isEventId(eventId) || !isServerName(serverNameOf(eventId))) return "event_id is not an event id";
  return undefined;
}

function checkEdges(
  pdu: JsonObject,
  name: "prev_events" | "auth_events",
  limit: number,
  rules: RoomVersionRules,
): Complaint {
  const edges = own(pdu, name);
  if (!isJsonArray(edges)) return `${name} is not an array`;
  if (edges.length > limit) return `${name} has ${edges.length} entries, more than ${limit}`;
  for (const edge of edges) {
    const eventId = rules.edgesCarryHashes ? idOfPair(edge) : edge;
    if (!isEventId(eventId))
      return `${name} holds something else than ${rules.edgesCarryHashes ? "pairs" : "event ids"}`;
    if (eventId.includes("\u0000")) return `${name} holds a NUL character`;
  }
  return undefined;
}

/** v1–v2: `[event id, { algorithm: hash }]`. */
function idOfPair(edge: JsonValue): JsonValue | undefined {
  return isJsonArray(edge) && edge.length === 2 && isJsonObject(edge[1]) ? edge[0] : undefined;
}

const INTEGER = /^-?\d{1,19}$/;

function integerOf(value: JsonValue | undefined): bigint | undefined {
  if (typeof value === "number") return Number.isInteger(value) ? BigInt(value) : undefined;
  return value instanceof LosslessNumber && INTEGER.test(value.value) ? BigInt(value.value) : undefined;
}

function checkDepth(pdu: JsonObject, rules: RoomVersionRules): Complaint {
  const depth = integerOf(own(pdu, "depth"));
  if (depth === undefined) return "depth is not an integer";
  return depth < 0n || depth > rules.maxDepth ? `depth is not within 0 and ${rules.maxDepth}` : undefined;
}

const MAX_TIMESTAMP = 2n ** 63n - 1n;

function checkOriginServerTs(pdu: JsonObject): Complaint {
  const ts = integerOf(own(pdu, "origin_server_ts"));
  if (ts === undefined) return "origin_server_ts is not an integer";
  return ts < -MAX_TIMESTAMP || ts > MAX_TIMESTAMP ? "origin_server_ts is out of range" : undefined;
}

function checkHashes(pdu: JsonObject): Complaint {
  const hashes = own(pdu, "hashes");
  if (!isJsonObject(hashes)) return "hashes is not an object";
  return typeof own(hashes, "sha256") === "string" ? undefined : "hashes has no sha256";
}

function checkSignatures(pdu: JsonObject): Complaint {
  const signatures = own(pdu, "signatures");
  if (!isJsonObject(signatures)) return "signatures is not an object";
  for (const ofServer of Object.values(signatures)) {
    if (!isJsonObject(ofServer)) return "signatures holds something else than objects";
    if (Object.values(ofServer).some((signature) => typeof signature !== "string"))
      return "a signature is not a string";
  }
  return undefined;
}

function checkUnsigned(pdu: JsonObject): Complaint {
  const unsigned = own(pdu, "unsigned");
  return unsigned === undefined || isJsonObject(unsigned) ? undefined : "unsigned is not an object";
}

/** v1–v10: a redaction names its victim at the top level; whether it is a sensible one is not a matter of form. */
function checkRedacts(pdu: JsonObject, rules: RoomVersionRules): Complaint {
  const redacts = own(pdu, "redacts");
  if (rules.redaction.redactsInContent || pdu["type"] !== "m.room.redaction" || redacts === undefined) return undefined;
  return typeof redacts === "string" ? undefined : "redacts is not a string";
}

/**
 * Nesting, and from v6 on numbers: integers only, written as such. Synapse takes `-0`, and refuses `1e10` although its
 * canonical form exists; to accept what others drop would split the room.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v6/#canonical-json
 */
function checkValues(pdu: JsonObject, rules: RoomVersionRules): Complaint {
  for (const key of Object.keys(pdu)) {
    const complaint = NOT_COUNTED.has(key) ? undefined : checkValue(pdu[key], 1, rules);
    if (complaint !== undefined) return complaint;
  }
  return undefined;
}

/** @param depth how many objects and arrays the value stands in. */
function checkValue(value: JsonValue | undefined, depth: number, rules: RoomVersionRules): Complaint {
  if (typeof value === "number") return checkNumber(value, rules);
  if (typeof value !== "object" || value === null) return undefined;
  if (value instanceof LosslessNumber) return checkNumber(value, rules);
  if (depth >= MAX_PDU_NESTING) return `nested deeper than ${MAX_PDU_NESTING} levels`;
  for (const member of isJsonArray(value) ? value : Object.values(value)) {
    const complaint = checkValue(member, depth + 1, rules);
    if (complaint !== undefined) return complaint;
  }
  return undefined;
}

function checkNumber(value: number | LosslessNumber, rules: RoomVersionRules): Complaint {
  const fits = typeof value === "number" ? Number.isSafeInteger(value) : value.value === "-0";
  if (fits || !rules.strictCanonicalJson) return undefined;
  return `the number ${value.toString()} is not written as an integer within ±(2^53 − 1)`;
}

/**
 * Every server puts its own `unsigned` onto an event in passing: it is no part of what servers must agree on, and a fat
 * one must not make us drop what others keep.
 */
const NOT_COUNTED = new Set(["unsigned"]);

function writeTexts(pdu: Pdu, rules: RoomVersionRules): EventTexts | string {
  try {
    const texts = eventTexts(pdu, rules);
    const { content, proofs } = texts;
    // No character takes more than three bytes per UTF-16 unit, so most events need not be measured.
    const mayBeLarge = (content.length + proofs.length) * 3 > MAX_PDU_BYTES;
    if (mayBeLarge && Buffer.byteLength(content) + Buffer.byteLength(proofs) > MAX_PDU_BYTES) {
      return `larger than ${MAX_PDU_BYTES} bytes`;
    }
    return texts;
  } catch (error) {
    if (error instanceof CanonicalJsonError) return error.message;
    throw error;
  }
}

import type {
  DirectoryResponse,
  MembershipTemplate,
  SendJoinSummary,
  ServerKeysResponse,
  TransactionResponse,
} from "../federation-api/endpoints.ts";
import { isEventId, isRoomId, isServerName } from "../matrix/identifiers.ts";
import type { EventId, ServerName } from "../matrix/identifiers.ts";
import { isJsonArray, isJsonObject } from "../matrix/json.ts";
import type { JsonObject, JsonValue } from "../matrix/json.ts";
import { LargeJsonError } from "./json-splitter.ts";

/**
 * What the endpoints promise, held against what came: each function gives the answer's shape or throws LargeJsonError,
 * which the caller turns into a failure of the server that was asked. Events themselves are not looked into.
 */

function fault(what: string): never {
  throw new LargeJsonError(what);
}

export function objectOf(value: JsonValue | undefined, what = "the answer"): JsonObject {
  return isJsonObject(value) ? value : fault(`${what} is not an object`);
}

function listOf(value: JsonValue | undefined, what: string): readonly JsonValue[] {
  return isJsonArray(value) ? value : fault(`${what} is not a list`);
}

/** A reader of the list that stands under `member`. */
export function listIn(member: string): (answer: JsonValue) => readonly JsonValue[] {
  return (answer) => listOf(objectOf(answer)[member], member);
}

/** A list of servers may hold what we can't ask; the others are still worth having. */
function serverNamesOf(value: JsonValue | undefined): readonly ServerName[] | undefined {
  return isJsonArray(value) ? [...new Set(value.filter(isServerName))] : undefined;
}

export function membershipTemplateOf(answer: JsonValue): MembershipTemplate {
  const { event, room_version: version } = objectOf(answer);
  const template = objectOf(event, "the template");
  if (version === undefined) return { event: template };
  return typeof version === "string" ? { event: template, room_version: version } : fault("room_version is no string");
}

export const SEND_JOIN_MEMBERS = [
  "event",
  "origin",
  "members_omitted",
  "servers_in_room",
  // What servers of the time before MSC3706 was merged say instead.
  "org.matrix.msc3706.partial_state",
  "org.matrix.msc3706.servers_in_room",
] as const;

export function sendJoinSummaryOf(members: ReadonlyMap<string, JsonValue>): SendJoinSummary {
  const event = members.get("event");
  const origin = members.get("origin");
  const omitted = members.get("members_omitted") ?? members.get("org.matrix.msc3706.partial_state") ?? false;
  const servers = serverNamesOf(members.get("servers_in_room") ?? members.get("org.matrix.msc3706.servers_in_room"));
  if (typeof omitted !== "boolean") fault("members_omitted is neither true nor false");
  return {
    membersOmitted: omitted,
    ...(isJsonObject(event) ? { event } : {}),
    ...(isServerName(origin) ? { origin } : {}),
    ...(servers === undefined ? {} : { serversInRoom: servers }),
  };
}

/** `/event` answers with a transaction of one event. */
export function singleEventOf(answer: JsonValue): JsonValue {
  const pdus = listOf(objectOf(answer)["pdus"], "pdus");
  const [pdu] = pdus;
  return pdu === undefined || pdus.length > 1 ? fault(`pdus holds ${pdus.length} events instead of one`) : pdu;
}

export function transactionResponseOf(answer: JsonValue): TransactionResponse {
  const pdus: Record<EventId, { error?: string }> = {};
  for (const [eventId, result] of Object.entries(objectOf(objectOf(answer)["pdus"], "pdus"))) {
    if (!isEventId(eventId)) continue;
    const error = isJsonObject(result) ? result["error"] : undefined;
    pdus[eventId] = typeof error === "string" ? { error } : {};
  }
  return { pdus };
}

export function directoryResponseOf(answer: JsonValue): DirectoryResponse {
  const { room_id: roomId, servers } = objectOf(answer);
  return { room_id: isRoomId(roomId) ? roomId : fault("room_id is no room id"), servers: serverNamesOf(servers) ?? [] };
}

/** A knock that tells nothing of its room is one all the same. */
export function knockRoomStateOf(answer: JsonValue): readonly JsonValue[] {
  const { knock_room_state: state } = objectOf(answer);
  return state === undefined ? [] : listOf(state, "knock_room_state");
}

/** The invited server's copy of the event, with its signature. */
export function signedInviteOf(answer: JsonValue): JsonObject {
  return objectOf(objectOf(answer)["event"], "event");
}

function isKeyMap(value: JsonValue | undefined, members: readonly (readonly [string, "string" | "number"])[]): boolean {
  if (!isJsonObject(value)) return false;
  return Object.values(value).every(
    (entry) => isJsonObject(entry) && members.every(([name, type]) => typeof entry[name] === type),
  );
}

/** Whether the value is a server's list of keys; its signatures are not checked here. */
export function isServerKeys(value: JsonValue | undefined): value is ServerKeysResponse {
  if (!isJsonObject(value) || !isServerName(value["server_name"])) return false;
  const old = value["old_verify_keys"];
  return (
    typeof value["valid_until_ts"] === "number" &&
    isJsonObject(value["signatures"]) &&
    isKeyMap(value["verify_keys"], [["key", "string"]]) &&
    (old === undefined ||
      isKeyMap(old, [
        ["key", "string"],
        ["expired_ts", "number"],
      ]))
  );
}

export function serverKeysOf(answer: JsonValue): ServerKeysResponse {
  return isServerKeys(answer) ? answer : fault("the answer is no list of keys");
}

import { MatrixError } from "../federation-api/matrix-error.ts";
import { isEventId, isRoomAlias, isRoomId, isUserId } from "../matrix/identifiers.ts";
import type { EventId, RoomAlias, RoomId, UserId } from "../matrix/identifiers.ts";
import { isJsonObject } from "../matrix/json.ts";
import type { JsonObject, JsonValue } from "../matrix/json.ts";
import { invalidParam, missingParam } from "./endpoint.ts";
import type { FederationRequest } from "./endpoint.ts";

/** PostgreSQL holds no NUL, so no identifier that has one names anything here. */
function storable(value: string): boolean {
  return !value.includes("\0");
}

function pathParameter<T extends string>(
  request: FederationRequest,
  name: string,
  is: (value: unknown) => value is T,
): T {
  return checked(request.params[name] ?? null, name, is);
}

function checked<T extends string>(value: string | null, name: string, is: (value: unknown) => value is T): T {
  if (value === null) throw missingParam(name);
  if (!is(value) || !storable(value)) throw invalidParam(name, "a well-formed identifier");
  return value;
}

export function roomIdOf(request: FederationRequest): RoomId {
  return pathParameter(request, "roomId", isRoomId);
}

export function eventIdOfPath(request: FederationRequest): EventId {
  return pathParameter(request, "eventId", isEventId);
}

export function userIdOf(request: FederationRequest): UserId {
  return pathParameter(request, "userId", isUserId);
}

export function txnIdOf(request: FederationRequest): string {
  return pathParameter(
    request,
    "txnId",
    (value): value is string => typeof value === "string" && value.length > 0 && value.length <= 255,
  );
}

export function eventIdOfQuery(request: FederationRequest): EventId {
  return checked(request.query.get("event_id"), "event_id", isEventId);
}

/** All values of a parameter of the query that may be repeated. */
export function eventIdsOfQuery(request: FederationRequest, name: string): readonly EventId[] {
  const values = request.query.getAll(name);
  if (values.length === 0) throw missingParam(name);
  return values.map((value) => checked(value, name, isEventId));
}

export function userIdOfQuery(request: FederationRequest): UserId {
  return checked(request.query.get("user_id"), "user_id", isUserId);
}

export function roomAliasOfQuery(request: FederationRequest): RoomAlias {
  return checked(request.query.get("room_alias"), "room_alias", isRoomAlias);
}

/** A non-negative whole number of the query. */
export function countOfQuery(request: FederationRequest, name: string): number {
  const text = request.query.get(name);
  if (text === null) throw missingParam(name);
  if (!/^[0-9]{1,15}$/.test(text)) throw invalidParam(name, "a non-negative integer");
  return Number(text);
}

/** `true` or `false`; absent counts as false. */
export function flagOfQuery(request: FederationRequest, name: string): boolean {
  const text = request.query.get(name);
  if (text !== null && text !== "true" && text !== "false") throw invalidParam(name, "true or false");
  return text === "true";
}

/** The body where it must be an object. */
export function objectBody(request: FederationRequest): JsonObject {
  if (request.body === undefined) throw new MatrixError(400, "M_NOT_JSON", "The request has no body");
  if (!isJsonObject(request.body)) throw new MatrixError(400, "M_BAD_JSON", "The body is not a JSON object");
  return request.body;
}

export function arrayIn(body: JsonObject, name: string): readonly JsonValue[] {
  const value = body[name];
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new MatrixError(400, "M_BAD_JSON", `${name} is not an array`);
  return value;
}

/** The event ids of a body's array. */
export function eventIdsIn(body: JsonObject, name: string): readonly EventId[] {
  return arrayIn(body, name).map((value) => {
    if (!isEventId(value) || !storable(value)) throw new MatrixError(400, "M_BAD_JSON", `${name} holds no event ids`);
    return value;
  });
}

/** A whole number of the body, `fallback` where it is absent. */
export function countIn(body: JsonObject, name: string, fallback: number): number {
  const value = body[name];
  if (value === undefined) return fallback;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
    throw new MatrixError(400, "M_BAD_JSON", `${name} is not a non-negative integer`);
  }
  return value;
}

import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { isEventId, isRoomAlias, isRoomId, isServerName, isUserId } from "../matrix/identifiers.ts";
import type { EventId, RoomAlias, RoomId, ServerName, UserId } from "../matrix/identifiers.ts";
import { isJsonObject } from "../matrix/json.ts";
import type { JsonObject } from "../matrix/json.ts";
import type { ClientRequest } from "./route.ts";

/** PostgreSQL holds no NUL, so nothing that has one names anything here. */
export const storableText = z
  .string()
  .min(1)
  .max(255)
  .refine((text) => !text.includes("\0"), "holds a NUL");
export const jsonObject = z.custom<JsonObject>(isJsonObject, "expected a JSON object");
export const userId = z.custom<UserId>(isUserId, "expected a user id (@name:server)");
export const roomId = z.custom<RoomId>(isRoomId, "expected a room id (!opaque)");
export const eventId = z.custom<EventId>(isEventId, "expected an event id ($opaque)");
export const roomAlias = z.custom<RoomAlias>(isRoomAlias, "expected a room alias (#name:server)");
export const serverName = z.custom<ServerName>(isServerName, "expected a server name");

/** The entries of an object whose schema takes user ids only. */
export function byUser<T>(record: Readonly<Record<UserId, T>>): ReadonlyMap<UserId, T> {
  return new Map(Object.entries(record).map(([user, value]) => [user as UserId, value]));
}

function explain(error: z.ZodError, what: string): string {
  const [issue] = error.issues;
  const field = [what, ...(issue?.path ?? [])].map(String).join(".");
  return `${field}: ${issue?.message ?? "invalid"}`;
}

/**
 * The request's body as the schema reads it; an absent one counts as empty.
 *
 * @throws MatrixError 400 M_BAD_JSON that names the field
 */
export function parseBody<T>(request: ClientRequest, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(request.body ?? {});
  if (!parsed.success) {
    throw new MatrixError(400, "M_BAD_JSON", explain(parsed.error, "body"));
  }
  return parsed.data;
}

/**
 * A parameter of the path or of the query as the schema reads it.
 *
 * @throws MatrixError 400 M_INVALID_PARAM that names it
 */
export function parseParam<T>(name: string, value: unknown, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    throw new MatrixError(400, "M_INVALID_PARAM", explain(parsed.error, name));
  }
  return parsed.data;
}

export function roomIdParam(request: ClientRequest): RoomId {
  return parseParam("roomId", request.params["roomId"], roomId);
}

export function eventIdParam(request: ClientRequest): EventId {
  return parseParam("eventId", request.params["eventId"], eventId);
}

export function userIdParam(request: ClientRequest): UserId {
  return parseParam("userId", request.params["userId"], userId);
}

/** A whole number of the query, `fallback` where it is absent. */
export function integerQuery(request: ClientRequest, name: string, fallback: number): number {
  const text = request.query.get(name);
  return text === null ? fallback : parseParam(name, text, z.coerce.number().int().min(0));
}

export function booleanQuery(request: ClientRequest, name: string): boolean {
  const text = request.query.get(name);
  return text !== null && parseParam(name, text, z.enum(["true", "false"])) === "true";
}

/** The given names of the query, those that are present. */
export function enumQuery<T extends string>(request: ClientRequest, name: string, values: readonly T[]): T | undefined {
  const text = request.query.get(name);
  return text === null ? undefined : parseParam(name, text, z.enum(values as [T, ...T[]]) as unknown as z.ZodType<T>);
}

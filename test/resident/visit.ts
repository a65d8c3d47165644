import { MatrixError } from "../../src/federation-api/matrix-error.ts";
import type { EventId, RoomId, ServerName, UserId } from "../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import type { Answer } from "./answer.ts";
import type { Front } from "./front.ts";
import { currentState, joinedByServer } from "./hosted-room.ts";
import type { HostedEvent, HostedRoom } from "./hosted-room.ts";
import type { Endpoint, Trouble } from "./trouble.ts";
import type { World } from "./world.ts";

/** One request, taken apart and its sender checked. */
export interface Visit {
  readonly world: World;
  readonly front: Front;
  readonly endpoint: Endpoint;
  /** The variable parts of the path, decoded. */
  readonly path: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** Undefined for the endpoints that are open to anyone. */
  readonly origin: ServerName | undefined;
  readonly body: JsonValue | undefined;
  readonly troubles: readonly Trouble[];
}

export type Handler = (visit: Visit) => Answer | Promise<Answer>;

export function ok(body: JsonObject): Answer {
  return { status: 200, body };
}

export function bodyOf(visit: Visit): JsonObject {
  if (!isJsonObject(visit.body)) throw new MatrixError(400, "M_NOT_JSON", "a JSON object was expected");
  return visit.body;
}

export function visitedRoom(visit: Visit): HostedRoom {
  const room = visit.world.rooms.get((visit.path["room"] ?? "") as RoomId);
  if (room === undefined) throw new MatrixError(404, "M_NOT_FOUND", "the resident has no such room");
  return room;
}

export function visitedUser(visit: Visit): UserId {
  return (visit.path["user"] ?? "") as UserId;
}

export function visitedEventId(visit: Visit): EventId {
  return (visit.path["event"] ?? visit.query.get("event_id") ?? "") as EventId;
}

/** What a resident answers to a server that it has not seen joining. */
export function requireInRoom(visit: Visit, room: HostedRoom): void {
  if (visit.origin === undefined || joinedByServer(room, currentState(room)).has(visit.origin)) return;
  throw new MatrixError(403, "M_FORBIDDEN", "Host not in room.");
}

export function servedEvent(room: HostedRoom, eventId: EventId): HostedEvent {
  const hosted = room.withheld.has(eventId) ? undefined : room.events.get(eventId);
  if (hosted === undefined) throw new MatrixError(404, "M_NOT_FOUND", `the resident has no event ${eventId}`);
  return hosted;
}

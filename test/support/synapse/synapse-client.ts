import { randomUUID } from "node:crypto";
import { isJsonObject, parseJson, stringifyJson } from "../../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import type { EventId, RoomAlias, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import type { Synapse } from "./start-synapse.ts";

/** A logged-in user of a Synapse. */
export interface SynapseUser {
  readonly synapse: Synapse;
  readonly userId: UserId;
  readonly accessToken: string;
}

export class SynapseError extends Error {
  override readonly name = "SynapseError";
  readonly status: number;
  readonly body: JsonValue;

  constructor(what: string, status: number, body: JsonValue) {
    super(`${what}: ${status} ${stringifyJson(body)}`);
    this.status = status;
    this.body = body;
  }
}

interface Call {
  readonly method: "GET" | "POST" | "PUT";
  /** Below `/_matrix/client/v3`, its parts encoded. */
  readonly path: string;
  readonly body?: JsonObject;
}

/** Numbers pass without loss both ways. */
async function call(
  synapse: Synapse,
  accessToken: string | undefined,
  { method, path, body }: Call,
): Promise<JsonValue> {
  const response = await fetch(`${synapse.clientUrl}/_matrix/client/v3${path}`, {
    method,
    headers: {
      "content-type": "application/json",
      ...(accessToken === undefined ? {} : { authorization: `Bearer ${accessToken}` }),
    },
    ...(body === undefined ? {} : { body: stringifyJson(body) }),
  });
  const text = await response.text();
  const answer = text.startsWith("{") || text.startsWith("[") ? parseJson(text) : text;
  if (!response.ok) throw new SynapseError(`${method} ${path}`, response.status, answer);
  return answer;
}

function pathOf(...parts: readonly string[]): string {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

/**
 * Any call of the client-server API.
 *
 * @param path below `/_matrix/client/v3`.
 * @throws {SynapseError} for every other status than 2xx.
 */
export function callAs(
  user: SynapseUser,
  method: Call["method"],
  path: string,
  body?: JsonObject,
): Promise<JsonObject> {
  return callForObject(user, { method, path, ...(body === undefined ? {} : { body }) });
}

async function callForObject(user: SynapseUser, request: Call): Promise<JsonObject> {
  const answer = await call(user.synapse, user.accessToken, request);
  if (!isJsonObject(answer)) throw new SynapseError(`${request.method} ${request.path}`, 200, answer);
  return answer;
}

export async function registerUser(synapse: Synapse, name: string): Promise<SynapseUser> {
  const body = { username: name, password: randomUUID(), auth: { type: "m.login.dummy" } };
  const answer = (await call(synapse, undefined, { method: "POST", path: "/register", body })) as JsonObject;
  return { synapse, userId: answer["user_id"] as UserId, accessToken: answer["access_token"] as string };
}

export interface NewRoom {
  readonly version: RoomVersion;
  /** Of `createRoom`; `public_chat` if it is left out. */
  readonly preset?: "public_chat" | "private_chat" | "trusted_private_chat";
  /** More of the body of `createRoom`. */
  readonly options?: JsonObject;
}

export async function createSynapseRoom(user: SynapseUser, room: NewRoom): Promise<RoomId> {
  const body = { room_version: room.version, preset: room.preset ?? "public_chat", ...room.options };
  return (await callAs(user, "POST", "/createRoom", body))["room_id"] as RoomId;
}

/** @param via servers to join through, where the room is not on this Synapse yet. */
export async function joinOnSynapse(
  user: SynapseUser,
  room: RoomId | RoomAlias,
  via: readonly string[] = [],
): Promise<RoomId> {
  const query = via.map((server) => `via=${encodeURIComponent(server)}&server_name=${encodeURIComponent(server)}`);
  return (await callAs(user, "POST", `${pathOf("join", room)}?${query.join("&")}`, {}))["room_id"] as RoomId;
}

export async function sendMessage(user: SynapseUser, roomId: RoomId, body: string): Promise<EventId> {
  return sendEvent(user, roomId, "m.room.message", { msgtype: "m.text", body });
}

export async function sendEvent(
  user: SynapseUser,
  roomId: RoomId,
  type: string,
  content: JsonObject,
): Promise<EventId> {
  const path = pathOf("rooms", roomId, "send", type, randomUUID());
  return (await callAs(user, "PUT", path, content))["event_id"] as EventId;
}

export interface StateToSet {
  readonly type: string;
  readonly stateKey?: string;
  readonly content: JsonObject;
}

export async function setState(user: SynapseUser, roomId: RoomId, state: StateToSet): Promise<EventId> {
  const path = `${pathOf("rooms", roomId, "state", state.type)}/${encodeURIComponent(state.stateKey ?? "")}`;
  return (await callAs(user, "PUT", path, state.content))["event_id"] as EventId;
}

export type MembershipAction = "invite" | "kick" | "ban" | "unban";

/** What one member does to another. */
export async function changeMember(
  user: SynapseUser,
  roomId: RoomId,
  action: MembershipAction,
  target: UserId,
): Promise<void> {
  await callAs(user, "POST", pathOf("rooms", roomId, action), { user_id: target });
}

export async function leaveOnSynapse(user: SynapseUser, roomId: RoomId): Promise<void> {
  await callAs(user, "POST", pathOf("rooms", roomId, "leave"), {});
}

export async function redactOnSynapse(user: SynapseUser, roomId: RoomId, eventId: EventId): Promise<EventId> {
  const path = pathOf("rooms", roomId, "redact", eventId, randomUUID());
  return (await callAs(user, "PUT", path, { reason: "test" }))["event_id"] as EventId;
}

/** Every state event of the room, in the client format, as Synapse answers it to a member. */
export async function readState(user: SynapseUser, roomId: RoomId): Promise<readonly JsonObject[]> {
  const request = { method: "GET", path: pathOf("rooms", roomId, "state") } as const;
  return (await call(user.synapse, user.accessToken, request)) as readonly JsonObject[];
}

/** The newest events first, in the client format. */
export async function readMessages(user: SynapseUser, roomId: RoomId, limit = 100): Promise<readonly JsonObject[]> {
  const answer = await callAs(user, "GET", `${pathOf("rooms", roomId, "messages")}?dir=b&limit=${limit}`);
  return answer["chunk"] as readonly JsonObject[];
}

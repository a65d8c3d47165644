import { paths } from "../../src/federation-api/endpoints.ts";
import type { Pdu } from "../../src/matrix/event.ts";
import { eventIdOf } from "../../src/matrix/hashes.ts";
import type { EventId, ServerName, UserId } from "../../src/matrix/identifiers.ts";
import { isJsonObject } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { hashAndSignEvent } from "../../src/matrix/signatures.ts";
import type { Front } from "./front.ts";
import type { HostedRoom } from "./hosted-room.ts";
import { callServer } from "./outbound.ts";
import type { Reply } from "./outbound.ts";
import { startResident } from "./resident.ts";

/** A plain server that joins rooms by hand: it answers its keys, takes transactions, and asks what it is told to ask. */
export interface JoiningServer {
  readonly serverName: ServerName;
  readonly front: Front;
  /** A signed request; GET unless told otherwise. */
  ask(destination: ServerName, uri: string, put?: { method: "PUT" | "POST"; content: JsonValue }): Promise<Reply>;
  /** A user of this server that nobody knows yet. */
  newUser(): UserId;
  /** make_join, completed and signed. */
  signedJoin(destination: ServerName, room: HostedRoom, user: UserId): Promise<{ pdu: Pdu; eventId: EventId }>;
  join(destination: ServerName, room: HostedRoom, omitMembers: boolean): Promise<JoinAnswer>;
  close(): Promise<void>;
}

export interface JoinAnswer {
  readonly room: HostedRoom;
  readonly user: UserId;
  readonly eventId: EventId;
  readonly body: JsonObject;
}

export async function startJoiningServer(): Promise<JoiningServer> {
  const resident = await startResident();
  const { serverName, front } = resident;
  let users = 0;
  const ask: JoiningServer["ask"] = async (destination, uri, put) =>
    await callServer(resident.world, { origin: serverName, destination, uri, method: "GET", ...put });
  const newUser = (): UserId => {
    users += 1;
    return `@joiner-${users}:${serverName}`;
  };
  const signedJoin: JoiningServer["signedJoin"] = async (destination, room, user) => {
    const template = objectOf(await ask(destination, paths.makeJoin(room.roomId, user, [room.rules.version])));
    const chosen = room.rules.edgesCarryHashes ? { event_id: `$${user.slice(1)}` } : {};
    const event = { ...(template["event"] as Pdu), ...chosen, origin: serverName };
    const pdu = hashAndSignEvent(event, serverName, front.key, room.rules);
    return { pdu, eventId: eventIdOf(pdu, room.rules) };
  };
  return {
    serverName,
    front,
    ask,
    newUser,
    signedJoin,
    join: async (destination, room, omitMembers) => {
      const user = newUser();
      const { pdu, eventId } = await signedJoin(destination, room, user);
      const uri = paths.sendJoin(room.roomId, eventId, omitMembers);
      const reply = await ask(destination, uri, { method: "PUT", content: pdu });
      return { room, user, eventId, body: objectOf(reply) };
    },
    close: async () => await resident.close(),
  };
}

export function objectOf(reply: Reply): JsonObject {
  if (!isJsonObject(reply.body)) throw new Error(`no object: ${JSON.stringify(reply)}`);
  return reply.body;
}

/** A list of the answer; empty where there is none. */
export function listOf(body: JsonObject, name: string): readonly JsonValue[] {
  const list = body[name];
  return Array.isArray(list) ? (list as readonly JsonValue[]) : [];
}
